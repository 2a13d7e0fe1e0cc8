"""An executor's connection: it never gives up, and says once when the server is lost and once when it is back."""

import logging
import math

from colonies.client import AsyncClient
from colonies.errors import RpcError
from colonies.keys import PrivateKey
from colonies.tls import Tls

log = logging.getLogger("colonies.executor")


class PatientClient(AsyncClient):
    """A client that rides out every outage."""

    def __init__(
        self,
        host: str,
        port: int,
        colony: str,
        key: PrivateKey | str,
        cluster: str | None = None,
        *,
        tls: Tls | bool | None = None,
    ) -> None:
        """Arguments and errors as for AsyncClient."""
        super().__init__(host, port, colony, key, cluster, retry_for=math.inf, tls=tls)
        self._lost = False
        # How often the server came back.
        self.returns = 0

    def no_answer(self, failure: RpcError) -> None:
        """The server is out of reach."""
        if not self._lost:
            self._lost = True
            log.warning("lost the server, trying until it is back: %s", failure)

    def answered(self) -> None:
        """The server has answered."""
        if self._lost:
            self._lost = False
            self.returns += 1
            log.warning("the server is back")

    _no_answer = no_answer
    _answered = answered
