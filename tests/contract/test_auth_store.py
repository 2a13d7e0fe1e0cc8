"""What every store of auth's promises."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from servicekit.clock import ns_of
from services.auth.domain.model import (
    Call,
    Colony,
    EventKind,
    Evidence,
    Membership,
    NotRotated,
    Principal,
    Resolved,
    Role,
    Rotated,
    Rotation,
)
from services.auth.domain.ports import Store
from services.auth.store import store
from services.auth.store.store import PostgresStore

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


def rotation(old: str, new: str, until: datetime = LATER, colony: str = "acme", principal: Principal | None = None) -> Rotation:
    """One key in the place of another."""
    return Rotation(colony, old, new, until, principal)


async def test_keys_take_each_others_places(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("a", "alice"), AT_NOW)
    made = await auth_store.rotate(rotation("a", "b"), AT_NOW)
    assert made == Rotated(Role.USER, "alice", "a", "b", LATER)
    assert await auth_store.rotate(rotation("a", "b", NOW), AT_LATER) == made
    held = Resolved(colony_exists=True, role=Role.USER, name="alice", identity="a")
    assert await auth_store.resolve("acme", "b") == held
    assert await auth_store.resolve("acme", "a") == replace(held, valid_until=LATER)
    assert await auth_store.member("acme", "a") == held
    assert (await auth_store.member("acme", "b")).role is None
    assert await auth_store.rotate(rotation("a", "c"), AT_NOW) is NotRotated.KEY_RETIRED
    assert await auth_store.rotate(rotation("a", "c"), AT_LATER) is NotRotated.NOT_A_MEMBER
    assert await auth_store.rotate(rotation("nobody", "c"), AT_NOW) is NotRotated.NOT_A_MEMBER
    assert await auth_store.rotate(rotation("b", "c", colony="nowhere"), AT_NOW) is NotRotated.NOT_A_MEMBER
    for taken in ("a", "b", "owner-id"):
        assert await auth_store.rotate(rotation("b", taken), AT_NOW) is NotRotated.KEY_TAKEN
    # Older keys end with the one before at the latest.
    assert isinstance(await auth_store.rotate(rotation("b", "c", NOW), AT_NOW), Rotated)
    assert [(await auth_store.resolve("acme", key)).valid_until for key in ("a", "b", "c")] == [NOW, NOW, None]
    assert [await auth_store.predecessor("acme", key) for key in ("a", "b", "c", "d")] == [None, "a", "b", None]
    assert sorted(await auth_store.keys("acme", "a")) == ["a", "b", "c"]


async def test_keys_stay_when_the_member_goes(auth_store: Store) -> None:
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    await auth_store.put_member(member("a", "alice"), AT_NOW)
    await auth_store.rotate(rotation("a", "b"), AT_NOW)
    await auth_store.drop_member("acme", "a", Role.USER, AT_NOW)
    gone = Resolved(colony_exists=True, identity="a")
    assert await auth_store.resolve("acme", "b") == gone
    assert await auth_store.rotate(rotation("b", "c"), AT_NOW) is NotRotated.NOT_A_MEMBER
    assert await auth_store.put_member(member("b", "bob"), AT_NOW) == []
    again = member("a", "alice")
    assert await auth_store.put_member(again, AT_NOW) == [again]
    assert (await auth_store.resolve("acme", "b")).role is Role.USER


async def test_principals_have_keys_in_no_colony(auth_store: Store) -> None:
    cron = Principal(Role.SERVICE, "cron", "s")
    assert await auth_store.resolve("", "s") == Resolved(colony_exists=False)
    made = await auth_store.rotate(rotation("s", "t", NOW, "", cron), AT_NOW)
    assert made == Rotated(Role.SERVICE, "cron", "s", "t", NOW)
    assert await auth_store.resolve("", "t") == Resolved(colony_exists=False, identity="s")
    assert await auth_store.resolve("", "s") == Resolved(colony_exists=False, identity="s", valid_until=NOW)
    assert isinstance(await auth_store.rotate(rotation("t", "u", NOW, "", cron), AT_NOW), Rotated)
    (first, second) = await auth_store.events("", after=0, limit=10)
    assert (first.kind, first.identity, first.key, second.key) == (EventKind.KEY_ROTATED, "s", "t", "u")


async def test_the_ledger_is_a_chain_with_a_link_for_every_change_and_none_for_what_changes_nothing(auth_store: Store) -> None:
    calls = tuple(Call(f"call {number}".encode(), f"{number:064x}") for number in range(2))
    evidence = Evidence(NOW, calls)
    await auth_store.add_colony("acme", "owner-id", evidence)
    await auth_store.add_colony("acme", "owner-id", AT_LATER)
    await auth_store.put_member(member("w", "worker", Role.EXECUTOR), AT_NOW)
    await auth_store.put_member(member("w", "worker", Role.EXECUTOR), AT_LATER)
    await auth_store.rename_executor(member("w", "worker", Role.EXECUTOR), AT_LATER)
    await auth_store.rename_executor(member("w", "other", Role.EXECUTOR), AT_NOW)
    await auth_store.drop_member("acme", "w", Role.EXECUTOR, AT_NOW)
    await auth_store.drop_member("acme", "w", Role.EXECUTOR, AT_LATER)
    await auth_store.remove_colony("acme", AT_NOW)
    await auth_store.remove_colony("acme", AT_LATER)
    events = await auth_store.events("acme", after=0, limit=10)
    assert [(event.number, event.kind, event.name) for event in events] == [
        (1, EventKind.COLONY_ADDED, "owner"),
        (2, EventKind.EXECUTOR_APPROVED, "worker"),
        (3, EventKind.EXECUTOR_RENAMED, "other"),
        (4, EventKind.EXECUTOR_REMOVED, "other"),
        (5, EventKind.COLONY_REMOVED, "owner"),
    ]
    assert all(event.at == NOW for event in events)
    assert events[0].calls == tuple(call.message for call in calls)
    previous = b""
    for event in events:
        assert event.previous_hash == previous
        digests = [call.digest for call in calls] if event.number == 1 else []
        time_us = ns_of(event.at) // 1000
        values = (event.kind.value, event.identity, event.key, event.role.value, event.name, *digests)
        text = "\n".join(("colonies-membership-v1", previous.hex(), "acme", str(event.number), str(time_us), *values, ""))
        assert event.hash == hashlib.sha256(text.encode()).digest()
        previous = event.hash
    assert [event.number for event in await auth_store.events("acme", after=2, limit=2)] == [3, 4]
    assert await auth_store.events("acme", after=5, limit=2) == []
    assert await auth_store.events("nowhere", after=0, limit=2) == []


async def test_a_page_of_the_ledger_ends_when_it_is_large_but_has_one_event(
    auth_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(auth_store, PostgresStore):
        pytest.skip("memory has no bound")
    monkeypatch.setattr(store, "LEDGER_PAGE_BYTES", 100)
    await auth_store.add_colony("acme", "owner-id", AT_NOW)
    for name, size in (("a", 60), ("b", 60), ("c", 500), ("d", 10)):
        evidence = Evidence(NOW, (Call(b"\x00" * size, ""),))
        await auth_store.put_member(member(name, name), evidence)
    pages = []
    after = 0
    while page := await auth_store.events("acme", after=after, limit=10):
        pages.append([event.number for event in page])
        after = page[-1].number
    assert pages == [[1, 2, 3], [4], [5]]
