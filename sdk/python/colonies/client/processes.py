"""Methods about processes: submit, watch, wait, read, cancel."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import cached_property
from typing import Any

from colonies import values
from colonies.client.batches import CallBatcher
from colonies.client.calls import Backoff, Calls, in_time
from colonies.client.pages import every
from colonies.errors import ProcessFailedError
from colonies.function import Function
from colonies.moments import timestamp
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import FunctionSpec

SUBMITS_IN_CALL = 500
# A spec that is larger, which may be 4 MiB, has a call of its own.
BYTES_IN_CALL = 1 << 20

FINAL_STATES = frozenset({process.PROCESS_STATE_SUCCESSFUL, process.PROCESS_STATE_FAILED, process.PROCESS_STATE_CANCELLED})


def state_name(state: process.ProcessState.ValueType) -> str:
    """The word for a state, such as "SUCCESSFUL"."""
    return process.ProcessState.Name(state).removeprefix("PROCESS_STATE_")


def state_value(state: process.ProcessState.ValueType | str) -> process.ProcessState.ValueType:
    """The state of a word such as "running".

    Raises:
        ValueError: there is no such state.
    """
    if not isinstance(state, str):
        return state
    name = f"PROCESS_STATE_{state.upper()}"
    names = process.ProcessState.keys()
    if name not in names:
        known = ", ".join(key.removeprefix("PROCESS_STATE_").lower() for key in names[1:])
        msg = f"{state!r} is no process state; those are {known}"
        raise ValueError(msg)
    return process.ProcessState.Value(name)


def failure_of(ended: process.Process) -> ProcessFailedError:
    """The error that says how a process ended that did not succeed."""
    return ProcessFailedError(
        process_id=ended.process_id,
        node_name=ended.spec.node_name,
        func_name=ended.spec.func_name,
        state=state_name(ended.state),
        messages=ended.errors,
    )


def attempt_ref(process_id: str, attempt: int) -> scheduler.AttemptRef:
    """The name of an attempt."""
    return scheduler.AttemptRef(process_id=process_id, attempt=attempt)


class ProcessCalls(Calls):
    """What can be done with processes."""

    @cached_property
    def _submits(self) -> CallBatcher[FunctionSpec, str]:
        def weigh(spec: FunctionSpec) -> tuple[int, int]:
            return 1, spec.ByteSize()

        return CallBatcher(self._submit_batch, weigh, max_count=SUBMITS_IN_CALL, max_bytes=BYTES_IN_CALL, divide_if_full=True)

    async def submit(self, function: Function | FunctionSpec) -> str:
        """Submits one function; gives its process id. Committed when this returns.

        Submits that are made at the same time travel together, so `asyncio.gather` over many is fast. A full queue is waited
        for, up to `retry_for` seconds, like an outage.
        """
        return await self._submits.put(self._spec(function))

    async def submit_all(self, functions: Iterable[Function | FunctionSpec], *, request_id: str | None = None) -> Sequence[str]:
        """Submits 1 to 10 000 functions, all or none; gives their process ids in order. A full
        queue is waited for, as in `submit`.

        Args:
            functions: what to run.
            request_id: 1-128 ASCII characters; repeating one gives the first answer and enters nothing. Default: a
                new one.
        """
        return await self._enter([self._spec(function) for function in functions], request_id, wait_if_full=True)

    async def _submit_batch(self, specs: Sequence[FunctionSpec]) -> Sequence[str]:
        # What does not fit as a whole is for the batcher to divide.
        return await self._enter(specs, None, wait_if_full=len(specs) == 1)

    async def _enter(self, specs: Sequence[FunctionSpec], request_id: str | None, *, wait_if_full: bool) -> Sequence[str]:
        # One id for all tries of this submit: a try whose answer was lost is not doubled by the next.
        request = scheduler.SubmitProcessesRequest(
            colony_name=self.colony, request_id=request_id or str(uuid.uuid4()), specs=specs
        )
        return (await self.call(self.scheduler.SubmitProcesses, request, wait_if_full=wait_if_full)).process_ids

    def _spec(self, function: Function | FunctionSpec) -> FunctionSpec:
        return function.own_spec if isinstance(function, Function) else function

    async def get_process(self, process_id: str) -> process.Process:
        """One process, whole."""
        request = scheduler.GetProcessRequest(colony_name=self.colony, process_id=process_id)
        return (await self.call(self.scheduler.GetProcess, request)).process

    async def list_processes(
        self,
        *,
        states: Iterable[process.ProcessState.ValueType | str] = (),
        executor_type: str = "",
        label: str = "",
        initiator: str = "",
        workflow_id: str = "",
        executor_name: str = "",
        submitted_from: datetime | None = None,
        submitted_until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[process.Process]:
        """Processes, newest first, without their arguments, inputs and outputs. Filters that are not set pass everything."""
        request = scheduler.ListProcessesRequest(
            colony_name=self.colony,
            states=[state_value(state) for state in states],
            executor_type=executor_type,
            label=label,
            initiator=initiator,
            workflow_id=workflow_id,
            executor_name=executor_name,
            submitted_from=timestamp(submitted_from),
            submitted_until=timestamp(submitted_until),
        )

        async def page(cursor: str, size: int) -> tuple[Sequence[process.Process], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.scheduler.ListProcesses, request)
            return response.processes, response.next_cursor

        async for found in every(page, limit):
            yield found

    async def get_history(self, process_id: str) -> scheduler.GetProcessHistoryResponse:
        """Every attempt at a process, and every state change."""
        request = scheduler.GetProcessHistoryRequest(colony_name=self.colony, process_id=process_id)
        return await self.call(self.scheduler.GetProcessHistory, request)

    async def cancel(self, process_id: str) -> None:
        """Cancels a process and its descendants."""
        request = scheduler.CancelProcessRequest(colony_name=self.colony, process_id=process_id)
        await self.call(self.scheduler.CancelProcess, request)

    async def remove(self, process_id: str) -> None:
        """Removes a process in a final state, with its history, logs and attributes."""
        request = scheduler.RemoveProcessRequest(colony_name=self.colony, process_id=process_id)
        await self.call(self.scheduler.RemoveProcess, request, gone=scheduler.RemoveProcessResponse())

    async def set_output(self, process_id: str, attempt: int, outputs: Iterable[Any]) -> None:
        """Sets the outputs of the caller's running attempt."""
        request = scheduler.SetOutputRequest(
            colony_name=self.colony,
            attempt=attempt_ref(process_id, attempt),
            outputs=[values.encode(output) for output in outputs],
        )
        await self.call(self.scheduler.SetOutput, request)

    async def set_attributes(
        self,
        process_id: str,
        attempt: int,
        attributes: Mapping[str, str],
        kind: process.AttributeKind.ValueType = process.ATTRIBUTE_KIND_OUT,
    ) -> None:
        """Writes attributes of one kind to the process of the caller's running attempt."""
        request = scheduler.SetAttributesRequest(
            colony_name=self.colony,
            attempt=attempt_ref(process_id, attempt),
            attributes=[process.Attribute(kind=kind, key=key, value=value) for key, value in attributes.items()],
        )
        await self.call(self.scheduler.SetAttributes, request)

    async def list_attributes(self, process_id: str) -> Sequence[process.Attribute]:
        """The attributes of a process, ordered by kind and key; the environment of its spec is among them."""
        request = scheduler.ListAttributesRequest(colony_name=self.colony, process_id=process_id)
        return (await self.call(self.scheduler.ListAttributes, request)).attributes

    async def add_logs(
        self, process_id: str, attempt: int, lines: Iterable[str | process.LogLine], *, first_number: int = 0
    ) -> None:
        """Adds 1 to 1 000 lines to the log of the caller's running attempt.

        Args:
            process_id: whose log.
            attempt: number of the running attempt.
            lines: texts, or messages with times of their own.
            first_number: number of the first line among the attempt's lines, from 1; lines whose numbers are there already are
                passed over. 0 = not counted: a call that is repeated after an outage may add its lines twice.
        """
        request = scheduler.AddLogsRequest(
            colony_name=self.colony,
            attempt=attempt_ref(process_id, attempt),
            lines=[process.LogLine(message=line) if isinstance(line, str) else line for line in lines],
            first_number=first_number,
        )
        await self.call(self.scheduler.AddLogs, request)

    async def logs(
        self, process_id: str = "", *, executor_name: str = "", limit: int | None = None
    ) -> AsyncGenerator[process.LogEntry]:
        """The log lines of a process, or of an executor, oldest first.

        Raises:
            ValueError: neither was named, or both.
        """
        if bool(process_id) == bool(executor_name):
            msg = "logs() takes a process_id or an executor_name"
            raise ValueError(msg)
        request = scheduler.ListLogsRequest(colony_name=self.colony)
        if process_id:
            request.process_id = process_id
        else:
            request.executor_name = executor_name

        async def page(cursor: str, size: int) -> tuple[Sequence[process.LogEntry], str]:
            request.cursor, request.page_size = cursor, size
            response = await self.call(self.scheduler.ListLogs, request)
            return response.entries, response.next_cursor

        async for entry in every(page, limit):
            yield entry

    async def follow_logs(self, process_id: str, cursor: str = "") -> AsyncGenerator[process.LogEntry]:
        """The log lines of a process as they come, after those that are there; ends with the process.

        Outages are ridden out: no line is lost or repeated.

        Args:
            process_id: whose lines.
            cursor: of the last line seen; empty to begin with the first.
        """
        request = scheduler.FollowLogsRequest(colony_name=self.colony, process_id=process_id, cursor=cursor)
        async for response in self.stream(self.scheduler.FollowLogs, lambda: request):
            for entry in response.entries:
                request.cursor = entry.cursor
                yield entry

    async def watch(
        self, *, process_id: str = "", workflow_id: str = "", cursor: str = ""
    ) -> AsyncGenerator[process.ProcessEvent]:
        """The state changes of a process or a workflow as they come, after those that were made; ends when all is
        final.

        Outages are ridden out: no change is lost or repeated.

        Args:
            process_id: watch this process, or
            workflow_id: all processes of this workflow.
            cursor: of the last event seen; empty to begin with the first.

        Raises:
            ValueError: neither was named, or both.
        """
        if bool(process_id) == bool(workflow_id):
            msg = "watch() takes a process_id or a workflow_id"
            raise ValueError(msg)
        request = scheduler.WatchProcessesRequest(colony_name=self.colony, cursor=cursor)
        if process_id:
            request.process_id = process_id
        else:
            request.workflow_id = workflow_id
        async for response in self.stream(self.scheduler.WatchProcesses, lambda: request):
            for event in response.events:
                request.cursor = event.cursor
                yield event

    async def watch_colony(
        self,
        *,
        executor_types: Iterable[str] = (),
        labels: Iterable[str] = (),
        states: Iterable[process.ProcessState.ValueType | str] = (),
        cursor: str = "",
    ) -> AsyncGenerator[process.ProcessEvent]:
        """The state changes in the whole colony as they come, beginning with the next; does not end.

        Outages are ridden out: no change is lost or repeated. What is not set lets everything through.

        Args:
            executor_types: of processes for any of these types of executors.
            labels: of processes with exactly one of these labels.
            states: into any of these states.
            cursor: of the last event seen; empty to begin now.
        """
        wanted = scheduler.ColonyFilter(
            executor_types=executor_types, labels=labels, states=[state_value(state) for state in states]
        )
        request = scheduler.WatchProcessesRequest(colony_name=self.colony, cursor=cursor, colony=wanted)
        async for response in self.stream(self.scheduler.WatchProcesses, lambda: request):
            for event in response.events:
                request.cursor = event.cursor
                yield event
            # Further than the last event, if what came after it is not wanted: a stream that breaks need not read that again.
            request.cursor = response.cursor or request.cursor

    async def wait(
        self,
        process_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit that the caller sets, with a text of its own
    ) -> list[Any]:
        """Waits until a process is over; gives its outputs as Python values.

        Args:
            process_id: which.
            timeout: seconds; None = for ever.

        Raises:
            ProcessFailedError: it failed or was cancelled; the message carries what was reported.
            TimeoutError: it was not over in time. It goes on.
        """
        backoff = Backoff()
        async with in_time(timeout, f"process {process_id}"):
            while True:
                async with aclosing(self.watch(process_id=process_id)) as events:
                    async for event in events:
                        if event.transition.to_state in FINAL_STATES:
                            break
                ended = await self.get_process(process_id)
                if ended.state in FINAL_STATES:
                    break
                await asyncio.sleep(backoff.next_seconds())  # the stream was ended early; watch again
        if ended.state != process.PROCESS_STATE_SUCCESSFUL:
            raise failure_of(ended)
        return values.decode_all(ended.outputs)
