"""Requests about generators checked and turned into the domain's words, and the domain's results into messages."""

from collections.abc import Sequence
from typing import NamedTuple

from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Value, WorkflowSpec
from servicekit import cursors
from servicekit.bounds import CONTROL, TEN_YEARS_MS, Bounds, checked, is_printable
from services.cron.domain.dispatch import FRAMING_BYTES
from services.cron.domain.generator import Argument, Batch, Generator, Launchable, NewGenerator, Pack
from services.cron.domain.packing import Bin, Trigger
from services.cron.rpc.convert import timestamp

MAX_ARGUMENTS = 1_000
MAX_ARGUMENT_BYTES = 256 * 1024
MAX_PACK_BYTES = 4 * 1024 * 1024
MAX_KEY_BYTES = 128
MAX_MEDIA_TYPE = 255
MIN_TIMEOUT_MS = 10
MIN_BATCH_BYTES = 1_024
MAX_BATCH_BYTES = 3 * 1024 * 1024
DEFAULT_BATCH_BYTES = 1024 * 1024
# What the scheduler takes: arguments of a node, bytes of its user data; and what is left to a workflow here.
MAX_NODE_ARGUMENTS = 1_000
MAX_NODE_BYTES = 4 * 1024 * 1024
MAX_WORKFLOW_BYTES = 24 * 1024 * 1024
# A node that gets a batch has a longer length before it.
NODE_FRAMING_BYTES = 8
ANY_NUMBER = 2**62


class Page(NamedTuple):
    """Which part of the list of generators: at most `limit`, beginning after a name."""

    after: str
    limit: int


class BinsPage(NamedTuple):
    """Which bins of a generator: beginning after a key, or with the first."""

    name: str
    after: str | None
    limit: int


class BatchesPage(NamedTuple):
    """Which batches of a generator: those with lower numbers than `before`."""

    name: str
    before: int
    limit: int
    unsubmitted: bool


def new_generator(request: pb.AddGeneratorRequest) -> NewGenerator:
    """What AddGenerator asks for. The workflow itself is the scheduler's to check, and the room for batches in it ours."""
    workflow = request.workflow
    roots = [index for index, node in enumerate(workflow.nodes) if not node.conditions.dependencies]
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        trigger = _trigger_of(bounds, request.trigger, workflow, roots)
    # Deterministic: maps have no order, and the same content must be the same bytes.
    body = workflow.SerializeToString(deterministic=True)
    return NewGenerator(request.name, trigger, Launchable(body, len(workflow.nodes), len(roots)))


def _trigger_of(bounds: Bounds, trigger: pb.Trigger, workflow: WorkflowSpec, roots: Sequence[int]) -> Trigger:
    most = max(roots, key=lambda index: len(workflow.nodes[index].args), default=None)
    taken = 0 if most is None else len(workflow.nodes[most].args)
    if most is not None and taken >= MAX_NODE_ARGUMENTS:
        bounds.refuse(
            f"workflow.nodes[{most}].args",
            f"must have at most {MAX_NODE_ARGUMENTS - 1} entries, so that a batch can follow; it has {taken}",
        )
    else:
        bounds.number("trigger.max_count", trigger.max_count, at_least=1, at_most=MAX_NODE_ARGUMENTS - taken)
    if trigger.timeout_ms:
        bounds.number("trigger.timeout_ms", trigger.timeout_ms, at_least=MIN_TIMEOUT_MS, at_most=TEN_YEARS_MS)
    room = _batch_room(workflow, roots, max(1, min(trigger.max_count, MAX_NODE_ARGUMENTS)))
    if room < MIN_BATCH_BYTES:
        bounds.refuse(
            "workflow", f"must leave room for a batch of {MIN_BATCH_BYTES} bytes in each of its roots; it is too large"
        )
    elif trigger.max_bytes:
        bounds.number("trigger.max_bytes", trigger.max_bytes, at_least=MIN_BATCH_BYTES, at_most=room)
    return Trigger(trigger.max_count, trigger.timeout_ms, trigger.max_bytes or min(DEFAULT_BATCH_BYTES, room))


def _batch_room(workflow: WorkflowSpec, roots: Sequence[int], max_count: int) -> int:
    """How many bytes of data and media types a batch may have, so that the scheduler takes the workflow with it."""
    if not roots:
        # Of a cycle, or of nothing: the scheduler says so.
        return MAX_BATCH_BYTES
    own = max(_user_data(workflow, index) for index in roots)
    share = (MAX_WORKFLOW_BYTES - workflow.ByteSize()) // len(roots) - NODE_FRAMING_BYTES - FRAMING_BYTES * max_count
    return min(MAX_BATCH_BYTES, MAX_NODE_BYTES - own, share)


def _user_data(workflow: WorkflowSpec, index: int) -> int:
    """As the scheduler counts it."""
    node = workflow.nodes[index]
    values = [*node.args, *node.kwargs.values(), node.filesystem]
    return sum(len(value.data) for value in values) + sum(map(len, node.env.values()))


def generator_name(
    request: pb.GetGeneratorRequest | pb.PauseGeneratorRequest | pb.ResumeGeneratorRequest | pb.RemoveGeneratorRequest,
) -> str:
    """Which generator."""
    with checked() as bounds:
        _check_name(bounds, request)
    return request.name


def name_and_key(request: pb.FlushGeneratorRequest | pb.DropArgumentsRequest) -> tuple[str, str | None]:
    """Which generator, and which key; None for all."""
    with checked() as bounds:
        _check_name(bounds, request)
        bounds.printable("key", request.key, at_most=MAX_KEY_BYTES, optional=True)
    return request.name, request.key if request.HasField("key") else None


def _check_name(
    bounds: Bounds,
    request: pb.GetGeneratorRequest
    | pb.PauseGeneratorRequest
    | pb.ResumeGeneratorRequest
    | pb.RemoveGeneratorRequest
    | pb.FlushGeneratorRequest
    | pb.DropArgumentsRequest
    | pb.ListBinsRequest
    | pb.ListBatchesRequest
    | pb.PackRequest,
) -> None:
    bounds.name("colony_name", request.colony_name)
    bounds.name("name", request.name)


def pack_of(request: pb.PackRequest, sender: str) -> Pack:
    """What Pack adds."""
    with checked() as bounds:
        _check_name(bounds, request)
        bounds.request_id("request_id", request.request_id)
        bounds.count("arguments", request.arguments, at_least=1, at_most=MAX_ARGUMENTS)
        arguments = [_argument_of(bounds, index, each) for index, each in enumerate(request.arguments[:MAX_ARGUMENTS])]
        total = sum(argument.size for argument in arguments)
        if total > MAX_PACK_BYTES:
            bounds.refuse("arguments", f"must be at most {MAX_PACK_BYTES} bytes together; they have {total}")
    return Pack.of(request.colony_name, request.name, sender=sender, request_id=request.request_id, arguments=arguments)


def _argument_of(bounds: Bounds, index: int, argument: pb.Argument) -> Argument:
    key, value = argument.key, argument.value
    if key and not is_printable(key, MAX_KEY_BYTES):
        bounds.printable(f"arguments[{index}].key", key, at_most=MAX_KEY_BYTES)
    media_type = value.media_type
    if media_type and (len(media_type) > MAX_MEDIA_TYPE or not media_type.isascii() or CONTROL.search(media_type)):
        bounds.refuse(f"arguments[{index}].value.media_type", f"must be at most {MAX_MEDIA_TYPE} printable ASCII characters")
    size = len(value.data) + len(media_type)
    if size > MAX_ARGUMENT_BYTES:
        bounds.refuse(f"arguments[{index}].value", f"must be at most {MAX_ARGUMENT_BYTES} bytes; it has {size}")
    # Anew from its fields, so that what it has besides is not kept, and counts nowhere.
    return Argument(key, Value(media_type=media_type, data=value.data).SerializeToString(deterministic=True), size)


def page_of(request: pb.ListGeneratorsRequest) -> Page:
    """Which part of the list."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        limit = bounds.page("page_size", request.page_size)
    if not request.cursor:
        return Page("", limit)
    (after,) = cursors.decode("cursor", request.cursor, str)
    return Page(after, limit)


def bins_page_of(request: pb.ListBinsRequest) -> BinsPage:
    """Which bins."""
    with checked() as bounds:
        _check_name(bounds, request)
        limit = bounds.page("page_size", request.page_size)
    if not request.cursor:
        return BinsPage(request.name, None, limit)
    (after,) = cursors.decode("cursor", request.cursor, str)
    return BinsPage(request.name, after, limit)


def batches_page_of(request: pb.ListBatchesRequest) -> BatchesPage:
    """Which batches."""
    with checked() as bounds:
        _check_name(bounds, request)
        limit = bounds.page("page_size", request.page_size)
    before = ANY_NUMBER
    if request.cursor:
        (before,) = cursors.decode("cursor", request.cursor, int)
    return BatchesPage(request.name, before, limit, request.unsubmitted_only)


def generator_message(generator: Generator) -> pb.Generator:
    """A generator on its way out."""
    trigger = generator.trigger
    message = pb.Generator(
        generator_id=str(generator.generator_id),
        colony_name=generator.colony,
        name=generator.name,
        trigger=pb.Trigger(max_count=trigger.max_count, timeout_ms=trigger.timeout_ms, max_bytes=trigger.max_bytes),
        initiator=generator.initiator,
        initiator_name=generator.initiator_name,
        created_time=timestamp(generator.created),
        state=pb.GENERATOR_STATE_PAUSED if generator.paused else pb.GENERATOR_STATE_ACTIVE,
        pause_reason=generator.pause_reason,
        waiting=generator.waiting,
        waiting_bytes=generator.waiting_bytes,
        bins=generator.bins,
        oldest_time=timestamp(generator.oldest),
        next_deadline_time=timestamp(generator.next_deadline),
        unsubmitted_batches=generator.unsubmitted,
        batches=generator.submitted,
        last_workflow_id=generator.last_workflow_id,
        last_error=generator.last_error,
    )
    if generator.launchable.workflow:
        message.workflow.CopyFrom(WorkflowSpec.FromString(generator.launchable.workflow))
    return message


def page_message(generators: Sequence[Generator], *, more: bool) -> pb.ListGeneratorsResponse:
    """A page on its way out."""
    cursor = cursors.encode((generators[-1].name,)) if more else ""
    return pb.ListGeneratorsResponse(generators=map(generator_message, generators), next_cursor=cursor)


def bins_message(generator: Generator, bins: Sequence[Bin], *, more: bool) -> pb.ListBinsResponse:
    """A page on its way out."""
    messages = [
        pb.Bin(
            key=bin_.key,
            waiting=bin_.count,
            waiting_bytes=bin_.size,
            oldest_time=timestamp(bin_.oldest),
            deadline_time=timestamp(None if generator.paused else generator.trigger.deadline(bin_.oldest)),
        )
        for bin_ in bins
    ]
    return pb.ListBinsResponse(bins=messages, next_cursor=cursors.encode((bins[-1].key,)) if more else "")


def batches_message(batches: Sequence[Batch], *, more: bool) -> pb.ListBatchesResponse:
    """A page on its way out."""
    cursor = cursors.encode((batches[-1].number,)) if more else ""
    return pb.ListBatchesResponse(batches=map(_batch_message, batches), next_cursor=cursor)


def _batch_message(batch: Batch) -> pb.Batch:
    return pb.Batch(
        number=batch.number,
        key=batch.key,
        count=batch.count,
        first_sequence=batch.first,
        last_sequence=batch.last,
        bytes=batch.size,
        reason=batch.reason.value,  # type: ignore[arg-type]  # numbered alike
        created_time=timestamp(batch.created),
        oldest_time=timestamp(batch.oldest),
        submitted_time=timestamp(batch.submitted),
        workflow_id=str(batch.workflow_id),
        error=batch.error,
        tries=batch.tries,
    )
