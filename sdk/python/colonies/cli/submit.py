"""`colonies submit` and `colonies exec`: one function call, from the shell."""

import asyncio
from typing import Annotated, Any

import typer

from colonies.cli.call import Call, takes_call
from colonies.cli.connection import connected
from colonies.cli.options import Options, options_of, single
from colonies.cli.output import note, print_json, say
from colonies.cli.plain import plain, strict
from colonies.cli.views import data_text
from colonies.cli.waiting import tell_why_it_waits, wait_for_process

submit_app = single("submit")
exec_app = single("exec")


@submit_app.command("submit")
@takes_call()
def submit(
    ctx: typer.Context,
    call: Call,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is over, and print what it returned.")] = False,
) -> None:
    """Submit a function call and print its process id. It is committed when this returns.

    With --wait: print what it returned, one output a line; exit code 1 with its errors if it failed.
    """
    asyncio.run(_submit(options_of(ctx), call, wait=wait))


@exec_app.command("exec")
@takes_call()
def execute(ctx: typer.Context, call: Call) -> None:
    """Submit a function call, wait, and print what it returned, one output a line.

    Exit code 1 with its errors if it failed. Interrupting this does not stop the process: see `colonies process cancel`.
    """
    asyncio.run(_submit(options_of(ctx), call, wait=True))


async def _submit(options: Options, call: Call, *, wait: bool) -> None:
    spec = call.to_spec()
    async with connected(options) as here:
        # Names the missing colony before anything is sent.
        _ = here.colony
        process_id = await here.client.submit(spec)
        if not wait:
            if options.as_json:
                print_json({"process_id": process_id})
            else:
                say(process_id)
            return
        telling = asyncio.create_task(tell_why_it_waits(here, process_id))
        try:
            process = await wait_for_process(here, process_id)
        except asyncio.CancelledError:
            note(f"stopped waiting; process {process_id} goes on (end it: colonies process cancel {process_id})")
            raise
        finally:
            telling.cancel()
    outputs = [strict(value, f"outputs[{index}]") for index, value in enumerate(process.outputs)]
    if options.as_json:
        document: dict[str, Any] = plain(process)
        document["outputs"] = outputs
        print_json(document)
        return
    for each in outputs:
        say(data_text(each))
