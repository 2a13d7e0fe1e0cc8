"""The rules of membership, on a store in memory."""

import pytest

from servicekit.clock import ManualClock
from servicekit.failures import AlreadyExists, NotFound, PermissionDenied
from services.auth.domain.memberships import Memberships
from services.auth.domain.model import Role
from tests.contract.memory_auth import MemoryStore

pytestmark = pytest.mark.asyncio


@pytest.fixture
def memberships() -> Memberships:
    """No colony yet."""
    return Memberships(MemoryStore(), ManualClock())


async def test_repeats_change_nothing_even_later(memberships: Memberships) -> None:
    clock = ManualClock()
    memberships = Memberships(MemoryStore(), clock)
    colony = await memberships.add_colony("acme", "o", ())
    user = await memberships.add_user("acme", "alice", "a", ())
    clock.advance(seconds=60)
    assert await memberships.add_colony("acme", "o", ()) == colony
    assert await memberships.add_user("acme", "alice", "a", ()) == user


async def test_what_is_in_the_way_is_told_apart(memberships: Memberships) -> None:
    await memberships.add_colony("acme", "o", ())
    await memberships.add_user("acme", "alice", "a", ())
    await memberships.put_executor("acme", "w", "worker", ())
    for name, identity, reason in (
        ("alice", "b", "NAME_TAKEN"),
        ("bob", "a", "IDENTITY_TAKEN"),
        ("bob", "o", "IDENTITY_TAKEN"),
        ("bob", "w", "IDENTITY_TAKEN"),
        ("alice", "w", "IDENTITY_TAKEN"),
    ):
        with pytest.raises(AlreadyExists) as caught:
            await memberships.add_user("acme", name, identity, ())
        assert caught.value.reason == reason
    for name, identity, reason in (("worker", "x", "NAME_TAKEN"), ("x", "a", "IDENTITY_TAKEN"), ("x", "o", "IDENTITY_TAKEN")):
        with pytest.raises(AlreadyExists) as caught:
            await memberships.put_executor("acme", identity, name, ())
        assert caught.value.reason == reason


async def test_a_colony_that_is_gone_has_only_strangers(memberships: Memberships) -> None:
    await memberships.add_colony("acme", "o", ())
    await memberships.remove_colony("acme", ())
    for call in (memberships.add_user("acme", "alice", "a", ()), memberships.colony("acme")):
        with pytest.raises(PermissionDenied) as caught:
            await call
        assert caught.value.reason == "NOT_A_MEMBER"
    with pytest.raises(NotFound):
        await memberships.put_executor("acme", "w", "worker", ())
    with pytest.raises(NotFound):
        await memberships.remove_colony("acme", ())
    with pytest.raises(AlreadyExists):
        await memberships.add_colony("acme", "o", ())
    assert not (await memberships.resolve("acme", "o")).colony_exists


async def test_renaming_an_executor(memberships: Memberships) -> None:
    await memberships.add_colony("acme", "o", ())
    for name in ("one", "two", "two", "one"):
        await memberships.put_executor("acme", "w", name, ())
        resolved = await memberships.resolve("acme", "w")
        assert (resolved.role, resolved.name) == (Role.EXECUTOR, name)
