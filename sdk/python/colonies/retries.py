"""Waits before retries, as they are written in Python."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colonies.errors import WorkflowError
from colonies.scheduler.v1 import spec_pb2 as spec

MAX_SECONDS = 2**53


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before each retry: `first` seconds before the first, `factor` times as long before each further one,
    never more than `longest` seconds (None = one hour, or `first` if that is more); of each wait a random part of up to
    `jitter` (0 to 1) is taken away.
    """

    first: float
    factor: float = 2.0
    longest: float | None = None
    jitter: float = 0.5

    def to_message(self, what: str = "backoff") -> spec.Backoff:
        """What is sent.

        Raises:
            WorkflowError: a part is no number, or out of bounds; names `what` and the part.
        """
        return spec.Backoff(
            first_ms=_milliseconds(self.first, f"{what}: first"),
            factor=_within(self.factor, 1, 100, f"{what}: factor"),
            longest_ms=0 if self.longest is None else _milliseconds(self.longest, f"{what}: longest"),
            jitter=_within(self.jitter, 0, 1, f"{what}: jitter"),
        )


def backoff_message(given: Backoff | Mapping[str, Any] | float, what: str) -> spec.Backoff:
    """The message for a Backoff, for its parts as a mapping, or for the seconds before the first retry.

    Raises:
        WorkflowError: it is none of these, or out of bounds; names `what`.
    """
    if isinstance(given, Mapping):
        try:
            given = Backoff(**given)
        except TypeError as error:
            msg = f"{what} is {given!r}: it takes first, factor, longest and jitter"
            raise WorkflowError(msg) from error
    return (given if isinstance(given, Backoff) else Backoff(first=given)).to_message(what)


def _milliseconds(seconds: object, what: str) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        msg = f"{what} is {seconds!r}: it must be a positive number of seconds"
        raise WorkflowError(msg)
    return math.ceil(seconds * 1000)


def _within(number: object, least: int, most: int, what: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
        msg = f"{what} is {number!r}: it must be a number from {least} to {most}"
        raise WorkflowError(msg)
    return float(number)
