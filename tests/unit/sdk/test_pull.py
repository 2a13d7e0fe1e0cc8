"""How an executor asks for work: the stream, what breaks it, and what stands in for it; and the heartbeats that confirm."""

import asyncio
import logging
import threading
from typing import Any

import grpc
import pytest

from colonies import Executor
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

from .fake_server import FakeServer
from .test_executor import outputs, running

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

Address = dict[str, Any]


def quick(executor: Executor) -> Executor:
    @executor.function
    async def work() -> int:
        return 1

    return executor


@pytest.mark.asyncio
async def test_the_stream_is_kept_filled_and_no_fuller(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=3, **address)
    go_on = asyncio.Semaphore(0)
    started = 0

    @executor.function
    async def work() -> None:
        nonlocal started
        started += 1
        await server._note()
        await go_on.acquire()

    ids = [await server.give("work") for _ in range(5)]
    async with running(executor):
        await server.until(lambda: started == 3)
        go_on.release()
        await server.until(lambda: started == 4)
        for _ in range(4):
            go_on.release()
        await server.until(server.is_closed(*ids))
    assert server.in_flight == [3]
    assert server.most_open == 3
    assert server.calls["AssignProcesses"] == 0


@pytest.mark.asyncio
async def test_a_stream_that_breaks_is_opened_again(
    server: FakeServer, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(quick(Executor("e1", **address))):
        await server.until(server.is_closed(await server.give("work")))
        for number in (2, 3, 4, 5):
            server.refuse("WatchAssignments", UNAVAILABLE)
            await server._note()
            await server.until(lambda number=number: server.calls["WatchAssignments"] == number)  # type: ignore[misc]
            await server.until(server.is_closed(await server.give("work")))
    assert server.calls["AssignProcesses"] == 0
    assert "lost the server" not in caplog.text  # a break is no outage


@pytest.mark.asyncio
async def test_what_is_in_hand_already_is_not_run_twice(server: FakeServer, address: Address) -> None:
    server.copies = 3
    async with running(quick(Executor("e1", concurrency=2, **address))):
        ids = [await server.give("work") for _ in range(4)]
        await server.until(server.is_closed(*ids))
    assert sorted(close.attempt.process_id for close in server.closes) == sorted(ids)


@pytest.mark.asyncio
async def test_where_streams_are_cut_it_polls_until_an_outage_is_over(
    server: FakeServer, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refuse("WatchAssignments", UNAVAILABLE, times=3)
    async with running(quick(Executor("e1", **address))):
        await server.until(server.is_closed(await server.give("work")))
        assert server.calls["WatchAssignments"] == 3
        assert server.calls["AssignProcesses"] >= 1
        await server.stop()
        async with asyncio.timeout(10):
            while "lost the server" not in caplog.text:
                await asyncio.sleep(0.01)
        await server.start()
        await server.until(server.is_closed(await server.give("work")))
        await server.until(lambda: server.calls["WatchAssignments"] == 4)
    assert caplog.text.count("streams of assignments are cut") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
async def test_where_streams_break_down_it_polls(server: FakeServer, address: Address, code: grpc.StatusCode) -> None:
    server.refuse("WatchAssignments", code, times=100)
    async with running(quick(Executor("e1", **address))):
        await server.until(server.is_closed(await server.give("work")))
    assert server.calls["WatchAssignments"] == 3


@pytest.mark.asyncio
async def test_an_outage_of_the_stream_is_ridden_out(
    server: FakeServer, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(quick(Executor("e1", pull="stream", **address))):
        await server.until(lambda: server.polls == 1)
        await server.stop()
        async with asyncio.timeout(10):
            while "lost the server" not in caplog.text:
                await asyncio.sleep(0.01)
        await server.start()
        await server.until(server.is_closed(await server.give("work")))
    assert caplog.text.count("lost the server") == caplog.text.count("the server is back") == 1
    assert server.calls["AssignProcesses"] == 0


@pytest.mark.asyncio
async def test_who_wants_polls_gets_polls(server: FakeServer, address: Address) -> None:
    async with running(quick(Executor("e1", pull="poll", **address))):
        await server.until(server.is_closed(await server.give("work")))
    assert server.calls["WatchAssignments"] == 0


@pytest.mark.asyncio
async def test_who_wants_streams_waits_for_them(server: FakeServer, address: Address) -> None:
    server.streams = False
    async with running(quick(Executor("e1", pull="stream", **address))):
        await server.until(lambda: server.calls["WatchAssignments"] == 2)
        server.streams = True
        await server.until(server.is_closed(await server.give("work")))
    assert server.calls["AssignProcesses"] == 0


@pytest.mark.asyncio
async def test_more_at_once_than_a_stream_holds_is_polled_for(server: FakeServer, address: Address) -> None:
    async with running(quick(Executor("e1", concurrency=1001, **address))):
        await server.until(server.is_closed(await server.give("work")))
    assert server.calls["WatchAssignments"] == 0


@pytest.mark.asyncio
async def test_a_silent_stream_is_taken_for_dead(server: FakeServer, address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonies.executor.pull.STREAM_SILENCE_SECONDS", 0.05)
    monkeypatch.setattr("colonies.executor.pull.CUT_SECONDS", 0.01)
    server.lively = False
    async with running(quick(Executor("e1", **address))):
        await server.until(lambda: server.calls["WatchAssignments"] >= 5)
        await server.until(server.is_closed(await server.give("work")))
    assert server.calls["AssignProcesses"] == 0


@pytest.mark.asyncio
async def test_a_drain_closes_the_stream_and_finishes(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=2, **address)
    started, go_on = asyncio.Event(), asyncio.Event()

    @executor.function
    async def work() -> str:
        started.set()
        await go_on.wait()
        return "finished"

    async with running(executor) as task:
        process_id = await server.give("work")
        async with asyncio.timeout(10):
            await started.wait()
        executor.stop()
        await server.until(lambda: server.polls == 0)
        left = await server.give("work")
        go_on.set()
        async with asyncio.timeout(10):
            await task
    assert outputs(server.closed(process_id)) == [b'"finished"']
    assert not server.is_closed(left)()


@pytest.mark.asyncio
async def test_a_place_is_not_given_twice(server: FakeServer, address: Address) -> None:
    """The server has room for the next as soon as it drops an attempt; here its function goes on until it ends by itself."""
    server.lease_ms = 150
    executor = Executor("e1", **address)
    end, running_now, most = threading.Event(), [0], [0]

    @executor.function
    def work(wait: bool) -> None:
        running_now[0] += 1
        most[0] = max(most[0], running_now[0])
        if wait:
            end.wait(10)
        running_now[0] -= 1

    async with running(executor):
        lost = await server.give("work", args=[True])
        await server.until(lambda: any(lost in beat for beat in server.heartbeats))
        server.drops[lost] = scheduler.DROP_REASON_CANCELLED
        after = await server.give("work", args=[False])
        # It arrived, for its lease is kept; and waits.
        await server.until(lambda: {after} in server.heartbeats)
        assert not server.is_closed(after)()
        end.set()
        await server.until(server.is_closed(after))
    assert most == [1]


@pytest.mark.asyncio
async def test_what_was_taken_is_confirmed_soon(server: FakeServer, address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonies.executor.leases.CONFIRM_SECONDS", 0.02)
    executor = quick(Executor("e1", concurrency=3, **address))
    go_on = asyncio.Event()
    executor.function(name="long")(go_on.wait)
    async with running(executor):
        ids = {await server.give("long"), await server.give("long")}
        await server.until(lambda: set().union(*server.heartbeats) == ids)
        beats = len(server.heartbeats)
        await server.until(server.is_closed(await server.give("work")))
        third = await server.give("long")
        await server.until(lambda: {third} in server.heartbeats)  # and not those again that are confirmed
        assert len(server.heartbeats) == beats + 1
        go_on.set()
        await server.until(server.is_closed(*ids, third))


@pytest.mark.asyncio
async def test_what_is_over_at_once_needs_no_heartbeat(server: FakeServer, address: Address) -> None:
    async with running(quick(Executor("e1", **address))):
        for _ in range(20):
            await server.until(server.is_closed(await server.give("work")))
    assert server.heartbeats == []
