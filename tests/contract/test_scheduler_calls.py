"""Calls with several submissions: each enters whole or not at all, whoever else enters the same, and whatever is killed."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from servicekit.failures import AlreadyExists, Unavailable
from servicekit.postgres import Database
from services.scheduler.domain.records import Entered, Submission, SubmitCall
from services.scheduler.domain.submitting import NewWorkflow, Request, Submitting
from services.scheduler.store import entering
from tests.harness.calls import eventually

from .scheduler_records import ALICE, COLONY, START, World, at, receipt, spec, submission, success
from .scheduler_works import Works

pytestmark = pytest.mark.asyncio

OTHER = UUID("123e4567-e89b-12d3-a456-426614174000")


def one(request_id: str, workflow_id: UUID | None = None, **fields: Any) -> Submission:
    """A workflow of one node, under an id that was chosen for it, if any."""
    found = submission(spec("a"), workflow=True, request_id=request_id, **fields)
    return replace(found, workflow_id=workflow_id, has_chosen_id=True) if workflow_id else found


def call(*submissions: Submission) -> SubmitCall:
    """All with one receipt, each with places of its own, as the domain makes it."""
    own = receipt()
    placed = [
        replace(each, receipt=own, processes=[replace(process, place=place) for process in each.processes])
        for place, each in enumerate(submissions)
    ]
    return SubmitCall(placed)


async def entered(world: World, given: SubmitCall) -> list[Entered]:
    return await world.call(*given.submissions)


async def request_ids(world: World) -> set[str]:
    """Those that are in, each with its workflow and process, and nothing else."""
    counts = await world.counts()
    assert counts["submission"] == counts["workflow"] == counts["process"]
    await world.check_ledger()
    return {row["request_id"] for row in await world.rows("submission")}


async def test_a_call_has_one_receipt_that_all_its_lines_use(world: World) -> None:
    answers = await entered(world, call(one("r0"), one("r1"), one("r2")))
    assert [len(answer.changes.ready) for answer in answers] == [1, 1, 1]
    (kept,) = await world.rows("receipt")
    assert kept["uses"] == 3
    # A repeated one keeps that of the call that it came with first.
    (again, _) = await entered(world, call(one("r1"), one("r3")))
    assert (again.workflow_id, again.changes.ready) == (answers[1].workflow_id, [])
    assert sorted(row["uses"] for row in await world.rows("receipt")) == [1, 3]
    await entered(world, call(one("r0"), one("r3")))
    assert sorted(row["uses"] for row in await world.rows("receipt")) == [1, 3]
    assert await request_ids(world) == {"r0", "r1", "r2", "r3"}


async def test_calls_of_one_batch_each_have_their_own_fate(world: World) -> None:
    """Of two that share an id, the second finds what the first left: all of it, or nothing."""
    await entered(world, call(one("old", OTHER), one("older")))
    first = one("first")
    chosen = uuid.uuid4()
    outcomes = await world.tables.submit(
        [
            call(one("x0"), one("old")),  # its workflow id was not chosen: the digest is the same here
            call(one("x1"), one("older", digest=b"other")),
            call(first, one("shared")),
            call(one("shared"), one("second")),
            call(one("x2"), one("shared", digest=b"other")),
            call(one("x3"), one("x4", OTHER)),
            call(one("third", chosen)),
            call(one("x5", chosen), one("x6")),
            call(one("shared", digest=b"other")),
            call(one("single")),
        ],
        START,
    )
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, AlreadyExists)]
    assert refused == ["REQUEST_ID_REUSED"] * 2 + ["WORKFLOW_ID_TAKEN"] * 2 + ["REQUEST_ID_REUSED"]
    assert [isinstance(outcome, AlreadyExists) for outcome in outcomes] == [n in {1, 4, 5, 7, 8} for n in range(10)]
    assert outcomes[0][1].workflow_id == OTHER  # type: ignore[index]
    assert outcomes[2][1].process_ids == outcomes[3][0].process_ids  # type: ignore[index]
    assert outcomes[6][0].workflow_id == chosen  # type: ignore[index]
    assert await request_ids(world) == {"old", "older", "x0", "first", "shared", "second", "third", "single"}


@asynccontextmanager
async def holding(world: World, *submissions: Submission) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Somebody else, who has entered these and has not committed yet."""
    connection = await psycopg.AsyncConnection.connect(world.url, options="-c search_path=scheduler")
    async with connection:
        for each in submissions:
            await connection.execute(
                "INSERT INTO submission (colony, actor, request_id, digest, workflow_id, process_ids, submitted_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (COLONY, each.actor, each.request_id, each.digest, each.workflow_id, [], each.at),
            )
            await connection.execute(
                "INSERT INTO workflow (id, colony, label, initiator, initiator_name, submitted_at)"
                " VALUES (%s, %s, '', %s, 'alice', %s)",
                (each.workflow_id, COLONY, each.actor, each.at),
            )
        yield connection


async def waits_for_a_lock(world: World, *, count: int = 1) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def there() -> bool:
        ((waiting,),) = await world.database.tuples(query)
        return bool(waiting >= count)

    await eventually(there)


async def overtaken(world: World, given: SubmitCall, *others: Submission) -> Sequence[Entered] | BaseException:
    """What becomes of a call when somebody commits others while it waits for them."""
    async with holding(world, *others) as connection:
        entering = asyncio.create_task(entered(world, given))
        await waits_for_a_lock(world)
        await connection.commit()
        (outcome,) = await asyncio.gather(entering, return_exceptions=True)
        return outcome


async def test_who_is_overtaken_by_the_same_enters_the_rest(world: World) -> None:
    theirs = one("r1")
    outcome = await overtaken(world, call(one("r0"), one("r1"), one("r2")), theirs)
    assert not isinstance(outcome, BaseException)
    assert outcome[1].workflow_id == theirs.workflow_id
    assert [len(answer.changes.ready) for answer in outcome] == [1, 0, 1]
    assert {row["request_id"] for row in await world.rows("submission")} == {"r0", "r1", "r2"}
    assert (await world.counts())["process"] == 2


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (one("r1", digest=b"other"), "REQUEST_ID_REUSED"),
        (one("s", OTHER), "WORKFLOW_ID_TAKEN"),
    ],
)
async def test_who_is_overtaken_by_something_else_enters_nothing(world: World, theirs: Submission, reason: str) -> None:
    outcome = await overtaken(world, call(one("r0"), one("r1", OTHER), one("r2")), theirs)
    assert isinstance(outcome, AlreadyExists)
    assert outcome.reason == reason
    assert {row["request_id"] for row in await world.rows("submission")} == {theirs.request_id}
    assert (await world.counts())["process"] == (await world.counts())["receipt"] == 0


async def test_who_is_killed_while_it_enters_has_entered_nothing(world: World) -> None:
    """And may repeat the same."""
    given = call(one("r0", uuid.uuid4()), one("r1", uuid.uuid4()))
    async with holding(world, one("r1")) as connection:
        entering = asyncio.create_task(entered(world, given))
        await waits_for_a_lock(world)
        killer = await psycopg.AsyncConnection.connect(world.url, autocommit=True)
        async with killer:
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        with pytest.raises(Unavailable):
            await entering
        await connection.rollback()
    assert await request_ids(world) == set()
    answers = await entered(world, given)
    assert [answer.workflow_id for answer in answers] == [each.workflow_id for each in given.submissions]
    assert await request_ids(world) == {"r0", "r1"}


@pytest.mark.usefixtures("no_deadlocks")
async def test_who_enters_overlapping_sets_in_any_order_waits_for_nobody_that_waits_for_it(world: World) -> None:
    """Each request id has one workflow, of the id that was chosen for it; nobody is ended for a deadlock."""
    chosen: dict[str, UUID] = {}

    async def submit(mine: Sequence[str], seed: str) -> int:
        order = random.Random(seed).sample(mine, 12)
        answers = await entered(world, call(*[one(each, chosen[each]) for each in order]))
        assert [answer.workflow_id for answer in answers] == [chosen[each] for each in order]
        return sum(len(answer.changes.ready) for answer in answers)

    new = 0
    for turn in range(50):
        mine = [f"{turn}-{number}" for number in range(20)]
        chosen |= {each: uuid.uuid4() for each in mine}
        new += sum(await asyncio.gather(*(submit(mine, f"{turn} {caller}") for caller in range(2 + turn % 5))))
    assert new == len(await request_ids(world))


@pytest.mark.usefixtures("no_deadlocks")
async def test_workflow_ids_chosen_twice_in_any_order_go_to_one(world: World) -> None:
    """Under other request ids: who comes second is refused, whole."""

    async def submit(ids: Sequence[UUID], seed: str) -> str:
        order = random.Random(seed).sample(ids, 8)
        try:
            await entered(world, call(*[one(f"{seed} {number}", each) for number, each in enumerate(order)]))
        except AlreadyExists as error:
            return error.reason
        return ""

    for turn in range(20):
        ids = [uuid.uuid4() for _ in range(12)]
        # Any two of the calls have an id in common.
        reasons = await asyncio.gather(*(submit(ids, f"{turn} {caller}") for caller in range(6)))
        assert sorted(reasons) == ["", *["WORKFLOW_ID_TAKEN"] * 5]
    assert len(await request_ids(world)) == 8 * 20


@pytest.mark.usefixtures("no_deadlocks")
async def test_who_waits_for_a_workflow_id_has_none_that_others_wait_for(world: World) -> None:
    """Somebody holds the second of three ids, which two calls have in opposite orders, and then lets go."""
    first, held, last = sorted(uuid.uuid4() for _ in range(3))
    orders = {"a": (first, held, last), "b": (last, held, first)}
    async with holding(world, one("held", held)) as connection:
        calls = []
        for count, (name, ids) in enumerate(orders.items(), 1):
            given = call(*[one(f"{name}{number}", each) for number, each in enumerate(ids)])
            calls.append(asyncio.create_task(entered(world, given)))
            await waits_for_a_lock(world, count=count)
        await connection.rollback()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [getattr(outcome, "reason", outcome) for outcome in refused] == ["WORKFLOW_ID_TAKEN"]
    assert len(await request_ids(world)) == 3


async def test_the_id_of_a_workflow_that_is_being_removed_is_taken(world: World) -> None:
    """Its processes go page by page: they must not take those of another with them."""
    (answer,) = await entered(world, call(one("r", OTHER)))
    await world.run(answer.process_ids[0], success())
    await world.tables.remove_workflow(COLONY, OTHER, lambda _initiator: None)
    assert (await world.counts())["workflow"] == 0
    with pytest.raises(AlreadyExists) as caught:
        await entered(world, call(one("s"), one("t", OTHER)))
    assert caught.value.reason == "WORKFLOW_ID_TAKEN"
    assert {row["request_id"] for row in await world.rows("submission")} == {"r"}


async def test_one_of_a_call_that_cannot_be_written_keeps_out_the_others_and_nobody_else(works: Works) -> None:
    """Postgres holds no NUL in a text."""
    service = Submitting(works.world.tables, works.aftermath, works.steps, works.limits, works.world.clock)

    def submit(caller: int) -> Awaitable[Any]:
        own = receipt()
        new = [
            NewWorkflow(
                Request(COLONY, f"{caller}-{n}", b"digest", ALICE, ALICE.identity, own),
                [spec("a", func_name="f\x00" if (caller, n) == (2, 3) else "f")],
                "",
                uuid.uuid4() if caller % 2 else None,
            )
            for n in range(5)
        ]
        return service.workflows(new)

    answers = await asyncio.gather(*(submit(caller) for caller in range(4)), return_exceptions=True)
    assert [isinstance(answer, BaseException) for answer in answers] == [False, False, True, False]
    good = {ids[0] for answer in answers if not isinstance(answer, BaseException) for _, ids in answer}
    assert set(await works.world.states()) == good
    assert set(await works.claim()) == good
    assert await request_ids(works.world) == {f"{caller}-{n}" for caller in (0, 1, 3) for n in range(5)}
    await works.settle()


@pytest.mark.parametrize("workflows", [1, 2])
async def test_what_is_large_is_planned_for_what_it_is(database_url: str, workflows: int) -> None:
    """A connection that has entered many small ones has a plan for these: it would go over all processes for each of them."""
    database = Database(database_url, "scheduler", connections=1)
    await database.open()
    plans = (
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%%INSERT INTO submission%%' ORDER BY generic_plans DESC LIMIT 1"
    )
    try:
        world = World(database, database_url)
        for _ in range(20):
            await world.enter(spec("a"))
        ((few, custom),) = await database.tuples(plans)
        assert few > 0
        nodes = [spec(f"n{n}") for n in range(entering.LARGE // workflows + 1)]
        await entered(world, call_of([submission(*nodes, workflow=True) for _ in range(workflows)]))
        assert await database.tuples(plans) == [(few, custom + 1)]
    finally:
        await database.close()


async def test_a_large_call_enters_whole(world: World) -> None:
    """More than one statement may usually take."""
    nodes = [spec(f"n{n}") for n in range(201)]
    given = [submission(*nodes, workflow=True, request_id=f"r{n}") for n in range(60)]
    answers = await entered(world, call_of(given))
    assert len({each for answer in answers for each in answer.process_ids}) == 60 * 201
    (kept,) = await world.rows("receipt")
    assert kept["uses"] == 60 * 201
    assert (await world.counts())["ledger"] == 60 * 201
    assert [row["submitted_at"] for row in await world.rows("workflow")] == [at(0)] * 60


def call_of(submissions: Sequence[Submission]) -> SubmitCall:
    own = receipt()
    return SubmitCall([replace(each, receipt=own) for each in submissions])
