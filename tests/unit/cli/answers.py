"""Canned answers of the scheduler, for several test modules."""

from typing import Any

from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler

from .conftest import FakeServer

AUTH = "/colonies.auth.v1.AuthService/"
REGISTRY = "/colonies.registry.v1.RegistryService/"
SCHEDULER = "/colonies.scheduler.v1.SchedulerService/"
CRON = "/colonies.cron.v1.CronService/"
GENERATOR = "/colonies.cron.v1.GeneratorService/"

PROCESS_ID = "11111111-1111-4111-8111-111111111111"
WORKFLOW_ID = "22222222-2222-4222-8222-222222222222"
BIG = 1_679_906_715_352_024_000


def a_process(**changes: Any) -> process_pb2.Process:
    """A process, successful unless changed."""
    fields: dict[str, Any] = {
        "process_id": PROCESS_ID,
        "colony_name": "dev",
        "spec": spec_pb2.FunctionSpec(
            func_name="square",
            args=[spec_pb2.Value(data=b"[2]")],
            conditions=spec_pb2.Conditions(executor_type="cloud"),
        ),
        "state": process_pb2.PROCESS_STATE_SUCCESSFUL,
        "priority_time": BIG,
        "outputs": [spec_pb2.Value(data=b"4")],
    }
    process = process_pb2.Process(**{**fields, **changes})
    process.submission_time.FromJsonString("2023-03-27T08:45:15.352Z")
    return process


def answers_process(server: FakeServer, process: process_pb2.Process) -> None:
    """GetProcess gives this process."""
    server.on(SCHEDULER + "GetProcess", scheduler.GetProcessRequest, lambda _: scheduler.GetProcessResponse(process=process))


def an_event(state: int, cursor: str) -> process_pb2.ProcessEvent:
    """A state change."""
    transition = process_pb2.Transition(to_state=process_pb2.ProcessState.ValueType(state), reason="CLOSED")
    return process_pb2.ProcessEvent(cursor=cursor, process_id=PROCESS_ID, func_name="square", transition=transition)


def answers_watch(server: FakeServer, *states: int) -> None:
    """WatchProcesses gives these states, after a sign of life."""
    events = [an_event(state, str(number)) for number, state in enumerate(states, 1)]
    server.on(
        SCHEDULER + "WatchProcesses",
        scheduler.WatchProcessesRequest,
        lambda _: [scheduler.WatchProcessesResponse(), scheduler.WatchProcessesResponse(events=events)],
    )


def answers_submit(server: FakeServer) -> None:
    """SubmitProcesses takes everything."""
    server.on(
        SCHEDULER + "SubmitProcesses",
        scheduler.SubmitProcessesRequest,
        lambda request: scheduler.SubmitProcessesResponse(process_ids=[PROCESS_ID] * len(request.specs)),
    )


def a_workflow(state: int) -> process_pb2.Workflow:
    """A workflow that took 65 seconds."""
    workflow = process_pb2.Workflow(
        workflow_id=WORKFLOW_ID,
        colony_name="dev",
        state=process_pb2.ProcessState.ValueType(state),
        counts=process_pb2.StateCounts(waiting=1, successful=2),
    )
    workflow.submission_time.FromJsonString("2023-03-27T08:45:15Z")
    workflow.end_time.FromJsonString("2023-03-27T08:46:20Z")
    return workflow


def answers_workflow(server: FakeServer, state: int) -> None:
    """GetWorkflow gives a workflow in this state."""
    workflow = a_workflow(state)
    server.on(
        SCHEDULER + "GetWorkflow",
        scheduler.GetWorkflowRequest,
        lambda _: scheduler.GetWorkflowResponse(workflow=workflow),
    )
