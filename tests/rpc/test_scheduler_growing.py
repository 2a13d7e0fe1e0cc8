"""Workflows that grow while they run, are taken up again, or go on in spite of a failure; and retries that wait."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.keys import PrivateKey
from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from servicekit.clock import ManualClock
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import Keys, key_of

from .callers import OTHER_COLONY, settle
from .scheduler_colony import SERVICES, Acme, ref_of, rows, spec

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL, FAILED = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_FAILED
CANCELLED = process_pb2.PROCESS_STATE_CANCELLED
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


def adding(assignment: Any, *nodes: Any, request_id: str = "more", insert: bool = False) -> pb.AddChildrenRequest:
    """Nodes below a running attempt."""
    return pb.AddChildrenRequest(
        colony_name=COLONY, request_id=request_id, attempt=ref_of(assignment), nodes=nodes, insert=insert
    )


async def grow(acme: Acme, assignment: Any, *nodes: Any, **options: Any) -> list[str]:
    """Adds them as worker-1; their ids."""
    return list((await acme.worker.AddChildren(adding(assignment, *nodes, **options))).process_ids)


async def states(acme: Acme, ids: Sequence[str]) -> list[int]:
    return [(await acme.get(one)).state for one in ids]


async def workflow(acme: Acme, workflow_id: str) -> process_pb2.Workflow:
    found = (await acme.user.GetWorkflow(pb.GetWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id))).workflow
    assert isinstance(found, process_pb2.Workflow)
    return found


def texts(values: Sequence[Any]) -> list[str]:
    return [one.data.decode() for one in values]


async def test_what_is_added_runs_after_the_running_one_beside_its_children(acme: Acme) -> None:
    workflow_id, (a, b) = await acme.submit_workflow(spec("a"), spec("b", "a"))
    running = await acme.one()
    x, y = await grow(acme, running, spec("x"), spec("y", "x", "a"))
    assert await states(acme, [x, y]) == [WAITING, WAITING]
    assert (await workflow(acme, workflow_id)).counts.waiting == 3
    assert [list((await acme.get(one)).parent_ids) for one in (b, x, y)] == [[a], [a], [x, a]]
    added = await acme.get(x)
    assert (added.workflow_id, added.initiator, added.initiator_name) == (workflow_id, acme.keys.user.identity, "alice")
    assert await acme.assign(at_most=9) == []
    await acme.close(running, "1", "2")
    second = {one.process_id: one for one in await acme.assign(at_most=9)}
    assert {one: texts(found.inputs) for one, found in second.items()} == {b: ["1", "2"], x: ["1", "2"]}
    await acme.close(second[x], "3")
    last = await acme.one()
    assert (last.process_id, texts(last.inputs)) == (y, ["3", "1", "2"])
    await acme.close(second[b])
    await acme.close(last)
    assert (await workflow(acme, workflow_id)).state == SUCCESSFUL


async def test_what_is_inserted_comes_before_the_children_in_the_order_of_their_input(acme: Acme) -> None:
    _, ids = await acme.submit_workflow(spec("p"), spec("a"), spec("q"), spec("d", "p", "a", "q"), spec("only_p", "p"))
    running = {one.process_id: one for one in await acme.assign(at_most=3)}
    p, a, q, d, only_p = ids
    x, y, z = await grow(acme, running[a], spec("x"), spec("y", "x"), spec("z"), insert=True)
    assert list((await acme.get(d)).parent_ids) == [p, y, z, q]
    assert list((await acme.get(only_p)).parent_ids) == [p]
    for one, output in ((q, "Q"), (a, "A"), (p, "P")):
        await acme.close(running[one], output)
    second = {one.process_id: one for one in await acme.assign(at_most=9)}
    assert {one: texts(found.inputs) for one, found in second.items()} == {x: ["A"], z: ["A"], only_p: ["P"]}
    await acme.close(second[z], "Z")
    await acme.close(second[x], "X")
    third = await acme.one()
    assert (third.process_id, texts(third.inputs)) == (y, ["X"])
    await acme.close(third, "Y1", "Y2")
    last = await acme.one()
    assert (last.process_id, texts(last.inputs)) == (d, ["P", "Y1", "Y2", "Z", "Q"])


async def test_an_added_one_may_choose_what_it_gets(acme: Acme) -> None:
    await acme.submit_workflow(spec("a"))
    running = await acme.one()
    second_output = spec_pb2.Dependency(node_name="a", index=spec_pb2.Dependency.Index(index=1))
    (x,) = await grow(acme, running, spec("x", second_output))
    await acme.close(running, "1", "2", "3")
    found = await acme.one()
    assert (found.process_id, texts(found.inputs)) == (x, ["2"])


async def test_a_workflow_grows_by_the_hand_of_what_was_added_to_it(acme: Acme) -> None:
    """A loop that is written as a chain: each link adds the next."""
    workflow_id, (start,) = await acme.submit_workflow(spec("link-0"))
    before = start
    for number in range(1, 6):
        running = await acme.one()
        assert running.process_id == before
        (before,) = await grow(acme, running, spec(f"link-{number}"), request_id=f"request-{number}")
        await acme.close(running, f"{number}")
    last = await acme.one()
    assert (last.process_id, texts(last.inputs)) == (before, ["5"])
    await acme.close(last)
    found = await workflow(acme, workflow_id)
    assert (found.state, found.counts.successful) == (SUCCESSFUL, 6)


async def test_a_repeated_request_adds_once_also_after_the_close(acme: Acme, database_url: str) -> None:
    await acme.submit_workflow(spec("a"), spec("b", "a"))
    running = await acme.one()
    ids = await grow(acme, running, spec("x"), spec("y"), insert=True)
    before = rows(database_url)
    assert await grow(acme, running, spec("x"), spec("y"), insert=True) == ids
    error = await refusal(acme.worker.AddChildren(adding(running, spec("z"), insert=True)))
    assert error.code is grpc.StatusCode.ALREADY_EXISTS
    assert rows(database_url) == before
    await acme.close(running)
    assert await grow(acme, running, spec("x"), spec("y"), insert=True) == ids
    # The same request id of another caller is another request.
    mine = await acme.submit(spec(), stub=acme.worker_2, request_id="more")
    assert not set(mine) & set(ids)


async def test_bad_nodes_are_named_and_add_nothing(acme: Acme, database_url: str) -> None:
    workflow_id, _ = await acme.submit_workflow(spec("a"), spec("b", "a"))
    running = await acme.one()
    before = rows(database_url)
    for nodes, field, words in (
        ([], "nodes", "1"),
        ([spec("b")], "nodes[0].node_name", "b"),
        ([spec("x"), spec("a")], "nodes[1].node_name", "a"),
        ([spec("x"), spec("x")], "nodes[0].node_name", "x"),
        ([spec("")], "nodes[0].node_name", ""),
        ([spec("x", "b")], "nodes[0].conditions.dependencies[0].node_name", "b"),
        ([spec("x", "y"), spec("y", "x")], "nodes", "x"),
        ([spec("x", "a", "a")], "nodes[0].conditions.dependencies[1].node_name", "a"),
        ([spec("x"), spec("y", executor_type="")], "nodes[1].conditions.executor_type", ""),
        ([spec("x", conditions={"colony_name": OTHER_COLONY})], "nodes[0].conditions.colony_name", ""),
    ):
        error = await refusal(acme.worker.AddChildren(adding(running, *nodes)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, nodes
        assert [one.field for one in error.violations] == [field], nodes
        assert words in error.violations[0].description, nodes
    for request_id in ("", "x" * 129):
        error = await refusal(acme.worker.AddChildren(adding(running, spec("x"), request_id=request_id)))
        assert [one.field for one in error.violations] == ["request_id"]
    assert rows(database_url) == before
    assert (await workflow(acme, workflow_id)).counts.waiting == 1


async def test_only_the_live_attempt_of_a_workflow_adds(acme: Acme, database_url: str) -> None:
    await acme.submit_workflow(spec("a", max_retries=3))
    (alone,) = await acme.submit(spec())
    running = {one.process_id: one for one in await acme.assign(at_most=2)}
    outside = running.pop(alone)
    (mine,) = running.values()
    before = rows(database_url)

    async def refused(stub: Any, assignment: Any) -> tuple[grpc.StatusCode, str]:
        error = await refusal(stub.AddChildren(adding(assignment, spec("x"))))
        assert rows(database_url) == before
        return error.code, error.reason

    superseded = (grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPT_SUPERSEDED")
    later = pb.AttemptRef(process_id=mine.process_id, attempt=2)
    assert await refused(acme.worker_2, mine) == superseded
    assert await refused(acme.worker, later) == superseded
    assert await refused(acme.worker, outside) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_IN_WORKFLOW")
    nothing = pb.AttemptRef(process_id=NOBODY, attempt=1)
    assert await refused(acme.worker, nothing) == (grpc.StatusCode.NOT_FOUND, "PROCESS_NOT_FOUND")
    assert (await refused(acme.user, mine))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert (await refused(acme.by(acme.keys.owner), mine))[0] is grpc.StatusCode.PERMISSION_DENIED
    await acme.close(mine, errors=["again"], retryable=True)
    before = rows(database_url)
    assert await refused(acme.worker, mine) == superseded
    again = await acme.one()
    before = rows(database_url)
    assert (again.attempt, await refused(acme.worker, mine)) == (2, superseded)
    assert len(await grow(acme, again, spec("x"))) == 1
    await acme.close(again)
    before = rows(database_url)
    error = await refusal(acme.worker.AddChildren(adding(again, spec("y"), request_id="late")))
    assert (error.code, error.reason) == superseded


async def retry(acme: Acme, workflow_id: str, *, stub: Any = None, colony: str = COLONY) -> int:
    """How many processes were taken back."""
    request = pb.RetryWorkflowRequest(colony_name=colony, workflow_id=workflow_id)
    return int((await (stub or acme.user).RetryWorkflow(request)).count)


async def test_a_failed_workflow_is_taken_up_from_where_it_failed(acme: Acme) -> None:
    workflow_id, ids = await acme.submit_workflow(spec("a"), spec("b", "a"), spec("c", "b"), spec("d", "a"))
    a, b, c, d = ids
    await acme.close(await acme.one(), "A")
    running = {one.process_id: one for one in await acme.assign(at_most=2)}
    await acme.close(running[b], errors=["broken"])
    await acme.close(running[d], "D")
    assert await states(acme, ids) == [SUCCESSFUL, FAILED, FAILED, SUCCESSFUL]
    assert (await workflow(acme, workflow_id)).state == FAILED
    assert await retry(acme, workflow_id) == 2
    assert await states(acme, ids) == [SUCCESSFUL, WAITING, WAITING, SUCCESSFUL]
    found = await workflow(acme, workflow_id)
    assert (found.state, found.counts.waiting, found.HasField("end_time")) == (RUNNING, 2, False)
    assert not (await acme.get(b)).errors
    again = await acme.one()
    assert (again.process_id, again.attempt, texts(again.inputs)) == (b, 2, ["A"])
    assert await retry(acme, workflow_id) == 0
    await acme.close(again, "B")
    last = await acme.one()
    assert (last.process_id, texts(last.inputs)) == (c, ["B"])
    await acme.close(last)
    assert (await workflow(acme, workflow_id)).state == SUCCESSFUL
    assert await retry(acme, workflow_id) == 0
    assert [len((await acme.history(one)).attempts) for one in (a, b, c, d)] == [1, 2, 1, 1]
    reasons = [(line.reason, line.actor) for line in (await acme.history(b)).transitions]
    assert ("RETRY_REQUESTED", acme.keys.user.identity) in reasons


async def test_a_cancelled_workflow_is_taken_up_and_old_attempts_stay_over(acme: Acme) -> None:
    workflow_id, ids = await acme.submit_workflow(spec("a"), spec("b", "a"))
    old = await acme.one()
    await acme.user.CancelWorkflow(pb.CancelWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id))
    assert await states(acme, ids) == [CANCELLED, CANCELLED]
    assert await retry(acme, workflow_id) == 2
    error = await refusal(acme.closing(old, "stale"))
    assert error.reason == "ATTEMPT_SUPERSEDED"
    assert len((await acme.heartbeat(old)).drops) == 1
    for attempt in (2, 1):
        found = await acme.one()
        assert found.attempt == attempt
        await acme.close(found)
    assert (await workflow(acme, workflow_id)).state == SUCCESSFUL


ALLOWED = {"user", "colony owner"}


async def test_the_initiator_and_the_owner_take_it_up_and_nobody_else(acme: Acme) -> None:
    await settle(acme.cluster)
    await acme.cluster.add_user(COLONY, acme.keys.owner, "carol", key_of("carol"))
    callers: dict[str, Callable[[Keys], PrivateKey]] = {
        "user": lambda keys: keys.user,
        "colony owner": lambda keys: keys.owner,
        "another user": lambda _: key_of("carol"),
        "executor": lambda keys: keys.executor,
        "rejected executor": lambda _: key_of("rejected"),
        "server owner": lambda keys: keys.server_owner,
        "stranger": lambda keys: keys.stranger,
        "user of another colony": lambda _: key_of("bob"),
        "cron": lambda keys: keys.service("cron"),
    }
    for name, key in callers.items():
        workflow_id, _ = await acme.submit_workflow(spec("a"))
        await acme.close(await acme.one(), errors=["broken"])
        stub = acme.by(key(acme.keys))
        if name in ALLOWED:
            assert await retry(acme, workflow_id, stub=stub) == 1, name
            await acme.close(await acme.one())
            continue
        request = pb.RetryWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id)
        error = await refusal(stub.RetryWorkflow(request))
        assert error.code is grpc.StatusCode.PERMISSION_DENIED, name
        assert (await workflow(acme, workflow_id)).state == FAILED, name
    # A colony of one's own is no way to another's.
    request = pb.RetryWorkflowRequest(colony_name=OTHER_COLONY, workflow_id=workflow_id)
    error = await refusal(acme.by(key_of("owner of umbrella")).RetryWorkflow(request))
    assert error.code is grpc.StatusCode.NOT_FOUND
    error = await refusal(acme.user.RetryWorkflow(pb.RetryWorkflowRequest(colony_name=COLONY, workflow_id=NOBODY)))
    assert error.code is grpc.StatusCode.NOT_FOUND
    error = await refusal(acme.user.RetryWorkflow(pb.RetryWorkflowRequest(colony_name=COLONY, workflow_id="flow")))
    assert [one.field for one in error.violations] == ["workflow_id"]


async def test_what_becomes_of_children_when_a_parent_fails(acme: Acme) -> None:
    policies = {
        "all": spec_pb2.PARENT_POLICY_ALL_SUCCESSFUL,
        "default": spec_pb2.PARENT_POLICY_UNSPECIFIED,
        "done": spec_pb2.PARENT_POLICY_ALL_DONE,
        "any": spec_pb2.PARENT_POLICY_ANY_DONE,
    }
    nodes = [spec("good"), spec("bad"), *(spec(name, "bad", "good", parent_policy=one) for name, one in policies.items())]
    workflow_id, ids = await acme.submit_workflow(*nodes)
    by_name = dict(zip(("good", "bad", *policies), ids, strict=True))
    parents = {one.process_id: one for one in await acme.assign(at_most=9)}
    assert set(parents) == {by_name["good"], by_name["bad"]}
    await acme.close(parents[by_name["bad"]], errors=["broken"])
    for name in ("all", "default"):
        failed = await acme.get(by_name[name])
        assert (failed.state, (await acme.history(by_name[name])).transitions[-1].reason) == (FAILED, "PARENT_FAILED")
    first = await acme.one()
    assert (first.process_id, texts(first.inputs)) == (by_name["any"], [])
    assert await acme.assign() == []
    await acme.close(parents[by_name["good"]], "G")
    second = await acme.one()
    assert (second.process_id, texts(second.inputs)) == (by_name["done"], ["G"])
    await acme.close(first)
    await acme.close(second)
    found = await workflow(acme, workflow_id)
    assert (found.state, found.counts.successful, found.counts.failed) == (FAILED, 3, 3)
    # Taken up again, those that ran in spite of it stay as they are.
    assert await retry(acme, workflow_id) == 3
    await acme.close(await acme.one(), "B")
    rest = await acme.assign(at_most=9)
    assert {one.process_id: texts(one.inputs) for one in rest} == {by_name[name]: ["B", "G"] for name in ("all", "default")}


async def test_a_cancelled_parent_counts_as_done(acme: Acme) -> None:
    done = spec_pb2.PARENT_POLICY_ALL_DONE
    _, ids = await acme.submit_workflow(spec("a"), spec("clean-up", "a", parent_policy=done), spec("b", "clean-up"))
    running = await acme.one()
    await acme.user.CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=running.process_id))
    cleaning = await acme.one()
    assert (cleaning.process_id, texts(cleaning.inputs)) == (ids[1], [])
    await acme.close(cleaning, "1")
    last = await acme.one()
    assert (last.process_id, texts(last.inputs)) == (ids[2], ["1"])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def timed(new_cluster: Callable[..., Awaitable[Cluster]], clock: ManualClock) -> Acme:
    """The clock is the test's."""
    found = Acme(await new_cluster(services=SERVICES, clock=clock))
    await found.looked_after()
    return found


def backoff(**fields: Any) -> spec_pb2.Backoff:
    return spec_pb2.Backoff(**{"first_ms": 5_000, "factor": 2.0, "jitter": 0.0, **fields})


async def test_each_retry_waits_longer_up_to_the_longest(timed: Acme, clock: ManualClock) -> None:
    (one,) = await timed.submit(spec(max_retries=3, backoff=backoff(longest_ms=12_000)))
    other, later = spec(priority=-1), 0.0
    assignment = await timed.one()
    for waits_s in (5.0, 10.0, 12.0):
        began = clock.now_ns()
        await timed.close(assignment, errors=["again"], retryable=True)
        waiting = await timed.get(one)
        assert waiting.state == WAITING
        assert (waiting.backoff_until.ToNanoseconds() - began) / 1e9 == pytest.approx(waits_s, abs=0.001)
        # Nobody gets it before, and it holds nobody up.
        (beside,) = await timed.submit(other)
        found = await timed.assign(at_most=9)
        assert [each.process_id for each in found] == [beside]
        await timed.close(found[0])
        await timed.looked_after()
        clock.advance(seconds=waits_s - 0.5)
        assert await timed.assign(wait_ms=1_500) == []
        clock.advance(seconds=0.6)
        assignment = await timed.one()
        assert assignment.process_id == one
        assert not (await timed.get(one)).HasField("backoff_until")
        later += waits_s
    await timed.close(assignment, errors=["enough"], retryable=True)
    assert (await timed.get(one)).state == FAILED
    assert [attempt.number for attempt in (await timed.history(one)).attempts] == [1, 2, 3, 4]


async def test_the_wait_does_not_count_against_the_time_in_the_queue(timed: Acme, clock: ManualClock) -> None:
    (one,) = await timed.submit(spec(max_retries=1, max_wait_time_ms=3_000, backoff=backoff(first_ms=20_000)))
    await timed.close(await timed.one(), errors=["again"], retryable=True)
    until = (await timed.get(one)).backoff_until.ToNanoseconds()

    async def failed() -> bool:
        clock.advance(seconds=0.5)
        await timed.looked_after()
        return (await timed.get(one)).state == FAILED

    await eventually(failed, seconds=20)
    found = await timed.get(one)
    assert list(found.errors) == ["not assigned within 3 s"]
    assert found.end_time.ToNanoseconds() >= until + 3_000_000_000


async def test_what_backs_off_can_be_cancelled_and_its_workflow_taken_up_at_once(timed: Acme) -> None:
    workflow_id, (one,) = await timed.submit_workflow(spec("a", max_retries=1, backoff=backoff(first_ms=3_600_000)))
    await timed.close(await timed.one(), errors=["again"], retryable=True)
    await timed.user.CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=one))
    assert (await timed.get(one)).state == CANCELLED
    assert await retry(timed, workflow_id) == 1
    again = await timed.one()
    assert (again.process_id, again.attempt) == (one, 2)


async def test_a_backoff_that_is_none_is_refused_by_name(acme: Acme) -> None:
    for fields, name in (
        ({"first_ms": 0}, "first_ms"),
        ({"first_ms": 86_400_001}, "first_ms"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"jitter": 1.5}, "jitter"),
        ({"jitter": float("nan")}, "jitter"),
        ({"longest_ms": 4_999}, "longest_ms"),
    ):
        error = await refusal(acme.submit(spec(backoff=backoff(**fields))))
        assert [one.field for one in error.violations] == [f"specs[0].backoff.{name}"], fields
