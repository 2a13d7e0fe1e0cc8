"""Workflows that are submitted at the same time: they travel together, and each has its own answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio

from colonies import AsyncClient, PrivateKey
from colonies.errors import AlreadyExistsError, InvalidArgumentError
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import FunctionSpec, Value, WorkflowSpec

from .fake_server import CLUSTER, COLONY, FakeServer

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest_asyncio.fixture
async def client(server: FakeServer, key: PrivateKey) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("127.0.0.1", server.port, COLONY, key.hex, CLUSTER) as opened:
        yield opened


def flow(name: str, size: int = 0) -> WorkflowSpec:
    """A workflow of one function."""
    return WorkflowSpec(nodes=[FunctionSpec(node_name="n", func_name=name, args=[Value(data=b"x" * size)])])


async def names_of(client: AsyncClient, answers: Sequence[scheduler.SubmitWorkflowResponse]) -> list[str]:
    return [(await client.get_process(answer.process_ids[0])).spec.func_name for answer in answers]


@pytest.mark.asyncio
async def test_concurrent_workflows_travel_together(server: FakeServer, client: AsyncClient) -> None:
    alone = await client.submit_workflow(flow("alone"))
    answers = await asyncio.gather(*(client.submit_workflow(flow(f"f{number}")) for number in range(700)))
    assert server.workflow_sizes == [1, 500, 200]
    assert await names_of(client, [alone, *answers]) == ["alone", *[f"f{number}" for number in range(700)]]


@pytest.mark.asyncio
async def test_workflows_whose_answer_is_lost_enter_once(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("SubmitWorkflows", UNAVAILABLE, times=2)
    answers = await asyncio.gather(*(client.submit_workflow(flow(f"f{number}")) for number in range(5)))
    assert server.calls["SubmitWorkflows"] == 3
    assert sorted(server.workflows) == sorted(answer.workflow_id for answer in answers)


@pytest.mark.asyncio
async def test_a_bad_workflow_does_not_harm_its_neighbours(server: FakeServer, client: AsyncClient) -> None:
    names = ["a", "bad", "b", "taken"]
    results = await asyncio.gather(
        *(client.submit_workflow(flow(name), request_id=name) for name in names), return_exceptions=True
    )
    assert [type(result) for result in results] == [
        scheduler.SubmitWorkflowResponse,
        InvalidArgumentError,
        scheduler.SubmitWorkflowResponse,
        AlreadyExistsError,
    ]
    assert [found.spec.func_name for found in server.processes.values()] == ["a", "b"]


@pytest.mark.asyncio
async def test_workflows_that_do_not_fit_together_are_submitted_in_parts(server: FakeServer, client: AsyncClient) -> None:
    server.room = 100
    answers = await asyncio.gather(*(client.submit_workflow(flow(f"f{number}")) for number in range(700)))
    assert await names_of(client, answers) == [f"f{number}" for number in range(700)]
    assert 50 < max(server.workflow_sizes) <= 100


@pytest.mark.asyncio
async def test_nobody_waits_for_a_large_workflow(server: FakeServer, client: AsyncClient) -> None:
    sizes = [0, 1 << 19, 0]
    await asyncio.gather(*(client.submit_workflow(flow(f"f{size}", size)) for size in sizes))
    assert sorted(server.workflow_sizes) == [1, 2]


@pytest.mark.asyncio
async def test_an_older_server_gets_workflows_one_by_one(server: FakeServer, client: AsyncClient) -> None:
    server.refuse("SubmitWorkflows", grpc.StatusCode.UNIMPLEMENTED)
    answers = await asyncio.gather(*(client.submit_workflow(flow(f"f{number}"), request_id=str(number)) for number in range(3)))
    assert server.calls["SubmitWorkflow"] == 3
    assert await names_of(client, answers) == ["f0", "f1", "f2"]
