"""One case as one language plays it: what all its steps share."""

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from colonies.client import AsyncClient
from colonies.keys import PrivateKey
from tests.conformance.kit.driver import Driver, Message
from tests.conformance.kit.matching import MismatchError, Scope
from tests.conformance.kit.stage import Colony, Stage
from tests.fault.proxy import Mode

STOP_SECONDS = 45.0
# Of an attempt's events these say that its function was called.
_CALLED = frozenset({"started", "effect"})


@dataclass
class Play:
    """What the steps of a case work with.

    Attributes:
        scope: the variables.
        middle: called where the case says that it is in its middle; returns when all have come there and the services were killed.
        flush: makes valkey forget everything, when all have come there.
        later: commands that were given, and streams that are followed, of which is asked later.
        streams: the method of each stream.
        running: executors that were started and have not stopped.
        paused: whether the driver stands still.
        seen: what a step that waits has seen last, for its message if it waits in vain.
    """

    stage: Stage
    colony: Colony
    driver: Driver
    middle: Callable[[], Awaitable[None]]
    flush: Callable[[], Awaitable[None]]
    scope: Scope = field(default_factory=dict)
    later: dict[str, tuple[Message, asyncio.Task[Message | None] | asyncio.Task[None]]] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    paused: bool = False
    seen: str = ""

    def begin(self, row: dict[str, Any]) -> None:
        """Names that no other case and no other row has, and keys that nobody knows."""
        unique = secrets.token_hex(4)
        executor, stranger = PrivateKey.generate(), PrivateKey.generate()
        self.driver.begin()
        self.scope = {
            "colony": self.colony.name,
            "cluster": self.stage.cluster,
            "address": f"127.0.0.1:{self.colony.way.port}",
            "name": f"executor-{unique}",
            "type": f"type-{unique}",
            "request": f"request-{unique}",
            "user_seed": self.colony.user_key.hex,
            "user_identity": self.colony.user_key.identity,
            "seed": executor.hex,
            "identity": executor.identity,
            "stranger_seed": stranger.hex,
            "nowhere": "00000000-0000-4000-8000-000000000000",
            **row,
        }

    @asynccontextmanager
    async def acting(self, role: str) -> AsyncIterator[AsyncClient]:
        """A client for "user", "owner", "executor", "rival" or "stranger"."""
        if role in {"user", "owner"}:
            yield self.colony.user if role == "user" else self.colony.owner
            return
        if role == "rival" and "rival_seed" not in self.scope:
            self.scope["rival_seed"] = PrivateKey.generate().hex
        key = PrivateKey.from_hex(self.scope[{"executor": "seed", "rival": "rival_seed", "stranger": "stranger_seed"}[role]])
        async with self.stage.client(self.colony.name, key) as client:
            yield client

    async def finish(self) -> None:
        """What is left running is ended as it should be, and nothing was done twice.

        Raises:
            MismatchError: it does not end, or was.
        """
        await self.restore()
        for _, task in self.later.values():
            task.cancel()
        for name in sorted(self.running):
            await self.driver.tell({"do": "stop_executor", "executor": name})
            await self.stopped(name)
        for name in sorted(self.streams):
            await self.driver.tell({"do": "end_stream", "stream": name})
        calls = Counter(
            (event["process_id"], event["attempt"]) for event in self.driver.history if event.get("event") in _CALLED
        )
        twice = [attempt for attempt, count in calls.items() if count > 1]
        if twice:
            msg = f"run more than once: process and attempt {twice}"
            raise MismatchError(msg)

    async def stopped(self, executor: str) -> Message:
        """The event that ends an executor.

        Raises:
            MismatchError: it does not come.
        """
        try:
            async with asyncio.timeout(STOP_SECONDS):
                event = await self.driver.event({"event": "stopped", "executor": executor}, self.scope)
        except TimeoutError:
            msg = f"executor {executor!r} has not stopped {STOP_SECONDS:g} s after it was told to"
            raise MismatchError(msg) from None
        self.running.discard(executor)
        return event

    async def restore(self) -> None:
        """Whatever the case did to the driver and its way is undone."""
        if self.paused:
            self.driver.send(signal.SIGCONT)
        if self.colony.way.mode is not Mode.PASS:
            await self.colony.way.turn(Mode.PASS)
