"""Methods about generators."""

import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Any

from colonies import values
from colonies.client.batches import CallBatcher
from colonies.client.calls import Calls
from colonies.client.pages import every
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.errors import ScheduleError
from colonies.graph import Workflow, workflow_spec

ARGUMENTS_IN_CALL = 1_000
BYTES_IN_CALL = 4 << 20
MAX_SECONDS = 2**53


def trigger(max_count: int, timeout: float | None = None, max_bytes: int = 0) -> generator.Trigger:
    """When arguments become a batch.

    Raises:
        ScheduleError: a number is none.
    """
    for number, what in ((max_count, "max_count"), (max_bytes, "max_bytes")):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            msg = f"{what} is {number!r}: it must be a whole number, and not negative"
            raise ScheduleError(msg)
    if timeout is not None and (not isinstance(timeout, int | float) or not 0 < timeout <= MAX_SECONDS):
        msg = f"timeout is {timeout!r}: it must be a positive number of seconds, or None for never"
        raise ScheduleError(msg)
    # What is shorter than a millisecond is too short, and must not become the 0 that stands for never.
    timeout_ms = 0 if timeout is None else max(1, round(timeout * 1000))
    return generator.Trigger(max_count=max_count, timeout_ms=timeout_ms, max_bytes=max_bytes)


def calls_of(arguments: Iterable[generator.Argument]) -> Iterator[list[generator.Argument]]:
    """The arguments in order, as many together as go into one call."""
    call: list[generator.Argument] = []
    size = 0
    for argument in arguments:
        more = argument.ByteSize()
        if call and (len(call) == ARGUMENTS_IN_CALL or size + more > BYTES_IN_CALL):
            yield call
            call, size = [], 0
        call.append(argument)
        size += more
    if call:
        yield call


class GeneratorCalls(Calls):
    """What can be done with generators. All raise NotFoundError where the colony has no generator of the name."""

    async def add_generator(
        self,
        name: str,
        workflow: Workflow,
        *,
        max_count: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the generator's, not of this call
        max_bytes: int = 0,
    ) -> generator.Generator:
        """Adds a generator on the caller's account. Repeating it with the same content changes nothing.

            await client.add_generator("readings", Function("average"), max_count=100, timeout=5)

        Args:
            name: unique among the colony's generators.
            workflow: what is submitted for each batch, which follows the arguments of each of its roots: a ColoniesWorkflow,
                a Function with all that is connected to it, or a list of them.
            max_count: this many arguments become a batch at once: 1 to 1 000, less the arguments that a root has already.
            timeout: seconds after which what waits becomes a batch anyway, from 0.01 on; None = never.
            max_bytes: a batch is no larger: 1 024 to 3 MiB; 0 = 1 MiB.

        Raises:
            ScheduleError: a number is none.
            WorkflowError: the workflow makes no sense.
            InvalidArgumentError: a field is out of bounds, or the scheduler would not take the workflow.
            AlreadyExistsError: the colony has another generator of this name.
        """
        request = generator.AddGeneratorRequest(
            colony_name=self.colony,
            name=name,
            trigger=trigger(max_count, timeout, max_bytes),
            workflow=workflow_spec(workflow, self.colony),
        )
        return (await self.call(self.generator.AddGenerator, request)).generator

    async def get_generator(self, name: str) -> generator.Generator:
        """One generator, with what waits in it."""
        request = generator.GetGeneratorRequest(colony_name=self.colony, name=name)
        return (await self.call(self.generator.GetGenerator, request)).generator

    async def list_generators(self, *, limit: int | None = None) -> AsyncGenerator[generator.Generator]:
        """The colony's generators by name, without their workflows."""
        request = generator.ListGeneratorsRequest(colony_name=self.colony)

        async def page(cursor: str, size: int) -> tuple[Sequence[generator.Generator], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.generator.ListGenerators, request)
            return response.generators, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def pack(self, name: str, *items: Any, key: str = "", request_id: str | None = None) -> int:
        """Adds values to a generator, all or none; gives the number of the first. Committed when this returns.

            await asyncio.gather(*(client.pack("readings", reading) for reading in readings))

        Packs into one generator that are made at the same time travel together, in the order in which they were called; so
        `asyncio.gather` over many is fast. A call without an answer is repeated under its request id, which adds nothing
        twice. A full generator is waited for, up to `retry_for` seconds, like an outage. Whoever stops waiting does not stop
        the pack.

        Args:
            name: the generator.
            items: 1 to 1 000 values, each at most 256 KiB, 4 MiB together. A generator counts its arguments from 1, and these
                have numbers without a gap.
            key: values of different keys never share a batch.
            request_id: 1-128 ASCII characters, for a program that wants to repeat a pack after it was started anew: for 24
                hours, repeating one gives the first answer and adds nothing. Such a pack travels alone.

        Raises:
            ValueError: there are no values.
            ValueEncodingError: a value cannot be sent; none was.
            InvalidArgumentError: a value is too large, or there are too many; none was added.
            ResourceExhaustedError: the generator stayed full (GENERATOR_FULL); none was added.
            UnavailableError: the server was out of reach for `retry_for` seconds. They may have been added or not: only a
                repetition with the same `request_id` finds out without adding them twice.
        """
        if not items:
            msg = "pack() takes at least one value"
            raise ValueError(msg)
        arguments = [generator.Argument(key=key, value=values.encode(item)) for item in items]
        if request_id is not None:
            return await self._pack(name, arguments, request_id)
        return await self._packs_into(name).put(arguments)

    async def pack_all(self, name: str, items: Iterable[Any], *, key: str = "", request_id: str | None = None) -> int:
        """Adds any number of values to a generator, one call after the other, and in order; gives how many they were.

        Args:
            name: the generator.
            items: the values, each at most 256 KiB.
            key: as for `pack`.
            request_id: 1-100 ASCII characters: repeating it with the same values within 24 hours, after an error or a crash,
                adds only those that were not added. Default: a new one.

        Raises:
            As `pack`; of several calls the first may have been made.
        """
        request_id = request_id or str(uuid.uuid4())
        count = 0
        arguments = (generator.Argument(key=key, value=values.encode(item)) for item in items)
        for number, call in enumerate(calls_of(arguments), 1):
            await self._pack(name, call, f"{request_id}-{number}")
            count += len(call)
        return count

    def _packs_into(self, name: str) -> CallBatcher[Sequence[generator.Argument], int]:
        known: dict[str, CallBatcher[Sequence[generator.Argument], int]] = self.__dict__.setdefault("_packs", {})
        if name not in known:

            async def send(packs: Sequence[Sequence[generator.Argument]]) -> Sequence[int]:
                sequence = await self._pack(name, [each for pack in packs for each in pack], str(uuid.uuid4()))
                sequences = []
                for pack in packs:
                    sequences.append(sequence)
                    sequence += len(pack)
                return sequences

            # A full generator is waited for with the whole batch: parts that overtake each other would gain nothing.
            known[name] = CallBatcher(send, _weight, max_count=ARGUMENTS_IN_CALL, max_bytes=BYTES_IN_CALL)
        return known[name]

    async def _pack(self, name: str, arguments: Sequence[generator.Argument], request_id: str) -> int:
        # One id for all tries: one whose answer was lost is not doubled by the next.
        request = generator.PackRequest(colony_name=self.colony, name=name, request_id=request_id, arguments=arguments)
        return (await self.call(self.generator.Pack, request, wait_if_full=True)).first_sequence

    async def list_bins(self, name: str, *, limit: int | None = None) -> AsyncGenerator[generator.Bin]:
        """What waits in a generator, by key."""
        request = generator.ListBinsRequest(colony_name=self.colony, name=name)

        async def page(cursor: str, size: int) -> tuple[Sequence[generator.Bin], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.generator.ListBins, request)
            return response.bins, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def list_batches(
        self, name: str, *, unsubmitted_only: bool = False, limit: int | None = None
    ) -> AsyncGenerator[generator.Batch]:
        """The batches of a generator, newest first, and the workflows that they became."""
        request = generator.ListBatchesRequest(colony_name=self.colony, name=name, unsubmitted_only=unsubmitted_only)

        async def page(cursor: str, size: int) -> tuple[Sequence[generator.Batch], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.generator.ListBatches, request)
            return response.batches, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def flush_generator(self, name: str, *, key: str | None = None) -> generator.FlushGeneratorResponse:
        """Makes batches of all that waits now, or of one key's, even if it is paused; gives how many, of how many arguments."""
        request = generator.FlushGeneratorRequest(colony_name=self.colony, name=name, key=key)
        return await self.call(self.generator.FlushGenerator, request)

    async def drop_arguments(self, name: str, *, key: str | None = None) -> int:
        """Throws away what waits in no batch yet, or one key's; gives how many those were."""
        request = generator.DropArgumentsRequest(colony_name=self.colony, name=name, key=key)
        return (await self.call(self.generator.DropArguments, request)).arguments

    async def pause_generator(self, name: str) -> generator.Generator:
        """Makes no batches until it is resumed; arguments are taken as far as there is room."""
        request = generator.PauseGeneratorRequest(colony_name=self.colony, name=name)
        return (await self.call(self.generator.PauseGenerator, request)).generator

    async def resume_generator(self, name: str) -> generator.Generator:
        """Goes on; batches that were refused are tried again."""
        request = generator.ResumeGeneratorRequest(colony_name=self.colony, name=name)
        return (await self.call(self.generator.ResumeGenerator, request)).generator

    async def remove_generator(self, name: str, *, force: bool = False) -> None:
        """Removes a generator; for the colony's owner and whoever set it up.

        Args:
            name: the generator.
            force: also if something waits in it, which is thrown away.

        Raises:
            FailedPreconditionError: something waits in it (ARGUMENTS_WAITING).
        """
        request = generator.RemoveGeneratorRequest(colony_name=self.colony, name=name, force=force)
        await self.call(self.generator.RemoveGenerator, request, gone=generator.RemoveGeneratorResponse())


def _weight(pack: Sequence[generator.Argument]) -> tuple[int, int]:
    return len(pack), sum(argument.ByteSize() for argument in pack)
