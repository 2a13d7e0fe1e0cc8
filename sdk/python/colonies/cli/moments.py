"""Times and spans as people read them: times in the local zone, spans in the largest two units."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
# Each unit with the one below it.
_UNITS = ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s"))


def local(moment: Timestamp) -> str:
    """Date and time in the local zone."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def local_if_set(message: Message, field: str) -> str:
    """A time field in the local zone; empty when it is not set."""
    return local(getattr(message, field)) if message.HasField(field) else ""


def zoned(moment: Timestamp) -> str:
    """Date and time in the local zone, which is named."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def zoned_if_set(message: Message, field: str) -> str:
    """A time field as `zoned`; empty when it is not set."""
    return zoned(getattr(message, field)) if message.HasField(field) else ""


def in_zone(moment: Timestamp, name: str) -> str:
    """Date and time in a zone of the IANA's; empty where this machine does not know it."""
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ""
    return moment.ToDatetime(tzinfo=UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def span(seconds: float) -> str:
    """A length of time."""
    if seconds < 0:
        return "-" + span(-seconds)
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, below, below_name in _UNITS:
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name} {rest} {below_name}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def span_ms(milliseconds: int) -> str:
    """A length of time of a field in milliseconds; empty for 0, which stands for none."""
    return span(milliseconds / 1000) if milliseconds else ""


def run_time(message: Message, begin: str = "start_time", end: str = "end_time") -> str:
    """How long something took, or has taken until now; empty when it has not begun."""
    if not message.HasField(begin):
        return ""
    began = getattr(message, begin).ToDatetime(tzinfo=UTC)
    ended = getattr(message, end).ToDatetime(tzinfo=UTC) if message.HasField(end) else datetime.now(UTC)
    return span((ended - began).total_seconds())


def ago(message: Message, field: str) -> str:
    """How long ago something was; empty when it never was."""
    if not message.HasField(field):
        return ""
    moment = getattr(message, field).ToDatetime(tzinfo=UTC)
    return span(max(0.0, (datetime.now(UTC) - moment).total_seconds())) + " ago"
