"""CronService over gRPC, with a real auth service; the scheduler's answers are the test's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, WorkflowSpec
from servicekit import failures
from tests.cron.scripted_scheduler import Scripted, served
from tests.harness.calls import eventually, refusal
from tests.harness.cluster import COLONY, Cluster
from tests.harness.keys import key_of

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

WORKFLOW = WorkflowSpec(
    nodes=[FunctionSpec(node_name="a", func_name="f", conditions=Conditions(executor_type="cli"))], label="nightly"
)
DAY_MS = 24 * 3600 * 1000
TEN_YEARS_MS = 10 * 365 * DAY_MS
DAILY = pb.Schedule(expression="@daily")
SECONDLY = pb.Schedule(interval_ms=1_000)


class World:
    """A cluster of auth and cron, and the scheduler's script."""

    def __init__(self, cluster: Cluster, scheduler: Scripted) -> None:
        self.cluster = cluster
        self.scheduler = scheduler
        self.user = cluster.stub(CronServiceStub, cluster.keys.user)
        self.owner = cluster.stub(CronServiceStub, cluster.keys.owner)
        self.stranger = cluster.stub(CronServiceStub, cluster.keys.stranger)

    async def cron(self, name: str = "nightly") -> Any:
        """As the user sees it."""
        return (await self.user.GetCron(pb.GetCronRequest(colony_name=COLONY, name=name))).cron


@pytest_asyncio.fixture
async def world(new_cluster: Callable[..., Any]) -> AsyncIterator[World]:
    async with served() as (scheduler, address):
        cluster = await new_cluster(services=("auth", "cron"), settings={"cron": {"scheduler_address": address}})
        yield World(cluster, scheduler)


def adding(name: str = "nightly", schedule: pb.Schedule = DAILY, colony: str = COLONY) -> pb.AddCronRequest:
    return pb.AddCronRequest(colony_name=colony, name=name, schedule=schedule, workflow=WORKFLOW)


async def test_a_cron_from_its_adding_to_its_removal(world: World) -> None:
    added = (await world.user.AddCron(adding())).cron
    (check,) = world.scheduler.requests
    user = world.cluster.keys.user.identity
    assert (check.validate_only, check.on_behalf_of, check.workflow) == (True, user, WORKFLOW)
    assert (added.initiator, added.initiator_name, added.colony_name) == (user, "alice", COLONY)
    assert added.workflow == WORKFLOW
    assert added.next_fire_time.seconds % 86_400 == 0
    assert (await world.user.AddCron(adding())).cron == added
    assert await world.cron() == added
    (listed,) = (await world.owner.ListCrons(pb.ListCronsRequest(colony_name=COLONY))).crons
    added.ClearField("workflow")
    assert listed == added
    await world.owner.RemoveCron(pb.RemoveCronRequest(colony_name=COLONY, name="nightly"))
    error = await refusal(world.user.GetCron(pb.GetCronRequest(colony_name=COLONY, name="nightly")))
    assert isinstance(error, NotFoundError)


async def test_another_cron_of_the_name(world: World) -> None:
    await world.user.AddCron(adding())
    assert isinstance(await refusal(world.owner.AddCron(adding())), AlreadyExistsError)
    assert isinstance(await refusal(world.user.AddCron(adding(schedule=SECONDLY))), AlreadyExistsError)


def at(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


BAD_SCHEDULES: tuple[tuple[pb.Schedule, str], ...] = (
    (pb.Schedule(), "schedule"),
    (pb.Schedule(jitter_ms=5), "schedule"),
    *(
        (pb.Schedule(expression=expression), "schedule.expression")
        for expression in (
            "",
            "0 0 31 2 *",
            "0 0 0 30 2 *",
            "0 0 */16 * MON#5",
            "60 * * * *",
            "* * * *",
            "* * * * * * *",
            "*/90 * * * *",
            "@reboot",
            "* * * * *\n",
            "1 " * 200,
        )
    ),
    *(
        (pb.Schedule(expression="@daily", time_zone=zone), "schedule.time_zone")
        for zone in ("Europe/Nowhere", "europe/stockholm", "/etc/passwd", "../UTC", "localtime", "posix/UTC", "x" * 65, "U\0TC")
    ),
    (pb.Schedule(interval_ms=60_000, time_zone="UTC"), "schedule.time_zone"),
    (pb.Schedule(random_interval_ms=60_000, time_zone="UTC"), "schedule.time_zone"),
    *(
        (pb.Schedule(**{kind: milliseconds}), f"schedule.{kind}")  # type: ignore[arg-type]
        for kind in ("interval_ms", "random_interval_ms")
        for milliseconds in (0, -1, 999, TEN_YEARS_MS + 1, -(2**63), 2**63 - 1)
    ),
    *((pb.Schedule(interval_ms=1_000, max_runs=runs), "schedule.max_runs") for runs in (-1, 10**9 + 1, 2**63 - 1)),
    *((pb.Schedule(interval_ms=1_000, jitter_ms=jitter), "schedule.jitter_ms") for jitter in (-1, DAY_MS + 1, 2**63 - 1)),
    (pb.Schedule(interval_ms=1_000, start_time=at(20), end_time=at(20)), "schedule.end_time"),
    (pb.Schedule(interval_ms=1_000, start_time=at(20), end_time=at(19, 999_999_999)), "schedule.end_time"),
    *(
        (pb.Schedule(interval_ms=1_000, **{field: moment}), f"schedule.{field}.{part}")  # type: ignore[arg-type]
        for field in ("start_time", "end_time")
        for moment, part in ((at(-1), "seconds"), (at(2**63 - 1), "seconds"), (at(5, -1), "nanos"), (at(5, 10**9), "nanos"))
    ),
)
BAD_POLICIES: tuple[tuple[pb.FirePolicy, str], ...] = (
    (pb.FirePolicy(overlap=5), "policy.overlap"),  # type: ignore[arg-type]  # there is none of this number
    (pb.FirePolicy(missed=4), "policy.missed"),  # type: ignore[arg-type]  # there is none of this number
    (pb.FirePolicy(overlap=-1), "policy.overlap"),  # type: ignore[arg-type]  # there is none of this number
    *((pb.FirePolicy(missed_at_most=most), "policy.missed_at_most") for most in (-1, 1_001, 2**31 - 1)),
    *((pb.FirePolicy(max_failures=most), "policy.max_failures") for most in (-1, 1_001, -(2**31))),
    *((pb.FirePolicy(missed_after_ms=late), "policy.missed_after_ms") for late in (-1, 1, 999, DAY_MS + 1, -(2**63))),
)


async def refused_fields(call: Awaitable[Any]) -> list[str]:
    error = await refusal(call)
    assert isinstance(error, InvalidArgumentError)
    assert all(violation.description.startswith("must ") for violation in error.violations)
    return [violation.field for violation in error.violations]


async def test_bad_schedules_and_policies_are_named_and_change_nothing(world: World) -> None:
    kept = (await world.user.AddCron(adding())).cron
    checks = len(world.scheduler.requests)
    for schedule, field in BAD_SCHEDULES:
        updating = pb.UpdateCronRequest(colony_name=COLONY, name="nightly", schedule=schedule, workflow=WORKFLOW)
        preview = pb.PreviewScheduleRequest(colony_name=COLONY, schedule=schedule)
        for call in (
            world.user.AddCron(adding("other", schedule)),
            world.user.UpdateCron(updating),
            world.user.PreviewSchedule(preview),
        ):
            assert await refused_fields(call) == [field], schedule
    for policy, field in BAD_POLICIES:
        request = adding("other")
        request.policy.CopyFrom(policy)
        updating = pb.UpdateCronRequest(colony_name=COLONY, name="nightly", schedule=DAILY, workflow=WORKFLOW, policy=policy)
        for call in (world.user.AddCron(request), world.user.UpdateCron(updating)):
            assert await refused_fields(call) == [field], policy
    # The scheduler was not even asked.
    assert len(world.scheduler.requests) == checks
    assert list((await world.user.ListCrons(pb.ListCronsRequest(colony_name=COLONY))).crons) == [without_workflow(kept)]


def without_workflow(cron: pb.Cron) -> pb.Cron:
    listed = pb.Cron()
    listed.CopyFrom(cron)
    listed.ClearField("workflow")
    return listed


async def test_the_ends_of_all_ranges_are_in_them(world: World) -> None:
    largest = pb.FirePolicy(
        overlap=pb.OVERLAP_POLICY_CANCEL_PREVIOUS,
        missed=pb.MISSED_POLICY_ALL,
        missed_at_most=1_000,
        missed_after_ms=DAY_MS,
        max_failures=1_000,
        feed_outputs=True,
    )
    smallest = pb.FirePolicy(
        overlap=pb.OVERLAP_POLICY_ALLOW, missed=pb.MISSED_POLICY_SKIP, missed_at_most=1, missed_after_ms=1_000, max_failures=1
    )
    long = pb.Schedule(
        random_interval_ms=TEN_YEARS_MS, max_runs=10**9, jitter_ms=DAY_MS, start_time=at(0), end_time=at(7_258_118_400)
    )
    short = pb.Schedule(interval_ms=1_000, start_time=at(4_000_000_000), end_time=at(4_000_000_000, 1_000_000))
    zoned = pb.Schedule(expression="0 0 0 29 2 */7", time_zone="America/Argentina/ComodRivadavia")
    for name, schedule, policy in (("long", long, largest), ("short", short, smallest), ("zoned", zoned, smallest)):
        request = adding(name, schedule)
        request.policy.CopyFrom(policy)
        added = (await world.user.AddCron(request)).cron
        assert (added.schedule, added.policy) == (schedule, policy)
        assert (await world.cron(name)) == added
        assert added.description
    # A window too short for a moment: it is over before it began.
    assert (await world.cron("short")).state == pb.CRON_STATE_ENDED
    assert (await world.cron("zoned")).next_fire_time.ToDatetime(UTC).astimezone(ZoneInfo(zoned.time_zone)).strftime(
        "%d %b %A %H:%M:%S"
    ) == ("29 Feb Sunday 00:00:00")


async def test_what_is_left_out_of_a_policy_is_filled_in(world: World) -> None:
    assert (await world.user.AddCron(adding())).cron.policy == pb.FirePolicy(
        overlap=pb.OVERLAP_POLICY_ALLOW,
        missed=pb.MISSED_POLICY_ONCE,
        missed_at_most=100,
        missed_after_ms=10_000,
        max_failures=10,
    )


async def test_bad_fields_of_the_other_calls_are_named(world: World) -> None:
    await world.user.AddCron(adding())
    named: dict[str, Any] = {"colony_name": COLONY, "name": "nightly"}
    user = world.user
    for call, fields in (
        (user.GetCron(pb.GetCronRequest(colony_name=COLONY, name="-x")), ["name"]),
        (user.PauseCron(pb.PauseCronRequest(colony_name=COLONY, name="x" * 129)), ["name"]),
        (user.ResumeCron(pb.ResumeCronRequest(colony_name=COLONY, name="a b")), ["name"]),
        (user.RemoveCron(pb.RemoveCronRequest(colony_name=COLONY)), ["name"]),
        (user.RunCron(pb.RunCronRequest(**named)), ["request_id"]),
        (user.RunCron(pb.RunCronRequest(**named, request_id="x" * 129)), ["request_id"]),
        (user.ListCrons(pb.ListCronsRequest(colony_name=COLONY, page_size=1_001)), ["page_size"]),
        (user.ListCrons(pb.ListCronsRequest(colony_name=COLONY, cursor="nonsense")), ["cursor"]),
        (user.ListFires(pb.ListFiresRequest(**named, page_size=-1)), ["page_size"]),
        (user.ListFires(pb.ListFiresRequest(**named, cursor="nonsense")), ["cursor"]),
        (user.ListFires(pb.ListFiresRequest(**named, outcomes=[0])), ["outcomes[0]"]),  # type: ignore[list-item]
        (user.ListFires(pb.ListFiresRequest(**named, outcomes=[1, 6])), ["outcomes[1]"]),  # type: ignore[list-item]
        (user.ListFires(pb.ListFiresRequest(**named, outcomes=[1] * 6)), ["outcomes"]),  # type: ignore[list-item]
        (user.PreviewSchedule(pb.PreviewScheduleRequest(colony_name=COLONY)), ["of"]),
        (user.PreviewSchedule(pb.PreviewScheduleRequest(colony_name=COLONY, name="-")), ["name"]),
        (user.PreviewSchedule(pb.PreviewScheduleRequest(**named, count=-1)), ["count"]),
        (user.PreviewSchedule(pb.PreviewScheduleRequest(**named, count=1_001)), ["count"]),
        (user.PreviewSchedule(pb.PreviewScheduleRequest(**named, after_time=at(-1))), ["after_time.seconds"]),
        (user.PreviewSchedule(pb.PreviewScheduleRequest(**named, after_time=at(2**63 - 1))), ["after_time.seconds"]),
    ):
        assert await refused_fields(call) == fields


async def test_a_preview_says_when_and_in_words(world: World) -> None:
    # The night in which Sweden's clocks are put forward, from 02:00 to 03:00.
    schedule = pb.Schedule(expression="30 2 * * *", time_zone="Europe/Stockholm", max_runs=3)
    after = int(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp())
    request = pb.PreviewScheduleRequest(colony_name=COLONY, schedule=schedule, after_time=at(after))
    preview = await world.user.PreviewSchedule(request)
    assert [each.ToJsonString() for each in preview.fire_times] == [
        "2026-03-29T01:00:00Z",
        "2026-03-30T00:30:00Z",
        "2026-03-31T00:30:00Z",
    ]
    assert preview.description == "At 02:30 every day (Europe/Stockholm), at most 3 times"
    added = (await world.user.AddCron(adding(schedule=schedule))).cron
    request = pb.PreviewScheduleRequest(colony_name=COLONY, name="nightly", count=1_000)
    of_cron = await world.user.PreviewSchedule(request)
    assert len(of_cron.fire_times) == 3
    assert (of_cron.fire_times[0], of_cron.description) == (added.next_fire_time, added.description)
    # At the end of the years that timestamps may name, and for moments that never come.
    for schedule in (pb.Schedule(expression="@every_minute"), pb.Schedule(interval_ms=TEN_YEARS_MS)):
        request = pb.PreviewScheduleRequest(colony_name=COLONY, schedule=schedule, after_time=at(7_258_118_400), count=2)
        assert len((await world.user.PreviewSchedule(request)).fire_times) == 2
    request = pb.PreviewScheduleRequest(
        colony_name=COLONY, schedule=pb.Schedule(expression="* 2 8-14 3 */7", time_zone="America/New_York")
    )
    assert not (await world.user.PreviewSchedule(request)).fire_times


async def test_an_update_with_a_workflow_that_is_none_changes_nothing(world: World) -> None:
    kept = (await world.user.AddCron(adding())).cron
    violation = failures.Violation("workflow.nodes[0].func_name", "must be printable")
    world.scheduler.failure = failures.InvalidArgument([violation])
    updating = pb.UpdateCronRequest(colony_name=COLONY, name="nightly", schedule=SECONDLY, workflow=WorkflowSpec())
    assert await refused_fields(world.user.UpdateCron(updating)) == ["workflow.nodes[0].func_name"]
    assert await world.cron() == kept
    world.scheduler.failure = None
    updating.workflow.CopyFrom(WORKFLOW)
    assert (await world.user.UpdateCron(updating)).cron.schedule == SECONDLY
    assert world.scheduler.requests[-1].validate_only


async def test_what_the_scheduler_says_of_the_workflow_reaches_the_caller(world: World) -> None:
    violation = failures.Violation("workflow.nodes[0].func_name", "must be printable")
    world.scheduler.failure = failures.InvalidArgument([violation])
    error = await refusal(world.user.AddCron(adding()))
    assert isinstance(error, InvalidArgumentError)
    assert [(each.field, each.description) for each in error.violations] == [violation]
    world.scheduler.failure = failures.Unavailable("away", reason="X", retry_delay_s=1.5)
    error = await refusal(world.user.AddCron(adding()))
    assert isinstance(error, UnavailableError)
    assert error.retry_delay == 1.5


async def test_strangers_and_other_members(world: World) -> None:
    await world.user.AddCron(adding())
    bob = key_of("bob")
    await world.cluster.add_user(COLONY, world.cluster.keys.owner, "bob", bob)
    other = world.cluster.stub(CronServiceStub, bob)
    assert (await other.GetCron(pb.GetCronRequest(colony_name=COLONY, name="nightly"))).cron.name == "nightly"
    run = pb.RunCronRequest(colony_name=COLONY, name="nightly", request_id="r")
    remove = pb.RemoveCronRequest(colony_name=COLONY, name="nightly")
    for call in (other.RunCron(run), other.RemoveCron(remove)):
        error = await refusal(call)
        assert isinstance(error, PermissionDeniedError)
        assert error.reason == "NOT_THE_INITIATOR"
    for call in (
        world.stranger.AddCron(adding()),
        world.stranger.RunCron(run),
        world.stranger.RemoveCron(remove),
        world.stranger.ListCrons(pb.ListCronsRequest(colony_name=COLONY)),
        world.stranger.GetCron(pb.GetCronRequest(colony_name="no-such-colony", name="nightly")),
    ):
        error = await refusal(call)
        assert isinstance(error, PermissionDeniedError)
        assert error.reason == "NOT_A_MEMBER"


async def test_running_now(world: World) -> None:
    before = (await world.user.AddCron(adding())).cron
    run = pb.RunCronRequest(colony_name=COLONY, name="nightly", request_id="r")
    first = (await world.owner.RunCron(run)).workflow_id
    assert (await world.user.RunCron(run)).workflow_id == first
    assert {batch.on_behalf_of for batch in world.scheduler.batches} == {world.cluster.keys.user.identity}
    after = await world.cron()
    assert after.last_workflow_id == first
    assert after.next_fire_time == before.next_fire_time
    world.scheduler.failure = failures.PermissionDenied("revoked", reason="ON_BEHALF_REVOKED")
    run.request_id = "r2"
    error = await refusal(world.owner.RunCron(run))
    assert isinstance(error, FailedPreconditionError)
    assert error.reason == "OWNER_REVOKED"


async def test_pages(world: World) -> None:
    names = [f"c{index}" for index in range(7)]
    for name in names:
        await world.user.AddCron(adding(name))
    seen: list[str] = []
    request = pb.ListCronsRequest(colony_name=COLONY, page_size=3)
    while True:
        response = await world.user.ListCrons(request)
        assert len(response.crons) <= 3
        seen += [cron.name for cron in response.crons]
        if not response.next_cursor:
            break
        request.cursor = response.next_cursor
    assert seen == names


async def test_a_cron_fires_every_second_under_a_request_id_for_each_moment(world: World) -> None:
    await world.user.AddCron(adding(schedule=SECONDLY))

    async def three() -> bool:
        return len(world.scheduler.workflows) >= 3

    await eventually(three, seconds=10)
    entered = [UUID(workflow_id) for workflow_id in world.scheduler.workflows.values()]
    assert list(world.scheduler.workflows) == [f"cron-{workflow_id}" for workflow_id in entered]
    # The first 48 bits of an id are its moment's milliseconds.
    assert [(after.int >> 80) - (before.int >> 80) for before, after in pairwise(entered)] == [1_000] * (len(entered) - 1)
    asked = [each.request_id for batch in world.scheduler.batches for each in batch.submissions]
    assert len(asked) == len(set(asked)) >= 3
    assert (await world.cron()).last_error == ""


async def test_when_a_colony_is_removed_its_crons_are_purged(world: World, database_url: str) -> None:
    await world.user.AddCron(adding())
    other_owner = key_of("owner of other")
    await world.cluster.add_colony("other", other_owner)
    other = world.cluster.stub(CronServiceStub, other_owner)
    await other.AddCron(adding(colony="other"))
    auth = world.cluster.stub(AuthServiceStub, world.cluster.keys.server_owner)
    await auth.RemoveColony(auth_pb.RemoveColonyRequest(name="other"))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:

        async def only_acme() -> bool:
            rows = await (await connection.execute("SELECT DISTINCT colony FROM cron.cron")).fetchall()
            return rows == [(COLONY,)]

        await eventually(only_acme, seconds=10)
