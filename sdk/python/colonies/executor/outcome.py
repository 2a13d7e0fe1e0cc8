"""From an assignment to the end of its attempt: decode, call, encode, or say what went wrong."""

import asyncio
import traceback
from collections.abc import Mapping
from typing import Any

from colonies import values
from colonies.errors import RetryableError, ValueEncodingError
from colonies.executor.context import Context
from colonies.executor.offers import CallMismatchError, Offer
from colonies.executor.text import bounded, bounded_end
from colonies.executor.threads import DaemonThreads
from colonies.scheduler.v1.scheduler_service_pb2 import Assignment, Close
from colonies.scheduler.v1.spec_pb2 import Value

MAX_ERROR_BYTES = 8 * 1024

_OWN_FILES = frozenset({__file__, Offer.bind.__code__.co_filename})

Outcome = Close.Success | Close.Failure


def failure(message: str, *, retryable: bool = False) -> Close.Failure:
    """A failure in one text."""
    return Close.Failure(errors=[bounded(message, MAX_ERROR_BYTES)], retryable=retryable)


def unknown_function(name: str, offers: Mapping[str, Offer]) -> Close.Failure:
    """The failure of a call to a function that this executor does not have."""
    known = ", ".join(sorted(offers)) or "none"
    return failure(f"this executor has no function {name!r}; it has: {known}")


async def outcome_of(offer: Offer, assignment: Assignment, context: Context, threads: DaemonThreads) -> Outcome:
    """Runs a function to its end and says how that went.

    Raises:
        asyncio.CancelledError: an async function was cancelled because its result is not wanted any more.
    """
    if not offer.is_async:
        return await threads.run(lambda: _run(offer, assignment, context))
    try:
        return _success(await _bound(offer, assignment, context)(), context)
    except asyncio.CancelledError as error:
        if context.cancelled.is_set():
            raise
        return _failure_of(error, offer)  # the function cancelled itself
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a function raises is its result
        return _failure_of(error, offer)


def _run(offer: Offer, assignment: Assignment, context: Context) -> Outcome:
    try:
        return _success(_bound(offer, assignment, context)(), context)
    except BaseException as error:  # noqa: BLE001 - whatever a function raises is its result
        return _failure_of(error, offer)


def _bound(offer: Offer, assignment: Assignment, context: Context) -> Any:
    spec = assignment.spec
    args = [_decoded(value, f"argument {number}") for number, value in enumerate(spec.args, 1)]
    args += [_decoded(value, f"input {number}") for number, value in enumerate(assignment.inputs, 1)]
    kwargs = {key: _decoded(value, f"keyword argument {key!r}") for key, value in spec.kwargs.items()}
    return offer.bind(args, kwargs, context)


def _decoded(value: Value, what: str) -> Any:
    try:
        return values.decode(value)
    except ValueEncodingError as error:
        msg = f"{what}: {error}"
        raise CallMismatchError(msg) from None


def _success(result: Any, context: Context) -> Close.Success:
    """A tuple is several outputs, anything else is one; but a None does not replace outputs that were set before."""
    if result is None and context.has_set_output:
        return Close.Success()
    outputs = result if isinstance(result, tuple) else (result,)
    try:
        return Close.Success(outputs=[values.encode(output) for output in outputs])
    except ValueEncodingError as error:
        msg = f"its result cannot be sent: {error}"
        raise CallMismatchError(msg) from None


def _failure_of(error: BaseException, offer: Offer) -> Close.Failure:
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
