"""When crons fire, and what a fire does when others are open or were missed, as they are written in Python."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.errors import ScheduleError
from colonies.moments import timestamp

Policy = TypeVar("Policy")

MAX_SECONDS = 2**53

OVERLAPS: Mapping[str, pb.OverlapPolicy.ValueType] = MappingProxyType(
    {
        "allow": pb.OVERLAP_POLICY_ALLOW,
        "skip": pb.OVERLAP_POLICY_SKIP,
        "queue": pb.OVERLAP_POLICY_QUEUE_ONE,
        "cancel": pb.OVERLAP_POLICY_CANCEL_PREVIOUS,
    }
)
MISSED: Mapping[str, pb.MissedPolicy.ValueType] = MappingProxyType(
    {"skip": pb.MISSED_POLICY_SKIP, "once": pb.MISSED_POLICY_ONCE, "all": pb.MISSED_POLICY_ALL}
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron fires: by an expression, or every so many seconds, or at a random moment in each such interval.

        Schedule("0 30 4 * * *", time_zone="Europe/Stockholm")
        Schedule(every=10, max_runs=100)
        Schedule(random_every=3600, end=datetime(2027, 1, 1, tzinfo=UTC))

    Bounds that are not checked here the server checks, which knows them all.

    `expression` has six fields, seconds first, or five; or it is a word such as @daily. `every` and `random_every` are seconds,
    from 1 on. `time_zone` is an IANA name, for an expression; empty = UTC. No fire comes before `start`, at or after `end`, or
    after `max_runs` workflows (0 = any number). Each is put off by a random time below `jitter` seconds. A moment without a
    time zone is in the local one.
    """

    expression: str = ""
    _: KW_ONLY
    every: float | None = None
    random_every: float | None = None
    time_zone: str = ""
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int = 0
    jitter: float = 0.0

    def to_message(self) -> pb.Schedule:
        """What is sent.

        Raises:
            ScheduleError: not exactly one of `expression`, `every` and `random_every` is given, or a number is none.
        """
        if bool(self.expression) + (self.every is not None) + (self.random_every is not None) != 1:
            msg = "a schedule takes an expression, every or random_every: exactly one of them"
            raise ScheduleError(msg)
        message = pb.Schedule(
            time_zone=self.time_zone,
            start_time=timestamp(self.start),
            end_time=timestamp(self.end),
            max_runs=_count(self.max_runs, "max_runs"),
            jitter_ms=_milliseconds(self.jitter, "jitter"),
        )
        if self.every is not None:
            message.interval_ms = _milliseconds(self.every, "every")
        elif self.random_every is not None:
            message.random_interval_ms = _milliseconds(self.random_every, "random_every")
        else:
            message.expression = self.expression
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class FirePolicy:
    """What a fire does when others are open or were missed.

        FirePolicy(overlap="queue", missed="all", missed_at_most=5, feed_outputs=True)

    `overlap`, when the last workflow of the cron is still open: "allow" submits beside it, "skip" submits nothing, "queue"
    waits for its end, "cancel" cancels it first.

    `missed`, for moments on which nobody could act: "skip" leaves them out, "once" fires once for all of them, "all" fires the
    newest `missed_at_most` (0 = 100), the oldest of them first. A moment is missed when it is more than `missed_after` seconds
    late (0 = 10).

    `feed_outputs` appends the outputs of the last run that succeeded to the arguments of each root of the next. The cron pauses
    itself after `max_failures` refused fires in a row (0 = 10).
    """

    overlap: str = "allow"
    missed: str = "once"
    missed_at_most: int = 0
    missed_after: float = 0.0
    feed_outputs: bool = False
    max_failures: int = 0

    def to_message(self) -> pb.FirePolicy:
        """What is sent.

        Raises:
            ScheduleError: a word is none of those, or a number is none.
        """
        return pb.FirePolicy(
            overlap=_word(OVERLAPS, self.overlap, "overlap"),
            missed=_word(MISSED, self.missed, "missed"),
            missed_at_most=_count(self.missed_at_most, "missed_at_most", most=2**31 - 1),
            missed_after_ms=_milliseconds(self.missed_after, "missed_after"),
            feed_outputs=self.feed_outputs,
            max_failures=_count(self.max_failures, "max_failures", most=2**31 - 1),
        )


def schedule_message(given: Schedule | str | float) -> pb.Schedule:
    """The message for a Schedule, for an expression, or for the seconds from one fire to the next.

    Raises:
        ScheduleError: it is none of these, or makes no sense.
    """
    if isinstance(given, str):
        given = Schedule(given)
    return (given if isinstance(given, Schedule) else Schedule(every=given)).to_message()


def _word(words: Mapping[str, Policy], given: str, what: str) -> Policy:
    if given not in words:
        msg = f"{what} is {given!r}: it is one of {', '.join(words)}"
        raise ScheduleError(msg)
    return words[given]


def _milliseconds(seconds: object, what: str) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_SECONDS:
        msg = f"{what} is {seconds!r}: it must be a number of seconds, and not negative"
        raise ScheduleError(msg)
    return round(seconds * 1000)


def _count(number: object, what: str, most: int = 2**63 - 1) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        msg = f"{what} is {number!r}: it must be a whole number from 0 to {most}"
        raise ScheduleError(msg)
    return number
