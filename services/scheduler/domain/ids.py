"""Ids of processes and workflows: UUIDs of version 7 (RFC 9562), so that new rows lie side by side in their indexes."""

import os
import uuid

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_LOW = (1 << 62) - 1
_RANDOM_HIGH = (1 << 12) - 1


def new_id(now_ns: int) -> uuid.UUID:
    """A new id: 48 bits of unix milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = (now_ns // 1_000_000) & ((1 << 48) - 1)
    high = (random >> 62) & _RANDOM_HIGH
    return uuid.UUID(int=milliseconds << 80 | _VERSION | high << 64 | _VARIANT | random & _RANDOM_LOW)
