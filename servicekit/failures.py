"""What can go wrong, in the words of the domain: no gRPC here. servicekit.status maps each kind to its status code."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

MAX_VIOLATIONS = 20


class Violation(NamedTuple):
    """A field of the request that broke its bound."""

    field: str
    description: str


class Failure(Exception):
    """Base: a call that ends with an error the caller can act on. `reason` is a constant for programs."""

    def __init__(self, message: str, *, reason: str, metadata: Mapping[str, str] | None = None) -> None:
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        super().__init__(message)


class InvalidArgument(Failure):
    """Fields out of bounds."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations[:MAX_VIOLATIONS])
        first = self.violations[0]
        more = len(violations) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first.field}: {first.description}{rest}", reason="INVALID_FIELD")


class Unauthenticated(Failure):
    """The signature does not show who calls."""


class PermissionDenied(Failure):
    """The caller may not, or there is no such colony."""


class NotFound(Failure):
    """What was named is not there."""


class AlreadyExists(Failure):
    """The name is taken."""


class FailedPrecondition(Failure):
    """The state of things does not allow it."""


class _Delayed(Failure):
    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        retry_delay_s: float = 0.5,
    ) -> None:
        self.retry_delay_s = retry_delay_s
        super().__init__(message, reason=reason, metadata=metadata)


class ResourceExhausted(_Delayed):
    """Over a limit."""


class Unavailable(_Delayed):
    """A part of the service is out of reach; nothing was acknowledged."""


def stranger_denied() -> PermissionDenied:
    """The one answer to everyone who is nothing in a colony, whether or not it exists."""
    return PermissionDenied("no such colony, or not a member of it", reason="NOT_A_MEMBER")
