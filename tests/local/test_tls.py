"""The real stack over TLS, as `colonies up --tls` makes it: nothing in it speaks plaintext, and certificates are renewed under it."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from cryptography import x509

from colonies.client import AsyncClient
from colonies.errors import UnavailableError
from colonies.function import Function
from colonies.keys import PrivateKey
from colonies.scheduler.v1.process_pb2 import PROCESS_STATE_CANCELLED, PROCESS_STATE_WAITING
from colonies.tls import Tls
from deploy.local import control
from deploy.local.certificates import FRONT_DOOR, SUPERVISOR, Authority, Certificates
from deploy.local.ports import free_port
from deploy.local.settings import PROCESSES
from deploy.local.state import StackState
from tests.fault.accounting import Accounts, audit_logs
from tests.harness.certificates import Pair, shown_serial

from .conftest import eventually

COMMAND = str(Path(sys.executable).with_name("colonies"))


class Secured:
    """A stack that the command line brought up with --tls."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
        self.environment = {
            **kept,
            "HOME": str(directory),
            "COLONIES_CONFIG": str(directory / "profiles.toml"),
            "COLONIES_DATA_DIR": str(self.data_dir),
        }
        self.certificates = Certificates(self.data_dir)

    def colonies(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [COMMAND, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def state(self) -> StackState:
        state = control.status(self.data_dir).state
        assert state is not None
        return state

    @property
    def pids(self) -> dict[str, int | None]:
        return {process.name: process.pid for process in control.status(self.data_dir).processes}

    def ports(self) -> dict[str, int]:
        """Where the front door, the services and the gateway listen, by the name of the certificate."""
        ports = {process.name: process.port or 0 for process in control.status(self.data_dir).processes}
        return {FRONT_DOOR: self.port, **{service: ports[service] for service in PROCESSES}}

    def metrics_ports(self) -> dict[str, int]:
        return {service: int((self.data_dir / "run" / service / "metrics-port").read_text()) for service in PROCESSES}

    def serial(self, name: str) -> int:
        """Of the certificate in the file."""
        return x509.load_pem_x509_certificate((self.certificates.current / f"{name}.crt").read_bytes()).serial_number

    def pair(self) -> Any:
        """The supervisor's certificate, which services take."""
        tls = self.certificates.tls(SUPERVISOR)
        return SimpleNamespace(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.cert_key_file)

    def client(self, *, tls: Tls | bool, host: str = "127.0.0.1") -> AsyncClient:
        key = PrivateKey.load(self.data_dir / "keys" / "user.key")
        return AsyncClient(host, self.port, "dev", key, self.state.cluster_id, retry_for=0.3, tls=tls)


@pytest.fixture(scope="module")
def stack(module_dir: Path) -> Iterator[Secured]:
    secured = Secured(module_dir)
    try:
        done = secured.colonies("up", "--tls", "--port", str(secured.port))
        assert done.returncode == 0, done.stderr
        assert "with TLS" in done.stdout
        yield secured
    finally:
        control.down(secured.data_dir)


def test_the_demo_runs_and_status_says_tls(stack: Secured) -> None:
    demo = stack.colonies("demo", "--json")
    assert demo.returncode == 0, demo.stderr
    assert json.loads(stack.colonies("status", "--json").stdout)["local"]["tls"]
    assert f"on; clients trust {stack.certificates.ca_file}" in stack.colonies("status").stdout.replace("\n", " ")


def test_no_listener_of_the_stack_speaks_plaintext_or_takes_strangers(stack: Secured, module_dir: Path) -> None:
    stranger = Pair(module_dir, "stranger", Authority.create("another authority"))
    stranger.ca_file.write_bytes(stack.certificates.ca_file.read_bytes())
    for name, port in stack.ports().items():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
            with pytest.raises(grpc.RpcError) as refused:
                check(b"", timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, name
        assert shown_serial(port, stack.pair(), speak=True) == stack.serial(name)
        if name == FRONT_DOOR:
            continue  # it is for clients, who sign
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shown_serial(port, stranger, speak=True)
    for name, port in stack.metrics_ports().items():
        assert shown_serial(port, stack.pair()) == stack.serial(name)
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
        with pytest.raises((urllib.error.URLError, OSError)):
            trusting = ssl.create_default_context(cafile=str(stack.certificates.ca_file))
            urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=5, context=trusting)


def test_a_container_asks_its_own_service_for_health_with_its_own_certificate(stack: Secured) -> None:
    tls = stack.certificates.tls("scheduler")
    files = {"CA": tls.ca_file, "CERT": tls.cert_file, "KEY": tls.cert_key_file}
    own = {f"COLONIES_TLS_{name}_FILE": path for name, path in files.items()}
    ask = [sys.executable, "-m", "deploy.local.health", f"127.0.0.1:{stack.ports()['scheduler']}"]
    assert subprocess.run(ask, env={**stack.environment, **own}, check=False, timeout=30).returncode == 0
    assert subprocess.run(ask, env=stack.environment, check=False, timeout=30).returncode == 1


def test_the_gateway_is_reached_and_asked_for_health_over_tls(stack: Secured) -> None:
    trusting = ssl.create_default_context(cafile=str(stack.certificates.ca_file))
    with urllib.request.urlopen(f"https://127.0.0.1:{stack.port}/", timeout=5, context=trusting) as page:
        assert b"<title>Colonies</title>" in page.read()
    # The front door speaks TLS to it, and it to the front door: the call comes to a service and back.
    path = "/api/colonies.auth.v1.AuthService/GetServerInfo"
    call = urllib.request.Request(
        f"https://127.0.0.1:{stack.port}{path}", data=b"{}", headers={"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=5, context=trusting)
    assert (refused.value.code, json.loads(refused.value.read())["reason"]) == (401, "SIGNATURE_MISSING")
    tls = stack.certificates.tls("gateway")
    files = {"CA": tls.ca_file, "CERT": tls.cert_file, "KEY": tls.cert_key_file}
    own = {f"COLONIES_TLS_{name}_FILE": path for name, path in files.items()}
    ask = [sys.executable, "-m", "deploy.local.health", "--http", f"127.0.0.1:{stack.ports()['gateway']}"]
    assert subprocess.run(ask, env={**stack.environment, **own}, check=False, timeout=30).returncode == 0
    assert subprocess.run(ask, env=stack.environment, check=False, timeout=30).returncode == 1


def test_what_is_wrong_with_tls_is_said_in_plain_words(stack: Secured, module_dir: Path) -> None:
    other = module_dir / "other.crt"
    other.write_bytes(Authority.create("another authority").pem)
    right = str(stack.certificates.ca_file)
    for arguments, words in (
        (["--no-tls"], "speaks TLS at this port"),
        (["--ca-file", str(other)], "the server's certificate is not trusted"),
    ):
        done = stack.colonies("executor", "list", *arguments)
        assert (done.returncode, words in done.stderr) == (5, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert stack.colonies("executor", "list", COLONIES_TLS="off").returncode == 5
    # A command that makes its connection by itself.
    rotation = stack.colonies("key", "rotate", "--new-key-file", str(module_dir / "new.key"), "--ca-file", str(other))
    assert (rotation.returncode, "is not trusted" in rotation.stderr) == (5, True), rotation.stderr
    for arguments in ([], ["--host", "localhost"], ["--ca-file", right]):
        done = stack.colonies("executor", "list", *arguments)
        assert done.returncode == 0, done.stderr
    # A port that is meant for something else.
    state = {process.name: process.port for process in control.status(stack.data_dir).processes}
    done = stack.colonies("executor", "list", "--port", str(state["valkey"]), "--ca-file", right, "--cluster", "c")
    assert (done.returncode, "does not seem to speak TLS" in done.stderr) == (5, True), done.stderr


@pytest.mark.asyncio
async def test_a_running_stack_takes_renewed_certificates(stack: Secured) -> None:
    trust = Tls(str(stack.certificates.ca_file))
    pids, before = stack.pids, {name: stack.serial(name) for name in stack.ports()}
    async with stack.client(tls=trust) as client, stack.client(tls=trust) as other:
        process_id = await client.submit(Function("nobody", executortype="nobody"))
        async with aclosing(client.watch(process_id=process_id)) as events:
            assert (await anext(events)).transition.to_state == PROCESS_STATE_WAITING
            renewed = await asyncio.to_thread(stack.colonies, "certificates", "renew")
            assert renewed.returncode == 0, renewed.stderr
            for name, port in stack.ports().items():
                new = stack.serial(name)
                assert new != before[name]
                await asyncio.to_thread(eventually, lambda p=port, n=new: shown_serial(p, stack.pair()) == n, seconds=10)  # type: ignore[misc]
            for name, port in stack.metrics_ports().items():
                assert await asyncio.to_thread(shown_serial, port, stack.pair()) == stack.serial(name)
            # A new connection of a client, through the front door's and the services' new certificates.
            async with stack.client(tls=trust) as late:
                await late.server_info()
            await other.cancel(process_id)
            assert (await anext(events)).transition.to_state == PROCESS_STATE_CANCELLED
    assert stack.pids == pids
    assert control.status(stack.data_dir).healthy


@pytest.mark.asyncio
async def test_plaintext_to_it_is_an_outage_of_the_sdk(stack: Secured) -> None:
    async with stack.client(tls=False) as plain:
        with pytest.raises(UnavailableError, match="the server speaks TLS at this port"):
            await plain.server_info()


def test_a_running_stack_does_not_silently_stay_with_what_was_not_asked_for(stack: Secured) -> None:
    refused = stack.colonies("up", "--no-tls", "--port", str(stack.port))
    assert refused.returncode == 1
    assert "runs with TLS" in refused.stderr
    assert stack.colonies("up", "--tls", "--port", str(stack.port)).returncode == 0


def test_tls_stays_when_the_stack_comes_back(stack: Secured) -> None:
    serial = stack.serial(FRONT_DOOR)
    assert stack.colonies("down").returncode == 0
    # Nothing had to be waited for until patience was over: the supervisor's idle connections, for one.
    accounts = Accounts()
    audit_logs(stack.data_dir / "logs", accounts)
    assert accounts.wrong == []
    again = stack.colonies("up", "--port", str(stack.port))
    assert again.returncode == 0, again.stderr
    assert stack.state.ca_file == str(stack.certificates.ca_file)
    assert shown_serial(stack.port, stack.pair()) == stack.serial(FRONT_DOOR) == serial
    assert stack.colonies("executor", "list").returncode == 0
