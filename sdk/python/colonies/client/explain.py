"""Methods about why things wait."""

from colonies.client.processes import ProcessCalls
from colonies.function import Function
from colonies.scheduler.v1 import explain_pb2 as explained
from colonies.scheduler.v1.spec_pb2 import FunctionSpec


class ExplainCalls(ProcessCalls):
    """What can be asked about waiting."""

    async def explain(self, process_id: str) -> explained.Explanation:
        """Why a process does not run: what it waits for, and how many executors fail each of its conditions."""
        request = explained.ExplainProcessRequest(colony_name=self.colony, process_id=process_id)
        return (await self.call(self.scheduler.ExplainProcess, request)).explanation

    async def explain_spec(self, function: Function | FunctionSpec) -> explained.Explanation:
        """What `explain` would say if this were submitted now, outside a workflow. Nothing is entered."""
        spec = function.to_spec() if isinstance(function, Function) else function
        request = explained.ExplainSpecRequest(colony_name=self.colony, spec=spec)
        return (await self.call(self.scheduler.ExplainSpec, request)).explanation
