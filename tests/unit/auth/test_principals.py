"""How much is asked to know who somebody is outside of colonies."""

from datetime import UTC, datetime, timedelta

import pytest

from services.auth.domain.model import NO_COLONY, Evidence, Principal, Resolved, Role, Rotation
from services.auth.domain.principals import Principals
from tests.contract.memory_auth import MemoryStore

pytestmark = pytest.mark.asyncio

NOW = datetime(2024, 2, 29, tzinfo=UTC)
CRON = Principal(Role.SERVICE, "cron", "s")


class Counting(MemoryStore):
    """Counts what it is asked."""

    asked = 0

    async def resolve(self, colony: str, key: str) -> Resolved:
        self.asked += 1
        return await super().resolve(colony, key)

    async def keys(self, colony: str, identity: str) -> list[str]:
        self.asked += 1
        return await super().keys(colony, identity)


@pytest.mark.parametrize(("key", "role", "asked"), [("nobody", None, 1), ("s", Role.SERVICE, 2), ("t", Role.SERVICE, 2)])
async def test_a_stranger_costs_one_question(key: str, role: Role | None, asked: int) -> None:
    store = Counting()
    await store.rotate(Rotation(NO_COLONY, "s", "t", NOW + timedelta(hours=1), CRON), Evidence(NOW))
    assert (await Principals(store, [CRON]).resolve(key, NOW)).role is role
    assert store.asked == asked
