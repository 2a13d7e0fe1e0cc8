"""When arguments become batches: arithmetic on bins, without any I/O.

A bin holds what waits under one key. It is cut into a batch at the first of: as many as a batch may have wait in it; one more
would make it too large; the first of them has waited long enough. Arguments of a key leave their bin in the order in which they
came, so a batch is a range of one key's arguments.

A paused generator is not cut, and its bins may grow beyond what a batch may be. Such a bin is full: only what knows the sizes
of its arguments can cut it (`cut_bin`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import NamedTuple


class Reason(IntEnum):
    """Why arguments became a batch; numbered as in the proto."""

    COUNT = 1
    BYTES = 2
    TIMEOUT = 3
    FLUSH = 4


@dataclass(frozen=True, slots=True)
class Trigger:
    """When arguments become a batch. `timeout_ms` 0 is never."""

    max_count: int
    timeout_ms: int
    max_bytes: int

    def deadline(self, oldest: datetime) -> datetime | None:
        """When arguments become a batch of which the first came at `oldest`; None for never."""
        return oldest + timedelta(milliseconds=self.timeout_ms) if self.timeout_ms else None

    def is_over(self, oldest: datetime, now: datetime) -> bool:
        """Whether the first of them has waited long enough."""
        deadline = self.deadline(oldest)
        return deadline is not None and deadline <= now


@dataclass(frozen=True, slots=True)
class Bin:
    """What waits under a key: `count` arguments of `size` bytes, from sequence number `first` to `last`."""

    key: str
    count: int
    size: int
    first: int
    last: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Cut:
    """Arguments that have just become a batch, and why."""

    key: str
    count: int
    size: int
    first: int
    last: int
    oldest: datetime
    reason: Reason


class Waiting(NamedTuple):
    """An argument in a bin."""

    sequence: int
    size: int
    at: datetime


def is_full(trigger: Trigger, bin_: Bin) -> bool:
    """Whether it has as much as a batch may have, or more."""
    return bin_.count >= trigger.max_count or bin_.size > trigger.max_bytes


class Packing:
    """Arguments on their way into a generator's bins, one after the other.

    Attributes:
        bins: as they are now; those that were cut are gone.
        cuts: the batches that were made, in order.
    """

    def __init__(self, trigger: Trigger, bins: Mapping[str, Bin], *, cutting: bool) -> None:
        self._trigger = trigger
        self._cutting = cutting
        self.bins = dict(bins)
        self.cuts: list[Cut] = []

    def add(self, key: str, size: int, sequence: int, now: datetime) -> None:
        """Adds one; its sequence number is higher than all before. It is no larger than a batch may be."""
        bin_ = self.bins.get(key)
        # Full ones are for whoever resumed the generator.
        cutting = self._cutting and (bin_ is None or not is_full(self._trigger, bin_))
        if cutting and bin_ is not None and bin_.size + size > self._trigger.max_bytes:
            self._cut(bin_, Reason.BYTES)
            bin_ = None
        if bin_ is None:
            bin_ = Bin(key, 1, size, sequence, sequence, now)
        else:
            bin_ = replace(bin_, count=bin_.count + 1, size=bin_.size + size, last=sequence)
        self.bins[key] = bin_
        if cutting and bin_.count >= self._trigger.max_count:
            self._cut(bin_, Reason.COUNT)
        elif cutting and self._trigger.is_over(bin_.oldest, now):
            self._cut(bin_, Reason.TIMEOUT)

    def _cut(self, bin_: Bin, reason: Reason) -> None:
        self.cuts.append(_whole(bin_, reason))
        del self.bins[bin_.key]


def cut_bin(
    trigger: Trigger, bin_: Bin, waiting: Sequence[Waiting], now: datetime, *, flush: bool = False
) -> tuple[list[Cut], Bin | None]:
    """What a bin becomes: batches as far as it is full or over (or, to flush it, all of it), and what stays in it.

    Args:
        trigger: the generator's.
        bin_: the bin.
        waiting: if it is full, its arguments, or the first of them: more than a batch may have.
        now: by which to tell whether what stays has waited long enough.
        flush: whether nothing is to stay.
    """
    cuts: list[Cut] = []
    if is_full(trigger, bin_):
        cuts, bin_ = _cut_full(trigger, bin_, waiting, flush=flush)
    if bin_.count and not is_full(trigger, bin_) and (flush or trigger.is_over(bin_.oldest, now)):
        cuts.append(_whole(bin_, Reason.FLUSH if flush else Reason.TIMEOUT))
        return cuts, None
    return cuts, bin_ if bin_.count else None


def _cut_full(trigger: Trigger, bin_: Bin, waiting: Sequence[Waiting], *, flush: bool) -> tuple[list[Cut], Bin]:
    """Batches from the front of a full bin; what stays begins with one of `waiting`, or is nothing."""
    cuts: list[Cut] = []
    begin, size = 0, 0
    complete = len(waiting) == bin_.count

    def cut(end: int, reason: Reason) -> None:
        nonlocal begin, size, bin_
        part = Cut(
            bin_.key, end - begin, size, waiting[begin].sequence, waiting[end - 1].sequence, waiting[begin].at,
            Reason.FLUSH if flush else reason,
        )  # fmt: skip
        cuts.append(part)
        begin, size = end, 0
        bin_ = replace(bin_, count=bin_.count - part.count, size=bin_.size - part.size)
        if bin_.count:
            bin_ = replace(bin_, first=waiting[end].sequence, oldest=waiting[end].at)

    for index, each in enumerate(waiting):
        if size + each.size > trigger.max_bytes and index > begin:
            cut(index, Reason.BYTES)
        size += each.size
        # Where more follow than are known here, the next must be known: what stays begins with it.
        if index + 1 - begin >= trigger.max_count and (complete or index + 1 < len(waiting)):
            cut(index + 1, Reason.COUNT)
    return cuts, bin_


def _whole(bin_: Bin, reason: Reason) -> Cut:
    return Cut(bin_.key, bin_.count, bin_.size, bin_.first, bin_.last, bin_.oldest, reason)
