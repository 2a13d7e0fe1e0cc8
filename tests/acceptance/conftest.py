"""One installation for the stories of a module."""

from collections.abc import Iterator

import pytest

from tests.acceptance.world import World, world


@pytest.fixture(scope="module")
def installation() -> Iterator[World]:
    """A running stack with its home directory."""
    with world() as made:
        yield made
