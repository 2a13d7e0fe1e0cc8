"""Keys: whose they are, and how one takes the place of another."""

from collections.abc import Sequence
from datetime import timedelta

from servicekit.clock import Clock, datetime_of
from servicekit.failures import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Violation,
    stranger_denied,
)
from services.auth.domain.memberships import Memberships
from services.auth.domain.model import NO_COLONY, Call, Event, Evidence, NotRotated, Resolved, Rotated, Rotation, TooOften
from services.auth.domain.ports import Store
from services.auth.domain.principals import Principals


class Keys:
    """The keys of colonies' members, and of the server owner and the services."""

    def __init__(self, store: Store, memberships: Memberships, principals: Principals, clock: Clock) -> None:
        self._store = store
        self._memberships = memberships
        self._principals = principals
        self._clock = clock

    async def resolve(self, colony: str, key: str) -> Resolved:
        """Whose key it is now, in a colony or in none: without a role when its time is over."""
        if colony == NO_COLONY:
            return await self._principals.resolve(key, datetime_of(self._clock.now_ns()))
        return await self._memberships.resolve(colony, key)

    async def known_as(self, colony: str, identity: str) -> Resolved:
        """What the member is that is known by this identity."""
        return await self._store.member(colony, identity)

    async def replaced(self, colony: str, signer: str, new: str) -> str:
        """The key whose place a new one is to take: the signer's, unless the new one signs itself to repeat what was done.

        Raises:
            InvalidArgument: the new key is the signer's, and took no other's place.
        """
        if new != signer:
            return signer
        old = await self._store.predecessor(colony, new)
        if old is None:
            raise InvalidArgument([Violation("new_key.public_key", "must be another key than the one that signs the call")])
        return old

    async def rotate(self, colony: str, old: str, new: str, *, keep_old_ms: int, calls: Sequence[Call]) -> Rotated:
        """Puts a new key, which has agreed, in the place of the old one. Repeating it changes nothing.

        Raises:
            PermissionDenied: the old key is nobody's (any more).
            FailedPrecondition: it is good for a while only; another one has taken its place.
            AlreadyExists: the new key is, or was, somebody's.
            ResourceExhausted: the member has rotated as often as it may for now.
        """
        now = datetime_of(self._clock.now_ns())
        principal = await self._principals.of(old) if colony == NO_COLONY else None
        if colony == NO_COLONY:
            if principal is None:
                raise stranger_denied()
            # Somebody's by the settings, unless it is this one's from a rotation that is repeated.
            if self._principals.is_configured(new) and await self._store.predecessor(colony, new) != old:
                raise key_taken()
        rotation = Rotation(colony, old, new, now + timedelta(milliseconds=keep_old_ms), principal)
        outcome = await self._store.rotate(rotation, Evidence(now, tuple(calls)))
        match outcome:
            case NotRotated.NOT_A_MEMBER:
                raise stranger_denied()
            case NotRotated.KEY_TAKEN:
                raise key_taken()
            case NotRotated.KEY_RETIRED:
                msg = "another key has taken the place of this one, which is good for a while only; sign with the current key"
                raise FailedPrecondition(msg, reason="KEY_RETIRED")
            case TooOften(again_at):
                msg = "another key has taken the place of this member's too often in the last hour"
                delay_s = (again_at - now).total_seconds()
                raise ResourceExhausted(msg, reason="ROTATED_TOO_OFTEN", retry_delay_s=delay_s)
        return outcome

    async def events(self, colony: str, *, after: int, limit: int) -> Sequence[Event]:
        """A colony's ledger from behind a number; empty at its end."""
        return await self._store.events(colony, after=after, limit=limit)


def key_taken() -> AlreadyExists:
    """The new key has, or had, a place already."""
    return AlreadyExists("the new key is, or was, somebody's already; make another one", reason="IDENTITY_TAKEN")
