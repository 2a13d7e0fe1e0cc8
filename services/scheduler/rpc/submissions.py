"""Several workflows in one call, submitted or asked for: requests to domain words, and back."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from servicekit.bounds import Bounds, checked, shown
from servicekit.caller import Caller, Role
from services.scheduler.domain.records import Account, Receipt
from services.scheduler.domain.spec import Spec
from services.scheduler.domain.submitting import NODES_FIELD, NewWorkflow, Request
from services.scheduler.domain.views import OutputsView, ResultView
from services.scheduler.rpc.specs import MAX_NODES, nodes_of

MAX_SUBMISSIONS = 500
MAX_RESULTS = 1_000
MAX_RESULTS_WITH_OUTPUTS = 100
FIELD = "submissions"


def workflows_of(request: pb.SubmitWorkflowsRequest, receipt: Receipt | None) -> list[NewWorkflow]:
    """What a call submits, in bounds."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.count(FIELD, request.submissions, at_least=1, at_most=MAX_SUBMISSIONS)
        nodes = sum(len(one.workflow.nodes) for one in request.submissions)
        if nodes > MAX_NODES:
            bounds.refuse(FIELD, f"must have at most {MAX_NODES} nodes together; they have {nodes}")
        # What is too much isn't looked at any further.
        bounds.close()
        ids = _ids_of(bounds, request.submissions)
        specs = [_nodes_of(bounds, request.colony_name, one, index) for index, one in enumerate(request.submissions)]
    return [
        NewWorkflow(_request_of(request, one, workflow_id, receipt), mine, one.workflow.label, workflow_id, _path(index))
        for index, (one, workflow_id, mine) in enumerate(zip(request.submissions, ids, specs, strict=True))
    ]


def submitted(workflow_id: UUID, process_ids: Sequence[UUID]) -> pb.SubmitWorkflowResponse:
    """A workflow that was entered."""
    return pb.SubmitWorkflowResponse(workflow_id=str(workflow_id), process_ids=[str(one) for one in process_ids])


def result_ids(request: pb.GetWorkflowResultsRequest) -> list[UUID]:
    """The workflows that are asked for."""
    at_most = MAX_RESULTS_WITH_OUTPUTS if request.with_outputs else MAX_RESULTS
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.count("workflow_ids", request.workflow_ids, at_least=1, at_most=at_most)
        found = [bounds.uuid(f"workflow_ids[{index}]", one) for index, one in enumerate(request.workflow_ids[:at_most])]
        ids = [one for one in found if one is not None]
        if len(set(ids)) != len(ids):
            bounds.refuse("workflow_ids", "must be distinct")
    return ids


def result_of(view: ResultView) -> pb.WorkflowResult:
    """What became of a workflow."""
    return pb.WorkflowResult(
        workflow_id=str(view.workflow.id),
        state=view.workflow.state.value,  # type: ignore[arg-type]
        open=not view.workflow.is_over,
        outputs=[_outputs_of(one) for one in view.outputs],
    )


def _outputs_of(view: OutputsView) -> pb.NodeOutputs:
    return pb.NodeOutputs(
        node_name=view.node_name,
        process_id=str(view.process_id),
        outputs=[spec_pb2.Value.FromString(value) for value in view.outputs],
    )


def _path(index: int) -> str:
    return f"{FIELD}[{index}].{NODES_FIELD}"


def _nodes_of(bounds: Bounds, colony: str, submission: pb.WorkflowSubmission, index: int) -> list[Spec]:
    bounds.printable(f"{FIELD}[{index}].workflow.label", submission.workflow.label, optional=True)
    return nodes_of(bounds, _path(index), colony, submission.workflow.nodes)


def _ids_of(bounds: Bounds, submissions: Sequence[pb.WorkflowSubmission]) -> list[UUID | None]:
    """The ids that were chosen for the workflows; these and the request ids are there once."""
    may_choose = Caller.current().role is Role.SERVICE
    seen: dict[str | UUID, int] = {}
    ids: list[UUID | None] = []
    for index, one in enumerate(submissions):
        field = f"{FIELD}[{index}].request_id"
        bounds.request_id(field, one.request_id)
        _once(bounds, seen, field, one.request_id, index)
        field = f"{FIELD}[{index}].workflow_id"
        if not one.workflow_id:
            ids.append(None)
            continue
        if not may_choose:
            bounds.refuse(field, "must be empty, unless a service calls on behalf of a member")
        chosen = bounds.uuid(field, one.workflow_id)
        if chosen is not None:
            _once(bounds, seen, field, chosen, index)
        ids.append(chosen)
    return ids


def _once(bounds: Bounds, seen: dict[str | UUID, int], field: str, value: str | UUID, index: int) -> None:
    first = seen.setdefault(value, index)
    if first != index:
        bounds.refuse(field, f"must be unique; {shown(str(value))} is that of {FIELD}[{first}] too")


def _request_of(
    request: pb.SubmitWorkflowsRequest, submission: pb.WorkflowSubmission, workflow_id: UUID | None, receipt: Receipt | None
) -> Request:
    """Who submits one of them. The digest is that of SubmitWorkflow, so that it may be repeated by either, and in any company;
    to choose an id is to ask for something else.
    """
    caller = Caller.current()
    alone = pb.SubmitWorkflowRequest(
        colony_name=request.colony_name,
        request_id=submission.request_id,
        workflow=submission.workflow,
        on_behalf_of=request.on_behalf_of,
    )
    digest = hashlib.sha256(alone.SerializeToString(deterministic=True))
    if workflow_id is not None:
        digest.update(workflow_id.bytes)
    account = Account(caller.account.identity, caller.account.name)
    return Request(request.colony_name, submission.request_id, digest.digest(), account, caller.identity, receipt)
