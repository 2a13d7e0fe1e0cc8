"""What a caller decides about a local stack, and where it lives by default."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

DATA_DIR_VARIABLE = "COLONIES_DATA_DIR"
DEFAULT_PORT = 50080
SERVICES = ("auth", "registry", "scheduler", "cron")
# Turns HTTP/JSON into calls: a process like a service's, but one that holds no key and is trusted with nothing.
GATEWAY = "gateway"
PROCESSES = (*SERVICES, GATEWAY)


def default_data_dir() -> Path:
    """$COLONIES_DATA_DIR, or where the system keeps such data: of the machine for root, of the user for others."""
    if chosen := os.environ.get(DATA_DIR_VARIABLE):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/colonies")
    if data_home := os.environ.get("XDG_DATA_HOME"):
        return Path(data_home) / "colonies"
    return Path("~/.local/share/colonies").expanduser()


@dataclass(frozen=True, slots=True)
class StackSettings:
    """A local stack as it is asked for.

    Attributes:
        data_dir: holds everything: keys, databases, logs, state.
        host, port: the one address that clients use.
        tls: whether the stack speaks TLS, with certificates of its own authority; None = as it did the last time.
        allow_plaintext: let clients of other machines come in plaintext.
        postgres_url, redis_url: servers to use in place of the embedded ones.
        allowed_origins: whose pages, besides the stack's own, may call from a browser.
        replicas: how many processes of a service, where that is not one.
        service_command: how a service is run; `{name}` is its name. For tests.
        ready_seconds: how long `up` waits for everything to be healthy.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: bool | None = None
    allow_plaintext: bool = False
    allowed_origins: tuple[str, ...] = ()
    postgres_url: str | None = None
    redis_url: str | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    service_command: tuple[str, ...] = (sys.executable, "-P", "-m", "services.{name}")
    ready_seconds: float = 90.0

    def to_json(self) -> str:
        """For the supervisor, which reads it from its standard input: a command line would show the passwords."""
        return json.dumps({**asdict(self), "data_dir": str(self.data_dir)})

    @classmethod
    def from_json(cls, text: str) -> "StackSettings":
        """The reverse of `to_json`."""
        values = json.loads(text)
        values["data_dir"] = Path(values["data_dir"])
        for name in ("service_command", "allowed_origins"):
            values[name] = tuple(values[name])
        return cls(**values)
