"""Moments on their way to the wire."""

from datetime import datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


@overload
def timestamp(moment: None) -> None: ...
@overload
def timestamp(moment: datetime) -> Timestamp: ...
def timestamp(moment: datetime | None) -> Timestamp | None:
    """The message for a moment. One without a time zone is in the local one, as everywhere in Python."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone())
    return stamp
