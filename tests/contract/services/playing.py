"""Plays expectations against a provider that runs alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from colonies.errors import from_rpc_error
from colonies.signing import SigningChannel
from servicekit.signature import check_call, headers_of
from servicekit.signed_calls import message_of
from tests.contract.services import states
from tests.contract.services.expectations import (
    JSON_TWIN,
    Expectation,
    Expectations,
    Step,
    all_expectations,
    method_of,
    path_of,
)
from tests.contract.services.matching import MismatchError, Names, key_named
from tests.contract.services.standins import StandIn, standing_in
from tests.harness.cluster import CLUSTER
from tests.harness.processes import ProcessCluster

CALL_S = 20.0
# How soon a change must be told.
CHANGE_S = 10.0
# What every service but auth asks of others in the same way is in servicekit.
SHARED = "servicekit"
UNSIGNED = "nobody"


class Player:
    """A provider, and whoever calls it."""

    def __init__(self, cluster: ProcessCluster, provider: str, stand_in: StandIn) -> None:
        self.cluster = cluster
        self.stand_in = stand_in
        self._provider = provider

    async def failures(self, expectations: Expectations) -> list[str]:
        """What is not as expected, by name of the expectation."""
        failures = []
        for expectation in expectations.all:
            try:
                await self.play(expectation, expectations.caller)
            except MismatchError as mismatch:
                failures.append(f"{expectation.name}: {mismatch}")
        return failures

    async def play(self, expectation: Expectation, caller: str) -> None:
        """Takes the steps.

        Raises:
            MismatchError: what comes of one is not what was expected; names its number.
        """
        names = Names(self._signed)
        for number, step in enumerate(expectation.steps, 1):
            try:
                if "given" in step:
                    await states.STATES[self._provider, step["given"]](self.cluster, names)
                elif "watch" in step:
                    await self._watch(step, step.get("as", caller), names)
                else:
                    await self._call(step, step.get("as", caller), names)
            except MismatchError as mismatch:
                msg = f"step {number}, {path_of(step)}: {mismatch}"
                raise MismatchError(msg) from None

    def _channel(self, caller: str) -> Any:
        channel = self.cluster.channel(self._provider)
        return channel if caller == UNSIGNED else SigningChannel(channel, self.cluster.signer(key_named(caller)))

    def _begin(self, step: Step, caller: str, names: Names) -> Any:
        """Makes the call of a step: an awaitable of its response in JSON, or a stream of such."""
        path = path_of(step)
        method = method_of(path)
        request = step["raw"] if "raw" in step else names.filled(step["request"])

        def serialised(_: Any) -> bytes:
            if "raw" in step:
                return str(request).encode()
            if path.endswith(JSON_TWIN):
                return json.dumps(request).encode()
            return bytes(ParseDict(request, GetMessageClass(method.input_type)()).SerializeToString())

        def parsed(data: bytes) -> Any:
            if path.endswith(JSON_TWIN):
                return json.loads(data)
            return MessageToDict(GetMessageClass(method.output_type).FromString(data))

        channel = self._channel(caller)
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        return kind(path, request_serializer=serialised, response_deserializer=parsed)(request, timeout=CALL_S)

    async def _call(self, step: Step, caller: str, names: Names) -> None:
        try:
            response = await self._begin(step, caller, names)
        except grpc.aio.AioRpcError as error:
            self._refused(step, error, names)
            return
        if "error" in step:
            msg = f"expected {step['error']}, and it was answered with {response}"
            raise MismatchError(msg)
        names.match(step["response"], response)

    def _refused(self, step: Step, error: grpc.aio.AioRpcError, names: Names) -> None:
        found = from_rpc_error(error)
        actual = {
            "code": found.code.name,
            "reason": found.reason,
            "metadata": found.metadata,
            "fields": [violation.field for violation in found.violations],
        }
        if "error" not in step:
            msg = f"it was refused: {actual} {found}"
            raise MismatchError(msg)
        names.match(step["error"], actual, "error")

    async def _watch(self, step: Step, caller: str, names: Names) -> None:
        stream = self._begin(step, caller, names)
        messages = aiter(stream)
        try:
            message = await _next(messages, CALL_S)
            if "error" in step:
                msg = f"expected {step['error']}, and heard {message}"
                raise MismatchError(msg)
            names.match(step["begins"], message)
            for change in step.get("changes", ()):
                await states.STATES[self._provider, change["given"]](self.cluster, names)
                await self._hears(messages, change["message"], names)
            if "alive_within_s" in step:
                await _next(messages, step["alive_within_s"])
        except grpc.aio.AioRpcError as error:
            self._refused(step, error, names)
        finally:
            stream.cancel()

    @staticmethod
    async def _hears(messages: AsyncIterator[Any], expected: Any, names: Names) -> None:
        """Waits for a message; there may be others before it, of what was done to bring the state about."""
        others = []
        try:
            async with asyncio.timeout(CHANGE_S):
                while True:
                    message = await anext(messages)
                    try:
                        names.match(expected, message)
                    except MismatchError:
                        others.append(message)
                    else:
                        return
        except (TimeoutError, StopAsyncIteration):
            msg = f"expected to hear {names.filled(expected)}, and heard {others}"
            raise MismatchError(msg) from None

    def _signed(self, call: dict[str, Any]) -> Any:
        """A signed call of somebody's, as services pass them on."""
        method, key = call["method"], key_named(call["by"])
        request = ParseDict(Names().filled(call["request"]), GetMessageClass(method_of(method).input_type)())
        body = request.SerializeToString(deterministic=True)
        signer = self.cluster.signer(key)
        signed = check_call(
            headers_of(signer.headers(method, body)),
            method=method,
            audience=CLUSTER,
            body=body,
            now_ms=self.cluster.clock_ms(),
        )
        return MessageToDict(message_of(signed))


async def _next(messages: AsyncIterator[Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await anext(messages)
    except TimeoutError:
        msg = f"nothing came within {seconds} s"
    except StopAsyncIteration:
        msg = "the stream ended"
    raise MismatchError(msg)


def needs_of(provider: str) -> Sequence[Expectations]:
    """What a service expects of others: all that its stand-ins answer."""
    consumers = {provider} if provider == "auth" else {provider, SHARED}
    return [each for each in all_expectations() if each.consumer in consumers]


@asynccontextmanager
async def provider_alone(
    provider: str, database_url: str, redis_url: str, directory: Path, promises: Sequence[Expectations] | None = None
) -> AsyncIterator[Player]:
    """A service as a process of its own, with Postgres and Valkey, and stand-ins for all other services."""
    needed = needs_of(provider) if promises is None else promises
    async with standing_in(needed) as (stand_in, address):
        addresses = {f"{each.provider}_address": address for each in needed}
        cluster = ProcessCluster(
            database_url, redis_url, directory, services=(provider,), settings={provider: addresses}, populate=False
        )
        async with cluster:
            await states.BASE[provider](cluster)
            yield Player(cluster, provider, stand_in)
            for process in cluster.processes:
                await process.stop()
            cluster.replicas.clear()
