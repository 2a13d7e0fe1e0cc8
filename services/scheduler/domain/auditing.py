"""The audit export: a colony's ledger with the signed calls behind it, as the lines of an audit file (docs/audit.md).

However much a colony has, and however large single calls are, what is held at a time is bounded: processes are read in outline
first, small ones are then loaded together, and a large one piece by piece. Lines are only ever added to a ledger, so that one
read up to the last line of the outline is as it was at that moment.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from colonies.audit.lines import VERSION, LineWriter
from colonies.keys import PrivateKey
from servicekit.clock import NS_PER_MS, Clock
from servicekit.failures import FailedPrecondition, Unavailable
from services.scheduler.domain.audited import AuditEvent, AuditProcess, MembershipEvent, Scope, call_record
from services.scheduler.domain.records import Receipt

PAGE = 500
MIB = 1024 * 1024
# Lines go out when they are this many bytes together.
CHUNK_BYTES = MIB
# What is loaded together of processes; more only of a single line or call.
MAX_LOADED = 8 * MIB
# Larger calls are written down beside the event loop.
LARGE_CALL = MIB
OWNER_KIND = "COLONY_ADDED"


class Ledgers(Protocol):
    """The tables that are exported. Every method may raise Unavailable."""

    async def require(self, colony: str, scope: Scope) -> None:
        """Fails with NotFound for a process or workflow that the colony does not have."""
        ...

    async def bounds(self, colony: str, scope: Scope) -> tuple[int, int]:
        """The places in submission order between which all of the scope lies: from behind the first, up to the second."""
        ...

    async def page(self, colony: str, scope: Scope, after: int, until: int, limit: int) -> list[AuditProcess]:
        """Processes after a place in submission order, in outline."""
        ...

    async def events(self, processes: Sequence[AuditProcess]) -> Mapping[UUID, Sequence[AuditEvent]]:
        """All lines of processes up to their last in the outline."""
        ...

    async def part(self, process: AuditProcess, after_line: int, at_most_bytes: int) -> Sequence[AuditEvent]:
        """The lines of one process from behind a line on: at least one, and no more than about so many bytes."""
        ...

    def receipts(self, colony: str, digests: Sequence[bytes], at_most_bytes: int) -> AsyncIterator[Receipt]:
        """Kept calls, in any order; loaded together while they are no more than so many bytes."""
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
            Unavailable: a process was removed meanwhile, or a server is out of reach; begin anew.
        """
        if not self._kept:
            msg = "this server keeps no receipts, so there is nothing to prove (COLONIES_RECEIPTS)"
            raise FailedPrecondition(msg, reason="RECEIPTS_NOT_KEPT")
        await self._ledgers.require(colony, scope)
        header = {
            "record": "header",
            "version": VERSION,
            "cluster": self._cluster,
            "colony": colony,
            "owner": await self._owner(colony),
            "asked_by": asker,
            "time_ms": self._clock.now_ns() // NS_PER_MS,
            "scope": scope.record(),
        }
        writer = LineWriter(header)
        chunk = bytearray(writer.header_line)
        async for line in _Export(self._ledgers, self._memberships, colony, writer).lines(scope):
            chunk += line
            if len(chunk) >= CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk + writer.seal(self._holder.key, time_ms=self._clock.now_ns() // NS_PER_MS))

    async def _owner(self, colony: str) -> str:
        """The owner's identity; empty for a colony from before memberships were written down."""
        async for page in self._memberships.events(colony, 0):
            return page[0].identity if page[0].kind == OWNER_KIND else ""
        return ""


class _Export:
    """One file under way."""

    def __init__(self, ledgers: Ledgers, memberships: Memberships, colony: str, writer: LineWriter) -> None:
        self._ledgers = ledgers
        self._memberships = memberships
        self._colony = colony
        self._writer = writer
        # The last membership event that is written.
        self._member = 0
        # Calls that are written.
        self._known: set[bytes] = set()

    async def lines(self, scope: Scope) -> AsyncIterator[bytes]:
        """All lines between header and seal."""
        after, until = await self._ledgers.bounds(self._colony, scope)
        while True:
            page = await self._ledgers.page(self._colony, scope, after, until, PAGE)
            # Who did what is on this page may have come since the export began: members are read after it, and written first.
            async for line in self._members():
                yield line
            for group in _groups(page):
                async for line in self._group(group):
                    yield line
            if len(page) < PAGE:
                return
            after = page[-1].sequence

    async def _members(self) -> AsyncIterator[bytes]:
        async for page in self._memberships.events(self._colony, self._member):
            for event in page:
                for call in event.calls:
                    yield await self._call(call)
                yield self._writer.line(event.record())
                self._member = event.number

    async def _group(self, group: Sequence[AuditProcess]) -> AsyncIterator[bytes]:
        """The lines of processes; the calls that they name first, each once in the file."""
        wanted = [digest for one in group if one.is_audited for digest in one.names if digest not in self._known]
        async for call in self._ledgers.receipts(self._colony, list(dict.fromkeys(wanted)), MAX_LOADED):
            yield await self._call(call)
        if group[0].weight > MAX_LOADED:
            async for line in self._large(group[0]):
                yield line
            return
        loaded = await self._ledgers.events(group)
        for process in group:
            events = loaded.get(process.id, ())
            if len(events) != process.lines:
                raise _removed(process)
            yield self._writer.line(process.record())
            for number, event in enumerate(events, 1):
                yield self._writer.line(event.record(process, number))

    async def _large(self, process: AuditProcess) -> AsyncIterator[bytes]:
        """The lines of a process that is alone in its group."""
        yield self._writer.line(process.record())
        number, last = 0, 0
        while number < process.lines:
            events = await self._ledgers.part(process, last, MAX_LOADED)
            if not events:
                raise _removed(process)
            for event in events:
                number, last = number + 1, event.line
                yield self._writer.line(event.record(process, number))

    async def _call(self, call: Receipt) -> bytes:
        """The line of a call; empty if it is written already."""
        if call.digest in self._known:
            return b""
        self._known.add(call.digest)
        if len(call.body) < LARGE_CALL:
            return self._writer.line(call_record(call))
        return await asyncio.to_thread(lambda: self._writer.line(call_record(call)))


def _removed(process: AuditProcess) -> Unavailable:
    return Unavailable(f"process {process.id} was removed during the export; begin anew", reason="EXPORT_INTERRUPTED")


def _groups(page: Collection[AuditProcess]) -> list[list[AuditProcess]]:
    """Neighbours whose lines are not too much together."""
    groups: list[list[AuditProcess]] = []
    weight = 0
    for process in page:
        if not groups or weight + process.weight > MAX_LOADED:
            groups.append([])
            weight = 0
        groups[-1].append(process)
        weight += process.weight
    return groups
