"""`colonies channel`: messages between who submitted a process and the executors that run it."""

import asyncio
from typing import Annotated

import typer

from colonies.cli import arguments
from colonies.cli.connection import connected
from colonies.cli.failure import usage
from colonies.cli.moments import local
from colonies.cli.options import group, options_of
from colonies.cli.output import print_json, print_json_line, say
from colonies.cli.plain import plain
from colonies.cli.views import value_text
from colonies.scheduler.v1 import channel_pb2 as pb

app = group("channel", "Channels: messages both ways between the submitter of a process and its executors.")

Process = Annotated[str, typer.Argument(metavar="PROCESS", help="The process's id.")]
Name = Annotated[str, typer.Argument(metavar="CHANNEL", help="One of the channels that it was submitted with.")]


@app.command("send")
def send(
    ctx: typer.Context,
    process_id: Process,
    name: Name,
    items: Annotated[list[str] | None, typer.Argument(metavar="[VALUE]...", help="JSON, or else text; each a message.")] = None,
    end: Annotated[bool, typer.Option("--end", help="Say, after the values, that this was all.")] = False,
    fail: Annotated[str | None, typer.Option(metavar="TEXT", help="Say, after the values, what went wrong.")] = None,
) -> None:
    """Send messages as the submitter of a process."""
    options = options_of(ctx)
    if end and fail is not None:
        msg = "--end and --fail: a channel ends in one way"
        raise usage(msg)
    if not (items or end or fail is not None):
        msg = "nothing to send: give values, --end or --fail TEXT"
        raise usage(msg)
    values = [arguments.value(item, f"value {number}") for number, item in enumerate(items or (), 1)]

    async def call() -> None:
        async with connected(options) as here:
            # Without a colony the request would be refused with a field name; say it in words first.
            _ = here.colony
            channel = here.client.channel(process_id, name)
            if values:
                await channel.send(*values)
            if end:
                await channel.end()
            if fail is not None:
                await channel.fail(fail)

    asyncio.run(call())
    if options.as_json:
        print_json({"sent": len(values) + (end or fail is not None)})


@app.command("list")
def list_messages(
    ctx: typer.Context,
    process_id: Process,
    name: Name,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many messages. Default: all.")] = None,
) -> None:
    """Print the messages that are there, of both sides, oldest first."""
    options = options_of(ctx)

    async def call() -> list[pb.ChannelMessage]:
        async with connected(options) as here:
            _ = here.colony
            return [message async for message in here.client.channel(process_id, name).messages(limit=limit)]

    messages = asyncio.run(call())
    if options.as_json:
        print_json([plain(message) for message in messages])
        return
    for message in messages:
        say(_line(message))


@app.command("follow")
def follow(ctx: typer.Context, process_id: Process, name: Name) -> None:
    """Print the messages of both sides as they come, until both have ended or the process is over."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            _ = here.colony
            async for message in here.client.channel(process_id, name).follow():
                if options.as_json:
                    print_json_line(plain(message))
                else:
                    say(_line(message))

    asyncio.run(call())


def _line(message: pb.ChannelMessage) -> str:
    attempt = f" (attempt {message.attempt})" if message.attempt else ""
    text = value_text(message.value)
    if message.kind == pb.MESSAGE_KIND_END:
        text = "-- end"
    elif message.kind == pb.MESSAGE_KIND_ERROR:
        text = f"-- error: {text}"
    return f"{local(message.time)}  {message.sender_name}{attempt}  {text}"
