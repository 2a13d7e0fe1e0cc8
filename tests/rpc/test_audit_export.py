"""The audit file of running services, checked with nothing but itself and the identities that are trusted."""

import io
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from colonies.audit.findings import Kind, Report
from colonies.audit.trust import Trust
from colonies.audit.verify import verify
from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cli.audit_request import Wanted
from colonies.cron.v1 import cron_service_pb2 as cron_pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.json_calls import SUFFIX
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import audit_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.process_pb2 import PROCESS_STATE_FAILED, PROCESS_STATE_SUCCESSFUL
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from services.scheduler.domain import auditing
from services.scheduler.domain.audited import AuditProcess
from services.scheduler.store.audit import AuditLedgers
from tests.audit.edits import random_edit
from tests.harness.calls import eventually
from tests.harness.cluster import CLUSTER, COLONY, USER, Cluster
from tests.harness.keys import key_of
from tests.rpc.rotations import rotate
from tests.rpc.scheduler_colony import SERVICES, Acme, ref_of, spec, value


@pytest_asyncio.fixture(params=[False, True], ids=["protobuf", "json"])
async def acme(new_cluster: Callable[..., Awaitable[Cluster]], request: pytest.FixtureRequest) -> Acme:
    """With every call that the file holds, from the colony's first, in one form or the other."""
    return Acme(await new_cluster(services=SERVICES, in_json=request.param))


async def exported(acme: Acme, **scope: object) -> bytes:
    request = audit_pb2.ExportAuditRequest(colony_name=COLONY, **scope)  # type: ignore[arg-type]
    return b"".join([answer.lines async for answer in acme.user.ExportAudit(request)])


def checked(acme: Acme, data: bytes, after: bytes | None = None, *, crons: bool = True) -> Report:
    trust = Trust(
        sealers=frozenset({acme.keys.service("scheduler").identity}),
        owners=frozenset({acme.keys.owner.identity}),
        crons=frozenset({acme.keys.service("cron").identity} if crons else ()),
    )
    return verify(io.BytesIO(data), trust, after=None if after is None else io.BytesIO(after))


async def everything_that_is_asked_for(acme: Acme) -> None:
    """Submits, closes, outputs, retries, cancels and children, by all who may."""
    await acme.submit(spec(max_retries=1), spec(), spec())
    await acme.close(await acme.one(), errors=["try again", 'a "b"\n\t\x01é'], retryable=True)
    for _ in range(2):
        await acme.close(await acme.one(), "1")
    await acme.close(await acme.one(), errors=["never mind"], retryable=True)
    first, second = await acme.submit(spec(), spec(), stub=acme.by(acme.keys.owner))
    await acme.by(acme.keys.owner).CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=first))
    running = await acme.one()
    assert running.process_id == second
    for text in ("early", "later"):
        await acme.worker.SetOutput(pb.SetOutputRequest(colony_name=COLONY, attempt=ref_of(running), outputs=[value(text)]))
    await acme.close(running)
    workflow, _ = await acme.submit_workflow(spec("a"), spec("b", "a"), spec("c", "b"))
    assert await acme.close(await acme.one(), errors=["no"]) == PROCESS_STATE_FAILED
    await acme.user.RetryWorkflow(pb.RetryWorkflowRequest(colony_name=COLONY, workflow_id=workflow))
    parent = await acme.one()
    children = pb.AddChildrenRequest(
        colony_name=COLONY, request_id="grow", attempt=ref_of(parent), nodes=[spec("x"), spec("y")]
    )
    await acme.worker.AddChildren(children)
    await acme.worker.SetOutput(pb.SetOutputRequest(colony_name=COLONY, attempt=ref_of(parent), outputs=[value("1")]))
    assert await acme.close(parent, "2") == PROCESS_STATE_SUCCESSFUL
    await acme.one()
    await acme.user.CancelWorkflow(pb.CancelWorkflowRequest(colony_name=COLONY, workflow_id=workflow))
    await acme.submit(spec(), stub=acme.worker)


@pytest.mark.asyncio
async def test_what_a_server_exports_is_intact(acme: Acme) -> None:
    await everything_that_is_asked_for(acme)
    earlier = await exported(acme)
    report = checked(acme, earlier)
    assert report.intact(strict=True), "\n".join(map(str, report.findings + report.warnings))
    assert report.counts["processes"] == 11
    assert report.counts["processes not audited"] == 0
    records = [json.loads(line[65:]) for line in earlier.splitlines()]
    methods = {record["method"].rpartition("/")[2] for record in records if record["record"] == "call"}
    expected = {
        "AddColony", "AddUser", "RegisterExecutor", "ApproveExecutor", "SubmitProcesses", "SubmitWorkflow", "CloseProcesses",
        "CancelProcess", "CancelWorkflow", "RetryWorkflow", "AddChildren", "SetOutput",
    }  # fmt: skip
    assert methods == ({one + SUFFIX for one in expected} if acme.cluster.in_json else expected)
    await everything_that_is_asked_for_again(acme)
    report = checked(acme, await exported(acme), after=earlier)
    assert report.intact(strict=True), "\n".join(map(str, report.findings + report.warnings))
    assert report.counts["processes"] > 11


async def everything_that_is_asked_for_again(acme: Acme) -> None:
    """What was left open goes on."""
    await acme.close(await acme.one(), "1")
    await acme.submit(spec())


@pytest.mark.asyncio
async def test_a_part_of_a_colony(acme: Acme) -> None:
    await acme.submit(spec())
    workflow, nodes = await acme.submit_workflow(spec("a"), spec("b"))
    report = checked(acme, await exported(acme, workflow_ids=[workflow]))
    assert report.intact(strict=True), report.findings + report.warnings
    assert report.counts["processes"] == 2
    report = checked(acme, await exported(acme, process_ids=[nodes[1]]))
    assert report.intact(strict=True), report.findings + report.warnings
    assert report.counts["processes"] == 1


@pytest.mark.asyncio
async def test_members_whose_keys_and_names_change(acme: Acme) -> None:
    """The user and an executor with a running attempt get new keys; another is renamed, a third thrown out, the user removed."""
    await acme.submit(spec(), spec())
    running = await acme.one()
    new_user, new_worker = key_of("new alice"), key_of("new worker-1")
    await rotate(acme.cluster, acme.keys.executor, new_worker)
    await rotate(acme.cluster, acme.keys.user, new_user, keep_old_ms=60_000)
    await rotate(acme.cluster, acme.keys.owner, key_of("new owner"), keep_old_ms=60_000)
    await acme.close(running, "1", stub=acme.by(new_worker))
    await acme.submit(spec(), stub=acme.by(new_user))
    owner = key_of("new owner")
    await acme.cluster.add_executor(COLONY, owner, "worker-2b", acme.keys.executor_2)
    await acme.cluster.add_executor(COLONY, owner, "worker-3", key_of("worker-3"))
    request = registry_pb.RejectExecutorRequest(colony_name=COLONY, identity=key_of("worker-3").identity)
    await acme.cluster.stub(RegistryServiceStub, owner).RejectExecutor(request)

    async def assigned() -> bool:
        return bool(await acme.assign(acme.worker_2))

    await eventually(assigned)
    removal = auth_pb.RemoveUserRequest(colony_name=COLONY, name=USER)
    await acme.cluster.stub(AuthServiceStub, owner).RemoveUser(removal)
    data = b"".join(
        [answer.lines async for answer in acme.by(owner).ExportAudit(audit_pb2.ExportAuditRequest(colony_name=COLONY))]
    )
    report = checked(acme, data)
    assert report.intact(strict=True), "\n".join(map(str, report.findings + report.warnings))
    assert report.counts["membership events"] >= 10


@pytest.mark.asyncio
async def test_what_cron_submits_is_on_its_members_account(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    acme = Acme(await new_cluster(services=(*SERVICES, "cron")))
    crons = acme.cluster.stub(CronServiceStub, acme.keys.user)
    schedule = cron_pb.Schedule(interval_ms=86_400_000)
    workflow = WorkflowSpec(nodes=[spec("a"), spec("b", "a")])
    await crons.AddCron(cron_pb.AddCronRequest(colony_name=COLONY, name="tick", schedule=schedule, workflow=workflow))
    await crons.RunCron(cron_pb.RunCronRequest(colony_name=COLONY, name="tick", request_id="r"))
    data = await exported(acme)
    report = checked(acme, data)
    assert report.intact(strict=True), "\n".join(map(str, report.findings + report.warnings))
    assert report.counts["processes"] == 2
    report = checked(acme, data, crons=False)
    assert all("no cron service that is trusted" in finding.message for finding in report.findings)
    assert len(report.findings) == 2


@pytest.mark.asyncio
async def test_every_edit_of_what_a_server_exported_is_found(acme: Acme) -> None:
    await everything_that_is_asked_for(acme)
    data = await exported(acme)
    for seed in range(300):
        edit = random_edit(data, seed)
        report = checked(acme, edit.data)
        assert report.findings[0].line == edit.line, (seed, edit.name, report.findings)


@pytest.mark.asyncio
async def test_who_comes_in_during_an_export_is_known_in_it(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each page is read somebody new comes in and submits."""
    monkeypatch.setattr(auditing, "PAGE", 1)
    read, numbers = AuditLedgers.page, itertools.count()

    async def page(self: AuditLedgers, *args: Any) -> list[AuditProcess]:
        number = next(numbers)
        if number < 3:
            key = key_of(f"late {number}")
            await acme.cluster.add_user(COLONY, acme.keys.owner, f"late-{number}", key)
            await acme.submit(spec(), stub=acme.by(key))
        return await read(self, *args)

    monkeypatch.setattr(AuditLedgers, "page", page)
    report = checked(acme, await exported(acme))
    assert report.intact(strict=True), report.findings
    assert report.counts["processes"] == 3


@pytest.mark.asyncio
async def test_a_file_is_what_was_asked_for_also_by_a_new_key(acme: Acme) -> None:
    workflow, nodes = await acme.submit_workflow(spec("a"), spec("b"))
    await acme.submit(spec())
    new = key_of("new alice")
    await rotate(acme.cluster, acme.keys.user, new)
    since, before = datetime(2020, 1, 1, 0, 0, 0, 123456, UTC), datetime(2199, 1, 1, tzinfo=UTC)
    wanted = Wanted(CLUSTER, COLONY, new.identity, [nodes[0].upper()], [workflow], since, before)
    request = audit_pb2.ExportAuditRequest(colony_name=COLONY, process_ids=wanted.process_ids, workflow_ids=[workflow])
    request.submitted_since.FromDatetime(since)
    request.submitted_before.FromDatetime(before)
    data = b"".join([answer.lines async for answer in acme.by(new).ExportAudit(request)])
    assert wanted.differences(io.BytesIO(data)) == []
    others: list[dict[str, Any]] = [
        {"key": key_of("eve").identity},
        {"since": None},
        {"process_ids": []},
        {"colony": "other"},
    ]
    for other in others:
        assert len(replace(wanted, **other).differences(io.BytesIO(data))) == 1, other


@pytest.mark.asyncio
async def test_the_server_owner_vouches_for_the_colony_that_it_added(acme: Acme) -> None:
    await acme.submit(spec())
    data = await exported(acme)
    sealers = frozenset({acme.keys.service("scheduler").identity})
    for adder, intact in ((acme.keys.server_owner, True), (acme.keys.service("scheduler"), False)):
        trust = Trust(sealers, server_owners=frozenset({adder.identity}))
        assert verify(io.BytesIO(data), trust).intact(strict=True) is intact


@pytest.mark.asyncio
async def test_what_was_removed_since_is_gone(acme: Acme) -> None:
    gone, *_ = await acme.submit(spec(), spec())
    await acme.by(acme.keys.user).CancelProcess(pb.CancelProcessRequest(colony_name=COLONY, process_id=gone))
    earlier = await exported(acme)
    await acme.user.RemoveProcess(pb.RemoveProcessRequest(colony_name=COLONY, process_id=gone))
    report = checked(acme, await exported(acme), after=earlier)
    assert report.intact(), report.findings
    assert [(one.kind, one.where) for one in report.warnings] == [(Kind.GONE, f"process {gone}")]
