"""Which account the embedded servers run as, and what that account can reach.

Postgres refuses to run as root, and the others have no need to: under root, all three run as `nobody`.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system account."""

    name: str
    uid: int
    gid: int


def embedded_account() -> Account | None:
    """The account the embedded servers are started as; None means the caller's own."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        msg = "the embedded servers do not run as root, and there is no user `nobody` for them; use an ordinary user"
        raise StackError(msg) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def may(account: Account | None, path: Path, permission: int) -> bool:
    """Whether the mode bits of a path grant an account this permission (os.R_OK, os.W_OK, os.X_OK)."""
    if account is None:
        return os.access(path, permission)
    status = path.stat()
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return bool((stat.S_IMODE(status.st_mode) >> shift) & permission == permission)


def barrier(account: Account | None, path: Path) -> Path | None:
    """The outermost directory on the way to a path that the account may not enter."""
    path = path.resolve()
    on_the_way = [*reversed(path.parents), *([path] if path.is_dir() else [])]
    return next((step for step in on_the_way if step.exists() and not may(account, step, os.X_OK)), None)


def check_reachable(account: Account | None, path: Path) -> None:
    """Fails with advice when the account of the embedded servers cannot get to a directory.

    Raises:
        StackError: a directory on the way is closed to it.
    """
    closed = barrier(account, path)
    if closed is not None and account is not None:
        mode = stat.S_IMODE(closed.stat().st_mode)
        msg = (
            f"the embedded servers run as `{account.name}`, who may not enter {closed} (mode {mode:04o}): choose "
            f"a data directory elsewhere, such as /var/lib/colonies, or run: chmod o+x {closed}"
        )
        raise StackError(msg)


def private_directory(path: Path, account: Account | None) -> Path:
    """A directory that only the account (or, without one, the caller) can read."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


def passage(path: Path) -> Path:
    """A directory that holds things of several accounts: under root, open to walk through and closed to list."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path
