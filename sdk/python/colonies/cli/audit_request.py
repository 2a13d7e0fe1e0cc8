"""What was asked of an audit export, and whether a file is that and nothing else: a server that turned may give less."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

from colonies.audit.findings import DEFAULT_MAX_FINDINGS, Report, TooMany
from colonies.audit.reading import read_header, records
from colonies.audit.scope import Scope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of whom, by whom, and how much. `key` is the identity of the key that signed the call."""

    cluster: str
    colony: str
    key: str
    process_ids: list[str]
    workflow_ids: list[str]
    since: datetime | None
    before: datetime | None

    @property
    def scope(self) -> dict[str, Any]:
        """As a header has it."""
        return {
            "process_ids": [_uuid(one) for one in self.process_ids],
            "workflow_ids": [_uuid(one) for one in self.workflow_ids],
            "since_us": _microseconds(self.since),
            "before_us": _microseconds(self.before),
        }

    def differences(self, file: BinaryIO) -> list[str]:
        """What the header of a well-formed file says that was not asked for."""
        file.seek(0)
        header = read_header(file).record
        wrong = [
            f"it is of the {name} {header[name]!r}, and {wanted!r} was asked for"
            for name, wanted in (("cluster", self.cluster), ("colony", self.colony))
            if header[name] != wanted
        ]
        if header["scope"] != self.scope:
            wrong.append(f"it holds {Scope(header['scope'])}, and {Scope(self.scope)} was asked for")
        if header["asked_by"] != self.key and not self._rotated_from(header["asked_by"], file):
            wrong.append(f"it was asked for by {header['asked_by']}, and the key here is {self.key}")
        return wrong

    def _rotated_from(self, identity: str, file: BinaryIO) -> bool:
        """Whether a member known by another identity has the key."""
        file.seek(0)
        report = Report(max_findings=DEFAULT_MAX_FINDINGS)
        with suppress(TooMany):  # not found among what can be read
            for kind, line in records(file, report):
                if kind == "membership" and (line.record["identity"], line.record["key"]) == (identity, self.key):
                    return True
        return False


def _uuid(text: str) -> str:
    """In the one form that ids have in files."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
