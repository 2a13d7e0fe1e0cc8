"""Two colonies with the same kinds of things in them: what the members of the one know of the other is what they may try."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1 import cron_service_pb2 as cron_pb
from colonies.cron.v1 import generator_service_pb2 as generator_pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import channel_pb2, process_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of
from tests.rpc.methods import NO_UUID
from tests.rpc.scheduler_colony import ref_of, spec, value

OTHER_COLONY = "umbrella"
CHANNEL = "chat"
# What "name" means in the requests of these methods, or in these messages.
NAMED = {
    "user": ("AddUser:name", "GetUser:name", "RemoveUser:name"),
    "executor": ("GetExecutor:name", "RegisterExecutor:name", "executor_name", "executor_names"),
    "function": ("Function.name", "RemoveFunction:name"),
    "location": ("Location.name", "GetLocation:name", "RemoveLocation:name", "location_name"),
    "cron": (
        "AddCron:name",
        "UpdateCron:name",
        "GetCron:name",
        "ListFires:name",
        "PreviewSchedule:name",
        "RunCron:name",
        "PauseCron:name",
        "ResumeCron:name",
        "RemoveCron:name",
    ),
    "generator": (
        "AddGenerator:name",
        "GetGenerator:name",
        "Pack:name",
        "ListBins:name",
        "ListBatches:name",
        "FlushGenerator:name",
        "DropArguments:name",
        "PauseGenerator:name",
        "ResumeGenerator:name",
        "RemoveGenerator:name",
    ),
    "node": ("node_name",),
}
_numbers = itertools.count(1)


@dataclass(slots=True)
class Place:
    """A colony: its members' keys, and the names and ids of what is in it, as requests name them."""

    colony: str
    keys: Mapping[str, PrivateKey]
    names: Mapping[str, str]
    process_id: str = NO_UUID
    workflow_id: str = NO_UUID
    cursors: dict[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """What fills a request with this place's own."""
        identity = self.keys["executor"].identity
        named = {key: self.names[kind] for kind, keys in NAMED.items() for key in keys}
        return {
            "colony_name": self.colony,
            "colony": self.colony,
            "process_id": self.process_id,
            "process_ids": [self.process_id],
            "workflow_id": self.workflow_id,
            "workflow_ids": [self.workflow_id],
            "identity": identity,
            "initiator": self.keys["user"].identity,
            "channel": CHANNEL,
            "channels": [CHANNEL],
            "attempt": 1,
            **named,
        }


ACME = Place(
    COLONY,
    {"colony_owner": key_of("owner of acme"), "user": key_of("alice"), "executor": key_of("worker-1")},
    {
        "user": "alice",
        "executor": "worker-1",
        "function": "square",
        "location": "cellar",
        "cron": "nightly",
        "generator": "gather",
        "node": "a",
    },
)
UMBRELLA = Place(
    OTHER_COLONY,
    {"colony_owner": key_of("owner of umbrella"), "user": key_of("bob"), "executor": key_of("rival")},
    {
        "user": "bob",
        "executor": "rival",
        "function": "cube",
        "location": "attic",
        "cron": "weekly",
        "generator": "hoard",
        "node": "z",
    },
)
# What exists in no colony, in the same forms.
NOWHERE = Place(
    "nowhere",
    {name: key_of("nobody at all") for name in ("colony_owner", "user", "executor")},
    {kind: f"no-{kind}" for kind in NAMED},
)


async def furnish(cluster: Cluster, template: Place, *, executor_type: str = "cli") -> Place:
    """Brings a place about: members, a workflow whose first process runs with a log, attributes, messages, and the rest."""
    place = Place(template.colony, template.keys, template.names)
    owner, user, worker = (place.keys[role] for role in ("colony_owner", "user", "executor"))
    named: dict[str, Any] = {"colony_name": place.colony}
    if place.colony != COLONY:
        await cluster.add_colony(place.colony, owner)
        await cluster.add_user(place.colony, owner, place.names["user"], user)
        await cluster.add_executor(place.colony, owner, place.names["executor"], worker)
    location = registry_pb.Location(name=place.names["location"])
    registry = cluster.stub(RegistryServiceStub, worker)
    await cluster.stub(RegistryServiceStub, owner).PutLocation(registry_pb.PutLocationRequest(**named, location=location))
    function = registry_pb.Function(name=place.names["function"])
    await registry.AnnounceFunctions(registry_pb.AnnounceFunctionsRequest(**named, functions=[function]))
    workflow = spec_pb2.WorkflowSpec(nodes=[spec(place.names["node"])])
    if "cron" in cluster.replicas:
        schedule = cron_pb.Schedule(interval_ms=86_400_000)
        cron = cron_pb.AddCronRequest(**named, name=place.names["cron"], schedule=schedule, workflow=workflow)
        await cluster.stub(CronServiceStub, user).AddCron(cron)
        await add_generator(cluster, place)
    await run_one(cluster, place, executor_type=executor_type)
    return place


async def add_generator(cluster: Cluster, place: Place) -> None:
    """Adds the place's generator, if it is not there, and packs something that waits in it."""
    named: dict[str, Any] = {"colony_name": place.colony, "name": place.names["generator"]}
    generators = cluster.stub(GeneratorServiceStub, place.keys["user"])
    workflow = spec_pb2.WorkflowSpec(nodes=[spec(place.names["node"])])
    trigger = generator_pb.Trigger(max_count=1_000)
    await generators.AddGenerator(generator_pb.AddGeneratorRequest(**named, trigger=trigger, workflow=workflow))
    waits = [generator_pb.Argument(key=f"{place.colony}-key", value=value(f'"{place.colony} argument"'))]
    await generators.Pack(generator_pb.PackRequest(**named, request_id=f"furnish-{next(_numbers)}", arguments=waits))


async def run_one(cluster: Cluster, place: Place, *, executor_type: str = "cli") -> None:
    """Submits a workflow and has its first process running, with something of everything; the place names it from now on."""
    user = cluster.stub(SchedulerServiceStub, place.keys["user"])
    worker = cluster.stub(SchedulerServiceStub, place.keys["executor"])
    named: dict[str, Any] = {"colony_name": place.colony}
    node = place.names["node"]
    nodes = [
        spec(node, channels=[CHANNEL], max_retries=3, executor_type=executor_type),
        spec(f"{node}-child", node, executor_type="nobody"),
    ]
    submit = pb.SubmitWorkflowRequest(
        **named, request_id=f"furnish-{next(_numbers)}", workflow=spec_pb2.WorkflowSpec(nodes=nodes)
    )
    answer = await user.SubmitWorkflow(submit)
    place.workflow_id, place.process_id = answer.workflow_id, answer.process_ids[0]
    assign = pb.AssignProcessesRequest(**named, max_processes=1, wait_ms=20_000)
    (assignment,) = (await worker.AssignProcesses(assign)).assignments
    assert assignment.process_id == place.process_id
    ref = ref_of(assignment)
    lines = [process_pb2.LogLine(message=f"{place.colony} line {number}") for number in range(3)]
    await worker.AddLogs(pb.AddLogsRequest(**named, attempt=ref, lines=lines))
    attribute = process_pb2.Attribute(kind=process_pb2.ATTRIBUTE_KIND_OUT, key=f"{place.colony}-key", value="1")
    await worker.SetAttributes(pb.SetAttributesRequest(**named, attempt=ref, attributes=[attribute]))
    message = channel_pb2.NewMessage(kind=channel_pb2.MESSAGE_KIND_DATA, value=value(f'"{place.colony} message"'))
    append = channel_pb2.AppendMessagesRequest(
        **named, process_id=place.process_id, channel=CHANNEL, messages=[message], first_number=1
    )
    await user.AppendMessages(append)


async def remove_user(cluster: Cluster, place: Place, name: str) -> None:
    """Removes a user, as the owner."""
    auth = cluster.stub(AuthServiceStub, place.keys["colony_owner"])
    await auth.RemoveUser(auth_pb.RemoveUserRequest(colony_name=place.colony, name=name))
