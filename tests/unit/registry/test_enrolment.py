"""Enrolment, with auth away or breaking in the middle: repeating a step finishes it."""

from dataclasses import replace

import pytest

from servicekit.clock import ManualClock
from servicekit.failures import FailedPrecondition, NotFound, Unavailable
from services.registry.domain.catalogue import Catalogue
from services.registry.domain.enrolment import Enrolment
from services.registry.domain.model import MAX_PENDING, ExecutorState, Function, Registration
from tests.contract.memory_registry import FakeAuthority, MemoryStore

pytestmark = pytest.mark.asyncio

SAID, ASK = b"the executor's call", b"the owner's call"
CLAIM = Registration("worker", ("edge", "cloud"), "", b"offer")


class World:
    """An enrolment and what it works with."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.authority = FakeAuthority("acme")
        self.clock = ManualClock()
        self.enrolment = Enrolment(self.store, self.authority, self.clock)

    async def register(self, identity: str = "w", **changes: object) -> ExecutorState:
        """Registers; returns the state told."""
        claim = replace(CLAIM, **changes)  # type: ignore[arg-type]
        return (await self.enrolment.register("acme", identity, claim, SAID)).state

    def state(self, identity: str = "w") -> ExecutorState | None:
        """The state kept."""
        executor = self.store.executors_by_key.get(("acme", identity))
        return None if executor is None else executor.state

    def assert_agreed(self, state: ExecutorState | None) -> None:
        """The state is this one, and auth's members are the approved ones."""
        assert self.state() is state
        approved = state is ExecutorState.APPROVED
        assert self.authority.members == ({"w": "worker"} if approved else {})


@pytest.fixture
def world() -> World:
    """A world with one colony, "acme"."""
    return World()


async def test_the_answer_for_a_colony_that_is_not_there_is_that_for_a_new_entry(world: World) -> None:
    nowhere = await world.enrolment.register("nowhere", "w", CLAIM, SAID)
    here = await world.enrolment.register("acme", "w", CLAIM, SAID)
    assert replace(nowhere, colony="acme") == here
    assert here.registered_at is None
    assert await world.enrolment.register("acme", "w", CLAIM, SAID) == here
    assert list(world.store.executors_by_key) == [("acme", "w")]
    assert world.store.executors_by_key[("acme", "w")].registered_at is not None


@pytest.mark.parametrize("broken", ["away", "crash_after"])
@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (ExecutorState.PENDING, "approve", ExecutorState.APPROVED),
        (ExecutorState.APPROVED, "approve", ExecutorState.APPROVED),
        (ExecutorState.PENDING, "reject", ExecutorState.REJECTED),
        (ExecutorState.APPROVED, "reject", ExecutorState.REJECTED),
        (ExecutorState.REJECTED, "approve", ExecutorState.APPROVED),
        (ExecutorState.APPROVED, "remove", None),
        (ExecutorState.REJECTED, "remove", None),
    ],
)
async def test_a_step_that_broke_is_finished_by_repeating_it(
    world: World, broken: str, before: ExecutorState, step: str, after: ExecutorState | None
) -> None:
    await world.register()
    if before is not ExecutorState.PENDING:
        await getattr(world.enrolment, "approve" if before is ExecutorState.APPROVED else "reject")("acme", "w", ASK)
    setattr(world.authority, broken, True)
    with pytest.raises(Unavailable):
        await getattr(world.enrolment, step)("acme", "w", ASK)
    assert world.state() is before
    setattr(world.authority, broken, False)
    await getattr(world.enrolment, step)("acme", "w", ASK)
    world.assert_agreed(after)


async def test_an_approval_that_broke_is_undone_by_whatever_comes_instead(world: World) -> None:
    for instead in ("reject", "remove", "register"):
        await world.register()
        world.authority.crash_after = True
        with pytest.raises(Unavailable):
            await world.enrolment.approve("acme", "w", ASK)
        world.authority.crash_after = False
        assert world.authority.members == {"w": "worker"}
        if instead == "register":
            await world.register(executor_types=("gpu",))
        else:
            await getattr(world.enrolment, instead)("acme", "w", ASK)
        assert world.authority.members == {}, instead
        world.store.executors_by_key.clear()


async def test_saying_something_else_takes_the_approval_away(world: World) -> None:
    await world.register()
    for change in ({"name": "other"}, {"executor_types": ("edge",)}, {"location_name": "attic"}):
        await world.register()
        await world.enrolment.approve("acme", "w", ASK)
        assert await world.register(executor_types=("cloud", "edge")) is ExecutorState.APPROVED
        assert await world.register(capabilities=b"more") is ExecutorState.APPROVED
        assert await world.register(**change) is ExecutorState.PENDING
        world.assert_agreed(ExecutorState.PENDING)


async def test_a_rejected_executor_stays_out_until_it_is_approved(world: World) -> None:
    await world.register()
    await world.enrolment.reject("acme", "w", ASK)
    for change in ({}, {"name": "other"}):
        with pytest.raises(FailedPrecondition) as caught:
            await world.register(**change)
        assert caught.value.reason == "EXECUTOR_REJECTED"
    world.assert_agreed(ExecutorState.REJECTED)
    await world.enrolment.approve("acme", "w", ASK)
    world.assert_agreed(ExecutorState.APPROVED)


async def test_so_many_may_wait_and_the_next_one_takes_the_place_of_the_first(world: World) -> None:
    await world.register("approved")
    await world.enrolment.approve("acme", "approved", ASK)
    for index in range(MAX_PENDING):
        world.clock.advance(seconds=1)
        await world.register(f"p{index}")
    # Those that wait already may go on asking, and changing what they say, and push nobody out.
    assert await world.register("p0", name="other") is ExecutorState.PENDING
    assert world.state("p1") is ExecutorState.PENDING
    # A stranger is told what it would be told of a colony that is not there.
    nowhere = await world.enrolment.register("nowhere", "late", CLAIM, SAID)
    assert await world.enrolment.register("acme", "late", CLAIM, SAID) == replace(nowhere, colony="acme")
    assert (world.state("p0"), world.state("p1"), world.state("late")) == (None, ExecutorState.PENDING, ExecutorState.PENDING)
    assert await world.register("approved", name="other") is ExecutorState.PENDING
    assert (world.state("p1"), world.state("p2")) == (None, ExecutorState.PENDING)
    # Whose place was taken asks again, and waits again.
    assert await world.register("p1") is ExecutorState.PENDING
    assert len(world.store.executors_by_key) == MAX_PENDING


async def test_a_registration_from_before_they_were_kept_is_kept_when_it_is_repeated(world: World) -> None:
    for approved in (False, True):
        await world.register()
        if approved:
            await world.enrolment.approve("acme", "w", ASK)
        world.store.registrations_by_key.clear()
        await world.register()
        assert world.store.registrations_by_key == {("acme", "w"): SAID}
    world.authority.calls.clear()
    await world.enrolment.approve("acme", "w", ASK)
    assert world.authority.calls == [ASK, SAID]


async def test_what_is_not_registered_is_not_found(world: World) -> None:
    for step in (world.enrolment.approve, world.enrolment.reject, world.enrolment.remove):
        with pytest.raises(NotFound):
            await step("acme", "nobody", ASK)


async def test_only_the_approved_announce(world: World) -> None:
    catalogue = Catalogue(world.store)
    await world.register()
    for call in (
        catalogue.update("acme", "w", b""),
        catalogue.announce("acme", "w", [Function("f", b"")]),
        catalogue.remove_function("acme", "w", "f"),
        catalogue.update("acme", "nobody", b""),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await call
        assert caught.value.reason == "EXECUTOR_NOT_APPROVED"


async def test_auth_is_told_the_calls_that_ask_for_each_step(world: World) -> None:
    await world.register()
    await world.enrolment.approve("acme", "w", ASK)
    assert world.authority.calls == [ASK, SAID]
    await world.register(name="other")
    await world.enrolment.reject("acme", "w", ASK)
    await world.enrolment.remove("acme", "w", ASK)
    assert world.authority.calls == [ASK, SAID, SAID, ASK, ASK]
