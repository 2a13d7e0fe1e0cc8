"""The private certificate authority of a local stack, and the certificates that it gives to the front door and the services.

    keys/ca.key                  the authority's key; nobody but this module reads it
    certificates/ca.crt          whom clients and processes trust
    certificates/current/        a link to the set in use: NAME.crt and NAME.key for each name of NAMES

A new set is written beside the old one and put in its place by replacing the link, in one step. Every process watches its files
and takes the new ones for new connections.
"""

import datetime as dt
import fcntl
import ipaddress
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from colonies.tls import Credentials, Tls
from deploy.local.accounts import Account
from deploy.local.errors import StackError
from deploy.local.files import write_atomically
from deploy.local.settings import PROCESSES

FRONT_DOOR = "front-door"
SUPERVISOR = "supervisor"
NAMES = (FRONT_DOOR, SUPERVISOR, *PROCESSES)
AUTHORITY_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=90)
# Certificates are also good a moment ago, for clocks that are behind.
_BACKDATED = dt.timedelta(minutes=5)
HERE = ("localhost", "127.0.0.1", "::1")
_WILDCARDS = ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority: a P-256 key and the certificate that it signed itself. (Envoy takes no Ed25519 by default.)"""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls, name: str, *, key: ec.EllipticCurvePrivateKey | None = None, life: dt.timedelta = AUTHORITY_LIFE
    ) -> "Authority":
        """A new one; with the key of an old one of the same name it is trusted where the old one is."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        certificate = (
            _builder(subject, subject, key, life)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Its private key. Keep it secret."""
        return _key_pem(self._key)

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """Its private key. Keep it secret."""
        return self._key

    def issue(self, name: str, hosts: Iterable[str], *, life: dt.timedelta = LIFE) -> Issued:
        """A certificate for a process that is reached under these host names and addresses, and that calls others with it."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_subject(name), self.certificate.subject, key, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Certificates:
    """The authority and the current set in a data directory."""

    def __init__(self, root: Path, *, account: Account | None = None) -> None:
        """`account` is whom the front door runs as, if not as the caller: its key is given to it."""
        self._folder = root / "certificates"
        self._authority_key = root / "keys" / "ca.key"
        self._account = account

    @property
    def ca_file(self) -> Path:
        """Whom to trust."""
        return self._folder / "ca.crt"

    @property
    def current(self) -> Path:
        """The folder that holds the set in use."""
        return self._folder / "current"

    @property
    def watched(self) -> Path:
        """The folder in which the set in use is replaced."""
        return self._folder

    @property
    def exist(self) -> bool:
        """Whether there is a set."""
        return self.current.exists()

    def tls(self, name: str) -> Tls:
        """The files of one process."""
        return Tls(str(self.ca_file), str(self.current / f"{name}.crt"), str(self.current / f"{name}.key"))

    def ensure(self, host: str) -> bool:
        """Makes what is missing, and renews what has less than a third of its life left. True if there is a new set.

        Args:
            host: where the front door listens; a set for another address is replaced.

        Raises:
            StackError: the authority's files cannot be used.
        """
        with self._locked():
            authority = self._authority()
            if self._is_good(authority, _hosts(host)):
                return False
            self._replace(authority, _hosts(host))
            return True

    def renew(self) -> None:
        """Replaces the set that there is by a new one for the same hosts. Errors as for `ensure`."""
        with self._locked():
            certificate = _load(self.current / f"{FRONT_DOOR}.crt")
            self._replace(self._authority(), _named(certificate))

    def expiries(self) -> dict[str, dt.datetime]:
        """When the certificates of the current set expire, and the authority's own as `ca`."""
        files = {"ca": self.ca_file, **{name: self.current / f"{name}.crt" for name in NAMES}}
        return {name: _load(path).not_valid_after_utc for name, path in files.items()}

    def authority(self) -> Authority:
        """The authority; made on first use. Errors as for `ensure`."""
        with self._locked():
            return self._authority()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The front door must list it to be told of changes; the keys in it are closed each by itself.
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o755)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _authority(self) -> Authority:
        if not self._authority_key.exists():
            authority = Authority.create(f"Colonies local authority {secrets.token_hex(4)}")
            write_atomically(self._authority_key, authority.key_pem.decode())
            write_atomically(self.ca_file, authority.pem.decode(), mode=0o644)
            return authority
        if self._authority_key.stat().st_mode & 0o077:
            msg = f"{self._authority_key} can be read by others; run: chmod 600 {self._authority_key}"
            raise StackError(msg)
        try:
            key = serialization.load_pem_private_key(self._authority_key.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            msg = f"{self._authority_key} holds no private key; restore it, or remove it and {self._folder} for a new authority"
            raise StackError(msg) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            msg = f"{self._authority_key} is not an elliptic curve key"
            raise StackError(msg)
        certificate = _load(self.ca_file)
        if certificate.public_key() != key.public_key():
            msg = f"{self.ca_file} does not belong to {self._authority_key}: remove both for a new authority"
            raise StackError(msg)
        authority = Authority(certificate, key)
        if _wears_out(certificate):
            (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            authority = Authority.create(str(name.value), key=key)
            write_atomically(self.ca_file, authority.pem.decode(), mode=0o644)
        return authority

    def _is_good(self, authority: Authority, hosts: Iterable[str]) -> bool:
        for name in NAMES:
            try:
                Credentials.read(self.tls(name))
                certificate = _load(self.current / f"{name}.crt")
                certificate.verify_directly_issued_by(authority.certificate)
            except Exception:  # noqa: BLE001 - whatever is wrong with a set, a new one is made
                return False
            if _wears_out(certificate) or (name == FRONT_DOOR and set(_named(certificate)) != set(hosts)):
                return False
        return True

    def _replace(self, authority: Authority, front_door_hosts: Iterable[str]) -> None:
        fresh = self._folder / f"set-{secrets.token_hex(6)}"
        fresh.mkdir()
        fresh.chmod(0o755)
        for name in NAMES:
            hosts = front_door_hosts if name == FRONT_DOOR else (name, *HERE)
            issued = authority.issue(name, hosts)
            owner = self._account if name == FRONT_DOOR else None
            write_atomically(fresh / f"{name}.key", issued.key.decode(), owner=owner)
            write_atomically(fresh / f"{name}.crt", issued.certificate.decode(), mode=0o644)
        before = self.current.resolve()
        scratch = self._folder / f".current.{secrets.token_hex(4)}"
        scratch.symlink_to(fresh.name)
        scratch.replace(self.current)
        for old in self._folder.glob("set-*"):
            # Somebody may be reading the one before at this moment.
            if old.name not in (fresh.name, before.name):
                shutil.rmtree(old, ignore_errors=True)


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"cannot read the certificate {path}: {error}"
        raise StackError(msg) from error


def _wears_out(certificate: x509.Certificate) -> bool:
    """Whether less than a third of its life is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - dt.datetime.now(dt.UTC) < (end - begin) / 3


def _named(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _hosts(host: str) -> list[str]:
    """Under which names and addresses the front door is reached."""
    if host not in _WILDCARDS:
        return list(dict.fromkeys([*HERE, host.strip("[]")]))
    name = socket.gethostname()
    found = [*HERE, name]
    with suppress(OSError):
        found += sorted({str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(name, None)})
    return list(dict.fromkeys(found))
