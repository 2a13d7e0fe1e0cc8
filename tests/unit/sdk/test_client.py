"""The clients against a server: retries, batches, pages, streams, the blocking face."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient, Client, ColoniesWorkflow, Function, PrivateKey, ProcessFailedError, Profile
from colonies.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ProfileError,
    ResourceExhaustedError,
    UnavailableError,
)
from colonies.profile import save_profile
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.values import encode

from .fake_server import CLUSTER, COLONY, FakeServer

SUCCESSFUL = process.PROCESS_STATE_SUCCESSFUL
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest_asyncio.fixture
async def client(server: FakeServer, key: PrivateKey) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key.hex, CLUSTER) as opened:
        yield opened


@pytest.mark.asyncio
async def test_a_submit_whose_answer_is_lost_enters_once(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("SubmitProcesses", UNAVAILABLE, times=2)
    process_id = await client.submit(Function("f"))
    assert server.calls["SubmitProcesses"] == 3
    assert list(server.processes) == [process_id]


@pytest.mark.asyncio
async def test_concurrent_submits_travel_together(server: FakeServer, client: AsyncClient) -> None:
    ids = await asyncio.gather(*(client.submit(Function(f"f{number}")) for number in range(700)))
    assert server.submit_sizes == [500, 200]
    assert [server.processes[process_id].spec.func_name for process_id in ids] == [f"f{number}" for number in range(700)]


@pytest.mark.asyncio
async def test_a_bad_submit_does_not_harm_its_neighbours(server: FakeServer, client: AsyncClient) -> None:
    names = ["a", "bad", "b"]
    results = await asyncio.gather(*(client.submit(Function(name)) for name in names), return_exceptions=True)
    assert [isinstance(result, InvalidArgumentError) for result in results] == [False, True, False]
    assert [found.spec.func_name for found in server.processes.values()] == ["a", "b"]


@pytest.mark.asyncio
async def test_submits_of_a_long_outage_enter_once(server: FakeServer, key: PrivateKey) -> None:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=math.inf) as client:
        # Two answers are lost, then the server is gone for a while.
        server.refuse("SubmitProcesses", UNAVAILABLE, times=2)
        submits = [asyncio.create_task(client.submit(Function(f"f{number}"))) for number in range(600)]
        await server.until(lambda: server.calls["SubmitProcesses"] == 1)
        await server.stop()
        late = [asyncio.create_task(client.submit(Function(f"f{number}"))) for number in range(600, 700)]
        done, _ = await asyncio.wait([*submits, *late], timeout=0.5)
        assert not done
        await server.start()
        ids = await asyncio.gather(*submits, *late)
    assert [server.processes[process_id].spec.func_name for process_id in ids] == [f"f{number}" for number in range(700)]
    assert len(server.processes) == 700


@pytest.mark.asyncio
async def test_a_full_queue_is_waited_for(server: FakeServer, client: AsyncClient, key: PrivateKey) -> None:
    def full(times: int) -> None:
        server.refuse("SubmitProcesses", EXHAUSTED, "QUEUE_FULL", times=times, retry_ms=20)

    full(3)
    process_id = await client.submit(Function("f"))
    assert (server.calls["SubmitProcesses"], list(server.processes)) == (4, [process_id])
    full(2)
    assert len(await client.submit_all([Function("f"), Function("f")])) == 2
    full(100)
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0.2) as hasty:
        with pytest.raises(ResourceExhaustedError) as caught:
            await hasty.submit(Function("f"))
    assert (caught.value.reason, caught.value.retry_delay) == ("QUEUE_FULL", 0.02)


@pytest.mark.asyncio
async def test_what_does_not_fit_together_is_submitted_in_parts(server: FakeServer, client: AsyncClient) -> None:
    server.room = 100
    ids = await asyncio.gather(*(client.submit(Function(f"f{number}")) for number in range(700)))
    assert [server.processes[process_id].spec.func_name for process_id in ids] == [f"f{number}" for number in range(700)]
    assert len(server.processes) == 700
    assert 50 < max(server.submit_sizes) <= 100


@pytest.mark.asyncio
async def test_what_is_too_large_is_not_sent_again(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("SubmitProcesses", EXHAUSTED)
    with pytest.raises(ResourceExhaustedError):
        await client.submit(Function("f"))
    assert server.calls["SubmitProcesses"] == 1


@pytest.mark.asyncio
async def test_refusals_are_not_repeated(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("GetProcess", grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    with pytest.raises(PermissionDeniedError) as caught:
        await client.get_process("p")
    assert caught.value.reason == "NOT_ALLOWED"
    assert server.calls["GetProcess"] == 1


@pytest.mark.asyncio
async def test_an_outage_that_lasts_is_reported(server: FakeServer, key: PrivateKey) -> None:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key, CLUSTER, retry_for=0.3) as client:
        await server.stop()
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{server.port}"):
            await client.get_process("p")


@pytest.mark.asyncio
async def test_a_call_survives_a_restart(server: FakeServer, client: AsyncClient) -> None:
    process_id = await server.give("f")
    await client.get_process(process_id)
    await server.stop()
    call = asyncio.create_task(client.get_process(process_id))
    await asyncio.sleep(0)
    await server.start()
    assert (await call).process_id == process_id


@pytest.mark.asyncio
async def test_not_found_after_a_lost_answer_means_removed(server: FakeServer, client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.remove_location("lab")
    server.refuse("RemoveLocation", UNAVAILABLE)
    await client.remove_location("lab")


@pytest.mark.asyncio
async def test_pages_are_one_list(client: AsyncClient) -> None:
    assert [executor.name async for executor in client.list_executors()] == ["e0", "e1", "e2", "e3", "e4"]
    assert [executor.name async for executor in client.list_executors(limit=3)] == ["e0", "e1", "e2"]
    assert [executor.name async for executor in client.list_executors(limit=0)] == []


@pytest.mark.asyncio
async def test_watching_goes_on_where_the_stream_broke(server: FakeServer, client: AsyncClient) -> None:
    process_id = await server.give("f")
    seen: list[process.ProcessState.ValueType] = []

    async def watch() -> None:
        async for event in client.watch(process_id=process_id):
            seen.append(event.transition.to_state)
            async with server.changed:
                server.changed.notify_all()

    watching = asyncio.create_task(watch())
    await server.move(process_id, process.PROCESS_STATE_RUNNING, "ASSIGNED", "e1")
    await server.until(lambda: len(seen) == 1)
    server.refuse("WatchProcesses", UNAVAILABLE)
    await server._note()
    await server.until(lambda: server.calls["WatchProcesses"] == 2)
    await server.move(process_id, SUCCESSFUL, "CLOSED", "e1")
    await watching
    assert seen == [process.PROCESS_STATE_RUNNING, SUCCESSFUL]


@pytest.mark.asyncio
async def test_waiting_for_a_process(server: FakeServer, client: AsyncClient) -> None:
    good, bad = await server.give("f"), await server.give("g")
    server.processes[good].outputs.extend([encode(4), encode(b"x")])
    server.processes[bad].errors.append("boom")
    waiting = asyncio.gather(client.wait(good), client.wait(bad), return_exceptions=True)
    await server.move(good, SUCCESSFUL, "CLOSED")
    await server.move(bad, process.PROCESS_STATE_FAILED, "CLOSED")
    outputs, failure = await waiting
    assert outputs == [4, b"x"]
    assert isinstance(failure, ProcessFailedError)
    assert str(failure) == f"process {bad} (g) FAILED: boom"
    with pytest.raises(TimeoutError, match=r"not over after 0.01 s"):
        await client.wait(await server.give("h"), timeout=0.01)


@pytest.mark.asyncio
async def test_watching_a_colony_goes_on_after_what_was_not_wanted(server: FakeServer, client: AsyncClient) -> None:
    process_id = await server.give("f")
    await server.move(process_id, process.PROCESS_STATE_RUNNING, "ASSIGNED", "e1")  # before, and so not shown
    seen: list[str] = []

    async def watch() -> None:
        async for event in client.watch_colony(executor_types=["edge"], labels=["l"], states=["successful", 4]):  # type: ignore[list-item]
            seen.append(event.cursor)
            await server._note()

    watching = asyncio.create_task(watch())
    await server.until(lambda: len(server.watches) == 1)
    await server.move(process_id, SUCCESSFUL, "CLOSED", "e1")
    await server.until(lambda: seen == ["2"])
    await server.move(process_id, process.PROCESS_STATE_WAITING, "RETRY_REQUESTED")
    server.refuse("WatchProcesses", UNAVAILABLE)
    await server._note()
    await server.until(lambda: len(server.watches) == 2)
    assert server.watches[1].cursor in ("2", "3")  # what was not wanted may have come before the break or with it
    await server.move(process_id, process.PROCESS_STATE_FAILED, "CLOSED")
    await server.until(lambda: seen == ["2", "4"])
    server.refuse("WatchProcesses", UNAVAILABLE)
    await server._note()
    await server.until(lambda: len(server.watches) == 3)
    assert server.watches[2].cursor == "4"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    wanted = server.watches[0].colony
    assert (list(wanted.executor_types), list(wanted.labels)) == (["edge"], ["l"])
    assert list(wanted.states) == [SUCCESSFUL, process.PROCESS_STATE_FAILED]


@pytest.mark.asyncio
async def test_children_retries_and_explanations_survive_an_outage(server: FakeServer, client: AsyncClient) -> None:
    server.workflows["w"] = ["p1", "p2"]
    for method in ("AddChildren", "RetryWorkflow", "ExplainProcess", "ExplainSpec"):
        server.refuse(method, UNAVAILABLE)
    server.refuse("AddChildren", EXHAUSTED, "QUEUE_FULL", retry_ms=1)
    ids = await client.add_children("p", 2, [Function("f", name="a"), Function("f", name="b").to_spec()], request_id="r")
    assert ids == ["id of a", "id of b"]
    (request,) = server.children
    assert (request.request_id, request.attempt.process_id, request.attempt.attempt) == ("r", "p", 2)
    assert await client.retry_workflow("w") == 2
    assert (await client.explain("p")).summary == "p"
    assert (await client.explain_spec(Function("f"))).summary == "f"


def workflow_of(server: FakeServer, key: PrivateKey) -> tuple[ColoniesWorkflow, list[Function]]:
    workflow = ColoniesWorkflow("127.0.0.1", server.port, COLONY, key, cluster=CLUSTER)
    a, b, c = (Function(name) for name in "abc")
    workflow >> a >> b >> c
    return workflow, [a, b, c]


@pytest.mark.asyncio
@pytest.mark.parametrize(("outputs", "result"), [([], None), ([13], 13), ([1, 2], (1, 2))])
async def test_a_workflow_gives_the_output_of_its_sink(
    server: FakeServer, key: PrivateKey, outputs: list[int], result: object
) -> None:
    workflow, (a, b, c) = workflow_of(server, key)
    async with await workflow.asubmit() as run:
        waiting = asyncio.create_task(run.wait(progress=True))
        server.processes[run.processes[c]].outputs.extend(map(encode, outputs))
        for node in (a, b, c):
            await server.move(run.processes[node], process.PROCESS_STATE_RUNNING, "ASSIGNED", "e1")
            await server.move(run.processes[node], SUCCESSFUL, "CLOSED", "e1")
        assert await waiting == result


@pytest.mark.asyncio
async def test_a_workflow_fails_by_its_first_cause(server: FakeServer, key: PrivateKey) -> None:
    workflow, (a, b, c) = workflow_of(server, key)
    async with await workflow.asubmit() as run:
        server.processes[run.processes[b]].errors.append("boom")
        await server.move(run.processes[a], SUCCESSFUL, "CLOSED", "e1")
        await server.move(run.processes[c], process.PROCESS_STATE_FAILED, "PARENT_FAILED")
        await server.move(run.processes[b], process.PROCESS_STATE_FAILED, "CLOSED", "e1")
        with pytest.raises(ProcessFailedError, match=r"node 'b' \(b\) FAILED: boom"):
            await run.wait()


@pytest.mark.asyncio
async def test_a_retried_workflow_is_waited_for_anew(server: FakeServer, key: PrivateKey) -> None:
    workflow, (a, b, c) = workflow_of(server, key)
    async with await workflow.asubmit() as run:
        await server.move(run.processes[a], SUCCESSFUL, "CLOSED", "e1")
        await server.move(run.processes[b], process.PROCESS_STATE_FAILED, "CLOSED", "e1")
        await server.move(run.processes[c], process.PROCESS_STATE_FAILED, "PARENT_FAILED")
        with pytest.raises(ProcessFailedError):
            await run.wait()
        assert await run.retry() == 3  # the fake counts them all
        for node in (b, c):
            await server.move(run.processes[node], process.PROCESS_STATE_WAITING, "RETRY_REQUESTED")
        waiting = asyncio.create_task(run.wait())
        await server.move(run.processes[b], SUCCESSFUL, "CLOSED", "e1")
        await server.move(run.processes[c], SUCCESSFUL, "CLOSED", "e1")
        assert await waiting is None


@pytest.mark.asyncio
async def test_a_workflow_that_takes_too_long_says_so(server: FakeServer, key: PrivateKey) -> None:
    workflow, _ = workflow_of(server, key)
    with pytest.raises(TimeoutError, match="it goes on"):
        await workflow.aexecute(timeout=0.05)


@pytest.mark.asyncio
async def test_the_blocking_face(server: FakeServer, key: PrivateKey) -> None:
    """The server lives in this thread's event loop, so the blocking client is used from another one, as a notebook would."""
    process_id = await server.give("f")
    server.processes[process_id].outputs.append(encode(4))
    await server.move(process_id, SUCCESSFUL, "CLOSED")
    before = threading.active_count()

    def use() -> None:
        with Client("127.0.0.1", server.port, COLONY, key, CLUSTER) as client:
            request = scheduler.GetProcessRequest(colony_name=COLONY, process_id=process_id)
            assert client.call(client.scheduler.GetProcess, request).process.process_id == process_id
            assert client.wait(process_id) == [4]
            assert [executor.name for executor in client.list_executors(limit=2)] == ["e0", "e1"]
            assert client.explain(process_id).summary == process_id
            assert client.explain_spec(Function("g")).summary == "g"
            assert client.add_children(process_id, 1, [Function("g", name="n")]) == ["id of n"]
            assert {"retry_workflow", "watch_colony"} <= set(dir(client))
            first = next(iter(client.list_executors()))
            assert first.name == "e0"
            assert {"submit", "list_executors", "close"} <= set(dir(client))
            with pytest.raises(AttributeError):
                client.no_such_method()
            with pytest.raises(NotFoundError):
                client.remove_location("lab")
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.get_process(process_id)

    await asyncio.to_thread(use)
    assert threading.active_count() <= before + 1  # the pool's own thread stays


@pytest.mark.asyncio
async def test_a_blocking_run(server: FakeServer, key: PrivateKey) -> None:
    workflow, (_, _, c) = workflow_of(server, key)
    run = await asyncio.to_thread(workflow.submit)
    assert set(server.workflows) == {run.workflow_id}
    for process_id in run.processes.values():
        await server.move(process_id, SUCCESSFUL, "CLOSED", "e1")
    server.processes[run.processes[c]].outputs.append(encode("done"))
    assert await asyncio.to_thread(run.wait) == "done"
    await asyncio.to_thread(run.close)


@pytest.mark.asyncio
async def test_settings_from_a_profile(server: FakeServer, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLONIES_KEY", key.hex)
    save_profile(Profile("p", "127.0.0.1", server.port, CLUSTER, COLONY))
    async with AsyncClient.from_profile() as client:
        assert client.key.identity == key.identity
        assert [executor.name async for executor in client.list_executors(limit=1)] == ["e0"]
    async with AsyncClient("localhost", server.port, COLONY, key) as client:
        assert client.cluster == CLUSTER
    with pytest.raises(ProfileError, match="cluster"):
        AsyncClient("localhost", server.port + 1, COLONY, key)


def test_states_have_words() -> None:
    from colonies.client import state_name, state_value

    assert state_value("running") == process.PROCESS_STATE_RUNNING
    assert state_name(SUCCESSFUL) == "SUCCESSFUL"
    with pytest.raises(ValueError, match="waiting, running, successful, failed, cancelled"):
        state_value("unspecified!")
