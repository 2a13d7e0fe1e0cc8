"""What the supervisor writes down for everybody else: state.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.files import write_atomically
from deploy.local.processes import ProcessId


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process of the stack."""

    name: str
    pid: int | None
    alive: bool
    healthy: bool
    restarts: int
    port: int | None
    # The moment the process began, in kernel ticks: tells it from a later process with its pid.
    began: int | None = None


@dataclass(frozen=True, slots=True)
class StackState:
    """The stack as its supervisor last wrote it."""

    pid: int
    began: int
    phase: str
    address: str
    cluster_id: str
    data_dir: str
    started_at: float
    identities: dict[str, str]
    processes: tuple[ProcessStatus, ...] = ()
    error: str = ""
    error_log: str = ""
    error_log_tail: str = ""
    already_running: bool = False
    # Whom clients are to trust; empty when the stack speaks plaintext.
    ca_file: str = ""

    @property
    def url(self) -> str:
        """Where browsers find the gateway's pages."""
        host, _, port = self.address.rpartition(":")
        here = "127.0.0.1" if host in {"0.0.0.0", "::", "[::]"} else host  # noqa: S104 - compared with
        return f"{'https' if self.ca_file else 'http'}://{here}:{port}/"

    @property
    def supervisor_alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return ProcessId(self.pid, self.began).alive()

    @property
    def ready(self) -> bool:
        """Whether everything was healthy at once since the start."""
        return self.phase == "ready"

    def key_file(self, name: str) -> Path:
        """A key of the stack: `server-owner`, `colony-owner` or `service-<service>`."""
        return Path(self.data_dir) / "keys" / f"{name}.key"

    def save(self, path: Path) -> None:
        """Writes it whole, readable by the owner only."""
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "StackState | None":
        """Reads it; None when there is none, or none that makes sense (left by another version, say)."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            processes = tuple(ProcessStatus(**entry) for entry in values.pop("processes"))
            return cls(**values, processes=processes)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class StackStatus:
    """The answer to `colonies status`."""

    running: bool
    state: StackState | None
    processes: Sequence[ProcessStatus]

    @property
    def healthy(self) -> bool:
        """Whether every process is there and answers."""
        return self.running and bool(self.processes) and all(each.alive and each.healthy for each in self.processes)
