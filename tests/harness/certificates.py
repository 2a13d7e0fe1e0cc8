"""Certificates for tests, of the same authority as the local stack's, and a look at what a listener shows."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from colonies.tls import Tls
from colonies.tls_diagnosis import HTTP2_GREETING
from deploy.local.certificates import LIFE, Authority


class Pair:
    """The files of one process: a certificate, its key, and whom it trusts."""

    def __init__(
        self, directory: Path, name: str, authority: Authority, hosts: Sequence[str] = ("localhost", "127.0.0.1")
    ) -> None:
        self._hosts = hosts
        self.name = name
        self.ca_file, self.cert_file, self.key_file = (directory / f"{name}.{end}" for end in ("ca", "crt", "key"))
        self.ca_file.write_bytes(authority.pem)
        self.key_file.touch(mode=0o600)
        self.renew(authority)

    def renew(self, authority: Authority, *, life: dt.timedelta = LIFE) -> int:
        """Writes a new certificate with a new key into the files; gives its serial number."""
        issued = authority.issue(self.name, self._hosts, life=life)
        self.key_file.write_bytes(issued.key)
        self.cert_file.write_bytes(issued.certificate)
        return self.serial

    def name_extension_twice(self) -> None:
        """Puts a certificate of the same key into the file that parses, and whose extensions do not."""
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        now = dt.datetime.now(dt.UTC)
        name = x509.Name([])
        made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        for number in (1, 2):
            made = made.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{number}"), b""), critical=False)
        der = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        twice = der.replace(b"\x06\x03\x2a\x03\x02", b"\x06\x03\x2a\x03\x01")
        assert twice != der
        self.cert_file.write_text(ssl.DER_cert_to_PEM_cert(twice))

    @property
    def serial(self) -> int:
        """The serial number of the certificate that is in the file."""
        return x509.load_pem_x509_certificate(self.cert_file.read_bytes()).serial_number

    @property
    def tls(self) -> Tls:
        """The files for a client that shows its certificate."""
        return Tls(str(self.ca_file), str(self.cert_file), str(self.key_file))

    @property
    def trust(self) -> Tls:
        """The files for a client without a certificate."""
        return Tls(str(self.ca_file))


def shown_serial(port: int, pair: Pair, *, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, speak: bool = False) -> int:
    """The serial number of the certificate that a new connection to a port is shown.

    With `speak` it waits for the server's first word, for only then does a server of TLS 1.3 say that it takes this client.
    """
    context = ssl.create_default_context(cafile=str(pair.ca_file))
    context.load_cert_chain(pair.cert_file, pair.key_file)
    context.set_alpn_protocols(["h2"])
    # Python would not even offer the old versions at its default level.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = min(maximum, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = maximum
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        serial = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"").serial_number
        if speak:
            secured.sendall(HTTP2_GREETING)
            if not secured.recv(1):
                msg = "the server took the handshake and closed"
                raise ConnectionError(msg)
        return serial


async def comes_true(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Asks, in a thread, until the condition holds."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)
