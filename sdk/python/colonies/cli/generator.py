"""`colonies generator`: arguments that are gathered, and a workflow for each batch of them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from colonies.cli import arguments, json_lines, workflow_file
from colonies.cli.connection import Connection, asked
from colonies.cli.failure import usage
from colonies.cli.moments import ago, local_if_set, span, span_ms, zoned_if_set
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.pack import pack as pack_values
from colonies.cli.paging import DEFAULT_LIMIT, Limit
from colonies.cli.plain import plain
from colonies.cli.views import call_text, coloured
from colonies.cron.v1 import generator_service_pb2 as pb

app = group(
    "generator",
    "Generators: they gather arguments, and submit a workflow for each batch, on the account of whoever set them up.",
)

Name = Annotated[str, typer.Argument(metavar="GENERATOR", help="The generator's name.")]
OneKey = Annotated[str | None, typer.Option(help="Only this key's. Default: all of them.")]

GENERATOR_COLUMNS = ("Generator", "State", "Batch at", "Waiting", "Oldest", "Next batch by", "Batches", "For", "Remark")
BATCH_COLUMNS = ("Number", "Key", "Arguments", "Sequence", "Bytes", "Reason", "Made", "Submitted", "Workflow", "Error")
BIN_COLUMNS = ("Key", "Waiting", "Bytes", "Oldest", "Next batch by")


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A workflow as JSON (see: colonies workflow submit); - reads stdin.")
    ],
    count: Annotated[int, typer.Option(min=1, max=1_000, help="So many arguments become a batch at once.")],
    timeout: Annotated[str, typer.Option(help="So long after the first of them came they do anyway: 5s. Default: never.")] = "",
    max_bytes: Annotated[str, typer.Option(help="No batch is larger than this: 1024 to 3Mi. Default: 1Mi.")] = "",
) -> None:
    """Add a generator. Its workflow is checked now; each batch follows the arguments of its roots.

    Repeating it with the same content changes nothing.
    """
    options = options_of(ctx)
    wait = arguments.duration_ms(timeout, "--timeout") / 1000 if timeout else None
    if wait == 0:
        msg = "--timeout must be more than 0; leave it out for never"
        raise usage(msg)
    most = arguments.size(max_bytes, "--max-bytes") if max_bytes else 0
    workflow = workflow_file.read(file)

    async def ask(here: Connection) -> pb.Generator:
        return await here.client.add_generator(name, workflow, max_count=count, timeout=wait, max_bytes=most)

    _show(options, asked(options, ask))


@app.command("list")
def list_generators(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the colony's generators, and what waits in each."""
    options = options_of(ctx)

    async def ask(here: Connection) -> list[pb.Generator]:
        return [each async for each in here.client.list_generators(limit=limit)]

    found = asked(options, ask)
    if options.as_json:
        print_json([plain(each) for each in found])
        return
    rows = [
        (
            each.name,
            _state(each),
            _trigger(each.trigger),
            str(each.waiting),
            ago(each, "oldest_time"),
            local_if_set(each, "next_deadline_time"),
            str(each.batches),
            each.initiator_name or each.initiator,
            each.pause_reason or each.last_error,
        )
        for each in found
    ]
    print_table(GENERATOR_COLUMNS, rows, empty="no generators")


@app.command("get")
def get(ctx: typer.Context, name: Name) -> None:
    """Show one generator: its state and why it is paused, what waits in it, since when and until when, its workflow."""
    options = options_of(ctx)
    _show(options, asked(options, lambda here: here.client.get_generator(name)))


@app.command("pack")
def pack(
    ctx: typer.Context,
    name: Name,
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="ARG...",
            help="JSON where they are valid JSON, else text. A single - reads the standard input, a line of JSON each.",
        ),
    ],
    key: Annotated[str, typer.Option(help="Arguments of different keys never share a batch.")] = "",
    request_id: Annotated[
        str | None,
        typer.Option(help="Repeat it with the same arguments after an error: what was packed then is not packed again."),
    ] = None,
    retry_for: Annotated[str, typer.Option(help="How long to try on while the server or its room is lacking.")] = "30s",
) -> None:
    """Add arguments to a generator, in their order; any number, up to 1 000 a call. They are committed when this returns.

    Every call has a request id, and is repeated under it when no answer came: nothing is packed twice.
    """
    options = options_of(ctx)
    from_stdin = items == ["-"]
    if from_stdin:
        groups = json_lines.values_of()
    else:
        groups = iter([[arguments.value(item, f"argument {number}") for number, item in enumerate(items, 1)]])
    packed = pack_values(
        options,
        name,
        groups,
        key=key,
        request_id=request_id,
        retry_for=arguments.duration_ms(retry_for, "--retry-for") / 1000,
        repeatable=not from_stdin,
    )
    if options.as_json:
        print_json({"packed": packed.count, "first_sequence": str(packed.first_sequence) if packed.count else None})
    else:
        say(f"packed {packed.count} arguments" + (f", from number {packed.first_sequence}" if packed.count else ""))


@app.command("bins")
def bins(ctx: typer.Context, name: Name, limit: Limit = DEFAULT_LIMIT) -> None:
    """List what waits in a generator, by key."""
    options = options_of(ctx)

    async def ask(here: Connection) -> list[pb.Bin]:
        return [each async for each in here.client.list_bins(name, limit=limit)]

    found = asked(options, ask)
    if options.as_json:
        print_json([plain(each) for each in found])
        return
    rows = [
        (each.key, str(each.waiting), str(each.waiting_bytes), ago(each, "oldest_time"), zoned_if_set(each, "deadline_time"))
        for each in found
    ]
    print_table(BIN_COLUMNS, rows, empty="nothing waits")


@app.command("batches")
def batches(
    ctx: typer.Context,
    name: Name,
    unsubmitted: Annotated[bool, typer.Option("--unsubmitted", help="Only those that are not submitted yet.")] = False,
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List the batches that were made, newest first, and the workflows that they became."""
    options = options_of(ctx)

    async def ask(here: Connection) -> list[pb.Batch]:
        return [each async for each in here.client.list_batches(name, unsubmitted_only=unsubmitted, limit=limit)]

    found = asked(options, ask)
    if options.as_json:
        print_json([plain(each) for each in found])
        return
    print_table(BATCH_COLUMNS, [_batch_row(each) for each in found], empty="no batches")


@app.command("flush")
def flush(ctx: typer.Context, name: Name, key: OneKey = None) -> None:
    """Make batches of all that waits now, without waiting for more; in a paused generator, too."""
    options = options_of(ctx)
    done = asked(options, lambda here: here.client.flush_generator(name, key=key))
    if options.as_json:
        print_json(plain(done))
    else:
        say(f"made {done.batches} batches of {done.arguments} arguments")


@app.command("drop")
def drop(ctx: typer.Context, name: Name, key: OneKey = None) -> None:
    """Throw away all arguments that wait in no batch yet."""
    options = options_of(ctx)
    count = asked(options, lambda here: here.client.drop_arguments(name, key=key))
    if options.as_json:
        print_json({"arguments": str(count)})
    else:
        say(f"threw away {count} arguments")


@app.command("pause")
def pause(ctx: typer.Context, name: Name) -> None:
    """Make no batches until it is resumed. Arguments are still taken, as far as there is room."""
    options = options_of(ctx)
    _changed(options, asked(options, lambda here: here.client.pause_generator(name)), f"paused generator {name}")


@app.command("resume")
def resume(ctx: typer.Context, name: Name) -> None:
    """Go on: what is full or has waited long enough becomes batches at once, and what was refused is tried again."""
    options = options_of(ctx)
    _changed(options, asked(options, lambda here: here.client.resume_generator(name)), f"resumed generator {name}")


@app.command("remove")
def remove(
    ctx: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if something waits in it: throw it away.")] = False,
) -> None:
    """Remove a generator. Workflows that it submitted go on."""
    options = options_of(ctx)
    asked(options, lambda here: here.client.remove_generator(name, force=force))
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed generator {name}")


def _state(each: pb.Generator) -> Text:
    return coloured(pb.GeneratorState.Name(each.state).removeprefix("GENERATOR_STATE_").lower())


def _trigger(trigger: pb.Trigger) -> str:
    after = f" or {span_ms(trigger.timeout_ms)}" if trigger.timeout_ms else ""
    return f"{trigger.max_count} arguments{after}"


def _batch_row(each: pb.Batch) -> tuple[str, ...]:
    waited = ""
    if each.HasField("submitted_time"):
        waited = span((each.submitted_time.ToMilliseconds() - each.created_time.ToMilliseconds()) / 1000) + " later"
    return (
        str(each.number),
        each.key,
        str(each.count),
        f"{each.first_sequence} to {each.last_sequence}",
        str(each.bytes),
        pb.BatchReason.Name(each.reason).removeprefix("BATCH_REASON_").lower(),
        zoned_if_set(each, "created_time"),
        waited or f"not yet, tried {each.tries} times",
        each.workflow_id,
        each.error,
    )


def _changed(options: Options, found: pb.Generator, text: str) -> None:
    if options.as_json:
        print_json(plain(found))
    else:
        say(text)


def _show(options: Options, each: pb.Generator) -> None:
    if options.as_json:
        print_json(plain(each))
        return
    print_fields(
        [
            ("Generator", each.name),
            ("Id", each.generator_id),
            ("State", _state(each)),
            ("Paused", each.pause_reason),
            ("Batch at", f"{_trigger(each.trigger)}, at most {each.trigger.max_bytes} bytes"),
            ("Waiting", f"{each.waiting} arguments, {each.waiting_bytes} bytes, {each.bins} keys"),
            ("Oldest", ago(each, "oldest_time")),
            ("Next batch by", zoned_if_set(each, "next_deadline_time")),
            ("Not submitted yet", f"{each.unsubmitted_batches} batches" if each.unsubmitted_batches else ""),
            ("Submitted", f"{each.batches} batches"),
            ("Last workflow", each.last_workflow_id),
            ("Last error", each.last_error),
            ("For", each.initiator_name or each.initiator),
            ("Added", zoned_if_set(each, "created_time")),
            ("Workflow", "\n".join(f"{node.node_name}: {call_text(node)}" for node in each.workflow.nodes)),
        ]
    )
