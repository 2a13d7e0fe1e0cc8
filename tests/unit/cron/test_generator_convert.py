"""Requests about generators: every field has its bound, and every refusal names field and bound."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Value, WorkflowSpec
from servicekit.failures import InvalidArgument
from services.cron.domain.generator import Batch, Generator, Launchable
from services.cron.domain.packing import Bin, Reason, Trigger
from services.cron.rpc import convert_generators as convert

KIB, MIB = 1024, 1024 * 1024
NAMED: dict[str, Any] = {"colony_name": "dev", "name": "g"}
AT = datetime(2026, 1, 1, tzinfo=UTC)


def root(*, args: int = 0, data: int = 0, after: str = "", name: str = "a") -> FunctionSpec:
    dependencies = [Dependency(node_name=after)] if after else []
    node = FunctionSpec(node_name=name, func_name="f", conditions=Conditions(executor_type="cli", dependencies=dependencies))
    node.args.extend([Value()] * args)
    if data:
        node.kwargs["x"].data = bytes(data)
    return node


def adding(*nodes: FunctionSpec, max_count: int = 10, timeout_ms: int = 0, max_bytes: int = 0) -> pb.AddGeneratorRequest:
    trigger = pb.Trigger(max_count=max_count, timeout_ms=timeout_ms, max_bytes=max_bytes)
    return pb.AddGeneratorRequest(**NAMED, trigger=trigger, workflow=WorkflowSpec(nodes=nodes or [root()]))


def packing(*arguments: pb.Argument, request_id: str = "r") -> pb.PackRequest:
    return pb.PackRequest(**NAMED, request_id=request_id, arguments=arguments)


def argument(size: int = 1, *, key: str = "", media_type: str = "") -> pb.Argument:
    return pb.Argument(key=key, value=Value(media_type=media_type, data=bytes(size)))


def refused(call: Callable[[], object]) -> dict[str, str]:
    """The fields that a call is refused for, and why."""
    with pytest.raises(InvalidArgument) as caught:
        call()
    return dict(caught.value.violations)


@pytest.mark.parametrize(
    ("request_", "field", "bound"),
    [
        (adding(max_count=0), "trigger.max_count", "must be 1 to 1000; got 0"),
        (adding(max_count=-1), "trigger.max_count", "must be 1 to 1000; got -1"),
        (adding(max_count=1_001), "trigger.max_count", "must be 1 to 1000; got 1001"),
        (adding(root(args=990), max_count=11), "trigger.max_count", "must be 1 to 10; got 11"),
        (adding(root(), root(args=3, name="b"), max_count=998), "trigger.max_count", "must be 1 to 997; got 998"),
        (
            adding(root(), root(args=1_000, name="b")),
            "workflow.nodes[1].args",
            "must have at most 999 entries, so that a batch can follow; it has 1000",
        ),
        (adding(timeout_ms=9), "trigger.timeout_ms", "must be 10 to 315360000000; got 9"),
        (adding(timeout_ms=-1), "trigger.timeout_ms", "must be 10 to 315360000000; got -1"),
        (adding(timeout_ms=2**62), "trigger.timeout_ms", f"must be 10 to 315360000000; got {2**62}"),
        (adding(max_bytes=1_023), "trigger.max_bytes", "must be 1024 to 3145728; got 1023"),
        (adding(max_bytes=-1), "trigger.max_bytes", "must be 1024 to 3145728; got -1"),
        (adding(max_bytes=3 * MIB + 1), "trigger.max_bytes", "must be 1024 to 3145728; got 3145729"),
        (adding(root(data=2 * MIB), max_bytes=2 * MIB + 1), "trigger.max_bytes", "must be 1024 to 2097152; got 2097153"),
        (
            adding(root(data=4 * MIB - 1_023)),
            "workflow",
            "must leave room for a batch of 1024 bytes in each of its roots; it is too large",
        ),
    ],
)
def test_what_cannot_be_submitted_is_refused_when_it_is_added(request_: pb.AddGeneratorRequest, field: str, bound: str) -> None:
    assert refused(lambda: convert.new_generator(request_)) == {field: bound}


def test_only_roots_need_room() -> None:
    full = root(args=1_000, data=4 * MIB, after="a", name="b")
    new = convert.new_generator(adding(root(), full, max_count=1_000, max_bytes=3 * MIB))
    assert new.trigger == Trigger(1_000, 0, 3 * MIB)
    assert (new.launchable.nodes, new.launchable.roots) == (2, 1)


def test_max_bytes_is_1_mib_or_less_if_it_must() -> None:
    assert convert.new_generator(adding()).trigger.max_bytes == MIB
    assert convert.new_generator(adding(root(data=4 * MIB - 5_000))).trigger.max_bytes == 5_000


@pytest.mark.parametrize("roots", [8, 9, 30, 1_000])
def test_with_a_batch_in_each_root_a_workflow_is_never_larger_than_24_mib(roots: int) -> None:
    nodes = [root(name=f"n{index}", data=100) for index in range(roots)]
    highest = refused(lambda: convert.new_generator(adding(*nodes, max_count=1_000, max_bytes=2**40)))["trigger.max_bytes"]
    at_most = int(highest.split(";")[0].split()[-1])
    new = convert.new_generator(adding(*nodes, max_count=1_000, max_bytes=at_most))
    # The worst that may come: as many arguments as may be, each with a media type.
    size, rest = divmod(at_most, 1_000)
    values = [Value(media_type="t", data=bytes(size + (index < rest) - 1)) for index in range(1_000)]
    workflow = WorkflowSpec.FromString(new.launchable.workflow)
    for node in workflow.nodes:
        node.args.extend(values)
    # Little is given away: framing is counted as if every argument were large.
    assert 18 * MIB < workflow.ByteSize() <= 24 * MIB


@pytest.mark.parametrize(
    ("request_", "field", "bound"),
    [
        (packing(), "arguments", "must have 1 to 1000 entries; it has 0"),
        (packing(*[argument()] * 1_001), "arguments", "must have 1 to 1000 entries; it has 1001"),
        (
            packing(*[argument()] * 3, argument(1_000_000)),
            "arguments[3].value",
            "must be at most 262144 bytes; it has 1000000",
        ),
        (
            packing(argument(256 * KIB, media_type="text/plain")),
            "arguments[0].value",
            "must be at most 262144 bytes; it has 262154",
        ),
        (
            packing(*[argument(256 * KIB)] * 16, argument()),
            "arguments",
            "must be at most 4194304 bytes together; they have 4194305",
        ),
        (packing(argument(key="x" * 129)), "arguments[0].key", "must be at most 128 bytes; it has 129"),
        (packing(argument(key="é" * 65)), "arguments[0].key", "must be at most 128 bytes; it has 130"),
        (
            packing(argument(), argument(key="a\nb")),
            "arguments[1].key",
            "must be printable text without control characters; got 'a\\nb'",
        ),
        (
            packing(argument(key="\0")),
            "arguments[0].key",
            "must be printable text without control characters; got '\\x00'",
        ),
        (
            packing(argument(media_type="x" * 256)),
            "arguments[0].value.media_type",
            "must be at most 255 printable ASCII characters",
        ),
        (
            packing(argument(media_type="a\tb")),
            "arguments[0].value.media_type",
            "must be at most 255 printable ASCII characters",
        ),
        (
            packing(argument(), request_id=""),
            "request_id",
            "must be 1-128 printable ASCII characters without spaces; got ''",
        ),
    ],
)
def test_what_is_packed_is_bounded(request_: pb.PackRequest, field: str, bound: str) -> None:
    assert refused(lambda: convert.pack_of(request_, "me")) == {field: bound}


def test_as_much_as_may_be_is_taken() -> None:
    pack = convert.pack_of(packing(*[argument(256 * KIB - 3, key="k" * 128, media_type="a/b")] * 16), "me")
    assert [each.size for each in pack.arguments] == [256 * KIB] * 16
    assert Value.FromString(pack.arguments[0].value) == Value(media_type="a/b", data=bytes(256 * KIB - 3))
    assert len(convert.pack_of(packing(*[argument(0)] * 1_000), "me").arguments) == 1_000


def test_a_request_is_its_senders_and_content_is_all_of_it() -> None:
    one = convert.pack_of(packing(argument(key="ab"), argument()), "me")
    assert convert.pack_of(packing(argument(key="ab"), argument()), "me") == one
    assert convert.pack_of(packing(argument(key="ab"), argument()), "you").request != one.request
    for other in (packing(argument(key="a"), argument(key="b")), packing(argument(), argument(key="ab"))):
        assert convert.pack_of(other, "me").content != one.content


BAD_NAMES: list[tuple[Callable[[Any], object], Callable[..., Any]]] = [
    (convert.generator_name, pb.GetGeneratorRequest),
    (convert.generator_name, pb.PauseGeneratorRequest),
    (convert.generator_name, pb.ResumeGeneratorRequest),
    (convert.generator_name, pb.RemoveGeneratorRequest),
    (convert.name_and_key, pb.FlushGeneratorRequest),
    (convert.name_and_key, pb.DropArgumentsRequest),
    (convert.bins_page_of, pb.ListBinsRequest),
    (convert.batches_page_of, pb.ListBatchesRequest),
    (
        lambda request: convert.pack_of(request, "me"),
        lambda **names: pb.PackRequest(**names, request_id="r", arguments=[argument()]),
    ),
    (
        convert.new_generator,
        lambda **names: pb.AddGeneratorRequest(**names, trigger=pb.Trigger(max_count=1), workflow=WorkflowSpec(nodes=[root()])),
    ),
]


@pytest.mark.parametrize(("converted", "request_of"), BAD_NAMES)
@pytest.mark.parametrize("bad", ["", "-a", "a b", "a" * 129, "é"])
def test_names_are_names(converted: Callable[[Any], object], request_of: Callable[..., Any], bad: str) -> None:
    assert set(refused(lambda: converted(request_of(colony_name=bad, name=bad)))) == {"colony_name", "name"}


def test_keys_and_pages_are_bounded() -> None:
    for request_of in (pb.FlushGeneratorRequest, pb.DropArgumentsRequest):
        assert set(refused(lambda: convert.name_and_key(request_of(**NAMED, key="x" * 129)))) == {"key"}
        assert convert.name_and_key(request_of(**NAMED)) == ("g", None)
        assert convert.name_and_key(request_of(**NAMED, key="")) == ("g", "")
    listed: list[tuple[Callable[[Any], Any], Any]] = [
        (convert.page_of, lambda **fields: pb.ListGeneratorsRequest(colony_name="dev", **fields)),
        (convert.bins_page_of, lambda **fields: pb.ListBinsRequest(**NAMED, **fields)),
        (convert.batches_page_of, lambda **fields: pb.ListBatchesRequest(**NAMED, **fields)),
    ]
    for converted, request_of in listed:
        for size in (-1, 1_001):
            assert set(refused(lambda: converted(request_of(page_size=size)))) == {"page_size"}
        assert set(refused(lambda: converted(request_of(cursor="?")))) == {"cursor"}
        assert converted(request_of()).limit == 100


def test_a_page_ends_with_where_the_next_begins() -> None:
    generator = Generator(UUID(int=1), "dev", "g", Trigger(1, 50, 1), Launchable(b"", 1, 1), "0a", "alice", AT)
    bin_ = Bin("", 1, 2, 3, 4, AT)
    message = convert.bins_message(generator, [bin_], more=True)
    assert convert.bins_page_of(pb.ListBinsRequest(**NAMED, cursor=message.next_cursor)).after == ""
    assert message.bins[0].deadline_time.ToDatetime(UTC) == AT + timedelta(milliseconds=50)
    batch = Batch(UUID(int=1), 7, "k", 1, 2, 2, 9, Reason.BYTES, AT, AT)
    batches = convert.batches_message([batch], more=True)
    assert convert.batches_page_of(pb.ListBatchesRequest(**NAMED, cursor=batches.next_cursor)).before == 7
    assert batches.batches[0].reason == pb.BATCH_REASON_BYTES
    assert not batches.batches[0].HasField("submitted_time")
    generators = convert.page_message([generator], more=True)
    assert convert.page_of(pb.ListGeneratorsRequest(colony_name="dev", cursor=generators.next_cursor)).after == "g"
    assert not convert.bins_message(generator, [], more=False).next_cursor
