"""Stacks and servers for tests, in directories that the embedded servers' account can reach."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from deploy.local import control
from deploy.local.ports import free_port
from deploy.local.settings import StackSettings

DUMMY = Path(__file__).with_name("dummy_service.py")


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that `nobody` may walk through. pytest's own is closed under root."""
    path = Path(tempfile.mkdtemp(prefix="colonies-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_dir() -> Iterator[Path]:
    """The same for all tests of a module together."""
    path = Path(tempfile.mkdtemp(prefix="colonies-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def settings(open_dir: Path) -> Iterator[StackSettings]:
    """A stack of dummy services that is not up yet; it is brought down afterwards."""
    chosen = stack_settings(open_dir / "data")
    yield chosen
    control.down(chosen.data_dir)


@pytest.fixture(scope="module")
def running(module_dir: Path) -> Iterator[StackSettings]:
    """A stack that is up, with two replicas of the scheduler, and of the gateway."""
    chosen = stack_settings(module_dir / "data", replicas={"scheduler": 2, "gateway": 2})
    control.up(chosen)
    yield chosen
    control.down(chosen.data_dir)


def stack_settings(data_dir: Path, **changes: object) -> StackSettings:
    """Settings for a stack of dummy services."""
    values: dict[str, object] = {
        "data_dir": data_dir,
        "port": free_port(),
        "service_command": (sys.executable, str(DUMMY), "{name}"),
        "ready_seconds": 30.0,
    }
    return StackSettings(**{**values, **changes})  # type: ignore[arg-type]


def call(address: str, method: str, request: bytes = b"", *, seconds: float = 5.0) -> str:
    """Calls `/colonies.<method>` and returns the answer's text; the name of the status for a call that failed."""
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(address, options=options) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/colonies.{method}", request_serializer=None, response_deserializer=None
        )
        try:
            return bytes(ask(request, timeout=seconds, wait_for_ready=True)).decode()
        except grpc.RpcError as error:
            return str(error.code().name)


def eventually(condition: Callable[[], object], *, seconds: float) -> float:
    """Asks until the condition holds, and returns how long that took. Fails when it does not come true."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            pytest.fail(f"not true within {seconds} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def as_root() -> bool:
    """Whether the tests run as root."""
    return os.geteuid() == 0
