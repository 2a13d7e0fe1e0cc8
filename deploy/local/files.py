"""Small files that must be whole or absent: secrets, ports, state."""

import os
import secrets
import stat
from pathlib import Path

from deploy.local.accounts import Account
from deploy.local.errors import StackError


def write_atomically(path: Path, text: str, *, mode: int = 0o600, owner: Account | None = None) -> None:
    """Replaces a file in one step; a reader sees the old text or the new, and so does the machine after a crash."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            os.chown(scratch, owner.uid, owner.gid)
        scratch.chmod(mode)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def secret(path: Path) -> str:
    """The password in a file that only its owner can read; made on first use.

    Raises:
        StackError: others can read it.
    """
    if not path.exists():
        write_atomically(path, secrets.token_hex(24) + "\n")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        msg = f"the password file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}"
        raise StackError(msg)
    return path.read_text(encoding="ascii").strip()


def make_open(path: Path) -> None:
    """Makes what is missing on the way to a path. Under root, a strict umask would close it to the embedded servers."""
    for step in [*reversed(path.parents), path]:
        if not step.exists():
            step.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                step.chmod(0o755)
