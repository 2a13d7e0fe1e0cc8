"""The steps of a case in which the kit itself acts: as the colony's owner and user, as a rival executor, on the servers."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from colonies.errors import RpcError
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from tests.conformance.kit.cases import Step
from tests.conformance.kit.matching import fill, match, matches
from tests.conformance.kit.messages import normal, outputs_of, request_message, spec_of, value_of
from tests.conformance.kit.play import Play

LOOK_SECONDS = 0.1
RIVAL_WAIT_MS = 2_000
_STUBS = {"AuthService": "auth", "RegistryService": "registry", "SchedulerService": "scheduler"}


async def enrol(play: Play, role: str = "executor") -> None:
    """Registers an executor with the key of the driver's (or the rival's), and approves it; the driver finds it so."""
    async with play.acting(role) as client:
        name = play.scope["name"] if role == "executor" else f"{play.scope['name']}-{role}"
        registered = await client.register_executor(name, [play.scope["type"]])
    await play.colony.owner.approve_executor(registered.identity)


async def _submit(play: Play, step: Step) -> None:
    given = fill(step["submit"], play.scope)
    shorts = given if isinstance(given, list) else [given]
    specs = [spec_of(short, play.scope["type"]) for short in shorts]
    client = play.colony.user
    request = scheduler.SubmitProcessesRequest(colony_name=client.colony, request_id=str(uuid.uuid4()), specs=specs)
    ids = list((await client.call(client.scheduler.SubmitProcesses, request)).process_ids)
    play.scope[step.get("keep", "p")] = ids if isinstance(given, list) else ids[0]


async def _workflow(play: Play, step: Step) -> None:
    nodes = [spec_of(short, play.scope["type"]) for short in fill(step["workflow"], play.scope)]
    client = play.colony.user
    request = scheduler.SubmitWorkflowRequest(
        colony_name=client.colony, request_id=str(uuid.uuid4()), workflow=WorkflowSpec(nodes=nodes)
    )
    response = await client.call(client.scheduler.SubmitWorkflow, request)
    ids = dict(zip((node.node_name for node in nodes), response.process_ids, strict=True))
    play.scope[step.get("keep", "w")] = {"workflow_id": response.workflow_id, **ids}


async def _delivered(play: Play, _step: Step) -> None:
    """Whatever was assigned before has arrived, and the scheduler knows it: it takes back what it was about to send when a stream
    ends. What comes later on the same stream tells, so the executor must have room for one more.
    """
    await _submit(play, {"submit": {"call": "echo", "args": [0]}, "keep": "delivered"})
    await _until_one(play, {"state": "SUCCESSFUL"}, play.scope["delivered"])


async def _process(play: Play, process_id: str) -> process_pb2.Process:
    client = play.colony.user
    request = scheduler.GetProcessRequest(colony_name=client.colony, process_id=process_id)
    return (await client.call(client.scheduler.GetProcess, request)).process


async def _history(play: Play, process_id: str) -> scheduler.GetProcessHistoryResponse:
    client = play.colony.user
    request = scheduler.GetProcessHistoryRequest(colony_name=client.colony, process_id=process_id)
    return await client.call(client.scheduler.GetProcessHistory, request)


async def _outcomes(play: Play, process_id: str) -> list[str]:
    """How its attempts ended, without those that may never have arrived: an outage makes some, and they count for nothing."""
    names = [process_pb2.AttemptOutcome.Name(each.outcome) for each in (await _history(play, process_id)).attempts]
    ends = [name.removeprefix("ATTEMPT_OUTCOME_") for name in names]
    return [end for end in ends if end != "UNDELIVERED"]


async def _until(play: Play, step: Step) -> None:
    wanted = fill({"process": step["until"]["process"]}, play.scope)["process"]
    for process_id in wanted if isinstance(wanted, list) else [wanted]:
        await _until_one(play, step["until"], process_id)


async def _until_one(play: Play, wanted: dict[str, Any], process_id: str) -> None:
    state = wanted["state"]
    final = {"SUCCESSFUL", "FAILED", "CANCELLED"}
    while True:
        process = await _process(play, process_id)
        now = process_pb2.ProcessState.Name(process.state).removeprefix("PROCESS_STATE_")
        if now == state:
            break
        play.seen = f"{now}, attempt {process.attempt} by {process.executor_name or 'nobody'}: {'; '.join(process.errors)}"
        if now in final:
            match(state, f"{now} ({'; '.join(process.errors)})", play.scope, "the process's state")
        await asyncio.sleep(LOOK_SECONDS)
    if "outputs" in wanted:
        match(wanted["outputs"], outputs_of(process.outputs), play.scope, "outputs")
    if "errors" in wanted:
        match(wanted["errors"], list(process.errors), play.scope, "errors")
    if "is" in wanted:
        match(wanted["is"], normal(process), play.scope, "process")
    if "outcomes" in wanted:
        match(wanted["outcomes"], await _outcomes(play, process_id), play.scope, "outcomes")


async def _referee(play: Play, step: Step) -> None:
    given = fill(step["referee"], play.scope)
    service, _, name = given["method"].rpartition("/")
    async with play.acting(given.get("as", "user")) as client:
        stub = getattr(getattr(client, _STUBS[service.rpartition(".")[2]]), name)
        try:
            response = await client.call(stub, request_message(given["method"], given["request"]))
            answer = {"response": normal(response)}
        except RpcError as error:
            answer = {"error": {"code": error.code.name, "reason": error.reason, "metadata": error.metadata}}
    match(step.get("answer", {"response": {"$any": True}}), answer, play.scope)


async def _rival(play: Play, step: Step) -> None:
    """Another executor of the same type takes a process and closes it."""
    wanted = fill(step["rival"], play.scope)
    if "rival_seed" not in play.scope:
        await enrol(play, "rival")
    async with play.acting("rival") as client:
        request = scheduler.AssignProcessesRequest(colony_name=client.colony, max_processes=1, wait_ms=RIVAL_WAIT_MS)
        assignment = None
        while assignment is None:
            response = await client.call(client.scheduler.AssignProcesses, request)
            assignment = next((one for one in response.assignments if one.process_id == wanted["process"]), None)
        outputs = [value_of(each) for each in wanted["outputs"]]
        close = scheduler.Close(
            attempt=scheduler.AttemptRef(process_id=assignment.process_id, attempt=assignment.attempt),
            success=scheduler.Close.Success(outputs=outputs),
        )
        closing = scheduler.CloseProcessesRequest(colony_name=client.colony, closes=[close])
        await client.call(client.scheduler.CloseProcesses, closing)
        # What it will not take again is the driver's to run.
        await play.colony.owner.remove_executor(client.key.identity)
    del play.scope["rival_seed"]


async def _decide(play: Play, step: Step) -> None:
    """Approves or rejects the driver's executor, once it has registered."""
    owner = play.colony.owner
    while not any([one.name == play.scope["name"] async for one in owner.list_executors()]):
        await asyncio.sleep(LOOK_SECONDS)
    decide = owner.approve_executor if step["decide"] == "approve" else owner.reject_executor
    await decide(play.scope["identity"])


async def _offered(play: Play, step: Step) -> None:
    """What the executor says of itself, to the colony."""
    owner, name = play.colony.owner, play.scope["name"]
    while True:
        found = [one async for one in owner.list_executors() if one.name == name]
        functions = [entry.function.name async for entry in owner.list_functions(executor_name=name)]
        told = {"executor": normal(found[0]) if found else {}, "functions": sorted(functions)}
        if matches(step["offered"], told, play.scope):
            return
        play.seen = str(told)
        await asyncio.sleep(LOOK_SECONDS)


async def _flush(play: Play, _step: Step) -> None:
    await play.flush()


STEPS: Mapping[str, Callable[[Play, Step], Awaitable[None]]] = {
    "submit": _submit,
    "workflow": _workflow,
    "until": _until,
    "delivered": _delivered,
    "referee": _referee,
    "rival": _rival,
    "decide": _decide,
    "offered": _offered,
    "flush_redis": _flush,
}
