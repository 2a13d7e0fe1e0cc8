"""The scheduler's RPCs: request to domain call to response. What they promise stands in the protos; each topic has a file."""

from servicekit.clock import Clock
from services.scheduler.domain.auditing import Auditing
from services.scheduler.domain.channelling import Channelling
from services.scheduler.domain.controls import Controlling
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.explainer import Explainer
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.following import Following
from services.scheduler.domain.reporting import Reporting
from services.scheduler.domain.statistics import Counting
from services.scheduler.domain.submitting import Submitting
from services.scheduler.domain.views import Reads
from services.scheduler.rpc.audit import AuditRpcs
from services.scheduler.rpc.channels import ChannelRpcs
from services.scheduler.rpc.controls import ControlRpcs
from services.scheduler.rpc.executors import ExecutorRpcs
from services.scheduler.rpc.explain import ExplainRpcs
from services.scheduler.rpc.processes import ProcessRpcs
from services.scheduler.rpc.receipts import Receipts
from services.scheduler.rpc.workflows import WorkflowRpcs


class Servicer(ProcessRpcs, WorkflowRpcs, ExecutorRpcs, ChannelRpcs, ExplainRpcs, ControlRpcs, AuditRpcs):
    """All of them."""

    def __init__(
        self,
        *,
        submitting: Submitting,
        dispatching: Dispatching,
        finishing: Finishing,
        reporting: Reporting,
        following: Following,
        channelling: Channelling,
        explainer: Explainer,
        controlling: Controlling,
        counting: Counting,
        auditing: Auditing,
        reads: Reads,
        receipts: Receipts,
        clock: Clock,
    ) -> None:
        self._submitting = submitting
        self._dispatching = dispatching
        self._finishing = finishing
        self._reporting = reporting
        self._following = following
        self._channelling = channelling
        self._explainer = explainer
        self._controlling = controlling
        self._counting = counting
        self._auditing = auditing
        self._reads = reads
        self._receipts = receipts
        self._clock = clock
