"""The private authority of a local stack: what its certificates say, who may read what, and when they are renewed."""

import datetime as dt
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from colonies.tls import Credentials
from deploy.local import certificates as made
from deploy.local import control
from deploy.local.accounts import embedded_account
from deploy.local.certificates import FRONT_DOOR, NAMES, Authority, Certificates
from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.errors import StackError
from deploy.local.layout import Layout
from deploy.local.ports import free_port
from tests.harness.certificates import Pair, shown_serial

from .conftest import eventually, stack_settings


@pytest.fixture
def root(open_dir: Path) -> Path:
    """A data directory."""
    Layout(open_dir).prepare()
    return open_dir


@pytest.fixture
def certificates(root: Path) -> Certificates:
    """A first set, for a front door on loopback."""
    kept = Certificates(root, account=embedded_account())
    assert kept.ensure("127.0.0.1")
    return kept


def held(certificates: Certificates, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((certificates.current / f"{name}.crt").read_bytes())


def serials(certificates: Certificates) -> dict[str, int]:
    return {name: held(certificates, name).serial_number for name in NAMES}


def hosts(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def test_what_the_certificates_say(certificates: Certificates) -> None:
    authority = x509.load_pem_x509_certificate(certificates.ca_file.read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for name in NAMES:
        certificate = held(certificates, name)
        certificate.verify_directly_issued_by(authority)
        public = certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert public.curve.name == "secp256r1"
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert {"localhost", "127.0.0.1", "::1"} <= hosts(certificate)
        # The front door is nobody's stand-in for a service: it checks them by these names.
        assert (name in hosts(certificate)) == (name != FRONT_DOOR)
        assert Credentials.read(certificates.tls(name)).key is not None
        left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
        assert dt.timedelta(days=89) < left <= made.LIFE
    assert len(set(serials(certificates).values())) == len(NAMES)


def test_keys_are_readable_by_their_owner_only(root: Path, certificates: Certificates) -> None:
    keys = [root / "keys" / "ca.key", *certificates.current.glob("*.key")]
    assert len(keys) == 1 + len(NAMES)
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
    account = embedded_account()
    if account is not None:
        assert [key.name for key in keys if key.stat().st_uid == account.uid] == [f"{FRONT_DOOR}.key"]


def test_a_set_lives_until_a_third_of_its_life_is_left(
    root: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = serials(certificates)
    assert not certificates.ensure("127.0.0.1")
    assert serials(certificates) == before

    class Later(dt.datetime):
        days = 59

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.now(tz) + dt.timedelta(days=cls.days)

    class Calendar:
        datetime, timedelta, UTC = Later, dt.timedelta, dt.UTC

    monkeypatch.setattr(made, "dt", Calendar)
    assert not certificates.ensure("127.0.0.1")
    Later.days = 61
    assert certificates.ensure("127.0.0.1")
    after = serials(certificates)
    assert not set(after.values()) & set(before.values())


def test_an_authority_that_wears_out_is_renewed_with_its_key(root: Path, certificates: Certificates) -> None:
    old = x509.load_pem_x509_certificate(certificates.ca_file.read_bytes())
    key = certificates.authority().key
    worn = Authority.create(str(old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value), key=key)
    short = Authority.create("x", key=key, life=dt.timedelta(seconds=60))
    certificates.ca_file.write_bytes(short.pem)
    certificates.ensure("127.0.0.1")
    new = x509.load_pem_x509_certificate(certificates.ca_file.read_bytes())
    assert new.public_key() == worn.certificate.public_key()
    assert new.not_valid_after_utc - dt.datetime.now(dt.UTC) > dt.timedelta(days=3000)
    for name in NAMES:
        held(certificates, name).verify_directly_issued_by(new)


def test_another_address_or_a_damaged_file_makes_a_new_set(certificates: Certificates) -> None:
    before = serials(certificates)
    assert certificates.ensure("192.0.2.7")
    assert "192.0.2.7" in hosts(held(certificates, FRONT_DOOR))
    (certificates.current / "auth.key").write_text("")
    assert certificates.ensure("192.0.2.7")
    assert not certificates.ensure("192.0.2.7")
    assert not set(serials(certificates).values()) & set(before.values())


def test_renewing_keeps_hosts_authority_and_the_set_before(certificates: Certificates) -> None:
    certificates.ensure("192.0.2.7")
    authority, named, before = certificates.ca_file.read_bytes(), hosts(held(certificates, FRONT_DOOR)), serials(certificates)
    for _ in range(3):
        certificates.renew()
    assert certificates.ca_file.read_bytes() == authority
    assert hosts(held(certificates, FRONT_DOOR)) == named
    assert not set(serials(certificates).values()) & set(before.values())
    # Who reads the old set at the moment of the change must not find half of it gone.
    assert len(list(certificates.watched.glob("set-*"))) == 2


def test_an_authority_key_that_others_can_read_is_refused(root: Path, certificates: Certificates) -> None:
    (root / "keys" / "ca.key").chmod(0o640)
    with pytest.raises(StackError, match=r"can be read by others.*chmod 600"):
        certificates.renew()


def test_renewing_without_certificates_says_how_to_get_some(root: Path) -> None:
    with pytest.raises(StackError, match="colonies up --tls"):
        control.renew_certificates(root)


def test_plaintext_for_other_machines_has_to_be_asked_for(open_dir: Path) -> None:
    settings = stack_settings(open_dir / "data", host="0.0.0.0")
    with pytest.raises(StackError, match=r"plaintext on 0\.0\.0\.0.*--tls.*--allow-plaintext"):
        control.up(settings)
    assert not control.status(settings.data_dir).running
    allowed = stack_settings(open_dir / "data", host="0.0.0.0", allow_plaintext=True)
    try:
        assert control.up(allowed).ca_file == ""
    finally:
        control.down(allowed.data_dir)


@pytest.fixture
def front_door(root: Path, certificates: Certificates) -> Iterator[EnvoyFrontDoor]:
    """A front door that takes only clients with a certificate."""
    door = EnvoyFrontDoor(root / "envoy", port=free_port(), tls=certificates.tls(FRONT_DOOR), require_client_certificate=True)
    door.start()
    yield door
    door.stop()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_the_front_door_takes_up_certificates_and_refuses_strangers(
    root: Path, certificates: Certificates, front_door: EnvoyFrontDoor
) -> None:
    assert front_door.port is not None
    authority = certificates.authority()
    client = Pair(root / "keys", "client", authority)
    stranger = Pair(root / "keys", "stranger", Authority.create("another authority"))
    stranger.ca_file.write_bytes(authority.pem)

    def shown(pair: Pair = client, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
        return shown_serial(front_door.port or 0, pair, maximum=maximum, speak=True)

    first = held(certificates, FRONT_DOOR).serial_number
    assert shown() == shown(maximum=ssl.TLSVersion.TLSv1_2) == first
    with pytest.raises(ssl.SSLError):
        shown(maximum=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(ssl.SSLError):
        shown(stranger)
    certificates.renew()
    second = held(certificates, FRONT_DOOR).serial_number
    eventually(lambda: shown() == second, seconds=5)
    # A set that does not fit together is put in place: Envoy says so, and goes on with what it has.
    broken = certificates.watched / "set-broken"
    broken.mkdir(mode=0o755)
    for source, end in ((certificates.current / f"{FRONT_DOOR}.crt", "crt"), (client.key_file, "key")):
        target = broken / f"{FRONT_DOOR}.{end}"
        target.write_bytes(source.read_bytes())
        target.chmod(0o644)
    link = certificates.watched / "link"
    link.symlink_to(broken.name)
    link.replace(certificates.current)
    eventually(lambda: "key_rotation_failed: 1" in front_door._ask("/stats?filter=sds.own"), seconds=5)
    assert shown() == second
    assert front_door.alive()
