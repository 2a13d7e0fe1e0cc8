"""The errors that the SDK raises, and how a failed call becomes one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from colonies.status.v1 import status_pb2

DETAILS_KEY = "grpc-status-details-bin"
TYPE_URL_PREFIX = "type.googleapis.com/google.rpc."
ERROR_DOMAIN = "colonies"


class ColoniesError(Exception):
    """Base of everything that this package raises on purpose."""


class KeyFileError(ColoniesError):
    """A private key could not be read."""


class CertificateFileError(ColoniesError):
    """A file with a certificate or its key cannot be used."""


class NotSignableError(ColoniesError, ValueError):
    """A value cannot stand in a text that is signed."""


class UnreadableRequestError(ColoniesError, ValueError):
    """The bytes of a request are not what its method takes; `field` is what to blame."""

    def __init__(self, field: str, description: str) -> None:
        self.field = field
        self.description = description
        super().__init__(f"{field}: {description}")


class ProfileError(ColoniesError):
    """The settings for reaching a server are missing or contradict each other."""


class ValueEncodingError(ColoniesError):
    """A value could not be turned into bytes, or bytes into a value."""


class WorkflowError(ColoniesError):
    """A workflow was put together in a way that cannot run."""


class ScheduleError(ColoniesError, ValueError):
    """A schedule or a policy of a cron, or a generator's trigger, says something that makes no sense."""


class RetryableError(ColoniesError):
    """Raise this in an executor's function when trying again may help: the process goes back to the queue."""


class ChannelError(ColoniesError):
    """The other side of a channel said that something went wrong; `text` is what it said."""

    def __init__(self, channel: str, sender_name: str, text: str) -> None:
        self.channel = channel
        self.sender_name = sender_name
        self.text = text
        super().__init__(f"{sender_name} on channel {channel}: {text}")


class ProcessFailedError(ColoniesError):
    """A process that was waited for did not end as successful.

    `process_id`, `node_name`, `func_name` name it; `messages` is what its executor or the service reported.
    """

    def __init__(self, *, process_id: str, node_name: str, func_name: str, state: str, messages: Sequence[str]) -> None:
        self.process_id = process_id
        self.node_name = node_name
        self.func_name = func_name
        self.state = state
        self.messages = tuple(messages)
        node = f"node {node_name!r} ({func_name})" if node_name else f"process {process_id} ({func_name})"
        reason = ": " + "; ".join(self.messages) if self.messages else ""
        super().__init__(f"{node} {state}{reason}")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that broke its bound."""

    field: str
    description: str


class RpcError(ColoniesError):
    """A call failed.

    `code` is the gRPC status, `reason` a constant for programs, `metadata` goes with it, `violations` names the fields of a
    bad request, `retry_delay` (seconds) says when to try again if the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_delay: float | None = None,
    ) -> None:
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_delay = retry_delay
        super().__init__(message)


class InvalidArgumentError(RpcError):
    """A field is out of bounds; `violations` names it. Nothing was changed."""


class UnauthenticatedError(RpcError):
    """The signature was refused: check the clock, the key and the cluster id."""


class PermissionDeniedError(RpcError):
    """No such colony, or this identity may not do this in it."""


class NotFoundError(RpcError):
    """What was named does not exist in this colony."""


class AlreadyExistsError(RpcError):
    """The name or the request id is taken by something else."""


class FailedPreconditionError(RpcError):
    """The state of things does not allow it; `reason` says which."""


class ResourceExhaustedError(RpcError):
    """Over a limit; try again after `retry_delay`."""

    @property
    def is_pace(self) -> bool:
        """Whether it is only how often this caller calls, or how many streams it has: the same call gets through later."""
        return self.reason in {"RATE_LIMITED", "TOO_MANY_STREAMS"}


class UnavailableError(RpcError):
    """The server, or a part of it, is out of reach. Nothing was acknowledged."""


_BY_CODE: dict[grpc.StatusCode, type[RpcError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> RpcError:
    """The SDK's error for a failed call, with the typed details that the server sent."""
    code = error.code()
    info = status_pb2.ErrorInfo()
    bad_request = status_pb2.BadRequest()
    retry = status_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                for message, name in ((info, "ErrorInfo"), (bad_request, "BadRequest"), (retry, "RetryInfo")):
                    if detail.type_url == TYPE_URL_PREFIX + name:
                        message.MergeFromString(detail.value)
        except DecodeError:
            break  # details that are not ours add nothing; code and message still say what happened
    return _BY_CODE.get(code, RpcError)(
        error.details() or code.name,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=[FieldViolation(v.field, v.description) for v in bad_request.field_violations],
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )
