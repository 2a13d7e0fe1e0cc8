"""The metrics listener under peers that mean no good: few threads, none for long, and it listens on."""

import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from deploy.local.certificates import Authority
from servicekit import exposition
from servicekit.exposition import MetricsServer
from tests.harness.certificates import Pair


@pytest.fixture
def listening() -> Iterator[Callable[..., MetricsServer]]:
    """Starts listeners, which end with the test."""
    with ExitStack() as stack:

        def start(context: Callable[[], ssl.SSLContext] | None = None) -> MetricsServer:
            server = MetricsServer("127.0.0.1", 0, context)
            stack.callback(server.end)
            return server

        yield start


def connect(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def answers(server: MetricsServer, context: ssl.SSLContext | None = None) -> bool:
    scheme = "http" if context is None else "https"
    try:
        with urllib.request.urlopen(f"{scheme}://127.0.0.1:{server.server_port}/metrics", timeout=5, context=context) as got:
            return b"colonies_rpc" in got.read()
    except OSError:
        return False


def comes_true(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_so_many_are_served_at_once_and_others_are_closed_at_once(
    listening: Callable[..., MetricsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 3)
    server = listening()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(server))
        comes_true(lambda: len(server._open) == 3)
        for _ in range(5):
            with connect(server) as refused:
                assert refused.recv(1) == b""
        assert len(server._open) == 3
    # Each end makes room.
    for _ in range(10):
        comes_true(lambda: answers(server))
    comes_true(lambda: not server._open)


def test_who_says_a_little_again_and_again_is_ended_too(
    listening: Callable[..., MetricsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", 0.3)
    server = listening()
    with connect(server) as slow:
        slow.settimeout(0.02)

        def closed() -> bool:
            try:
                slow.sendall(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        comes_true(closed)
    comes_true(lambda: not server._open)
    assert answers(server)


def test_an_end_of_time_in_a_handshake_is_an_end(
    listening: Callable[..., MetricsServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", 0.3)
    server = listening(lambda: _context(Pair(tmp_path, "server", Authority.create("test authority"))))
    with connect(server) as silent:
        assert silent.recv(1) == b""
    comes_true(lambda: not server._open)


def test_what_fails_when_a_connection_is_accepted_ends_that_one_alone(
    listening: Callable[..., MetricsServer], tmp_path: Path
) -> None:
    pair = Pair(tmp_path, "server", Authority.create("test authority"))
    failures: list[Exception] = [ValueError("no such certificate"), TypeError("no text"), ssl.SSLError("no key")]

    def context() -> ssl.SSLContext:
        if failures:
            raise failures.pop()
        return _context(pair)

    server = listening(context)
    while failures:
        left = len(failures)
        with closing(connect(server)) as refused:
            assert refused.recv(1) == b""
        assert len(failures) == left - 1
    assert answers(server, ssl.create_default_context(cafile=str(pair.ca_file)))


def _context(pair: Pair) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.cert_file, pair.key_file)
    return made
