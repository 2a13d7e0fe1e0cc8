"""The rules of membership: names are given out once, an identity has one place in a colony, repeating changes nothing."""

from collections.abc import Sequence
from dataclasses import replace

from servicekit.clock import Clock, datetime_of
from servicekit.failures import AlreadyExists, NotFound, stranger_denied
from services.auth.domain.model import Call, Colony, Evidence, Membership, Page, Resolved, Role
from services.auth.domain.ports import Store


def identity_taken() -> AlreadyExists:
    """The identity has another place in the colony, or is a key that was rotated away, or another member's."""
    msg = "the identity is, or was, known in this colony as something else"
    return AlreadyExists(msg, reason="IDENTITY_TAKEN")


def name_taken(role: Role, name: str) -> AlreadyExists:
    """Another member of this role has the name."""
    return AlreadyExists(f"another {role} of this colony has the name {name!r}", reason="NAME_TAKEN")


class Memberships:
    """Colonies, users, and the executors that the registry reports."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def _evidence(self, calls: Sequence[Call]) -> Evidence:
        return Evidence(datetime_of(self._clock.now_ns()), tuple(calls))

    async def add_colony(self, name: str, key: str, calls: Sequence[Call]) -> Colony:
        """Adds a colony; changes nothing when it is there with this owner, whatever key it has had.

        Raises:
            AlreadyExists: the name is or was in use.
        """
        held = await self._store.resolve(name, key)
        owner = key if held.valid_until is not None else held.identity or key
        colony = await self._store.add_colony(name, owner, self._evidence(calls))
        if colony.removed or colony.owner != owner:
            msg = f"the colony name {name!r} is or was in use"
            raise AlreadyExists(msg, reason="NAME_TAKEN")
        return colony

    async def remove_colony(self, name: str, calls: Sequence[Call]) -> None:
        """Removes a colony and every membership in it.

        Raises:
            NotFound: no such colony.
        """
        if not await self._store.remove_colony(name, self._evidence(calls)):
            msg = f"no colony {name!r}"
            raise NotFound(msg, reason="COLONY_NOT_FOUND")

    async def colony(self, name: str) -> Colony:
        """One colony.

        Raises:
            PermissionDenied: it has been removed just now; its members are strangers.
        """
        colony = await self._store.colony(name)
        if colony is None:
            raise stranger_denied()
        return colony

    async def colonies(self, *, after: str, limit: int) -> Page[Colony]:
        """Colonies by name."""
        return await self._store.colonies(after=after, limit=limit)

    async def add_user(self, colony: str, name: str, key: str, calls: Sequence[Call]) -> Membership:
        """Adds a user; changes nothing when it is there. Who was a member before is the same one again.

        Raises:
            AlreadyExists: another user has the name, the identity has another place in the colony, or the key was rotated away.
            PermissionDenied: the colony has been removed just now.
        """
        held = await self._store.resolve(colony, key)
        if held.valid_until is not None:
            raise identity_taken()
        user = self._membership(colony, held.identity or key, Role.USER, name)
        present = await self._store.put_member(user, self._evidence(calls))
        if present is None:
            raise stranger_denied()
        return _own_entry(user, present)

    async def remove_user(self, colony: str, name: str, calls: Sequence[Call]) -> None:
        """Removes a user.

        Raises:
            NotFound: no such user.
        """
        if not await self._store.drop_member_named(colony, name, Role.USER, self._evidence(calls)):
            raise _no_user(name)

    async def user(self, colony: str, name: str) -> Membership:
        """One user.

        Raises:
            NotFound: no such user.
        """
        user = await self._store.user(colony, name)
        if user is None:
            raise _no_user(name)
        return user

    async def users(self, colony: str, *, after: str, limit: int) -> Page[Membership]:
        """A colony's users by name."""
        return await self._store.users(colony, after=after, limit=limit)

    async def resolve(self, colony: str, key: str) -> Resolved:
        """Whose key it is in a colony now: without a role when its time is over."""
        held = await self._store.resolve(colony, key)
        over = held.valid_until is not None and held.valid_until <= datetime_of(self._clock.now_ns())
        return replace(held, role=None, name="") if over else held

    async def put_executor(self, colony: str, identity: str, name: str, calls: Sequence[Call]) -> None:
        """Makes an identity an executor, or changes its name.

        Raises:
            AlreadyExists: the identity has another place in the colony, or another executor has the name.
            NotFound: no such colony.
        """
        executor = self._membership(colony, identity, Role.EXECUTOR, name)
        evidence = self._evidence(calls)
        present = await self._store.put_member(executor, evidence)
        if present is None:
            msg = "no such colony"
            raise NotFound(msg, reason="COLONY_NOT_FOUND")
        held = next((member for member in present if member.identity == identity), None)
        renamed = held is not None and held.role is Role.EXECUTOR and held.name != name
        if not renamed:
            _own_entry(executor, present)
        elif not await self._store.rename_executor(executor, evidence):
            raise name_taken(Role.EXECUTOR, name)

    async def drop_executor(self, colony: str, identity: str, calls: Sequence[Call]) -> None:
        """Ends an executor's membership; changes nothing when it has none."""
        await self._store.drop_member(colony, identity, Role.EXECUTOR, self._evidence(calls))

    def _membership(self, colony: str, identity: str, role: Role, name: str) -> Membership:
        return Membership(colony, identity, role, name, datetime_of(self._clock.now_ns()))


def _own_entry(wanted: Membership, present: list[Membership]) -> Membership:
    """What was asked for, out of what is there; a failure when something else is in its way."""
    if not present:
        raise identity_taken()
    held = next((member for member in present if member.identity == wanted.identity), None)
    if held is None:
        raise name_taken(wanted.role, wanted.name)
    if (held.role, held.name) != (wanted.role, wanted.name):
        raise identity_taken()
    return held


def _no_user(name: str) -> NotFound:
    return NotFound(f"no user {name!r} in this colony", reason="USER_NOT_FOUND")
