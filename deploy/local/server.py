"""What the three embedded servers have in common: a private directory, one owner, a start and a stop that wait."""

import fcntl
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

from deploy.local.accounts import check_reachable, embedded_account, passage
from deploy.local.errors import StackError, describe_os_error, disk_full
from deploy.local.processes import children, end, launch, log_tail, working_in

_POLL_SECONDS = 0.02
_MINIMAL_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}


class Child(Protocol):
    """A process that the supervisor keeps alive."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def log(self) -> Path:
        """Where its output goes."""

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""

    @property
    def port(self) -> int | None:
        """Where it listens, once that is known."""

    def start(self) -> None:
        """Starts it. Embedded servers are ready on return; services are only launched."""

    def alive(self) -> bool:
        """Whether the process runs."""

    def healthy(self) -> bool:
        """Whether it answers."""

    def stop(self, seconds: float = ...) -> None:
        """Ends it in good order; kills it when that takes longer than this."""

    def kill(self) -> None:
        """Ends it as a power cut would."""


class EmbeddedServer(ABC):
    """A server from a wheel, living in one directory, with one owner at a time.

    Not for use by two threads at once, but for `stop` and `kill`, which may interrupt a `start`.
    """

    name: ClassVar[str]
    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 60.0

    def __init__(self, directory: Path, *, log: Path | None = None) -> None:
        self.directory = directory.absolute()
        self.log = log or self.directory / "log"
        self.account = embedded_account()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._port: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.alive() else None

    @property
    def port(self) -> int | None:
        """Where it listens, once started."""
        return self._port

    @property
    @abstractmethod
    def home(self) -> Path:
        """The working directory of the process: private to it, so that what is left of a crashed run is found there."""

    @abstractmethod
    def healthy(self) -> bool:
        """Whether it answers right now."""

    @abstractmethod
    def _prepare(self) -> Sequence[str | Path]:
        """Readies files and returns the command to run."""

    def _settle(self) -> None:
        """What is to be done once it answers."""
        return

    def start(self) -> None:
        """Starts the server and waits until it answers.

        What a crashed owner left running in the directory is ended first.

        Raises:
            StackError: it cannot start; says why.
        """
        if self.alive():
            return
        try:
            passage(self.directory)
            check_reachable(self.account, self.directory)
            self._own()
            self.end_leftovers()
            command = self._prepare()
            self._process = launch(
                command, directory=self.home, environment=self._environment(), log=self.log, account=self.account
            )
        except OSError as error:
            raise describe_os_error(error, self.directory) from error
        try:
            self._await_answer()
            self._settle()
        except BaseException:
            self.kill()
            raise

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, seconds: float = 30.0) -> None:
        """Shuts down in good order; kills what has not ended by then."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(self.stop_signal)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._disown()

    def kill(self) -> None:
        """SIGKILL to the process and its children, as a power cut would end them."""
        process = self._process
        if process is not None and process.poll() is None:
            # The children are killed by name: those of Postgres each lead a process group of their own.
            family = children(process.pid)
            process.kill()
            process.wait()
            end(family, signal.SIGKILL, 5.0)
        self._disown()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> Mapping[str, str]:
        return _MINIMAL_ENVIRONMENT

    def _await_answer(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self.healthy():
            if not self.alive():
                raise self._failure("stopped while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {self.start_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _failure(self, what: str) -> StackError:
        tail = log_tail(self.log)
        if "No space left on device" in tail:
            return disk_full(self.directory)
        return StackError(f"{self.name} {what}; its log is {self.log}", log=self.log, log_tail=tail)

    def _own(self) -> None:
        """One owner per directory. The kernel lets go of the lock when the owner dies, however it dies."""
        if self._lock is not None:
            return
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            msg = f"{self.name} in {self.directory} belongs to another running process"
            raise StackError(msg) from None
        self._lock = descriptor

    def _disown(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def end_leftovers(self) -> None:
        """Ends what a crashed owner left running here."""
        if self.home.exists():
            end(working_in(self.home, program=self.program), self.stop_signal, 10.0)
