"""Several workflows in one call: submitted all or none, each once for its request id; asked for, and cancelled for a member."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.client import AsyncClient
from colonies.errors import AlreadyExistsError, InvalidArgumentError
from colonies.scheduler.v1 import controls_pb2, process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import refusal
from tests.harness.cluster import CLUSTER, COLONY, USER, Cluster
from tests.harness.keys import key_of

from .scheduler_colony import SERVICES, Acme, ref_of, rows, spec, value

pytestmark = pytest.mark.asyncio

WAITING, RUNNING = process_pb2.PROCESS_STATE_WAITING, process_pb2.PROCESS_STATE_RUNNING
SUCCESSFUL, FAILED = process_pb2.PROCESS_STATE_SUCCESSFUL, process_pb2.PROCESS_STATE_FAILED
CANCELLED = process_pb2.PROCESS_STATE_CANCELLED
NOWHERE = "123e4567-e89b-12d3-a456-426614174000"


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


@pytest.fixture
def cron(acme: Acme) -> Any:
    """Called by the cron service."""
    return acme.by(acme.keys.service("cron"))


@pytest.fixture
def alice(acme: Acme) -> str:
    return acme.keys.user.identity


def one(request_id: str, *nodes: Any, label: str = "", workflow_id: str = "") -> pb.WorkflowSubmission:
    """A submission; of one node, unless others are given."""
    workflow = spec_pb2.WorkflowSpec(nodes=nodes or [spec("a")], label=label)
    return pb.WorkflowSubmission(request_id=request_id, workflow=workflow, workflow_id=workflow_id)


def many(*submissions: pb.WorkflowSubmission, on_behalf_of: str = "", colony: str = COLONY) -> pb.SubmitWorkflowsRequest:
    return pb.SubmitWorkflowsRequest(colony_name=colony, submissions=submissions, on_behalf_of=on_behalf_of)


def ids_of(answer: pb.SubmitWorkflowsResponse) -> list[str]:
    return [workflow.workflow_id for workflow in answer.workflows]


async def results(stub: Any, *workflow_ids: str, with_outputs: bool = False) -> list[pb.WorkflowResult]:
    request = pb.GetWorkflowResultsRequest(colony_name=COLONY, workflow_ids=workflow_ids, with_outputs=with_outputs)
    return list((await stub.GetWorkflowResults(request)).results)


async def entered_nothing(database_url: str, call: Awaitable[Any]) -> Any:
    """The error of a call that left no row."""
    before = rows(database_url)
    error = await refusal(call)
    assert rows(database_url) == before
    return error


async def test_several_workflows_enter_in_one_call(acme: Acme) -> None:
    """In order, also among the processes of one priority."""
    answer = await acme.user.SubmitWorkflows(
        many(one("r0", spec("a"), spec("b", "a"), label="first"), one("r1"), one("r2", spec("a", priority=1)))
    )
    assert [len(workflow.process_ids) for workflow in answer.workflows] == [2, 1, 1]
    assert len(set(ids_of(answer))) == 3
    found = (await acme.user.GetWorkflow(pb.GetWorkflowRequest(colony_name=COLONY, workflow_id=ids_of(answer)[0]))).workflow
    assert (found.label, found.initiator_name, found.counts.waiting) == ("first", USER, 2)
    first, second, third = (workflow.process_ids[0] for workflow in answer.workflows)
    assert [(await acme.one()).process_id for _ in range(3)] == [third, first, second]
    assert [(await acme.get(workflow.process_ids[0])).workflow_id for workflow in answer.workflows] == ids_of(answer)


async def test_what_is_repeated_answers_as_before_beside_what_is_new(acme: Acme) -> None:
    """In any company, and by either method."""
    alone = await acme.user.SubmitWorkflow(
        pb.SubmitWorkflowRequest(colony_name=COLONY, request_id="r0", workflow=one("r0").workflow)
    )
    first = await acme.user.SubmitWorkflows(many(one("r0"), one("r1"), one("r2", spec("a"), spec("b", "a"))))
    assert first.workflows[0] == alone
    again = await acme.user.SubmitWorkflows(many(one("r3"), one("r2", spec("a"), spec("b", "a")), one("r1"), one("r0")))
    assert [again.workflows[3], again.workflows[2], again.workflows[1]] == list(first.workflows)
    repeated = pb.SubmitWorkflowRequest(colony_name=COLONY, request_id="r3", workflow=one("r3").workflow)
    assert await acme.user.SubmitWorkflow(repeated) == again.workflows[0]
    assert len((await acme.user.ListWorkflows(pb.ListWorkflowsRequest(colony_name=COLONY))).workflows) == 4
    # Another caller's ids are its own.
    theirs = await acme.by(acme.keys.owner).SubmitWorkflows(many(one("r0")))
    assert theirs.workflows[0] != alone


async def test_a_request_id_of_something_else_keeps_all_out(acme: Acme, database_url: str) -> None:
    await acme.user.SubmitWorkflows(many(one("taken")))
    await acme.submit(spec(), request_id="function")
    for bad in (one("taken", spec("b")), one("taken", label="other"), one("function")):
        error = await entered_nothing(database_url, acme.user.SubmitWorkflows(many(one("new"), bad, one("newer"))))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert error.metadata["request_id"] == bad.request_id
        assert bad.request_id in str(error)


async def test_a_full_queue_keeps_all_out_but_what_is_in_already(acme: Acme, database_url: str) -> None:
    limits = acme.by(acme.keys.owner)
    await limits.UpdateControls(controls_pb2.UpdateControlsRequest(colony_name=COLONY, max_waiting=3))
    first = await acme.user.SubmitWorkflows(many(one("r0"), one("r1")))
    error = await entered_nothing(database_url, acme.user.SubmitWorkflows(many(one("r2"), one("r3"))))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    # There is room for the one of them that is new.
    again = await acme.user.SubmitWorkflows(many(one("r0"), one("r4"), one("r1")))
    assert [again.workflows[0], again.workflows[2]] == list(first.workflows)
    error = await entered_nothing(database_url, acme.user.SubmitWorkflows(many(one("r0"), one("r5"))))
    assert error.reason == "QUEUE_FULL"
    assert (await acme.user.SubmitWorkflows(many(one("r4"), one("r0")))).workflows[1] == first.workflows[0]


BAD: list[tuple[list[pb.WorkflowSubmission], list[str]]] = [
    ([], ["submissions"]),
    ([one(f"r{number}") for number in range(501)], ["submissions"]),
    ([one("a b")], ["submissions[0].request_id"]),
    ([one("r"), one("r", spec("b"))], ["submissions[1].request_id"]),
    ([one("r"), pb.WorkflowSubmission(request_id="s")], ["submissions[1].workflow.nodes"]),
    ([one("r"), one("s", spec("a", func_name=""))], ["submissions[1].workflow.nodes[0].func_name"]),
    ([one("r"), one("s", label="\0")], ["submissions[1].workflow.label"]),
    ([one("r"), one("s", spec("a", "b"), spec("b", "a"))], ["submissions[1].workflow.nodes"]),
    ([one("r"), one("s", spec("a"), spec("a"))], ["submissions[1].workflow.nodes[0].node_name"]),
    (
        [one("r"), one("s", spec("a", "ghost"))],
        ["submissions[1].workflow.nodes[0].conditions.dependencies[0].node_name"],
    ),
    ([one("r"), one("s", workflow_id=NOWHERE)], ["submissions[1].workflow_id"]),
]


@pytest.mark.parametrize(("submissions", "fields"), BAD)
async def test_what_is_out_of_bounds_keeps_all_out(
    acme: Acme, database_url: str, submissions: list[pb.WorkflowSubmission], fields: list[str]
) -> None:
    error = await entered_nothing(database_url, acme.user.SubmitWorkflows(many(*submissions)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == fields


async def test_the_nodes_of_all_workflows_count_together(acme: Acme, database_url: str) -> None:
    wide = [spec_pb2.FunctionSpec()] * 50_001
    error = await entered_nothing(database_url, acme.user.SubmitWorkflows(many(one("r0", *wide), one("r1", *wide))))
    assert [violation.field for violation in error.violations] == ["submissions"]
    assert "100000" in str(error)


async def test_only_a_service_chooses_workflow_ids(acme: Acme, cron: Any, alice: str, database_url: str) -> None:
    for stub in (acme.user, acme.by(acme.keys.owner), acme.worker):
        error = await entered_nothing(database_url, stub.SubmitWorkflows(many(one("r", workflow_id=NOWHERE))))
        assert [violation.field for violation in error.violations] == ["submissions[0].workflow_id"]
    answer = await cron.SubmitWorkflows(many(one("r", workflow_id=NOWHERE.upper()), one("s"), on_behalf_of=alice))
    assert ids_of(answer)[0] == NOWHERE
    found = await acme.get(answer.workflows[0].process_ids[0])
    assert (found.workflow_id, found.initiator, found.initiator_name) == (NOWHERE, alice, USER)
    for bad, field in (
        ([one("t", workflow_id="x")], "submissions[0].workflow_id"),
        ([one("t", workflow_id=NOWHERE), one("u", workflow_id=NOWHERE.upper())], "submissions[1].workflow_id"),
    ):
        error = await entered_nothing(database_url, cron.SubmitWorkflows(many(*bad, on_behalf_of=alice)))
        assert [violation.field for violation in error.violations] == [field]
    error = await entered_nothing(database_url, cron.SubmitWorkflows(many(one("t"))))
    assert [violation.field for violation in error.violations] == ["on_behalf_of"]


async def test_a_chosen_workflow_id_is_entered_once(acme: Acme, cron: Any, alice: str, database_url: str) -> None:
    """Repeated under its request id it is the same; under any other it is taken, whosever it is."""
    given = many(one("r", workflow_id=NOWHERE), on_behalf_of=alice)
    first = await cron.SubmitWorkflows(given)
    assert await cron.SubmitWorkflows(given) == first
    taken = many(one("new"), one("s", workflow_id=NOWHERE), on_behalf_of=alice)
    error = await entered_nothing(database_url, cron.SubmitWorkflows(taken))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "WORKFLOW_ID_TAKEN")
    assert error.metadata["workflow_id"] == NOWHERE
    # Another id is something else, and so is none.
    for other in (str(uuid.uuid4()), ""):
        error = await entered_nothing(database_url, cron.SubmitWorkflows(many(one("r", workflow_id=other), on_behalf_of=alice)))
        assert error.reason == "REQUEST_ID_REUSED"
    # Of another colony nothing is told.
    bob = key_of("bob")
    await acme.cluster.add_colony("umbrella", acme.keys.owner)
    await acme.cluster.add_user("umbrella", acme.keys.owner, "bob", bob)
    theirs = many(one("r", workflow_id=NOWHERE), on_behalf_of=bob.identity, colony="umbrella")
    error = await entered_nothing(database_url, cron.SubmitWorkflows(theirs))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "WORKFLOW_ID_TAKEN")
    assert COLONY not in str(error)


async def test_callers_that_submit_the_same_in_any_order_get_one_workflow_each(acme: Acme, cron: Any, alice: str) -> None:
    """Overlapping sets at the same time: nobody is told of a deadlock, and each request id has one workflow."""
    for turn in range(10):
        chosen = {f"{turn}-{number}": str(uuid.uuid4()) for number in range(12)}

        async def submit(seed: int, chosen: dict[str, str] = chosen) -> dict[str, str]:
            mine = random.Random(seed).sample(sorted(chosen), 8)
            given = many(*[one(request_id, workflow_id=chosen[request_id]) for request_id in mine], on_behalf_of=alice)
            return dict(zip(mine, ids_of(await cron.SubmitWorkflows(given)), strict=True))

        answers = await asyncio.gather(*(submit(seed) for seed in range(5)))
        assert all(workflow_id == chosen[request_id] for answer in answers for request_id, workflow_id in answer.items())
        wanted = {workflow_id for answer in answers for workflow_id in answer.values()}
        assert {found.workflow_id for found in await results(cron, *chosen.values())} == wanted
        assert {len(found.outputs) for found in await results(cron, *wanted, with_outputs=True)} == {1}


async def finish(acme: Acme, *outputs: str) -> None:
    await acme.close(await acme.one(), *outputs)


async def test_results_tell_what_became_of_workflows(acme: Acme, cron: Any) -> None:
    answer = await acme.user.SubmitWorkflows(
        many(one("r0", spec("a"), spec("b", "a"), spec("c", "a")), one("r1", spec("a"), spec("b")), one("r2"))
    )
    flow, failing, waiting = ids_of(answer)
    assert [(found.state, found.open) for found in await results(acme.user, flow, failing, waiting)] == [(WAITING, True)] * 3
    await finish(acme, "a")
    running, last = await acme.one(), await acme.one()
    assert await acme.close(await acme.one(), errors=["broken"]) == FAILED
    await finish(acme)
    await finish(acme, "w")
    found = await results(cron, NOWHERE, waiting, flow, failing)
    assert [(result.workflow_id, result.state, result.open) for result in found] == [
        (waiting, SUCCESSFUL, False),
        (flow, RUNNING, True),
        (failing, FAILED, False),
    ]
    assert not any(result.outputs for result in found)
    # What runs has returned nothing yet, whatever it has set.
    await acme.worker.SetOutput(pb.SetOutputRequest(colony_name=COLONY, attempt=ref_of(running), outputs=[value("early")]))
    (flown, failed) = await results(cron, flow, failing, with_outputs=True)
    assert [(node.node_name, list(node.outputs)) for node in flown.outputs] == [("b", []), ("c", [])]
    assert [(node.node_name, list(node.outputs)) for node in failed.outputs] == [("a", []), ("b", [])]
    await acme.close(running, "1", "2")
    await acme.close(last, "3")
    (flown,) = await results(cron, flow, with_outputs=True)
    assert (flown.state, flown.open) == (SUCCESSFUL, False)
    assert [(node.node_name, list(node.outputs)) for node in flown.outputs] == [
        ("b", [value("1"), value("2")]),
        ("c", [value("3")]),
    ]
    assert [node.process_id for node in flown.outputs] == list(answer.workflows[0].process_ids[1:])


async def test_results_are_those_of_added_children_too(acme: Acme) -> None:
    (flow,) = ids_of(await acme.user.SubmitWorkflows(many(one("r0", spec("a"), spec("z")))))
    parent = await acme.one()
    await acme.worker.AddChildren(
        pb.AddChildrenRequest(colony_name=COLONY, request_id="more", attempt=ref_of(parent), nodes=[spec("b"), spec("c", "b")])
    )
    await acme.close(parent, "not last")
    for _ in range(3):
        child = await acme.one()
        await acme.close(child, child.spec.node_name)
    (result,) = await results(acme.user, flow, with_outputs=True)
    assert [(node.node_name, list(node.outputs)) for node in result.outputs] == [("z", [value("z")]), ("c", [value("c")])]


async def test_a_failed_workflow_may_still_be_open(acme: Acme) -> None:
    (flow,) = ids_of(await acme.user.SubmitWorkflows(many(one("r0", spec("a"), spec("b")))))
    await acme.close(await acme.one(), errors=["broken"])
    (result,) = await results(acme.user, flow)
    assert (result.state, result.open) == (FAILED, True)


async def test_results_stay_within_their_bounds(acme: Acme) -> None:
    ids = [str(uuid.uuid4()) for _ in range(1_001)]
    for wanted, with_outputs, field in (
        ([], False, "workflow_ids"),
        (ids, False, "workflow_ids"),
        (ids[:101], True, "workflow_ids"),
        (["x"], False, "workflow_ids[0]"),
        ([NOWHERE, NOWHERE.upper()], False, "workflow_ids"),
    ):
        error = await refusal(results(acme.user, *wanted, with_outputs=with_outputs))
        assert [violation.field for violation in error.violations] == [field]
    assert await results(acme.user, *ids[:1_000]) == []
    large = many(*[one(f"r{number}") for number in range(5)])
    flows = ids_of(await acme.user.SubmitWorkflows(large))
    for _ in flows:
        await finish(acme, "x" * 3_900_000)
    error = await refusal(results(acme.user, *flows, with_outputs=True))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUTPUTS_TOO_LARGE")
    assert len(await results(acme.user, *flows[:4], with_outputs=True)) == 4
    assert [found.state for found in await results(acme.user, *flows)] == [SUCCESSFUL] * 5


def cancel(workflow_id: str, on_behalf_of: str = "") -> pb.CancelWorkflowRequest:
    return pb.CancelWorkflowRequest(colony_name=COLONY, workflow_id=workflow_id, on_behalf_of=on_behalf_of)


async def states(acme: Acme, workflow_ids: Sequence[str]) -> list[int]:
    return [found.state for found in await results(acme.user, *workflow_ids)]


async def test_the_cron_service_cancels_what_is_its_members(acme: Acme, cron: Any, alice: str) -> None:
    owner = acme.keys.owner
    mine, again = ids_of(await cron.SubmitWorkflows(many(one("r0"), one("r1"), on_behalf_of=alice)))
    (owners,) = ids_of(await acme.by(owner).SubmitWorkflows(many(one("r"))))
    await cron.CancelWorkflow(cancel(mine, alice))
    assert await states(acme, [mine, again, owners]) == [CANCELLED, WAITING, WAITING]
    before = await acme.history(await process_of(acme, mine))
    await cron.CancelWorkflow(cancel(mine, alice))
    assert await acme.history(await process_of(acme, mine)) == before
    for call, reason in (
        # An owner may cancel all, but nobody does for him what is not his.
        (cron.CancelWorkflow(cancel(again, owner.identity)), "NOT_THE_INITIATOR"),
        (cron.CancelWorkflow(cancel(owners, alice)), "NOT_THE_INITIATOR"),
        (cron.CancelWorkflow(cancel(again, key_of("stranger").identity)), "ON_BEHALF_REVOKED"),
        (acme.user.CancelWorkflow(cancel(again, alice)), "ON_BEHALF_NOT_ALLOWED"),
        (acme.by(owner).CancelWorkflow(cancel(again, alice)), "ON_BEHALF_NOT_ALLOWED"),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)
    assert (await refusal(cron.CancelWorkflow(cancel(NOWHERE, alice)))).code is grpc.StatusCode.NOT_FOUND
    error = await refusal(cron.CancelWorkflow(cancel(again)))
    assert [violation.field for violation in error.violations] == ["on_behalf_of"]
    assert await states(acme, [again, owners]) == [WAITING, WAITING]
    await cron.CancelWorkflow(cancel(owners, owner.identity))
    await finish(acme, "done")
    await cron.CancelWorkflow(cancel(again, alice))
    assert await states(acme, [mine, again, owners]) == [CANCELLED, SUCCESSFUL, CANCELLED]


async def process_of(acme: Acme, workflow_id: str) -> str:
    request = pb.ListProcessesRequest(colony_name=COLONY, workflow_id=workflow_id)
    return str((await acme.user.ListProcesses(request)).processes[0].process_id)


async def test_the_client_submits_together_what_comes_together(acme: Acme, database_url: str) -> None:
    """One of them is bad, one was submitted before, and one comes twice."""
    host, _, port = acme.cluster.replicas["scheduler"][0].address.partition(":")
    async with AsyncClient(host, int(port), COLONY, acme.keys.user, CLUSTER) as client:

        async def submit(name: str, request_id: str | None = None) -> pb.SubmitWorkflowResponse:
            return await client.submit_workflow(one("", spec(name)).workflow, request_id=request_id)

        before = await submit("before", "r")
        answers = await asyncio.gather(
            *(submit(f"n{number}") for number in range(20)),
            submit("before", "r"),
            submit("twice", "s"),
            submit("twice", "s"),
            submit("other", "r"),
            submit(""),
            return_exceptions=True,
        )
    *good, again, twice, same, reused, bad = answers
    assert [type(answer) for answer in good] == [pb.SubmitWorkflowResponse] * 20
    assert (again, twice) == (before, same)
    assert isinstance(reused, AlreadyExistsError)
    assert isinstance(bad, InvalidArgumentError)
    assert [violation.field for violation in bad.violations] == ["workflow.nodes[0].node_name"]
    assert rows(database_url)["workflow"] == 22
