"""When arguments become batches: whatever comes in whatever order, each is in one place, and nothing is too large."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cron.domain.packing import Bin, Cut, Packing, Reason, Trigger, Waiting, cut_bin, is_full

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(ms: int) -> datetime:
    return BEGIN + timedelta(milliseconds=ms)


@dataclass
class Gathered:
    """A generator without tables: its bins and all that came, and checks of what was cut."""

    trigger: Trigger
    bins: dict[str, Bin] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    came: dict[int, datetime] = field(default_factory=dict)
    keys: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    cuts: list[Cut] = field(default_factory=list)

    def add(self, items: list[tuple[str, int]], now: datetime, *, cutting: bool) -> None:
        packing = Packing(self.trigger, self.bins, cutting=cutting)
        for key, size in items:
            sequence = len(self.sizes) + 1
            packing.add(key, size, sequence, now)
            self.sizes[sequence], self.came[sequence] = size, now
            self.keys[key].append(sequence)
        self.bins = packing.bins
        self.cuts += packing.cuts

    def sweep(self, now: datetime, *, flush: bool = False, known: int = 1_000) -> None:
        """Cuts every bin, knowing the sizes of this many arguments at a time."""
        for key in list(self.bins):
            while key in self.bins:
                bin_ = self.bins[key]
                cuts, rest = cut_bin(self.trigger, bin_, self.waiting(bin_)[:known], now, flush=flush)
                self.cuts += cuts
                if rest is None:
                    del self.bins[key]
                else:
                    self.bins[key] = rest
                if not cuts:
                    break

    def waiting(self, bin_: Bin) -> list[Waiting]:
        inside = [each for each in self.keys[bin_.key] if bin_.first <= each <= bin_.last]
        return [Waiting(each, self.sizes[each], self.came[each]) for each in inside]

    def check(self) -> None:
        """Every argument in one batch or bin, in order, and no batch too large."""
        parts: defaultdict[str, list[Cut | Bin]] = defaultdict(list)
        for cut in self.cuts:
            assert cut.count <= self.trigger.max_count
            assert cut.size <= self.trigger.max_bytes
            parts[cut.key].append(cut)
        for key, bin_ in self.bins.items():
            assert bin_.key == key
            parts[key].append(bin_)
        assert parts.keys() == self.keys.keys()
        for key, sequences in self.keys.items():
            left = list(sequences)
            for part in parts[key]:
                mine, left = left[: part.count], left[part.count :]
                assert part.count == len(mine) > 0
                assert (part.first, part.last) == (mine[0], mine[-1])
                assert part.size == sum(self.sizes[each] for each in mine)
                assert part.oldest == self.came[mine[0]]
            assert not left


triggers = st.builds(
    Trigger, max_count=st.integers(1, 6), timeout_ms=st.sampled_from([0, 10, 50]), max_bytes=st.integers(20, 60)
)
items = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 20)), max_size=12)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pack"), items),
        st.tuples(st.just("pass"), st.integers(0, 60)),
        st.tuples(st.sampled_from(["pause", "resume", "look", "flush"]), st.none()),
    ),
    max_size=30,
)


@given(trigger=triggers, steps=steps, known=st.integers(7, 20))
def test_every_argument_is_in_one_batch_or_bin_and_in_order(
    trigger: Trigger, steps: list[tuple[str, object]], known: int
) -> None:
    gathered, now, paused = Gathered(trigger), BEGIN, False
    for step, what in steps:
        if step == "pack":
            gathered.add(what, now, cutting=not paused)  # type: ignore[arg-type]
        elif step == "pass":
            now += timedelta(milliseconds=what)  # type: ignore[arg-type]
        elif step == "flush":
            gathered.sweep(now, flush=True, known=known)
            assert not gathered.bins
        elif step == "pause":
            paused = True
        else:
            paused = paused and step == "look"
            if not paused:
                gathered.sweep(now, known=known)
                assert not any(is_full(trigger, bin_) or trigger.is_over(bin_.oldest, now) for bin_ in gathered.bins.values())
        gathered.check()


@given(trigger=triggers, packs=st.lists(items, max_size=20))
def test_an_active_generator_leaves_no_full_bin_and_gives_the_right_reasons(
    trigger: Trigger, packs: list[list[tuple[str, int]]]
) -> None:
    gathered, now = Gathered(trigger), BEGIN
    for pack in packs:
        gathered.add(pack, now, cutting=True)
        now += timedelta(milliseconds=7)
        assert not any(is_full(trigger, bin_) for bin_ in gathered.bins.values())
    gathered.check()
    for cut in gathered.cuts:
        following = [each for each in gathered.keys[cut.key] if each > cut.last]
        if cut.reason is Reason.COUNT:
            assert cut.count == trigger.max_count
        elif cut.reason is Reason.BYTES:
            assert cut.count < trigger.max_count
            assert cut.size + gathered.sizes[following[0]] > trigger.max_bytes
        else:
            assert cut.reason is Reason.TIMEOUT
            assert gathered.came[cut.last] >= cut.oldest + timedelta(milliseconds=trigger.timeout_ms)


def test_the_argument_that_makes_it_full_cuts_at_once() -> None:
    gathered = Gathered(Trigger(3, 0, 1_000))
    gathered.add([("", 1), ("", 1)], at(0), cutting=True)
    assert not gathered.cuts
    gathered.add([("", 1), ("", 1)], at(1), cutting=True)
    assert gathered.cuts == [Cut("", 3, 3, 1, 3, at(0), Reason.COUNT)]
    assert gathered.bins == {"": Bin("", 1, 1, 4, 4, at(1))}


def test_one_that_would_make_it_too_large_stays_out() -> None:
    gathered = Gathered(Trigger(100, 0, 10))
    gathered.add([("", 6), ("", 4)], at(0), cutting=True)
    assert not gathered.cuts
    gathered.add([("", 1)], at(1), cutting=True)
    assert gathered.cuts == [Cut("", 2, 10, 1, 2, at(0), Reason.BYTES)]
    assert gathered.bins == {"": Bin("", 1, 1, 3, 3, at(1))}


def test_the_timeout_counts_from_the_first_that_waits() -> None:
    gathered = Gathered(Trigger(100, 50, 1_000))
    gathered.add([("a", 1)], at(0), cutting=True)
    gathered.add([("a", 1), ("b", 1)], at(49), cutting=True)
    gathered.sweep(at(49))
    assert not gathered.cuts
    gathered.sweep(at(50))
    assert gathered.cuts == [Cut("a", 2, 2, 1, 2, at(0), Reason.TIMEOUT)]
    assert list(gathered.bins) == ["b"]
    gathered.add([("b", 1)], at(99), cutting=True)
    assert gathered.cuts[1:] == [Cut("b", 2, 2, 3, 4, at(49), Reason.TIMEOUT)]


def test_without_a_timeout_nothing_is_ever_over() -> None:
    gathered = Gathered(Trigger(100, 0, 1_000))
    gathered.add([("", 1)], at(0), cutting=True)
    gathered.sweep(at(10**12))
    assert not gathered.cuts
    gathered.sweep(at(10**12), flush=True)
    assert gathered.cuts == [Cut("", 1, 1, 1, 1, at(0), Reason.FLUSH)]


@pytest.mark.parametrize(("flush", "reasons"), [(False, [Reason.COUNT, Reason.BYTES]), (True, [Reason.FLUSH] * 3)])
def test_what_a_pause_left_is_cut_as_it_would_have_been(flush: bool, reasons: list[Reason]) -> None:
    gathered = Gathered(Trigger(3, 0, 10))
    gathered.add([("", size) for size in (1, 1, 1, 9, 5)], at(0), cutting=False)
    assert not gathered.cuts
    gathered.sweep(at(1), flush=flush)
    assert [cut.reason for cut in gathered.cuts] == reasons
    assert [cut.count for cut in gathered.cuts] == [3, 1, 1][: len(reasons)]
    gathered.check()


def test_after_a_pause_arguments_do_not_overtake_what_is_full() -> None:
    gathered = Gathered(Trigger(2, 0, 10))
    gathered.add([("", 1)] * 5, at(0), cutting=False)
    gathered.add([("", 1)], at(1), cutting=True)
    assert not gathered.cuts
    gathered.sweep(at(2))
    assert [(cut.first, cut.last) for cut in gathered.cuts] == [(1, 2), (3, 4), (5, 6)]
