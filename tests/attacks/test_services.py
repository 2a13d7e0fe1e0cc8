"""The services' own RPCs and what services do for members: nobody else calls the first, and they do no more than members may."""

import uuid
from typing import Any

import grpc
import pytest

from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.signing import SigningChannel
from servicekit.caller import Role
from servicekit.policy import Policy
from tests.harness.calls import eventually, first, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.harness.servers import ALL_SERVICES
from tests.rpc.methods import Method, all_methods
from tests.rpc.scheduler_colony import spec

from .places import ACME, furnish, remove_user
from .requests import filled
from .tables import contents
from .test_outsiders import whole_answer

pytestmark = pytest.mark.asyncio

DENIED = grpc.StatusCode.PERMISSION_DENIED
NAMED: dict[str, Any] = {"colony_name": COLONY}


def of_services_alone() -> list[Method]:
    """The RPCs that the policy gives to services and to nobody else."""
    rules = Policy.load().rules
    return [
        method for method in all_methods()
        if (rule := rules[method.path]).roles <= {Role.SERVICE} and not rule.initiators
    ]  # fmt: skip


async def test_nobody_but_services_calls_what_is_for_services(cluster: Cluster, database_url: str) -> None:
    acme = await furnish(cluster, ACME)
    before = contents(database_url)
    methods = of_services_alone()
    assert len(methods) >= 7
    for method in methods:
        answers = set()
        for key in (*acme.keys.values(), cluster.keys.stranger, cluster.keys.server_owner):
            answers.add(await whole_answer(cluster, key, method, filled(method, acme.values())))
        ((code, *_),) = answers
        assert code is DENIED, method.path
    assert contents(database_url) == before


async def test_a_service_calls_no_more_than_its_own(cluster: Cluster, database_url: str) -> None:
    """One service's stolen key: PutExecutor is the registry's, ReportHeard the scheduler's, submits for others cron's."""
    acme = await furnish(cluster, ACME)
    before = contents(database_url)
    rules = Policy.load().rules
    refused = 0
    for method in all_methods():
        for name in ALL_SERVICES:
            if Role.ANYONE in rules[method.path].roles or rules[method.path].grants_role(Role.SERVICE, name):
                continue
            code, *_ = await whole_answer(cluster, cluster.keys.service(name), method, filled(method, acme.values()))
            assert code is DENIED, (method.path, name)
            refused += 1
    assert refused > 4 * 50
    assert contents(database_url) == before


def submit(on_behalf_of: str, request_id: str, colony: str = COLONY) -> Any:
    return pb.SubmitProcessesRequest(colony_name=colony, request_id=request_id, specs=[spec()], on_behalf_of=on_behalf_of)


def submit_several(on_behalf_of: str, request_id: str, colony: str = COLONY) -> Any:
    workflow = spec_pb2.WorkflowSpec(nodes=[spec("a")])
    submissions = [
        pb.WorkflowSubmission(request_id=f"{request_id}-{n}", workflow=workflow, workflow_id=str(uuid.uuid4()))
        for n in range(2)
    ]
    return pb.SubmitWorkflowsRequest(colony_name=colony, submissions=submissions, on_behalf_of=on_behalf_of)


def cancel(on_behalf_of: str, workflow_id: str, colony: str = COLONY) -> Any:
    return pb.CancelWorkflowRequest(colony_name=colony, workflow_id=workflow_id, on_behalf_of=on_behalf_of)


async def test_cron_acts_for_members_alone_and_for_them_no_longer_than_they_are(cluster: Cluster, database_url: str) -> None:
    cron = cluster.stub(SchedulerServiceStub, cluster.keys.service("cron"))
    alice = cluster.keys.user.identity
    acme = await furnish(cluster, ACME)
    await cron.SubmitProcesses(submit(alice, "allowed"))
    await cluster.register(COLONY, "pending", key_of("pending"))
    await cluster.add_executor(COLONY, cluster.keys.owner, "rejected", key_of("rejected"))
    identity = {**NAMED, "identity": key_of("rejected").identity}
    await cluster.stub(RegistryServiceStub, cluster.keys.owner).RejectExecutor(registry_pb.RejectExecutorRequest(**identity))
    await remove_user(cluster, acme, "alice")

    async def refused() -> bool:
        try:
            await cron.SubmitProcesses(submit(alice, "allowed"))
        except grpc.aio.AioRpcError:
            return True
        return False

    await eventually(refused, seconds=1.0)
    before = contents(database_url)
    for number, (key, colony) in enumerate(
        [(key_of(name), COLONY) for name in ("alice", "pending", "rejected", "stranger")]
        + [(cluster.keys.server_owner, COLONY), (cluster.keys.service("cron"), COLONY), (cluster.keys.owner, "nowhere")]
    ):
        for call in (
            cron.SubmitProcesses(submit(key.identity, f"late-{number}", colony)),
            cron.SubmitWorkflows(submit_several(key.identity, f"late-{number}", colony)),
            cron.CancelWorkflow(cancel(key.identity, acme.workflow_id, colony)),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == (DENIED, "ON_BEHALF_REVOKED")
    for malformed in ("", "alice", alice.upper(), alice + "\n"):
        for call in (
            cron.SubmitProcesses(submit(malformed, "malformed")),
            cron.SubmitWorkflows(submit_several(malformed, "malformed")),
            cron.CancelWorkflow(cancel(malformed, acme.workflow_id)),
        ):
            error = await refusal(call)
            assert [violation.field for violation in error.violations] == ["on_behalf_of"]
    assert contents(database_url) == before


async def test_nobody_but_cron_acts_for_another(cluster: Cluster, database_url: str) -> None:
    acme = await furnish(cluster, ACME)
    before = contents(database_url)
    everybody = [*acme.keys.values(), cluster.keys.server_owner, cluster.keys.stranger]
    services = [cluster.keys.service(name) for name in ALL_SERVICES if name != "cron"]
    for caller in (*everybody, *services):
        stub = cluster.stub(SchedulerServiceStub, caller)
        for member in acme.keys.values():
            workflow = spec_pb2.WorkflowSpec(nodes=[spec("a")])
            flow = pb.SubmitWorkflowRequest(**NAMED, request_id="flow", workflow=workflow, on_behalf_of=member.identity)
            for call in (
                stub.SubmitProcesses(submit(member.identity, "process")),
                stub.SubmitWorkflow(flow),
                stub.SubmitWorkflows(submit_several(member.identity, "several")),
                stub.CancelWorkflow(cancel(member.identity, acme.workflow_id)),
            ):
                assert (await refusal(call)).code is DENIED
    assert contents(database_url) == before


async def test_a_field_numbered_as_on_behalf_of_makes_nobody_act_for_another(cluster: Cluster, database_url: str) -> None:
    """A field that a method does not have, put into its bytes where another method has `on_behalf_of`."""
    await furnish(cluster, ACME)
    before = contents(database_url)
    rules = Policy.load().rules
    for method in all_methods():
        fields = method.descriptor.input_type.fields_by_name
        # What services may read themselves they need no member for.
        if not method.in_colony or "on_behalf_of" in fields or rules[method.path].grants_role(Role.SERVICE, "cron"):
            continue
        extra = b"\x22\x40" + cluster.keys.owner.identity.encode()
        body = filled(method, ACME.values()).SerializeToString() + extra
        channel = SigningChannel(cluster.channel(method.service), cluster.signer(cluster.keys.service("cron")))
        call: Any = (channel.unary_stream if method.descriptor.server_streaming else channel.unary_unary)(method.path)(body)
        error = await refusal(first(call) if method.descriptor.server_streaming else call)
        assert error.code in {DENIED, grpc.StatusCode.INVALID_ARGUMENT}, method.path
    assert contents(database_url) == before
