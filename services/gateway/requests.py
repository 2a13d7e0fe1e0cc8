"""What a request says before its body is read: which call it is, whose, and in which form its answer is wanted."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Scope

from services.gateway.problems import invalid, malformed_signature, no_such_path, wrong_verb
from services.gateway.upstream import Metadata

JSON = "application/json"
# Either asks for a stream: a JSON document a line.
LINES = ("application/jsonl", "application/x-ndjson")
SIGNED_WITH = ("colonies-public-key", "colonies-time", "colonies-nonce", "colonies-signature")
TIMEOUT = "colonies-timeout-ms"
REQUEST_ID = "x-request-id"
TIMEOUT_MS_AT_MOST = 24 * 3600 * 1000
# What else there is would come back from the front door to where it came from.
_PATH = re.compile(rb"/api/(colonies\.[A-Za-z0-9_.]{1,200})/([A-Za-z0-9_]{1,100})\Z")
# What gRPC carries as the value of an entry; the longest that is right has 128 characters.
_VALUE = re.compile(rb"[ -~]{0,256}\Z")
# Twice is wrong, and the service's to say. Many more would be over what gRPC carries.
_MOST_ENTRIES = 2 * len(SIGNED_WITH)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as it is to be made. `lines` is the form of the stream that is wanted, if one is."""

    method: str
    metadata: Metadata
    timeout: float | None
    lines: str | None
    length: int | None


def request_id_of(headers: Headers) -> str:
    """What to find a request by in the logs: the caller's own word for it, or one that is made here."""
    given = _one(headers, REQUEST_ID) or ""
    return given if _REQUEST_ID.match(given) else os.urandom(16).hex()


def read(scope: Scope, request_id: str) -> Asked:
    """Reads a request's head.

    Raises:
        Problem: it is no call.
    """
    # As it came: what is signed has no second spelling.
    path = _PATH.match(scope["raw_path"])
    if path is None or scope["query_string"]:
        raise no_such_path()
    if scope["method"] != "POST":
        raise wrong_verb("POST")
    headers: Headers = scope["headers"]
    _check_content(headers)
    service, method = (part.decode() for part in path.groups())
    return Asked(
        method=f"/{service}/{method}+json",
        metadata=(*_signature(headers), (REQUEST_ID, request_id)),
        timeout=_timeout(headers),
        lines=_lines(headers),
        length=_length(headers),
    )


def _check_content(headers: Headers) -> None:
    kind = (_one(headers, "content-type") or "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise invalid(415, "content-type", f"must be {JSON}, in UTF-8", "WRONG_CONTENT_TYPE")
    if _one(headers, "content-encoding") not in {None, "identity"}:
        raise invalid(415, "content-encoding", "bodies are sent as they were signed, without any", "WRONG_CONTENT_TYPE")


def _signature(headers: Headers) -> Metadata:
    """The entries that sign the call, as they came: twice, if they came twice. What is wrong with them, the service says."""
    found: list[tuple[str, str]] = []
    for raw, value in headers:
        name = raw.decode("latin-1")
        if name in SIGNED_WITH:
            if _VALUE.match(value) is None or len(found) == _MOST_ENTRIES:
                raise malformed_signature(name)
            found.append((name, value.decode("ascii")))
        elif name.removesuffix("-bin") in SIGNED_WITH:
            raise malformed_signature(name)
    return found


def _timeout(headers: Headers) -> float | None:
    given = _one(headers, TIMEOUT)
    if given is None:
        return None
    if re.fullmatch(r"[0-9]{1,8}", given) is None or not 1 <= int(given) <= TIMEOUT_MS_AT_MOST:
        raise invalid(400, TIMEOUT, f"must be 1 to {TIMEOUT_MS_AT_MOST} milliseconds", "WRONG_TIMEOUT")
    return int(given) / 1000


def _lines(headers: Headers) -> str | None:
    accepted = {part.partition(";")[0].strip().lower() for part in (_one(headers, "accept") or "").split(",")}
    return next((kind for kind in LINES if kind in accepted), None)


def _length(headers: Headers) -> int | None:
    given = _one(headers, "content-length")
    return int(given) if given is not None and given.isdecimal() else None


def _one(headers: Headers, name: str) -> str | None:
    """A header's value; of one that comes several times, all of them with commas between."""
    values = [value.decode("latin-1") for raw, value in headers if raw == name.encode()]
    return ", ".join(values) if values else None
