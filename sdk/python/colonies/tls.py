"""TLS: which certificates are used, read again when their files change.

What is renewed is used for new connections; what runs over an old one goes on. Files that cannot be used change nothing: what
was read before stays, and the reason is told.
"""

import asyncio
import logging
import stat
import threading
import time
import warnings
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
    """What the files of a Tls held when they were read. `expires` is the own certificate's end, in unix seconds.

    `roots` are the certificates that are trusted and nothing else, encoded anew: such files come with comments in any encoding.
    """

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
            roots = _encoded(_certificates(roots, tls.ca_file))
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
    from cryptography.utils import CryptographyDeprecationWarning

    try:
        with warnings.catch_warnings():
            # Bundles of public authorities hold some that are older than today's rules; nobody who reads this can change them.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        msg = f"{path} holds no certificate in PEM"
        raise CertificateFileError(msg) from error


def _encoded(certificates: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


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
            if stamp == self._used:
                return self._credentials
            # What was refused is read again, too: why it could not be used may have lain elsewhere, and have passed.
            try:
                self._credentials = self._read()
            except CertificateFileError as error:
                if stamp == self._doubted and stamp != self._refused:
                    self._refused = stamp
                    self._on_refused(error)
                self._doubted = stamp
            else:
                self._used, self._doubted, self._refused = stamp, None, None
            return self._credentials

    def _read(self) -> Credentials:
        try:
            read = Credentials.read(self.tls)
            self._check(read)
        except CertificateFileError:
            raise
        except Exception as error:
            # Parsers fail in ways that nobody lists, and what is in a file must end no loop that looks at it.
            names = ", ".join(str(path) for path in self.tls.paths)
            msg = f"one of {names} holds what cannot be used for TLS ({type(error).__name__})"
            raise CertificateFileError(msg) from error
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
