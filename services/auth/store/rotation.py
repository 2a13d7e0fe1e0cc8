"""One key in the place of another, in one transaction."""

from datetime import timedelta

from servicekit.changes import Change
from servicekit.postgres import Connection
from services.auth.domain.model import OWNER_NAME, EventKind, Evidence, NotRotated, Role, Rotated, Rotation, TooOften
from services.auth.store.ledger import QUERIES, Who, append, live_keys, row_of, tell

# So many rotations of one member in so long: each is an event that stays, and a key that followers are told of.
MAX_ROTATIONS = 10
ROTATIONS_IN = timedelta(hours=1)


async def rotate(connection: Connection, rotation: Rotation, evidence: Evidence) -> Rotated | NotRotated | TooOften:
    """Puts a new key in the place of a current one; if that took place already, the answer is what it was. The transaction
    holds the colony.
    """
    colony = rotation.colony
    who = await _who(connection, rotation, evidence)
    if who is None:
        return NotRotated.NOT_A_MEMBER
    old = await row_of(connection, "key", {"colony": colony, "key": rotation.old})
    assert old is not None  # _who found its member, or entered it
    if old["until"] is not None:
        successor = await row_of(connection, "successor", {"colony": colony, "key": rotation.old})
        if successor is not None and successor["key"] == rotation.new:
            current, _ = await live_keys(connection, colony, who.identity, evidence)
            return Rotated(who.role, who.name, who.identity, current, old["until"])
        return NotRotated.KEY_RETIRED if old["until"] > evidence.at else NotRotated.NOT_A_MEMBER
    if await row_of(connection, "key", {"colony": colony, "key": rotation.new}) is not None:
        return NotRotated.KEY_TAKEN
    place = {"colony": colony, "identity": who.identity}
    last = {**place, "after": evidence.at - ROTATIONS_IN, "newer": MAX_ROTATIONS - 1}
    if (first := await row_of(connection, "rotation_before", last)) is not None:
        return TooOften(first["since"] + ROTATIONS_IN)
    retired = await connection.execute(QUERIES["retire_keys"], {**place, "until": rotation.old_until, "now": evidence.at})
    keys = [row["key"] async for row in retired] + [rotation.new]
    parameters = {
        "colony": colony,
        "key": rotation.new,
        "identity": who.identity,
        "now": evidence.at,
        "replaces": rotation.old,
    }
    await connection.execute(QUERIES["insert_key"], parameters)
    await append(connection, colony, EventKind.KEY_ROTATED, who, rotation.new, evidence)
    await tell(connection, *(Change(colony, key) for key in keys))
    return Rotated(who.role, who.name, who.identity, rotation.new, rotation.old_until)


async def _who(connection: Connection, rotation: Rotation, evidence: Evidence) -> Who | None:
    """Whose the old key is, or was; None: nobody's who is anything in the colony."""
    key = {"colony": rotation.colony, "key": rotation.old}
    principal = rotation.principal
    if principal is None:
        row = await row_of(connection, "resolve", key)
        if row is None or row["identity"] is None:
            return None
        if row["owner"] == row["identity"]:
            return Who(row["identity"], Role.COLONY_OWNER, OWNER_NAME)
        return None if row["role"] is None else Who(row["identity"], Role(row["role"]), row["name"])
    # The settings know it; its first rotation enters it here.
    await connection.execute(QUERIES["insert_key"], {**key, "identity": rotation.old, "now": evidence.at, "replaces": None})
    row = await row_of(connection, "key", key)
    assert row is not None  # just entered, or there before
    return Who(row["identity"], principal.role, principal.name)
