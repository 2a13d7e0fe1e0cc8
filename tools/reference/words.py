"""What both forms of the description say in the same words."""

HOW_TO_CALL = """\
Every call is `POST /api/<package.Service>/<Method>` with a body in JSON: the request message in the proto3 JSON mapping, in
UTF-8, with `Content-Type: application/json`. The answer is the response message in the same mapping.

Streams are asked for with `Accept: application/jsonl` (or `application/x-ndjson`): the answer is a JSON document a line, as
they come. Empty lines are signs of life, to be passed over. A stream that fails ends with a line `{"error": {...}}`, which
holds what the body of a failed call holds; one that breaks off without such a line was cut.

The header `colonies-timeout-ms` (1 to 86 400 000) is the call's deadline in milliseconds; `x-request-id` (up to 64 characters
of `[A-Za-z0-9._-]`) is what the logs find it by. A body has at most 4 MiB: what is larger is sent over gRPC."""

MAPPING = """\
Fields have names in lowerCamelCase; a request may have them as the protos spell them as well, but no field twice, and none
that the message does not have. 64-bit integers are written as strings (a request may have them as numbers up to 2^53), bytes
in base64, times as RFC 3339, durations as seconds with an `s`, enums by name. A request may leave out what has its default;
an answer has it, but for what was not set of messages, choices and optional fields. Of the members of a choice (oneof) one at
most may be there."""

SIGNING = """\
Every call is signed with an Ed25519 key by its caller. There are no sessions and no passwords. The signature is over a text
of six lines, each ended by a line feed:

    colonies-call-v1
    /<package.Service>/<Method>+json
    <cluster id>
    <colonies-time>
    <colonies-nonce>
    <SHA-256 of the body's bytes, 64 lower-case hex digits>

Note the `+json`: what is signed in one form is no call in another. The body is hashed as it is sent, to the byte. A refusal
with the reason `NONCE_PREFIX_REQUIRED` has `nonce_prefix` in its metadata: sign the call anew with a nonce that begins with
it, and use it for further calls. `colonies sign` makes the headers for a command line; protos/vectors/README.md has all of
it."""

ERRORS = """\
A call that fails has a status of HTTP's by the table, and a body with `code` (gRPC's status by name), `reason` (a constant
for programs), `message` (for people), `metadata` (names and values that go with the reason), `fields` (which fields broke
their bounds) and `retry_delay_ms` (when to try again; null where nothing was said), which `Retry-After` has in whole seconds.
Any call may give UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED (`RATE_LIMITED`,
`TOO_MANY_STREAMS`) and UNAVAILABLE; what else a method gives stands in its description."""

STATUSES = (
    (400, "INVALID_ARGUMENT", "A field is out of bounds: `fields` names it. Nothing was changed."),
    (400, "FAILED_PRECONDITION", "The state of things does not allow it; `reason` says which."),
    (401, "UNAUTHENTICATED", "The signature is missing, wrong, stale or used before. Sign anew."),
    (403, "PERMISSION_DENIED", "No such colony, or the caller may not do this in it."),
    (404, "NOT_FOUND", "What was named does not exist in this colony."),
    (409, "ALREADY_EXISTS", "The name or the request id is taken by something else."),
    (429, "RESOURCE_EXHAUSTED", "Over a limit: try again after `retry_delay_ms`."),
    (501, "UNIMPLEMENTED", "There is no such method."),
    (503, "UNAVAILABLE", "A part of the server is out of reach, or this gateway is full or ends: try again."),
    (504, "DEADLINE_EXCEEDED", "The deadline passed. What was asked may have been done."),
)
# The gateway's own refusals.
REFUSALS = (
    (404, "NOT_FOUND", "NO_SUCH_PATH", "There is nothing at this path."),
    (405, "INVALID_ARGUMENT", "WRONG_VERB", "Calls are made by POST."),
    (406, "INVALID_ARGUMENT", "STREAMS", "The method streams, and was not asked for as a stream."),
    (408, "INVALID_ARGUMENT", "BODY_TOO_SLOW", "The body did not come in time."),
    (413, "INVALID_ARGUMENT", "BODY_TOO_LARGE", "The body is larger than a gateway takes."),
    (415, "INVALID_ARGUMENT", "WRONG_CONTENT_TYPE", "The body is not called JSON, or is encoded."),
    (501, "UNIMPLEMENTED", "NO_SUCH_METHOD", "There is no such method."),
    (503, "UNAVAILABLE", "UNREACHABLE", "This service is out of reach of the gateway. What was asked may have been done."),
    (503, "UNAVAILABLE", "GATEWAY_FULL", "This gateway has as much in hand as it takes: try again, or another."),
    (503, "UNAVAILABLE", "DRAINING", "This gateway ends: make the call again, signed anew."),
)

HEADERS = {
    "colonies-public-key": "The caller's public key: 64 lower-case hex digits.",
    "colonies-time": "When the call was signed: Unix milliseconds, decimal. Good for 60 s.",
    "colonies-nonce": "16 random bytes, new for each call: 32 lower-case hex digits.",
    "colonies-signature": "The Ed25519 signature of the text: 128 lower-case hex digits.",
}


def short(name: str) -> str:
    """A full name without `colonies.` and the version: `scheduler.Value`."""
    parts = [part for part in name.split(".") if part not in {"colonies", "v1"}]
    return ".".join(parts)
