"""The proxy that cuts connections does what its modes say, and lets everything through again afterwards."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deploy.local.ports import LOOPBACK
from tests.fault.proxy import Mode, Proxy

pytestmark = pytest.mark.asyncio

SILENCE_S = 0.2
LARGE = b"x" * 4_000_000
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    port: int = server.sockets[0].getsockname()[1]
    made = Proxy(lambda: port)
    await made.start()
    yield made
    await made.stop()
    server.close()


async def connect(proxy: Proxy) -> Ends:
    return await asyncio.open_connection(LOOPBACK, proxy.port)


async def echoed(ends: Ends, data: bytes) -> bytes:
    reader, writer = ends
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5)


async def reset_by(proxy: Proxy) -> None:
    # Both ends are held: a writer that nobody holds closes its connection.
    reader, writer = await connect(proxy)
    assert await asyncio.wait_for(reader.read(1), 5) == b""
    writer.close()


async def test_passes_everything(proxy: Proxy) -> None:
    ends = await connect(proxy)

    async def write() -> None:
        ends[1].write(LARGE)
        await ends[1].drain()

    read, _ = await asyncio.gather(asyncio.wait_for(ends[0].readexactly(len(LARGE)), 20), write())
    assert read == LARGE


async def test_refuses(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    await proxy.turn(Mode.REFUSE)
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 5)
    writer.close()
    await proxy.turn(Mode.PASS)
    assert await echoed(await connect(proxy), b"again") == b"again"


async def test_hangs_and_goes_on(proxy: Proxy) -> None:
    before = await connect(proxy)
    assert await echoed(before, b"one") == b"one"
    await proxy.turn(Mode.HANG)
    during = await connect(proxy)
    for _, writer in (before, during):
        writer.write(b"two")
    for reader, _ in (before, during):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), SILENCE_S)
    await proxy.turn(Mode.PASS)
    for reader, _ in (before, during):
        assert await asyncio.wait_for(reader.readexactly(3), 5) == b"two"


async def test_takes_requests_and_holds_answers_back(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    assert await echoed((reader, writer), b"one") == b"one"
    await proxy.turn(Mode.MUTE)
    writer.write(b"two")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SILENCE_S)
    await proxy.turn(Mode.PASS)
    assert await asyncio.wait_for(reader.readexactly(3), 5) == b"two"


async def test_resets(proxy: Proxy) -> None:
    before = await connect(proxy)
    assert await echoed(before, b"one") == b"one"
    await proxy.turn(Mode.RESET)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(before[0].read(1), 5)
    with pytest.raises(ConnectionResetError):
        await reset_by(proxy)
    await proxy.turn(Mode.PASS)
    assert await echoed(await connect(proxy), b"again") == b"again"


async def test_is_no_server_when_there_is_none() -> None:
    nobody = Proxy(lambda: 1)
    await nobody.start()
    with pytest.raises(ConnectionResetError):
        await reset_by(nobody)
    await nobody.stop()
