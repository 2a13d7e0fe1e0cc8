"""What the scheduler makes of the registry's executors: what they offer, who there is, who was heard from."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colonies.registry.v1 import registry_service_pb2 as pb
from servicekit.clock import ManualClock, datetime_of
from servicekit.failures import Unavailable
from services.scheduler.domain.matching import GpuKind, Needs, Offer, meets, requirements
from services.scheduler.registry import HeardBuffer, Roster, offer_of, profile_of

ID = "11" * 32


def executor(name: str = "a", **capabilities: Any) -> pb.Executor:
    return pb.Executor(
        name=name,
        identity=ID,
        executor_types=["cli", "web"],
        location_name="lund",
        capabilities=pb.Capabilities(**capabilities),
    )


def test_an_offer_is_what_the_executor_says() -> None:
    exists = pb.LabelRequirement(key="team", operator=pb.LABEL_OPERATOR_EXISTS)
    one_of = pb.LabelRequirement(key="team", operator=pb.LABEL_OPERATOR_IN, values=["b", "a"])
    gpus = [pb.GpuOffer(name="A100", memory="80k", count=2), pb.GpuOffer(name="A100", memory="80000", count=1)]
    found = offer_of(
        executor(
            cpu="1500m",
            memory="1Ki",
            storage="1k",
            nodes=2,
            processes=3,
            gpus=gpus,
            labels={"os": "linux"},
            accepts=[one_of, exists],
        )
    )
    accepts = requirements([("team", "?", ()), ("team", "in", ("a", "b"))])
    assert found == Offer(1500, 1024, 1000, 2, 3, (GpuKind(3, 80_000, "A100"),), {"os": "linux"}, accepts, "lund")
    profile = profile_of(executor(cpu="1"))
    assert (profile.identity, profile.name, profile.executor_types, profile.location) == (ID, "a", ("cli", "web"), "lund")
    assert Offer.parse(profile.offer) == Offer(cpu=1_000, location="lund")


def test_what_is_no_quantity_is_not_offered() -> None:
    gpus = [pb.GpuOffer(name="A100", memory="much", count=2), pb.GpuOffer(name="L4", count=1)]
    found = offer_of(executor(cpu="1Gi", memory="lots", storage="-1", gpus=gpus, nodes=-1, processes=-1))
    assert found == Offer(gpus=(GpuKind(1, 0, "L4"),), location="lund")


def test_a_requirement_of_a_later_version_is_met_by_nothing() -> None:
    accepts = [pb.LabelRequirement(key="team", operator=9, values=["x"])]  # type: ignore[arg-type]
    assert not meets(offer_of(executor(accepts=accepts)), Needs(own={"team": "x"}))


class ScriptedRegistry:
    """Answers ListExecutors with what it is given, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = False

    async def ListExecutors(self, request: pb.ListExecutorsRequest, **_: Any) -> pb.ListExecutorsResponse:
        self.asked.append(f"{request.colony_name} {request.cursor}".strip())
        await self.answers.wait()
        if self.fails:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
        return pb.ListExecutorsResponse(executors=[executor(request.cursor or "a")], next_cursor="" if request.cursor else "b")


class Setting:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.clock = ManualClock()
        self.registry = ScriptedRegistry()
        self.heard = HeardBuffer(channel, self.clock)
        self.roster = Roster(channel, self.heard, self.clock)
        self.roster._registry = self.registry  # type: ignore[assignment]

    async def names(self, colony: str = "acme") -> list[str]:
        return [one.profile.name for one in await self.roster.executors(colony)]


@pytest_asyncio.fixture
async def setting() -> AsyncIterator[Setting]:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        yield Setting(channel)


@pytest.mark.asyncio
async def test_all_pages_are_read_and_kept_for_a_second(setting: Setting) -> None:
    for _ in range(2):
        assert await setting.names() == ["a", "b"]
    assert setting.registry.asked == ["acme", "acme b"]
    setting.clock.advance(ns=999_999_999)
    await setting.names()
    assert len(setting.registry.asked) == 2
    await setting.names("other")
    assert len(setting.registry.asked) == 4
    setting.clock.advance(ns=1)
    await setting.names()
    assert len(setting.registry.asked) == 6


@pytest.mark.asyncio
async def test_all_who_ask_meanwhile_share_an_answer_though_the_first_goes_away(setting: Setting) -> None:
    setting.registry.answers.clear()
    asking = [asyncio.create_task(setting.names()) for _ in range(10)]
    while not setting.registry.asked:
        await asyncio.sleep(0)
    asking[0].cancel()
    setting.registry.answers.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [["a", "b"]] * 9
    assert setting.registry.asked == ["acme", "acme b"]


@pytest.mark.asyncio
async def test_a_failure_is_told_and_not_kept(setting: Setting) -> None:
    setting.registry.fails = True
    for count in (1, 2):
        with pytest.raises(Unavailable):
            await setting.names()
        assert len(setting.registry.asked) == count
    setting.registry.fails = False
    assert await setting.names() == ["a", "b"]


@pytest.mark.asyncio
async def test_the_latest_sign_of_life_counts(setting: Setting) -> None:
    now = datetime_of(setting.clock.now_ns())
    earlier, later = now - timedelta(seconds=1), now + timedelta(seconds=1)
    assert setting.heard.latest("acme", ID, None) is None
    assert setting.heard.latest("acme", ID, earlier) == earlier
    setting.heard.note("acme", ID)
    assert [setting.heard.latest("acme", ID, at) for at in (None, earlier, later)] == [now, now, later]
    assert setting.heard.latest("other", ID, None) is None
    (found, _) = await setting.roster.executors("acme")
    assert found.heard_at == now
