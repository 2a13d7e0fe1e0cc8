"""Closing attempts: results that are ready at the same time go in one call, and each is sent until the server has it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colonies.client import AsyncClient
from colonies.client.calls import Backoff
from colonies.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    RpcError,
)
from colonies.executor.held import Held
from colonies.executor.outcome import Outcome, failure
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

MAX_CLOSES_IN_CALL = 1_000
# A call may go over this by one result, which is at most 4 MiB itself.
MAX_BYTES_IN_CALL = 1 << 20
SUPERSEDED = "ATTEMPT_SUPERSEDED"

log = logging.getLogger("colonies.executor")


@dataclass(slots=True)
class _Closing:
    held: Held
    outcome: Outcome
    # The server has refused the result that the function gave, and this is what stands in for it.
    replaced: bool = False

    def to_message(self) -> scheduler.Close:
        if isinstance(self.outcome, scheduler.Close.Success):
            return scheduler.Close(attempt=self.held.ref, success=self.outcome)
        return scheduler.Close(attempt=self.held.ref, failure=self.outcome)


class Closer:
    """Sends the ends of attempts."""

    def __init__(self, client: AsyncClient, settled: Callable[[Held], None]) -> None:
        """`settled` is called for each attempt when the server has its result or has said that it is not wanted."""
        self._client = client
        self._settled = settled
        self._waiting: deque[_Closing] = deque()
        self._some = asyncio.Event()

    def put(self, held: Held, outcome: Outcome) -> None:
        """Takes the end of an attempt."""
        self._waiting.append(_Closing(held, outcome))
        self._some.set()

    async def run(self) -> None:
        """Sends what was put, and what will be; never returns."""
        while True:
            await self._some.wait()
            batch = self._next_batch()
            if batch:
                await self._close(batch)
            else:
                self._some.clear()

    def _next_batch(self) -> list[_Closing]:
        batch: list[_Closing] = []
        named: set[str] = set()
        size = 0
        while self._waiting and len(batch) < MAX_CLOSES_IN_CALL and size < MAX_BYTES_IN_CALL:
            process_id = self._waiting[0].held.key[0]
            if process_id in named:
                # Another attempt of the same process: a call may name each once.
                break
            named.add(process_id)
            batch.append(self._waiting.popleft())
            size += batch[-1].outcome.ByteSize()
        return batch

    async def _close(self, batch: Sequence[_Closing]) -> None:
        backoff = Backoff()
        pending = list(batch)
        while pending := [closing for closing in pending if not closing.held.dropped]:
            request = scheduler.CloseProcessesRequest(
                colony_name=self._client.colony, closes=[closing.to_message() for closing in pending]
            )
            try:
                await self._client.call(self._client.scheduler.CloseProcesses, request)
            except RpcError as error:
                if _is_about_one(error):
                    pending = await self._without_culprit(pending, error)
                    continue
                # Not about a result: this executor may be kept out for a while, or its clock is wrong. The results
                # stay in hand.
                wait = backoff.next_seconds(error.retry_delay)
                log.error("cannot close %d processes, trying again: %s", len(pending), error)  # noqa: TRY400 - no fault of the code
                await asyncio.sleep(wait)
            else:
                for closing in pending:
                    self._settled(closing.held)
                return

    async def _without_culprit(self, pending: list[_Closing], error: RpcError) -> list[_Closing]:
        """What is left to send of a call that was refused because of one of its results."""
        if isinstance(error, FailedPreconditionError):
            named = error.metadata.get("process_id")
            culprits = [closing for closing in pending if closing.held.key[0] == named]
            if culprits:
                self._discard(culprits[0], error)
                return [closing for closing in pending if closing is not culprits[0]]
        if len(pending) > 1:
            for closing in pending:
                await self._close([closing])
            return []
        (closing,) = pending
        if isinstance(error, NotFoundError | FailedPreconditionError) or closing.replaced:
            self._discard(closing, error)
            return []
        log.warning("the result of %s was refused: %s", closing.held, error)
        return [_Closing(closing.held, failure(f"its result was refused: {error}"), replaced=True)]

    def _discard(self, closing: _Closing, error: RpcError) -> None:
        log.warning("the result of %s is not wanted: %s", closing.held, error)
        self._settled(closing.held)


def _is_about_one(error: RpcError) -> bool:
    """Whether a close was refused because of one of its results."""
    if isinstance(error, ResourceExhaustedError):
        # The services say why; without a reason it is gRPC itself, and the message is too large for it.
        return not error.reason
    if isinstance(error, FailedPreconditionError):
        return error.reason == SUPERSEDED
    return isinstance(error, InvalidArgumentError | NotFoundError)
