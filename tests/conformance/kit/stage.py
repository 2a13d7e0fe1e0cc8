"""What the languages play on: one local stack, and a colony with a way of its own to the front door for each."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio

from colonies.client import AsyncClient
from colonies.keys import PrivateKey
from deploy.local.control import down, up
from deploy.local.files import secret
from deploy.local.layout import Layout
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.settings import StackSettings
from deploy.local.state import ProcessStatus, StackState
from tests.acceptance.world import until
from tests.fault.proxy import Proxy

# A lease outlives a scheduler that is killed and comes back. An outage of more than five seconds extends all leases by itself,
# so that between two heartbeats (a third of a lease) there must be room for one of five.
LEASE_MS = 9_000
RECOVERY_S = 60.0
# The referee's calls ride out what it does itself.
RIDE_OUT_S = 60.0
# The page of the browser's driver comes from here, and so from elsewhere than the server's: calls need the front door's leave.
DRIVER_ORIGIN = "http://browser-driver.localhost"
# What is killed in the middle of cases, if the stack has it.
VICTIMS = ("scheduler", "gateway")


@dataclass
class Colony:
    """A language's colony, as the kit sees it."""

    name: str
    way: Proxy
    owner: AsyncClient
    user: AsyncClient
    user_key: PrivateKey


@dataclass
class Stage:
    """A running stack. Opened by `stage()`."""

    root: Path
    port: int
    cluster: str = ""
    # Unix seconds and name of each process that was killed.
    kills: list[tuple[float, str]] = field(default_factory=list)
    _colonies: list[Colony] = field(default_factory=list)
    _killed: set[int] = field(default_factory=set)

    @property
    def data_dir(self) -> Path:
        """The stack's."""
        return self.root / "data"

    async def open(self) -> None:
        """Starts it."""
        added = {"COLONIES_LEASE_MS": str(LEASE_MS), "COLONIES_LOG_LEVEL": "warning"}
        os.environ.update(added)
        try:
            settings = StackSettings(data_dir=self.data_dir, port=self.port, allowed_origins=(DRIVER_ORIGIN,))
            state = await asyncio.to_thread(up, settings)
        finally:
            for name in added:
                del os.environ[name]
        self.cluster = state.cluster_id

    async def colony(self, name: str) -> Colony:
        """A new colony with an owner and a user."""
        owner, user = PrivateKey.generate(), PrivateKey.generate()
        async with self.client(name, PrivateKey.load(Layout(self.data_dir).key("server-owner"))) as client:
            await client.add_colony(name, owner)
        way = Proxy(lambda: self.port)
        await way.start()
        made = Colony(name, way, self.client(name, owner), self.client(name, user), user)
        self._colonies.append(made)
        await made.owner.add_user("user", user)
        return made

    def client(self, colony: str, key: PrivateKey) -> AsyncClient:
        """A client that goes straight to the front door."""
        return AsyncClient(LOOPBACK, self.port, colony, key, self.cluster, retry_for=RIDE_OUT_S, tls=False)

    def _statuses(self) -> dict[str, ProcessStatus]:
        state = StackState.load(self.data_dir / "state.json")
        return {} if state is None else {one.name: one for one in state.processes}

    @property
    def victims(self) -> list[str]:
        """What can be killed here."""
        return [name for name in VICTIMS if name in self._statuses()]

    def _well(self) -> bool:
        # The supervisor's word on one that has just been killed may be older than the kill.
        victims = [one for one in self._statuses().values() if one.name in VICTIMS]
        return all(one.healthy and one.pid not in self._killed for one in victims)

    async def recovered(self) -> None:
        """Returns when all that is killed here answers again."""

        async def well() -> bool:
            return self._well()

        await until(well, "the services are back", seconds=RECOVERY_S)

    async def kill(self) -> None:
        """Kills (-9) the scheduler, and the gateway if there is one; the supervisor starts them again."""
        # One that has not come back yet would be no kill.
        await self.recovered()
        statuses = self._statuses()
        for name in self.victims:
            pid = statuses[name].pid
            assert pid is not None, f"{name} answers and has no process"
            self._killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            self.kills.append((time.time(), name))

    async def flush_redis(self) -> None:
        """Makes valkey forget everything."""
        port = self._statuses()["valkey"].port
        url = f"redis://:{secret(self.data_dir / 'valkey' / 'password')}@{LOOPBACK}:{port}/0"
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.flushall()

    async def close(self) -> None:
        """Ends everything."""
        for colony in self._colonies:
            await colony.owner.close()
            await colony.user.close()
            await colony.way.stop()
        await asyncio.to_thread(down, self.data_dir)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A running stack; all of it is gone afterwards. With CONFORMANCE_KEEP set its directory stays, to be looked at."""
    root = Path(tempfile.mkdtemp(prefix="colonies-conformance-"))
    # The embedded servers run as an ordinary user, who must be able to pass.
    root.chmod(0o711)
    made = Stage(root, free_port())
    async with AsyncExitStack() as stack:
        if not os.environ.get("CONFORMANCE_KEEP"):
            stack.callback(shutil.rmtree, root, ignore_errors=True)
        stack.push_async_callback(made.close)
        await made.open()
        yield made
