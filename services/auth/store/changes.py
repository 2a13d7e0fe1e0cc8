"""Membership changes as they are made, for other services and for auth's own directory."""

from collections.abc import AsyncIterator
from typing import Protocol

from servicekit.caller import Member, Role
from servicekit.changes import Change, ChangeFeed, Event
from services.auth.domain.model import Resolved

# As the query `notify` spells it.
CHANNEL = "auth_changes"


class Records(Protocol):
    """What following needs from the store."""

    async def resolve(self, colony: str, identity: str) -> Resolved:
        """What an identity is in a colony."""
        ...

    async def removed_colonies(self) -> list[str]:
        """The names of all colonies that were removed."""
        ...


class LocalMembers:
    """Auth's own records as the source of a Directory."""

    def __init__(self, records: Records, feed: ChangeFeed) -> None:
        self._records = records
        self._feed = feed

    async def fetch(self, colony: str, identity: str) -> Member | None:
        """The member now, or None."""
        resolved = await self._records.resolve(colony, identity)
        return None if resolved.role is None else Member(identity, Role(resolved.role), resolved.name)

    async def changes(self) -> AsyncIterator[Event]:
        """SYNCED, then the colonies removed before, then every change.

        The tombstones are read after following has begun, so that a colony removed at that moment is told at least once.

        Raises:
            Unavailable: the feed broke; follow anew.
        """
        async for event in self._feed.follow():
            yield event
            if not isinstance(event, Change):
                for name in await self._records.removed_colonies():
                    yield Change(name, "", colony_removed=True)
