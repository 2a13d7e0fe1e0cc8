"""What the SDK's unit tests share: a server in this process, and an environment without the developer's own settings."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from colonies.keys import PrivateKey

from .fake_server import CLUSTER, COLONY, FakeServer


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PROFILE", "HOST", "PORT", "CLUSTER", "COLONY", "KEY", "KEY_FILE"):
        monkeypatch.delenv(f"COLONIES_{name}", raising=False)
    monkeypatch.setenv("COLONIES_CONFIG", str(tmp_path / "config" / "profiles.toml"))


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.generate()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()  # type: ignore[abstract]  # what no test calls is left UNIMPLEMENTED
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def address(server: FakeServer) -> dict[str, object]:
    """Arguments with which clients and executors reach the server."""
    return {"host": "127.0.0.1", "port": server.port, "colony": COLONY, "cluster": CLUSTER}
