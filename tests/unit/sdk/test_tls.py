"""TLS of the SDK: files that change, what is said when it does not fit, and how a profile asks for it."""

import asyncio
import errno
import os
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import colonies.tls
from colonies import tls_diagnosis
from colonies.client import AsyncClient
from colonies.errors import CertificateFileError, ProfileError, UnavailableError
from colonies.executor import Executor
from colonies.keys import PrivateKey
from colonies.profile import Profile, active, load_profiles, save_profile, tls_for
from colonies.tls import CertificateFiles, Tls
from deploy.local.certificates import Authority
from tests.harness.certificates import Pair

KEY = PrivateKey.generate()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test authority")


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Pair:
    return Pair(tmp_path, "server", authority)


@pytest.fixture
def client(tmp_path: Path, authority: Authority) -> Pair:
    return Pair(tmp_path, "client", authority)


class _Unimplemented(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> None:
        del handler_call_details


@asynccontextmanager
async def listening(pair: Pair | None, *, mutual: bool = False) -> AsyncIterator[int]:
    """A gRPC server that knows no method: what gets through to it is told so."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Unimplemented(),))
    if pair is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        held = [(pair.key_file.read_bytes(), pair.cert_file.read_bytes())]
        credentials = grpc.ssl_server_credentials(held, pair.ca_file.read_bytes() if mutual else None, mutual)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def outcome(port: int, tls: Tls | bool) -> str:
    async with AsyncClient("127.0.0.1", port, "dev", KEY, "c", retry_for=0.0, tls=tls) as asking:
        try:
            await asking.server_info()
        except UnavailableError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            return type(error).__name__
    return "answered"


THROUGH = "RpcError"


@pytest.mark.asyncio
async def test_what_does_not_fit_is_said_in_plain_words(
    tmp_path: Path, server: Pair, client: Pair, authority: Authority
) -> None:
    stranger = Pair(tmp_path, "stranger", Authority.create("another authority"))
    misnamed = Pair(tmp_path, "misnamed", authority, hosts=["colonies.example"])
    with_stranger = Tls(server.trust.ca_file, stranger.tls.cert_file, stranger.tls.cert_key_file)
    async with listening(server) as port:
        assert await outcome(port, server.trust) == THROUGH
        assert "speaks TLS at this port, and the client does not" in await outcome(port, False)
        assert "certificate is not trusted" in await outcome(port, stranger.trust)
        # The public authorities know nothing of it.
        assert "certificate is not trusted" in await outcome(port, True)
    async with listening(misnamed) as port:
        assert "certificate is for another name" in await outcome(port, server.trust)
    async with listening(None) as port:
        assert await outcome(port, False) == THROUGH
        assert "does not seem to speak TLS" in await outcome(port, server.trust)
    async with listening(server, mutual=True) as port:
        assert await outcome(port, client.tls) == THROUGH
        assert "asks for a certificate of the client: give --cert-file" in await outcome(port, server.trust)
        assert "certificate" in await outcome(port, with_stranger)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "refused" in await outcome(unused.getsockname()[1], server.trust)


@pytest.mark.asyncio
async def test_a_server_far_away_gets_time_for_its_handshake(server: Pair) -> None:
    """Each packet of the server comes 0.4 s late, which is more than a plaintext channel would give a connection."""
    loop = asyncio.get_running_loop()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", far)

        async def there() -> None:
            while data := await reader.read(1 << 16):
                inner_writer.write(data)
            inner_writer.close()

        async def back() -> None:
            while data := await inner_reader.read(1 << 16):
                loop.call_later(0.4, writer.write, data)

        await asyncio.gather(there(), back())

    async with listening(server) as far:
        proxy = await asyncio.start_server(late, "127.0.0.1", 0)
        try:
            assert await outcome(proxy.sockets[0].getsockname()[1], server.trust) == THROUGH
        finally:
            proxy.close()


@pytest.mark.asyncio
async def test_a_port_that_says_nothing_is_no_hang(server: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_diagnosis, "DIAGNOSIS_SECONDS", 0.2)
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    try:
        port = silent.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            assert "does not seem to speak TLS" in await tls_diagnosis.diagnose("127.0.0.1", port, server.trust)
            assert await tls_diagnosis.diagnose("127.0.0.1", port, None) == ""
    finally:
        silent.close()
        for writer in held:
            writer.close()


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["renew", "break", "half", "open", "gone", "look", "look"]), max_size=12))
def test_the_latest_pair_that_fits_is_what_is_used(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> None:
    pair = Pair(tmp_path_factory.mktemp("pair"), "server", authority)
    hand, refused = Hand(), list[CertificateFileError]()
    files = CertificateFiles(pair.tls, on_refused=refused.append, clock=hand)
    fits, good, broken_looks = True, pair.cert_file.read_bytes(), 0
    for step in steps:
        before = len(refused)
        if step == "look":
            hand.now += colonies.tls.LOOK_SECONDS
            held = files.latest()
            if fits:
                good, broken_looks = pair.cert_file.read_bytes(), 0
                assert len(refused) == before
            else:
                # Once, and not at the first look: the files of a pair are replaced one after the other.
                broken_looks += 1
                assert len(refused) == before + (broken_looks == 2)
            assert held.chain == good
            assert files.latest() is held
            continue
        broken_looks = 0
        pair.key_file.unlink(missing_ok=True)
        pair.key_file.touch(mode=0o600)
        pair.renew(authority)
        fits = step == "renew"
        match step:
            case "break":
                pair.cert_file.write_text("no certificate")
            case "half":
                pair.cert_file.write_bytes(authority.issue("server", ["localhost"]).certificate)
            case "open":
                pair.key_file.chmod(0o604)
            case "gone":
                pair.key_file.unlink()
        # Not yet a second later: nobody has looked.
        assert files.latest().chain == good


@pytest.mark.asyncio
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_comments_among_authorities_are_in_nobodys_way(server: Pair, client: Pair, encoding: str) -> None:
    client.ca_file.write_bytes("# Málaga\n".encode(encoding) + client.ca_file.read_bytes())
    async with listening(server) as port:
        assert await outcome(port, client.trust) == THROUGH
    async with listening(server, mutual=True) as port:
        assert "asks for a certificate" in await outcome(port, client.trust)


@pytest.mark.asyncio
async def test_to_ask_why_there_is_no_connection_raises_nothing(server: Pair, client: Pair) -> None:
    client.name_extension_twice()
    async with listening(server) as port:
        assert await tls_diagnosis.diagnose("localhost", port, client.tls) == ""
    assert await tls_diagnosis.diagnose("no such name" * 100, 1, None) == ""
    assert await tls_diagnosis.diagnose("127.0.0.1", 1 << 20, None) == ""


def test_a_certificate_that_no_parser_takes_is_refused_and_the_one_before_stays(
    client: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colonies.tls, "LOOK_SECONDS", 0.0)
    refused: list[CertificateFileError] = []
    files = CertificateFiles(client.tls, on_refused=refused.append)
    held = files.latest()
    client.name_extension_twice()
    assert [files.latest() for _ in range(4)] == [held] * 4
    assert len(refused) == 1
    with pytest.raises(CertificateFileError, match=r"client\.crt.*DuplicateExtension"):
        CertificateFiles(client.tls)


def test_files_that_could_not_be_used_for_a_while_are_used_afterwards(
    client: Pair, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing about them changes in between: it is the machine that had no file descriptors left, say."""
    monkeypatch.setattr(colonies.tls, "LOOK_SECONDS", 0.0)
    refused: list[CertificateFileError] = []
    files = CertificateFiles(client.tls, on_refused=refused.append)
    held = files.latest()
    client.renew(authority)
    with monkeypatch.context() as failing:
        failing.setattr(Path, "read_bytes", _too_many_files)
        assert [files.latest() for _ in range(4)] == [held] * 4
    assert len(refused) == 1
    assert files.latest().chain == client.cert_file.read_bytes()


def _too_many_files(_: Path) -> bytes:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_certificate_without_its_key_is_refused(client: Pair) -> None:
    for tls in (Tls(cert_file=str(client.cert_file)), Tls(cert_key_file=str(client.key_file))):
        with pytest.raises(CertificateFileError, match="belong together"):
            AsyncClient("127.0.0.1", 1, "dev", KEY, "c", tls=tls)


def test_the_key_is_in_no_text(client: Pair) -> None:
    secret = client.key_file.read_text().splitlines()[1]
    assert secret not in repr(CertificateFiles(client.tls).latest())
    client.key_file.write_text("-----BEGIN PRIVATE KEY-----\nAAAA" + secret)
    with pytest.raises(CertificateFileError, match="holds no private key") as refused:
        CertificateFiles(client.tls)
    assert secret not in str(refused.value)


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "0.0.0.0", "::2"])
def test_plaintext_to_another_machine_has_to_be_asked_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match=r"plaintext to .* could be read"):
        AsyncClient(host, 1, "dev", KEY, "c")
    with pytest.raises(ProfileError, match=r"plaintext to .* could be read"):
        AsyncClient.from_profile(Profile("p", host=host), key=KEY)
    with pytest.raises(ProfileError, match=r"plaintext to .* could be read"):
        Executor("worker", host=host, colony="dev", key=KEY, cluster="c")._connect()
    assert AsyncClient(host, 1, "dev", KEY, "c", tls=False).tls is None
    assert AsyncClient.from_profile(Profile("p", host=host, tls=False, cluster="c"), key=KEY).tls is None
    assert AsyncClient(host, 1, "dev", KEY, "c", tls=True).tls == Tls()
    monkeypatch.setenv("COLONIES_TLS", "off")
    assert AsyncClient(host, 1, "dev", KEY, "c").tls is None
    monkeypatch.setenv("COLONIES_TLS", "on")
    assert AsyncClient(host, 1, "dev", KEY, "c").tls == Tls()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]"])
def test_plaintext_on_this_machine_needs_no_word(host: str) -> None:
    assert AsyncClient(host, 1, "dev", KEY, "c").tls is None


def test_profiles_keep_what_they_say_of_tls(client: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Profile("full", "h", 7, "c", "dev", tls=True, ca_file="/ca", cert_file="/cert", cert_key_file="/key")
    off = Profile("off", "h", 8, tls=False)
    for profile in (full, off, Profile("plain")):
        save_profile(profile)
    assert load_profiles() == {"full": full, "off": off, "plain": Profile("plain")}
    # A client that is given the address alone goes by the profile that has it.
    assert tls_for("h", 7) == Tls("/ca", "/cert", "/key")
    assert tls_for("h", 8) is None
    save_profile(Profile("other", "h", 7, tls=False))
    with pytest.raises(ProfileError, match="several profiles"):
        tls_for("h", 7)
    monkeypatch.setenv("COLONIES_CA_FILE", "/env")
    assert active("plain").transport() == Tls("/env")
    assert active("off").transport() == Tls("/env")
    assert active("full").transport() == Tls("/env", "/cert", "/key")
    monkeypatch.setenv("COLONIES_TLS", "off")
    assert active("full").transport() is None
    monkeypatch.setenv("COLONIES_TLS", "yes")
    with pytest.raises(ProfileError, match="COLONIES_TLS is 'yes': it is on or off"):
        active("full")


def test_half_a_client_certificate_in_a_profile_is_named() -> None:
    with pytest.raises(ProfileError, match="'p' has no cert_key_file"):
        Profile("p", cert_file="/cert").transport()
    with pytest.raises(ProfileError, match="'p' has no cert_file"):
        Profile("p", cert_key_file="/key").transport()


# A certificate (and no key) with the serial number 0, as some of public bundles have.
OLD_AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBMzCB5qADAgECAgEAMAUGAytlcDAYMRYwFAYDVQQDDA1vbGQgYXV0aG9yaXR5
MCAXDTI2MTEyMzE1MjMxMloYDzIxMjYxMDMwMTUyMzEyWjAYMRYwFAYDVQQDDA1v
bGQgYXV0aG9yaXR5MCowBQYDK2VwAyEAvVz9wH/Me3Jzz676Uq6mJ7rDI3kzlRgI
wUXgTw9X2bejUzBRMB0GA1UdDgQWBBSJfauTbpp/Bxdr0iffXZgngsCizTAfBgNV
HSMEGDAWgBSJfauTbpp/Bxdr0iffXZgngsCizTAPBgNVHRMBAf8EBTADAQH/MAUG
AytlcANBAFoM3Cx+pkjYoM241WixvF1i/+rKFyv0+dW9JEpGcItu23PA1rWl3Y8d
7WZUB4MX+BhtZHUY+o6/o4y0btybegs=
-----END CERTIFICATE-----
"""


def test_an_old_authority_in_a_bundle_is_taken_without_a_warning(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"the old one\n{OLD_AUTHORITY}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = CertificateFiles(Tls(ca_file=str(bundle))).latest()
    assert read.roots == OLD_AUTHORITY.encode()
