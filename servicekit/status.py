"""The one table from failures to status codes, and how a failure travels."""

import typing

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from colonies.errors import DETAILS_KEY, ERROR_DOMAIN, TYPE_URL_PREFIX, RpcError
from colonies.status.v1 import status_pb2
from servicekit import failures

CODES: dict[type[failures.Failure], grpc.StatusCode] = {
    failures.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    failures.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    failures.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    failures.NotFound: grpc.StatusCode.NOT_FOUND,
    failures.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    failures.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    failures.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    failures.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
KINDS = {code: kind for kind, code in CODES.items()}


def _packed(message: Message, name: str) -> Any:
    return Any(type_url=TYPE_URL_PREFIX + name, value=message.SerializeToString())


def details_of(failure: failures.Failure) -> bytes:
    """The serialised google.rpc.Status of a failure."""
    info = status_pb2.ErrorInfo(reason=failure.reason, domain=ERROR_DOMAIN, metadata=failure.metadata)
    details = [_packed(info, "ErrorInfo")]
    if isinstance(failure, failures.InvalidArgument):
        violations = [
            status_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in failure.violations
        ]
        details.append(_packed(status_pb2.BadRequest(field_violations=violations), "BadRequest"))
    if isinstance(failure, failures.ResourceExhausted | failures.Unavailable):
        delay = Duration()
        delay.FromMilliseconds(round(failure.retry_delay_s * 1000))
        details.append(_packed(status_pb2.RetryInfo(retry_delay=delay), "RetryInfo"))
    code = CODES[type(failure)].value[0]
    return status_pb2.Status(code=code, message=failure.message, details=details).SerializeToString()


async def abort(context: "grpc.aio.ServicerContext[typing.Any, typing.Any]", failure: failures.Failure) -> None:
    """Ends the call with this failure. Raises, as `context.abort` does."""
    # gRPC messages travel in a header: keep them to one bounded line.
    message = " ".join(failure.message.split())[:1024]
    await context.abort(CODES[type(failure)], message, ((DETAILS_KEY, details_of(failure)),))


def failure_of(error: RpcError, *, field_prefix: str = "") -> failures.Failure:
    """What another service answered, as a failure of this one's own: a caller sees one error, not two.

    Args:
        error: the other service's answer.
        field_prefix: path that leads from this service's request to the part that was passed on.
    """
    kind = KINDS.get(error.code)
    if kind is failures.InvalidArgument and error.violations:
        return failures.InvalidArgument([failures.Violation(field_prefix + v.field, v.description) for v in error.violations])
    if kind is failures.ResourceExhausted or kind is failures.Unavailable:
        delay = 0.5 if error.retry_delay is None else error.retry_delay
        return kind(str(error), reason=error.reason, metadata=error.metadata, retry_delay_s=delay)
    if kind is None or kind is failures.InvalidArgument or kind is failures.Unauthenticated:
        # The other service refuses this one itself: for the caller that is an outage, not something to correct.
        return failures.Unavailable(f"another service refused: {error}", reason="UPSTREAM_REFUSED", retry_delay_s=1.0)
    return kind(str(error), reason=error.reason, metadata=error.metadata)
