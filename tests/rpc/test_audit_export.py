"""The audit file of running services, checked with nothing but itself and the identities that are trusted."""

import io
from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio

from colonies.audit.findings import Report
from colonies.audit.verify import verify
from colonies.scheduler.v1 import audit_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.process_pb2 import PROCESS_STATE_FAILED, PROCESS_STATE_SUCCESSFUL
from tests.harness.cluster import COLONY, Cluster
from tests.rpc.scheduler_colony import SERVICES, Acme, ref_of, spec, value


@pytest_asyncio.fixture
async def acme(new_cluster: Callable[..., Awaitable[Cluster]]) -> Acme:
    return Acme(await new_cluster(services=SERVICES))


async def exported(acme: Acme, **scope: object) -> bytes:
    request = audit_pb2.ExportAuditRequest(colony_name=COLONY, **scope)  # type: ignore[arg-type]
    return b"".join([answer.lines async for answer in acme.user.ExportAudit(request)])


def checked(acme: Acme, data: bytes, after: bytes | None = None) -> Report:
    trusted = frozenset({acme.keys.service("scheduler").identity, acme.keys.owner.identity})
    return verify(io.BytesIO(data), trusted, after=None if after is None else io.BytesIO(after))


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
    assert report.intact(), "\n".join(map(str, report.findings))
    assert report.counts["processes"] == 11
    assert report.counts["processes not audited"] == 0
    await everything_that_is_asked_for_again(acme)
    report = checked(acme, await exported(acme), after=earlier)
    assert report.intact(), "\n".join(map(str, report.findings))
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
    assert report.intact(), report.findings
    assert report.counts["processes"] == 2
    report = checked(acme, await exported(acme, process_ids=[nodes[1]]))
    assert report.intact(), report.findings
    assert report.counts["processes"] == 1
