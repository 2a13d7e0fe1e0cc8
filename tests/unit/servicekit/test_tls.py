"""TLS of a service's listeners and channels: real processes, real connections, files that change under them."""

import asyncio
import datetime as dt
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from pydantic import ValidationError

import colonies.tls
import servicekit.tls
from colonies.errors import CertificateFileError
from colonies.keys import PrivateKey
from colonies.tls import CertificateFiles, Tls, TlsChannel
from deploy.local.certificates import Authority
from servicekit.clock import SystemClock
from servicekit.directory import Directory
from servicekit.entry import StartError
from servicekit.members import RemoteMembers
from servicekit.metrics import CERTIFICATE_EXPIRES, CERTIFICATES_REFUSED
from servicekit.process import Process
from servicekit.settings import ServiceSettings
from tests.harness.certificates import Pair, comes_true, shown_serial

SERVING = health_pb2.HealthCheckResponse.SERVING
ASK = health_pb2.HealthCheckRequest()
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the files as often as a test wants."""
    monkeypatch.setattr(colonies.tls, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(servicekit.tls, "LOOK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test authority")


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Pair:
    return Pair(tmp_path, "server", authority)


@pytest.fixture
def client(tmp_path: Path, authority: Authority) -> Pair:
    return Pair(tmp_path, "client", authority)


def settings_of(directory: Path, **changes: Any) -> ServiceSettings:
    key_file = directory / "service.key"
    if not key_file.exists():
        PrivateKey.generate().save(key_file)
    values: dict[str, Any] = {
        "cluster": "test",
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "postgres_url": "postgresql://nowhere.invalid/",
        "redis_url": "redis://nowhere.invalid/",
        "server_owner": "0" * 64,
        "service_key_file": key_file,
        "service_identities": {},
        "auth_address": "127.0.0.1:1",
        "drain_seconds": 0.0,
    }
    return ServiceSettings(**{**values, **changes})


def secured(directory: Path, pair: Pair, **changes: Any) -> ServiceSettings:
    files = {"tls_cert_file": pair.cert_file, "tls_key_file": pair.key_file, "tls_ca_file": pair.ca_file}
    return settings_of(directory, **{**files, **changes})


@asynccontextmanager
async def served(settings: ServiceSettings) -> AsyncIterator[Process]:
    """A process that serves health and metrics, and nothing that needs its databases."""
    async with AsyncExitStack() as stack:
        process = Process("auth", settings, stack, SystemClock())
        members = Directory(RemoteMembers(process.channel(settings.auth_address, "auth_address")), process.clock)
        task = asyncio.create_task(process.serve(members))
        serving = asyncio.create_task(process.serving.wait())
        await asyncio.wait((task, serving), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if task.done():
            await task
        try:
            yield process
        finally:
            process.told.set()
            await task


@asynccontextmanager
async def opened(process: Process, tls: Tls) -> AsyncIterator[Any]:
    async with TlsChannel(f"127.0.0.1:{process.port}", CertificateFiles(tls), OWN_CONNECTION) as channel:
        yield cast("Any", HealthStub(channel))


def metrics(process: Process, pair: Pair | None, *, scheme: str = "https") -> str:
    context = ssl.create_default_context(cafile=str(pair.ca_file)) if pair else ssl.create_default_context()
    if pair:
        context.load_cert_chain(pair.cert_file, pair.key_file)
    url = f"{scheme}://127.0.0.1:{process.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5, context=context) as answer:
        return bytes(answer.read()).decode()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.asyncio
async def test_both_listeners_speak_tls_and_nothing_else(tmp_path: Path, server: Pair, client: Pair) -> None:
    async with served(secured(tmp_path, server)) as process:
        async with opened(process, client.trust) as stub:
            assert (await stub.Check(ASK, timeout=5)).status == SERVING
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await cast("Any", HealthStub(channel)).Check(ASK, timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "colonies_rpc_handled_total" in await asyncio.to_thread(metrics, process, client)
        with pytest.raises((urllib.error.URLError, OSError)):
            await asyncio.to_thread(metrics, process, None, scheme="http")
        for port in (process.port, process.metrics_port):
            assert await asyncio.to_thread(shown_serial, port, client) == server.serial
            assert await asyncio.to_thread(shown_serial, port, client, maximum=ssl.TLSVersion.TLSv1_2) == server.serial
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(shown_serial, port, client, maximum=ssl.TLSVersion.TLSv1_1)


@pytest.mark.asyncio
async def test_mutual_tls_takes_only_peers_of_its_authority(tmp_path: Path, server: Pair, client: Pair) -> None:
    stranger = Pair(tmp_path, "stranger", Authority.create("another authority"))
    with_stranger = Tls(str(server.ca_file), str(stranger.cert_file), str(stranger.key_file))
    async with served(secured(tmp_path, server, tls_require_client_cert=True)) as process:
        async with opened(process, client.tls) as stub:
            assert (await stub.Check(ASK, timeout=5)).status == SERVING
        assert "colonies_rpc" in await asyncio.to_thread(metrics, process, client)
        for tls in (client.trust, with_stranger):
            async with opened(process, tls) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Check(ASK, timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        stranger.ca_file.write_bytes(server.ca_file.read_bytes())
        with pytest.raises((urllib.error.URLError, OSError)):
            await asyncio.to_thread(metrics, process, stranger)


@pytest.mark.asyncio
async def test_a_renewed_certificate_is_shown_to_new_connections_and_streams_go_on(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair
) -> None:
    async with (
        served(secured(tmp_path, server, tls_require_client_cert=True)) as process,
        TlsChannel(f"127.0.0.1:{process.port}", CertificateFiles(client.tls), OWN_CONNECTION) as channel,
    ):
        stub = cast("Any", HealthStub(channel))
        stream = stub.Watch(ASK)
        assert (await stream.read()).status == SERVING
        old, new = server.serial, server.renew(authority)
        assert old != new
        for port in (process.port, process.metrics_port):
            await comes_true(lambda port=port: shown_serial(port, client) == new)  # type: ignore[misc]
        # The client's own is renewed, too: it connects anew, and what it has open goes on over the old connection.
        first = channel.current()
        client.renew(authority)
        async with asyncio.timeout(5):
            while channel.current() is first:
                await asyncio.sleep(0.02)
        assert (await stub.Check(ASK, timeout=5)).status == SERVING
        assert not stream.done()
        process.told.set()
        assert (await stream.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.asyncio
async def test_closing_a_channel_ends_what_runs_over_its_old_connections(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair
) -> None:
    async with served(secured(tmp_path, server)) as process:
        channel = TlsChannel(f"127.0.0.1:{process.port}", CertificateFiles(client.tls), OWN_CONNECTION)
        stream = cast("Any", HealthStub(channel)).Watch(ASK)
        assert (await stream.read()).status == SERVING
        first = channel.current()
        client.renew(authority)
        async with asyncio.timeout(5):
            while channel.current() is first:
                await asyncio.sleep(0.02)
            await channel.close()
            assert await stream.code() is grpc.StatusCode.CANCELLED


@pytest.mark.asyncio
async def test_files_that_cannot_be_used_are_refused_and_the_old_stay(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair
) -> None:
    serial, certificate, key = server.serial, server.cert_file.read_bytes(), server.key_file.read_bytes()

    def not_pem() -> None:
        server.cert_file.write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")

    def of_another_key() -> None:
        server.cert_file.write_bytes(authority.issue("server", ["127.0.0.1"]).certificate)

    def gone() -> None:
        server.key_file.unlink()

    def open_to_others() -> None:
        server.key_file.chmod(0o644)

    def expired() -> None:
        server.renew(authority, life=-dt.timedelta(minutes=1))

    def too_weak() -> None:
        weak = rsa.generate_private_key(65537, 1024)
        server.key_file.write_bytes(
            weak.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        now = dt.datetime.now(dt.UTC)
        name = x509.Name([])
        certificate = x509.CertificateBuilder(name, name, weak.public_key(), 1, now, now + dt.timedelta(days=1))
        server.cert_file.write_bytes(certificate.sign(weak, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    async with served(secured(tmp_path, server)) as process:
        for spoil in (not_pem, of_another_key, gone, open_to_others, expired, too_weak, server.name_extension_twice):
            before = refusals()
            spoil()
            await comes_true(lambda before=before: refusals() > before)  # type: ignore[misc]
            assert refusals() == before + 1
            for port in (process.port, process.metrics_port):
                assert await asyncio.to_thread(shown_serial, port, client) == serial
            # Put right, each in place of the broken one.
            server.key_file.touch(mode=0o600)
            server.key_file.chmod(0o600)
            server.key_file.write_bytes(key)
            server.cert_file.write_bytes(certificate)
            new = server.renew(authority)
            await comes_true(lambda new=new: shown_serial(process.port, client) == new)  # type: ignore[misc]
            serial, certificate, key = new, server.cert_file.read_bytes(), server.key_file.read_bytes()
        assert CERTIFICATE_EXPIRES._value.get() == process_expiry(process)


# Bundles of authorities say whose they are, in whatever encoding; one may come with another key of the same name, or twice.
COMMENTS = ("# Türk Trust, Málaga\n".encode(), "# Türk Trust, Málaga\n".encode("latin-1"), b"# \x00\xff\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("comment", COMMENTS)
async def test_authorities_with_comments_in_any_encoding_are_taken(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair, comment: bytes
) -> None:
    another = Authority.create("another authority")
    server.ca_file.write_bytes(comment + authority.pem)
    async with served(secured(tmp_path, server, tls_require_client_cert=True)) as process:
        assert await asyncio.to_thread(shown_serial, process.port, client, speak=True) == server.serial
        assert "colonies_rpc" in await asyncio.to_thread(metrics, process, client)
        # And of those that are added while it runs: the process looks on, and lets in who comes by them.
        server.ca_file.write_bytes(comment + authority.pem + comment + another.pem + authority.pem)
        client.renew(another)

        def let_in() -> bool:
            try:
                return "colonies_rpc" in metrics(process, client)
            except OSError:
                return False

        await comes_true(let_in)
        assert await asyncio.to_thread(shown_serial, process.port, client, speak=True) == server.serial


def refusals() -> float:
    return float(CERTIFICATES_REFUSED._value.get())


def process_expiry(process: Process) -> float:
    assert process.certificates.files is not None
    expires = process.certificates.files.latest().expires
    assert expires is not None
    return expires


@pytest.mark.asyncio
async def test_a_peer_that_says_nothing_does_not_keep_others_from_the_metrics(
    tmp_path: Path, server: Pair, client: Pair
) -> None:
    async with served(secured(tmp_path, server)) as process:
        _, silent = await asyncio.open_connection("127.0.0.1", process.metrics_port)
        assert "colonies_rpc" in await asyncio.to_thread(metrics, process, client)
        silent.close()


@pytest.mark.asyncio
async def test_a_channel_to_another_service_shows_its_certificate_and_takes_up_a_new_one(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair
) -> None:
    async with served(secured(tmp_path, server, tls_require_client_cert=True)) as process, AsyncExitStack() as stack:
        other = Process("cron", secured(tmp_path, client), stack, SystemClock())
        stub = cast("Any", HealthStub(other.channel(f"127.0.0.1:{process.port}", "auth_address")))
        assert (await stub.Check(ASK, timeout=5)).status == SERVING
        # Signed by an authority of which the server knows nothing, until it is told: this is a new connection, then.
        other_authority = Authority.create("another authority")
        client.renew(other_authority)
        client.ca_file.write_bytes(authority.pem + other_authority.pem)

        async def refused() -> bool:
            try:
                await stub.Check(ASK, timeout=5)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        async with asyncio.timeout(5):
            while not await refused():
                await asyncio.sleep(0.02)
        server.ca_file.write_bytes(authority.pem + other_authority.pem)
        async with asyncio.timeout(5):
            while await refused():
                await asyncio.sleep(0.02)


@pytest.mark.asyncio
@pytest.mark.parametrize("changes", [{"listen": "0.0.0.0:0"}, {"metrics_listen": "0.0.0.0:0"}, {"metrics_listen": ":0"}])
async def test_plaintext_off_loopback_needs_the_flag(tmp_path: Path, changes: dict[str, str], server: Pair) -> None:
    (setting,) = changes
    with pytest.raises(StartError, match=f"COLONIES_{setting.upper()}.*COLONIES_TLS_CERT_FILE.*COLONIES_ALLOW_PLAINTEXT"):
        async with served(settings_of(tmp_path, **changes)):
            pass
    for allowed in (settings_of(tmp_path, **changes, allow_plaintext=True), secured(tmp_path, server, **changes)):
        async with served(allowed):
            pass


@pytest.mark.asyncio
async def test_plaintext_to_another_machine_needs_the_flag(tmp_path: Path, server: Pair) -> None:
    async with AsyncExitStack() as stack:
        process = Process("auth", settings_of(tmp_path), stack, SystemClock())
        with pytest.raises(StartError, match=r"COLONIES_AUTH_ADDRESS.*COLONIES_TLS_CA_FILE.*COLONIES_ALLOW_PLAINTEXT"):
            process.channel("envoy:50080", "auth_address")
        for settings in (settings_of(tmp_path, allow_plaintext=True), secured(tmp_path, server)):
            Process("auth", settings, stack, SystemClock()).channel("envoy:50080", "auth_address")


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"tls_cert_file"}, "COLONIES_TLS_KEY_FILE"),
        ({"tls_key_file"}, "COLONIES_TLS_CERT_FILE"),
        ({"tls_ca_file", "tls_require_client_cert"}, "COLONIES_TLS_CERT_FILE"),
        ({"tls_cert_file", "tls_key_file", "tls_require_client_cert"}, "COLONIES_TLS_CA_FILE"),
    ],
)
def test_settings_by_halves_are_refused_by_name(tmp_path: Path, given: set[str], absent: str) -> None:
    values = {name: True if name == "tls_require_client_cert" else Path("/some/file") for name in given}
    with pytest.raises(ValidationError, match=f"{absent} is not set"):
        settings_of(tmp_path, **values)


def test_a_service_says_on_its_start_which_setting_is_missing() -> None:
    environment = {
        "COLONIES_CLUSTER": "test",
        "COLONIES_LISTEN": "127.0.0.1:0",
        "COLONIES_POSTGRES_URL": "postgresql://nowhere.invalid/",
        "COLONIES_REDIS_URL": "redis://nowhere.invalid/",
        "COLONIES_SERVER_OWNER": "0" * 64,
        "COLONIES_SERVICE_KEY_FILE": "/some/file",
        "COLONIES_SERVICE_IDENTITIES": "",
        "COLONIES_TLS_CERT_FILE": "/some/file",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
    ended = subprocess.run(
        [sys.executable, "-m", "services.auth"], env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "COLONIES_TLS_KEY_FILE is not set" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def _missing(pair: Pair) -> None:
    pair.cert_file.unlink()


def _open(pair: Pair) -> None:
    pair.key_file.chmod(0o640)


def _mixed_up(pair: Pair) -> None:
    pair.cert_file.write_bytes(pair.ca_file.read_bytes())


def _no_authority(pair: Pair) -> None:
    pair.ca_file.write_text("nothing")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, "cannot read the certificate .*server.crt"),
        (_open, "server.key can be read by others .*0640.*chmod 600"),
        (_mixed_up, "server.crt does not belong to the key .*server.key"),
        (_no_authority, "server.ca holds no certificate"),
    ],
)
async def test_a_process_does_not_start_with_files_that_cannot_be_used(
    tmp_path: Path, server: Pair, spoil: Callable[[Pair], None], words: str
) -> None:
    spoil(server)
    async with AsyncExitStack() as stack:
        with pytest.raises(CertificateFileError, match=words):
            Process("auth", secured(tmp_path, server), stack, SystemClock())
