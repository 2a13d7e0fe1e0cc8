"""Waiting for the end of a process or a workflow."""

import asyncio

from colonies.cli.connection import Connection
from colonies.cli.failure import CliError, ExitCode
from colonies.cli.output import note
from colonies.cli.views import FINAL_STATES, state_word
from colonies.client.calls import Backoff
from colonies.errors import ProcessFailedError, RpcError
from colonies.scheduler.v1 import explain_pb2, process_pb2
from colonies.scheduler.v1.process_pb2 import Process, Workflow

# What is done sooner needs no explanation.
TELL_AFTER_SECONDS = 5.0
# It will be taken in its turn.
_IN_ORDER = frozenset(
    {explain_pb2.WAIT_REASON_UNSPECIFIED, explain_pb2.WAIT_REASON_NOT_WAITING, explain_pb2.WAIT_REASON_QUEUED}
)


async def tell_why_it_waits(here: Connection, process_id: str) -> None:
    """Says, after a while, why nobody takes a process: whoever waits for it could not tell that from work that takes long."""
    await asyncio.sleep(TELL_AFTER_SECONDS)
    try:
        found = await here.client.explain(process_id)
    except RpcError as error:
        note(f"why process {process_id} is not over yet cannot be told: {error}")
        return
    if found.reason not in _IN_ORDER:
        note(f"process {process_id} waits: {found.summary} (colonies explain {process_id})")


async def wait_for_process(here: Connection, process_id: str) -> Process:
    """The process once it has succeeded.

    Raises:
        CliError: it ended in another way; the details are its errors.
    """
    backoff = Backoff()
    while True:
        async for _ in here.client.watch(process_id=process_id):
            pass  # the stream ends when the process is over
        process = await here.client.get_process(process_id)
        if process.state in FINAL_STATES:
            break
        await asyncio.sleep(backoff.next_seconds())  # the stream was ended early: watch again, but not in a tight loop
    if process.state == process_pb2.PROCESS_STATE_SUCCESSFUL:
        return process
    spec = process.spec
    what = f"node {spec.node_name!r} ({spec.func_name})" if spec.node_name else spec.func_name
    msg = f"{what}, process {process_id}: {state_word(process.state).lower()}"
    raise CliError(msg, ExitCode.FAILED, details=process.errors)


async def wait_for_workflow(here: Connection, workflow_id: str) -> Workflow:
    """The workflow once all of it has succeeded.

    Raises:
        CliError: a process in it failed or was cancelled; names the first, the details are its errors.
    """
    try:
        return await here.client.wait_workflow(workflow_id)
    except ProcessFailedError as error:
        what = f"node {error.node_name!r} ({error.func_name})" if error.node_name else error.func_name
        msg = f"workflow {workflow_id}: {what}, process {error.process_id}: {error.state.lower()}"
        raise CliError(msg, ExitCode.FAILED, details=error.messages) from error
