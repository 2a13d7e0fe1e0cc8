"""`colonies generator` against a server of canned answers."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cli import json_lines
from colonies.cli.failure import CliError
from colonies.cli.pack import calls
from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Value

from .answers import GENERATOR, WORKFLOW_ID
from .conftest import FakeServer, Refusal, Shell

SOME = Timestamp(seconds=1_679_906_715)


def a_generator(**changes: Any) -> pb.Generator:
    fields: dict[str, Any] = {
        "name": "g",
        "state": pb.GENERATOR_STATE_ACTIVE,
        "trigger": pb.Trigger(max_count=100, timeout_ms=5000, max_bytes=1 << 20),
        "waiting": 42,
        "waiting_bytes": 4200,
        "bins": 2,
        "oldest_time": SOME,
        "next_deadline_time": SOME,
    }
    return pb.Generator(**{**fields, **changes})


def _always(answer: Any) -> Callable[[Any], Any]:
    return lambda _: answer


def answers(server: FakeServer, **changes: Any) -> None:
    """A server with one generator."""
    found = a_generator(**changes)
    batch = pb.Batch(
        number=7,
        key="k",
        count=3,
        first_sequence=40,
        last_sequence=44,
        reason=pb.BATCH_REASON_TIMEOUT,
        created_time=SOME,
        submitted_time=Timestamp(seconds=SOME.seconds, nanos=250_000_000),
        workflow_id=WORKFLOW_ID,
    )
    waiting = pb.Batch(number=8, created_time=SOME, tries=3, error="no room", reason=pb.BATCH_REASON_COUNT)
    one_bin = pb.Bin(key="k", waiting=3, waiting_bytes=30, oldest_time=SOME, deadline_time=SOME)
    for method, request, response in (
        ("AddGenerator", pb.AddGeneratorRequest, pb.AddGeneratorResponse(generator=found)),
        ("GetGenerator", pb.GetGeneratorRequest, pb.GetGeneratorResponse(generator=found)),
        ("ListGenerators", pb.ListGeneratorsRequest, pb.ListGeneratorsResponse(generators=[found])),
        ("ListBins", pb.ListBinsRequest, pb.ListBinsResponse(bins=[one_bin])),
        ("ListBatches", pb.ListBatchesRequest, pb.ListBatchesResponse(batches=[waiting, batch])),
        ("FlushGenerator", pb.FlushGeneratorRequest, pb.FlushGeneratorResponse(batches=2, arguments=42)),
        ("DropArguments", pb.DropArgumentsRequest, pb.DropArgumentsResponse(arguments=42)),
        ("PauseGenerator", pb.PauseGeneratorRequest, pb.PauseGeneratorResponse(generator=found)),
        ("ResumeGenerator", pb.ResumeGeneratorRequest, pb.ResumeGeneratorResponse(generator=found)),
        ("RemoveGenerator", pb.RemoveGeneratorRequest, pb.RemoveGeneratorResponse()),
    ):
        server.on(GENERATOR + method, request, _always(response))


def answers_pack(server: FakeServer, *, lost: int = 0) -> dict[str, list[Value]]:
    """A generator that keeps its promise about request ids; the answers of the first calls are lost."""
    packed: dict[str, list[Value]] = {}
    first: dict[str, int] = {}
    answer_lost = iter([True] * lost)

    def pack(request: pb.PackRequest) -> pb.PackResponse:
        if request.request_id not in packed:
            first[request.request_id] = 1 + sum(map(len, packed.values()))
            packed[request.request_id] = [argument.value for argument in request.arguments]
        if next(answer_lost, False):
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")
        return pb.PackResponse(first_sequence=first[request.request_id])

    server.on(GENERATOR + "Pack", pb.PackRequest, pack)
    return packed


def test_add(shell: Shell, server: FakeServer, tmp_path: Path) -> None:
    answers(server)
    file = tmp_path / "w.json"
    file.write_text(json.dumps({"nodes": [{"name": "a", "function": "f", "executor_type": "edge"}]}))
    assert shell.json("generator", "add", "g", str(file), "--count", "100", "--timeout", "5s", "--max-bytes", "64Ki")
    assert server.requests[-1].trigger == pb.Trigger(max_count=100, timeout_ms=5000, max_bytes=65_536)
    assert "100 arguments or 5.0 s" in shell("generator", "add", "g", str(file), "--count", "100").stdout
    assert server.requests[-1].trigger == pb.Trigger(max_count=100)
    seen = len(server.requests)
    for options, error in (
        (("--count", "0"), "--count"),
        (("--count", "1", "--timeout", "0"), "--timeout must be more than 0"),
        (("--count", "1", "--max-bytes", "1Gi"), "--max-bytes: '1Gi' is not a size"),
        (("--count", "1", "--max-bytes", "9999999Mi"), "--max-bytes: '9999999Mi' is too large"),
        ((), "--count"),
    ):
        result = shell("generator", "add", "g", str(file), *options)
        assert result.exit_code == 2
        assert error in result.stderr, result.stderr
    assert len(server.requests) == seen


def test_get_and_list_show_what_waits(shell: Shell, server: FakeServer) -> None:
    answers(server, state=pb.GENERATOR_STATE_PAUSED, pause_reason="batch 8 was refused", unsubmitted_batches=1)
    shown = shell("generator", "get", "g").stdout
    expected = ("paused", "batch 8 was refused", "42 arguments, 4200 bytes, 2 keys", "ago", "08:45:15 UTC", "1 batches")
    for text in expected:
        assert text in shown, shown
    assert shell.json("generator", "get", "g")["waiting"] == "42"
    listed = shell("generator", "list").stdout
    assert "batch 8 was refused" in listed
    assert shell.json("generator", "list")[0]["name"] == "g"


def test_bins_and_batches(shell: Shell, server: FakeServer) -> None:
    answers(server)
    assert "k" in shell("generator", "bins", "g").stdout
    assert shell.json("generator", "bins", "g")[0]["waiting"] == "3"
    shown = shell("generator", "batches", "g", "--unsubmitted").stdout
    assert server.requests[-1].unsubmitted_only
    for text in ("40 to 44", "timeout", "250 ms later", "not yet, tried 3 times", "no room", WORKFLOW_ID):
        assert text in shown, shown
    assert [each["number"] for each in shell.json("generator", "batches", "g")] == ["8", "7"]


def test_flush_drop_pause_resume_remove(shell: Shell, server: FakeServer) -> None:
    answers(server)
    assert shell("generator", "flush", "g").stdout == "made 2 batches of 42 arguments\n"
    assert not server.requests[-1].HasField("key")
    assert shell.json("generator", "flush", "g", "--key", "") == {"batches": 2, "arguments": "42"}
    assert server.requests[-1].HasField("key")
    assert shell.json("generator", "drop", "g", "--key", "k") == {"arguments": "42"}
    assert server.requests[-1].key == "k"
    assert shell("generator", "drop", "g").stdout == "threw away 42 arguments\n"
    assert shell("generator", "pause", "g").stdout == "paused generator g\n"
    assert shell("generator", "resume", "g").stdout == "resumed generator g\n"
    assert shell.json("generator", "remove", "g", "--force") == {"removed": "g"}
    assert server.requests[-1].force
    shell("generator", "remove", "g")
    assert not server.requests[-1].force


def test_arguments_are_packed_once_in_their_order_though_answers_are_lost(shell: Shell, server: FakeServer) -> None:
    packed = answers_pack(server, lost=2)
    found = shell.json("generator", "pack", "g", "1.10", "text", '{"a": [1]}', "--key", "k")
    assert found == {"packed": 3, "first_sequence": "1"}
    assert [value.data for values in packed.values() for value in values] == [b"1.10", b'"text"', b'{"a": [1]}']
    assert {argument.key for argument in server.requests[-1].arguments} == {"k"}
    assert len(server.requests) == 3


def test_standard_input_goes_in_calls_of_at_most_a_thousand(shell: Shell, server: FakeServer) -> None:
    packed = answers_pack(server)
    lines = "\n".join(str(number) for number in range(2500))
    result = shell("generator", "pack", "g", "-", stdin=f"{lines}\n\n")
    assert (result.exit_code, result.stdout) == (0, "packed 2500 arguments, from number 1\n")
    assert [len(values) for values in packed.values()] == [1000, 1000, 500]
    assert [int(value.data) for values in packed.values() for value in values] == list(range(2500))


def test_repeating_a_request_id_packs_only_what_is_missing(shell: Shell, server: FakeServer) -> None:
    packed = answers_pack(server)
    lines = "\n".join(str(number) for number in range(1500))
    first = shell("generator", "pack", "g", "-", "--request-id", "r", stdin="\n".join(lines.split("\n")[:1000]))
    assert first.exit_code == 0
    assert shell("generator", "pack", "g", "-", "--request-id", "r", stdin=lines).exit_code == 0
    assert [int(value.data) for values in packed.values() for value in values] == list(range(1500))
    assert list(packed) == ["r-1", "r-2"]


def test_what_goes_wrong_in_the_middle_is_told(shell: Shell, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = answers_pack(server)
    monkeypatch.setattr(json_lines, "_READ_BYTES", 4)
    result = shell("generator", "pack", "g", "-", stdin="1\n2\nnope\n3\n")
    assert result.exit_code == 2
    assert "packed 2 arguments before this" in result.stderr
    assert "standard input, line 3: is not JSON" in result.stderr
    assert sum(map(len, packed.values())) == 2


def test_an_outage_that_lasts_says_how_to_go_on(shell: Shell, server: FakeServer) -> None:
    answers_pack(server, lost=100)
    result = shell("generator", "pack", "g", "1", "--retry-for", "100ms")
    assert result.exit_code == 5
    stem = server.requests[-1].request_id.removesuffix("-1")
    assert f"--request-id {stem}" in result.stderr
    assert len({request.request_id for request in server.requests}) == 1


def test_a_refusal_is_told_without_advice(shell: Shell, server: FakeServer) -> None:
    def refused(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "no such generator")

    server.on(GENERATOR + "Pack", pb.PackRequest, refused)
    result = shell("generator", "pack", "g", "1")
    assert (result.exit_code, result.stderr) == (3, "error: no such generator\n")


def test_an_interruption_ends_the_reading_at_once(shell: Shell, server: FakeServer) -> None:
    arrived = threading.Event()

    def pack(_: pb.PackRequest) -> pb.PackResponse:
        arrived.set()
        return pb.PackResponse(first_sequence=1)

    server.on(GENERATOR + "Pack", pb.PackRequest, pack)
    # Whoever runs the tests in the background may have told all of them to pass over interruptions.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeding}; from colonies.cli import main; main()", "generator", "pack", "g", "-"]
    with subprocess.Popen(command, env={**os.environ, **shell.env}, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        assert arrived.wait(30)
        # The pipe stays open: more could come.
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_nothing_to_pack(shell: Shell, server: FakeServer) -> None:
    assert shell("generator", "pack", "g").exit_code == 2
    assert shell.json("generator", "pack", "g", "-") == {"packed": 0, "first_sequence": None}
    assert server.requests == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_they_arrive(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_READ_BYTES", chunk)
    text = b'1\n\n {"a": "\xc3\xa5"} \r\n[2, 3]\n"last"'
    groups = list(json_lines.values_of(io.BytesIO(text)))
    assert [value.data for group in groups for value in group] == [b"1", b'{"a": "\xc3\xa5"}', b"[2, 3]", b'"last"']


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"1\nNaN\n", "line 2: is not JSON"),
        (b"\xff\n", "line 1: is not valid UTF-8"),
        (b"[" * 10**5, "line 1: the JSON is nested"),
    ],
)
def test_bad_lines(text: bytes, error: str) -> None:
    with pytest.raises(CliError, match=error):
        list(json_lines.values_of(io.BytesIO(text)))


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    with pytest.raises(CliError, match="line 1: longer than"):
        list(json_lines.values_of(io.BytesIO(b"1" * (3 << 20))))


def test_steady_calls_do_not_depend_on_how_values_arrive() -> None:
    values = [Value(data=b"x" * 100_000) for _ in range(100)]
    for size in (1, 7, 100):
        groups = [values[first : first + size] for first in range(0, 100, size)]
        made = [len(call) for call in calls(groups, "", steady=True)]
        assert made == [41, 41, 18]
        assert sum(len(call) for call in calls(groups, "", steady=False)) == 100
