"""The client's methods about the queue as a whole: what they send."""

from typing import Any

import pytest

from colonies import AsyncClient, PrivateKey
from colonies.scheduler.v1 import controls_pb2 as controls


class Told(AsyncClient):
    """Keeps what would have been sent."""

    requests: list[Any]

    async def call(self, method: Any, request: Any, *, timeout: float = 30.0, **_options: Any) -> Any:
        self.requests.append(request)
        if isinstance(request, controls.GetStatisticsRequest):
            return controls.GetStatisticsResponse()
        return controls.UpdateControlsResponse(controls=controls.Controls(paused=True))


@pytest.mark.asyncio
async def test_what_is_not_given_is_not_sent() -> None:
    async with Told("localhost", 1, "dev", PrivateKey.generate().hex, "test") as client:
        client.requests = []
        assert (await client.pause()).paused
        await client.resume()
        await client.update_controls(max_waiting=0, keep_successful=90.0005, keep_failed=0)
        await client.get_controls()
        assert isinstance(await client.get_statistics(), controls.GetStatisticsResponse)
        pause, resume, update, get, _ = client.requests
    assert pause == controls.UpdateControlsRequest(colony_name="dev", paused=True)
    assert resume == controls.UpdateControlsRequest(colony_name="dev", paused=False)
    assert resume.HasField("paused")
    assert [field.name for field, _ in update.ListFields()] == ["colony_name", "max_waiting", "keep_successful", "keep_failed"]
    assert (update.keep_successful.ToMilliseconds(), update.keep_failed.ToMilliseconds()) == (90_000, 0)
    assert get == controls.GetControlsRequest(colony_name="dev")
