"""The parts of the demo that need no server: the gate, the drawing, the check of the values."""

import asyncio
import sys
import threading

import pytest

from colonies.cli.bootstrap import Address
from colonies.cli.demo import browser, functions, gate, paper, tables
from colonies.cli.failure import CliError
from colonies.executor import Context
from colonies.keys import PrivateKey
from colonies.registry.v1.registry_service_pb2 import Executor
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, Value

ADDRESS = Address("127.0.0.1", 1, "test")


@pytest.mark.asyncio
async def test_the_gate_holds_until_it_is_opened() -> None:
    passed = threading.Event()

    def visitor(address: str) -> None:
        gate.pass_through(address, 30.0)
        passed.set()

    async with gate.Gate() as held:
        waiting = asyncio.create_task(asyncio.to_thread(visitor, held.address))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        assert not passed.is_set()
        held.open()
        await waiting
        assert passed.is_set()
        # Who comes later passes at once.
        await asyncio.to_thread(gate.pass_through, held.address, 30.0)


@pytest.mark.asyncio
async def test_nobody_waits_at_the_gate_for_ever() -> None:
    async with gate.Gate() as held:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(gate.pass_through, held.address, 0.05)


def test_the_functions() -> None:
    assert functions.gen_nums(Context()) == (2, 3)
    assert functions.square(Context(), 3) == 9
    assert functions.add(Context(), 4, 9) == 13


def test_the_drawing_is_the_papers() -> None:
    spec = paper.drawn(ADDRESS, "demo", PrivateKey.generate(), "127.0.0.1:9").workflow.to_spec()
    assert [node.node_name for node in spec.nodes] == ["Task1", "Task2", "Task3", "Task4"]
    assert [node.func_name for node in spec.nodes] == ["gen_nums", "square", "square", "sum"]
    assert [node.conditions.executor_type for node in spec.nodes] == ["edge", "cloud", "cloud", "browser"]
    assert {(node.priority, node.max_exec_time_ms, node.max_retries) for node in spec.nodes} == {(1, 200_000, 5)}
    parents = [[each.node_name for each in node.conditions.dependencies] for node in spec.nodes]
    assert parents == [[], ["Task1"], ["Task1"], ["Task2", "Task3"]]
    assert [gate.VARIABLE in node.env for node in spec.nodes] == [False, True, True, False]


def _process(state: int, executor: str, inputs: list[bytes], outputs: list[bytes]) -> process_pb2.Process:
    return process_pb2.Process(
        state=process_pb2.ProcessState.ValueType(state),
        executor_name=executor,
        spec=FunctionSpec(func_name="f"),
        inputs=[Value(data=data) for data in inputs],
        outputs=[Value(data=data) for data in outputs],
    )


def _seen(*, second: str = "E1", total: bytes = b"13", adder: str = "E2") -> paper.Seen:
    successful, running = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_RUNNING
    middle = [
        _process(successful, "E1", [], [b"2", b"3"]),
        _process(running, second, [b"2"], []),
        _process(running, "E2", [b"3"], []),
        _process(process_pb2.PROCESS_STATE_WAITING, "", [], []),
    ]
    end = [
        _process(successful, "E1", [], [b"2", b"3"]),
        _process(successful, "E1", [b"2"], [b"4"]),
        _process(successful, "E2", [b"3"], [b"9"]),
        _process(successful, "E2", [b"4", b"9"], [total]),
    ]
    return paper.Seen("w", middle, end, 13, Executor(name=adder))


def test_the_papers_run_has_no_mistakes() -> None:
    assert paper.mistakes(_seen()) == []


def test_another_run_has_mistakes() -> None:
    assert paper.mistakes(_seen(second="E2")) == ["P2 was in another state or on another executor in the middle of the run"]
    assert paper.mistakes(_seen(adder="E1")) == ["P4 ran on E1, not on E2"]
    assert paper.mistakes(_seen(), adder="B1") == ["P4 ran on E2, not on B1"]
    assert paper.mistakes(_seen(total=b"14")) == ["P4 had inputs [4, 9] and outputs [14], not [4, 9] and [13]"]


def test_the_last_table_shows_one_value_bare_and_several_as_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_tables(_seen())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["P1", "[2,", "3]"] in lines
    assert ["P2", "2", "4"] in lines
    assert ["P4", "[4,", "9]", "13"] in lines


def test_without_a_browser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CliError, match="apt-get install chromium"):
        browser.chromium()
    monkeypatch.setenv(browser.VARIABLE, "/no/such/program")
    with pytest.raises(CliError, match="COLONIES_CHROMIUM is /no/such/program, which is no program"):
        browser.chromium()
    monkeypatch.setitem(sys.modules, "playwright", None)
    with pytest.raises(CliError, match=r"pip install 'colonies\[browser\]'"):
        browser.chromium()
