"""Streams of assignments, and what came of them."""

import asyncio
from typing import Any, Self

import grpc

from colonies.errors import RpcError, from_rpc_error
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY

# A stream that is not woken looks again after 5 s: what arrives sooner was woken.
WOKEN_WITHIN_S = 4.0


def watching_assignments(stub: Any, max_in_flight: int) -> Any:
    """The call itself."""
    return stub.WatchAssignments(pb.WatchAssignmentsRequest(colony_name=COLONY, max_in_flight=max_in_flight))


class WorkStream:
    """One stream of assignments, read all the while: `async with WorkStream(acme.worker, 3) as stream`."""

    def __init__(self, stub: Any, max_in_flight: int) -> None:
        self.came: list[Any] = []
        # Responses without assignments.
        self.signs = 0
        # What it ended with; None while it is open, and if it ended well.
        self.error: RpcError | None = None
        self._call = watching_assignments(stub, max_in_flight)
        self._reading = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        try:
            await self.signed(1)
        except BaseException:
            await self.cut()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self.came += response.assignments
                self.signs += not response.assignments
        except grpc.aio.AioRpcError as error:
            self.error = from_rpc_error(error)

    async def cut(self) -> None:
        """As an executor that goes away."""
        self._call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def signed(self, count: int, *, seconds: float = 15.0) -> None:
        """Waits for signs of life."""

        async def there() -> bool:
            return self.signs >= count or self._reading.done()

        await eventually(there, seconds=seconds)

    async def brought(self, count: int, *, seconds: float = WOKEN_WITHIN_S) -> list[Any]:
        """Waits until so many assignments came; those, and no more."""

        async def there() -> bool:
            return len(self.came) >= count

        await eventually(there, seconds=seconds)
        assert len(self.came) == count, "it brought more than there was room for"
        return list(self.came)

    async def ended(self, *, seconds: float = WOKEN_WITHIN_S) -> RpcError | None:
        """Waits for its end; what it ended with."""
        await asyncio.wait_for(asyncio.shield(self._reading), seconds)
        return self.error
