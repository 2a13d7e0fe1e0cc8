"""What members do with generators."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from servicekit.batching import GroupCommit
from servicekit.caller import Caller
from servicekit.clock import NS_PER_MS, Clock, datetime_of
from servicekit.failures import AlreadyExists, NotFound
from services.cron.domain.generator import Batch, Generator, NewGenerator, Pack, Room
from services.cron.domain.generator_ports import FlushFrom, GeneratorStore, PackStore
from services.cron.domain.packing import Bin
from services.cron.domain.ports import WorkflowSubmitter

# Packs that are written together: arguments, and pages of their bytes.
MAX_WEIGHT = 8_000
BYTES_PER_WEIGHT = 4_096
# Transactions with packs at the same time: one generator that is locked must not hold up all others.
PACK_WORKERS = 2
CLAIM_POLL_S = 0.05


class Generators:
    """The generators of all colonies; each call acts in its caller's.

    Args:
        room: how much may wait in one generator.
        on_made: told of batches that were made, after they were committed.
        on_look: told when to look at generators sooner than before.
        on_dropped: told that there is something to sweep.
        on_packed: told of each pack that was answered, how many arguments it had.
    """

    def __init__(
        self,
        store: GeneratorStore,
        packs: PackStore,
        submitter: WorkflowSubmitter,
        clock: Clock,
        *,
        room: Room,
        on_made: Callable[[Sequence[Batch]], None],
        on_look: Callable[[Mapping[UUID, datetime]], None],
        on_dropped: Callable[[], None],
        on_packed: Callable[[int], None],
    ) -> None:
        self._store = store
        self._packs = packs
        self._submitter = submitter
        self._clock = clock
        self._room = room
        self._on_made = on_made
        self._on_look = on_look
        self._on_dropped = on_dropped
        self._on_packed = on_packed
        self._packing = GroupCommit(self._pack_all, max_weight=MAX_WEIGHT, workers=PACK_WORKERS)

    async def add(self, caller: Caller, new: NewGenerator) -> Generator:
        """Adds a generator on the caller's account, or returns the same one that it added before.

        Raises:
            AlreadyExists: the colony has another generator of this name.
            InvalidArgument: the scheduler would not take the workflow.
        """
        there = await self._store.find(caller.colony, new.name)
        if there is None:
            await self._submitter.check(colony=caller.colony, workflow=new.launchable.workflow, account=caller.identity)
            there = await self._store.add(
                Generator(
                    generator_id=uuid.uuid4(),
                    colony=caller.colony,
                    name=new.name,
                    trigger=new.trigger,
                    launchable=new.launchable,
                    initiator=caller.identity,
                    initiator_name=caller.name,
                    created=self._now(),
                )
            )
        if not there.asks_for(new, caller.identity):
            msg = f"the colony has another generator of the name {new.name!r}"
            raise AlreadyExists(msg, reason="GENERATOR_EXISTS")
        return there

    async def get(self, colony: str, name: str, *, whole: bool = True) -> Generator:
        """One generator; with its workflow if it is asked for whole.

        Raises:
            NotFound: there is none of this name.
        """
        generator = await self._store.find(colony, name, whole=whole)
        if generator is None:
            raise _not_found(name)
        return generator

    async def page(self, colony: str, *, after: str, limit: int) -> tuple[list[Generator], bool]:
        """At most `limit` generators by name, beginning after a name, and whether there are more."""
        generators = await self._store.page(colony, after=after, limit=limit + 1)
        return generators[:limit], len(generators) > limit

    async def pack(self, pack: Pack) -> int:
        """Adds arguments, once for each request; they are committed when this returns. Returns the first one's sequence number.

        Raises:
            NotFound: there is no such generator.
            AlreadyExists: the request id was used for something else.
            InvalidArgument: an argument is larger than a batch may be.
            ResourceExhausted: too much waits.
        """
        size = sum(argument.size for argument in pack.arguments)
        first = await self._packing.do(pack, len(pack.arguments) + size // BYTES_PER_WEIGHT)
        self._on_packed(len(pack.arguments))
        return first

    async def _pack_all(self, packs: list[Pack]) -> Sequence[int | Exception]:
        packed = await self._packs.pack(packs, self._now(), self._room)
        self._on_made(packed.batches)
        self._on_look(packed.looks)
        return packed.outcomes

    async def bins(self, colony: str, name: str, *, after: str | None, limit: int) -> tuple[Generator, list[Bin], bool]:
        """A generator, at most `limit` of its bins by key, beginning after a key, and whether there are more."""
        generator = await self.get(colony, name, whole=False)
        bins = await self._store.bins(generator.generator_id, after=after, limit=limit + 1)
        return generator, bins[:limit], len(bins) > limit

    async def batches(self, colony: str, name: str, *, before: int, limit: int, unsubmitted: bool) -> tuple[list[Batch], bool]:
        """At most `limit` batches with lower numbers than this, the newest first, and whether there are more."""
        generator = await self.get(colony, name, whole=False)
        batches = await self._store.batches(generator.generator_id, before=before, limit=limit + 1, unsubmitted=unsubmitted)
        return batches[:limit], len(batches) > limit

    async def flush(self, caller: Caller, name: str, key: str | None) -> tuple[int, int]:
        """Makes batches of all that waits, or of one key's. Returns how many, and of how many arguments."""
        generator_id = await self._own(caller, name)
        batches = arguments = 0
        rest: FlushFrom | None = None
        while True:
            flushed = await self._packs.flush(generator_id, key=key, rest=rest, now=self._now())
            if flushed is None:
                raise _not_found(name)
            self._on_made(flushed.batches)
            if flushed.batches:
                self._on_look({generator_id: self._now()})
            batches += len(flushed.batches)
            arguments += sum(batch.count for batch in flushed.batches)
            rest = flushed.rest
            if rest is None:
                return batches, arguments

    async def drop(self, caller: Caller, name: str, key: str | None) -> int:
        """Throws away all that waits in no batch, or one key's. Returns how many arguments that were."""
        dropped = await self._packs.drop(await self._own(caller, name), key=key)
        if dropped is None:
            raise _not_found(name)
        self._on_dropped()
        return dropped

    async def pause(self, caller: Caller, name: str) -> Generator:
        """Makes no batches until it is resumed."""
        if not await self._store.pause(await self._own(caller, name), f"by {caller.name}"):
            raise _not_found(name)
        return await self.get(caller.colony, name, whole=False)

    async def resume(self, caller: Caller, name: str) -> Generator:
        """Goes on, with what is due at once."""
        generator_id, now = await self._own(caller, name), self._now()
        if not await self._store.resume(generator_id, now):
            raise _not_found(name)
        self._on_look({generator_id: now})
        return await self.get(caller.colony, name, whole=False)

    async def remove(self, caller: Caller, name: str, *, force: bool) -> None:
        """Removes a generator. Once this returns, it submits nothing more.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: it is not the caller's to remove.
            FailedPrecondition: something waits in it, and `force` is not set.
        """
        generator_id = await self._own(caller, name)
        if not await self._store.remove(generator_id, self._now(), force=force):
            raise _not_found(name)
        # Nobody claims it any more; whoever has claimed it ends within the claim's lease.
        while await self._store.is_claimed(generator_id, self._now()):  # noqa: ASYNC110 - it may be another replica
            await asyncio.sleep(CLAIM_POLL_S)
        self._on_dropped()

    async def _own(self, caller: Caller, name: str) -> UUID:
        generator = await self.get(caller.colony, name, whole=False)
        caller.require_own(generator.initiator)
        return generator.generator_id

    def _now(self) -> datetime:
        now_ns = self._clock.now_ns()
        return datetime_of(now_ns - now_ns % NS_PER_MS)


def _not_found(name: str) -> NotFound:
    msg = f"no generator {name!r} in this colony"
    return NotFound(msg, reason="GENERATOR_NOT_FOUND")
