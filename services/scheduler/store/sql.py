"""The scheduler's named statements, and what more than one module of the store says of them."""

from uuid import UUID

from servicekit.failures import NotFound
from servicekit.postgres import Queries

WRITES = Queries("services.scheduler.store")
READS = Queries("services.scheduler.store", "reads.sql")


def no_process(process_id: UUID) -> NotFound:
    """The answer for a process that is not in this colony, wherever it is."""
    return NotFound(f"no process {process_id} in this colony", reason="PROCESS_NOT_FOUND")


def no_workflow(workflow_id: UUID) -> NotFound:
    """The answer for a workflow that is not in this colony, wherever it is."""
    return NotFound(f"no workflow {workflow_id} in this colony", reason="WORKFLOW_NOT_FOUND")
