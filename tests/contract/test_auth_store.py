"""What every store of auth's promises."""

from datetime import UTC, datetime

import pytest

from services.auth.domain.model import Colony, Evidence, Membership, Resolved, Role
from services.auth.domain.ports import Store

pytestmark = pytest.mark.asyncio

NOW = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
LATER = datetime(2025, 1, 1, tzinfo=UTC)
AT_NOW, AT_LATER = Evidence(NOW), Evidence(LATER)
ACME = Colony("acme", "owner-id", NOW)


def member(identity: str, name: str, role: Role = Role.USER, colony: str = "acme") -> Membership:
    """A membership."""
    return Membership(colony, identity, role, name, NOW)


async def test_a_colony_stands_as_it_was_first_entered(auth_store: Store) -> None:
    assert await auth_store.colony("acme") is None
    assert await auth_store.add_colony("acme", "owner-id", AT_NOW) == ACME
    assert await auth_store.add_colony("acme", "other-id", AT_LATER) == ACME
    assert await auth_store.colony("acme") == ACME


async def test_a_tombstone_is_only_seen_by_those_who_would_use_its_name(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("a", "alice"), AT_NOW)
    assert await auth_store.remove_colony("acme", AT_LATER)
    assert not await auth_store.remove_colony("acme", AT_LATER)
    assert not await auth_store.remove_colony("never", AT_LATER)
    assert await auth_store.colony("acme") is None
    assert (await auth_store.colonies(after="", limit=10)).items == []
    assert await auth_store.resolve("acme", "owner-id") == Resolved(colony_exists=False)
    assert await auth_store.resolve("acme", "a") == Resolved(colony_exists=False)
    assert await auth_store.put_member(member("b", "bob"), AT_NOW) is None
    assert (await auth_store.add_colony("acme", "owner-id", AT_LATER)).removed
    assert await auth_store.user("acme", "alice") is None


async def test_members_in_each_others_way(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.add_colony("umbrella", "owner-id", AT_NOW)
    alice = member("a", "alice")
    assert await auth_store.put_member(alice, AT_NOW) == [alice]
    assert await auth_store.put_member(alice, AT_NOW) == [alice]
    assert await auth_store.put_member(member("a", "other"), AT_NOW) == [alice]
    assert await auth_store.put_member(member("b", "alice"), AT_NOW) == [alice]
    worker = member("w", "alice", Role.EXECUTOR)
    assert await auth_store.put_member(worker, AT_NOW) == [worker]
    present = await auth_store.put_member(member("w", "alice"), AT_NOW)
    assert present is not None
    assert {one.identity for one in present} == {"a", "w"}
    owner = await auth_store.put_member(member("owner-id", "boss"), AT_NOW)
    assert owner == [Membership("acme", "owner-id", Role.COLONY_OWNER, "owner", NOW)]
    elsewhere = member("a", "alice", colony="umbrella")
    assert await auth_store.put_member(elsewhere, AT_NOW) == [elsewhere]


async def test_what_an_identity_is(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("a", "alice"), AT_NOW)
    await auth_store.put_member(member("w", "worker", Role.EXECUTOR), AT_NOW)
    for identity, expected in {
        "owner-id": Resolved(colony_exists=True, role=Role.COLONY_OWNER, name="owner", identity="owner-id"),
        "a": Resolved(colony_exists=True, role=Role.USER, name="alice", identity="a"),
        "w": Resolved(colony_exists=True, role=Role.EXECUTOR, name="worker", identity="w"),
        "nobody": Resolved(colony_exists=True),
    }.items():
        assert await auth_store.resolve("acme", identity) == expected
        assert await auth_store.resolve("nowhere", identity) == Resolved(colony_exists=False)


async def test_executors_are_renamed_unless_the_name_is_taken(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("u", "free"), AT_NOW)
    await auth_store.put_member(member("w", "worker", Role.EXECUTOR), AT_NOW)
    await auth_store.put_member(member("x", "taken", Role.EXECUTOR), AT_NOW)
    assert not await auth_store.rename_executor(member("w", "taken", Role.EXECUTOR), AT_NOW)
    assert (await auth_store.resolve("acme", "w")).name == "worker"
    assert await auth_store.rename_executor(member("w", "free", Role.EXECUTOR), AT_NOW)
    assert (await auth_store.resolve("acme", "w")).name == "free"


async def test_drops_are_for_one_role(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("a", "alice"), AT_NOW)
    await auth_store.put_member(member("w", "worker", Role.EXECUTOR), AT_NOW)
    assert not await auth_store.drop_member("acme", "a", Role.EXECUTOR, AT_NOW)
    assert not await auth_store.drop_member_named("acme", "worker", Role.USER, AT_NOW)
    assert not await auth_store.drop_member_named("umbrella", "alice", Role.USER, AT_NOW)
    assert await auth_store.drop_member("acme", "w", Role.EXECUTOR, AT_NOW)
    assert await auth_store.drop_member_named("acme", "alice", Role.USER, AT_NOW)
    assert not await auth_store.drop_member_named("acme", "alice", Role.USER, AT_NOW)


async def test_pages_of_colonies_and_users(auth_store: Store) -> None:
    names = ["B", "a", "a-1", "a.1", "a1", "b"]
    for name in names:
        await auth_store.add_colony(name, "owner-id", AT_NOW)
        await auth_store.put_member(member(f"id-{name}", name, colony="a"), AT_NOW)
    await auth_store.put_member(member("w", "aa", Role.EXECUTOR, colony="a"), AT_NOW)
    expected = sorted(names)
    for limit in (1, 2, 5, 6, 7):
        colonies = await auth_store.colonies(after="", limit=limit)
        assert [colony.name for colony in colonies.items] == expected[:limit]
        assert colonies.more == (limit < len(names))
        users = await auth_store.users("a", after=expected[0], limit=limit)
        assert [user.name for user in users.items] == expected[1:][:limit]
        assert users.more == (limit < len(names) - 1)
