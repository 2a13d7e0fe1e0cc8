"""`colonies function`: what approved executors announced that they can do."""

import asyncio
from typing import Annotated, Any

import typer

from colonies.cli.connection import connected
from colonies.cli.options import group, options_of
from colonies.cli.output import print_json, print_table
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.registry.v1 import registry_service_pb2 as registry

app = group("function", "Functions that executors announced.")


@app.command("list")
def list_functions(
    ctx: typer.Context,
    executor: Annotated[str, typer.Option(help="Only functions of this executor.")] = "",
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List functions, who runs them, and as which type of executor."""
    options = options_of(ctx)

    async def call() -> list[Any]:
        async with connected(options) as here:
            request = registry.ListFunctionsRequest(colony_name=here.colony, executor_name=executor)
            return await collected(here, here.registry.ListFunctions, request, "entries", limit=limit)

    entries = asyncio.run(call())
    if options.as_json:
        print_json([plain(entry) for entry in entries])
        return
    rows = [
        (_signature(entry.function), entry.executor_name, ", ".join(entry.executor_types), entry.function.description)
        for entry in entries
    ]
    print_table(("Function", "Executor", "Types", "Description"), rows, empty="no functions")


def _signature(function: registry.Function) -> str:
    arguments = []
    for each in function.arguments:
        kind = f": {each.type}" if each.type else ""
        arguments.append(f"{each.name}{kind}" if each.required else f"[{each.name}{kind}]")
    return f"{function.name}({', '.join(arguments)})"
