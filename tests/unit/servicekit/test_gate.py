"""Whose key signs, as the gate sees it: who is let in as whom, and how often anybody is asked."""

from collections.abc import AsyncIterator, Sequence

import pytest

from colonies.keys import PrivateKey
from servicekit.caller import Caller, Member, Role
from servicekit.changes import Event
from servicekit.clock import ManualClock
from servicekit.envelope import Envelope
from servicekit.failures import InvalidArgument, PermissionDenied, Unavailable
from servicekit.limits import Bucket, Limits
from servicekit.members import KNOWN_AS, members_of
from servicekit.pipeline import Gate
from servicekit.policy import Policy
from servicekit.signature import Signed

pytestmark = pytest.mark.asyncio

SCHEDULER = "/colonies.scheduler.v1.SchedulerService"
AUTH = "/colonies.auth.v1.AuthService"
REGISTRY = "/colonies.registry.v1.RegistryService"
SETTINGS_KEY = "5e" * 32
# Time stands still: from this moment on the key is nobody's.
END_NS = ManualClock().now_ns() + 1_000_000_000


class Source:
    """Records, and what was asked for."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Member] = {}
        self.asked: list[tuple[str, str]] = []
        self.away = False

    async def fetch(self, colony: str, identity: str) -> Member | None:
        self.asked.append((colony, identity))
        if self.away:
            raise Unavailable("away", reason="TEST")
        return self.records.get((colony, identity))

    async def changes(self) -> AsyncIterator[Event]:
        raise AssertionError("nobody follows")
        yield


class Unused:
    """Nonces, of which nobody claims any here."""

    async def claim(self, call: Signed, buckets: Sequence[Bucket]) -> None:
        raise AssertionError("claimed")


class World:
    """A gate and whom it knows."""

    def __init__(self) -> None:
        self.source = Source()
        self.clock = ManualClock()
        self.gate = Gate(
            audience="test",
            clock=self.clock,
            nonces=Unused(),
            members=members_of(self.source, self.clock),
            principals=frozenset({SETTINGS_KEY}),
            policy=Policy.load(),
            limits=Limits(),
        )

    def know(self, colony: str, key: str, member: Member) -> None:
        """Enters a record."""
        self.source.records[colony, key] = member

    async def admit(self, method: str, key: str, colony: str | None = "acme", *, on_behalf_of: str | None = None) -> Caller:
        """Asks to make a call."""
        signed = Signed(key, method, "", 0, "", "", b"", b"")
        envelope = Envelope(colony, on_behalf_of or "", can_represent=on_behalf_of is not None)
        return await self.gate.admit(method, signed, envelope)

    async def asks(self, method: str, key: str, colony: str | None = "acme", *, on_behalf_of: str | None = None) -> int:
        """How often auth is asked for one more call of this kind."""
        before = len(self.source.asked)
        await self.admit(method, key, colony, on_behalf_of=on_behalf_of)
        return len(self.source.asked) - before


@pytest.fixture
def world() -> World:
    """Knows nobody yet."""
    return World()


async def test_a_member_is_known_by_its_first_key_and_asked_for_once(world: World) -> None:
    world.know("acme", "new", Member("first", Role.EXECUTOR, "w"))
    caller = await world.admit(f"{SCHEDULER}/Heartbeat", "new")
    assert (caller.identity, caller.call.key, caller.role, caller.name, caller.key_until_ns) == (
        "first",
        "new",
        Role.EXECUTOR,
        "w",
        None,
    )
    assert world.source.asked == [("acme", "new")]
    assert await world.asks(f"{SCHEDULER}/Heartbeat", "new") == 0
    # Where services may call too, members are still asked for as members alone.
    world.know("acme", "other", Member("other", Role.USER, "u"))
    assert await world.asks(f"{SCHEDULER}/SubmitProcesses", "other", on_behalf_of=None) == 1
    assert await world.asks(f"{SCHEDULER}/SubmitProcesses", "other") == 0


@pytest.mark.parametrize("key", [SETTINGS_KEY, "rotated"])
async def test_a_service_costs_nothing_once_it_is_known_whatever_its_key(world: World, key: str) -> None:
    world.know("", key, Member(SETTINGS_KEY, Role.SERVICE, "cron"))
    world.know("acme", KNOWN_AS + "ab" * 32, Member("ab" * 32, Role.USER, "u"))
    for method, colony, on_behalf_of in (
        (f"{SCHEDULER}/SubmitWorkflow", "acme", "ab" * 32),
        (f"{REGISTRY}/ResolveExecutor", None, None),
        (f"{REGISTRY}/ListExecutors", "acme", None),
    ):
        caller = await world.admit(method, key, colony, on_behalf_of=on_behalf_of)
        assert (caller.role, caller.name, caller.identity) == (Role.SERVICE, "cron", SETTINGS_KEY)
        assert await world.asks(method, key, colony, on_behalf_of=on_behalf_of) == 0


@pytest.mark.parametrize("key", [SETTINGS_KEY, "rotated"])
async def test_a_server_owner_that_is_a_member_too_comes_as_the_member_where_a_colony_is_named(world: World, key: str) -> None:
    world.know("", key, Member(SETTINGS_KEY, Role.SERVER_OWNER, "server owner"))
    world.know("acme", key, Member("first", Role.COLONY_OWNER, "owner"))
    world.know("edge", key, Member("first", Role.EXECUTOR, "w"))
    method = f"{AUTH}/ListMembershipEvents"
    for _ in range(2):
        for colony, role in (
            ("acme", Role.COLONY_OWNER),
            ("", Role.SERVER_OWNER),
            ("nowhere", Role.SERVER_OWNER),
            # The ledger is not for executors, so this is nothing that it could come as.
            ("edge", Role.SERVER_OWNER),
        ):
            assert (await world.admit(method, key, colony)).role is role
        assert (await world.admit(f"{AUTH}/ListColonies", key, None)).role is Role.SERVER_OWNER


async def test_the_settings_alone_make_nobody_a_service(world: World) -> None:
    for method, colony, reason in (
        (f"{REGISTRY}/ResolveExecutor", None, "ROLE_NOT_ALLOWED"),
        (f"{REGISTRY}/ListExecutors", "acme", "NOT_A_MEMBER"),
        (f"{AUTH}/RotateKey", "", "NOT_A_MEMBER"),
    ):
        with pytest.raises(PermissionDenied) as caught:
            await world.admit(method, SETTINGS_KEY, colony)
        assert caught.value.reason == reason


async def test_a_service_may_call_only_what_stands_in_the_policy_for_it(world: World) -> None:
    world.know("", "cron", Member("cron", Role.SERVICE, "cron"))
    for method, colony in ((f"{AUTH}/PutExecutor", None), (f"{SCHEDULER}/Heartbeat", "acme"), (f"{AUTH}/AddColony", None)):
        with pytest.raises(PermissionDenied):
            await world.admit(method, "cron", colony)
    # A member that bears a service's name is no service.
    world.know("acme", "impostor", Member("impostor", Role.USER, "registry"))
    with pytest.raises(PermissionDenied):
        await world.admit(f"{AUTH}/PutExecutor", "impostor", None)


async def test_a_key_whose_time_is_over_is_nobodys_whoever_could_be_asked(world: World) -> None:
    for colony, key, role in (("acme", "old", Role.USER), ("", SETTINGS_KEY, Role.SERVICE)):
        world.know(colony, key, Member("first", role, "x", END_NS))
        method, place = (f"{SCHEDULER}/GetProcess", "acme") if colony else (f"{REGISTRY}/ResolveExecutor", None)
        caller = await world.admit(method, key, place)
        assert caller.key_until_ns == END_NS
        assert not world.gate.is_over(caller)
        world.clock.advance(seconds=1)
        assert world.gate.is_over(caller)
        with pytest.raises(PermissionDenied):
            await world.admit(method, key, place)
        world.clock.advance(seconds=-1)


async def test_while_nobody_answers_nobody_new_is_let_in_or_called_a_stranger(world: World) -> None:
    world.know("acme", "known", Member("known", Role.USER, "u"))
    await world.admit(f"{SCHEDULER}/GetProcess", "known")
    world.source.away = True
    await world.admit(f"{SCHEDULER}/GetProcess", "known")
    for key in ("stranger", SETTINGS_KEY):
        with pytest.raises(Unavailable):
            await world.admit(f"{SCHEDULER}/GetProcess", key)
    world.clock.advance(seconds=30)
    with pytest.raises(Unavailable):
        await world.admit(f"{SCHEDULER}/GetProcess", "known")


async def test_an_empty_colony_is_a_mistake_but_where_it_means_no_colony(world: World) -> None:
    key = PrivateKey(b"\x07" * 32).identity
    with pytest.raises(InvalidArgument):
        await world.admit(f"{SCHEDULER}/GetProcess", key, "")
    with pytest.raises(PermissionDenied):
        await world.admit(f"{AUTH}/RotateKey", key, "")
