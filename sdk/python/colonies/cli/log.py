"""`colonies log`: what executors wrote while they ran processes."""

import asyncio
from typing import Annotated

import typer

from colonies.cli.connection import connected
from colonies.cli.moments import local
from colonies.cli.options import group, options_of
from colonies.cli.output import print_json, print_json_line, say
from colonies.cli.paging import collected
from colonies.cli.plain import plain
from colonies.scheduler.v1 import scheduler_service_pb2
from colonies.scheduler.v1.process_pb2 import LogEntry

app = group("log", "Logs: lines that executors added to the processes they ran.")


@app.command("get")
def get(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="PROCESS|EXECUTOR", help="A process's id, or an executor's name.")],
    executor: Annotated[bool, typer.Option("--executor", help="The argument is an executor's name.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many lines. Default: all.")] = None,
) -> None:
    """Print the log lines of a process, oldest first; with --executor, those of an executor."""
    options = options_of(ctx)

    async def call() -> list[LogEntry]:
        async with connected(options) as here:
            request = scheduler_service_pb2.ListLogsRequest(colony_name=here.colony)
            if executor:
                request.executor_name = source
            else:
                request.process_id = source
            return await collected(here, here.scheduler.ListLogs, request, "entries", limit=limit)

    entries = asyncio.run(call())
    if options.as_json:
        print_json([plain(entry) for entry in entries])
        return
    for entry in entries:
        say(_line(entry, with_process=executor))


@app.command("follow")
def follow(ctx: typer.Context, process_id: Annotated[str, typer.Argument(metavar="PROCESS", help="The process's id.")]) -> None:
    """Print the log lines of a process as they come, until it is over."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options) as here:
            # Without a colony the request would be refused with a field name; say it in words first.
            _ = here.colony
            async for entry in here.client.follow_logs(process_id):
                if options.as_json:
                    print_json_line(plain(entry))
                else:
                    say(_line(entry, with_process=False))

    asyncio.run(call())


def _line(entry: LogEntry, *, with_process: bool) -> str:
    process = f"{entry.process_id}  " if with_process else ""
    return f"{local(entry.time)}  {process}{entry.message}"
