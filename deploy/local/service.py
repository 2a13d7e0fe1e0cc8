"""A service process as the supervisor sees it: a command, an environment, a port, a health answer."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from colonies.tls import Tls
from deploy.local.files import write_atomically
from deploy.local.health import HealthProbe, HttpProbe, Probe
from deploy.local.ports import LOOPBACK, kept_port
from deploy.local.processes import end, launch, working_in
from deploy.local.settings import GATEWAY

DRAIN_SECONDS = 15.0
_LEFTOVER_SECONDS = 3.0


class Service:
    """One replica of a service. `start` only launches it: services wait for one another, so none waits for them."""

    def __init__(
        self,
        service: str,
        number: int,
        command: Sequence[str],
        *,
        directory: Path,
        log: Path,
        environment: Callable[[], Mapping[str, str]],
        tls: Tls | None = None,
    ) -> None:
        """`environment` is asked at every start: addresses may have changed since the last. `tls` is to ask for health with."""
        self.service = service
        self.name = service if number == 1 else f"{service}-{number}"
        self.log = log
        self._command = command
        self._directory = directory
        self._environment = environment
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._probe: Probe | None = None
        self._port: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.alive() else None

    @property
    def port(self) -> int | None:
        """Where it listens, once launched."""
        return self._port

    def start(self) -> None:
        """Launches it, on the ports of last time if those are free."""
        self._directory.mkdir(parents=True, exist_ok=True)
        end(working_in(self._directory, argument=self._command[-1]), signal.SIGTERM, _LEFTOVER_SECONDS)
        self._port = kept_port(self._directory / "port")
        metrics_port = kept_port(self._directory / "metrics-port")
        environment = {
            **self._environment(),
            "COLONIES_LISTEN": f"{LOOPBACK}:{self._port}",
            "COLONIES_METRICS_LISTEN": f"{LOOPBACK}:{metrics_port}",
        }
        self._close_probe()
        self._process = launch(self._command, directory=self._directory, environment=environment, log=self.log)
        kind = HttpProbe if self.service == GATEWAY else HealthProbe
        self._probe = kind(f"{LOOPBACK}:{self._port}", self._tls)
        write_atomically(self._directory / "pid", f"{self._process.pid}\n")

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def healthy(self) -> bool:
        """Whether it says that it serves."""
        return self._probe is not None and self._probe.serving()

    def drain(self) -> None:
        """Asks it to finish what it has in hand and end; does not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Drains it; kills it when that takes too long."""
        self.drain()
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close_probe()

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None and self._process.poll() is None:
            # It leads a process group of its own, and whatever it started goes with it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close_probe()

    def _close_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None
