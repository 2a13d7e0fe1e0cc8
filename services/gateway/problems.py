"""How a call that failed is told over HTTP: one table of statuses, one form of body."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from colonies.errors import FieldViolation, from_rpc_error

# The same as google.rpc.Code names for each.
HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
RETRY_SOON_S = 0.5
# What nobody behind the front door has said, by its code. gRPC's own words for it hold addresses, and are for the log.
_NOBODYS: dict[grpc.StatusCode, tuple[str, str]] = {
    grpc.StatusCode.UNAVAILABLE: ("UNREACHABLE", "this service is out of reach; what was asked may have been done"),
    grpc.StatusCode.UNIMPLEMENTED: ("NO_SUCH_METHOD", "there is no such method"),
}


@dataclass(eq=False)
class Problem(Exception):
    """What is told in place of an answer. `status` is HTTP's, `code` gRPC's by name; `reason` is for programs."""

    status: int
    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[FieldViolation] = ()
    retry_delay_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # For the log alone.
    detail: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        delay = None if self.retry_delay_s is None else round(self.retry_delay_s * 1000)
        return {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "metadata": dict(self.metadata),
            "fields": [{"field": one.field, "description": one.description} for one in self.fields],
            "retry_delay_ms": delay,
        }

    def body(self) -> bytes:
        """The answer to a request."""
        return _encoded(self.document())

    def line(self) -> bytes:
        """The last line of a stream."""
        return _encoded({"error": self.document()}) + b"\n"

    def http_headers(self) -> dict[str, str]:
        """What goes with the status."""
        headers = dict(self.headers)
        if self.retry_delay_s is not None:
            # HTTP knows whole seconds only; the body has the exact time.
            headers["retry-after"] = str(max(1, math.ceil(self.retry_delay_s)))
        if self.status == 401:
            headers["www-authenticate"] = "Colonies-Signature"
        return headers


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def of_call(error: grpc.aio.AioRpcError) -> Problem:
    """What a service, or the way to it, answered."""
    told = from_rpc_error(error)
    reason, message, detail = told.reason, str(told), ""
    if not reason and told.code in _NOBODYS:
        detail = message
        reason, message = _NOBODYS[told.code]
    return Problem(
        status=HTTP_STATUS[told.code],
        code=told.code.name,
        message=message,
        reason=reason,
        metadata=told.metadata,
        fields=told.violations,
        retry_delay_s=RETRY_SOON_S
        if told.retry_delay is None and told.code is grpc.StatusCode.UNAVAILABLE
        else told.retry_delay,
        detail=detail,
    )


def invalid(status: int, name: str, description: str, reason: str) -> Problem:
    """A part of the request is not as it must be."""
    return Problem(status, "INVALID_ARGUMENT", f"{name}: {description}", reason, fields=(FieldViolation(name, description),))


def malformed_signature(name: str) -> Problem:
    """An entry that gRPC cannot carry, refused as the services refuse what is not of the form."""
    message = f"{name} is not of the form that a signed call has"
    return Problem(401, "UNAUTHENTICATED", message, "SIGNATURE_MALFORMED")


def full(message: str) -> Problem:
    """There is no room for it here and now."""
    return Problem(503, "UNAVAILABLE", message, "GATEWAY_FULL", retry_delay_s=1.0)


def draining() -> Problem:
    """This replica ends."""
    message = "this gateway is shutting down; make the call again, signed anew"
    return Problem(503, "UNAVAILABLE", message, "DRAINING", retry_delay_s=0.1)


def no_such_path() -> Problem:
    """There is nothing here."""
    return Problem(
        404, "NOT_FOUND", "calls are made by POST /api/<package.Service>/<Method>; / leads to the pages", "NO_SUCH_PATH"
    )


def wrong_verb(allowed: str) -> Problem:
    """The path is right and the verb is not."""
    return Problem(405, "INVALID_ARGUMENT", f"this path takes {allowed} only", "WRONG_VERB", headers={"allow": allowed})


def defect(request_id: str) -> Problem:
    """A defect of the gateway itself: the log has it."""
    return Problem(500, "INTERNAL", f"internal error; the log has it under request id {request_id}", "DEFECT")
