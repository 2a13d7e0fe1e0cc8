"""The RPCs that say why something waits. What they promise stands in the proto."""

from typing import Any, TypeAlias

import grpc

from colonies.scheduler.v1 import explain_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer
from servicekit.bounds import checked
from services.scheduler.domain.explainer import Explainer
from services.scheduler.domain.explaining import Explanation, Wanted
from services.scheduler.domain.matching import ConditionKind, Needs
from services.scheduler.rpc.convert import id_of, timestamp
from services.scheduler.rpc.specs import needs_of, spec_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExplainRpcs(SchedulerServiceServicer):
    """ExplainProcess and ExplainSpec."""

    _explainer: Explainer

    async def ExplainProcess(self, request: pb.ExplainProcessRequest, context: Context) -> pb.ExplainProcessResponse:
        process_id = id_of(request, "process_id")
        waits = await self._explainer.find(request.colony_name, process_id)
        wanted = wanted_of(spec_pb2.FunctionSpec.FromString(waits.spec))
        return pb.ExplainProcessResponse(explanation=explanation_of(await self._explainer.process(waits, wanted)))

    async def ExplainSpec(self, request: pb.ExplainSpecRequest, context: Context) -> pb.ExplainSpecResponse:
        with checked() as bounds:
            bounds.name("colony_name", request.colony_name)
            spec_of(bounds, "spec", request.colony_name, request.spec)
        explanation = await self._explainer.spec(request.colony_name, wanted_of(request.spec))
        return pb.ExplainSpecResponse(explanation=explanation_of(explanation))


def wanted_of(spec: spec_pb2.FunctionSpec) -> Wanted:
    """What a spec, which is in bounds, asks of executors."""
    conditions, needs = spec.conditions, needs_of(spec)
    return Wanted(
        executor_type=conditions.executor_type,
        executor_names=tuple(conditions.executor_names),
        location=conditions.location_name,
        needs=needs,
        words=_words_of(conditions, needs),
    )


def _words_of(conditions: spec_pb2.Conditions, needs: Needs) -> dict[ConditionKind, str]:
    words = {
        ConditionKind.EXECUTOR_TYPE: conditions.executor_type,
        ConditionKind.EXECUTOR_NAMES: " or ".join(conditions.executor_names),
        ConditionKind.LOCATION: conditions.location_name,
        ConditionKind.CPU: conditions.cpu,
        ConditionKind.MEMORY: conditions.memory,
        ConditionKind.STORAGE: conditions.storage,
        ConditionKind.GPU: _gpu_words(conditions.gpu) if conditions.HasField("gpu") else "",
        ConditionKind.NODES: str(conditions.nodes or ""),
        ConditionKind.PROCESSES: str(conditions.processes or ""),
        ConditionKind.LABELS: " and ".join(map(str, needs.labels)),
        ConditionKind.ACCEPTS: ", ".join(f"{key} = {value}" for key, value in sorted(needs.own.items())) or "no labels",
    }
    return {kind: said for kind, said in words.items() if said}


def _gpu_words(gpu: spec_pb2.Gpu) -> str:
    memory = f" with {gpu.memory} each" if gpu.memory else ""
    return f"{max(1, gpu.count)} x {gpu.name or 'any model'}{memory}"


def explanation_of(found: Explanation) -> pb.Explanation:
    """An explanation for the wire."""
    standing = found.standing
    return pb.Explanation(
        reason=found.reason.value,  # type: ignore[arg-type]
        summary=found.summary,
        pending_parents=standing.parents,
        pending_parent_count=standing.parent_count,
        backoff_until=timestamp(found.backoff_until),
        paused=found.paused,
        executors=found.executors,
        conditions=[
            pb.ConditionReport(
                kind=one.kind.value,  # type: ignore[arg-type]
                wanted=one.wanted,
                failing=one.failing,
                failing_names=one.failing_names,
            )
            for one in found.conditions
        ],
        matching=found.matching,
        offline=found.offline,
        full=found.full,
        free=found.free,
        place=found.place,
        lane_length=standing.lane_length,
    )
