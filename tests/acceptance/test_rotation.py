"""Keys that rotate under a running stack: nobody loses work, nobody is refused."""

import asyncio
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest

from colonies import Executor, Function
from colonies.client import AsyncClient
from colonies.errors import PermissionDeniedError
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, WorkflowSpec
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio

ATTEMPTS = 50
KEEP_MS = 2_000


def refused_calls(world: World) -> list[str]:
    """What services have refused to let in so far, by their own logs, but for what `refused` asks."""
    return [
        line
        for log in sorted((world.data_dir / "logs").glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if ("PERMISSION_DENIED" in line or "UNAUTHENTICATED" in line) and "GetColony" not in line
    ]


async def refused(world: World, key: PrivateKey) -> bool:
    """Whether the colony does not let this key in."""
    profile = world.profile
    async with AsyncClient(profile.host, profile.port, "dev", key, profile.cluster) as client:
        try:
            await client.get_colony()
        except PermissionDeniedError:
            return True
    return False


async def is_nobody(world: World, key: PrivateKey) -> bool:
    """Whether this key is neither the server owner's nor a service's."""
    profile = world.profile
    async with AsyncClient(profile.host, profile.port, "dev", key, profile.cluster) as client:
        try:
            async for _ in client.list_membership_events(colony=""):
                pass
        except PermissionDeniedError:
            return True
    return False


async def test_an_executor_rotates_its_key_while_it_runs_fifty_attempts(
    installation: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate, begun = asyncio.Event(), 0
    profile, key_file = installation.profile, tmp_path / "keys" / "rotating.key"
    executor = Executor(
        "rotating",
        executor_types=["held"],
        host=profile.host,
        port=profile.port,
        colony="dev",
        cluster=profile.cluster,
        key_file=key_file,
        concurrency=ATTEMPTS,
    )

    @executor.function
    async def hold(number: int) -> int:
        nonlocal begun
        begun += 1
        await gate.wait()
        return number

    old = PrivateKey.load_or_create(key_file)
    working = asyncio.create_task(executor.arun())
    try:
        async with installation.client("colony-owner") as owner, installation.client() as user:
            await until(lambda: _registered(owner, old.identity), "the executor registers")
            await owner.approve_executor(old.identity)

            async def submit() -> list[str]:
                calls = [Function("hold", args=[number], executortype="held") for number in range(ATTEMPTS)]
                return [await user.submit(call) for call in calls]

            held = await submit()
            await until(lambda: _is(lambda: begun == ATTEMPTS), "all are begun")
            refusals = refused_calls(installation)
            caplog.set_level(logging.WARNING, logger="colonies.executor")
            caplog.clear()
            new = await executor.arotate_key(keep_old_ms=KEEP_MS)
            assert PrivateKey.load(key_file).identity == new.identity
            assert PrivateKey.load(key_file.with_name("rotating.key.old")).identity == old.identity
            await until(lambda: refused(installation, old), "the old key is refused")
            # More work arrives by the stream of the new key, and finds no room until the first is done.
            later = await submit()
            gate.set()
            for process_id in (*held, *later):
                await user.wait(process_id, timeout=60)
            processes = [await user.get_process(process_id) for process_id in (*held, *later)]
            assert {one.state for one in processes} == {process_pb2.PROCESS_STATE_SUCCESSFUL}
            assert {(one.attempt, one.executor_name) for one in processes} == {(1, "rotating")}
            assert begun == 2 * ATTEMPTS
            assert [line for line in refused_calls(installation) if line not in refusals] == []
            assert [record.getMessage() for record in caplog.records if record.name == "colonies.executor"] == []
    finally:
        executor.stop()
        await working


async def _registered(owner: AsyncClient, identity: str) -> bool:
    return any([one.identity == identity async for one in owner.list_executors()])


async def _is(condition: Any) -> bool:
    return bool(condition())


async def _is_more(count: Any, than: int) -> bool:
    return bool(await count() > than)


async def test_crons_go_on_firing_while_everybodys_keys_rotate(installation: World) -> None:
    """The member on whose account they fire, its colony's owner, and every service that has a part in it."""
    label = f"rotation-{uuid.uuid4().hex[:8]}"
    members = {"user": (), "colony-owner": ("--owner",), "server-owner": ("--server-owner",)}
    services = ("auth", "registry", "scheduler", "cron")
    names = [*members, *(f"service-{service}" for service in services)]
    keys = {name: installation.key(name) for name in names}
    node = FunctionSpec(node_name="tick", func_name="nothing", conditions=Conditions(executor_type="nobody"))
    async with installation.client() as user:
        await user.add_cron(label, WorkflowSpec(label=label, nodes=[node]), interval=1.0)

    async def fired() -> int:
        request = scheduler.ListWorkflowsRequest(colony_name="dev", page_size=1_000)
        async with installation.client() as client:
            workflows = (await client.call(client.scheduler.ListWorkflows, request)).workflows
        return sum(one.label == label and one.initiator == keys["user"].identity for one in workflows)

    await until(lambda: _is_more(fired, 0), "the cron fires")
    keep = ("--keep-old-ms", str(KEEP_MS))
    for name, options in members.items():
        made = installation.json("key", "rotate", *options, *keep)
        assert (made["identity"], made["key"]) == (keys[name].identity, installation.key(name).identity)
    for service in services:
        service_file = str(installation.data_dir / "keys" / f"service-{service}.key")
        made = installation.json("key", "rotate", "--service", "--key-file", service_file, *keep)
        assert made["identity"] == keys[f"service-{service}"].identity
    for name in names:
        assert PrivateKey.load(installation.data_dir / "keys" / f"{name}.key.old").identity == keys[name].identity
        assert installation.key(name).identity != keys[name].identity
    for name in ("user", "colony-owner"):
        await until(lambda name=name: refused(installation, keys[name]), f"the old key of {name} is refused")
    for name in ("server-owner", *(f"service-{service}" for service in services)):
        await until(lambda name=name: is_nobody(installation, keys[name]), f"the old key of {name} is nobody's")
    before = await fired()
    await until(lambda: _is_more(fired, before + 2), "the cron fires on")
    async with installation.client() as user:
        cron = await user.get_cron(label)
        assert cron.last_error == ""
        await user.remove_cron(label)
    # A stack that starts anew finds everybody with the key of now.
    installation.colonies("down")
    installation.colonies("up", "--port", str(installation.port))
    async with installation.client("server-owner") as owner:
        assert [colony.owner async for colony in owner.list_colonies()] == [keys["colony-owner"].identity]
    # Run again, as after an interruption, a rotation ends where it was to end.
    file = installation.data_dir / "keys" / "user.key"
    waiting = PrivateKey.load_or_create(file.with_name("user.key.new"))
    async with installation.client() as user:
        await user.rotate_key(waiting, keep_old_ms=0)
    made = installation.json("key", "rotate")
    assert (made["identity"], made["key"]) == (keys["user"].identity, waiting.identity)
    assert installation.key("user").identity == waiting.identity
