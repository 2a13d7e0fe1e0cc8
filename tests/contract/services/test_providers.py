"""Each service alone keeps what the others expect of it, so that it can be released without them."""

from pathlib import Path

import pytest

from tests.contract.services.expectations import Expectations, all_expectations
from tests.contract.services.playing import provider_alone

pytestmark = pytest.mark.asyncio

EXPECTATIONS = all_expectations()


@pytest.mark.parametrize("expectations", EXPECTATIONS, ids=lambda one: f"{one.consumer} of {one.provider}")
async def test_a_provider_alone_does_what_is_expected_of_it(
    expectations: Expectations, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with provider_alone(expectations.provider, database_url, redis_url, tmp_path) as player:
        failures = await player.failures(expectations)
        assert not failures, "\n".join(failures)
        # It lives on what its own expectations of others promise.
        assert player.stand_in.unpromised == []
