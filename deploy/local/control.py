"""What `colonies up`, `down` and `status` call.

Nothing here imports the packages of the `server` extra, so that a machine without them gets a sentence and not a trace.
"""

import fcntl
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local import binaries
from deploy.local.accounts import embedded_account
from deploy.local.certificates import Certificates
from deploy.local.errors import StackError, describe_os_error
from deploy.local.layout import Layout
from deploy.local.processes import ProcessId, end, log_tail, rotate
from deploy.local.settings import StackSettings, default_data_dir
from deploy.local.state import ProcessStatus, StackState, StackStatus

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "StackError",
    "StackSettings",
    "StackState",
    "StackStatus",
    "certificate_expiries",
    "default_data_dir",
    "down",
    "renew_certificates",
    "status",
    "up",
]

OnProgress = Callable[[str], None]
_LOOK_SECONDS = 0.05
_STOP_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_HANDOVER_SECONDS = 2.0


def up(settings: StackSettings, *, detach: bool = True, on_progress: OnProgress = lambda _: None) -> StackState:
    """Brings the stack up and returns when all of it is healthy. One that is up already is returned as it is.

    With `detach=False` the supervisor is this very process: it returns when SIGINT or SIGTERM has ended the stack.

    Raises:
        StackError: it cannot be brought up. The text is one line; `log_tail` holds the end of the log that tells more.
    """
    if absent := binaries.missing():
        msg = f"the server packages are not installed ({', '.join(absent)} missing); run: {binaries.INSTALL}"
        raise StackError(msg)
    layout = Layout(settings.data_dir.absolute())
    if not status(layout.root).running:
        layout.prepare()
    try:
        lock = _try_lock(layout)
        if lock is None:
            return _existing(layout, settings, on_progress)
        try:
            _end_crashed_run(layout, on_progress)
            layout.state.unlink(missing_ok=True)
            if not detach:
                return _run_here(settings, on_progress)
            supervisor = _launch_supervisor(layout, settings, lock)
        finally:
            os.close(lock)
    except OSError as error:
        raise describe_os_error(error, layout.root) from error
    try:
        return _await_ready(layout, settings, lambda: supervisor.poll() is None, on_progress)
    except BaseException:
        # Also on Ctrl-C: an `up` that did not succeed leaves nothing running.
        if supervisor.poll() is None:
            supervisor.terminate()
        with suppress(subprocess.TimeoutExpired):
            supervisor.wait(_STOP_SECONDS)
        raise
    finally:
        if supervisor.returncode is None:
            supervisor.returncode = 0  # It outlives this process; Python would warn of that.


def down(data_dir: Path, *, on_progress: OnProgress = lambda _: None) -> bool:
    """Ends the stack in good order, and what a crashed one left running. False when nothing ran.

    Raises:
        StackError: it does not end.
    """
    layout = Layout(data_dir.absolute())
    if not layout.lock.exists():
        return False
    try:
        with _locked(layout) as free:
            if free:
                return _end_crashed_run(layout, on_progress)
    except OSError as error:
        raise describe_os_error(error, layout.root) from error
    state = _state_of_owner(layout)
    on_progress(f"stopping the stack at {state.address} (pid {state.pid})")
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while state.supervisor_alive:
        if time.monotonic() > deadline:
            on_progress("the supervisor does not end; killing it")
            end([state.pid], signal.SIGKILL, 5.0)
            _end_crashed_run(layout, on_progress)
            break
        time.sleep(_LOOK_SECONDS)
    return True


def status(data_dir: Path) -> StackStatus:
    """What runs in a data directory. Never fails for lack of a stack: then nothing is running."""
    state = StackState.load(Layout(data_dir.absolute()).state)
    if state is None:
        return StackStatus(running=False, state=None, processes=())
    running = state.supervisor_alive
    processes = []
    for process in state.processes:
        alive = _identity(process) is not None
        processes.append(replace(process, alive=alive, healthy=running and alive and process.healthy))
    return StackStatus(running=running, state=state, processes=processes)


def renew_certificates(data_dir: Path) -> None:
    """Gives a stack new certificates. One that runs takes them for new connections, within seconds.

    Raises:
        StackError: it has none, or they cannot be replaced.
    """
    certificates = _certificates(data_dir)
    try:
        certificates.renew()
    except OSError as error:
        raise describe_os_error(error, data_dir) from error


def certificate_expiries(data_dir: Path) -> dict[str, datetime]:
    """When the certificates of a stack expire, by name; `ca` is its authority's. Errors as for `renew_certificates`."""
    return _certificates(data_dir).expiries()


def _certificates(data_dir: Path) -> Certificates:
    certificates = Certificates(data_dir.absolute(), account=embedded_account())
    if not certificates.exist:
        msg = f"there are no certificates in {data_dir}: make them with colonies up --tls"
        raise StackError(msg)
    return certificates


def _identity(process: ProcessStatus) -> ProcessId | None:
    if process.pid is None or process.began is None:
        return None
    identity = ProcessId(process.pid, process.began)
    return identity if identity.alive() else None


def _try_lock(layout: Layout) -> int | None:
    """The lock of the data directory as an open file; None when a supervisor holds it.

    A supervisor that was just killed is seen to be dead a moment before the kernel has let go of its lock: without a
    living owner on record, the lock is waited for.
    """
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = StackState.load(layout.state)
            if (state is not None and state.supervisor_alive) or time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(_LOOK_SECONDS)
        else:
            return descriptor


@contextmanager
def _locked(layout: Layout) -> Iterator[bool]:
    """Holds the lock, if it can be had: yields whether."""
    lock = _try_lock(layout)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _launch_supervisor(layout: Layout, settings: StackSettings, lock: int) -> subprocess.Popen[bytes]:
    log = layout.log("supervisor")
    rotate(log)
    path = importlib.import_module("deploy.local.stack").import_path()
    with log.open("ab") as output:
        # The lock goes along as an open file, so that there is no moment at which nobody holds it.
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.local", str(lock)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=layout.root,
            env={**os.environ, **path},
            pass_fds=[lock],
            start_new_session=True,
            umask=0o077,
        )
    if supervisor.stdin is not None:
        with supervisor.stdin as pipe:
            pipe.write(settings.to_json().encode())
    return supervisor


def _run_here(settings: StackSettings, on_progress: OnProgress) -> StackState:
    stopping = threading.Event()
    latest: list[StackState] = []
    teller = _Teller(on_progress)

    def on_state(state: StackState) -> None:
        latest[:] = [state]
        teller.tell(state)

    def stop(_number: int, _frame: "FrameType | None") -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        importlib.import_module("deploy.local.stack").Stack(settings, on_state).run(stopping)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return latest[0]


def _existing(layout: Layout, settings: StackSettings, on_progress: OnProgress) -> StackState:
    """The stack that somebody else brought, or is just bringing, up."""
    state = _await_ready(layout, settings, lambda: _owner_lives(layout), on_progress)
    if settings.tls is not None and settings.tls != bool(state.ca_file):
        now = "with" if state.ca_file else "without"
        msg = f"the stack at {state.address} runs {now} TLS, which is settled at its start: run colonies down first"
        raise StackError(msg)
    return replace(state, already_running=True)


def _owner_lives(layout: Layout) -> bool:
    with _locked(layout) as free:
        return not free


def _state_of_owner(layout: Layout) -> StackState:
    """The state of the supervisor that holds the lock. It writes one within moments of getting the lock."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        state = StackState.load(layout.state)
        if state is not None and state.supervisor_alive:
            return state
        time.sleep(_LOOK_SECONDS)
    msg = f"another process holds {layout.lock} but says nothing of itself; see {layout.log('supervisor')}"
    raise StackError(msg)


def _await_ready(layout: Layout, settings: StackSettings, alive: Callable[[], bool], on_progress: OnProgress) -> StackState:
    teller = _Teller(on_progress)
    deadline = time.monotonic() + settings.ready_seconds + _GRACE_SECONDS
    while True:
        lives = alive()
        state = StackState.load(layout.state)
        if state is not None:
            if state.error:
                raise StackError(
                    state.error, log=Path(state.error_log) if state.error_log else None, log_tail=state.error_log_tail
                )
            teller.tell(state)
            if lives and state.ready and state.supervisor_alive:
                return state
        log = layout.log("supervisor")
        if not lives:
            msg = f"the supervisor ended before the stack was up; its log is {log}"
            raise StackError(msg, log=log, log_tail=log_tail(log))
        if time.monotonic() > deadline:
            msg = f"the stack is not up after {settings.ready_seconds:.0f} s; its log is {log}"
            raise StackError(msg, log=log, log_tail=log_tail(log))
        time.sleep(_LOOK_SECONDS)


class _Teller:
    """Turns states into one line per piece of news."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._told: set[str] = set()

    def tell(self, state: StackState) -> None:
        """Tells what is new."""
        for process in state.processes:
            if process.healthy:
                self._once(f"{process.name} is up")
        if state.ready:
            self._once(f"listening on {state.address}")

    def _once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._on_progress(line)


def _end_crashed_run(layout: Layout, on_progress: OnProgress) -> bool:
    """Ends what a killed supervisor left running: services first, Postgres last. The caller holds the lock.

    Whatever it had no time to write down is found by its working directory when its successor is started.
    """
    state = StackState.load(layout.state)
    left = [each for each in (state.processes if state else ()) if _identity(each) is not None]
    if not left:
        return False
    on_progress(f"ending {len(left)} processes that a crashed run left behind")
    servers = ("envoy", "valkey", "postgres")
    end([each.pid for each in left if each.pid and each.name not in servers], signal.SIGTERM, 10.0)
    for name in servers:
        # Postgres takes SIGTERM as a request to wait for its clients.
        stop_signal = signal.SIGINT if name == "postgres" else signal.SIGTERM
        end([each.pid for each in left if each.pid and each.name == name], stop_signal, 10.0)
    return True
