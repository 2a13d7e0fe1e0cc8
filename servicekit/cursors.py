"""Page cursors: where a list goes on. Opaque to clients; base64url of what the store needs to find the place again.

A cursor is no secret and carries no rights: a forged one shows its holder another part of a list that it may read anyway.
"""

import base64
import binascii
import json
from typing import Any

from servicekit.failures import InvalidArgument, Violation

# More than the longest keys that lists are ordered by: a cursor longer than this was never one of ours.
MAX_CHARACTERS = 4_096
LARGEST = 2**63 - 1


def encode(parts: tuple[str | int, ...]) -> str:
    """The cursor that leads on from the row with this sort key."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode("ascii")


def decode(field: str, text: str, *types: type[str] | type[int]) -> tuple[Any, ...]:
    """The sort key in a cursor; one part for each type. The empty cursor of a first page is the caller's to tell apart.

    Args:
        field: the cursor's path in the request, for the error.
        text: what the client sent.
        types: `str` or `int` for each part, as they were encoded.

    Raises:
        InvalidArgument: this text is no cursor of such a list.
    """
    parts = _parsed(text)
    if len(parts) != len(types) or not all(map(_fits, parts, types)):
        raise InvalidArgument([Violation(field, "must be the `next_cursor` of the page before, unchanged")])
    return tuple(parts)


def _parsed(text: str) -> list[Any]:
    """The parts, or none for text that is not a list in JSON in base64url."""
    if not text.isascii() or len(text) > MAX_CHARACTERS:
        return []
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = json.loads(data.decode())
    except (binascii.Error, ValueError, RecursionError):
        return []
    return parts if isinstance(parts, list) else []


def _fits(part: object, kind: type[str] | type[int]) -> bool:
    """Whether the part has the type and Postgres can take it: no NUL, no lone surrogate, 64 bits."""
    if kind is int:
        return type(part) is int and -LARGEST <= part <= LARGEST
    return isinstance(part, str) and "\0" not in part and not any("\ud800" <= c <= "\udfff" for c in part)
