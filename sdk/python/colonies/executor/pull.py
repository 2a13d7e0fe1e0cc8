"""Asking for work: by a stream that the server keeps filled, or by long polls where streams do not get through."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast, get_args

import grpc

from colonies.client.calls import LONG_POLL_GRACE_SECONDS, STREAM_SILENCE_SECONDS, Backoff, is_outage, to_error
from colonies.errors import UnavailableError
from colonies.executor.connection import PatientClient
from colonies.executor.state import States
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

MAX_ASSIGN = 100
MAX_IN_FLIGHT = 1_000
LONG_POLL_SECONDS = 30.0
# A stream that ends this soon, with nothing come through, was cut; after so many in a row streams are given up for a while.
CUT_SECONDS = 2.0
MAX_CUTS = 3
# When to try streams again: a proxy may be set right, a server replaced by a newer one.
STREAM_AGAIN_SECONDS = 300.0

# What proxies make of answers that are not gRPC's, and services of their own faults: it says nothing about this executor.
_BREAKDOWNS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

log = logging.getLogger("colonies.executor")

How = Literal["auto", "stream", "poll"]
HOWS: tuple[str, ...] = get_args(How)


class Pull:
    """Asks for work and hands it on, through outages of any length."""

    def __init__(
        self,
        client: PatientClient,
        how: How,
        concurrency: int,
        free: Callable[[], int],
        take: Callable[[Iterable[scheduler.Assignment]], None],
        states: States,
    ) -> None:
        """`free` tells how many places are free, and `take` is given what was assigned."""
        self._client = client
        self._how = how
        self._concurrency = concurrency
        self._free = free
        self._take = take
        self._states = states
        self._cuts = 0
        # By the event loop's clock.
        self._polls_until = 0.0
        self._returns_seen = 0
        self._call: grpc.aio.UnaryStreamCall[Any, Any] | None = None
        self._reopening = False
        self.backoff = Backoff()
        self.slot_freed = asyncio.Event()

    async def run(self) -> None:
        """Never returns; may be called again after it raised.

        Raises:
            RpcError: the server refuses to give work.
        """
        while True:
            if self._streams():
                await self._stream()
            else:
                await self._poll()

    def reopen(self) -> None:
        """Ends the stream that there is and opens another one at once, with the key of now. What was on its way comes again."""
        if self._call is not None:
            self._reopening = True
            self._call.cancel()

    def _streams(self) -> bool:
        if self._how == "poll" or self._concurrency > MAX_IN_FLIGHT:
            return False
        if self._client.returns != self._returns_seen:
            # What looked like streams being cut was an outage, or has ended with one.
            self._returns_seen = self._client.returns
            self._cuts, self._polls_until = 0, 0.0
        return self._how == "stream" or asyncio.get_running_loop().time() >= self._polls_until

    async def _poll(self) -> None:
        free = self._free()
        if free <= 0:
            self.slot_freed.clear()
            await self.slot_freed.wait()
            return
        request = scheduler.AssignProcessesRequest(
            colony_name=self._client.colony, max_processes=min(free, MAX_ASSIGN), wait_ms=int(LONG_POLL_SECONDS * 1000)
        )
        timeout = LONG_POLL_SECONDS + LONG_POLL_GRACE_SECONDS
        response = await self._client.call(self._client.scheduler.AssignProcesses, request, timeout=timeout)
        self._states.enter("ready")
        self.backoff.reset()
        self._take(response.assignments)

    async def _stream(self) -> None:
        """Reads one stream to its end, and waits until it is time for the next."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        request = scheduler.WatchAssignmentsRequest(colony_name=self._client.colony, max_in_flight=self._concurrency)
        self._reopening = False
        call = self._call = self._client.scheduler.WatchAssignments(request)
        silence = _Silence(call)
        failure: grpc.aio.AioRpcError | None = None
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                if not silence.heard_any:
                    self._comes_through()
                silence.hear()
                self._take(cast("scheduler.WatchAssignmentsResponse", message).assignments)
        except grpc.aio.AioRpcError as error:
            failure = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not (silence.over or self._reopening) or (task is not None and task.cancelling()):
                raise
        finally:
            self._call = None
            silence.stop()
            call.cancel()
        if self._reopening:
            return
        self._states.enter("reconnecting")
        broken = failure is not None and failure.code() in _BREAKDOWNS
        if failure is not None and not broken and not is_outage(failure):
            self._refused(failure)
        elif not silence.heard_any and (broken or loop.time() - opened_at < CUT_SECONDS):
            self._was_cut(failure)
        else:
            self._cuts = 0
        await asyncio.sleep(self.backoff.next_seconds())

    def _comes_through(self) -> None:
        self._client.answered()
        self._states.enter("ready")
        self._cuts = 0
        self.backoff.reset()

    def _refused(self, failure: grpc.aio.AioRpcError) -> None:
        """The server is there and gives no stream.

        Raises:
            RpcError: it would give no work to a poll either.
        """
        self._client.answered()
        if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise to_error(failure, self._client.address) from None
        if self._how == "auto":
            log.info("the server has no streams of assignments; asking by long polls")
            self._give_up_streams()
        else:
            log.warning("the server has no streams of assignments; trying again")

    def _was_cut(self, failure: grpc.aio.AioRpcError | None) -> None:
        """A stream ended at once: this is an outage, which a poll rides out, or only polls get through."""
        self._cuts += 1
        error = None if failure is None else to_error(failure, self._client.address)
        if self._how == "auto":
            if self._cuts >= MAX_CUTS:
                log.info("streams of assignments are cut (%s); asking by long polls", error or "they end at once")
                self._give_up_streams()
        elif isinstance(error, UnavailableError):
            self._client.no_answer(error)
        elif error is not None:
            log.warning("a stream of assignments broke, opening another one: %s", error)

    def _give_up_streams(self) -> None:
        # Once that time is over, a single cut is enough to go back to polls.
        self._cuts = MAX_CUTS - 1
        self._polls_until = asyncio.get_running_loop().time() + STREAM_AGAIN_SECONDS


class _Silence:
    """Cancels a stream that shows no sign of life for too long: its other end may be gone without a word."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self.heard_any = False
        # It was silent for too long, and is cancelled.
        self.over = False
        self._timer = self._loop.call_later(STREAM_SILENCE_SECONDS, self._check)

    def hear(self) -> None:
        """Something came."""
        self.heard_any = True
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        """The stream has ended."""
        self._timer.cancel()

    def _check(self) -> None:
        left = self._heard_at + STREAM_SILENCE_SECONDS - self._loop.time()
        if left <= 0:
            self.over = True
            self._call.cancel()
        else:
            self._timer = self._loop.call_later(left, self._check)
