"""Why something waits, asked of running services: the situations of explain_cases.toml, and what is not one of them."""

import itertools
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import redis
from google.protobuf.json_format import ParseDict

from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.scheduler.v1 import controls_pb2, explain_pb2, spec_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from deploy.local.valkey import Valkey
from servicekit.clock import ManualClock
from services.scheduler.domain import patrol
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import Cluster
from tests.harness.keys import key_of
from tests.harness.servers import Databases

from .scheduler_colony import SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = tomllib.loads((Path(__file__).parent / "explain_cases.toml").read_text())["case"]
CHILD = "the child"
_requests = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    databases: Databases, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    """One cluster for all of them, whose clock is theirs."""
    with redis.Redis.from_url(valkey_server.url()) as client:
        client.flushall()
    directory = tmp_path_factory.mktemp("keys")
    with databases.fresh() as url, pytest.MonkeyPatch.context() as patch:
        # What the patrol read a moment ago it may tell the queue after somebody took it: harmless, but one more in the lane.
        patch.setattr(patrol, "PATROL_S", 3_600.0)
        async with Cluster(url, valkey_server.url(), directory, services=SERVICES, clock=ManualClock()) as running:
            yield running


class Scene:
    """A colony of its own, set up as a situation says."""

    def __init__(self, cluster: Cluster, colony: str) -> None:
        self.cluster = cluster
        self.colony = colony
        self.owner = key_of(f"owner of {colony}")
        self.clock: Any = cluster.clock

    def key(self, name: str) -> PrivateKey:
        return key_of(f"{name} of {self.colony}")

    def scheduler(self, key: PrivateKey) -> Any:
        return self.cluster.stub(SchedulerServiceStub, key)

    async def set_up(self, case: dict[str, Any]) -> None:
        await self.cluster.add_colony(self.colony, self.owner)
        crowd = case.get("crowd", {"count": 0})
        others = [{"name": f"w{index:02}", **crowd} for index in range(crowd["count"])]
        executors = [*case.get("executors", []), *others]
        for one in executors:
            await self._enter(one)
        await self._hear(executors)
        for one in case.get("open", []):
            await self.submit(one.get("spec", {}))
            await self.take(one["by"])
        for one in case.get("queued", []):
            await self.submit(one)
        if case.get("paused"):
            request = controls_pb2.UpdateControlsRequest(colony_name=self.colony, paused=True)
            await self.scheduler(self.owner).UpdateControls(request)

    async def _enter(self, one: dict[str, Any]) -> None:
        location = one.get("location", "")
        owner = self.cluster.stub(RegistryServiceStub, self.owner)
        if location:
            place = registry.Location(name=location)
            await owner.PutLocation(registry.PutLocationRequest(colony_name=self.colony, location=place))
        key, state = self.key(one["name"]), one.get("state", "approved")
        offer = ParseDict(one.get("offer", {}), registry.Capabilities())
        types = [one.get("type", "cli")]
        await self.cluster.register(
            self.colony, one["name"], key, executor_types=types, location_name=location, capabilities=offer
        )
        if state == "approved":
            await self.cluster.approve(self.colony, self.owner, key.identity)
        elif state == "rejected":
            await owner.RejectExecutor(registry.RejectExecutorRequest(colony_name=self.colony, identity=key.identity))

    async def _hear(self, executors: list[dict[str, Any]]) -> None:
        """Everybody calls at the time that the situation gives: a minute and a second ago, 59 seconds ago, now."""
        approved = [one for one in executors if "state" not in one]
        for when, pause_s in (("away", 2), ("lately", 59), ("now", 0)):
            calling = [one for one in approved if one.get("heard", "now") == when]
            for one in calling:
                heartbeat = pb.HeartbeatRequest(colony_name=self.colony)
                await self.scheduler(self.key(one["name"])).Heartbeat(heartbeat)
            if any(one.get("heard") in {"away", "lately"} for one in approved):
                self.clock.advance(seconds=pause_s)

    def spec(self, given: dict[str, Any], *parents: str, node: str = "") -> spec_pb2.FunctionSpec:
        found = ParseDict(given, spec_pb2.FunctionSpec(func_name="f", node_name=node))
        found.conditions.executor_type = found.conditions.executor_type or "cli"
        found.conditions.dependencies.extend(spec_pb2.Dependency(node_name=one) for one in parents)
        return found

    async def submit(self, given: dict[str, Any]) -> str:
        request = pb.SubmitProcessesRequest(
            colony_name=self.colony, request_id=f"request-{next(_requests)}", specs=[self.spec(given)]
        )
        (process_id,) = (await self.scheduler(self.owner).SubmitProcesses(request)).process_ids
        return str(process_id)

    async def submit_child(self, given: dict[str, Any], parents: list[dict[str, str]], by: str) -> str:
        """A process with parents, each of which has come as far as it says."""
        # Those that do something are the first in the queue.
        acting = [one for one in parents if one["state"] != "waits"]
        nodes = [self.spec({}, node=one["name"]) for one in sorted(parents, key=lambda one: one not in acting)]
        child = self.spec(given, *(one["name"] for one in parents), node=CHILD)
        request = pb.SubmitWorkflowRequest(
            colony_name=self.colony,
            request_id=f"request-{next(_requests)}",
            workflow=spec_pb2.WorkflowSpec(nodes=[*nodes, child]),
        )
        ids = list((await self.scheduler(self.owner).SubmitWorkflow(request)).process_ids)
        for one in acting:
            await self.act(by, one["state"])
        return str(ids[-1])

    async def take(self, by: str) -> Any:
        request = pb.AssignProcessesRequest(colony_name=self.colony, max_processes=1)
        (assignment,) = (await self.scheduler(self.key(by)).AssignProcesses(request)).assignments
        return assignment

    async def act(self, by: str, what: str) -> None:
        """Takes the next process, and lets it run, succeed or fail."""
        taken = await self.take(by)
        if what == "runs":
            return
        ref = pb.AttemptRef(process_id=taken.process_id, attempt=taken.attempt)
        outcome: Any = {"success": pb.Close.Success()} if what == "succeeds" else {"failure": pb.Close.Failure(retryable=True)}
        closing = pb.CloseProcessesRequest(colony_name=self.colony, closes=[pb.Close(attempt=ref, **outcome)])
        await self.scheduler(self.key(by)).CloseProcesses(closing)

    async def explain(self, process_id: str) -> explain_pb2.Explanation:
        request = explain_pb2.ExplainProcessRequest(colony_name=self.colony, process_id=process_id)
        found = (await self.scheduler(self.owner).ExplainProcess(request)).explanation
        assert isinstance(found, explain_pb2.Explanation)
        return found

    async def explain_spec(self, given: dict[str, Any], key: PrivateKey | None = None) -> explain_pb2.Explanation:
        request = explain_pb2.ExplainSpecRequest(colony_name=self.colony, spec=self.spec(given))
        found = (await self.scheduler(key or self.owner).ExplainSpec(request)).explanation
        assert isinstance(found, explain_pb2.Explanation)
        return found


def said(found: explain_pb2.Explanation) -> dict[str, Any]:
    """An explanation as the situations spell it, with what they leave out where it is nothing."""
    conditions = {
        explain_pb2.ConditionKind.Name(one.kind).removeprefix("CONDITION_KIND_").lower(): (
            list(one.failing_names) if len(one.failing_names) == one.failing else one.failing
        )
        for one in found.conditions
    }
    return {
        "reason": explain_pb2.WaitReason.Name(found.reason).removeprefix("WAIT_REASON_"),
        "paused": found.paused,
        "counts": [found.executors, found.matching, found.offline, found.full, found.free],
        "conditions": conditions,
        "parents": list(found.pending_parents),
        "parent_count": found.pending_parent_count,
        "place": found.place,
        "lane_length": found.lane_length,
    }


@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
async def test_situations(cluster: Cluster, case: dict[str, Any]) -> None:
    scene = Scene(cluster, f"case-{CASES.index(case)}")
    await scene.set_up(case)
    given, expected = case.get("spec", {}), dict(case["expect"])
    by = case["executors"][0]["name"] if "executors" in case else ""
    if case.get("only_spec"):
        process_id = ""
    elif "parents" in case:
        more = [{"name": f"n{index:03}", "state": "waits"} for index in range(case.get("more", 0))]
        parents = [*case["parents"], *more]
        process_id = await scene.submit_child(given, parents, by)
        if more:
            expected["parents"] = [one["name"] for one in parents][:100]
    else:
        process_id = await scene.submit(given)
    if "then" in case:
        await scene.act(by, case["then"])
    backoff_ms = expected.pop("backoff_ms", None)
    wanted = {"paused": False, "parents": [], "parent_count": 0, "place": 0, "lane_length": 0, **expected}
    found = explain_pb2.Explanation()

    async def as_expected() -> bool:
        nonlocal found
        found = await (scene.explain_spec(given) if case.get("only_spec") else scene.explain(process_id))
        return said(found) == wanted

    # What ended an attempt may tell the queue a moment after it has answered.
    try:
        await eventually(as_expected, seconds=10.0)
    except pytest.fail.Exception:
        assert said(found) == wanted
    assert found.summary
    until_ms = found.backoff_until.ToMilliseconds() if found.HasField("backoff_until") else None
    assert until_ms == (None if backoff_ms is None else cluster.clock_ms() + backoff_ms)


async def test_conditions_in_words(cluster: Cluster) -> None:
    scene = Scene(cluster, "words")
    await scene.set_up(
        {"executors": [{"name": "a", "offer": {"accepts": [{"key": "x", "operator": "LABEL_OPERATOR_EXISTS"}]}}]}
    )
    labels = [
        {"key": "os", "operator": "LABEL_OPERATOR_IN", "values": ["linux", "darwin"]},
        {"key": "arch", "operator": "LABEL_OPERATOR_EQUALS", "values": ["arm64"]},
    ]
    conditions: dict[str, Any] = {
        "executor_names": ["a", "b"], "location_name": "lund", "cpu": "1500m", "memory": "10Gi", "storage": "1T", "nodes": 2,
        "processes": 8, "gpu": {"name": "A100", "memory": "80Gi", "count": 2}, "labels": labels,
    }  # fmt: skip
    found = await scene.explain_spec({"conditions": conditions, "labels": {"team": "red"}})
    assert [one.wanted for one in found.conditions] == [
        *("cli", "a or b", "lund", "1500m", "10Gi", "1T", "2 x A100 with 80Gi each", "2", "8"),
        *("arch = arm64 and os in (darwin, linux)", "team = red"),
    ]
    assert [one.kind for one in found.conditions] == list(range(1, 12))
    bare = await scene.explain_spec({"conditions": {"gpu": {}}})
    assert [one.wanted for one in bare.conditions] == ["cli", "1 x any model", "no labels"]


async def test_a_change_of_what_is_offered_is_known_within_a_second(cluster: Cluster) -> None:
    scene = Scene(cluster, "changing")
    await scene.set_up({"executors": [{"name": "a"}]})
    given = {"conditions": {"cpu": "2"}}
    assert (await scene.explain_spec(given)).reason == explain_pb2.WAIT_REASON_NO_MATCH
    executor = cluster.stub(RegistryServiceStub, scene.key("a"))
    offer = registry.Capabilities(cpu="2")
    await executor.UpdateExecutor(registry.UpdateExecutorRequest(colony_name=scene.colony, capabilities=offer))
    scene.clock.advance(seconds=1)
    assert (await scene.explain_spec(given)).reason == explain_pb2.WAIT_REASON_QUEUED


async def test_all_pages_of_executors_are_counted(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scheduler.registry.LIST_PAGE", 2)
    scene = Scene(cluster, "pages")
    await scene.set_up({"crowd": {"count": 5}})
    assert (await scene.explain_spec({})).executors == 5


async def test_who_is_heard_by_the_scheduler_is_there_before_the_registry_knows(cluster: Cluster) -> None:
    scene = Scene(cluster, "heard")
    await scene.set_up({"executors": [{"name": "a", "heard": "never"}]})
    assert (await scene.explain_spec({})).reason == explain_pb2.WAIT_REASON_OFFLINE
    await scene.scheduler(scene.key("a")).Heartbeat(pb.HeartbeatRequest(colony_name=scene.colony))
    # The list of executors is the same one still: the clock stands.
    assert (await scene.explain_spec({})).reason == explain_pb2.WAIT_REASON_QUEUED


async def test_members_of_all_kinds_may_ask_and_others_not(cluster: Cluster) -> None:
    scene = Scene(cluster, "members")
    await scene.set_up({"executors": [{"name": "a"}]})
    await cluster.add_user(scene.colony, scene.owner, "bob", scene.key("bob"))
    for name in ("a", "bob"):
        assert (await scene.explain_spec({}, scene.key(name))).executors == 1
    error = await refusal(scene.explain_spec({}, scene.key("stranger")))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_cannot_be_explained(cluster: Cluster) -> None:
    scene, other = Scene(cluster, "errors"), Scene(cluster, "errors-2")
    await scene.set_up({})
    await other.set_up({})
    elsewhere = await other.submit({})
    assert (await other.explain(elsewhere)).executors == 0
    for process_id in ("123e4567-e89b-12d3-a456-426614174000", elsewhere):
        error = await refusal(scene.explain(process_id))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "PROCESS_NOT_FOUND")
    error = await refusal(scene.explain("x"))
    assert [violation.field for violation in error.violations] == ["process_id"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"conditions": {"cpu": "much"}}, "spec.conditions.cpu"),
        ({"conditions": {"labels": [{"key": "a"}]}}, "spec.conditions.labels[0].operator"),
        ({"conditions": {"dependencies": [{"node_name": "a"}]}}, "spec.conditions.dependencies"),
        ({"backoff": {}}, "spec.backoff.first_ms"),
    ]
    for given, field in wrong:
        error = await refusal(scene.explain_spec(given))
        assert [violation.field for violation in error.violations] == [field]
    empty = explain_pb2.ExplainSpecRequest(colony_name=scene.colony)
    error = await refusal(scene.scheduler(scene.owner).ExplainSpec(empty))
    assert "spec.conditions" in [violation.field for violation in error.violations]
