"""Calls that are expected to fail, and conditions that are expected to come true."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from colonies.errors import RpcError, from_rpc_error


async def refusal(call: Awaitable[Any]) -> RpcError:
    """The error that this call ends with. Fails the test when it does not end with one."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    pytest.fail(f"the call was not refused but answered with {answer}")


async def first(stream: Any) -> Any:
    """The first response of a stream, which is then cancelled."""
    try:
        async for response in stream:
            return response
    finally:
        stream.cancel()
    return None


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float = 5.0) -> float:
    """Asks until the condition holds; returns after how many seconds it did. Fails the test when it does not in time."""
    begin = time.monotonic()
    while not await condition():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not true within {seconds} s")
        await asyncio.sleep(0.005)
    return time.monotonic() - begin


async def hears(stream: Any, *expected: Any, earlier: Callable[[Any], bool]) -> None:
    """That a stream brings these responses in this order, and in between only what `earlier` knows to be from before:
    Postgres may still be delivering a change that was made just before the stream was opened."""
    for wanted in expected:
        response = await anext(stream)
        while response != wanted and earlier(response):
            response = await anext(stream)
        assert response == wanted
