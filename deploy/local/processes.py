"""Facts about processes, from /proc, and the two ways the stack starts and ends them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.accounts import Account

LOG_LIMIT_BYTES = 10 * 1024 * 1024
_PROC = Path("/proc")
_BECOME = Path(__file__).with_name("become.py")
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid with the moment the process began, so that a recycled pid is never mistaken for it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The identity of a running process; None when there is no such process, or only its corpse."""
        facts = _stat(pid)
        return None if facts is None else cls(pid, facts.started)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and spaces too: count from the last one.
    fields = text.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return _Stat(parent=int(fields[1]), started=int(fields[19]))


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    return [child for child in _pids() if (facts := _stat(child)) is not None and facts.parent == pid]


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has gone or is not ours to see."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def working_in(directory: Path, *, program: str = "", argument: str = "") -> list[int]:
    """Processes whose working directory is this one and that run this program, or have this argument.

    This finds what a killed supervisor left behind even if it had no time to record it. A shell that somebody opened in
    the directory runs another program and is left alone.
    """
    wanted = str(directory.resolve())
    found = []
    for pid in _pids():
        try:
            if str((_PROC / str(pid) / "cwd").readlink()) != wanted:
                continue
            executable = (_PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
        except OSError:
            continue
        if (program and executable == program) or (argument and argument in command_line(pid)):
            found.append(pid)
    return [pid for pid in found if _stat(pid) is not None]


def end(pids: Iterable[int], signal_number: signal.Signals, seconds: float) -> None:
    """Asks processes to end, waits this long, and kills those that did not."""
    identities = [identity for pid in pids if (identity := ProcessId.of(pid)) is not None]
    _signal(identities, signal_number)
    if _gone(identities, seconds):
        return
    _signal(identities, signal.SIGKILL)
    _gone(identities, 5.0)


def _signal(identities: Iterable[ProcessId], signal_number: signal.Signals) -> None:
    for identity in identities:
        if identity.alive():
            try:
                os.kill(identity.pid, signal_number)
            except ProcessLookupError:
                continue


def _gone(identities: Sequence[ProcessId], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(identity.alive() for identity in identities):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def launch(
    command: Sequence[str | Path],
    *,
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process in its own session, in its private directory, writing to its log.

    Its own session keeps a Ctrl-C at the terminal from reaching children before their supervisor has drained them. With an
    account it is first a Python that becomes that account: see become.py.
    """
    becoming = [sys.executable, "-I", "-S", _BECOME, account.uid, account.gid] if account else []
    rotate(log)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [str(part) for part in (*becoming, *command)],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(descriptor)


def rotate(log: Path) -> None:
    """Puts a log that has grown past its limit aside, in place of the one put aside before."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
