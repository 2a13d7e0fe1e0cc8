"""The audit export of the scheduler: what it refuses, what it holds together, and that a database which was meddled with shows."""

import io
import itertools
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.audit.findings import Kind, Report
from colonies.audit.trust import Trust
from colonies.audit.verify import verify
from colonies.scheduler.v1 import audit_pb2 as pb
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from colonies.scheduler.v1 import spec_pb2
from servicekit.clock import ManualClock
from services.scheduler.domain import auditing
from services.scheduler.store import audit as store
from tests.audit.edits import random_edit
from tests.harness.calls import eventually, first, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

from .audit_story import Story
from .scheduler_colony import SERVICES, Acme, ref_of, spec, value

pytestmark = pytest.mark.asyncio

# `make test-audit` sets a thousand.
WORKFLOWS = int(os.environ.get("COLONIES_TEST_WORKFLOWS", "100"))
EDITS = 1_000
NOWHERE = "123e4567-e89b-12d3-a456-426614174000"


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def exported(stub: Any, **fields: Any) -> bytes:
    request = pb.ExportAuditRequest(**{"colony_name": COLONY, **fields})
    return b"".join([response.lines async for response in stub.ExportAudit(request)])


def checked(acme: Acme, data: bytes, *, max_findings: int = 20) -> Report:
    keys = (acme.keys.service("scheduler"), acme.keys.owner, acme.keys.service("cron"))
    sealers, owners, crons = (frozenset({key.identity}) for key in keys)
    return verify(io.BytesIO(data), Trust(sealers, owners, crons=crons), max_findings=max_findings)


async def refused(acme: Acme, stub: Any = None, **fields: Any) -> Any:
    request = pb.ExportAuditRequest(**{"colony_name": COLONY, **fields})
    return await refusal(first((stub or acme.user).ExportAudit(request)))


async def test_what_is_out_of_bounds_is_named(acme: Acme) -> None:
    cases: dict[str, dict[str, Any]] = {
        "process_ids[1]": {"process_ids": [NOWHERE, "no-uuid"]},
        "process_ids": {"process_ids": [NOWHERE] * 10_001},
        "workflow_ids[0]": {"workflow_ids": ["x"]},
        "workflow_ids": {"workflow_ids": [NOWHERE] * 1_001},
        "submitted_since": {"submitted_since": {"seconds": -1}},
        "submitted_before": {"submitted_before": {"nanos": 2_000_000_000}},
    }
    for field, fields in cases.items():
        error = await refused(acme, **fields)
        assert (error.code, error.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_what_is_not_in_the_colony_is_not_found(acme: Acme) -> None:
    other = key_of("other owner")
    await acme.cluster.add_colony("other", other)
    (theirs,) = await acme.submit(spec(conditions={"executor_type": "cli"}))
    for fields in ({"process_ids": [NOWHERE]}, {"workflow_ids": [NOWHERE]}):
        error = await refused(acme, **fields)
        assert error.code is grpc.StatusCode.NOT_FOUND
    # And what is in another colony is not found in this one.
    error = await refused(acme, acme.by(other), colony_name="other", process_ids=[theirs])
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "PROCESS_NOT_FOUND")
    error = await refused(acme, acme.by(other), process_ids=[theirs])
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")


async def test_without_receipts_there_is_nothing_to_export(
    new_cluster: Callable[..., Awaitable[Cluster]], database_url: str
) -> None:
    acme = Acme(await new_cluster(services=SERVICES, settings={"scheduler": {"receipts": False}}))
    await acme.submit(spec())
    await acme.close(await acme.one(), "1")
    error = await refused(acme)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RECEIPTS_NOT_KEPT")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM scheduler.receipt").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM scheduler.ledger WHERE hash IS NOT NULL").fetchone() == (0,)


async def test_what_was_submitted_without_receipts_is_told_apart(new_cluster: Callable[..., Awaitable[Cluster]]) -> None:
    cluster = await new_cluster(services=SERVICES, settings={"scheduler": {"receipts": False}})
    before = Acme(cluster)
    (unaudited,) = await before.submit(spec())
    await cluster.start("scheduler", receipts=True)
    acme = Acme(cluster, replica=1)
    await acme.submit(spec())
    assert (await acme.one()).process_id == unaudited
    report = checked(acme, await exported(acme.user))
    assert report.intact(), report.findings
    assert not report.intact(strict=True)
    assert report.counts["processes not audited"] == 1


async def test_what_is_large_is_read_in_parts(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that do not go together, a process whose lines do not, and pages with a process or two each."""
    monkeypatch.setattr(auditing, "MAX_LOADED", 10_000)
    monkeypatch.setattr(auditing, "LARGE_CALL", 5_000)
    monkeypatch.setattr(auditing, "PAGE", 2)
    for size in (6_000, 6_000, 20_000, 1, 1):
        await acme.submit(spec(args=[value("1" * size)], max_retries=9), spec())
    for _ in range(8):
        await acme.close(await acme.one(), errors=["x" * 3_000], retryable=True)
    await acme.close(await acme.one(), "1")
    data = await exported(acme.user)
    report = checked(acme, data)
    assert report.intact(strict=True), report.findings
    assert (report.counts["processes"], report.counts["processes not audited"]) == (10, 0)


async def test_what_is_removed_during_an_export_ends_it(acme: Acme, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen in outline and is gone before its lines are read cannot be told of; half a process is not."""
    await acme.submit(spec(), spec())
    read = store.AuditLedgers.page

    async def page(self: store.AuditLedgers, *args: Any) -> Any:
        found = await read(self, *args)
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM scheduler.ledger")
        return found

    monkeypatch.setattr(store.AuditLedgers, "page", page)
    request = pb.ExportAuditRequest(colony_name=COLONY)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in acme.user.ExportAudit(request):
            pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_time_finds_its_processes_wherever_they_are(
    new_cluster: Callable[..., Awaitable[Cluster]],
) -> None:
    clock = ManualClock(time.time_ns())
    acme = Acme(await new_cluster(services=SERVICES, clock=clock))
    times = []
    for _ in range(9):
        times.append(clock.now_ns() // 1_000)
        await acme.submit(spec())
        clock.advance(seconds=1_000)

    async def within(since: int | None, before: int | None) -> int:
        fields: dict[str, Any] = {}
        for name, moment in (("submitted_since", since), ("submitted_before", before)):
            if moment is not None:
                fields[name] = Timestamp(seconds=moment // 1_000_000, nanos=moment % 1_000_000 * 1_000)
        return (await exported(acme.user, **fields)).count(b'"record":"process"')

    for begin, end in itertools.combinations(range(9), 2):
        assert await within(times[begin], times[end]) == end - begin
    assert await within(None, times[4]) == 4
    assert await within(times[4], None) == 5
    assert await within(times[8] + 1, None) == 0
    assert await within(None, times[0]) == 0


async def test_a_ledger_that_an_older_scheduler_wrote_to_is_not_audited(acme: Acme, database_url: str) -> None:
    """It knows nothing of hashes, and leaves a hole in the chain; the others stay whole."""
    touched, _ = await acme.submit(spec(), spec())
    await acme.close(await acme.one(), "1")
    await acme.close(await acme.one(), "1")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE scheduler.ledger SET hash = NULL WHERE process_id = %s AND to_state = 2", [touched])
    report = checked(acme, await exported(acme.user))
    assert report.intact(), report.findings
    assert not report.intact(strict=True)
    assert (report.counts["processes"], report.counts["processes not audited"]) == (2, 1)


async def test_several_workflows_of_one_call_prove_themselves_whatever_is_removed(acme: Acme) -> None:
    """Each has its place in the call, which is kept as long as one of them is."""
    cron, alice = acme.by(acme.keys.service("cron")), acme.keys.user.identity
    nodes = [[spec("a"), spec("b", "a")], [spec("a", priority=2)], [spec("a"), spec("b"), spec("c", "b")]]
    submissions = [
        scheduler_pb.WorkflowSubmission(
            request_id=f"r{nth}", workflow_id=str(uuid.uuid4()), workflow=spec_pb2.WorkflowSpec(nodes=mine)
        )
        for nth, mine in enumerate(nodes)
    ]
    request = scheduler_pb.SubmitWorkflowsRequest(colony_name=COLONY, submissions=submissions, on_behalf_of=alice)
    await cron.SubmitWorkflows(request)
    for one in submissions:
        named = {"colony_name": COLONY, "workflow_id": one.workflow_id}
        left = 6 - sum(len(mine) for mine in nodes[: int(one.request_id[1:])])
        data = await exported(acme.user)
        report = checked(acme, data)
        assert report.intact(strict=True), report.findings
        assert report.counts["processes"] == left
        assert data.count(b"SubmitWorkflows") == 1
        await cron.CancelWorkflow(scheduler_pb.CancelWorkflowRequest(**named, on_behalf_of=alice))
        assert checked(acme, await exported(acme.user)).intact(strict=True)
        await acme.user.RemoveWorkflow(scheduler_pb.RemoveWorkflowRequest(**named))

        async def gone(workflow_id: str = one.workflow_id) -> bool:
            request = scheduler_pb.ListProcessesRequest(colony_name=COLONY, workflow_id=workflow_id)
            return not (await acme.user.ListProcesses(request)).processes

        await eventually(gone)
    assert b"SubmitWorkflows" not in await exported(acme.user)


async def test_what_is_removed_is_gone_and_the_rest_still_proves_itself(acme: Acme) -> None:
    """One call submitted both, one closed both; the other process still needs those calls."""
    gone, kept = await acme.submit(spec(), spec())
    assignments = await acme.assign(at_most=2, wait_ms=20_000)
    closes = [scheduler_pb.Close(attempt=ref, success=scheduler_pb.Close.Success()) for ref in map(ref_of, assignments)]
    await acme.worker.CloseProcesses(scheduler_pb.CloseProcessesRequest(colony_name=COLONY, closes=closes))
    await acme.user.RemoveProcess(scheduler_pb.RemoveProcessRequest(colony_name=COLONY, process_id=gone))
    data = await exported(acme.user)
    report = checked(acme, data)
    assert report.intact(strict=True), report.findings
    assert report.counts["processes"] == 1
    assert kept.encode() in data


@pytest.mark.parametrize(
    ("meddling", "kind"),
    [
        ("UPDATE scheduler.ledger SET executor_name = 'worker-9' WHERE to_state = 2", Kind.CHAIN),
        ("UPDATE scheduler.ledger SET at = at + interval '1 us' WHERE to_state = 3", Kind.CHAIN),
        ("UPDATE scheduler.ledger SET errors = '{it broke}' WHERE to_state = 3", Kind.CHAIN),
        ("UPDATE scheduler.process SET initiator_name = 'bob'", Kind.CHAIN),
        ("UPDATE scheduler.process SET priority_time = priority_time - 1", Kind.CHAIN),
        ("DELETE FROM scheduler.ledger WHERE to_state = 2", None),
        ("UPDATE scheduler.receipt SET body = body || '\\x00'::bytea", None),
        ("UPDATE scheduler.receipt SET time_ms = time_ms + 1", None),
        ("DELETE FROM scheduler.receipt", None),
        ("UPDATE scheduler.ledger SET receipt = NULL WHERE to_state = 3", None),
    ],
)
async def test_a_database_that_was_meddled_with_shows(acme: Acme, database_url: str, meddling: str, kind: Kind | None) -> None:
    await acme.submit(spec())
    await acme.close(await acme.one(), "1")
    assert checked(acme, await exported(acme.user)).intact(strict=True)
    with psycopg.connect(database_url) as connection:
        assert connection.execute(meddling.encode()).rowcount > 0
    report = checked(acme, await exported(acme.user))
    assert not report.intact()
    assert kind is None or kind in {finding.kind for finding in report.findings}, report.findings


async def test_many_workflows_and_a_thousand_edits(acme: Acme) -> None:
    """Intact it passes; every single edit is found at the line where it was made, and what stands there is named."""
    await Story(acme, seed=20_261_123).live(WORKFLOWS)
    data = await exported(acme.user)
    report = checked(acme, data)
    assert report.intact(strict=True), report.findings + report.warnings
    assert report.counts["processes"] >= 4 * WORKFLOWS
    print(f"{len(data)} bytes, {dict(report.counts)}")
    for seed in range(EDITS):
        edit = random_edit(data, seed)
        found = checked(acme, edit.data, max_findings=1).findings
        assert [finding.line for finding in found] == [edit.line], (seed, edit.name, found)
        assert found[0].where, (seed, edit.name)
