"""The audit export."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime

import grpc

from colonies.client.calls import Calls
from colonies.errors import UnavailableError
from colonies.scheduler.v1 import audit_pb2 as pb


class AuditCalls(Calls):
    """What can be exported for an audit."""

    async def export_audit(
        self,
        *,
        process_ids: Sequence[str] = (),
        workflow_ids: Sequence[str] = (),
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> AsyncGenerator[bytes]:
        """The bytes of an audit file, as they come; for the colony's owner and its users. Without any filter: everything.

            with open("colony.audit", "wb") as file:
                async for lines in client.export_audit():
                    file.write(lines)

        `colonies.audit.verify` checks it. A file that does not end with its seal is none, and one whose header has another
        scope than what was asked for (`Report.scope`) is less.

        Args:
            process_ids: only these processes.
            workflow_ids: only the processes of these workflows, besides `process_ids`.
            since: only what was submitted then or later; with a time zone.
            before: only what was submitted before; with a time zone.

        Raises:
            UnavailableError: the server was out of reach, or it broke off: begin anew.
            RpcError: the call was refused.
        """
        request = pb.ExportAuditRequest(colony_name=self.colony, process_ids=process_ids, workflow_ids=workflow_ids)
        for field, moment in (("submitted_since", since), ("submitted_before", before)):
            if moment is not None:
                getattr(request, field).FromDatetime(moment)
        begun = False

        def opening() -> pb.ExportAuditRequest:
            if begun:
                # Lines of two exports are no file.
                msg = f"the export from {self.address} broke off: begin anew"
                raise UnavailableError(msg, code=grpc.StatusCode.UNAVAILABLE)
            return request

        async with aclosing(self.stream(self.scheduler.ExportAudit, opening)) as answers:
            async for answer in answers:
                if answer.lines:
                    begun = True
                    yield answer.lines
