"""The lines of an audit file: writing them, one by one, with nothing kept but the running digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from colonies.audit.chains import seal_text
from colonies.keys import PrivateKey

VERSION = 1
NO_DIGEST = bytes(hashlib.sha256().digest_size)

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def _check(value: object) -> None:
    """Raises ValueError for what an audit file cannot hold."""
    match value:
        case str() | bool() | None:
            return
        case int() if _INT64_MIN <= value <= _INT64_MAX:
            return
        case list():
            for item in value:
                _check(item)
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    msg = f"the member name {name!r} is no text"
                    raise ValueError(msg)  # noqa: TRY004
                _check(item)
        case _:
            msg = f"an audit file holds no {type(value).__name__} such as {value!r}"
            raise ValueError(msg)


def canonical(record: Mapping[str, Any]) -> bytes:
    """A record as JSON in its one form.

    Raises:
        ValueError: it holds a float, an integer beyond 64 bits, text that is no UTF-8, or something that is no JSON.
    """
    _check(record)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def line_digest(previous: bytes, content: bytes) -> bytes:
    """The digest of a line.

    Args:
        previous: digest of the line before; `NO_DIGEST` for the first.
        content: its JSON.
    """
    return hashlib.sha256(previous + content).digest()


class LineWriter:
    """Turns records into the lines of one file: the header first, then all others in order, then the seal.

    Nothing is kept but a digest, so a file of any length can be streamed.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        """A file that begins with this header, whose line is `header_line`."""
        self._cluster: str = header["cluster"]
        self._colony: str = header["colony"]
        self._digest = NO_DIGEST
        self.records = 0
        self.header_line: bytes = self.line(header)

    def line(self, record: Mapping[str, Any]) -> bytes:
        """The next line.

        Raises:
            ValueError: see `canonical`.
        """
        content = canonical(record)
        self._digest = line_digest(self._digest, content)
        self.records += 1
        return self._digest.hex().encode() + b" " + content + b"\n"

    def seal(self, key: PrivateKey, *, time_ms: int) -> bytes:
        """The last line, signed.

        Args:
            key: the scheduler's.
            time_ms: unix milliseconds.
        """
        text = seal_text(
            cluster=self._cluster, colony=self._colony, time_ms=time_ms, records=self.records, digest=self._digest.hex()
        )
        return self.line(
            {
                "record": "seal",
                "records": self.records,
                "public_key": key.public_key.hex(),
                "time_ms": time_ms,
                "signature": key.sign(text).hex(),
            }
        )
