"""The scheduler as the members of "acme" call it: signed stubs, with the words that repeat."""

import itertools
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from redis.asyncio import Redis

from colonies.keys import PrivateKey
from colonies.scheduler.v1 import process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from services.scheduler.queue import keys
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY, Cluster

TABLES = ("submission", "workflow", "process", "edge", "attempt", "ledger", "attribute", "log", "channel", "channel_message")
SERVICES = ("auth", "registry", "scheduler")
_requests = itertools.count(1)


def value(text: str) -> spec_pb2.Value:
    """A value in JSON."""
    return spec_pb2.Value(data=text.encode())


def spec(node: str = "", *parents: Any, executor_type: str = "cli", conditions: Any = None, **fields: Any) -> Any:
    """A function spec; parents by name or as dependencies."""
    edges = [spec_pb2.Dependency(node_name=one) if isinstance(one, str) else one for one in parents]
    wanted = {"executor_type": executor_type, "dependencies": edges, **(conditions or {})}
    return spec_pb2.FunctionSpec(**{"node_name": node, "func_name": "f", "conditions": spec_pb2.Conditions(**wanted), **fields})


class Acme:
    """One replica's scheduler, and who calls it."""

    def __init__(self, cluster: Cluster, *, replica: int = 0) -> None:
        self.cluster = cluster
        self.keys = cluster.keys
        self._replica = replica

    def by(self, key: PrivateKey) -> Any:
        """The scheduler, called with this key."""
        return self.cluster.stub(SchedulerServiceStub, key, replica=self._replica)

    @property
    def user(self) -> Any:
        """Called by alice."""
        return self.by(self.keys.user)

    @property
    def worker(self) -> Any:
        """Called by worker-1."""
        return self.by(self.keys.executor)

    @property
    def worker_2(self) -> Any:
        """Called by worker-2."""
        return self.by(self.keys.executor_2)

    async def submit(self, *specs: Any, request_id: str = "", stub: Any = None, **fields: Any) -> list[str]:
        """Submits processes; their ids."""
        request = pb.SubmitProcessesRequest(
            **{"colony_name": COLONY, "request_id": request_id or f"request-{next(_requests)}", "specs": specs, **fields}
        )
        return list((await (stub or self.user).SubmitProcesses(request)).process_ids)

    async def submit_workflow(self, *nodes: Any, label: str = "", request_id: str = "", **fields: Any) -> tuple[str, list[str]]:
        """Submits a workflow; its id and those of its processes."""
        request = pb.SubmitWorkflowRequest(
            **{
                "colony_name": COLONY,
                "request_id": request_id or f"request-{next(_requests)}",
                "workflow": spec_pb2.WorkflowSpec(nodes=nodes, label=label),
                **fields,
            }
        )
        response = await self.user.SubmitWorkflow(request)
        return response.workflow_id, list(response.process_ids)

    def assigning(self, stub: Any = None, *, at_most: int = 1, wait_ms: int = 0) -> Any:
        """The call that asks for work."""
        request = pb.AssignProcessesRequest(colony_name=COLONY, max_processes=at_most, wait_ms=wait_ms)
        return (stub or self.worker).AssignProcesses(request)

    async def assign(self, stub: Any = None, *, at_most: int = 1, wait_ms: int = 0) -> Sequence[Any]:
        """Asks for work."""
        return list((await self.assigning(stub, at_most=at_most, wait_ms=wait_ms)).assignments)

    async def one(self, stub: Any = None, *, wait_ms: int = 20_000) -> Any:
        """Asks for one process, and gets one."""
        (assignment,) = await self.assign(stub, wait_ms=wait_ms)
        return assignment

    def closing(self, assignment: Any, *outputs: str, stub: Any = None, errors: Sequence[str] = (), **failure: Any) -> Any:
        """The call that closes: as failed when there is anything of a failure."""
        ref = ref_of(assignment)
        if errors or failure:
            close = pb.Close(attempt=ref, failure=pb.Close.Failure(errors=errors, **failure))
        else:
            close = pb.Close(attempt=ref, success=pb.Close.Success(outputs=[value(output) for output in outputs]))
        return (stub or self.worker).CloseProcesses(pb.CloseProcessesRequest(colony_name=COLONY, closes=[close]))

    async def close(self, assignment: Any, *outputs: str, **options: Any) -> int:
        """Closes; the state of the process."""
        (state,) = (await self.closing(assignment, *outputs, **options)).states
        return int(state)

    async def get(self, process_id: str) -> process_pb2.Process:
        """A process."""
        request = pb.GetProcessRequest(colony_name=COLONY, process_id=process_id)
        found = (await self.user.GetProcess(request)).process
        assert isinstance(found, process_pb2.Process)
        return found

    async def history(self, process_id: str) -> Any:
        """Attempts and transitions."""
        request = pb.GetProcessHistoryRequest(colony_name=COLONY, process_id=process_id)
        return await self.user.GetProcessHistory(request)

    async def heartbeat(self, *assignments: Any, stub: Any = None) -> Any:
        """A heartbeat with these attempts."""
        attempts = [ref_of(one) for one in assignments]
        return await (stub or self.worker).Heartbeat(pb.HeartbeatRequest(colony_name=COLONY, attempts=attempts))

    async def looked_after(self) -> None:
        """Waits until a replica looks after the queue: what runs out from here on has run out, and gets no grace."""
        url = self.cluster.replicas["scheduler"][self._replica].process.settings.redis_url.get_secret_value()
        async with Redis.from_url(url) as client:

            async def there() -> bool:
                return bool(await client.exists(keys.TICKED))

            await eventually(there, seconds=10)

    async def reaches(self, process_id: str, state: int, *, seconds: float = 10.0) -> process_pb2.Process:
        """Waits until a process is in a state."""

        async def there() -> bool:
            return (await self.get(process_id)).state == state

        await eventually(there, seconds=seconds)
        return await self.get(process_id)


def ref_of(assignment: Any) -> pb.AttemptRef:
    """The name of an assignment's attempt."""
    return pb.AttemptRef(process_id=assignment.process_id, attempt=assignment.attempt)


def rows(database_url: str) -> dict[str, int]:
    """How many rows each of the scheduler's tables has."""
    with psycopg.connect(database_url) as connection:
        return {table: _count(connection, table) for table in TABLES}


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    statement = sql.SQL("SELECT count(*) FROM scheduler.{}").format(sql.Identifier(table))
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])
