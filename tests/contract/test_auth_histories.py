"""Random histories of memberships and keys: the real store does what the one in memory does, event by event."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from servicekit.postgres import Database
from services.auth.domain.model import Call, Evidence, Membership, Role, Rotation
from services.auth.domain.ports import Store
from services.auth.store.store import PostgresStore
from tests.contract.memory_auth import MemoryStore

START = datetime(2024, 2, 29, tzinfo=UTC)
KEYS = st.sampled_from(["owner", *(f"k{number}" for number in range(6))])
NAMES = st.sampled_from(["alice", "bob"])
ROLES = st.sampled_from([Role.USER, Role.EXECUTOR])

STEPS = st.one_of(
    st.tuples(st.just("add_colony"), KEYS),
    st.tuples(st.just("remove_colony")),
    st.tuples(st.just("put"), KEYS, ROLES, NAMES),
    st.tuples(st.just("rename"), KEYS, NAMES),
    st.tuples(st.just("drop"), KEYS, ROLES),
    st.tuples(st.just("drop_named"), NAMES, ROLES),
    st.tuples(st.just("rotate"), KEYS, KEYS, st.integers(0, 5)),
)
_runs = itertools.count(1)


async def taken(store: Store, colony: str, step: Any, evidence: Evidence) -> Any:
    """What a store answers to a step."""
    match step:
        case ("add_colony", owner):
            return await store.add_colony(colony, owner, evidence)
        case ("remove_colony",):
            return await store.remove_colony(colony, evidence)
        case ("put", key, role, name):
            present = await store.put_member(Membership(colony, key, role, name, evidence.at), evidence)
            return None if present is None else sorted(present, key=lambda one: one.identity)
        case ("rename", key, name):
            return await store.rename_executor(Membership(colony, key, Role.EXECUTOR, name, evidence.at), evidence)
        case ("drop", key, role):
            return await store.drop_member(colony, key, role, evidence)
        case ("drop_named", name, role):
            return await store.drop_member_named(colony, name, role, evidence)
        case ("rotate", old, new, seconds):
            return await store.rotate(Rotation(colony, old, new, evidence.at + timedelta(seconds=seconds)), evidence)
    raise AssertionError(step)


async def seen(store: Store, colony: str) -> Any:
    """Everything that can be asked of a colony."""
    keys = ["owner", *(f"k{number}" for number in range(6))]
    return (
        [await store.resolve(colony, key) for key in keys],
        [await store.member(colony, key) for key in keys],
        [sorted(await store.keys(colony, key)) for key in keys],
        [await store.predecessor(colony, key) for key in keys],
        list(await store.events(colony, after=0, limit=1_000)),
    )


async def compared(url: str, steps: list[Any]) -> None:
    """Makes the same history in both stores."""
    database = Database(url, "auth", connections=2)
    await database.open()
    try:
        real, memory = PostgresStore(database), MemoryStore()
        colony = f"colony-{next(_runs)}"
        for number, step in enumerate([("add_colony", "owner"), *steps]):
            evidence = Evidence(START + timedelta(seconds=number), (Call(b"call", f"{number:064x}"),))
            answers = [await taken(store, colony, step, evidence) for store in (real, memory)]
            assert answers[0] == answers[1], step
            assert await seen(real, colony) == await seen(memory, colony), step
    finally:
        await database.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=20))
# Who is no executor gets no name, whoever has it.
@example([("put", "k0", Role.EXECUTOR, "alice"), ("rename", "owner", "alice")])
def test_any_history_is_the_same_in_both_stores(database_url: str, steps: list[Any]) -> None:
    asyncio.run(compared(database_url, steps))
