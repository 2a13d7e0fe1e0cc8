"""What becomes of a generator whose row is locked: what packs add to it, and what is cut out of its bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from servicekit.failures import AlreadyExists, InvalidArgument, ResourceExhausted, Violation
from services.cron.domain.generator import Argument, Batch, Pack, Room, Standing
from services.cron.domain.packing import Bin, Cut, Packing, Waiting, cut_bin

FULL_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """A pack that was answered."""

    content: bytes
    first_sequence: int


@dataclass(frozen=True, slots=True)
class Entered:
    """An argument that is to be written."""

    generator_id: UUID
    sequence: int
    argument: Argument


class Gathering:
    """Changes of one generator, in one transaction. What is to be written stands in the attributes.

    Attributes:
        standing: the row, as it is to be.
        bins: of the keys concerned, as they are to be; `gone` are the keys whose bins are empty now.
        entered: new arguments.
        batches: new batches.
        packs: packs that were taken, with their first sequence numbers.
    """

    def __init__(self, standing: Standing, bins: Mapping[str, Bin], now: datetime) -> None:
        self.standing = standing
        self._now = now
        self._before = dict(bins)
        self.bins = dict(bins)
        self.entered: list[Entered] = []
        self.batches: list[Batch] = []
        self.packs: list[tuple[Pack, int]] = []

    @property
    def gone(self) -> list[str]:
        """Keys that had a bin, and have none any more."""
        return [key for key in self._before if key not in self.bins]

    @property
    def changed(self) -> list[Bin]:
        """Bins that are to be written."""
        return [bin_ for key, bin_ in self.bins.items() if self._before.get(key) != bin_]

    def take(self, pack: Pack, known: Mapping[bytes, Known], room: Room) -> int:
        """Adds a pack, or finds that it was added before. Returns the sequence number of its first argument.

        Raises:
            AlreadyExists: its request id was used for something else.
            InvalidArgument: an argument is larger than a batch may be.
            ResourceExhausted: too much waits.
        """
        before = known.get(pack.request)
        if before is not None:
            if before.content != pack.content:
                msg = "the request_id was used for something else"
                raise AlreadyExists(msg, reason="REQUEST_ID_REUSED")
            return before.first_sequence
        self._check_sizes(pack)
        self._check_room(pack, room)
        first = self.standing.next_sequence
        packing = Packing(self.standing.trigger, self.bins, cutting=not self.standing.paused)
        for sequence, argument in enumerate(pack.arguments, first):
            packing.add(argument.key, argument.size, sequence, self._now)
            self.entered.append(Entered(self.standing.generator_id, sequence, argument))
        self.standing.next_sequence += len(pack.arguments)
        self.standing.waiting += len(pack.arguments)
        self.standing.waiting_bytes += sum(argument.size for argument in pack.arguments)
        self.standing.bins += len(packing.bins) - len(self.bins)
        self.bins = packing.bins
        self._made(packing.cuts)
        self.packs.append((pack, first))
        return first

    def cut(self, bin_: Bin, waiting: Sequence[Waiting], *, flush: bool) -> None:
        """Makes batches of a bin, as far as it is full or over, or of all of it."""
        cuts, rest = cut_bin(self.standing.trigger, bin_, waiting, self._now, flush=flush)
        if rest is None:
            del self.bins[bin_.key]
            self.standing.bins -= 1
        else:
            self.bins[bin_.key] = rest
        self._made(cuts)

    def look_after_pack(self) -> None:
        """Sees to it that the generator is looked at in time. Who is at it already looks again by itself."""
        if self.standing.is_claimed(self._now):
            return
        if self.batches:
            self.standing.look_by(self.standing.next_submit(self._now))
        if not self.standing.paused:
            for bin_ in self.changed:
                self.standing.look_by(self.standing.trigger.deadline(bin_.oldest))

    def _check_sizes(self, pack: Pack) -> None:
        at_most = self.standing.trigger.max_bytes
        wrong = [
            Violation(f"arguments[{index}].value", f"must be at most {at_most} bytes, the generator's; it has {argument.size}")
            for index, argument in enumerate(pack.arguments)
            if argument.size > at_most
        ]
        if wrong:
            raise InvalidArgument(wrong)

    def _check_room(self, pack: Pack, room: Room) -> None:
        standing = self.standing
        count = standing.waiting + standing.batched + len(pack.arguments)
        size = standing.waiting_bytes + standing.batched_bytes + sum(argument.size for argument in pack.arguments)
        keys = standing.bins + len({argument.key for argument in pack.arguments} - self.bins.keys())
        for asked, at_most, what in (
            (count, room.arguments, "arguments"),
            (size, room.size, "bytes of arguments"),
            (keys, room.keys, "keys"),
        ):
            if asked > at_most:
                msg = f"no room: at most {at_most} {what} may wait in a generator"
                raise ResourceExhausted(msg, reason="GENERATOR_FULL", retry_delay_s=FULL_RETRY_S)

    def _made(self, cuts: Sequence[Cut]) -> None:
        standing = self.standing
        for cut in cuts:
            self.batches.append(
                Batch(
                    generator_id=standing.generator_id,
                    number=standing.next_batch,
                    key=cut.key,
                    first=cut.first,
                    last=cut.last,
                    count=cut.count,
                    size=cut.size,
                    reason=cut.reason,
                    created=self._now,
                    oldest=cut.oldest,
                )
            )
            standing.next_batch += 1
            standing.unsubmitted += 1
            standing.waiting -= cut.count
            standing.waiting_bytes -= cut.size
            standing.batched += cut.count
            standing.batched_bytes += cut.size
