"""Envoy routes by path, hears of replicas by file, and sends nothing twice."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import grpc
import pytest

from deploy.envoy import render
from deploy.local import binaries
from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.errors import StackError
from deploy.local.ports import free_port
from deploy.local.service import Service

from .conftest import DUMMY, call, eventually


@pytest.fixture
def front_door(open_dir: Path) -> Iterator[EnvoyFrontDoor]:
    door = EnvoyFrontDoor(open_dir / "envoy", port=free_port())
    door.start()
    yield door
    door.stop()


@pytest.fixture
def launch(open_dir: Path) -> Iterator["Launcher"]:
    launcher = Launcher(open_dir)
    yield launcher
    for service in launcher.services:
        service.kill()


class Launcher:
    """Starts dummy services and waits until they serve."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.services: list[Service] = []

    def __call__(self, name: str, number: int = 1) -> Service:
        service = Service(
            name,
            number,
            [sys.executable, str(DUMMY), name],
            directory=self._directory / f"{name}-{number}",
            log=self._directory / f"{name}-{number}.log",
            environment=lambda: dict(os.environ),
        )
        self.services.append(service)
        service.start()
        eventually(service.healthy, seconds=10)
        return service


def at(service: Service) -> tuple[str, int]:
    assert service.port is not None
    return "127.0.0.1", service.port


def test_both_configurations_are_valid(open_dir: Path) -> None:
    local = EnvoyFrontDoor(open_dir / "envoy", port=free_port())
    (open_dir / "compose.yaml").write_text(render.compose())
    envoy = str(binaries.binary(binaries.ENVOY))
    for command in (
        local.command_to_validate(),
        [envoy, "--mode", "validate", "--config-path", str(open_dir / "compose.yaml")],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert "deprecated" not in result.stderr.lower()


def test_calls_go_to_the_service_of_their_path(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    auth, cron = launch("auth"), launch("cron")
    front_door.set_endpoints({"auth": [at(auth)], "cron": [at(cron)]})
    eventually(lambda: all(front_door.healthy_endpoints()[name] for name in ("auth", "cron")), seconds=3)
    assert call(front_door.address, "auth.v1.AuthService/Who").startswith("auth@")
    assert call(front_door.address, "cron.v1.CronService/Who").startswith("cron@")
    assert call(front_door.address, "nothing.v1.NothingService/Who") == "UNIMPLEMENTED"
    assert call(front_door.address, "scheduler.v1.SchedulerService/Who") == "UNAVAILABLE"
    # Far above gRPC's own default: how much is too much is for the services to say.
    assert call(front_door.address, "auth.v1.AuthService/Who", b"x" * 3_500_000).endswith(":3500000")


GRPC_WEB = {"content-type": "application/grpc-web+proto"}


def ask(
    door: EnvoyFrontDoor, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """An HTTP/1.1 request, as of a browser."""
    connection = HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request(method, path, body, headers or {})
    return connection.getresponse()


def framed(message: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(message).to_bytes(4, "big") + message


def test_grpc_web_passes_messages_untouched(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    front_door.set_endpoints({"auth": [at(launch("auth"))]})
    eventually(lambda: front_door.healthy_endpoints()["auth"], seconds=3)
    for message in (b"", bytes(range(256)), b"\x00\x0a\x0d\xff" * 300_000):
        answer = ask(front_door, "POST", "/colonies.auth.v1.AuthService/Echo", framed(message), GRPC_WEB)
        assert (answer.status, answer.getheader("content-type")) == (200, "application/grpc-web+proto")
        body = answer.read()
        assert body[: 5 + len(message)] == framed(message)
        # The trailers come as a frame of their own.
        assert body[5 + len(message)] == 0x80
        assert b"grpc-status:0" in body[10 + len(message) :]
    stream = ask(front_door, "POST", "/colonies.auth.v1.AuthService/Wait", framed(b""), GRPC_WEB)
    assert stream.read(10) == framed(b"hello")


def test_pages_of_other_origins_call_only_if_that_was_asked_for(
    open_dir: Path, front_door: EnvoyFrontDoor, launch: Launcher
) -> None:
    auth = launch("auth")
    good, path = "https://tools.example", "/colonies.auth.v1.AuthService/Who"
    asked = {"origin": good, "access-control-request-method": "POST", "access-control-request-headers": "colonies-nonce"}
    with EnvoyFrontDoor(open_dir / "open", port=free_port(), origins=[good, "http://localhost:8000"]) as asking:
        for door in (front_door, asking):
            door.set_endpoints({"auth": [at(auth)]})
            eventually(lambda door=door: door.healthy_endpoints()["auth"], seconds=3)  # type: ignore[misc]
        allowed = ask(asking, "OPTIONS", path, headers=asked)
        assert allowed.getheader("access-control-allow-origin") == good
        assert "colonies-signature" in str(allowed.getheader("access-control-allow-headers"))
        assert allowed.getheader("access-control-max-age") == "7200"
        answer = ask(asking, "POST", path, framed(b""), {**GRPC_WEB, "origin": good})
        assert answer.getheader("access-control-allow-origin") == good
        assert "grpc-status-details-bin" in str(answer.getheader("access-control-expose-headers"))
        for door, origin in ((asking, "https://evil.example"), (asking, good + ".evil"), (front_door, good)):
            refused = ask(door, "OPTIONS", path, headers={**asked, "origin": origin})
            assert refused.getheader("access-control-allow-origin") is None
            answer = ask(door, "POST", path, framed(b""), {**GRPC_WEB, "origin": origin})
            assert answer.getheader("access-control-allow-origin") is None


@pytest.mark.parametrize("origin", ["*", "tools.example", "https://tools.example/", 'https://a"}', "https://a, b", ""])
def test_what_is_no_origin_is_refused(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        render.compose(origins=[origin])
    with pytest.raises(SystemExit):
        render.main(["--check", "--allow-origin", origin])
    assert "is no origin" in capsys.readouterr().err


def test_whatever_is_no_call_of_a_service_goes_to_the_gateway(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    gateway = launch("gateway")
    front_door.set_endpoints({"gateway": [at(gateway)]})
    eventually(lambda: front_door.healthy_endpoints()["gateway"], seconds=3)
    for path in ("/", "/executor", "/api/colonies.auth.v1.AuthService/GetColony"):
        assert ask(front_door, "GET", path).read().decode() == f"gateway@127.0.0.1:{gateway.port}{path}"
    # But not calls of services that there are not, which would come back to the front door.
    assert ask(front_door, "GET", "/colonies.nothing.v1.NothingService/Who").status == 404
    assert ask(front_door, "POST", "/grpc.health.v1.Health/Check").status == 404


def test_replicas_come_and_go(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    method = "scheduler.v1.SchedulerService/Who"
    first, second = launch("scheduler", 1), launch("scheduler", 2)

    def answering() -> set[str]:
        return {call(front_door.address, method).split("@")[1] for _ in range(20)}

    front_door.set_endpoints({"scheduler": [at(first)]})
    eventually(lambda: front_door.healthy_endpoints()["scheduler"], seconds=3)
    assert answering() == {f"127.0.0.1:{first.port}:0"}
    front_door.set_endpoints({"scheduler": [at(first), at(second)]})
    eventually(lambda: len(answering()) == 2, seconds=3)
    front_door.set_endpoints({"scheduler": [at(second)]})
    eventually(lambda: answering() == {f"127.0.0.1:{second.port}:0"}, seconds=3)


def test_a_killed_replica_costs_no_new_call(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    method = "scheduler.v1.SchedulerService/Who"
    first, second = launch("scheduler", 1), launch("scheduler", 2)
    front_door.set_endpoints({"scheduler": [at(first), at(second)]})
    eventually(lambda: len(front_door.healthy_endpoints()["scheduler"]) == 2, seconds=3)
    first.kill()
    # Nobody told Envoy: calls that cannot connect are sent to the other replica.
    assert {call(front_door.address, method) for _ in range(30)} == {f"scheduler@127.0.0.1:{second.port}:0"}


def test_a_call_that_arrived_is_not_sent_again(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    first, second = launch("scheduler", 1), launch("scheduler", 2)
    front_door.set_endpoints({"scheduler": [at(first), at(second)]})
    eventually(lambda: len(front_door.healthy_endpoints()["scheduler"]) == 2, seconds=3)
    assert call(front_door.address, "scheduler.v1.SchedulerService/Crash") == "UNAVAILABLE"
    eventually(lambda: first.alive() != second.alive(), seconds=2)


def test_a_replica_taken_off_finishes_its_streams(front_door: EnvoyFrontDoor, launch: Launcher) -> None:
    scheduler = launch("scheduler")
    front_door.set_endpoints({"scheduler": [at(scheduler)]})
    eventually(lambda: front_door.healthy_endpoints()["scheduler"], seconds=3)
    with grpc.insecure_channel(front_door.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/colonies.scheduler.v1.SchedulerService/Wait", request_serializer=None, response_deserializer=None
        )
        stream = watch(b"", timeout=20)
        assert next(stream) == b"hello"
        front_door.set_endpoints({})
        eventually(lambda: not front_door.healthy_endpoints()["scheduler"], seconds=3)
        ending = threading.Thread(target=scheduler.stop)
        ending.start()
        assert next(stream) == b"goodbye"
        assert list(stream) == []
        ending.join()


def test_admin_shows_and_does_not_obey(front_door: EnvoyFrontDoor) -> None:
    assert front_door._ask("/ready").startswith("LIVE")
    for path in ("/config_dump", "/quitquitquit", "/certs", "/logging"):
        assert front_door._ask(path) == "", path
    assert front_door.alive()


def test_a_taken_address_is_refused(front_door: EnvoyFrontDoor, open_dir: Path) -> None:
    other = EnvoyFrontDoor(open_dir / "other", port=front_door.port or 0)
    with pytest.raises(StackError, match=rf"port {front_door.port} on 127.0.0.1 is taken by envoy \(pid \d+\)"):
        other.start()
