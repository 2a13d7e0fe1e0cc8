"""What is behind the gateway goes away and comes back."""

import time

import pytest

from tests.fault.proxy import Mode, Proxy
from tests.harness.calls import eventually

from .http import ask
from .stage import Stage

pytestmark = pytest.mark.asyncio

INFO = "/colonies.auth.v1.AuthService/GetServerInfo"
# So long that a way that is tried less and less often would be tried rarely by then.
AWAY_SECONDS = 5.0


async def test_calls_are_refused_in_an_outage_without_a_word_of_addresses_and_made_soon_after(bare: Stage) -> None:
    way = Proxy(lambda: bare.port)
    await way.start()
    try:
        gateway = await bare.open(front_door_address=f"127.0.0.1:{way.port}")
        assert (await bare.call(INFO)).status == 200
        await way.turn(Mode.REFUSE)
        begin = time.monotonic()
        while time.monotonic() < begin + AWAY_SECONDS:
            reply = await ask(gateway.port, bare.http(bare.wire(INFO)))
            assert (reply.status, reply.document["code"], reply.document["reason"]) == (503, "UNAVAILABLE", "UNREACHABLE")
            assert "127.0.0.1" not in reply.body.decode()
            assert reply.document["retry_delay_ms"] == 500
            assert reply.headers["retry-after"] == "1"
        await way.turn(Mode.PASS)

        async def answered() -> bool:
            return (await bare.call(INFO)).status == 200

        assert await eventually(answered, seconds=10) < 1.0
    finally:
        await way.stop()
