"""The scheduler's named statements, and what more than one module of the store says of them."""

from uuid import UUID

from servicekit.failures import NotFound
from servicekit.postgres import Queries

PACKAGE = "services.scheduler.store"
ENTERING = Queries(PACKAGE, "entering.sql")
ASSIGNING = Queries(PACKAGE, "assigning.sql")
ENDING = Queries(PACKAGE, "ending.sql")
WORKFLOWS = Queries(PACKAGE, "workflows.sql")
CHILDREN = Queries(PACKAGE, "children.sql")
WRITES = Queries(PACKAGE)
CHANNELS = Queries(PACKAGE, "channels.sql")
READS = Queries(PACKAGE, "reads.sql")


def no_process(process_id: UUID) -> NotFound:
    """The answer for a process that is not in this colony, wherever it is."""
    return NotFound(f"no process {process_id} in this colony", reason="PROCESS_NOT_FOUND")


def no_workflow(workflow_id: UUID) -> NotFound:
    """The answer for a workflow that is not in this colony, wherever it is."""
    return NotFound(f"no workflow {workflow_id} in this colony", reason="WORKFLOW_NOT_FOUND")
