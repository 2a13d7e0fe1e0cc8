"""From an exception to what the user reads and the shell gets. Loaded only when something went wrong."""

import grpc

from colonies.cli.failure import CliError, ExitCode
from colonies.errors import (
    CertificateFileError,
    ColoniesError,
    KeyFileError,
    NotSignableError,
    ProcessFailedError,
    ProfileError,
    RpcError,
    ScheduleError,
    ValueEncodingError,
    WorkflowError,
    from_rpc_error,
)

_BY_STATUS: dict[grpc.StatusCode, ExitCode] = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.DENIED,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.CONFLICT,
    grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
}

_BY_TYPE: tuple[tuple[type[ColoniesError], ExitCode], ...] = (
    (KeyFileError, ExitCode.USAGE),
    (CertificateFileError, ExitCode.USAGE),
    (NotSignableError, ExitCode.USAGE),
    (ProfileError, ExitCode.USAGE),
    (ValueEncodingError, ExitCode.USAGE),
    (WorkflowError, ExitCode.USAGE),
    (ScheduleError, ExitCode.USAGE),
    (ProcessFailedError, ExitCode.FAILED),
)


def describe(error: BaseException) -> CliError | None:
    """The error as the command line reports it; None for one that nobody foresaw."""
    match error:
        case CliError():
            return error
        case grpc.aio.AioRpcError():
            return _describe_rpc(from_rpc_error(error))
        case RpcError():
            return _describe_rpc(error)
        case ColoniesError():
            code = next((code for kind, code in _BY_TYPE if isinstance(error, kind)), ExitCode.FAILED)
            return CliError(str(error), code)
        case UnicodeEncodeError():
            return CliError("an argument is not valid UTF-8", ExitCode.USAGE)
        case OSError() if error.filename is not None:
            return CliError(f"{error.filename}: {error.strerror}", ExitCode.USAGE)
    return None


def _describe_rpc(error: RpcError) -> CliError:
    details = [f"{violation.field}: {violation.description}" for violation in error.violations]
    message = str(error)
    if details == [message]:
        details = []  # one field, and the message is about it already
    if error.retry_delay is not None:
        message += f" (try again in {error.retry_delay:g} s)"
    return CliError(message, _BY_STATUS.get(error.code, ExitCode.UNAVAILABLE), details=details)
