"""`colonies executor`: who may pull work. Approving and rejecting is for the colony's owner."""

import asyncio
from typing import Annotated, Any

import typer

from colonies.cli.arguments import choice, is_identity
from colonies.cli.connection import Connection, Role, connected
from colonies.cli.failure import CliError, ExitCode
from colonies.cli.moments import ago, local_if_set
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.views import coloured, requirement_text
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.registry.v1.registry_service_pb2 import Executor, ExecutorState

app = group("executor", "Executors: members of a colony that pull work. A new one is PENDING until the owner approves it.")

NameOrIdentity = Annotated[
    str, typer.Argument(metavar="NAME|IDENTITY", help="An executor's name, or its identity (64 hex digits).")
]

_STATES = ("pending", "approved", "rejected")


@app.command("list")
def list_executors(
    ctx: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="pending, approved or rejected; may be repeated.")] = None,
    executor_type: Annotated[str, typer.Option("--type", help="Only executors of this type.")] = "",
    limit: Limit = DEFAULT_LIMIT,
) -> None:
    """List the colony's executors."""
    options = options_of(ctx)
    states = [_state(each) for each in state or ()]

    async def call() -> list[Executor]:
        async with connected(options) as here:
            request = registry.ListExecutorsRequest(colony_name=here.colony, states=states, executor_type=executor_type)
            return await collected(here, here.registry.ListExecutors, request, "executors", limit=limit)

    executors = asyncio.run(call())
    if options.as_json:
        print_json([plain(executor) for executor in executors])
        return
    rows = [
        (
            each.name,
            coloured(_state_word(each)),
            ", ".join(each.executor_types),
            each.location_name,
            ago(each, "last_heard_time"),
            each.identity,
        )
        for each in executors
    ]
    print_table(("Executor", "State", "Types", "Location", "Heard", "Identity"), rows, empty="no executors")


@app.command("get")
def get(ctx: typer.Context, executor: NameOrIdentity) -> None:
    """Show one executor: an approved one by name, any one by identity."""
    options = options_of(ctx)

    async def call() -> Executor:
        async with connected(options) as here:
            who: dict[str, Any] = {"identity" if is_identity(executor) else "name": executor}
            request = registry.GetExecutorRequest(colony_name=here.colony, **who)
            found: Executor = (await here.call(here.registry.GetExecutor, request)).executor
            return found

    _show(options, asyncio.run(call()))


@app.command("approve")
def approve(ctx: typer.Context, executor: NameOrIdentity) -> None:
    """Let an executor in.

    By name only if exactly one PENDING executor has it, for anybody may register under any name: compare the identity that
    is shown with the one that the executor printed when it started.
    """
    options = options_of(ctx)

    async def call() -> Executor:
        async with connected(options, Role.COLONY_OWNER) as here:
            identity = await _identity(here, executor, (registry.EXECUTOR_STATE_PENDING,), "approve")
            request = registry.ApproveExecutorRequest(colony_name=here.colony, identity=identity)
            approved: Executor = (await here.call(here.registry.ApproveExecutor, request)).executor
            return approved

    _changed(options, asyncio.run(call()))


@app.command("reject")
def reject(ctx: typer.Context, executor: NameOrIdentity) -> None:
    """Keep an executor out, or throw it out."""
    options = options_of(ctx)

    async def call() -> Executor:
        async with connected(options, Role.COLONY_OWNER) as here:
            states = (registry.EXECUTOR_STATE_PENDING, registry.EXECUTOR_STATE_APPROVED)
            identity = await _identity(here, executor, states, "reject")
            request = registry.RejectExecutorRequest(colony_name=here.colony, identity=identity)
            rejected: Executor = (await here.call(here.registry.RejectExecutor, request)).executor
            return rejected

    _changed(options, asyncio.run(call()))


@app.command("remove")
def remove(ctx: typer.Context, executor: NameOrIdentity) -> None:
    """Remove an executor and the functions it announced."""
    options = options_of(ctx)

    async def call() -> str:
        async with connected(options, Role.COLONY_OWNER) as here:
            identity = await _identity(here, executor, (), "remove")
            request = registry.RemoveExecutorRequest(colony_name=here.colony, identity=identity)
            await here.call(here.registry.RemoveExecutor, request, gone=registry.RemoveExecutorResponse())
            return identity

    identity = asyncio.run(call())
    if options.as_json:
        print_json({"removed": identity})
    else:
        say(f"removed executor {executor}")


async def _identity(here: Connection, text: str, states: tuple[ExecutorState.ValueType, ...], verb: str) -> str:
    """The identity meant by a name or an identity.

    Raises:
        CliError: no executor has the name in one of the states (NOT_FOUND), or several have (CONFLICT).
    """
    if is_identity(text):
        return text
    request = registry.ListExecutorsRequest(colony_name=here.colony, states=states)
    everyone: list[Executor] = await collected(here, here.registry.ListExecutors, request, "executors")
    named = [each for each in everyone if each.name == text]
    match named:
        case [one]:
            return one.identity
        case []:
            words = " or ".join(_word(state) for state in states)
            msg = f"no {words + ' ' if words else ''}executor is called {text!r}"
            raise CliError(msg, ExitCode.NOT_FOUND)
    msg = f"{len(named)} executors are called {text!r}; {verb} one by its identity:"
    details = [f"{each.identity}  {_word(each.state)}, registered {local_if_set(each, 'registered_time')}" for each in named]
    raise CliError(msg, ExitCode.CONFLICT, details=details)


def _state(text: str) -> ExecutorState.ValueType:
    return ExecutorState.Value(f"EXECUTOR_STATE_{choice(text, _STATES, '--state').upper()}")


def _word(state: int) -> str:
    return ExecutorState.Name(ExecutorState.ValueType(state)).removeprefix("EXECUTOR_STATE_")


def _state_word(executor: Executor) -> str:
    return _word(executor.state).capitalize()


def _changed(options: Options, executor: Executor) -> None:
    if options.as_json:
        print_json(plain(executor))
    else:
        say(f"executor {executor.name} is {_word(executor.state)}; its identity: {executor.identity}")


def _show(options: Options, executor: Executor) -> None:
    if options.as_json:
        print_json(plain(executor))
        return
    offer = executor.capabilities
    gpus = [f"{gpu.count} x {gpu.name}" + (f" ({gpu.memory})" if gpu.memory else "") for gpu in offer.gpus]
    print_fields(
        [
            ("Executor", executor.name),
            ("Identity", executor.identity),
            ("State", coloured(_state_word(executor))),
            ("Types", ", ".join(executor.executor_types)),
            ("Location", executor.location_name),
            ("Processors", offer.cpu),
            ("Memory", offer.memory),
            ("Storage", offer.storage),
            ("Accelerators", ", ".join(gpus)),
            ("Nodes", str(offer.nodes or "")),
            ("Processes at once", str(offer.processes or "")),
            ("Labels", ", ".join(f"{key}={offer.labels[key]}" for key in sorted(offer.labels))),
            ("Takes only", ", ".join(requirement_text(each) for each in offer.accepts)),
            ("Registered", local_if_set(executor, "registered_time")),
            ("Heard", ago(executor, "last_heard_time")),
        ]
    )
