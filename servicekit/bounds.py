"""Bounds on what comes in. Every check names the field and the bound; all violations of a request are told at once.

Where a batch has thousands of fields, the paths to name them by cost more than the checks. Such a caller asks a predicate
first, and the check of the same name only to have it tell what is wrong:

    if not is_name(spec.location):
        bounds.name(f"specs[{index}].location", spec.location)
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager

from servicekit.failures import InvalidArgument, Violation

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
NAME_RULE = "must be 1-128 characters of [A-Za-z0-9._-], the first a letter or a digit"
IDENTITY = re.compile(r"[0-9a-f]{64}\Z")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z")
QUANTITY_BINARY = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,3})?(?:k|M|G|T|Ki|Mi|Gi|Ti)?\Z")
QUANTITY_CPU = re.compile(r"(?:[0-9]{1,12}m|[0-9]{1,9}(?:\.[0-9]{1,3})?)\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TEXT_FORBIDDEN = "\x00"
SHOWN = 40

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


def is_name(value: str) -> bool:
    """Whether `Bounds.name` has nothing to say of it. So for each of these."""
    return NAME.match(value) is not None


def are_names(values: Iterable[str]) -> bool:
    """Whether all are Names. That they are distinct, and how many, is not looked at."""
    return all(map(NAME.match, values))


def is_identity(value: str) -> bool:
    """Whether it is 64 lower-case hex digits."""
    return IDENTITY.match(value) is not None


def is_request_id(value: str) -> bool:
    """Whether it is an idempotency key."""
    return REQUEST_ID.match(value) is not None


def is_uuid(value: str) -> bool:
    """Whether it is a UUID in its canonical form, of either case."""
    return UUID_TEXT.match(value) is not None


def is_printable(value: str, at_most: int = 256) -> bool:
    """Whether it is printable text of 1 to `at_most` UTF-8 bytes."""
    # What Python finds printable has no control characters; only the rest (such as other spaces) is worth a search.
    return 0 < utf8_size(value) <= at_most and (value.isprintable() or CONTROL.search(value) is None)


def is_text(value: str, at_most: int) -> bool:
    """Whether it is text without NUL of at most that many UTF-8 bytes."""
    return utf8_size(value) <= at_most and TEXT_FORBIDDEN not in value


def is_quantity(value: str) -> bool:
    """Whether it is a quantity of memory or storage, or empty."""
    return not value or QUANTITY_BINARY.match(value) is not None


def is_cpu(value: str) -> bool:
    """Whether it is a quantity of processor, or empty."""
    return not value or QUANTITY_CPU.match(value) is not None


def utf8_size(value: str) -> int:
    """How many bytes of UTF-8 a text has; a lone surrogate counts 3."""
    return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))


def shown(value: object) -> str:
    """The value for an error message, cut to a bounded length."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class Bounds:
    """Collects violations: `with checked() as bounds: bounds.name("colony_name", request.colony_name)`."""

    __slots__ = ("violations",)

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def refuse(self, field: str, description: str) -> None:
        """Notes a violation."""
        self.violations.append(Violation(field, description))

    def name(self, field: str, value: str, *, optional: bool = False) -> None:
        """A Name, as the protos define it."""
        if (value or not optional) and not is_name(value):
            self.refuse(field, f"{NAME_RULE}; got {shown(value)}")

    def names(self, field: str, values: Iterable[str], *, at_least: int, at_most: int) -> None:
        """A list of distinct Names."""
        values = list(values)
        self.count(field, values, at_least=at_least, at_most=at_most)
        for index, value in enumerate(values[:at_most]):
            self.name(f"{field}[{index}]", value)
        if len(set(values)) != len(values):
            self.refuse(field, "must be distinct")

    def identity(self, field: str, value: str) -> None:
        """An identity: 64 lower-case hex digits."""
        if not is_identity(value):
            self.refuse(field, f"must be an identity of 64 lower-case hex digits; got {shown(value)}")

    def request_id(self, field: str, value: str) -> None:
        """An idempotency key."""
        if not is_request_id(value):
            self.refuse(field, f"must be 1-128 printable ASCII characters without spaces; got {shown(value)}")

    def uuid(self, field: str, value: str) -> uuid.UUID | None:
        """A UUID in its canonical form; None (and a violation) for anything else."""
        if not is_uuid(value):
            self.refuse(field, f"must be a UUID such as 123e4567-e89b-12d3-a456-426614174000; got {shown(value)}")
            return None
        return uuid.UUID(value)

    def printable(self, field: str, value: str, *, at_most: int = 256, optional: bool = False) -> None:
        """Printable text of a bounded number of UTF-8 bytes."""
        if is_printable(value, at_most) or (optional and not value):
            return
        if not value:
            self.refuse(field, f"must be 1-{at_most} bytes of printable text; it is empty")
        elif (size := utf8_size(value)) > at_most:
            self.refuse(field, f"must be at most {at_most} bytes; it has {size}")
        else:
            self.refuse(field, f"must be printable text without control characters; got {shown(value)}")

    def text(self, field: str, value: str, *, at_most: int) -> None:
        """Any text without NUL (which Postgres cannot store), of a bounded number of UTF-8 bytes."""
        if (size := utf8_size(value)) > at_most:
            self.refuse(field, f"must be at most {at_most} bytes; it has {size}")
        elif TEXT_FORBIDDEN in value:
            self.refuse(field, "must not contain NUL characters")

    def number(self, field: str, value: float, *, at_least: float, at_most: float) -> None:
        """A number in a closed range. NaN is in no range."""
        if not at_least <= value <= at_most:
            self.refuse(field, f"must be {at_least} to {at_most}; got {value}")

    def count(self, field: str, values: Sized, *, at_least: int = 0, at_most: int) -> None:
        """How many entries a list or map has."""
        if not at_least <= len(values) <= at_most:
            self.refuse(field, f"must have {at_least} to {at_most} entries; it has {len(values)}")

    def quantity(self, field: str, value: str) -> None:
        """A quantity of memory or storage such as "10Gi"; empty is unset."""
        if not is_quantity(value):
            self.refuse(field, f'must be a quantity such as "10Gi", "512Mi" or "1000000"; got {shown(value)}')

    def cpu(self, field: str, value: str) -> None:
        """A quantity of processor such as "1000m" or "2"; empty is unset."""
        if not is_cpu(value):
            self.refuse(field, f'must be a quantity such as "1000m" or "2"; got {shown(value)}')

    def page(self, field: str, value: int) -> int:
        """A page size: the default for 0."""
        self.number(field, value, at_least=0, at_most=MAX_PAGE)
        return value or DEFAULT_PAGE

    def close(self) -> None:
        """Raises InvalidArgument if anything was refused."""
        if self.violations:
            raise InvalidArgument(self.violations)


@contextmanager
def checked() -> Iterator[Bounds]:
    """Bounds for one request; raises InvalidArgument at the end if anything was refused."""
    bounds = Bounds()
    yield bounds
    bounds.close()
