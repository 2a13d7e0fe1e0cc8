"""What every store of the registry's promises."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servicekit.failures import AlreadyExists
from services.registry.domain.model import Executor, ExecutorFilter, ExecutorState, Function, Heard, Location, Page
from services.registry.domain.ports import Edit

pytestmark = pytest.mark.asyncio

NOW = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
WORKER = Executor("acme", "w", "worker", ("edge", "cloud"), "", b"\x00\xff", ExecutorState.APPROVED, NOW)

Step = Callable[[Edit], Awaitable[Any]]


async def save(store: Any, executor: Executor) -> None:
    """Enters or changes an executor."""
    await store.edit(executor.colony, executor.identity, lambda edit: edit.save(executor))


async def test_an_entry_is_kept_as_it_was_saved(registry_store: Any) -> None:
    assert await registry_store.executor("acme", "w") is None
    await save(registry_store, WORKER)
    assert await registry_store.executor("acme", "w") == WORKER
    assert await registry_store.executor("umbrella", "w") is None
    seen: list[Executor | None] = []

    async def look(edit: Edit) -> None:
        seen.append(edit.executor)

    await registry_store.edit("acme", "w", look)
    assert seen == [WORKER]


async def test_saving_again_keeps_the_times(registry_store: Any) -> None:
    await save(registry_store, WORKER)
    heard = NOW + timedelta(seconds=5)
    await registry_store.note_heard([Heard("acme", "w", heard)])
    changed = replace(
        WORKER, name="x", executor_types=("gpu",), location_name="attic", capabilities=b"", state=ExecutorState.PENDING
    )
    await save(registry_store, replace(changed, registered_at=NOW + timedelta(days=1)))
    assert await registry_store.executor("acme", "w") == replace(changed, last_heard_at=heard)


async def test_an_edit_that_fails_leaves_nothing(registry_store: Any) -> None:
    await save(registry_store, WORKER)

    async def work(edit: Edit) -> None:
        await edit.set_functions([Function("f", b"")])
        await edit.save(replace(WORKER, state=ExecutorState.REJECTED))
        raise LookupError

    with pytest.raises(LookupError):
        await registry_store.edit("acme", "w", work)
    assert await registry_store.executor("acme", "w") == WORKER
    assert (await registry_store.functions("acme", "", after=("", ""), limit=5)).items == []


async def test_a_name_is_one_approved_executors(registry_store: Any) -> None:
    await save(registry_store, WORKER)
    twin = replace(WORKER, identity="t", state=ExecutorState.PENDING)
    await save(registry_store, twin)
    held: list[bool] = []

    async def ask(edit: Edit) -> None:
        held.append(await edit.hold_name("worker"))

    await registry_store.edit("acme", "t", ask)
    await registry_store.edit("acme", "w", ask)
    await registry_store.edit("umbrella", "t", ask)
    assert held == [True, False, False]
    with pytest.raises(AlreadyExists):
        await save(registry_store, replace(twin, state=ExecutorState.APPROVED))
    assert await registry_store.executor_named("acme", "worker") == WORKER
    assert await registry_store.executor("acme", "t") == twin


async def test_of_the_pending_ones_of_a_colony_those_make_place_that_waited_longest(registry_store: Any) -> None:
    async def left(at_most: int) -> list[str]:
        await registry_store.edit("acme", "new", lambda edit: edit.hold_pending(at_most))
        page = await registry_store.executors("acme", ExecutorFilter((ExecutorState.PENDING,)), after=("", ""), limit=10)
        return sorted(executor.identity for executor in page.items)

    assert await left(1) == []
    for state in (ExecutorState.APPROVED, ExecutorState.REJECTED):
        await save(registry_store, replace(WORKER, identity=state.value, name=state.value, state=state))
    await save(registry_store, replace(WORKER, colony="umbrella", state=ExecutorState.PENDING))
    for index, identity in enumerate(("was-a-member", "b", "d", "c", "a")):
        registered = NOW + timedelta(seconds=index)
        await save(registry_store, replace(WORKER, identity=identity, state=ExecutorState.PENDING, registered_at=registered))
    await registry_store.note_heard([Heard("acme", "was-a-member", NOW)])
    assert await left(6) == ["a", "b", "c", "d", "was-a-member"]
    assert await left(5) == ["a", "c", "d", "was-a-member"]
    assert await left(3) == ["a", "was-a-member"]
    assert await left(1) == []
    for colony, identity in (("acme", "approved"), ("acme", "rejected"), ("umbrella", "w")):
        assert await registry_store.executor(colony, identity) is not None


async def test_a_registration_is_kept_until_there_is_another(registry_store: Any) -> None:
    seen: list[tuple[bool, bytes]] = []

    async def look(edit: Edit) -> None:
        seen.append((await edit.has_registration(), await edit.registration()))

    await registry_store.edit("acme", "w", look)
    for registration in (None, b"first", None, b"second"):
        await registry_store.edit("acme", "w", lambda edit, call=registration: edit.save(WORKER, call))
        await registry_store.edit("acme", "w", look)
    await registry_store.edit("acme", "w", lambda edit: edit.remove())
    await registry_store.edit("acme", "w", look)
    assert seen == [(False, b""), (False, b""), (True, b"first"), (True, b"first"), (True, b"second"), (False, b"")]


async def test_executors_are_filtered_and_paged(registry_store: Any) -> None:
    everyone = [
        replace(WORKER, identity="b", name="same", state=ExecutorState.PENDING),
        replace(WORKER, identity="a", name="same", state=ExecutorState.REJECTED),
        replace(WORKER, identity="c", name="Other", executor_types=("gpu",)),
    ]
    for executor in [*everyone, replace(WORKER, colony="umbrella")]:
        await save(registry_store, executor)

    async def listed(*states: ExecutorState, kind: str = "", after: tuple[str, str] = ("", ""), limit: int = 9) -> Page[str]:
        page = await registry_store.executors("acme", ExecutorFilter(states, kind), after=after, limit=limit)
        return Page([executor.identity for executor in page.items], more=page.more)

    assert await listed() == Page(["c", "a", "b"], more=False)
    assert await listed(limit=2) == Page(["c", "a"], more=True)
    assert await listed(after=("same", "a")) == Page(["b"], more=False)
    assert await listed(ExecutorState.PENDING, ExecutorState.REJECTED) == Page(["a", "b"], more=False)
    assert await listed(kind="gpu") == Page(["c"], more=False)
    assert await listed(ExecutorState.PENDING, kind="gpu") == Page([], more=False)


async def test_functions_belong_to_approved_executors(registry_store: Any) -> None:
    await save(registry_store, WORKER)
    await save(registry_store, replace(WORKER, identity="x", name="x"))

    async def listed(executor: str = "", after: tuple[str, str] = ("", ""), limit: int = 9) -> list[tuple[str, str]]:
        page = await registry_store.functions("acme", executor, after=after, limit=limit)
        return [(entry.function.name, entry.executor_name) for entry in page.items]

    async def announce(identity: str, *names: str) -> None:
        functions = [Function(name, name.encode()) for name in names]
        await registry_store.edit("acme", identity, lambda edit: edit.set_functions(functions))

    await announce("w", "old")
    await announce("w", "b", "a")
    await announce("x", "b", "ö")
    assert await listed() == [("a", "worker"), ("b", "worker"), ("b", "x"), ("ö", "x")]
    assert await listed(after=("b", "worker"), limit=1) == [("b", "x")]
    assert await listed("x") == [("b", "x"), ("ö", "x")]
    removed = [await registry_store.edit("acme", "x", lambda edit: edit.remove_function("b")) for _ in range(2)]
    assert removed == [True, False]
    await save(registry_store, replace(WORKER, state=ExecutorState.PENDING))
    assert await listed() == [("ö", "x")]
    await registry_store.edit("acme", "x", lambda edit: edit.remove())
    await save(registry_store, replace(WORKER, identity="x", name="x"))
    assert await listed() == []


async def test_locations(registry_store: Any) -> None:
    attic = Location("attic", "warm", 20.5, -65.25)
    await registry_store.put_location("acme", Location("attic", "cold", 0, 0))
    await registry_store.put_location("acme", attic)
    await registry_store.put_location("acme", Location("Cellar", "", 0, 0))
    assert await registry_store.location("acme", "attic") == attic
    assert await registry_store.location("umbrella", "attic") is None
    page = await registry_store.locations("acme", after="", limit=1)
    assert ([place.name for place in page.items], page.more) == (["Cellar"], True)
    page = await registry_store.locations("acme", after="Cellar", limit=1)
    assert (list(page.items), page.more) == ([attic], False)

    await save(registry_store, replace(WORKER, location_name="attic"))
    assert await registry_store.remove_location("acme", "attic") is False
    await save(registry_store, replace(WORKER, location_name="attic", state=ExecutorState.PENDING))
    assert await registry_store.remove_location("acme", "attic") is True
    assert await registry_store.remove_location("acme", "attic") is None


async def test_signs_of_life_move_forward_only(registry_store: Any) -> None:
    await save(registry_store, WORKER)

    async def heard(*seconds: int) -> datetime | None:
        times = [Heard("acme", "w", NOW + timedelta(seconds=second)) for second in seconds]
        await registry_store.note_heard([*times, Heard("acme", "unknown", NOW)])
        executor = await registry_store.executor("acme", "w")
        return executor.last_heard_at  # type: ignore[no-any-return]

    assert await heard() is None
    assert await heard(3, 7, 5) == NOW + timedelta(seconds=7)
    assert await heard(6) == NOW + timedelta(seconds=7)
    assert await heard(8) == NOW + timedelta(seconds=8)
    assert await registry_store.executor("acme", "unknown") is None


async def test_colonies_go_with_all_they_have(registry_store: Any) -> None:
    for colony in ("acme", "umbrella", "other"):
        await save(registry_store, replace(WORKER, colony=colony))
        await registry_store.edit(colony, "w", lambda edit: edit.set_functions([Function("f", b"")]))
        await registry_store.put_location(colony, Location("attic", "", 0, 0))
    for _ in range(2):
        await registry_store.remove_colonies({"acme", "umbrella", "never"})
        for colony, left in (("acme", False), ("umbrella", False), ("other", True)):
            assert (await registry_store.executor(colony, "w") is not None) is left
            assert (await registry_store.location(colony, "attic") is not None) is left
            assert bool((await registry_store.functions(colony, "", after=("", ""), limit=1)).items) is left
    await registry_store.remove_colonies(set())
