"""How every process begins: settings from the environment, logs, an event loop; and what it refuses to begin with."""

import ipaddress
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog
import uvloop
from pydantic import ValidationError

from colonies.errors import CertificateFileError, KeyFileError
from servicekit import logs
from servicekit.exposition import MetricsServer
from servicekit.failures import Failure
from servicekit.settings import ProcessSettings
from servicekit.tls import Certificates

log = structlog.get_logger()


class StartError(Exception):
    """The process cannot start; the message says why and what to do."""


def check_plaintext(settings: ProcessSettings, setting: str, address: str, remedy: str) -> None:
    """Lets an address be spoken to, or listened on, without TLS.

    Raises:
        StartError: others could read it on the way, and nobody has allowed that.
    """
    if not settings.allow_plaintext and not _is_loopback(address):
        msg = (
            f"{setting} is {address}, which is not a loopback address, and there is no TLS: set {remedy}, or "
            "COLONIES_ALLOW_PLAINTEXT=true to allow it"
        )
        raise StartError(msg)


def serve_metrics(settings: ProcessSettings, certificates: Certificates) -> MetricsServer:
    """Serves this process's metrics, where the settings say.

    Raises:
        StartError: that cannot be done.
    """
    listen, secured = settings.metrics_listen, certificates.for_listeners is not None
    if not secured:
        check_plaintext(settings, "COLONIES_METRICS_LISTEN", listen, "COLONIES_TLS_CERT_FILE")
    host, _, port = listen.rpartition(":")
    try:
        return MetricsServer(host, int(port), certificates.server_context if secured else None)
    except (OSError, ValueError) as error:
        msg = f"cannot serve metrics on {listen}: {error}"
        raise StartError(msg) from error


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


S = TypeVar("S", bound=ProcessSettings)


def start(name: str, settings_type: type[S], run: Callable[[S], Awaitable[None]]) -> NoReturn:
    """The whole life of a process: reads the settings, runs, and never returns."""
    try:
        settings = settings_type.model_validate({})
    except ValidationError as error:
        for problem in error.errors():
            field = "_".join(str(part) for part in problem["loc"]).upper()
            # What is wrong with several settings together names them itself.
            sys.stderr.write(f"COLONIES_{field}: {problem['msg']}\n" if field else f"{problem['msg']}\n")
        sys.exit(2)
    logs.configure(name, settings.log_level)

    async def running() -> None:
        await run(settings)

    try:
        uvloop.run(running())
    except (StartError, KeyFileError, CertificateFileError, Failure) as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - a trace would add nothing
        sys.exit(1)
    except Exception:
        log.exception("defect: the process ends")
        sys.exit(1)
    sys.exit(0)
