"""A server in the test's process, with a real port, that keeps the promises of the protos as far as these tests look.

It checks the signature of every call and keeps processes in dictionaries. `refuse` makes the next calls of a method fail.
"""

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.any_pb2 import Any as AnyMessage

from colonies import errors, signing
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer, add_RegistryServiceServicer_to_server
from colonies.scheduler.v1 import channel_pb2 as channel
from colonies.scheduler.v1 import explain_pb2 as explain
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1 import spec_pb2 as spec
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from colonies.status.v1 import status_pb2

CLUSTER = "test-cluster"
COLONY = "dev"


def refusal(
    code: grpc.StatusCode, reason: str = "TEST", retry_ms: int = 0, **metadata: str
) -> Callable[[Any], Awaitable[None]]:
    """An error as the services send it."""
    info = status_pb2.ErrorInfo(reason=reason, domain="colonies", metadata=metadata)
    details = [AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())]
    if retry_ms:
        retry = status_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry.SerializeToString()))
    status = status_pb2.Status(code=code.value[0], message=reason, details=details)
    trailer = ((errors.DETAILS_KEY, status.SerializeToString()),)

    async def abort(context: Any) -> None:
        await context.abort(code, reason, trailer)

    return abort


class SignatureCheck(grpc.aio.ServerInterceptor):
    """Lets through only what is signed for this cluster, over the bytes that came, with a nonce of its own."""

    def __init__(self) -> None:
        self.nonces: set[str] = set()

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        headers = {name: str(value) for name, value in details.invocation_metadata or ()}
        deserialize = handler.request_deserializer

        def checked(body: bytes) -> Any:
            text = signing.call_text(
                method=details.method,
                audience=CLUSTER,
                time_ms=int(headers[signing.TIME_HEADER]),
                nonce=headers[signing.NONCE_HEADER],
                body=body,
            )
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(headers[signing.KEY_HEADER]))
            key.verify(bytes.fromhex(headers[signing.SIGNATURE_HEADER]), text)
            assert headers[signing.NONCE_HEADER] not in self.nonces, "a nonce was used twice"
            self.nonces.add(headers[signing.NONCE_HEADER])
            return deserialize(body)

        return handler._replace(request_deserializer=checked)


class FakeServer(SchedulerServiceServicer, RegistryServiceServicer):
    """A scheduler and a registry with one colony."""

    def __init__(self) -> None:
        self.port = 0
        self.signatures = SignatureCheck()
        self.lease_ms = 60_000
        self.executor_state = registry.EXECUTOR_STATE_APPROVED
        self.announced: list[registry.Function] = []
        self.processes: dict[str, process.Process] = {}
        self.workflows: dict[str, list[str]] = {}
        self.events: list[process.ProcessEvent] = []
        self.closes: list[scheduler.Close] = []
        self.close_calls: list[int] = []
        self.heartbeats: list[set[str]] = []
        self.log_lines: list[str] = []
        self.attributes: dict[str, str] = {}
        self.early_outputs: list[bytes] = []
        # By process and name; a process that is not running here ends its channels when `channels_over` says so.
        self.channels: dict[tuple[str, str], list[channel.ChannelMessage]] = defaultdict(list)
        self.channels_over: set[str] = set()
        self.drops: dict[str, scheduler.DropReason.ValueType] = {}
        self.calls: dict[str, int] = defaultdict(int)
        self.submit_sizes: list[int] = []
        self.workflow_sizes: list[int] = []
        # How many processes a submit may enter before the queue is full.
        self.room = 10_000
        # Long polls and streams that wait for work.
        self.polls = 0
        # Whether there are streams of assignments, whether they show signs of life, and how often each assignment is sent.
        self.streams = True
        self.lively = True
        self.copies = 1
        self.in_flight: list[int] = []
        self.most_open = 0
        self.children: list[scheduler.AddChildrenRequest] = []
        self.watches: list[scheduler.WatchProcessesRequest] = []
        self._open: dict[str, set[str]] = defaultdict(set)
        self.changed = asyncio.Condition()
        self._ready: deque[scheduler.Assignment] = deque()
        self._refusals: dict[str, deque[Callable[[Any], Awaitable[None]]]] = defaultdict(deque)
        self._answers: dict[str, Any] = {}
        self._flows: dict[str, scheduler.SubmitWorkflowResponse] = {}
        self._numbers = itertools.count(1)
        self._server: grpc.aio.Server | None = None
        # Services of other test modules, with the functions that add them.
        self.beside: list[tuple[Callable[[Any, grpc.aio.Server], None], Any]] = []

    async def start(self) -> None:
        self._server = grpc.aio.server(interceptors=[self.signatures])
        add_SchedulerServiceServicer_to_server(self, self._server)
        add_RegistryServiceServicer_to_server(self, self._server)
        for add, servicer in self.beside:
            add(servicer, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Ends as a killed process would: calls under way get no answer."""
        assert self._server is not None
        await self._server.stop(None)

    def refuse(self, method: str, code: grpc.StatusCode, reason: str = "TEST", times: int = 1, **more: Any) -> None:
        """Lets the next calls of a method fail."""
        self._refusals[method].extend([refusal(code, reason, **more)] * times)

    def refuse_by(self, method: str, abort: Callable[[Any], Awaitable[None]]) -> None:
        """Lets the next call of a method fail in a way of its own."""
        self._refusals[method].append(abort)

    async def give(self, func_name: str, *, inputs: tuple[Any, ...] = (), process_id: str = "", **fields: Any) -> str:
        """Puts a process into the queue."""
        from colonies.values import encode

        process_id = process_id or f"p{next(self._numbers)}"
        limit = fields.pop("exec_limit_ms", 0)
        raw_args = fields.pop("raw_args", None)
        args = raw_args if raw_args is not None else [encode(value) for value in fields.pop("args", ())]
        function = spec.FunctionSpec(func_name=func_name, args=args, max_exec_time_ms=limit, **fields)
        assignment = scheduler.Assignment(
            process_id=process_id,
            attempt=1,
            spec=function,
            inputs=[encode(value) for value in inputs],
            lease_ms=self.lease_ms,
        )
        if limit:
            assignment.exec_deadline.GetCurrentTime()
        self.processes[process_id] = process.Process(process_id=process_id, spec=function, state=process.PROCESS_STATE_WAITING)
        self._ready.append(assignment)
        await self._note()
        return process_id

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(10):
            async with self.changed:
                await self.changed.wait_for(condition)

    def closed(self, process_id: str) -> scheduler.Close:
        """How a process was closed."""
        found = [close for close in self.closes if close.attempt.process_id == process_id]
        assert len(found) == 1, f"{process_id} was closed {len(found)} times"
        return found[0]

    def is_closed(self, *process_ids: str) -> Callable[[], bool]:
        return lambda: {close.attempt.process_id for close in self.closes} >= set(process_ids)

    async def enter(self, method: str, context: Any) -> None:
        """For a service beside this one: counts a call, and refuses it if `refuse` said so."""
        await self._enter(method, context)

    async def _enter(self, method: str, context: Any) -> None:
        self.calls[method] += 1
        await self._note()
        if self._refusals[method]:
            await self._refusals[method].popleft()(context)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def move(self, process_id: str, state: process.ProcessState.ValueType, reason: str, executor: str = "") -> None:
        """Changes a process's state and tells the watchers."""
        found = self.processes[process_id]
        change = process.Transition(from_state=found.state, to_state=state, reason=reason, attempt=1 if executor else 0)
        found.state = state
        self.events.append(
            process.ProcessEvent(
                cursor=str(len(self.events) + 1),
                process_id=process_id,
                node_name=found.spec.node_name,
                func_name=found.spec.func_name,
                transition=change,
                executor_name=executor,
            )
        )
        await self._note()

    # --- registry

    async def RegisterExecutor(self, request: registry.RegisterExecutorRequest, context: Any) -> Any:
        await self._enter("RegisterExecutor", context)
        executor = registry.Executor(name=request.name, executor_types=request.executor_types, state=self.executor_state)
        return registry.RegisterExecutorResponse(executor=executor)

    async def AnnounceFunctions(self, request: registry.AnnounceFunctionsRequest, context: Any) -> Any:
        await self._enter("AnnounceFunctions", context)
        self.announced = list(request.functions)
        await self._note()
        return registry.AnnounceFunctionsResponse()

    async def ListExecutors(self, request: registry.ListExecutorsRequest, context: Any) -> Any:
        await self._enter("ListExecutors", context)
        first = int(request.cursor or 0)
        end = min(first + min(request.page_size, 2), 5)
        executors = [registry.Executor(name=f"e{number}") for number in range(first, end)]
        return registry.ListExecutorsResponse(executors=executors, next_cursor=str(end) if end < 5 else "")

    async def RemoveLocation(self, request: registry.RemoveLocationRequest, context: Any) -> Any:
        await self._enter("RemoveLocation", context)
        return await refusal(grpc.StatusCode.NOT_FOUND)(context)

    # --- scheduler

    async def SubmitProcesses(self, request: scheduler.SubmitProcessesRequest, context: Any) -> Any:
        if any(function.func_name == "bad" for function in request.specs):
            await refusal(grpc.StatusCode.INVALID_ARGUMENT)(context)
        if len(request.specs) > self.room:
            await refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_ms=1)(context)
        answer = self._answers.get(request.request_id)
        if answer is None:
            self.submit_sizes.append(len(request.specs))
            ids = [await self.give(function.func_name) for function in request.specs]
            answer = self._answers[request.request_id] = scheduler.SubmitProcessesResponse(process_ids=ids)
        # After the work is done, so that a refused call is one whose answer got lost.
        await self._enter("SubmitProcesses", context)
        return answer

    async def SubmitWorkflow(self, request: scheduler.SubmitWorkflowRequest, context: Any) -> Any:
        await self._enter("SubmitWorkflow", context)
        (answer,) = await self._enter_workflows([request], context)
        return answer

    async def SubmitWorkflows(self, request: scheduler.SubmitWorkflowsRequest, context: Any) -> Any:
        answers = await self._enter_workflows(request.submissions, context)
        # As in SubmitProcesses.
        await self._enter("SubmitWorkflows", context)
        return scheduler.SubmitWorkflowsResponse(workflows=answers)

    async def _enter_workflows(self, submissions: Sequence[Any], context: Any) -> list[scheduler.SubmitWorkflowResponse]:
        if any(node.func_name == "bad" for one in submissions for node in one.workflow.nodes):
            await refusal(grpc.StatusCode.INVALID_ARGUMENT)(context)
        if any(one.request_id == "taken" for one in submissions):
            await refusal(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")(context)
        if len(submissions) > self.room:
            await refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_ms=1)(context)
        self.workflow_sizes.append(len(submissions))
        for one in submissions:
            if one.request_id not in self._flows:
                self._flows[one.request_id] = self._new_workflow(one.workflow)
        await self._note()
        return [self._flows[one.request_id] for one in submissions]

    def _new_workflow(self, workflow: Any) -> scheduler.SubmitWorkflowResponse:
        workflow_id = f"w{next(self._numbers)}"
        ids = []
        for node in workflow.nodes:
            process_id = f"p{next(self._numbers)}"
            self.processes[process_id] = process.Process(process_id=process_id, spec=node, state=process.PROCESS_STATE_WAITING)
            ids.append(process_id)
        self.workflows[workflow_id] = ids
        return scheduler.SubmitWorkflowResponse(workflow_id=workflow_id, process_ids=ids)

    async def AddChildren(self, request: scheduler.AddChildrenRequest, context: Any) -> Any:
        await self._enter("AddChildren", context)
        self.children.append(request)
        return scheduler.AddChildrenResponse(process_ids=[f"id of {node.node_name}" for node in request.nodes])

    async def RetryWorkflow(self, request: scheduler.RetryWorkflowRequest, context: Any) -> Any:
        await self._enter("RetryWorkflow", context)
        return scheduler.RetryWorkflowResponse(count=len(self.workflows[request.workflow_id]))

    async def ExplainProcess(self, request: explain.ExplainProcessRequest, context: Any) -> Any:
        await self._enter("ExplainProcess", context)
        return explain.ExplainProcessResponse(explanation=explain.Explanation(summary=request.process_id))

    async def ExplainSpec(self, request: explain.ExplainSpecRequest, context: Any) -> Any:
        await self._enter("ExplainSpec", context)
        return explain.ExplainSpecResponse(explanation=explain.Explanation(summary=request.spec.func_name))

    async def GetProcess(self, request: scheduler.GetProcessRequest, context: Any) -> Any:
        await self._enter("GetProcess", context)
        return scheduler.GetProcessResponse(process=self.processes[request.process_id])

    async def GetWorkflow(self, request: scheduler.GetWorkflowRequest, context: Any) -> Any:
        await self._enter("GetWorkflow", context)
        states = {self.processes[process_id].state for process_id in self.workflows[request.workflow_id]}
        state = (
            process.PROCESS_STATE_SUCCESSFUL if states == {process.PROCESS_STATE_SUCCESSFUL} else process.PROCESS_STATE_RUNNING
        )
        if process.PROCESS_STATE_FAILED in states:
            state = process.PROCESS_STATE_FAILED
        return scheduler.GetWorkflowResponse(workflow=process.Workflow(workflow_id=request.workflow_id, state=state))

    async def WatchProcesses(
        self, request: scheduler.WatchProcessesRequest, context: Any
    ) -> AsyncIterator[scheduler.WatchProcessesResponse]:
        await self._enter("WatchProcesses", context)
        self.watches.append(request)
        if request.HasField("colony"):
            async for response in self._watch_colony(request, context):
                yield response
        watched = self.workflows.get(request.workflow_id) or [request.process_id]
        final = {process.PROCESS_STATE_SUCCESSFUL, process.PROCESS_STATE_FAILED, process.PROCESS_STATE_CANCELLED}
        seen = int(request.cursor or 0)
        while True:
            async with self.changed:
                while len(self.events) <= seen and not self._refusals["WatchProcesses"]:
                    await self.changed.wait()
            if self._refusals["WatchProcesses"]:
                await self._refusals["WatchProcesses"].popleft()(context)
            event = self.events[seen]
            seen += 1
            yield scheduler.WatchProcessesResponse(events=[event] if event.process_id in watched else [])
            if seen == len(self.events) and all(self.processes[each].state in final for each in watched):
                return

    async def _watch_colony(
        self, request: scheduler.WatchProcessesRequest, context: Any
    ) -> AsyncIterator[scheduler.WatchProcessesResponse]:
        seen = int(request.cursor or len(self.events))
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self._refusals["WatchProcesses"] or len(self.events) > seen)
            if self._refusals["WatchProcesses"]:
                await self._refusals["WatchProcesses"].popleft()(context)
            wanted = [event for event in self.events[seen:] if event.transition.to_state in request.colony.states]
            seen = len(self.events)
            yield scheduler.WatchProcessesResponse(events=wanted, cursor=str(seen))

    async def AssignProcesses(self, request: scheduler.AssignProcessesRequest, context: Any) -> Any:
        await self._enter("AssignProcesses", context)
        self.polls += 1
        try:
            async with asyncio.timeout(request.wait_ms / 1000):
                async with self.changed:
                    await self.changed.wait_for(lambda: bool(self._ready))
        except TimeoutError:
            return scheduler.AssignProcessesResponse()
        finally:
            self.polls -= 1
        taken = [self._ready.popleft() for _ in range(min(request.max_processes, len(self._ready)))]
        return scheduler.AssignProcessesResponse(assignments=taken)

    async def WatchAssignments(
        self, request: scheduler.WatchAssignmentsRequest, context: Any
    ) -> AsyncIterator[scheduler.WatchAssignmentsResponse]:
        await self._enter("WatchAssignments", context)
        if not self.streams:
            await refusal(grpc.StatusCode.UNIMPLEMENTED)(context)
        self.in_flight.append(request.max_in_flight)
        held = self._open[dict(context.invocation_metadata())[signing.KEY_HEADER]]

        def room() -> int:
            held.difference_update({close.attempt.process_id for close in self.closes}, self.drops)
            return min(request.max_in_flight - len(held), len(self._ready))

        refusals = self._refusals["WatchAssignments"]
        self.polls += 1
        try:
            if self.lively:
                yield scheduler.WatchAssignmentsResponse()
            while True:
                async with self.changed:
                    await self.changed.wait_for(lambda: refusals or room() > 0)
                if refusals:
                    await refusals.popleft()(context)
                taken = [self._ready.popleft() for _ in range(room())]
                held.update(assignment.process_id for assignment in taken)
                self.most_open = max(self.most_open, len(held))
                yield scheduler.WatchAssignmentsResponse(assignments=taken * self.copies)
        finally:
            self.polls -= 1
            await self._note()

    async def CloseProcesses(self, request: scheduler.CloseProcessesRequest, context: Any) -> Any:
        self.close_calls.append(len(request.closes))
        await self._enter("CloseProcesses", context)
        for close in request.closes:
            if close.attempt.process_id in self.drops:
                abort = refusal(grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPT_SUPERSEDED", process_id=close.attempt.process_id)
                await abort(context)
            if any(output.data == b'"too large"' for output in close.success.outputs):
                await refusal(grpc.StatusCode.INVALID_ARGUMENT)(context)
        self.closes.extend(request.closes)
        await self._note()
        return scheduler.CloseProcessesResponse()

    async def Heartbeat(self, request: scheduler.HeartbeatRequest, context: Any) -> Any:
        await self._enter("Heartbeat", context)
        self.heartbeats.append({ref.process_id for ref in request.attempts})
        drops = [
            scheduler.HeartbeatResponse.Drop(attempt=ref, reason=self.drops[ref.process_id])
            for ref in request.attempts
            if ref.process_id in self.drops
        ]
        await self._note()
        return scheduler.HeartbeatResponse(drops=drops, lease_ms=self.lease_ms)

    async def AddLogs(self, request: scheduler.AddLogsRequest, context: Any) -> Any:
        await self._enter("AddLogs", context)
        self.log_lines.extend(line.message for line in request.lines)
        return scheduler.AddLogsResponse()

    async def SetAttributes(self, request: scheduler.SetAttributesRequest, context: Any) -> Any:
        await self._enter("SetAttributes", context)
        self.attributes.update({each.key: each.value for each in request.attributes})
        return scheduler.SetAttributesResponse()

    async def SetOutput(self, request: scheduler.SetOutputRequest, context: Any) -> Any:
        await self._enter("SetOutput", context)
        self.early_outputs = [output.data for output in request.outputs]
        return scheduler.SetOutputResponse()

    def say(self, process_id: str, name: str, message: channel.NewMessage, *, attempt: int = 0) -> None:
        """Adds a message to a channel."""
        messages = self.channels[process_id, name]
        number = len(messages) + 1
        side = channel.CHANNEL_SIDE_EXECUTOR if attempt else channel.CHANNEL_SIDE_SUBMITTER
        found = channel.ChannelMessage(
            cursor=str(number), number=number, side=side, attempt=attempt, kind=message.kind, value=message.value
        )
        found.sender_name = "e1" if attempt else "alice"
        messages.append(found)

    async def AppendMessages(self, request: channel.AppendMessagesRequest, context: Any) -> Any:
        sent = sum(one.attempt == request.attempt for one in self.channels[request.process_id, request.channel])
        assert 1 <= request.first_number <= sent + 1, "a gap"
        if any(message.value.data == b'"refused"' for message in request.messages):
            await refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "CHANNEL_FULL")(context)
        for message in request.messages[sent + 1 - request.first_number :]:
            self.say(request.process_id, request.channel, message, attempt=request.attempt)
        # After the work is done, so that a refused call is one whose answer got lost.
        await self._enter("AppendMessages", context)
        return channel.AppendMessagesResponse()

    async def ListMessages(self, request: channel.ListMessagesRequest, context: Any) -> Any:
        await self._enter("ListMessages", context)
        messages = self.channels[request.process_id, request.channel]
        first = int(request.cursor or 0)
        end = first + min(request.page_size, 2)
        cursor = str(end) if end < len(messages) else ""
        return channel.ListMessagesResponse(messages=messages[first:end], next_cursor=cursor)

    async def FollowChannel(
        self, request: channel.FollowChannelRequest, context: Any
    ) -> AsyncIterator[channel.FollowChannelResponse]:
        await self._enter("FollowChannel", context)
        messages, seen = self.channels[request.process_id, request.channel], int(request.cursor or 0)
        while True:
            async with self.changed:
                await self.changed.wait_for(
                    lambda: (
                        len(messages) > seen
                        or request.process_id in self.channels_over
                        or bool(self._refusals["FollowChannel"])
                    )
                )
            if self._refusals["FollowChannel"]:
                await self._refusals["FollowChannel"].popleft()(context)
            if len(messages) == seen:
                return
            yield channel.FollowChannelResponse(messages=[messages[seen]])
            seen += 1
