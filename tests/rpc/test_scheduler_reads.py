"""What members read: lists, logs, streams, attributes; and nothing of another colony."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .scheduler_colony import SERVICES, Acme, ref_of, spec, value

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL = process_pb2.PROCESS_STATE_SUCCESSFUL
OTHER = "umbrella"


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def listed(acme: Acme, **filters: Any) -> list[str]:
    request = pb.ListProcessesRequest(**{"colony_name": COLONY, **filters})
    return [one.process_id for one in (await acme.user.ListProcesses(request)).processes]


async def test_lists_with_every_filter(acme: Acme) -> None:
    (a,) = await acme.submit(spec(label="x", args=[value("1")]))
    (b,) = await acme.submit(spec(executor_type="gpu"))
    (c,) = await acme.submit(spec(label="x"), stub=acme.worker)
    workflow_id, (d, e) = await acme.submit_workflow(spec("d"), spec("e", "d"))
    assert (await acme.one()).process_id == a
    middle = (await acme.get(c)).submission_time

    assert await listed(acme) == [e, d, c, b, a]
    assert await listed(acme, states=[RUNNING]) == [a]
    assert await listed(acme, states=[RUNNING, WAITING]) == [e, d, c, b, a]
    assert await listed(acme, states=[SUCCESSFUL]) == []
    assert await listed(acme, executor_type="gpu") == [b]
    assert await listed(acme, label="x") == [c, a]
    assert await listed(acme, initiator="worker-1") == [c]
    assert await listed(acme, initiator=acme.keys.executor.identity) == [c]
    assert await listed(acme, workflow_id=workflow_id) == [e, d]
    assert await listed(acme, executor_name="worker-1") == [a]
    assert await listed(acme, submitted_from=middle) == [e, d, c]
    assert await listed(acme, submitted_until=middle) == [b, a]
    assert await listed(acme, label="x", initiator="alice") == [a]
    (found,) = (await acme.user.ListProcesses(pb.ListProcessesRequest(colony_name=COLONY, states=[RUNNING]))).processes
    assert not found.spec.args


async def test_pages_of_processes_and_workflows(acme: Acme) -> None:
    ids = await acme.submit(*[spec() for _ in range(7)])
    flows = [(await acme.submit_workflow(spec("a"), label=f"{n % 2}"))[0] for n in range(5)]

    async def pages(call: Any, kind: Any, field: str, size: int, **filters: Any) -> list[list[Any]]:
        found, cursor = [], ""
        while True:
            response = await call(kind(colony_name=COLONY, page_size=size, cursor=cursor, **filters))
            found.append(list(getattr(response, field)))
            if not (cursor := response.next_cursor):
                return found

    processes = await pages(acme.user.ListProcesses, pb.ListProcessesRequest, "processes", 4)
    assert [len(page) for page in processes] == [4, 4, 4]
    assert [one.process_id for page in processes for one in page][5:] == ids[::-1]
    workflows = await pages(acme.user.ListWorkflows, pb.ListWorkflowsRequest, "workflows", 2)
    assert [one.workflow_id for page in workflows for one in page] == flows[::-1]
    assert [len(page) for page in workflows] == [2, 2, 1]
    odd = await pages(acme.user.ListWorkflows, pb.ListWorkflowsRequest, "workflows", 1, label="1", initiator="alice")
    assert [one.workflow_id for page in odd for one in page] == [flows[3], flows[1]]


async def add_lines(acme: Acme, assignment: Any, *messages: str) -> None:
    lines = [process_pb2.LogLine(message=message) for message in messages]
    await acme.worker.AddLogs(pb.AddLogsRequest(colony_name=COLONY, attempt=ref_of(assignment), lines=lines))


async def test_logs_are_listed_by_process_and_by_executor_in_pages(acme: Acme) -> None:
    await acme.submit(spec(), spec())
    first, second = await acme.assign(at_most=2)
    await add_lines(acme, first, "a", "b", "c")
    await add_lines(acme, second, "d")

    async def messages(**source: Any) -> list[str]:
        found, cursor = [], ""
        while True:
            response = await acme.user.ListLogs(pb.ListLogsRequest(colony_name=COLONY, page_size=2, cursor=cursor, **source))
            assert len(response.entries) <= 2
            found += [entry.message for entry in response.entries]
            if not (cursor := response.next_cursor):
                return found

    assert await messages(process_id=first.process_id) == ["a", "b", "c"]
    assert await messages(executor_name="worker-1") == ["a", "b", "c", "d"]
    assert await messages(executor_name="worker-2") == []


def following(acme: Acme, process_id: str, cursor: str = "") -> Any:
    return acme.user.FollowLogs(pb.FollowLogsRequest(colony_name=COLONY, process_id=process_id, cursor=cursor))


async def entries_of(stream: Any, count: int) -> list[Any]:
    """The next entries; streams are read to no more than the page that completes them."""
    found: list[Any] = []
    while len(found) < count:
        found += (await anext(stream)).entries
    return found


async def test_following_a_log_to_its_end_and_on_from_any_line(acme: Acme) -> None:
    (one,) = await acme.submit(spec())
    running = await acme.one()
    await add_lines(acme, running, "before")
    call = following(acme, one)
    stream = aiter(call)
    assert [entry.message for entry in await entries_of(stream, 1)] == ["before"]
    await add_lines(acme, running, "one", "two")
    assert [entry.message for entry in await entries_of(stream, 2)] == ["one", "two"]
    call.cancel()
    await add_lines(acme, running, "meanwhile")
    await acme.close(running)
    whole = [entry async for response in following(acme, one) for entry in response.entries]
    assert [entry.message for entry in whole] == ["before", "one", "two", "meanwhile"]
    assert {(entry.attempt, entry.executor_name, entry.process_id) for entry in whole} == {(1, "worker-1", one)}
    for index, entry in enumerate(whole):
        rest = [later async for response in following(acme, one, entry.cursor) for later in response.entries]
        assert rest == whole[index + 1 :]


async def test_a_follower_that_waits_learns_of_the_end(acme: Acme) -> None:
    (one,) = await acme.submit(spec())
    running = await acme.one()
    stream = aiter(following(acme, one))
    await add_lines(acme, running, "only")
    await entries_of(stream, 1)
    await acme.close(running)
    assert [entry async for response in stream for entry in response.entries] == []


def watching(acme: Acme, **target: Any) -> Any:
    return acme.user.WatchProcesses(pb.WatchProcessesRequest(colony_name=COLONY, **target))


def without_cursor(event: Any) -> Any:
    bare = type(event)()
    bare.CopyFrom(event)
    bare.cursor = ""
    return bare


async def test_watching_a_process_and_a_workflow(acme: Acme) -> None:
    workflow_id, (a, b) = await acme.submit_workflow(spec("a"), spec("b", "a"))

    async def collect(**target: Any) -> list[Any]:
        return [event async for response in watching(acme, **target) for event in response.events]

    flow = asyncio.create_task(collect(workflow_id=workflow_id))
    single = asyncio.create_task(collect(process_id=b))
    for _ in range(2):
        await acme.close(await acme.one())
    events = await flow
    assert [(event.node_name, event.transition.reason, event.executor_name) for event in events] == [
        ("a", "SUBMITTED", ""),
        ("b", "SUBMITTED", ""),
        ("a", "ASSIGNED", "worker-1"),
        ("a", "CLOSED", "worker-1"),
        ("b", "ASSIGNED", "worker-1"),
        ("b", "CLOSED", "worker-1"),
    ]
    mine = await single
    # A process is followed in another order than a workflow: the cursor of the one leads nowhere in the other.
    assert [without_cursor(event) for event in mine] == [without_cursor(event) for event in events if event.process_id == b]
    assert await collect(workflow_id=workflow_id, cursor=events[2].cursor) == events[3:]
    for index, event in enumerate(mine):
        assert await collect(process_id=b, cursor=event.cursor) == mine[index + 1 :]
    assert {event.process_id for event in events} == {a, b}


async def test_attributes_with_the_environment(acme: Acme) -> None:
    (one,) = await acme.submit(spec(env={"HOME": "/home", "LANG": "C"}))
    running = await acme.one()

    async def put(*attributes: tuple[int, str, str]) -> Any:
        found = [process_pb2.Attribute(kind=kind, key=key, value=text) for kind, key, text in attributes]  # type: ignore[arg-type]
        request = pb.SetAttributesRequest(colony_name=COLONY, attempt=ref_of(running), attributes=found)
        return await acme.worker.SetAttributes(request)

    async def get() -> list[tuple[int, str, str]]:
        request = pb.ListAttributesRequest(colony_name=COLONY, process_id=one)
        return [(a.kind, a.key, a.value) for a in (await acme.user.ListAttributes(request)).attributes]

    assert await get() == [(4, "HOME", "/home"), (4, "LANG", "C")]
    await put((2, "z", "1"), (1, "z", "2"), (4, "LANG", "sv"))
    await put((2, "z", "3"), (2, "a", ""))
    assert await get() == [(1, "z", "2"), (2, "a", ""), (2, "z", "3"), (4, "HOME", "/home"), (4, "LANG", "sv")]
    before = await get()
    error = await refusal(put(*((3, f"k{n}", "") for n in range(997))))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTRIBUTES")
    assert await get() == before


async def test_another_colony_gets_not_found_for_everything(acme: Acme) -> None:
    owner, bob, rival = key_of("owner of umbrella"), key_of("bob"), key_of("rival")
    await acme.cluster.add_colony(OTHER, owner)
    await acme.cluster.add_user(OTHER, owner, "bob", bob)
    await acme.cluster.add_executor(OTHER, owner, "worker-1", rival)
    workflow_id, (a, _) = await acme.submit_workflow(spec("a"), spec("b", "a"))
    running = await acme.one()
    await add_lines(acme, running, "secret")
    before = await acme.history(a)

    user, worker, named = acme.by(owner), acme.by(rival), {"colony_name": OTHER, "process_id": a}
    flow, ref = {"colony_name": OTHER, "workflow_id": workflow_id}, ref_of(running)
    close = pb.Close(attempt=ref, success=pb.Close.Success())
    calls = [
        user.GetProcess(pb.GetProcessRequest(**named)),
        user.GetProcessHistory(pb.GetProcessHistoryRequest(**named)),
        user.ListAttributes(pb.ListAttributesRequest(**named)),
        user.ListLogs(pb.ListLogsRequest(colony_name=OTHER, process_id=a)),
        user.CancelProcess(pb.CancelProcessRequest(**named)),
        user.RemoveProcess(pb.RemoveProcessRequest(**named)),
        user.GetWorkflow(pb.GetWorkflowRequest(**flow)),
        user.CancelWorkflow(pb.CancelWorkflowRequest(**flow)),
        user.RemoveWorkflow(pb.RemoveWorkflowRequest(**flow)),
        worker.CloseProcesses(pb.CloseProcessesRequest(colony_name=OTHER, closes=[close])),
        worker.SetOutput(pb.SetOutputRequest(colony_name=OTHER, attempt=ref)),
        worker.AddLogs(pb.AddLogsRequest(colony_name=OTHER, attempt=ref, lines=[process_pb2.LogLine()])),
        anext(aiter(user.FollowLogs(pb.FollowLogsRequest(**named)))),
        anext(aiter(user.WatchProcesses(pb.WatchProcessesRequest(colony_name=OTHER, process_id=named["process_id"])))),
        anext(aiter(user.WatchProcesses(pb.WatchProcessesRequest(colony_name=OTHER, workflow_id=workflow_id)))),
    ]
    for call in calls:
        assert (await refusal(call)).code is grpc.StatusCode.NOT_FOUND
    (drop,) = (await worker.Heartbeat(pb.HeartbeatRequest(colony_name=OTHER, attempts=[ref]))).drops
    assert drop.reason == pb.DROP_REASON_SUPERSEDED
    assert not (await user.ListProcesses(pb.ListProcessesRequest(colony_name=OTHER))).processes
    assert not (await user.ListWorkflows(pb.ListWorkflowsRequest(colony_name=OTHER))).workflows
    for with_outputs in (False, True):
        wanted = pb.GetWorkflowResultsRequest(colony_name=OTHER, workflow_ids=[workflow_id], with_outputs=with_outputs)
        assert not (await user.GetWorkflowResults(wanted)).results
    assert not (await user.ListLogs(pb.ListLogsRequest(colony_name=OTHER, executor_name="worker-1"))).entries
    poll = await worker.AssignProcesses(pb.AssignProcessesRequest(colony_name=OTHER, max_processes=9))
    assert not poll.assignments
    # Under its right colony's name it is a stranger.
    error = await refusal(acme.by(bob).GetProcess(pb.GetProcessRequest(colony_name=COLONY, process_id=a)))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")
    assert await acme.history(a) == before
    assert await acme.close(running) == SUCCESSFUL


async def test_only_services_act_on_behalf_of_others(acme: Acme) -> None:
    alice = acme.keys.user.identity
    for key in (acme.keys.user, acme.keys.owner, acme.keys.executor):
        error = await refusal(acme.submit(spec(), stub=acme.by(key), on_behalf_of=alice))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ON_BEHALF_NOT_ALLOWED")
    cron = acme.by(acme.keys.service("cron"))
    (one,) = await acme.submit(spec(), stub=cron, on_behalf_of=alice)
    found = await acme.get(one)
    assert (found.initiator, found.initiator_name) == (alice, "alice")
    error = await refusal(acme.submit(spec(), stub=cron, on_behalf_of=key_of("stranger").identity))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ON_BEHALF_REVOKED")
    error = await refusal(acme.submit(spec(), stub=cron))
    assert [violation.field for violation in error.violations] == ["on_behalf_of"]
    assert await listed(acme) == [one]


async def test_numbered_log_lines_are_added_once(acme: Acme) -> None:
    await acme.submit(spec())
    (assignment,) = await acme.assign()

    async def add(first_number: int, *messages: str) -> None:
        lines = [process_pb2.LogLine(message=message) for message in messages]
        request = pb.AddLogsRequest(colony_name=COLONY, attempt=ref_of(assignment), lines=lines, first_number=first_number)
        await acme.worker.AddLogs(request)

    await add(1, "a", "b")
    await add(1, "a", "b")
    await add(2, "b", "c")
    request = pb.ListLogsRequest(colony_name=COLONY, process_id=assignment.process_id)
    assert [entry.message for entry in (await acme.user.ListLogs(request)).entries] == ["a", "b", "c"]
