"""Workflows: functions drawn into a graph, submitted as one.

    workflow = ColoniesWorkflow("localhost", 50080, colony, key)
    workflow >> numbers
    numbers >> square1
    numbers >> square2
    [square1, square2] >> total
    result = workflow.execute()

What the edges mean is told in colonies.function.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self, overload

from colonies import values
from colonies.client.asynchronous import AsyncClient
from colonies.client.blocking import BlockingFace, LoopThread
from colonies.errors import WorkflowError
from colonies.function import Function, Group, as_functions, next_stroke
from colonies.graph import Graph
from colonies.keys import PrivateKey
from colonies.profile import Profile, active
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from colonies.tls import Tls


class WorkflowRun:
    """A submitted workflow: wait for it, look at it, cancel it. Leaving it alone, or closing it, lets it run."""

    def __init__(self, client: AsyncClient, workflow_id: str, graph: Graph, process_ids: Sequence[str]) -> None:
        self._client = client
        self._graph = graph
        self.workflow_id = workflow_id
        # Process id of each function.
        self.processes: Mapping[Function, str] = MappingProxyType(dict(zip(graph.functions, process_ids, strict=True)))

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit that the caller sets, with a text of its own
        progress: bool | None = None,
    ) -> Any:
        """Waits until the workflow is over; gives the output of the function without children that was drawn last.

        One output is given as it is, several as a tuple, none as None.

        Args:
            timeout: seconds; None = for ever.
            progress: show a live table on stderr; None = if that is a terminal.

        Raises:
            ProcessFailedError: names the function that failed first and carries what it reported.
            TimeoutError: it was not over in time. It goes on.
        """
        # Only who shows progress pays for loading what draws it.
        from colonies.progress import shown_progress

        names = {process_id: self._graph.names[function] for function, process_id in self.processes.items()}
        with shown_progress(self.workflow_id, names, progress) as watcher:
            await self._client.wait_workflow(self.workflow_id, timeout, on_event=watcher)
        return await self.output(self._graph.last_sink)

    async def output(self, function: Function) -> Any:
        """What one function put out: one output as it is, several as a tuple, none (or none yet) as None."""
        ended = await self._client.get_process(self.processes[function])
        outputs = values.decode_all(ended.outputs)
        if not outputs:
            return None
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    async def state(self) -> process.Workflow:
        """The workflow as it is now."""
        return await self._client.get_workflow(self.workflow_id)

    async def counts(self) -> process.StateCounts:
        """How many of its processes are in each state."""
        return (await self.state()).counts

    async def cancel(self) -> None:
        """Cancels everything in it that is not over."""
        await self._client.cancel_workflow(self.workflow_id)

    async def retry(self) -> int:
        """Takes everything in it that failed or was cancelled back to waiting; gives how many processes those were."""
        return await self._client.retry_workflow(self.workflow_id)

    async def close(self) -> None:
        """Ends the connection; the workflow goes on."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<workflow {self.workflow_id}, {len(self.processes)} processes>"


class BlockingRun(BlockingFace):
    """WorkflowRun for code that is not async: the same methods, blocking."""

    def __repr__(self) -> str:
        return repr(self._inner)


class ColoniesWorkflow:
    """A graph of functions. It holds everything that is connected to what `workflow >> ...` was given.

    It may be executed again and again; every execution is a new workflow on the server.
    """

    def __init__(
        self,
        host: str,
        port: int,
        colony: str,
        prvkey: PrivateKey | str,
        *,
        cluster: str | None = None,
        label: str = "",
        retry_for: float = 30.0,
        tls: Tls | bool | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            host: host name or address of the server's front door.
            port: its port.
            colony: where to run.
            prvkey: key of the member who submits, a PrivateKey or its 64 hex digits.
            cluster: the server's cluster id; by default COLONIES_CLUSTER, or what a profile says about this address.
            label: to find the workflow by.
            retry_for: seconds to ride out an outage of the server.
            tls: as for AsyncClient.

        Raises:
            KeyFileError: `prvkey` is not a key.
        """
        self.colony = colony
        self.label = label
        self._host = host
        self._port = port
        self._key = PrivateKey.from_hex(prvkey) if isinstance(prvkey, str) else prvkey
        self._cluster = cluster
        self._retry_for = retry_for
        self._tls = tls
        self._roots: dict[Function, int] = {}

    @classmethod
    def from_profile(cls, profile: Profile | str | None = None, *, label: str = "", retry_for: float = 30.0) -> Self:
        """A workflow for the server, colony and key of a profile: one given, one by name, or the active one.

        Raises:
            ProfileError: there is no such profile, or it lacks something.
        """
        found = profile if isinstance(profile, Profile) else active(profile)
        return cls(
            found.host,
            found.port,
            found.colony,
            found.load_key(),
            cluster=found.cluster or None,
            label=label,
            retry_for=retry_for,
            tls=found.transport() or False,
        )

    @overload
    def __rshift__(self, functions: Function) -> Function: ...
    @overload
    def __rshift__(self, functions: Sequence[Function]) -> Group: ...
    def __rshift__(self, functions: Function | Sequence[Function]) -> Function | Group:
        added = as_functions(functions, "a workflow leads to a Function or to a list of them")
        for function in added:
            self._roots[function] = next_stroke()
        return functions if isinstance(functions, Function) else Group(added)

    def to_spec(self) -> WorkflowSpec:
        """What would be submitted now.

        Raises:
            WorkflowError: nothing was drawn, a function is for another colony, a name is taken twice, or there is a
                cycle.
        """
        return Graph(self._roots, self.colony).to_spec(self.label)

    async def asubmit(self) -> WorkflowRun:
        """Submits the workflow; whole or not at all. Committed when this returns.

        Raises:
            WorkflowError: as for `to_spec`.
            RpcError: the server refused it.
            UnavailableError: the server was out of reach.
        """
        graph = Graph(self._roots, self.colony)
        client = AsyncClient(
            self._host, self._port, self.colony, self._key, self._cluster, retry_for=self._retry_for, tls=self._tls
        )
        try:
            answer = await client.submit_workflow(graph.to_spec(self.label))
        except BaseException:
            await client.close()
            raise
        return WorkflowRun(client, answer.workflow_id, graph, answer.process_ids)

    def submit(self) -> BlockingRun:
        """`asubmit` for code that is not async; the run's methods block."""
        thread = LoopThread()
        try:
            return BlockingRun(thread.run(self.asubmit()), thread)
        except BaseException:
            thread.stop()
            raise

    async def aexecute(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit that the caller sets, with a text of its own
        progress: bool | None = None,
    ) -> Any:
        """Submits the workflow and waits for it: `asubmit`, then `WorkflowRun.wait`."""
        async with await self.asubmit() as run:
            return await run.wait(timeout, progress)

    def execute(self, timeout: float | None = None, progress: bool | None = None) -> Any:
        """Submits the workflow, waits, and gives the output of the function without children that was drawn last.

        One output is given as it is, several as a tuple, none as None. Ctrl-C stops the waiting, not the workflow.

        Args:
            timeout: seconds to wait; None = for ever.
            progress: show a live table on stderr; None = if that is a terminal.

        Raises:
            WorkflowError: as for `to_spec`; or this code runs inside an event loop.
            ProcessFailedError: names the function that failed first and carries what it reported.
            TimeoutError: it was not over in time. It goes on.
            RpcError: the server refused it.
            UnavailableError: the server was out of reach.
        """
        _refuse_running_loop()
        started: list[str] = []

        async def follow() -> Any:
            async with await self.asubmit() as run:
                started.append(run.workflow_id)
                return await run.wait(timeout, progress)

        try:
            return asyncio.run(follow())
        except KeyboardInterrupt:
            for workflow_id in started:
                sys.stderr.write(f"stopped waiting; workflow {workflow_id} goes on\n")
            raise KeyboardInterrupt from None


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    msg = "execute() would block the event loop that this code runs in (as in a notebook): use `await workflow.aexecute()`"
    raise WorkflowError(msg)
