"""The server owner and the services: the settings say who they are, and rotations say which keys they have.

Their keys are kept like members', in a colony without a name. The keys that took each other's places are a chain. If the chain
of a key contains the identity that the settings give to somebody, it is that principal's chain, and its current key is good
(and one that is being retired). If nobody's is in it, the chain counts for nothing: an operator who sets an unrelated identity
has reset the principal, whatever became of its keys.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.auth.domain.model import NO_COLONY, Principal, Resolved, Role
from services.auth.domain.ports import Store

SERVER_OWNER_NAME = "server owner"


def configured(server_owner: str, services: Mapping[str, str]) -> tuple[Principal, ...]:
    """Who the settings say there is. Of two with one identity the first counts."""
    owner = Principal(Role.SERVER_OWNER, SERVER_OWNER_NAME, server_owner)
    return (owner, *(Principal(Role.SERVICE, name, identity) for name, identity in services.items()))


class Principals:
    """Whose keys there are outside of colonies."""

    def __init__(self, store: Store, settings: Sequence[Principal]) -> None:
        self._store = store
        self._settings = settings

    def is_configured(self, key: str) -> bool:
        """Whether the settings name this key's identity."""
        return any(principal.identity == key for principal in self._settings)

    async def of(self, key: str) -> Principal | None:
        """Whose chain this key is in."""
        return await self._of(key, await self._store.resolve(NO_COLONY, key))

    async def _of(self, key: str, held: Resolved) -> Principal | None:
        """Whose chain this key is in, when it is held like this. Of a stranger's nothing more is asked."""
        chain = {key} if not held.identity else set(await self._store.keys(NO_COLONY, held.identity))
        return next((principal for principal in self._settings if principal.identity in chain), None)

    async def resolve(self, key: str, now: datetime) -> Resolved:
        """Who signs with this key now."""
        held = await self._store.resolve(NO_COLONY, key)
        principal = await self._of(key, held)
        over = held.valid_until is not None and held.valid_until <= now
        return Resolved(
            colony_exists=False,
            role=None if principal is None or over else principal.role,
            name="" if principal is None else principal.name,
            identity=held.identity or (key if principal is not None else ""),
            valid_until=held.valid_until,
        )
