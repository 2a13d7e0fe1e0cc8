"""The ledger of memberships: one more link in the transaction that makes the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from colonies.audit.chains import membership_hash
from servicekit.changes import Change
from servicekit.clock import EPOCH
from servicekit.postgres import Connection, Queries
from services.auth.domain.model import Event, EventKind, Evidence, Role

QUERIES = Queries("services.auth.store")

_MICROSECOND = timedelta(microseconds=1)
# Clocks differ: a key whose time is over here may be good for so long yet by the clock of one who follows.
_SKEW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Who:
    """The member that an event is about."""

    identity: str
    role: Role
    name: str


async def row_of(connection: Connection, query: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first row that a query gives."""
    return await (await connection.execute(QUERIES[query], parameters)).fetchone()


async def tell(connection: Connection, *changes: Change) -> None:
    """Tells followers when the transaction commits."""
    await connection.execute(QUERIES["notify"], {"payloads": [change.payload() for change in changes]})


async def live_keys(connection: Connection, colony: str, identity: str, evidence: Evidence) -> tuple[str, Sequence[str]]:
    """A member's current key, and all that may be good at the moment by somebody's clock."""
    parameters = {"colony": colony, "identity": identity, "after": evidence.at - _SKEW}
    rows = await connection.execute(QUERIES["live_keys"], parameters)
    found = {row["key"]: row["until"] async for row in rows}
    current = next((key for key, until in found.items() if until is None), identity)
    return current, list(found)


async def append(connection: Connection, colony: str, kind: EventKind, who: Who, key: str, evidence: Evidence) -> None:
    """Puts an event at the end of a colony's ledger. The transaction holds the colony."""
    last = await row_of(connection, "last_event", {"colony": colony})
    number, previous_hash = (1, b"") if last is None else (last["number"] + 1, last["hash"])
    digest = membership_hash(
        previous_hash.hex(),
        colony=colony,
        number=number,
        at_us=(evidence.at - EPOCH) // _MICROSECOND,
        kind=kind.value,
        identity=who.identity,
        key=key,
        role=who.role.value,
        name=who.name,
        calls=[call.digest for call in evidence.calls],
    )
    parameters = {
        "colony": colony,
        "number": number,
        "at": evidence.at,
        "kind": kind.value,
        "identity": who.identity,
        "key": key,
        "role": who.role.value,
        "name": who.name,
        "calls": [call.message for call in evidence.calls],
        "size": sum(len(call.message) for call in evidence.calls),
        "previous_hash": previous_hash,
        "hash": bytes.fromhex(digest),
    }
    await connection.execute(QUERIES["insert_event"], parameters)


async def record(connection: Connection, colony: str, kind: EventKind, who: Who, evidence: Evidence) -> None:
    """Puts an event about a member into the ledger, and tells followers of the member and of all keys that it has."""
    current, live = await live_keys(connection, colony, who.identity, evidence)
    await append(connection, colony, kind, who, current, evidence)
    await tell(connection, *(Change(colony, key) for key in sorted({who.identity, *live})))


def event_of(row: Mapping[str, Any]) -> Event:
    """An event as it was stored."""
    return Event(**{**row, "kind": EventKind(row["kind"]), "role": Role(row["role"]), "calls": tuple(row["calls"])})
