"""The async client: every group of methods in one class."""

from colonies.client.audit import AuditCalls
from colonies.client.channels import ChannelCalls
from colonies.client.controls import ControlCalls
from colonies.client.crons import CronCalls
from colonies.client.explain import ExplainCalls
from colonies.client.generators import GeneratorCalls
from colonies.client.members import ColonyCalls, ExecutorCalls
from colonies.client.rotation import KeyCalls
from colonies.client.workflows import WorkflowCalls


class AsyncClient(
    WorkflowCalls,
    ExplainCalls,
    ColonyCalls,
    ExecutorCalls,
    KeyCalls,
    CronCalls,
    GeneratorCalls,
    ChannelCalls,
    ControlCalls,
    AuditCalls,
):
    """Everything that a Colonies server does, as async methods, each call signed with one key.

        async with AsyncClient("localhost", 50080, "dev", key) as client:
            process_id = await client.submit(Function("square", args=[2]))
            (four,) = await client.wait(process_id)

    Calls ride out outages of up to `retry_for` seconds, then raise UnavailableError; refusals raise the RpcError that fits.
    Records come back as the messages of the protos, outputs as Python values. An object belongs to the event loop
    that uses it first. `auth`, `registry`, `scheduler`, `cron` and `generator` are the signed stubs, for calls that
    have no method here.
    """
