"""A function call as it stands on the command line: the options of every command that takes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from colonies.cli import arguments
from colonies.cli.failure import usage
from colonies.cli.spread import spread
from colonies.errors import WorkflowError
from colonies.labels import required
from colonies.retries import backoff_message
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, Gpu

_MAX_PRIORITY = 50_000
_MAX_RETRIES = 1_000_000
_MAX_COUNT = 1_000_000

Texts = list[str] | None


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it stands on the command line."""

    func: Annotated[str, typer.Argument(metavar="FUNCTION", help="The function to call.")]
    args: Annotated[
        Texts,
        typer.Argument(
            metavar="ARG",
            help="Its arguments: JSON where they are valid JSON, else text. Put -- before one that begins with a dash.",
            show_default=False,
        ),
    ] = None
    executor_type: Annotated[str, typer.Option("--type", help="The type of executor to run it.")] = "edge"
    kwarg: Annotated[Texts, typer.Option(metavar="K=V", help="A keyword argument; V as ARG. May be repeated.")] = None
    priority: Annotated[
        int, typer.Option(min=-_MAX_PRIORITY, max=_MAX_PRIORITY, help="Days of head start over other processes.")
    ] = 0
    max_exec_time: Annotated[str, typer.Option(help="How long one attempt may take: 200, 10m, 2h. Default: no limit.")] = ""
    max_wait_time: Annotated[str, typer.Option(help="How long it may wait in the queue. Default: for ever.")] = ""
    max_retries: Annotated[
        int, typer.Option(min=-1, max=_MAX_RETRIES, help="How often it may go back to the queue; -1 for ever.")
    ] = 0
    backoff: Annotated[
        str,
        typer.Option(
            metavar="FIRST[,K=V]",
            help="How long to wait before the first retry; then factor=, longest=, jitter=: 1s,factor=3,longest=10m.",
        ),
    ] = ""
    label: Annotated[str, typer.Option(help="A text to find it by.")] = ""
    labels: Annotated[
        Texts, typer.Option(metavar="K=V", help="A label that executors may choose their work by. May be repeated.")
    ] = None
    executor: Annotated[Texts, typer.Option(help="Only this executor. May be repeated.")] = None
    location: Annotated[str, typer.Option(help="Only executors at this location.")] = ""
    require: Annotated[
        Texts,
        typer.Option(
            metavar="K[=V]", help="Only executors with this label. May be repeated: with the same K, any of the values will do."
        ),
    ] = None
    cpu: Annotated[str, typer.Option(help="Processor need: 1000m, or cores.")] = ""
    memory: Annotated[str, typer.Option(help="Memory need: 10Gi.")] = ""
    storage: Annotated[str, typer.Option(help="Storage need: 1Ti.")] = ""
    gpu: Annotated[str, typer.Option(metavar="[NAME:]COUNT", help="Accelerators: 2, or a100:2.")] = ""
    gpu_memory: Annotated[str, typer.Option(help="Memory that each accelerator has at least: 80Gi.")] = ""
    nodes: Annotated[int, typer.Option(min=0, max=_MAX_COUNT, help="Nodes of a batch system.")] = 0
    processes: Annotated[int, typer.Option(min=0, max=_MAX_COUNT, help="Processes in all, for batch systems.")] = 0
    processes_per_node: Annotated[int, typer.Option(min=0, max=_MAX_COUNT, help="Processes on each node.")] = 0
    wall_time: Annotated[str, typer.Option(help="How long a batch system should reserve.")] = ""
    env: Annotated[Texts, typer.Option(metavar="K=V", help="An environment variable. May be repeated.")] = None

    def to_spec(self) -> FunctionSpec:
        """What is submitted.

        Raises:
            CliError: an argument cannot be used; names it.
        """
        kwargs = arguments.pairs(self.kwarg or (), "--kwarg")
        spec = FunctionSpec(
            func_name=self.func,
            args=[arguments.value(text, f"argument {index + 1}") for index, text in enumerate(self.args or ())],
            kwargs={key: arguments.value(text, f"--kwarg {key}") for key, text in kwargs.items()},
            priority=self.priority,
            max_exec_time_ms=_duration_ms(self.max_exec_time, "--max-exec-time"),
            max_wait_time_ms=_duration_ms(self.max_wait_time, "--max-wait-time"),
            max_retries=self.max_retries,
            label=self.label,
            labels=arguments.pairs(self.labels or (), "--labels"),
            env=arguments.pairs(self.env or (), "--env"),
            conditions=self._conditions(),
        )
        if self.backoff:
            try:
                spec.backoff.MergeFrom(backoff_message(_backoff(self.backoff), "--backoff"))
            except WorkflowError as error:
                raise usage(str(error)) from error
        return spec

    def _conditions(self) -> Conditions:
        return Conditions(
            executor_type=self.executor_type,
            executor_names=self.executor,
            location_name=self.location,
            labels=required(arguments.requirements(self.require or (), "--require"), "--require"),
            cpu=self.cpu,
            memory=self.memory,
            storage=self.storage,
            gpu=self._gpu(),
            nodes=self.nodes,
            processes=self.processes,
            processes_per_node=self.processes_per_node,
            wall_time_ms=_duration_ms(self.wall_time, "--wall-time"),
        )

    def _gpu(self) -> Gpu | None:
        if not self.gpu and not self.gpu_memory:
            return None
        name, _, count = self.gpu.rpartition(":")
        if not self.gpu:
            count = "1"
        if not count.isdecimal() or not 1 <= int(count[:10]) <= _MAX_COUNT:
            msg = f"--gpu: {self.gpu!r} is not of the form COUNT or NAME:COUNT"
            raise usage(msg)
        return Gpu(name=name, memory=self.gpu_memory, count=int(count))


def _duration_ms(text: str, name: str) -> int:
    return arguments.duration_ms(text, name) if text else 0


def _backoff(text: str) -> Mapping[str, Any]:
    first, *rest = text.split(",")
    parts: dict[str, Any] = {"first": arguments.duration_ms(first, "--backoff") / 1000}
    for key, part in arguments.pairs(rest, "--backoff").items():
        if key == "longest":
            parts[key] = arguments.duration_ms(part, f"--backoff: {key}") / 1000
            continue
        try:
            parts[key] = float(part)
        except ValueError as error:
            msg = f"--backoff: {key} is {part!r}, which is no number"
            raise usage(msg) from error
    return parts


def takes_call(func: Any = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command all the options of a call, and the Call itself as its parameter `call`.

    `func`, if given, is how the command describes its first argument instead.
    """
    return spread(Call, "call", {} if func is None else {"func": func})
