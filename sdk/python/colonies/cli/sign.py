"""`colonies sign`: the metadata of one call, for programs that send it themselves.

colonies sign scheduler.SubmitProcesses body.json | curl -K - --data-binary @body.json
"""

import difflib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from colonies.cli.connection import Role, key_for, settled
from colonies.cli.failure import usage
from colonies.cli.options import options_of, single
from colonies.cli.output import print_json
from colonies.json_calls import SUFFIX
from colonies.profile import Profile, cluster_for
from colonies.signing import NONCE_HEADER, SIGNATURE_HEADER, Signer, call_digest, call_text, now_ms
from colonies.tls import Tls

app = single("sign")

NOTHING = b"{}"
_SERVICES = (
    "colonies.auth.v1.auth_service_pb2",
    "colonies.registry.v1.registry_service_pb2",
    "colonies.scheduler.v1.scheduler_service_pb2",
    "colonies.cron.v1.cron_service_pb2",
    "colonies.cron.v1.generator_service_pb2",
)
_PREFIX = re.compile(r"[0-9a-f]{16}\Z")
_MAX_TIME_MS = 10**15 - 1
_NEAR = 5


class _Method(NamedTuple):
    """A method: its full name, without its first slash, and what it may be called for short."""

    full: str
    names: tuple[str, ...]


@app.command("sign")
def sign(
    ctx: typer.Context,
    method: Annotated[str, typer.Argument(help="The method: scheduler.SubmitProcesses, or its full name.")],
    body: Annotated[
        str, typer.Argument(help="The file that will be sent as the request, in JSON; - for the standard input. Default: {}.")
    ] = "",
    owner: Annotated[bool, typer.Option("--owner", help="Sign with the colony owner's key.")] = False,
    server_owner: Annotated[bool, typer.Option("--server-owner", help="Sign with the server owner's key.")] = False,
    nonce_prefix: Annotated[
        str, typer.Option(metavar="HEX", help="How the nonce begins: nonce_prefix of a NONCE_PREFIX_REQUIRED refusal.")
    ] = "",
    time_ms: Annotated[
        int | None,
        typer.Option("--time", min=0, max=_MAX_TIME_MS, help="Unix milliseconds that it is signed at. Default: now."),
    ] = None,
) -> None:
    """Sign one call in JSON, and print what curl needs to make it.

    colonies sign scheduler.SubmitProcesses body.json | curl -K - --data-binary @body.json

    It is the very bytes of the file that are signed: send them as they are (--data-binary, not --data), once, within a minute.
    With --json: a document with the url, the headers, and the digest that receipts name the call by.
    """
    if owner and server_owner:
        msg = "--owner and --server-owner exclude each other"
        raise usage(msg)
    if nonce_prefix and _PREFIX.match(nonce_prefix) is None:
        msg = f"--nonce-prefix: {nonce_prefix!r} is not 16 lower-case hex digits"
        raise usage(msg)
    full = _full_name(method)
    data = _read(body)
    options = options_of(ctx)
    profile = settled(options)
    cluster = profile.cluster or cluster_for(profile.host, profile.port)
    key = key_for(profile, Role.COLONY_OWNER if owner else Role.SERVER_OWNER if server_owner else Role.MEMBER)
    signed_ms = now_ms() if time_ms is None else time_ms
    path = f"/{full}{SUFFIX}"
    headers = dict(Signer(key, cluster, lambda: signed_ms, nonce_prefix).headers(path, data))
    tls = profile.transport()
    url = f"{'https' if tls else 'http'}://{_authority(profile)}/api/{full}"
    if options.as_json:
        text = call_text(method=path, audience=cluster, time_ms=signed_ms, nonce=headers[NONCE_HEADER], body=data)
        digest = call_digest(text, key.public_key, bytes.fromhex(headers[SIGNATURE_HEADER]))
        print_json({"url": url, "method": path, "headers": headers, "digest": digest})
        return
    entries = {"content-type": "application/json", **headers}
    settings = [("url", url), ("request", "POST"), *(("header", f"{name}: {value}") for name, value in entries.items())]
    settings += _tls_settings(tls)
    if not body:
        settings.append(("data-binary", NOTHING.decode()))
    sys.stdout.write("".join(f"{name} = {_quoted(value)}\n" for name, value in settings))


def _methods() -> Iterator[_Method]:
    for module in _SERVICES:
        for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
            shorts = {service.full_name.split(".")[1], service.name.removesuffix("Service").lower()}
            for method in service.methods:
                full = f"{service.full_name}/{method.name}"
                yield _Method(full, (full, f"/{full}", f"{full}{SUFFIX}", *(f"{short}.{method.name}" for short in shorts)))


def _full_name(given: str) -> str:
    """The full name of a method.

    Raises:
        CliError: there is none of this name; the error tells of those with names like it.
    """
    known = {name: method.full for method in _methods() for name in method.names}
    if given in known:
        return known[given]
    short = [name for name in known if "/" not in name]
    by_case = {name.lower(): name for name in short}
    # Whoever leaves out the service, or means another, knows the method's name at least.
    wanted = given.rpartition("/")[2].rpartition(".")[2].lower()
    near = [name for name in short if name.lower().rpartition(".")[2] == wanted]
    near += [by_case[name] for name in difflib.get_close_matches(given.lower(), by_case, n=_NEAR)]
    found = list(dict.fromkeys(near))[:_NEAR]
    hint = f"did you mean {', '.join(found)}?" if found else "it is SERVICE.METHOD, such as scheduler.SubmitProcesses"
    msg = f"there is no method {given!r}: {hint}"
    raise usage(msg)


def _read(body: str) -> bytes:
    if not body:
        return NOTHING
    if body == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(body).read_bytes()
    except OSError as error:
        msg = f"{body}: {error.strerror or error}"
        raise usage(msg) from error


def _authority(profile: Profile) -> str:
    host = profile.host
    return f"[{host}]:{profile.port}" if ":" in host and not host.startswith("[") else f"{host}:{profile.port}"


def _tls_settings(tls: Tls | None) -> list[tuple[str, str]]:
    files = (("cacert", tls.ca_file), ("cert", tls.cert_file), ("key", tls.cert_key_file)) if tls else ()
    return [(name, str(Path(path).expanduser())) for name, path in files if path]


def _quoted(value: str) -> str:
    """A value as curl's configuration files have it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
