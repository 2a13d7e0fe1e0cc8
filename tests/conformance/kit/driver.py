"""A driver at work: commands go in, answers and events come out."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.conformance.kit.languages import ROOT, Language, environment
from tests.conformance.kit.matching import Scope, matches, shown

LINE_BYTES = 256 * 1024 * 1024
END_SECONDS = 10.0

Message = dict[str, Any]


class DriverFailedError(AssertionError):
    """The driver died, or said something that is no answer and no event."""


class Driver:
    """One driver process with its answers and events."""

    def __init__(self, language: Language, log: Path) -> None:
        self.language = language
        self._log = log
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._next_id = 0
        self._answers: dict[int, asyncio.Future[Message]] = {}
        # What came and no step has asked for yet, and all that came since `begin`.
        self._unseen: list[Message] = []
        self.history: list[Message] = []
        self._changed = asyncio.Condition()
        self._failure: DriverFailedError | None = None

    async def start(self) -> None:
        """Starts the process."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self.language.folder / "run"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment(),
                limit=LINE_BYTES,
                start_new_session=True,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    @property
    def alive(self) -> bool:
        """Whether it can be told something."""
        return self._process is not None and self._process.returncode is None and self._failure is None

    def begin(self) -> None:
        """A case begins: what came before is nothing to it."""
        self._unseen, self.history = [], []

    async def tell(self, command: Message) -> Message:
        """The answer to a command.

        Raises:
            DriverFailedError: it died before it answered.
        """
        if self._failure is not None:
            raise self._failure
        assert self._process is not None
        assert self._process.stdin is not None
        self._next_id += 1
        number = self._next_id
        self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            with suppress(ConnectionError):  # that it died is told by its output
                self._process.stdin.write(json.dumps({"id": number, **command}).encode() + b"\n")
                await self._process.stdin.drain()
            return await self._answers[number]
        finally:
            del self._answers[number]

    async def event(self, pattern: Any, scope: Scope) -> Message:
        """The first event that matches and was not asked for before; waits for it."""
        async with self._changed:
            while True:
                for event in self._unseen:
                    if matches(pattern, event, scope):
                        self._unseen.remove(event)
                        return event
                if self._failure is not None:
                    raise self._failure
                await self._changed.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal to the driver and all that it has started."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            for process in (*own.children(recursive=True), own):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    async def end(self) -> None:
        """Ends its input, and the process if it does not end by that."""
        process = self._process
        if process is None:
            return
        self.send(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            await self.kill()
        if self._reading is not None:
            await self._reading

    async def kill(self) -> None:
        """Ends it at once, with all that it has started."""
        if self._process is None:
            return
        self.send(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                await self._take(json.loads(line))
        except (ValueError, KeyError, AttributeError) as error:
            await self._fail(f"it wrote a line that is no answer and no event ({error})")
            self.send(signal.SIGKILL)
        code = await process.wait()
        await self._fail(f"the driver ended with {code}: {self.last_words()}")

    async def _take(self, message: Message) -> None:
        if "event" not in message:
            waiting = self._answers.get(message["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            return
        async with self._changed:
            self._unseen.append(message)
            self.history.append(message)
            self._changed.notify_all()

    async def _fail(self, why: str) -> None:
        async with self._changed:
            self._failure = self._failure or DriverFailedError(f"{self.language.title}: {why}")
            self._changed.notify_all()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(self._failure)

    def last_words(self) -> str:
        """The end of what it has written to its standard error."""
        return shown(" | ".join(self._log.read_text(errors="replace").splitlines()[-5:]), 800)
