"""Calls and streams of a driver, over the SDK's signed stubs."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from colonies.client import AsyncClient
from colonies.errors import RpcError, from_rpc_error
from colonies.keys import PrivateKey
from colonies.tls import Tls

STUBS = {
    "colonies.auth.v1.AuthService": "auth",
    "colonies.registry.v1.RegistryService": "registry",
    "colonies.scheduler.v1.SchedulerService": "scheduler",
    "colonies.cron.v1.CronService": "cron",
    "colonies.cron.v1.GeneratorService": "generator",
}


def error_of(error: RpcError) -> dict[str, Any]:
    """A failed call as a driver tells of it."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": str(error),
        "metadata": error.metadata,
        "fields": [{"field": one.field, "description": one.description} for one in error.violations],
    }


class Connection:
    """A signed connection."""

    def __init__(self, command: dict[str, Any]) -> None:
        host, _, port = command["address"].rpartition(":")
        self.host, self.port = host, int(port)
        self.cluster: str = command["cluster"]
        self.colony: str = command["colony"]
        self.key = PrivateKey.from_hex(command["seed"])
        self.tls: Tls | bool = Tls(command["ca_file"]) if "ca_file" in command else False
        self._client = AsyncClient(self.host, self.port, self.colony, self.key, self.cluster, tls=self.tls)

    async def close(self) -> None:
        """Ends it."""
        await self._client.close()

    def _prepared(self, method: str, request: dict[str, Any]) -> tuple[Any, Message]:
        service, _, name = method.removeprefix("/").rpartition("/")
        described: Any = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
        message = message_factory.GetMessageClass(described.input_type)()
        json_format.ParseDict(request, message)
        return getattr(getattr(self._client, STUBS[service]), name), message

    async def call(self, method: str, request: dict[str, Any], timeout_ms: int | None) -> dict[str, Any]:
        """One call, made once.

        Raises:
            RpcError: it failed.
        """
        stub, message = self._prepared(method, request)
        try:
            response = await stub(message, timeout=None if timeout_ms is None else timeout_ms / 1000)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return json_format.MessageToDict(response)

    async def stream(self, method: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The messages of a stream, opened once.

        Raises:
            RpcError: it did not end well.
        """
        stub, message = self._prepared(method, request)
        call = stub(message)
        try:
            async for response in call:
                yield json_format.MessageToDict(response)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
