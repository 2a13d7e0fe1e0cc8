"""Why a process waits: what stands in its way, in the order in which that would have to be taken out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, TypeAlias

from services.scheduler.domain.matching import ConditionKind, GpuKind, Needs, Offer, Usage, meets, static_failures
from services.scheduler.domain.records import ExecutorProfile
from services.scheduler.domain.states import State

# An executor that was not heard from for longer than this counts as offline.
OFFLINE_AFTER: Final = timedelta(seconds=60)
MAX_FAILING_NAMES: Final = 10
# A summary names no more than this many.
MAX_NAMED: Final = 5

# What the queue says of an executor: sums of what its open attempts use, and how many these are.
Load: TypeAlias = tuple[Mapping[str, int], int]
Fails: TypeAlias = frozenset[ConditionKind]

CONDITIONS: Final = {kind: kind.name.lower() for kind in ConditionKind} | {ConditionKind.LOCATION: "location_name"}


class WaitReason(IntEnum):
    """Why a process does not run; numbers as in the protos, in the order in which they are looked at."""

    NOT_WAITING = 1
    PARENTS = 2
    BACKOFF = 3
    PAUSED = 4
    NO_EXECUTORS = 5
    NO_MATCH = 6
    OFFLINE = 7
    FULL = 8
    QUEUED = 9


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a spec asks of executors. `words` says it for people, for each condition that the spec sets; its own labels stand
    under ACCEPTS.
    """

    executor_type: str
    executor_names: tuple[str, ...]
    location: str
    needs: Needs
    words: Mapping[ConditionKind, str]


@dataclass(frozen=True, slots=True)
class Registered:
    """An approved executor, and when it was last heard from."""

    profile: ExecutorProfile
    heard_at: datetime | None


@dataclass(frozen=True, slots=True)
class Colony:
    """The state of a colony that decides who could run something. `loads` are by identity, of all who suit at least."""

    executors: Sequence[Registered]
    loads: Mapping[str, Load]
    paused: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a process has come."""

    state: State = State.WAITING
    # It waits for parents.
    held: bool = False
    # Node names of parents that have not ended, the first of them, and how many there are in all.
    parents: Sequence[str] = ()
    parent_count: int = 0
    backoff_until: datetime | None = None
    # Processes before it in its lane, or -1; and how many there are in the lane.
    rank: int = -1
    lane_length: int = 0


@dataclass(frozen=True, slots=True)
class ConditionReport:
    """How a condition narrows the choice."""

    kind: ConditionKind
    wanted: str
    failing: int
    # Empty where they are too many.
    failing_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why something waits."""

    reason: WaitReason
    summary: str
    standing: Standing
    backoff_until: datetime | None
    paused: bool
    executors: int
    conditions: tuple[ConditionReport, ...]
    matching: int
    offline: int
    full: int
    free: int
    place: int


@dataclass(slots=True)
class _Tally:
    """The executors, sorted."""

    failing: dict[ConditionKind, list[str]] = field(default_factory=dict)
    matching: int = 0
    offline: int = 0
    full: int = 0
    free: int = 0


def explain(wanted: Wanted, standing: Standing, colony: Colony, now: datetime) -> Explanation:
    """Decides what the first thing in the way is, and counts who could run it."""
    tally = _tally(wanted, colony, now)
    backoff = _backoff(standing, now)
    reason = _reason(standing, tally, colony, backoff)
    in_queue = standing.state is State.WAITING and not standing.held and backoff is None
    place = standing.rank + 1 if in_queue else 0
    reports = _reports(wanted, colony, tally)
    return Explanation(
        reason=reason,
        summary=_summary(reason, standing, tally, reports, backoff, place),
        standing=standing,
        backoff_until=backoff,
        paused=colony.paused,
        executors=len(colony.executors),
        conditions=reports,
        matching=tally.matching,
        offline=tally.offline,
        full=tally.full,
        free=tally.free,
        place=place,
    )


def suited(wanted: Wanted, executors: Sequence[Registered]) -> list[Registered]:
    """Those who meet all conditions when idle."""
    return [one for one in executors if not _fails(wanted, one.profile, Offer.parse(one.profile.offer))]


def usage_of(offer: Offer, load: Mapping[str, int]) -> Usage:
    """What the sums of the queue say is in use of an offer.

    The fields are those of the claim script: c, m, s, d, p; "g:<memory>:<name>" for accelerators of a kind; and
    "g?:<memory>:<name>" for accelerators of an unknown kind, which count as any that may be meant.
    """
    gpus: dict[tuple[str, int], int] = {}
    unknown: list[tuple[str, int, int]] = []
    for key, count in load.items():
        mark, _, rest = key.partition(":")
        each, _, name = rest.partition(":")
        if mark == "g":
            gpus[name, int(each)] = count
        elif mark == "g?":
            unknown.append((name, int(each), count))
    for name, least, count in unknown:
        _spread(offer.gpus, gpus, name, least, count)
    cpu, memory, storage, nodes, processes = (load.get(key, 0) for key in ("c", "m", "s", "d", "p"))
    return Usage(cpu, memory, storage, nodes, processes, gpus)


def _spread(kinds: Sequence[GpuKind], used: dict[tuple[str, int], int], name: str, least: int, count: int) -> None:
    """Counts accelerators as of the smallest kinds that they can be of."""
    for kind in sorted(kinds, key=lambda one: (one.memory, one.name)):
        if count > 0 and name in {"", kind.name} and kind.memory >= least:
            taken = used.get((kind.name, kind.memory), 0)
            here = min(count, max(0, kind.count - taken))
            used[kind.name, kind.memory] = taken + here
            count -= here


def _fails(wanted: Wanted, profile: ExecutorProfile, offer: Offer) -> Fails:
    fails = set(static_failures(offer, wanted.needs))
    if wanted.executor_type not in profile.executor_types:
        fails.add(ConditionKind.EXECUTOR_TYPE)
    if wanted.executor_names and profile.name not in wanted.executor_names:
        fails.add(ConditionKind.EXECUTOR_NAMES)
    if wanted.location and profile.location != wanted.location:
        fails.add(ConditionKind.LOCATION)
    return frozenset(fails)


def _tally(wanted: Wanted, colony: Colony, now: datetime) -> _Tally:
    tally = _Tally()
    for one in colony.executors:
        offer = Offer.parse(one.profile.offer)
        fails = _fails(wanted, one.profile, offer)
        for kind in fails:
            tally.failing.setdefault(kind, []).append(one.profile.name)
        if fails:
            continue
        tally.matching += 1
        load, _ = colony.loads.get(one.profile.identity, ({}, 0))
        if one.heard_at is None or now - one.heard_at > OFFLINE_AFTER:
            tally.offline += 1
        elif meets(offer, wanted.needs, usage_of(offer, load)):
            tally.free += 1
        else:
            tally.full += 1
    return tally


def _backoff(standing: Standing, now: datetime) -> datetime | None:
    until = standing.backoff_until
    waits = standing.state is State.WAITING and not standing.held
    return until if waits and until is not None and until > now else None


def _reason(standing: Standing, tally: _Tally, colony: Colony, backoff: datetime | None) -> WaitReason:
    if standing.state is not State.WAITING:
        return WaitReason.NOT_WAITING
    if standing.held:
        return WaitReason.PARENTS
    if backoff is not None:
        return WaitReason.BACKOFF
    if colony.paused:
        return WaitReason.PAUSED
    if not colony.executors:
        return WaitReason.NO_EXECUTORS
    if not tally.matching:
        return WaitReason.NO_MATCH
    if tally.offline == tally.matching:
        return WaitReason.OFFLINE
    return WaitReason.QUEUED if tally.free else WaitReason.FULL


def _reports(wanted: Wanted, colony: Colony, tally: _Tally) -> tuple[ConditionReport, ...]:
    accepts = any(Offer.parse(one.profile.offer).accepts for one in colony.executors)
    # What executors accept counts only where one of them says something of it.
    kinds = [kind for kind in ConditionKind if kind in wanted.words and (kind is not ConditionKind.ACCEPTS or accepts)]
    found = []
    for kind in kinds:
        names = sorted(tally.failing.get(kind, ()))
        shown = tuple(names) if len(names) <= MAX_FAILING_NAMES else ()
        found.append(ConditionReport(kind, wanted.words[kind], len(names), shown))
    return tuple(found)


def _summary(
    reason: WaitReason,
    standing: Standing,
    tally: _Tally,
    reports: Sequence[ConditionReport],
    backoff: datetime | None,
    place: int,
) -> str:
    match reason:
        case WaitReason.NOT_WAITING:
            return f"It does not wait: it is {standing.state.name}."
        case WaitReason.PARENTS:
            return f"It waits for parents that have not ended: {_named(standing.parents, standing.parent_count)}."
        case WaitReason.BACKOFF:
            assert backoff is not None, "that is the reason"
            return f"It backs off until {backoff.isoformat(timespec='milliseconds')}."
        case WaitReason.PAUSED:
            return "The colony's assignments are paused."
        case WaitReason.NO_EXECUTORS:
            return "The colony has no approved executor."
        case WaitReason.NO_MATCH:
            failing = [f"{CONDITIONS[one.kind]} {one.wanted}: {one.failing} not" for one in reports if one.failing]
            return f"No approved executor meets all conditions ({'; '.join(failing)})."
        case WaitReason.OFFLINE:
            return f"{_executors(tally.matching)} would do, but none was heard from in the last minute."
        case WaitReason.FULL:
            away = f"; {tally.offline} more not heard from in the last minute" if tally.offline else ""
            return f"{_executors(tally.full)} would do, but their open attempts take what it needs{away}."
        case WaitReason.QUEUED:
            before = f"; {place - 1} with the same needs come before it" if place > 1 else ""
            return f"{_executors(tally.free)} could take it now{before}."


def _executors(count: int) -> str:
    return "1 executor" if count == 1 else f"{count} executors"


def _named(names: Sequence[str], count: int) -> str:
    more = f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
