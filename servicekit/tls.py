"""TLS of a process: one set of certificates, by settings, for its listeners and for its calls to services.

Renewed files are taken up for new connections, without a restart; files that cannot be used are refused, and the old stay.
"""

import asyncio
import os
import ssl
import threading

import grpc
import structlog

from colonies.errors import CertificateFileError
from colonies.tls import LOOK_SECONDS, CertificateFiles, Credentials, Tls
from servicekit.metrics import CERTIFICATE_EXPIRES, CERTIFICATES_REFUSED
from servicekit.settings import ProcessSettings

log = structlog.get_logger()


def _refused(error: CertificateFileError) -> None:
    CERTIFICATES_REFUSED.inc()
    log.error("new certificates are not used, the old ones stay", error=str(error))


class Certificates:
    """What the settings say of TLS, and the certificates as they are now."""

    def __init__(self, settings: ProcessSettings) -> None:
        """Reads the files.

        Raises:
            CertificateFileError: one cannot be used.
        """
        tls = Tls(*(str(path or "") for path in (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)))
        self._mutual = settings.tls_require_client_cert
        self.files = CertificateFiles(tls, on_refused=_refused, check=self._check) if tls != Tls() else None
        # The own certificate is what makes listeners speak TLS, trust in others what makes channels.
        self.for_listeners = self.files if tls.cert_file else None
        self.for_channels = self.files if tls.ca_file else None
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._context_of: Credentials | None = None

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC listener: each new connection gets the certificate of that moment."""
        assert self.for_listeners is not None
        files = self.for_listeners
        served = files.latest()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC's threads at each handshake; None = as before.
            nonlocal served
            latest = files.latest()
            if latest is served:
                return None
            served = latest
            return self._configuration(latest)

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(served),
            fetch,  # type: ignore[arg-type]  # its stub forgets that None is allowed
            require_client_authentication=self._mutual,
        )

    def _configuration(self, held: Credentials) -> grpc.ServerCertificateConfiguration:
        assert held.key is not None
        assert held.chain is not None
        return grpc.ssl_server_certificate_configuration(
            [(held.key, held.chain)], root_certificates=held.roots if self._mutual else None
        )

    def server_context(self) -> ssl.SSLContext:
        """The same for a listener of Python's own: to be asked for at each new connection."""
        assert self.for_listeners is not None
        latest = self.for_listeners.latest()
        with self._lock:
            if self._context is None or latest is not self._context_of:
                self._context, self._context_of = self._new_context(latest), latest
            return self._context

    def _check(self, held: Credentials) -> None:
        if held.chain is None:
            return
        try:
            self._new_context(held)
        except ssl.SSLError as error:
            msg = f"OpenSSL does not take the certificate, or those that are trusted: {error.reason or error}"
            raise CertificateFileError(msg) from error

    def _new_context(self, held: Credentials) -> ssl.SSLContext:
        assert held.chain is not None
        assert held.key is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python takes these from files only, and those on disk may have changed since they were checked.
        with os.fdopen(os.memfd_create("certificate"), "wb") as file:
            file.write(held.chain + b"\n" + held.key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        if self._mutual and held.roots is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=held.roots.decode())
        return context

    async def watch(self) -> None:
        """Looks at the files again and again, so that a change that is refused is known before anybody connects."""
        while True:
            if self.files is not None and (expires := self.files.latest().expires) is not None:
                CERTIFICATE_EXPIRES.set(expires)
            await asyncio.sleep(LOOK_SECONDS)
