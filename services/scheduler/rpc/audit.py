"""The audit export: request to domain call to response. What it promises stands in the protos."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import grpc

from colonies.scheduler.v1 import audit_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit.bounds import Bounds, checked
from servicekit.caller import Caller
from servicekit.streams import with_signs_of_life
from services.scheduler.domain.audited import Scope
from services.scheduler.domain.auditing import Auditing
from services.scheduler.rpc import convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_PROCESS_IDS = 10_000
MAX_WORKFLOW_IDS = 1_000


class AuditRpcs(SchedulerServiceServicer):
    """Translates."""

    _auditing: Auditing

    async def ExportAudit(self, request: pb.ExportAuditRequest, context: Context) -> AsyncIterator[pb.ExportAuditResponse]:
        scope = scope_of(request)
        chunks = self._auditing.export(request.colony_name, Caller.current().identity, scope)
        async for chunk in with_signs_of_life(chunks):
            yield pb.ExportAuditResponse(lines=chunk or b"")


def scope_of(request: pb.ExportAuditRequest) -> Scope:
    """What is to be exported.

    Raises:
        InvalidArgument: a field is out of its bounds.
    """
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        process_ids = _ids(bounds, "process_ids", request.process_ids, MAX_PROCESS_IDS)
        workflow_ids = _ids(bounds, "workflow_ids", request.workflow_ids, MAX_WORKFLOW_IDS)
        since = convert.moment_of(bounds, "submitted_since", request.submitted_since)
        before = convert.moment_of(bounds, "submitted_before", request.submitted_before)
    return Scope(
        process_ids,
        workflow_ids,
        since if request.HasField("submitted_since") else None,
        before if request.HasField("submitted_before") else None,
    )


def _ids(bounds: Bounds, field: str, given: Sequence[str], at_most: int) -> list[UUID]:
    bounds.count(field, given, at_most=at_most)
    parsed = [bounds.uuid(f"{field}[{index}]", one) for index, one in enumerate(given[:at_most])]
    return [one for one in parsed if one is not None]
