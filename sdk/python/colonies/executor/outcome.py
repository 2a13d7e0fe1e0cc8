"""From an assignment to the end of its attempt: decode, call, encode, or say what went wrong."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from colonies import values
from colonies.errors import RetryableError, ValueEncodingError
from colonies.executor.context import Context
from colonies.executor.offers import CallMismatchError, Offer
from colonies.executor.text import bounded, bounded_end
from colonies.scheduler.v1.scheduler_service_pb2 import Assignment, Close
from colonies.scheduler.v1.spec_pb2 import Value

MAX_ERROR_BYTES = 8 * 1024

_OWN_FILES = frozenset({__file__, Offer.bind.__code__.co_filename, str(Path(__file__).with_name("runners.py"))})

Outcome = Close.Success | Close.Failure


def failure(message: str, *, retryable: bool = False) -> Close.Failure:
    """A failure in one text."""
    return Close.Failure(errors=[bounded(message, MAX_ERROR_BYTES)], retryable=retryable)


def unknown_function(name: str, offers: Mapping[str, Offer]) -> Close.Failure:
    """The failure of a call to a function that this executor does not have."""
    known = ", ".join(sorted(offers)) or "none"
    return failure(
        f"this executor has no function {name!r}; it has: {known} "
        "(work goes to any executor of its type: give those with other functions another type)"
    )


def run(offer: Offer, assignment: Assignment, context: Context | None) -> Outcome:
    """Runs a function that is not async to its end, in the thread that it is for, and says how that went."""
    try:
        return success(bound(offer, assignment, context)(), context)
    except BaseException as error:  # noqa: BLE001 - whatever a function raises is its result
        return failure_of(error, offer)


def bound(offer: Offer, assignment: Assignment, context: Context | None) -> Callable[[], Any]:
    """The call of an assignment, its values decoded.

    Raises:
        CallMismatchError: a value cannot be decoded, or they do not fit the function.
    """
    spec = assignment.spec
    args = _decoded(spec.args, "argument")
    if assignment.inputs:
        args += _decoded(assignment.inputs, "input")
    kwargs: dict[str, Any] = {}
    for key, value in spec.kwargs.items() if spec.kwargs else ():
        (kwargs[key],) = _decoded((value,), f"keyword argument {key!r}", numbered=False)
    return offer.bind(args, kwargs, context)


def _decoded(encoded: Iterable[Value], what: str, *, numbered: bool = True) -> list[Any]:
    decoded: list[Any] = []
    try:
        for value in encoded:
            decoded.append(values.decode(value))  # noqa: PERF401 - how many were decoded says which one could not be
    except ValueEncodingError as error:
        msg = f"{what} {len(decoded) + 1}: {error}" if numbered else f"{what}: {error}"
        raise CallMismatchError(msg) from None
    return decoded


def success(result: Any, context: Context | None) -> Close.Success:
    """A tuple is several outputs, anything else is one; but a None does not replace outputs that were set before.

    Raises:
        CallMismatchError: the result cannot be sent.
    """
    if result is None and context is not None and context.has_set_output:
        return Close.Success()
    try:
        if isinstance(result, tuple):
            return Close.Success(outputs=[values.encode(output) for output in result])
        return Close.Success(outputs=(values.encode(result),))
    except ValueEncodingError as error:
        msg = f"its result cannot be sent: {error}"
        raise CallMismatchError(msg) from None


def failure_of(error: BaseException, offer: Offer) -> Close.Failure:
    """The failure that an exception of a function means."""
    if isinstance(error, CallMismatchError):
        return failure(str(error))
    retryable = isinstance(error, (RetryableError, *offer.retry_on))
    return Close.Failure(
        errors=[
            bounded(f"{type(error).__name__}: {_text(error)}", MAX_ERROR_BYTES),
            bounded_end(_traceback(error), MAX_ERROR_BYTES),
        ],
        retryable=retryable,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception whose text fails must not hide that there was one
        return "(its text cannot be told)"


def _traceback(error: BaseException) -> str:
    """The traceback from the function on, without the frames that lead to it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OWN_FILES:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
