"""Adding processes to the workflow of a running attempt, from its function."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colonies.client import AsyncClient
from colonies.function import Function
from colonies.scheduler.v1.spec_pb2 import FunctionSpec


@dataclass(frozen=True, slots=True)
class Children:
    """Where the children of one attempt are added, from any thread. The client belongs to the loop."""

    client: AsyncClient
    loop: asyncio.AbstractEventLoop
    process_id: str
    attempt: int

    async def add(self, nodes: Iterable[Function | FunctionSpec], *, insert: bool) -> Sequence[str]:
        """Adds them, from any event loop; errors as for AsyncClient.add_children."""
        call = self.client.add_children(self.process_id, self.attempt, nodes, insert=insert)
        if asyncio.get_running_loop() is self.loop:
            return await call
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self.loop))

    def add_from_thread(self, nodes: Iterable[Function | FunctionSpec], *, insert: bool) -> Sequence[str]:
        """Adds them, from a thread that may wait; errors as for AsyncClient.add_children.

        Raises:
            RuntimeError: this is the thread of an event loop, which must not wait.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            call = self.client.add_children(self.process_id, self.attempt, nodes, insert=insert)
            return asyncio.run_coroutine_threadsafe(call, self.loop).result()
        msg = "add_children() would block the event loop that this function runs in: use `await ctx.aadd_children(...)`"
        raise RuntimeError(msg)
