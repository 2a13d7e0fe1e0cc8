"""The data directory: what lies where, and whether it can be used at all."""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from colonies.errors import KeyFileError
from colonies.keys import PrivateKey
from deploy.local.accounts import check_reachable, embedded_account, passage
from deploy.local.errors import StackError, describe_os_error
from deploy.local.files import make_open, write_atomically
from deploy.local.settings import SERVICES

NEEDED_BYTES = 300 * 1024 * 1024
SERVER_OWNER_KEY = "server-owner"
COLONY_OWNER_KEY = "colony-owner"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under a data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "lock"

    @property
    def state(self) -> Path:
        """What the supervisor says of itself and its children."""
        return self.root / "state.json"

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.root / "logs" / f"{name}.log"

    def key(self, name: str) -> Path:
        """A private key file; the names are `server-owner`, `colony-owner` and `service-<service>`."""
        return self.root / "keys" / f"{name}.key"

    def run(self, name: str) -> Path:
        """The working directory of a service process."""
        return self.root / "run" / name

    def prepare(self) -> None:
        """Makes the directory, and makes sure that a stack can live there.

        Raises:
            StackError: it cannot; says why and what to do.
        """
        try:
            make_open(self.root)
            passage(self.root)
            for folder in ("logs", "keys", "run"):
                (self.root / folder).mkdir(exist_ok=True)
                (self.root / folder).chmod(0o700)
            write_atomically(self.root / ".writable", "")
            (self.root / ".writable").unlink()
        except (FileExistsError, NotADirectoryError) as error:
            msg = f"{error.filename or self.root} is not a directory; choose another data directory"
            raise StackError(msg) from error
        except OSError as error:
            raise describe_os_error(error, self.root) from error
        check_reachable(embedded_account(), self.root)
        free = shutil.disk_usage(self.root).free
        if free < NEEDED_BYTES:
            msg = (
                f"the disk that holds {self.root} has {free // 2**20} MB free, of {NEEDED_BYTES // 2**20} MB needed: "
                f"free some space there, or choose another data directory"
            )
            raise StackError(msg)

    def cluster_id(self) -> str:
        """The name of this cluster, which every signed call carries; made up on first use."""
        path = self.root / "cluster"
        if not path.exists():
            write_atomically(path, f"local-{secrets.token_hex(4)}\n", mode=0o644)
        return path.read_text(encoding="ascii").strip()

    def tls(self, wanted: bool | None) -> bool:
        """Whether this stack speaks TLS: as is wanted now, or else as it was the last time; written down for the next."""
        path = self.root / "tls"
        if wanted is None:
            return path.exists() and path.read_text(encoding="ascii").strip() == "on"
        write_atomically(path, "on\n" if wanted else "off\n", mode=0o644)
        return wanted

    def identities(self) -> dict[str, str]:
        """The identities of all keys by name; the keys are made on first use.

        Raises:
            StackError: a key file is damaged, or readable by others.
        """
        names = [SERVER_OWNER_KEY, COLONY_OWNER_KEY, *(f"service-{service}" for service in SERVICES)]
        try:
            return {name: PrivateKey.load_or_create(self.key(name)).identity for name in names}
        except KeyFileError as error:
            raise StackError(str(error)) from error
