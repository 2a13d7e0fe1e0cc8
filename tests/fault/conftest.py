"""One installation a test: what one test broke must not help or hurt another."""

from collections.abc import Iterator

import pytest

from tests.acceptance.world import World, world


@pytest.fixture
def installation() -> Iterator[World]:
    """A running stack with its home directory."""
    with world() as made:
        yield made
