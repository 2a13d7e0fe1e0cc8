"""TLS: which certificates are used, read again when their files change, and why a connection did not come about.

What is renewed is used for new connections; what runs over an old one goes on. Files that cannot be used change nothing: what
was read before stays, and the reason is told.
"""

import asyncio
import logging
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from colonies.errors import CertificateFileError

log = logging.getLogger("colonies.tls")

LOOK_SECONDS = 1.0
# A connection is only replaced when certificates change; its calls get this long to end by themselves.
RETIRED_SECONDS = 7 * 24 * 3600.0
# What an attempt to connect may take: handshakes over a long way need it. (A refused attempt is made again sooner.)
HANDSHAKE_MS = 5_000
_DIAGNOSIS_SECONDS = 2.0
_NO_TLS_THERE = "the server does not seem to speak TLS at this port; if it is not to, give --no-tls or set COLONIES_TLS=off"
_ASKS_FOR_CERTIFICATE = "the server asks for a certificate of the client: give --cert-file FILE and --cert-key-file FILE"
_CLOSED = "the server closed the connection as soon as it was made: it may not accept this client's certificate"
# What a client of HTTP/2 says first: a fixed text, and settings that change nothing.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
# OpenSSL's numbers for "hostname mismatch" and "IP address mismatch".
_WRONG_NAME = (62, 64)

_Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) for TLS; an empty text stands for none.

    `ca_file` holds the certificates that are trusted; without it, a client trusts the public ones that come with gRPC.
    `cert_file` is the own certificate, followed by what leads from it to a trusted one, and `cert_key_file` its private key,
    which only its owner may read (mode 0600). A client needs them where the server asks for them.
    """

    ca_file: str = ""
    cert_file: str = ""
    cert_key_file: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(Path(name).expanduser() for name in (self.ca_file, self.cert_file, self.cert_key_file) if name)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files of a Tls held when they were read. `expires` is the own certificate's end, in unix seconds."""

    roots: bytes | None
    chain: bytes | None
    key: bytes | None = field(repr=False)
    expires: float | None
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, tls: Tls) -> Self:
        """Reads the files and checks them.

        Raises:
            CertificateFileError: one is missing, or cannot be used; says which and why.
        """
        if bool(tls.cert_file) != bool(tls.cert_key_file):
            given = tls.cert_file or tls.cert_key_file
            msg = f"a certificate and its private key belong together: there is only {given}"
            raise CertificateFileError(msg)
        roots = _read(Path(tls.ca_file).expanduser(), "CA file") if tls.ca_file else None
        if roots is not None:
            _certificates(roots, tls.ca_file)
        if not tls.cert_file:
            return cls(roots, None, None, None)
        chain = _read(Path(tls.cert_file).expanduser(), "certificate")
        key = _read_private(Path(tls.cert_key_file).expanduser())
        expires, names = _check_pair(tls, chain, key)
        return cls(roots, chain, key, expires, names)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read the {what} {path}: {error.strerror or error}"
        raise CertificateFileError(msg) from error


def _read_private(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        msg = f"cannot read the certificate's key {path}: {error.strerror or error}"
        raise CertificateFileError(msg) from error
    if mode & 0o077:
        msg = f"the certificate's key {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}"
        raise CertificateFileError(msg)
    return _read(path, "certificate's key")


def _certificates(pem: bytes, path: str) -> Any:
    # Loaded here: most programs use no TLS of their own.
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        msg = f"{path} holds no certificate in PEM"
        raise CertificateFileError(msg) from error


def _check_pair(tls: Tls, chain: bytes, key: bytes) -> tuple[float, tuple[str, ...]]:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    certificate = _certificates(chain, tls.cert_file)[0]
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The parser's own words might quote what it read.
        msg = f"{tls.cert_key_file} holds no private key in PEM without a password"
        raise CertificateFileError(msg) from error
    if private.public_key() != certificate.public_key():
        msg = f"the certificate {tls.cert_file} does not belong to the key {tls.cert_key_file}"
        raise CertificateFileError(msg)
    expires = certificate.not_valid_after_utc
    if expires.timestamp() <= time.time():
        msg = f"the certificate {tls.cert_file} has expired ({expires:%Y-%m-%d %H:%M} UTC)"
        raise CertificateFileError(msg)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return expires.timestamp(), ()
    return expires.timestamp(), tuple(names.get_values_for_type(x509.DNSName))


def _log_refused(error: CertificateFileError) -> None:
    log.error("new certificates are not used, the old ones stay: %s", error)


class CertificateFiles:
    """The certificates in the files of a Tls: the latest that can be used. For any thread."""

    def __init__(
        self,
        tls: Tls,
        *,
        on_refused: Callable[[CertificateFileError], None] = _log_refused,
        check: Callable[[Credentials], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_refused` is told, once, of each change that cannot be used; `check` raises for what the user of them cannot use.

        Raises:
            CertificateFileError: they cannot be used as they are.
        """
        self.tls = tls
        self._on_refused = on_refused
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._used: _Stamp = self._stamp()
        self._doubted: _Stamp | None = None
        self._refused: _Stamp | None = None
        self._credentials = self._read()
        self._next_look = clock() + LOOK_SECONDS

    def latest(self) -> Credentials:
        """The credentials to use for a new connection; the same object until they change.

        Looks at the files at most once a second. The files of a pair are replaced one after the other, so that what does not
        fit at one look is only refused when it is still there at the next.
        """
        with self._lock:
            now = self._clock()
            if now < self._next_look:
                return self._credentials
            self._next_look = now + LOOK_SECONDS
            # Before they are read: what changes meanwhile is seen at the next look.
            stamp = self._stamp()
            if stamp in (self._used, self._refused):
                return self._credentials
            try:
                self._credentials = self._read()
            except CertificateFileError as error:
                if stamp == self._doubted:
                    self._refused = stamp
                    self._on_refused(error)
                self._doubted = stamp
            else:
                self._used, self._doubted, self._refused = stamp, None, None
            return self._credentials

    def _read(self) -> Credentials:
        read = Credentials.read(self.tls)
        self._check(read)
        return read

    def _stamp(self) -> _Stamp:
        def of(path: Path) -> tuple[int, int, int, int] | None:
            try:
                facts = path.stat()
            except OSError:
                return None
            # The time of the last change of status, too: a mode that was put right is a change.
            return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

        return tuple(of(path) for path in self.tls.paths)


def handshake_options(options: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """The options of a channel, with time for a handshake: how long an attempt to connect may take has an odd name."""
    return tuple({**dict(options), "grpc.min_reconnect_backoff_ms": HANDSHAKE_MS}.items())


class TlsChannel(grpc.aio.Channel):
    """A channel with TLS. When the certificates change, calls go over a new connection; those under way end on the old one."""

    def __init__(self, address: str, files: CertificateFiles, options: Sequence[tuple[str, Any]] = ()) -> None:
        self._address = address
        self._files = files
        self._options = handshake_options(options)
        self._credentials = files.latest()
        self._channel = self._open()
        self._retired: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def _open(self) -> grpc.aio.Channel:
        held = self._credentials
        credentials = grpc.ssl_channel_credentials(held.roots, held.key, held.chain)
        return grpc.aio.secure_channel(self._address, credentials, options=self._options)

    def current(self) -> grpc.aio.Channel:
        """The channel to make the next call with."""
        latest = self._files.latest()
        if latest is not self._credentials:
            old, self._credentials = self._channel, latest
            self._channel = self._open()
            closing = asyncio.get_running_loop().create_task(old.close(RETIRED_SECONDS))
            self._retired[old] = closing
            closing.add_done_callback(lambda _: self._retired.pop(old, None))
        return self._channel

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return _Following(self, lambda to: to.unary_unary(method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return _Following(self, lambda to: to.unary_stream(method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return _Following(self, lambda to: to.stream_unary(method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return _Following(self, lambda to: to.stream_stream(method, request_serializer, response_deserializer))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        retired = dict(self._retired)
        for closing in retired.values():
            closing.cancel()
        # A second close does not wait for calls as the first, which is cancelled, did.
        await asyncio.gather(*(old.close(grace) for old in (*retired, self._channel)))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> Coroutine[Any, Any, None]:
        return self._channel.wait_for_state_change(last_observed_state)

    def channel_ready(self) -> Coroutine[Any, Any, None]:
        return self._channel.channel_ready()


class _Following:
    """One method, called over whichever channel is current."""

    def __init__(self, channel: TlsChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._channel = channel
        self._make = make
        self._over: grpc.aio.Channel | None = None
        self._method: Any = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        current = self._channel.current()
        if current is not self._over:
            self._over, self._method = current, self._make(current)
        return self._method(*args, **options)


def may_be_tls(details: str) -> bool:
    """Whether the text of a failed call could come from a client and a server that do not agree about TLS."""
    return ("failed to connect" in details or "Socket closed" in details) and "refused" not in details


async def diagnose(host: str, port: int, tls: Tls | None) -> str:
    """Why no connection comes about, as far as TLS is the reason; empty if it is not. Takes a few seconds at most.

    gRPC's own words differ with the platform and often say no more than "Socket closed".
    """
    return await asyncio.to_thread(_diagnose, host.strip("[]"), port, tls)


def _diagnose(host: str, port: int, tls: Tls | None) -> str:
    try:
        with socket.create_connection((host, port), timeout=_DIAGNOSIS_SECONDS) as connection:
            return _try_plaintext(connection) if tls is None else _try_tls(connection, host, tls)
    except CertificateFileError as error:
        return str(error)
    except OSError:
        return ""  # the network is the reason, and not TLS


def _try_plaintext(connection: socket.socket) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent over this connection: it only asks whether there is TLS.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return ""
    return "the server speaks TLS at this port, and the client does not: give --ca-file FILE or --tls, or set COLONIES_TLS=on"


def _try_tls(connection: socket.socket, host: str, tls: Tls) -> str:
    held = Credentials.read(tls)
    context = ssl.create_default_context(cadata=held.roots.decode() if held.roots is not None else None)
    context.set_alpn_protocols(["h2"])
    if tls.cert_file:
        context.load_cert_chain(*(os.path.expanduser(name) for name in (tls.cert_file, tls.cert_key_file)))  # noqa: PTH111
    greeted = False
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            greeted = True
            # Whether it wants a certificate of the client, a server of TLS 1.3 says after its side of the handshake.
            secured.sendall(HTTP2_GREETING)
            closed = not secured.recv(1)
    except ssl.SSLCertVerificationError as error:
        what = "is for another name" if error.verify_code in _WRONG_NAME else "is not trusted"
        return f"the server's certificate {what}: {error.verify_message}"
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        reason = str(getattr(error, "reason", None) or "").replace("_", " ").lower()
        if "certificate required" in reason or (not tls.cert_file and "handshake failure" in reason):
            return _ASKS_FOR_CERTIFICATE
        if "alert" in reason:
            return f"the server does not accept this client's certificate: {reason}"
        return "" if greeted else _NO_TLS_THERE
    if not closed:
        return ""
    return _CLOSED if tls.cert_file else _ASKS_FOR_CERTIFICATE
