"""A colony's controls and statistics: request to domain call to response. What the RPCs promise stands in the proto."""

from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from colonies.scheduler.v1 import controls_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit.bounds import Bounds, checked
from services.scheduler.domain.controls import Controlling, Controls, ControlsChange
from services.scheduler.domain.quantiles import Quantiles
from services.scheduler.domain.states import State
from services.scheduler.domain.statistics import Counting, Rates, TypeStatistics
from services.scheduler.rpc import convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_WAITING: Final = 10**12
MINUTE_S: Final = 60
CENTURY_S: Final = 100 * 365 * 24 * 3600
NS_PER_S: Final = 1_000_000_000
KEEP_RULE: Final = "must be 1 minute to 100 years (of 365 days), or 0 for for ever"


class ControlRpcs(SchedulerServiceServicer):
    """Translates."""

    _controlling: Controlling
    _counting: Counting

    async def GetControls(self, request: pb.GetControlsRequest, context: Context) -> pb.GetControlsResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
        return pb.GetControlsResponse(controls=controls_of(await self._controlling.get(request.colony_name)))

    async def UpdateControls(self, request: pb.UpdateControlsRequest, context: Context) -> pb.UpdateControlsResponse:
        change = change_of(request)
        return pb.UpdateControlsResponse(controls=controls_of(await self._controlling.update(request.colony_name, change)))

    async def GetStatistics(self, request: pb.GetStatisticsRequest, context: Context) -> pb.GetStatisticsResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
        found = await self._counting.read(request.colony_name)
        return pb.GetStatisticsResponse(time=convert.timestamp(found.at), types=[_type_of(one) for one in found.types])


def change_of(request: pb.UpdateControlsRequest) -> ControlsChange:
    """What a request sets.

    Raises:
        InvalidArgument: a field is out of its bounds.
    """
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        if request.HasField("max_waiting"):
            bounds.number("max_waiting", request.max_waiting, at_least=0, at_most=MAX_WAITING)
        return ControlsChange(
            paused=request.paused if request.HasField("paused") else None,
            max_waiting=request.max_waiting if request.HasField("max_waiting") else None,
            keep_successful_ms=_keep_ms(bounds, request, "keep_successful"),
            keep_failed_ms=_keep_ms(bounds, request, "keep_failed"),
            keep_cancelled_ms=_keep_ms(bounds, request, "keep_cancelled"),
        )


def _keep_ms(bounds: Bounds, request: Message, field: str) -> int | None:
    """How long to keep, in milliseconds rounded up; None if it is not set."""
    if not request.HasField(field):
        return None
    given: Duration = getattr(request, field)
    total_ns = given.seconds * NS_PER_S + given.nanos
    well_formed = abs(given.nanos) < NS_PER_S and given.seconds * given.nanos >= 0
    if not well_formed or not (total_ns == 0 or MINUTE_S * NS_PER_S <= total_ns <= CENTURY_S * NS_PER_S):
        bounds.refuse(field, f"{KEEP_RULE}; got {given.seconds} s and {given.nanos} ns")
        return None
    return -(-total_ns // 1_000_000)


def controls_of(controls: Controls) -> pb.Controls:
    """Controls for the wire; what is kept for ever is not set."""
    return pb.Controls(
        paused=controls.paused,
        max_waiting=controls.max_waiting,
        keep_successful=_duration_of(controls.keep_successful_ms),
        keep_failed=_duration_of(controls.keep_failed_ms),
        keep_cancelled=_duration_of(controls.keep_cancelled_ms),
    )


def _duration_of(milliseconds: int) -> Duration | None:
    if not milliseconds:
        return None
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _type_of(one: TypeStatistics) -> pb.TypeStatistics:
    return pb.TypeStatistics(
        executor_type=one.executor_type,
        waiting=one.counts.get(State.WAITING, 0),
        running=one.counts.get(State.RUNNING, 0),
        successful=one.counts.get(State.SUCCESSFUL, 0),
        failed=one.counts.get(State.FAILED, 0),
        cancelled=one.counts.get(State.CANCELLED, 0),
        last_minute=_rates_of(one.last_minute),
        last_hour=_rates_of(one.last_hour),
        wait_ms=_quantiles_of(one.wait_ms),
        run_ms=_quantiles_of(one.run_ms),
    )


def _rates_of(rates: Rates) -> pb.Rates:
    return pb.Rates(
        submitted=rates.submitted,
        assigned=rates.assigned,
        successful=rates.successful,
        failed=rates.failed,
        cancelled=rates.cancelled,
        retried=rates.retried,
    )


def _quantiles_of(quantiles: Quantiles) -> pb.Quantiles:
    return pb.Quantiles(count=quantiles.count, p50=quantiles.p50, p90=quantiles.p90, p99=quantiles.p99)
