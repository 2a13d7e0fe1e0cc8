"""Membership changes as they are made, for other services and for auth's own directory."""

from collections.abc import AsyncIterator
from typing import Protocol

from servicekit.caller import Member, Role
from servicekit.changes import Change, ChangeFeed, Event
from servicekit.clock import ns_of
from services.auth.domain.ports import Resolver

# As the query `notify` spells it.
CHANNEL = "auth_changes"


class Records(Protocol):
    """What following needs from the store."""

    async def removed_colonies(self) -> list[str]:
        """The names of all colonies that were removed."""
        ...


class LocalMembers:
    """Auth's own records as the source of a Directory."""

    def __init__(self, resolver: Resolver, records: Records, feed: ChangeFeed) -> None:
        self._resolver = resolver
        self._records = records
        self._feed = feed

    async def fetch(self, colony: str, identity: str) -> Member | None:
        """The member now, or None."""
        resolved = await self._resolver.resolve(colony, identity)
        if resolved.role is None:
            return None
        until = resolved.valid_until
        return Member(resolved.identity, Role(resolved.role), resolved.name, None if until is None else ns_of(until))

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
