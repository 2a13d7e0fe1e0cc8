"""`colonies submit` and `colonies exec`: one function call, from the shell."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from colonies.cli import arguments
from colonies.cli.connection import connected
from colonies.cli.options import Options, options_of, single
from colonies.cli.output import note, print_json, say
from colonies.cli.plain import plain, strict
from colonies.cli.views import data_text
from colonies.cli.waiting import wait_for_process
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec

submit_app = single("submit")
exec_app = single("exec")

_MAX_PRIORITY = 50_000
_MAX_RETRIES = 1_000_000

Func = Annotated[str, typer.Argument(metavar="FUNCTION", help="The function to call.")]
Args = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARG",
        help="Its arguments: JSON where they are valid JSON, else text. Put -- before one that begins with a dash.",
        show_default=False,
    ),
]
Type = Annotated[str, typer.Option("--type", help="The type of executor to run it.")]
Kwarg = Annotated[list[str] | None, typer.Option(metavar="K=V", help="A keyword argument; V as ARG. May be repeated.")]
Priority = Annotated[int, typer.Option(min=-_MAX_PRIORITY, max=_MAX_PRIORITY, help="Days of head start over other processes.")]
MaxExec = Annotated[str, typer.Option(help="How long one attempt may take: 200, 10m, 2h. Default: no limit.")]
MaxWait = Annotated[str, typer.Option(help="How long it may wait in the queue. Default: for ever.")]
MaxRetries = Annotated[int, typer.Option(min=-1, max=_MAX_RETRIES, help="How often it may go back to the queue; -1 for ever.")]
Label = Annotated[str, typer.Option(help="A text to find it by.")]
Executors = Annotated[list[str] | None, typer.Option("--executor", help="Only this executor. May be repeated.")]
Location = Annotated[str, typer.Option(help="Only executors at this location.")]
Env = Annotated[list[str] | None, typer.Option(metavar="K=V", help="An environment variable. May be repeated.")]

DEFAULT_TYPE = "edge"


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it stands on the command line."""

    func: str
    args: list[str] = field(default_factory=list)
    kwargs: list[str] = field(default_factory=list)
    executor_type: str = DEFAULT_TYPE
    priority: int = 0
    max_exec_time: str = ""
    max_wait_time: str = ""
    max_retries: int = 0
    label: str = ""
    executors: list[str] = field(default_factory=list)
    location: str = ""
    env: list[str] = field(default_factory=list)

    def to_spec(self) -> FunctionSpec:
        """What is submitted.

        Raises:
            CliError: an argument cannot be used; names it.
        """
        kwargs = arguments.pairs(self.kwargs, "--kwarg")
        return FunctionSpec(
            func_name=self.func,
            args=[arguments.value(text, f"argument {index + 1}") for index, text in enumerate(self.args)],
            kwargs={key: arguments.value(text, f"--kwarg {key}") for key, text in kwargs.items()},
            priority=self.priority,
            max_exec_time_ms=arguments.duration_ms(self.max_exec_time, "--max-exec-time") if self.max_exec_time else 0,
            max_wait_time_ms=arguments.duration_ms(self.max_wait_time, "--max-wait-time") if self.max_wait_time else 0,
            max_retries=self.max_retries,
            label=self.label,
            env=arguments.pairs(self.env, "--env"),
            conditions=Conditions(executor_type=self.executor_type, executor_names=self.executors, location_name=self.location),
        )


@submit_app.command("submit")
def submit(
    ctx: typer.Context,
    func: Func,
    args: Args = None,
    executor_type: Type = DEFAULT_TYPE,
    kwarg: Kwarg = None,
    priority: Priority = 0,
    max_exec_time: MaxExec = "",
    max_wait_time: MaxWait = "",
    max_retries: MaxRetries = 0,
    label: Label = "",
    executor: Executors = None,
    location: Location = "",
    env: Env = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is over, and print what it returned.")] = False,
) -> None:
    """Submit a function call and print its process id. It is committed when this returns.

    With --wait: print what it returned, one output a line; exit code 1 with its errors if it failed.
    """
    call = Call(
        func=func,
        args=args or [],
        kwargs=kwarg or [],
        executor_type=executor_type,
        priority=priority,
        max_exec_time=max_exec_time,
        max_wait_time=max_wait_time,
        max_retries=max_retries,
        label=label,
        executors=executor or [],
        location=location,
        env=env or [],
    )
    asyncio.run(_submit(options_of(ctx), call, wait=wait))


@exec_app.command("exec")
def execute(
    ctx: typer.Context,
    func: Func,
    args: Args = None,
    executor_type: Type = DEFAULT_TYPE,
    kwarg: Kwarg = None,
    priority: Priority = 0,
    max_exec_time: MaxExec = "",
    max_wait_time: MaxWait = "",
    max_retries: MaxRetries = 0,
    label: Label = "",
    executor: Executors = None,
    location: Location = "",
    env: Env = None,
) -> None:
    """Submit a function call, wait, and print what it returned, one output a line.

    Exit code 1 with its errors if it failed. Interrupting this does not stop the process: see `colonies process cancel`.
    """
    call = Call(
        func=func,
        args=args or [],
        kwargs=kwarg or [],
        executor_type=executor_type,
        priority=priority,
        max_exec_time=max_exec_time,
        max_wait_time=max_wait_time,
        max_retries=max_retries,
        label=label,
        executors=executor or [],
        location=location,
        env=env or [],
    )
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
        try:
            process = await wait_for_process(here, process_id)
        except asyncio.CancelledError:
            note(f"stopped waiting; process {process_id} goes on (end it: colonies process cancel {process_id})")
            raise
    outputs = [strict(value, f"outputs[{index}]") for index, value in enumerate(process.outputs)]
    if options.as_json:
        document: dict[str, Any] = plain(process)
        document["outputs"] = outputs
        print_json(document)
        return
    for each in outputs:
        say(data_text(each))
