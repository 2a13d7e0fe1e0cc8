"""Closes on their way in. Nearly all are plainly in bounds, and there are very many: as for specs, a glance comes first."""

import re
from uuid import UUID

from colonies.scheduler.v1 import scheduler_service_pb2
from servicekit.bounds import Bounds, checked
from services.scheduler.domain.endings import Closing
from services.scheduler.domain.records import AttemptRef
from services.scheduler.rpc.convert import MAX_LINE, ref_of
from services.scheduler.rpc.specs import plain_values, values_of

MAX_CLOSES = 1_000
MAX_ERRORS = 100
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


def closes_of(request: scheduler_service_pb2.CloseProcessesRequest) -> dict[AttemptRef, Closing]:
    """The closes of a request, in its order."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.count("closes", request.closes, at_least=1, at_most=MAX_CLOSES)
        closes = {}
        for index, close in enumerate(request.closes[:MAX_CLOSES]):
            ref, closing = _plain_close(close) or _looked_at(bounds, f"closes[{index}]", close)
            closes[ref] = closing
        if len({ref.process_id for ref in closes}) != len(request.closes[:MAX_CLOSES]):
            bounds.refuse("closes", "must name each process once")
    return closes


def _plain_close(close: scheduler_service_pb2.Close) -> tuple[AttemptRef, Closing] | None:
    """A close as nearly all are, at little cost; None if every field is to be looked at."""
    process_id, attempt = close.attempt.process_id, close.attempt.attempt
    if attempt < 1 or UUID_FORM.match(process_id) is None or close.WhichOneof("outcome") != "success":
        return None
    outputs = plain_values(close.success.outputs)
    if outputs is None:
        return None
    return AttemptRef(UUID(process_id), attempt), Closing(successful=True, outputs=outputs or None)


def _looked_at(bounds: Bounds, field: str, close: scheduler_service_pb2.Close) -> tuple[AttemptRef, Closing]:
    return ref_of(bounds, f"{field}.attempt", close.attempt), _closing_of(bounds, field, close)


def _closing_of(bounds: Bounds, field: str, close: scheduler_service_pb2.Close) -> Closing:
    if close.HasField("success"):
        outputs = values_of(bounds, f"{field}.success.outputs", close.success.outputs)
        return Closing(successful=True, outputs=outputs or None)
    if not close.HasField("failure"):
        bounds.refuse(field, "must have an outcome: success or failure")
        return Closing(successful=False)
    errors = close.failure.errors
    bounds.count(f"{field}.failure.errors", errors, at_most=MAX_ERRORS)
    for index, error in enumerate(errors[:MAX_ERRORS]):
        bounds.text(f"{field}.failure.errors[{index}]", error, at_most=MAX_LINE)
    return Closing(successful=False, errors=tuple(errors), retryable=close.failure.retryable)
