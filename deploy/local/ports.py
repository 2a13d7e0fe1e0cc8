"""Ports on this machine: free ones, kept ones, and who has a taken one."""

import errno
import ipaddress
import random
import socket
import threading
from contextlib import suppress
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.files import write_atomically

LOOPBACK = "127.0.0.1"
# Below the range the kernel takes the ports of outgoing connections from, so that a port kept for the next start is not
# lost to somebody's outgoing connection meanwhile.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200

_handed_out: dict[int, socket.socket] = {}
_guard = threading.Lock()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a listener could bind here now."""
    with suppress(OSError):
        _try_bind(host, port)
        return True
    return False


def free_port() -> int:
    """A free loopback port, and this process's for as long as it lives: no two children are ever given one port.

    Nor do two processes that look at the same time, each for its own children, get the same one.
    """
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - not a secret
        if is_free(port) and _claim(port):
            return port
    msg = f"no free port found on {LOOPBACK} between {_FIRST} and {_LAST}"
    raise StackError(msg)


def kept_port(path: Path) -> int:
    """The port written in a file if it is still free, or else a new one, which is then written there."""
    with suppress(OSError, ValueError):
        port = int(path.read_text(encoding="ascii"))
        if is_free(port) and (port in _handed_out or _claim(port)):
            return port
    port = free_port()
    write_atomically(path, f"{port}\n")
    return port


def check_front_door(host: str, port: int) -> None:
    """Fails with advice when the address that clients are to use cannot be listened on.

    Raises:
        StackError: it is taken, or not an address of this machine, or not allowed.
    """
    try:
        _try_bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is taken{_by_whom(port)}; choose another with: colonies up --port PORT"
        elif error.errno == errno.EACCES:
            msg = f"port {port} is reserved for the administrator; choose one above 1023 with: colonies up --port PORT"
        else:
            msg = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise StackError(msg) from None


def _claim(port: int) -> bool:
    """Takes the name that stands for a port, before anybody listens on it. False if it is taken, by this process too.

    An abstract name is as wide as the ports are (one network namespace), is in no directory, and is given back by the
    kernel when the process ends, however it ends.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0colonies-port-{port}")
    except OSError:
        claim.close()
        return False
    with _guard:
        _handed_out[port] = claim
    return True


def _try_bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of a former listener that are still closing are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def _by_whom(port: int) -> str:
    """` by NAME (pid N)` as far as it can be told; another user's process stays nameless to an ordinary user."""
    try:
        import psutil
    except ImportError:
        return ""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listening and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
