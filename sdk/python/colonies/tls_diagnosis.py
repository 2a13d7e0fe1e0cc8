"""Why a connection did not come about, as far as TLS is the reason."""

import asyncio
import logging
import os
import socket
import ssl

from colonies.errors import CertificateFileError
from colonies.tls import Credentials, Tls

log = logging.getLogger("colonies.tls")

DIAGNOSIS_SECONDS = 2.0
_NO_TLS_THERE = "the server does not seem to speak TLS at this port; if it is not to, give --no-tls or set COLONIES_TLS=off"
_ASKS_FOR_CERTIFICATE = "the server asks for a certificate of the client: give --cert-file FILE and --cert-key-file FILE"
_CLOSED = "the server closed the connection as soon as it was made: it may not accept this client's certificate"
# What a client of HTTP/2 says first: a fixed text, and settings that change nothing.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
# OpenSSL's numbers for "hostname mismatch" and "IP address mismatch".
_WRONG_NAME = (62, 64)


def may_be_tls(details: str) -> bool:
    """Whether the text of a failed call could come from a client and a server that do not agree about TLS."""
    return ("failed to connect" in details or "Socket closed" in details) and "refused" not in details


async def diagnose(host: str, port: int, tls: Tls | None) -> str:
    """Why no connection comes about, as far as TLS is the reason; empty if it is not. Takes a few seconds at most.

    Raises nothing: whoever asks has an outage to live through. gRPC's own words differ with the platform and often say no more
    than "Socket closed".
    """
    try:
        return await asyncio.to_thread(_diagnose, host.strip("[]"), port, tls)
    except Exception:  # a guess that fails must not take its caller along
        log.debug("could not find out why there is no connection", exc_info=True)
        return ""


def _diagnose(host: str, port: int, tls: Tls | None) -> str:
    try:
        with socket.create_connection((host, port), timeout=DIAGNOSIS_SECONDS) as connection:
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
