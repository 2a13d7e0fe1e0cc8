"""What came out of a cron's last run that succeeded, for the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.failures import FailedPrecondition, ResourceExhausted
from services.cron.domain.cron import Cron
from services.cron.domain.ports import Run, WorkflowSubmitter

# The reason of a ResourceExhausted: what is asked for does not fit into one answer.
OUTPUTS_TOO_LARGE = "OUTPUTS_TOO_LARGE"


@dataclass(frozen=True, slots=True)
class Fed:
    """The arguments for a run, serialised Values, and the run that they came out of; None for none."""

    source: UUID | None = None
    arguments: Sequence[bytes] = ()


def source_of(cron: Cron, runs: Mapping[UUID, Run]) -> UUID | None:
    """The last run that is known to have succeeded; `runs` says what has become of the last one."""
    last = cron.last_workflow_id
    return last if last is not None and last in runs and runs[last].succeeded else cron.fed_from


async def fed(submitter: WorkflowSubmitter, cron: Cron, source: UUID | None) -> Fed:
    """The outputs of a run; nothing if it is gone.

    Raises:
        FailedPrecondition: they are too large.
        Failure: as `WorkflowSubmitter.runs`.
    """
    if source is None:
        return Fed()
    try:
        found = await submitter.runs(colony=cron.colony, workflow_ids=[source], outputs=True)
    except ResourceExhausted as failure:
        if failure.reason != OUTPUTS_TOO_LARGE:
            raise
        # Waiting would not make them smaller.
        raise FailedPrecondition(failure.message, reason=failure.reason) from failure
    return Fed(source, found[source].outputs) if source in found else Fed()
