"""The executor against a server: calls, failures, leases, drops, outages, drain."""

import asyncio
import logging
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from colonies import Context, Executor, Function, PrivateKey, RetryableError
from colonies.errors import FailedPreconditionError, KeyFileError, ProfileError
from colonies.profile import config_dir
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import Value

from .fake_server import FakeServer

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

Address = dict[str, Any]


@pytest.fixture(params=["stream", "poll"])
def address(request: pytest.FixtureRequest, server: FakeServer, address: Address) -> Address:
    """Every promise holds, however the server gives out work."""
    server.streams = request.param == "stream"
    return address


def asked(server: FakeServer) -> int:
    """How often somebody asked for work."""
    return server.calls["WatchAssignments" if server.streams else "AssignProcesses"]


@asynccontextmanager
async def running(executor: Executor) -> AsyncIterator[asyncio.Task[None]]:
    """The executor at work; drained at the end."""
    task = asyncio.create_task(executor.arun())
    try:
        yield task
        executor.stop()
        async with asyncio.timeout(10):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def outputs(close: scheduler.Close) -> list[bytes]:
    assert close.WhichOneof("outcome") == "success", close
    return [output.data for output in close.success.outputs]


def errors(close: scheduler.Close) -> list[str]:
    assert close.WhichOneof("outcome") == "failure", close
    return list(close.failure.errors)


async def run_one(server: FakeServer, address: Address, fn: Callable[..., Any], **process: Any) -> scheduler.Close:
    executor = Executor("e1", **address)
    executor.function(fn)
    async with asyncio.timeout(10):
        while server.polls:  # of an executor before, whose end the server has not noticed yet
            await asyncio.sleep(0.001)
    async with running(executor):
        process_id = await server.give(fn.__name__, **process)
        await server.until(server.is_closed(process_id))
    return server.closed(process_id)


@pytest.mark.asyncio
async def test_it_registers_announces_and_runs(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", executor_types=["edge", "cloud"], **address)

    @executor.function
    def square(x: int) -> int:
        """Squares a number."""
        return x * x

    assert square(2) == 4  # the function stays what it was
    async with running(executor):
        first, second = await server.give("square", args=[2]), await server.give("square", inputs=(3,))
        await server.until(server.is_closed(first, second))
    assert outputs(server.closed(first)) == [b"4"]
    assert outputs(server.closed(second)) == [b"9"]
    assert [(function.name, function.description) for function in server.announced] == [("square", "Squares a number.")]
    key_file = config_dir() / "executors" / "dev" / "e1.key"
    assert key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.asyncio
async def test_arguments_then_inputs_then_keywords(server: FakeServer, address: Address) -> None:
    def call(*args: Any, **kwargs: Any) -> list[Any]:
        return [list(args), kwargs]

    kwargs = {"k": Value(data=b"5")}
    close = await run_one(server, address, call, args=[1, 2], inputs=(3, b"\x00"[:0]), kwargs=kwargs)
    assert errors(close)[0].startswith("its result cannot be sent")  # bytes inside JSON
    close = await run_one(server, address, call, args=[1, 2], inputs=(3,), kwargs=kwargs)
    assert outputs(close) == [b'[[1,2,3],{"k":5}]']


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("result", "sent"),
    [((2, 3), [b"2", b"3"]), ([2, 3], [b"[2,3]"]), (None, [b"null"]), ((None,), [b"null"]), (b"\xff", [b"\xff"]), ((), [])],
)
async def test_a_tuple_is_several_outputs(server: FakeServer, address: Address, result: Any, sent: list[bytes]) -> None:
    def give() -> Any:
        return result

    assert outputs(await run_one(server, address, give)) == sent


@pytest.mark.asyncio
async def test_an_exception_is_a_failure_with_its_traceback(server: FakeServer, address: Address) -> None:
    def fail() -> None:
        raise ValueError("no such number")

    async def afail() -> None:
        raise ValueError("x" * 100_000)

    text, trace = errors(await run_one(server, address, fail))
    assert text == "ValueError: no such number"
    assert trace.splitlines()[1].endswith("in fail")  # the executor's own frames are left out
    close = await run_one(server, address, afail)
    assert [len(error.encode()) for error in errors(close)] == [8192, 8192]
    assert not close.failure.retryable


@pytest.mark.asyncio
async def test_which_failures_are_retryable(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", **address)

    @executor.function
    def asks() -> None:
        raise RetryableError("later")

    @executor.function(retry_on=(ConnectionError,))
    async def listed(how: str) -> None:
        raise ConnectionResetError if how == "reset" else ValueError(how)

    async with running(executor):
        ids = [
            await server.give("asks"),
            await server.give("listed", args=["reset"]),
            await server.give("listed", args=["other"]),
        ]
        await server.until(server.is_closed(*ids))
    assert [server.closed(process_id).failure.retryable for process_id in ids] == [True, True, False]


@pytest.mark.asyncio
async def test_a_function_that_ends_the_program_only_fails(server: FakeServer, address: Address) -> None:
    def leave() -> None:
        raise SystemExit(3)

    async def aleave() -> None:
        raise SystemExit(3)

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    assert errors(await run_one(server, address, leave))[0] == "SystemExit: 3"
    assert errors(await run_one(server, address, aleave))[0] == "SystemExit: 3"
    assert errors(await run_one(server, address, cancels_itself))[0].startswith("CancelledError")


def test_settings_that_cannot_be_used_are_told_without_a_walk_through_the_sdk(tmp_path: Path) -> None:
    key_file = tmp_path / "e1.key"
    key_file.write_text("no key")
    key_file.chmod(0o600)
    with pytest.raises(KeyFileError, match="holds no key") as caught:
        Executor("e1", host="127.0.0.1", port=1, colony="dev", cluster="c", key_file=key_file).run()
    assert len(caught.traceback) == 2  # here, and `run`
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.asyncio
async def test_an_unknown_function_is_told_with_those_that_exist(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", **address)
    executor.function(name="a")(lambda: None)
    executor.function(name="b")(lambda: None)
    async with running(executor):
        process_id = await server.give("c")
        await server.until(server.is_closed(process_id))
    (said,) = errors(server.closed(process_id))
    assert said.startswith("this executor has no function 'c'; it has: a, b (")


@pytest.mark.asyncio
async def test_input_that_cannot_be_read_fails_only_its_process(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=2, **address)

    @executor.function
    def same(x: Any) -> Any:
        return x

    async with running(executor):
        deep = await server.give("same", raw_args=[Value(data=b"[" * 100_000 + b"]" * 100_000)])
        good = await server.give("same", args=[1])
        extra = await server.give("same", args=[1, 2])
        await server.until(server.is_closed(deep, good, extra))
    (error,) = errors(server.closed(deep))
    assert "argument 1" in error
    assert "nested too deeply" in error
    assert outputs(server.closed(good)) == [b"1"]
    (error,) = errors(server.closed(extra))
    assert "same(x: Any)" in error.replace("typing.", "")


@pytest.mark.asyncio
async def test_a_result_that_the_server_refuses_becomes_a_failure(server: FakeServer, address: Address) -> None:
    def large() -> str:
        return "too large"

    assert "its result was refused" in errors(await run_one(server, address, large))[0]


@pytest.mark.asyncio
async def test_the_context(server: FakeServer, address: Address) -> None:
    def work(ctx: Context, x: int) -> list[Any]:
        for number in range(2_500):
            ctx.log(f"line {number}")
        ctx.set_attributes({"a": 1})
        ctx.set_attributes({"a": 2, "b": "\ud800"})
        ctx.log("\ud800" + "x" * 100_000)
        return [ctx.process_id, ctx.attempt, ctx.node_name, ctx.label, ctx.env["HOME"], ctx.deadline, x]

    fields = {"node_name": "n", "label": "l", "env": {"HOME": "/h"}}
    close = await run_one(server, address, work, process_id="p", args=[7], **fields)
    assert outputs(close) == [b'["p",1,"n","l","/h",null,7]']
    # All reports came before the close, in order and within their bounds.
    assert server.log_lines[:2_500] == [f"line {number}" for number in range(2_500)]
    assert len(server.log_lines[2_500].encode()) == 64 * 1024
    assert server.attributes == {"a": "2", "b": "?"}
    assert server.calls["AddLogs"] < 100


@pytest.mark.asyncio
async def test_early_outputs_stay_when_nothing_is_returned(server: FakeServer, address: Address) -> None:
    async def work(ctx: Context) -> None:
        ctx.set_output(1, "two")

    assert outputs(await run_one(server, address, work)) == []
    assert server.early_outputs == [b"1", b'"two"']


@pytest.mark.asyncio
async def test_leases_are_kept_in_one_call(server: FakeServer, address: Address) -> None:
    server.lease_ms = 150
    executor = Executor("e1", concurrency=3, **address)
    go_on = threading.Event()
    executor.function(name="f")(go_on.wait)
    async with running(executor):
        ids = {await server.give("f") for _ in range(3)}
        await server.until(lambda: server.heartbeats.count(ids) >= 3)
        go_on.set()
        await server.until(server.is_closed(*ids))


@pytest.mark.asyncio
async def test_a_dropped_async_function_is_cancelled(server: FakeServer, address: Address) -> None:
    server.lease_ms = 150
    executor = Executor("e1", **address)
    cancelled = asyncio.Event()

    @executor.function
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @executor.function
    def quick() -> int:
        return 1

    async with running(executor):
        lost = await server.give("forever")
        server.drops[lost] = scheduler.DROP_REASON_CANCELLED
        async with asyncio.timeout(10):
            await cancelled.wait()
        after = await server.give("quick")
        await server.until(server.is_closed(after))
    assert [close.attempt.process_id for close in server.closes] == [after]


@pytest.mark.asyncio
async def test_a_dropped_sync_function_is_told_and_its_result_thrown_away(server: FakeServer, address: Address) -> None:
    server.lease_ms = 150
    executor = Executor("e1", **address)
    told = threading.Event()

    @executor.function
    def patient(ctx: Context) -> str:
        if ctx.cancelled.wait(10):
            told.set()
        return "unwanted"

    @executor.function
    def quick() -> int:
        return 1

    async with running(executor):
        lost = await server.give("patient")
        server.drops[lost] = scheduler.DROP_REASON_SUPERSEDED
        after = await server.give("quick")
        await server.until(server.is_closed(after))
    assert told.is_set()
    assert [close.attempt.process_id for close in server.closes] == [after]


@pytest.mark.asyncio
async def test_time_that_is_over_cancels_locally(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", **address)
    cancelled = asyncio.Event()

    @executor.function
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with running(executor):
        await server.give("slow", exec_limit_ms=50)
        async with asyncio.timeout(10):
            await cancelled.wait()
    assert server.closes == []


@pytest.mark.asyncio
async def test_a_superseded_close_does_not_hold_up_the_others(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=5, **address)
    barrier = threading.Barrier(5)

    @executor.function
    def together() -> int:
        barrier.wait(10)
        return 1

    async with running(executor):
        ids = [await server.give("together") for _ in range(5)]
        server.drops[ids[1]] = server.drops[ids[3]] = scheduler.DROP_REASON_SUPERSEDED
        await server.until(server.is_closed(ids[0], ids[2], ids[4]))
    assert {close.attempt.process_id for close in server.closes} == {ids[0], ids[2], ids[4]}
    assert max(server.close_calls) > 1  # they travelled together


@pytest.mark.asyncio
async def test_an_outage_loses_no_result(server: FakeServer, address: Address, caplog: pytest.LogCaptureFixture) -> None:
    server.lease_ms = 150
    executor = Executor("e1", **address)
    started, go_on = threading.Event(), threading.Event()

    @executor.function
    def work() -> int:
        started.set()
        go_on.wait(10)
        return 42

    async with running(executor):
        process_id = await server.give("work")
        await asyncio.to_thread(started.wait, 10)
        await server.stop()
        go_on.set()
        async with asyncio.timeout(10):
            while "lost the server" not in caplog.text:
                await asyncio.sleep(0.01)
        await server.start()
        await server.until(server.is_closed(process_id))
        later = await server.give("work")
        await server.until(server.is_closed(later))
    assert outputs(server.closed(process_id)) == [b"42"]
    assert caplog.text.count("lost the server") == caplog.text.count("the server is back") == 1


@pytest.mark.asyncio
async def test_a_close_is_repeated_until_it_is_taken(server: FakeServer, address: Address) -> None:
    def work() -> int:
        return 1

    server.refuse("CloseProcesses", UNAVAILABLE, times=3)
    server.refuse("CloseProcesses", grpc.StatusCode.PERMISSION_DENIED)
    assert outputs(await run_one(server, address, work)) == [b"1"]
    assert server.calls["CloseProcesses"] == 5


@pytest.mark.asyncio
async def test_it_waits_for_approval(
    server: FakeServer, address: Address, key: PrivateKey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonies.executor.membership.APPROVAL_POLL_SECONDS", 0.05)
    server.executor_state = registry.EXECUTOR_STATE_PENDING
    executor = Executor("e1", key=key, **address)
    async with running(executor):
        await server.until(lambda: server.calls["RegisterExecutor"] >= 3)
        assert asked(server) == 0
        assert caplog.text.count("colonies executor approve e1") == 1
        assert key.identity in caplog.text
        server.executor_state = registry.EXECUTOR_STATE_APPROVED
        await server.until(lambda: asked(server) == 1)


@pytest.mark.asyncio
async def test_a_wait_for_approval_can_be_stopped(server: FakeServer, address: Address) -> None:
    server.executor_state = registry.EXECUTOR_STATE_PENDING
    async with running(Executor("e1", **address)):
        await server.until(lambda: server.calls["RegisterExecutor"] == 1)
    assert server.calls["RegisterExecutor"] == 1


@pytest.mark.asyncio
async def test_a_rejected_executor_ends(server: FakeServer, address: Address) -> None:
    server.refuse("RegisterExecutor", grpc.StatusCode.FAILED_PRECONDITION, "EXECUTOR_REJECTED")
    with pytest.raises(FailedPreconditionError):
        await Executor("e1", **address).arun()


@pytest.mark.asyncio
async def test_thrown_out_and_let_in_again(server: FakeServer, address: Address) -> None:
    server.refuse("WatchAssignments" if server.streams else "AssignProcesses", grpc.StatusCode.PERMISSION_DENIED)
    executor = Executor("e1", **address)
    executor.function(name="f")(lambda: 1)
    async with running(executor):
        process_id = await server.give("f")
        await server.until(server.is_closed(process_id))
    assert server.calls["RegisterExecutor"] == 2


@pytest.mark.asyncio
async def test_draining_finishes_what_is_in_hand(server: FakeServer, address: Address) -> None:
    server.lease_ms = 150
    executor = Executor("e1", **address)
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
        beats = len(server.heartbeats)
        await server.until(lambda: len(server.heartbeats) >= beats + 2)  # leases are kept meanwhile
        left = await server.give("work")
        go_on.set()
        async with asyncio.timeout(10):
            await task
    assert outputs(server.closed(process_id)) == [b'"finished"']
    assert not server.is_closed(left)()


@pytest.mark.asyncio
async def test_what_a_drain_cannot_finish_is_given_back(server: FakeServer, address: Address) -> None:
    executor = Executor("e1", concurrency=2, drain_timeout=0.1, **address)
    started = threading.Barrier(2)
    cancelled = asyncio.Event()
    end_of_test = threading.Event()

    @executor.function
    def stuck() -> None:
        started.wait(10)
        end_of_test.wait(10)

    @executor.function
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with running(executor):
        ids = [await server.give("stuck"), await server.give("slow")]
        await asyncio.to_thread(started.wait, 10)
    end_of_test.set()
    assert cancelled.is_set()
    for process_id in ids:
        close = server.closed(process_id)
        assert "shut down" in errors(close)[0]
        assert close.failure.retryable


@pytest.mark.asyncio
@pytest.mark.parametrize("signals", [1, 2])
async def test_signals(server: FakeServer, address: Address, signals: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    executor = Executor("e1", **address)
    started, go_on = asyncio.Event(), asyncio.Event()

    @executor.function
    async def work() -> None:
        started.set()
        await go_on.wait()

    task = asyncio.create_task(executor._run_with_signals())
    process_id = await server.give("work")
    async with asyncio.timeout(10):
        await started.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        while "finishing what is in hand" not in caplog.text:
            await asyncio.sleep(0.01)
        if signals == 2:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            go_on.set()
        await task
    assert server.is_closed(process_id)() == (signals == 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "has space"},
        {"name": ""},
        {"executor_types": "edge"},
        {"executor_types": []},
        {"executor_types": ["-"]},
        {"concurrency": 0},
        {"drain_timeout": -1},
        {"pull": "push"},
        {"pull": "stream", "concurrency": 1001},
        {"labels": {"n": 1}},
        {"accepts": {"team": 1}},
        {"accepts": {"team": []}},
        {"capabilities": {"speed": 3}},
        {"capabilities": {"cpu": 3}},
        {"key": PrivateKey.generate(), "key_file": "x"},
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Executor(**{"name": "e1", **arguments})


def test_a_function_name_is_used_once() -> None:
    executor = Executor("e1")
    executor.function(name="f")(lambda: 1)
    with pytest.raises(ValueError, match="'f'"):
        executor.function(name="f")(lambda: 2)


def test_without_an_address_it_says_what_to_do() -> None:
    with pytest.raises(ProfileError, match="colonies up"):
        Executor("e1").run()


def test_capabilities_are_found_and_can_be_stated() -> None:
    found = Executor("e1", concurrency=3)._capabilities
    assert found.cpu.endswith("m")
    assert found.memory.endswith("Mi")
    assert found.processes == 3
    assert set(found.labels) == {"os", "arch", "python"}
    stated = Executor("e1", capabilities={"cpu": "2", "gpus": [{"name": "a100", "count": 1}], "labels": {"os": "x"}})
    assert stated._capabilities.cpu == "2"
    assert stated._capabilities.memory == found.memory
    assert stated._capabilities.gpus[0].name == "a100"
    assert stated._capabilities.labels["os"] == "x"


def test_labels_and_what_is_accepted() -> None:
    found = Executor("e1", labels={"zone": "b"}, accepts={"team": "x", "size": ("s", "m"), "urgent": True})._capabilities
    assert found.labels["zone"] == "b"
    assert found.labels["os"]
    assert [(each.key, each.operator, list(each.values)) for each in found.accepts] == [
        ("team", registry.LABEL_OPERATOR_EQUALS, ["x"]),
        ("size", registry.LABEL_OPERATOR_IN, ["s", "m"]),
        ("urgent", registry.LABEL_OPERATOR_EXISTS, []),
    ]


@pytest.mark.asyncio
async def test_children_are_added_from_functions_of_both_kinds(server: FakeServer, address: Address) -> None:
    def in_thread(ctx: Context) -> list[str]:
        first, second = Function("f", name="a"), Function("g", name="b")
        first[1] >> second
        return list(ctx.add_children([second, first], insert=True))

    async def in_loop(ctx: Context) -> list[str]:
        with pytest.raises(RuntimeError, match="aadd_children"):
            ctx.add_children([Function("f")])
        return list(await ctx.aadd_children([Function("f"), Function("f")]))

    assert outputs(await run_one(server, address, in_thread)) == [b'["id of b","id of a"]']
    (request,) = server.children
    assert (request.insert, request.attempt.attempt) == (True, 1)
    (parent,) = request.nodes[0].conditions.dependencies
    assert (parent.node_name, parent.index.index) == ("a", 1)
    close = await run_one(server, address, in_loop)
    assert close.attempt.process_id == server.children[1].attempt.process_id
    names = [node.node_name for node in server.children[1].nodes]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"f-[0-9a-f]{8}", name) for name in names)
    assert list(Context(process_id="p", attempt=1).add_children([Function("f")])) == []
