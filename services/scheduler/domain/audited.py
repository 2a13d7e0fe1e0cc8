"""What an audit export is made of, and how each part stands in the file (docs/audit.md)."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from servicekit.clock import EPOCH
from services.scheduler.domain.records import Receipt

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a colony is exported. No ids: all; else these, and all processes of these workflows."""

    process_ids: Sequence[UUID] = ()
    workflow_ids: Sequence[UUID] = ()
    since: datetime | None = None
    before: datetime | None = None

    def record(self) -> dict[str, Any]:
        """As the header has it."""
        return {
            "process_ids": [str(one) for one in self.process_ids],
            "workflow_ids": [str(one) for one in self.workflow_ids],
            "since_us": None if self.since is None else _microseconds(self.since),
            "before_us": None if self.before is None else _microseconds(self.before),
        }


@dataclass(frozen=True, slots=True)
class AuditProcess:
    """A process, and its ledger in outline as it was at one moment.

    `lines` are so many, up to `last_line`, and weigh `weight` bytes; `names` are the digests of the calls that they name.
    """

    id: UUID
    sequence: int
    workflow_id: UUID | None
    initiator: str
    initiator_name: str
    submitted_at: datetime
    priority_time: int
    receipt: bytes | None
    place: int
    lines: int
    last_line: int
    weight: int
    names: Sequence[bytes]
    # Some line has no hash: it was entered before receipts were kept, or an older scheduler wrote to it.
    is_broken: bool

    @property
    def is_audited(self) -> bool:
        """Its chain is whole."""
        return self.receipt is not None and not self.is_broken

    def record(self) -> dict[str, Any]:
        """As a line has it."""
        return {
            "record": "process",
            "id": str(self.id),
            "workflow_id": str(self.workflow_id or ""),
            "initiator": self.initiator,
            "initiator_name": self.initiator_name,
            "submitted_us": _microseconds(self.submitted_at),
            "priority_time": self.priority_time,
            "call": _hex(self.receipt) if self.is_audited else "",
            "place": self.place,
            "events": self.lines,
        }


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A ledger line, with the digests of the calls that it names."""

    line: int
    at: datetime
    from_state: int
    to_state: int
    attempt: int
    executor_name: str
    actor: str
    reason: str
    outcome: int
    errors: Sequence[str]
    receipt: bytes | None
    output_receipt: bytes | None
    hash: bytes | None

    def record(self, process: AuditProcess, number: int) -> dict[str, Any]:
        """As a line has it; what is not audited has neither hash nor call."""
        proven = process.is_audited
        return {
            "record": "event",
            "process": str(process.id),
            "number": number,
            "at_us": _microseconds(self.at),
            "from": self.from_state,
            "to": self.to_state,
            "attempt": self.attempt,
            "executor_name": self.executor_name,
            "actor": self.actor,
            "reason": self.reason,
            "outcome": self.outcome,
            "errors": list(self.errors),
            "call": _hex(self.receipt) if proven else "",
            "output_call": _hex(self.output_receipt) if proven else "",
            "hash": _hex(self.hash) if proven else "",
        }


@dataclass(frozen=True, slots=True)
class MembershipEvent:
    """A link of auth's chain of memberships."""

    number: int
    at: datetime
    kind: str
    identity: str
    key: str
    role: str
    name: str
    calls: Sequence[Receipt]
    hash: bytes

    def record(self) -> dict[str, Any]:
        """As a line has it."""
        return {
            "record": "membership",
            "number": self.number,
            "at_us": _microseconds(self.at),
            "kind": self.kind,
            "identity": self.identity,
            "key": self.key,
            "role": self.role,
            "name": self.name,
            "calls": [call.digest.hex() for call in self.calls],
            "hash": self.hash.hex(),
        }


def call_record(call: Receipt) -> dict[str, Any]:
    """A signed call as a line has it."""
    return {
        "record": "call",
        "digest": call.digest.hex(),
        "method": call.method,
        "public_key": call.public_key.hex(),
        "time_ms": call.time_ms,
        "nonce": call.nonce.hex(),
        "signature": call.signature.hex(),
        "body": base64.b64encode(call.body).decode(),
    }


def _hex(digest: bytes | None) -> str:
    return "" if digest is None else digest.hex()


def _microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - EPOCH) // _MICROSECOND
