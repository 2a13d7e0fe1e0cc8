"""When a cron fires: arithmetic on moments (UTC datetimes), without drift and without daylight saving."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cronsim import CronSim, CronSimError

ALIASES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

# Whether an expression ever matches does not depend on when it is asked: the calendar's longest pause between two matches is
# 40 years (29 February on a given weekday, around 2100), and the search gives up after 50.
_ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


class ScheduleError(ValueError):
    """An expression that means nothing, or never comes true; the message says which."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression in UTC, as its author wrote it. Made by `parse`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Reads an expression of six fields (seconds first) or five, or an alias such as "@daily".

        Raises:
            ScheduleError: it is none, or no moment ever matches it.
        """
        if text.startswith("@") and text not in ALIASES:
            msg = f"must be one of {', '.join(ALIASES)} if it begins with @"
            raise ScheduleError(msg)
        expression = cls(text)
        try:
            first = expression._first_after(_ANY_MOMENT)
        except CronSimError as error:
            # Also says "Bad day-of-month" of days that none of the months has.
            msg = f"must be a cron expression of six fields, seconds first, or of five: {str(error).lower()}"
            raise ScheduleError(msg) from error
        if first is None:
            msg = "must be an expression that comes true some day; this one never does"
            raise ScheduleError(msg)
        return expression

    def next_after(self, after: datetime, *, created: datetime) -> datetime | None:  # noqa: ARG002 - intervals need it
        """The first matching second strictly after a moment, wherever the cron began; None for none in 50 years."""
        return self._first_after(after)

    def _first_after(self, after: datetime) -> datetime | None:
        return next(CronSim(ALIASES.get(self.text, self.text), after.astimezone(UTC)), None)


@dataclass(frozen=True, slots=True)
class Interval:
    """A fixed number of milliseconds from one fire to the next, counted from the cron's creation."""

    milliseconds: int

    def next_after(self, after: datetime, *, created: datetime) -> datetime | None:
        """The first of `created` + k intervals, k = 1, 2, ..., strictly after a moment.

        Always counted from the creation, in integers: however late a fire was, the next is not.
        """
        step = timedelta(milliseconds=self.milliseconds)
        return created + max(1, (after - created) // step + 1) * step


Schedule: TypeAlias = Expression | Interval
