"""What a function can know of its process, and say about it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from colonies import values
from colonies.executor.channels import ContextChannel
from colonies.executor.children import Children
from colonies.executor.outbox import Outputs, Report
from colonies.executor.text import bounded
from colonies.function import Function
from colonies.scheduler.v1.process_pb2 import Attribute as AttributeMessage
from colonies.scheduler.v1.process_pb2 import AttributeKind, LogLine
from colonies.scheduler.v1.scheduler_service_pb2 import Assignment
from colonies.scheduler.v1.spec_pb2 import FunctionSpec

MAX_TEXT_BYTES = 64 * 1024

log = logging.getLogger("colonies.executor")


class Context:
    """The process that a function runs for. A parameter annotated with this type is given one.

        @executor.function
        def train(ctx: Context, epochs: int) -> float: ...

    `cancelled` is set when the result is no longer wanted, `cancelled_because` says why: a function in a thread should look at
    it now and then and return; an async function is cancelled besides. All methods return at once, in threads and in coroutines
    alike; what they report is sent in order, and before the process is closed.
    """

    def __init__(
        self,
        *,
        process_id: str = "",
        attempt: int = 1,
        workflow_id: str = "",
        node_name: str = "",
        label: str = "",
        env: Mapping[str, str] | None = None,
        deadline: datetime | None = None,
        report: Callable[[Report], None] | None = None,
        channels: Iterable[str] = (),
        open_channel: Callable[[str], ContextChannel] | None = None,
        children: Children | None = None,
    ) -> None:
        """Executors make contexts; the author of a function may, to test it. It sends nothing without the last two."""
        self.process_id = process_id
        # From 1; higher when the process has been tried before.
        self.attempt = attempt
        # Empty outside of workflows, as is `node_name`.
        self.workflow_id = workflow_id
        self.node_name = node_name
        self.label = label
        self.env: Mapping[str, str] = MappingProxyType(dict(env or {}))
        # When this attempt must be over, by the server's clock; None for no limit.
        self.deadline = deadline
        self.cancelled = threading.Event()
        self.cancelled_because = ""
        # Whether `set_output` was called.
        self.has_set_output = False
        # Names of the channels that the process was submitted with.
        self.channels = tuple(channels)
        self._report = report or (lambda _report: None)
        self._open_channel = open_channel or (lambda name: ContextChannel(name, self._report))
        self._children = children

    @classmethod
    def of(
        cls,
        assignment: Assignment,
        report: Callable[[Report], None],
        open_channel: Callable[[str], ContextChannel] | None = None,
        children: Children | None = None,
    ) -> "Context":
        """The context of an attempt."""
        spec = assignment.spec
        deadline = assignment.exec_deadline.ToDatetime(UTC) if assignment.HasField("exec_deadline") else None
        return cls(
            process_id=assignment.process_id,
            attempt=assignment.attempt,
            workflow_id=assignment.workflow_id,
            node_name=spec.node_name,
            label=spec.label,
            env=spec.env,
            deadline=deadline,
            report=report,
            channels=spec.channels,
            open_channel=open_channel,
            children=children,
        )

    def channel(self, name: str) -> ContextChannel:
        """One of the channels of the process: messages to and from whoever submitted it.

        Raises:
            ValueError: the process has no such channel.
        """
        if name not in self.channels:
            msg = f"this process has no channel {name!r}; it has: {', '.join(self.channels) or 'none'}"
            raise ValueError(msg)
        return self._open_channel(name)

    def log(self, message: object) -> None:
        """Adds a line, with the time of now, to the log of the process. At most 64 KiB; the rest is cut."""
        now_ns = time.time_ns()
        moment = Timestamp(seconds=now_ns // 1_000_000_000, nanos=now_ns % 1_000_000_000)
        self._report(LogLine(time=moment, message=bounded(str(message), MAX_TEXT_BYTES)))

    def set_output(self, *outputs: Any) -> None:
        """Sets the outputs before the end; they stay if the function returns None, else its result replaces them.

        Raises:
            ValueEncodingError: an output cannot be sent.
        """
        self._report(Outputs([values.encode(output) for output in outputs]))
        self.has_set_output = True

    def set_attributes(self, attributes: Mapping[str, object], kind: str = "out") -> None:
        """Writes attributes to the process; a key that exists gets the new value.

        Args:
            attributes: keys of 1-256 bytes; values of at most 64 KiB of text.
            kind: "in", "out", "err" or "env".

        Raises:
            ValueError: there is no such kind.
        """
        name = f"ATTRIBUTE_KIND_{kind.upper()}"
        if kind.upper() not in {"IN", "OUT", "ERR", "ENV"}:
            msg = f"{kind!r} is no kind of attribute; those are in, out, err and env"
            raise ValueError(msg)
        for key, value in attributes.items():
            text = bounded(str(value), MAX_TEXT_BYTES)
            self._report(AttributeMessage(kind=AttributeKind.Value(name), key=key, value=text))

    def add_children(self, nodes: Iterable[Function | FunctionSpec], *, insert: bool = False) -> Sequence[str]:
        """Adds processes to the workflow of this one, all or none; gives their ids in the order of `nodes`. Committed when this
        returns. For functions that are not async; async ones use `aadd_children`.

        They wait for this process and get its outputs, as any child does; edges may be drawn among them.

        A process that is tried again adds its children again: name them, and the second time is refused.

        Args:
            nodes: what to run. A Function without a name gets one that is unique in the workflow.
            insert: put them between this process and the children that it has now, which then wait for the new ones.

        Raises:
            WorkflowError: they do not hang together.
            FailedPreconditionError: this process is in no workflow, or is not this executor's any more.
            RpcError: the server refused them.
            RuntimeError: this runs in an event loop.
        """
        return self._children.add_from_thread(nodes, insert=insert) if self._children is not None else []

    async def aadd_children(self, nodes: Iterable[Function | FunctionSpec], *, insert: bool = False) -> Sequence[str]:
        """`add_children` for async functions."""
        return await self._children.add(nodes, insert=insert) if self._children is not None else []
