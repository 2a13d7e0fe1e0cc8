"""What stands on the command line, turned into values: each with an error that names it."""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NoReturn

from colonies.cli.failure import usage
from colonies.scheduler.v1.spec_pb2 import Value

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_INT64_MAX = 2**63 - 1
_SIZES = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20}
_SIZE = re.compile(r"(\d{1,12})(Ki|Mi)?")
_INT32_MAX = 2**31 - 1
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)?")
_IDENTITY = re.compile(r"[0-9a-f]{64}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def value(text: str, name: str) -> Value:
    """An argument: JSON if it is valid JSON, else a string. JSON travels as it was written, so that no number is rounded.

    Raises:
        CliError: it is nested too deeply, or is not text.
    """
    try:
        # Numbers are not converted (only their syntax counts here): Python refuses integers of more than 4 300 digits.
        json.loads(text, parse_constant=_no_constant, parse_int=len, parse_float=len)
    except RecursionError as error:
        msg = f"{name}: the JSON is nested too deeply"
        raise usage(msg) from error
    except ValueError:
        return Value(data=json.dumps(_text(text, name), ensure_ascii=False).encode())
    return Value(data=_text(text, name).encode())


def json_value(data: bytes, name: str) -> Value:
    """A value that must be JSON, and travels as it was written.

    Raises:
        CliError: it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        json.loads(data.decode(), parse_constant=_no_constant, parse_int=len, parse_float=len)
    except RecursionError as error:
        msg = f"{name}: the JSON is nested too deeply"
        raise usage(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{name}: is not valid UTF-8"
        raise usage(msg) from error
    except ValueError as error:
        msg = f"{name}: is not JSON"
        raise usage(msg) from error
    return Value(data=data.strip())


def _text(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"{name}: is not valid UTF-8"
        raise usage(msg) from error
    return text


def pair(text: str, name: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE.

    Raises:
        CliError: there is no `=`, or no key.
    """
    key, equals, right = text.partition("=")
    if not equals or not key:
        msg = f"{name}: {text!r} is not of the form KEY=VALUE"
        raise usage(msg)
    return key, _text(right, name)


def pairs(texts: Iterable[str], name: str) -> dict[str, str]:
    """A map from KEY=VALUE texts.

    Raises:
        CliError: one has another form, or a key comes twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        key, right = pair(text, name)
        if key in result:
            msg = f"{name}: {key!r} is given twice"
            raise usage(msg)
        result[key] = right
    return result


def requirements(texts: Iterable[str], name: str) -> dict[str, list[str] | bool]:
    """What labels must be like: True for KEY alone, else the values that were given for it.

    Raises:
        CliError: a text has no key, or a key comes with and without a value.
    """
    result: dict[str, list[str] | bool] = {}
    for text in texts:
        key, equals, right = text.partition("=")
        values = result.get(key, [])
        if not key or isinstance(values, bool) or (key in result and not equals):
            msg = f"{name}: {text!r} is not of the form KEY or KEY=VALUE, or says something else of a key than before"
            raise usage(msg)
        result[key] = [*values, _text(right, name)] if equals else True
    return result


def duration_ms(text: str, name: str) -> int:
    """Milliseconds in a duration such as "200" (seconds), "1.5s", "10m", "2h", "1d" or "250ms".

    Raises:
        CliError: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = f"{name}: {text!r} is not a duration such as 200, 1.5s, 10m, 2h, 1d or 250ms"
        raise usage(msg)
    milliseconds = round(float(match[1]) * _UNITS_MS[match[2] or "s"])
    if milliseconds > _INT64_MAX:
        msg = f"{name}: {text!r} is too long"
        raise usage(msg)
    return milliseconds


def moment(text: str, name: str) -> datetime:
    """The moment in a text such as 2026-12-01, 2026-12-01T08:30 or 2026-12-01T08:30:00+01:00; without a zone, in the local one.

    Raises:
        CliError: it is none.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        msg = f"{name}: {text!r} is not a moment such as 2026-12-01, 2026-12-01T08:30 or 2026-12-01T08:30:00+01:00"
        raise usage(msg) from error


def size(text: str, name: str) -> int:
    """Bytes in a size such as "65536", "64Ki" or "1Mi".

    Raises:
        CliError: it is none, or too large.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        msg = f"{name}: {text!r} is not a size such as 65536, 64Ki or 1Mi"
        raise usage(msg)
    number = int(match[1]) * _SIZES[match[2] or ""]
    if number > _INT32_MAX:
        msg = f"{name}: {text!r} is too large"
        raise usage(msg)
    return number


def choice(text: str, choices: Sequence[str], name: str) -> str:
    """The choice that was meant, however it is cased.

    Raises:
        CliError: it is none of them.
    """
    for each in choices:
        if each.lower() == text.lower():
            return each
    msg = f"{name}: {text!r} is none of {', '.join(choices)}"
    raise usage(msg)


def is_identity(text: str) -> bool:
    """Whether a text is an identity and not a name: 64 hex digits."""
    return _IDENTITY.fullmatch(text) is not None


def json_file(text: str, name: str) -> Any:
    """The document in a JSON text.

    Raises:
        CliError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        msg = f"{name}: the JSON is nested too deeply"
        raise usage(msg) from error
    except json.JSONDecodeError as error:
        msg = f"{name}: line {error.lineno}, column {error.colno}: {error.msg}"
        raise usage(msg) from error
    except ValueError as error:
        msg = f"{name}: {error} is not JSON"
        raise usage(msg) from error
