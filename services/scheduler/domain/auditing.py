"""The audit export: a colony's ledger with the signed calls behind it, as the lines of an audit file (docs/audit.md)."""

import base64
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from colonies.audit.lines import VERSION, LineWriter
from colonies.keys import PrivateKey
from servicekit.clock import EPOCH, NS_PER_MS, Clock
from servicekit.failures import FailedPrecondition
from services.scheduler.domain.records import Receipt

PAGE = 500
MIB = 1024 * 1024
# Lines go out when they are this many bytes together.
CHUNK_BYTES = MIB
OWNER_KIND = "COLONY_ADDED"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a colony is exported. No ids: all; else these, and all processes of these workflows."""

    process_ids: Sequence[UUID] = ()
    workflow_ids: Sequence[UUID] = ()
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A ledger line, with the digests of the calls that it names."""

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


@dataclass(frozen=True, slots=True)
class AuditProcess:
    """A process and its ledger, as they were at one moment."""

    id: UUID
    sequence: int
    workflow_id: UUID | None
    initiator: str
    initiator_name: str
    submitted_at: datetime
    priority_time: int
    receipt: bytes | None
    place: int
    events: Sequence[AuditEvent]

    @property
    def receipts(self) -> Iterator[bytes]:
        """The digests of the calls that it names, in the order in which it does."""
        for digest in (self.receipt, *(one for event in self.events for one in (event.receipt, event.output_receipt))):
            if digest is not None:
                yield digest


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some processes, and the calls which they name that were not known yet."""

    processes: Sequence[AuditProcess]
    receipts: Mapping[bytes, Receipt]
    more: bool


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


class Ledgers(Protocol):
    """The tables that are exported. Every method may raise Unavailable."""

    async def require(self, colony: str, scope: Scope) -> None:
        """Fails with NotFound for a process or workflow that the colony does not have."""
        ...

    async def page(self, colony: str, scope: Scope, after: int, limit: int, known: Collection[bytes]) -> AuditPage:
        """Processes after a place in submission order, without the calls that are known."""
        ...


class KeyHolder(Protocol):
    """Who has this service's key; it may be another one from one moment to the next."""

    @property
    def key(self) -> PrivateKey:
        """That of now."""
        ...


class Memberships(Protocol):
    """What auth keeps of members."""

    def events(self, colony: str, after: int) -> AsyncIterator[Sequence[MembershipEvent]]:
        """A colony's from behind a number on, in order, by pages."""
        ...


@dataclass(slots=True)
class _Lines:
    """The file under way."""

    writer: LineWriter
    known: set[bytes] = field(default_factory=set)

    def add_call(self, call: Receipt) -> bytes:
        """Its line, before the first that names it."""
        if call.digest in self.known:
            return b""
        self.known.add(call.digest)
        return self.writer.line(_call_record(call))


class Auditing:
    """Exports."""

    def __init__(
        self,
        ledgers: Ledgers,
        memberships: Memberships,
        *,
        cluster: str,
        holder: KeyHolder,
        kept: bool,
        clock: Clock,
    ) -> None:
        self._ledgers = ledgers
        self._memberships = memberships
        self._cluster = cluster
        self._holder = holder
        self._kept = kept
        self._clock = clock

    async def export(self, colony: str, asker: str, scope: Scope) -> AsyncIterator[bytes]:
        """The file, in chunks of whole lines.

        Raises:
            FailedPrecondition: no receipts are kept.
            NotFound: no such process or workflow in this colony.
        """
        if not self._kept:
            msg = "this server keeps no receipts, so there is nothing to prove (COLONIES_RECEIPTS)"
            raise FailedPrecondition(msg, reason="RECEIPTS_NOT_KEPT")
        await self._ledgers.require(colony, scope)
        members = await self._members(colony, 0)
        owner = next((event.identity for event in members if event.kind == OWNER_KIND), "")
        writer = LineWriter(self._header(colony, owner, asker, scope))
        chunk = bytearray(writer.header_line)
        async for line in self._lines(colony, scope, members, _Lines(writer)):
            chunk += line
            if len(chunk) >= CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk + writer.seal(self._holder.key, time_ms=self._clock.now_ns() // NS_PER_MS))

    async def _members(self, colony: str, after: int) -> list[MembershipEvent]:
        return [event async for page in self._memberships.events(colony, after) for event in page]

    async def _lines(
        self, colony: str, scope: Scope, members: Sequence[MembershipEvent], lines: _Lines
    ) -> AsyncIterator[bytes]:
        """All lines between header and seal."""
        last, after = 0, 0
        while True:
            page = await self._ledgers.page(colony, scope, after, PAGE, lines.known)
            # Who did what is on this page may have come since the export began: members are read after it, and written first.
            members = [*members, *await self._members(colony, members[-1].number if members else last)]
            for event in members:
                yield b"".join(map(lines.add_call, event.calls))
                yield lines.writer.line(_membership_record(event))
                last = event.number
            members = ()
            for process in page.processes:
                for line in _process_lines(process, page.receipts, lines):
                    yield line
                after = process.sequence
            if not page.more:
                return

    def _header(self, colony: str, owner: str, asker: str, scope: Scope) -> dict[str, Any]:
        return {
            "record": "header",
            "version": VERSION,
            "cluster": self._cluster,
            "colony": colony,
            "owner": owner,
            "asked_by": asker,
            "time_ms": self._clock.now_ns() // NS_PER_MS,
            "scope": {
                "process_ids": [str(one) for one in scope.process_ids],
                "workflow_ids": [str(one) for one in scope.workflow_ids],
                "since_us": None if scope.since is None else _microseconds(scope.since),
                "before_us": None if scope.before is None else _microseconds(scope.before),
            },
        }


def _process_lines(process: AuditProcess, receipts: Mapping[bytes, Receipt], lines: _Lines) -> Iterator[bytes]:
    for digest in process.receipts:
        if digest in receipts:
            yield lines.add_call(receipts[digest])
    yield lines.writer.line(
        {
            "record": "process",
            "id": str(process.id),
            "workflow_id": str(process.workflow_id or ""),
            "initiator": process.initiator,
            "initiator_name": process.initiator_name,
            "submitted_us": _microseconds(process.submitted_at),
            "priority_time": process.priority_time,
            "call": _hex(process.receipt),
            "place": process.place,
            "events": len(process.events),
        }
    )
    for number, event in enumerate(process.events, 1):
        yield lines.writer.line(_event_record(process.id, number, event))


def _event_record(process_id: UUID, number: int, event: AuditEvent) -> dict[str, Any]:
    return {
        "record": "event",
        "process": str(process_id),
        "number": number,
        "at_us": _microseconds(event.at),
        "from": event.from_state,
        "to": event.to_state,
        "attempt": event.attempt,
        "executor_name": event.executor_name,
        "actor": event.actor,
        "reason": event.reason,
        "outcome": event.outcome,
        "errors": list(event.errors),
        "call": _hex(event.receipt),
        "output_call": _hex(event.output_receipt),
        "hash": _hex(event.hash),
    }


def _membership_record(event: MembershipEvent) -> dict[str, Any]:
    return {
        "record": "membership",
        "number": event.number,
        "at_us": _microseconds(event.at),
        "kind": event.kind,
        "identity": event.identity,
        "key": event.key,
        "role": event.role,
        "name": event.name,
        "calls": [call.digest.hex() for call in event.calls],
        "hash": event.hash.hex(),
    }


def _call_record(call: Receipt) -> dict[str, Any]:
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
