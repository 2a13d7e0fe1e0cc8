"""WatchProcesses for a whole colony: its state changes as they come, none lost and none twice, and nobody else's."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

import grpc
import pytest
import pytest_asyncio

from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .callers import OTHER_COLONY, settle
from .scheduler_colony import SERVICES, Acme, spec
from .scheduler_streams import WOKEN_WITHIN_S

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL, FAILED = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_FAILED


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


class ColonyStream:
    """One follower of a colony, read all the while: `async with ColonyStream(acme.user) as stream`."""

    def __init__(self, stub: Any, *, cursor: str = "", colony: str = COLONY, **filters: Any) -> None:
        self.events: list[Any] = []
        self.cursors: list[str] = []
        request = pb.WatchProcessesRequest(colony_name=colony, colony=pb.ColonyFilter(**filters), cursor=cursor)
        self._call = stub.WatchProcesses(request)
        self._is_resumed = bool(cursor)
        self._reading = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        if not self._is_resumed:
            # The first response says from where on it follows.
            await self.heard(0, responses=1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def _read(self) -> None:
        async for response in self._call:
            # In one step, as a follower that keeps both together.
            self.events += response.events
            self.cursors.append(response.cursor)

    async def cut(self) -> None:
        """As a follower that goes away."""
        self._call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def heard(self, count: int, *, responses: int = 0, seconds: float = WOKEN_WITHIN_S) -> list[Any]:
        """Waits for this many events, and responses with or without any; all events that came, and no more."""

        async def there() -> bool:
            if self._reading.done():
                self._reading.result()
            return len(self.events) >= count and len(self.cursors) >= responses

        await eventually(there, seconds=seconds)
        assert len(self.events) == count
        return list(self.events)


def plain(events: list[Any]) -> list[tuple[str, int]]:
    return [(event.process_id, event.transition.to_state) for event in events]


async def test_it_begins_with_the_next_change_and_brings_all_in_order(acme: Acme) -> None:
    (before,) = await acme.submit(spec())
    async with ColonyStream(acme.user) as stream:
        workflow_id, (a, b) = await acme.submit_workflow(spec("a"), spec("b", "a"))
        await acme.close(await acme.one())
        await acme.close(await acme.one(), errors=["broken"])
        expected = [
            *((a, WAITING), (b, WAITING)),
            *((before, RUNNING), (before, SUCCESSFUL)),
            *((a, RUNNING), (a, FAILED), (b, FAILED)),
        ]
        events = await stream.heard(len(expected))
        assert plain(events) == expected
        assert [event.node_name for event in events] == ["a", "b", "", "", "a", "a", "b"]
        assert [event.executor_name for event in events[2:6]] == ["worker-1"] * 4
        assert len({event.cursor for event in events}) == len(events)
        assert stream.cursors[-1] == events[-1].cursor
    assert workflow_id


async def test_filters_hold_together(acme: Acme) -> None:
    streams = [
        ColonyStream(acme.user, executor_types=["gpu"]),
        ColonyStream(acme.user, labels=["nightly", "weekly"]),
        ColonyStream(acme.user, states=[SUCCESSFUL, FAILED]),
        ColonyStream(acme.user, executor_types=["cli", "edge"], labels=["nightly"], states=[RUNNING]),
        ColonyStream(acme.user, executor_types=["nothing"]),
    ]
    for stream in streams:
        await stream.__aenter__()
    try:
        gpu, nightly, weekly, other = await acme.submit(
            spec(executor_type="gpu"), spec(label="nightly"), spec(label="weekly"), spec(label="night")
        )
        for one in await acme.assign(at_most=9):
            await acme.close(one, errors=["broken"] if one.process_id == other else [])
        by_type, by_label, by_state, by_all, nothing = streams
        assert plain(await by_type.heard(1)) == [(gpu, WAITING)]
        assert plain(await by_label.heard(6)) == [
            *((nightly, WAITING), (weekly, WAITING)),
            *((nightly, RUNNING), (weekly, RUNNING)),
            *((nightly, SUCCESSFUL), (weekly, SUCCESSFUL)),
        ]
        assert plain(await by_state.heard(3)) == [(nightly, SUCCESSFUL), (weekly, SUCCESSFUL), (other, FAILED)]
        assert plain(await by_all.heard(1)) == [(nightly, RUNNING)]
        # Where nothing is wanted the cursor goes on all the same.
        await nothing.heard(0, responses=2, seconds=10)
        assert nothing.cursors[-1] != nothing.cursors[0]
        (last,) = await acme.submit(spec(executor_type="nothing"))
        async with ColonyStream(acme.user, executor_types=["nothing"], cursor=nothing.cursors[-1]) as resumed:
            assert plain(await resumed.heard(1)) == [(last, WAITING)]
    finally:
        for stream in streams:
            await stream.cut()


async def test_from_any_cursor_on_everything_after_it_and_nothing_else(acme: Acme) -> None:
    async with ColonyStream(acme.user) as stream:
        await acme.submit_workflow(spec("a"), spec("b", "a"), spec("c"))
        for one in await acme.assign(at_most=9):
            await acme.close(one)
        events = await stream.heard(7)
        first = stream.cursors[0]
    for count, cursor in enumerate([first, *(event.cursor for event in events[:-1])]):
        async with ColonyStream(acme.user, cursor=cursor) as resumed:
            assert await resumed.heard(7 - count) == events[count:]


async def test_a_follower_that_is_cut_again_and_again_misses_nothing_and_hears_nothing_twice(acme: Acme) -> None:
    """Submits, assignments and closes at once through two replicas; the follower changes between these too."""
    await acme.cluster.start("scheduler")
    sides = [acme, Acme(acme.cluster, replica=1)]
    total = 60
    heard: list[Any] = []
    ids: list[str] = []
    async with ColonyStream(acme.user) as stream:
        cursor = stream.cursors[0]

    async def submit(side: Acme) -> None:
        for _ in range(total // 4):
            ids.extend(await side.submit(spec(), spec()))

    async def work(side: Acme, stub: Any) -> None:
        done = 0
        while done < total // 2:
            for one in await side.assign(stub, at_most=min(3, total // 2 - done), wait_ms=2_000):
                await side.close(one, stub=stub)
                done += 1

    busy = asyncio.gather(*(submit(side) for side in sides), work(sides[0], sides[0].worker), work(sides[1], sides[1].worker_2))
    turn = 0
    while not busy.done() or len(heard) < 3 * total:
        turn += 1
        follower = ColonyStream(sides[turn % 2].user, cursor=cursor)

        async def something(follower: ColonyStream = follower) -> bool:
            return bool(follower.events)

        await eventually(something, seconds=20)
        await follower.cut()
        heard += follower.events
        # Now and then by the last event's own cursor, which says the same.
        cursor = follower.cursors[-1] if turn % 3 else follower.events[-1].cursor
    await busy
    assert len({event.cursor for event in heard}) == len(heard) == 3 * total
    by_process = {one: [state for process_id, state in plain(heard) if process_id == one] for one in ids}
    assert by_process == {one: [WAITING, RUNNING, SUCCESSFUL] for one in ids}
    assert turn > 2


@pytest.mark.parametrize("through", [0, 1], ids=["same replica", "another replica"])
async def test_every_change_wakes_a_follower_whichever_replica_makes_it(acme: Acme, through: int) -> None:
    await acme.cluster.start("scheduler")
    there = Acme(acme.cluster, replica=through)
    async with ColonyStream(acme.user) as stream:
        workflow_id, _ = await there.submit_workflow(spec("a"), spec("b", "a"))
        await stream.heard(2)
        one = await there.one()
        await stream.heard(3)
        await there.close(one, errors=["broken"])
        await stream.heard(5)
        await there.user.RetryWorkflow(pb.RetryWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id))
        await stream.heard(7)
        again = await there.one()
        await stream.heard(8)
        added = pb.AddChildrenRequest(
            colony_name=COLONY,
            request_id="more",
            attempt=pb.AttemptRef(process_id=again.process_id, attempt=again.attempt),
            nodes=[spec("x")],
        )
        (x,) = (await there.worker.AddChildren(added)).process_ids
        assert plain(await stream.heard(9))[-1] == (x, WAITING)
        await there.user.CancelWorkflow(pb.CancelWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id))
        await stream.heard(12)


async def test_another_colony_sees_and_hears_nothing(acme: Acme) -> None:
    await settle(acme.cluster)
    bob = acme.by(key_of("bob"))
    async with ColonyStream(bob, colony=OTHER_COLONY) as theirs, ColonyStream(acme.user) as ours:
        await acme.submit(spec())
        await acme.close(await acme.one())
        await ours.heard(3)
        theirs_too = await acme.submit(spec(), stub=bob, colony_name=OTHER_COLONY)
        assert plain(await theirs.heard(1)) == [(theirs_too[0], WAITING)]
        # A cursor is a place in time, not a right.
        async with ColonyStream(bob, colony=OTHER_COLONY, cursor=ours.cursors[0]) as resumed:
            assert plain(await resumed.heard(1)) == [(theirs_too[0], WAITING)]
        await ours.heard(3)
    for who in ("bob", "stranger", "removed user"):
        request = pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter())
        error = await refusal(acme.by(key_of(who)).WatchProcesses(request).read())
        assert error.code is grpc.StatusCode.PERMISSION_DENIED, who


async def test_it_shows_that_it_lives_and_where_it_stands(acme: Acme) -> None:
    async with ColonyStream(acme.user) as stream:
        await stream.heard(0, responses=2, seconds=10)
        assert all(stream.cursors)


async def test_filters_out_of_bounds_are_named(acme: Acme) -> None:
    for filters, field in (
        ({"executor_types": ["a b"]}, "colony.executor_types[0]"),
        ({"executor_types": [f"t{number}" for number in range(33)]}, "colony.executor_types"),
        ({"labels": [f"l{number}" for number in range(33)]}, "colony.labels"),
        ({"labels": ["x" * 257]}, "colony.labels[0]"),
        ({"states": [0]}, "colony.states[0]"),
        ({"states": [6]}, "colony.states[0]"),
        ({"states": [1] * 11}, "colony.states"),
    ):
        request = pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter(**filters))
        error = await refusal(acme.user.WatchProcesses(request).read())
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, filters
        assert [one.field for one in error.violations] == [field], filters
    error = await refusal(acme.user.WatchProcesses(pb.WatchProcessesRequest(colony_name=COLONY)).read())
    assert [one.field for one in error.violations] == ["target"]
    request = pb.WatchProcessesRequest(colony_name=COLONY, colony=pb.ColonyFilter(), cursor="made up")
    error = await refusal(acme.user.WatchProcesses(request).read())
    assert [one.field for one in error.violations] == ["cursor"]
