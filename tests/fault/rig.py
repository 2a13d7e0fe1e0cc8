"""The installation under fault: every part a process of its own, and every way between them that is to be cut a proxy.

Postgres and valkey are kept alive here, the services and the front door by the stack's own supervisor, the executors by tasks.
Scheduler A and B reach Postgres and valkey by ways of their own, as each executor and the client do the front door.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from colonies.cli.bootstrap import Address, KeyFiles, ensure_colony
from colonies.client import AsyncClient
from colonies.keys import PrivateKey
from deploy.local.control import down, up
from deploy.local.health import HealthProbe
from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from deploy.local.processes import children
from deploy.local.settings import StackSettings
from deploy.local.state import StackState
from deploy.local.supervisor import Keeper
from deploy.local.valkey import Valkey
from tests.acceptance.world import until
from tests.fault.proxy import Proxy
from tests.fault.service import WAYS

COLONY = "dev"
LEASE_MS = 5_000
# Name and types of each executor: every type is served by several, and e0 and e3 serve all, for what names them.
EXECUTORS = {
    "e0": "red,green,blue",
    "e1": "red",
    "e2": "red,green",
    "e3": "red,green,blue",
    "e4": "green",
    "e5": "green,blue",
    "e6": "blue",
    "e7": "red,blue",
}
CONCURRENCY = 16
REPLICAS = {"a": "scheduler", "b": "scheduler-2"}
SCHEDULERS: Mapping[str, int] = {"scheduler": len(REPLICAS)}


class ExecutorProcess:
    """One executor, started again whenever it dies."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.restarts = -1
        self._command = command
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 between two lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    def begin(self) -> None:
        """Starts it, and keeps it alive."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        with self._log.open("ab") as log:
            while True:
                self.restarts += 1
                self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
                await self._process.wait()

    async def end(self) -> None:
        """Ends it for good."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self.pid and self._process is not None:
            self._process.kill()
            await self._process.wait()


class Rig:
    """All of it. Opened by `rig()`."""

    def __init__(self, root: Path, types: Mapping[str, str], replicas: Mapping[str, int]) -> None:
        self.root = root
        self._types = types
        self._replicas = replicas
        self.postgres = Postgres(root / "postgres")
        self.valkey = Valkey(root / "valkey")
        self.executors: dict[str, ExecutorProcess] = {}
        # Ways: "a-postgres", "b-valkey", "e0", "client".
        self.ways: dict[str, Proxy] = {}
        self.keepers: dict[str, Keeper] = {}
        self.cluster_id = ""
        self._port = free_port()
        self._stopping = threading.Event()
        self._probes: dict[tuple[str, int], HealthProbe] = {}

    @property
    def data_dir(self) -> Path:
        """The stack's."""
        return self.root / "data"

    @property
    def effects(self) -> Path:
        """Every run of a function adds a line: process, attempt, executor, unix seconds."""
        return self.root / "effects"

    def key_file(self, name: str) -> Path:
        """A key of the stack: user, colony-owner."""
        return self.data_dir / "keys" / f"{name}.key"

    def pid_of(self, name: str) -> int:
        """The process id of a service replica, as the stack's supervisor tells it; 0 while it has none."""
        state = StackState.load(self.data_dir / "state.json")
        return next((one.pid or 0 for one in state.processes if one.name == name), 0) if state is not None else 0

    def well(self, name: str) -> bool:
        """Whether a service replica answers now: asked of itself, for the supervisor's news are a second old."""
        state = StackState.load(self.data_dir / "state.json")
        if state is None:
            return False
        port = next((one.port for one in state.processes if one.name == name and one.alive), None)
        if port is None:
            return False
        probe = self._probes.setdefault((name, port), HealthProbe(f"127.0.0.1:{port}"))
        return probe.serving(0.5)

    async def open(self) -> None:
        """Starts everything; returns when the executors are approved."""
        for name, child in (("postgres", self.postgres), ("valkey", self.valkey)):
            self.keepers[name] = Keeper(child, self._stopping)
            self.keepers[name].begin()
        for name in self.keepers:
            await until(lambda name=name: _now(self.keepers[name].ever_healthy), f"{name} is up")
        # One scheduler is not to be cut off, and goes straight there: proxies cost what is to be measured.
        for replica in REPLICAS if self._replicas == SCHEDULERS else ():
            self.ways[f"{replica}-postgres"] = Proxy(lambda: _port(self.postgres))
            self.ways[f"{replica}-valkey"] = Proxy(lambda: _port(self.valkey))
        for name in (*self._types, "client"):
            self.ways[name] = Proxy(lambda: self._port)
        for way in self.ways.values():
            await way.start()
        state = await asyncio.to_thread(self._up)
        self.cluster_id = state.cluster_id
        await ensure_colony(Address.of(state), COLONY, KeyFiles.in_data_dir(self.data_dir), user="alice")
        await self._start_executors()

    def _up(self) -> StackState:
        ways = {
            service: {
                "COLONIES_POSTGRES_URL": _through(self.postgres.url(), self.ways[f"{replica}-postgres"]),
                "COLONIES_REDIS_URL": _through(self.valkey.url(), self.ways[f"{replica}-valkey"]),
            }
            for replica, service in REPLICAS.items()
            if f"{replica}-postgres" in self.ways
        }
        settings = StackSettings(
            data_dir=self.data_dir,
            port=self._port,
            postgres_url=self.postgres.url(),
            redis_url=self.valkey.url(),
            replicas=self._replicas,
            service_command=(sys.executable, "-P", "-m", "tests.fault.service", "{name}"),
        )
        # Inherited by the supervisor, and from it by the services.
        added = {WAYS: json.dumps(ways), "COLONIES_LEASE_MS": str(LEASE_MS), "COLONIES_LOG_LEVEL": "warning"}
        os.environ.update(added)
        try:
            return up(settings)
        finally:
            for name in added:
                del os.environ[name]

    async def _start_executors(self) -> None:
        identities = {}
        for name, types in self._types.items():
            key_file = self.root / f"{name}.key"
            identities[name] = PrivateKey.load_or_create(key_file).identity
            arguments = [name, types, str(key_file), str(CONCURRENCY), str(self.effects)]
            command = [sys.executable, "-m", "tests.fault.worker", *arguments, str(self.ways[name].port), self.cluster_id]
            self.executors[name] = ExecutorProcess(name, command, self.root / f"{name}.log")
            self.executors[name].begin()
        async with self.client("colony-owner") as owner:
            for name, identity in identities.items():

                async def registered(identity: str = identity) -> bool:
                    return any([one.identity == identity async for one in owner.list_executors()])

                await until(registered, f"{name} registers")
                await owner.approve_executor(identity)

    def client(self, key: PrivateKey | str = "user") -> AsyncClient:
        """A client at the front door, with a key of the stack or one of its own."""
        if isinstance(key, str):
            key = PrivateKey.load(self.key_file(key))
        return AsyncClient("127.0.0.1", self._port, COLONY, key, self.cluster_id)

    def start_submitter(self, plan: Path) -> subprocess.Popen[bytes]:
        """The submitting client as a process of its own."""
        with (self.root / "submitter.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "tests.fault.submitter", str(plan)], stdout=log, stderr=log)

    async def close(self) -> None:
        """Ends everything, whatever state it is in."""
        for one in self.executors.values():
            await one.end()
        for name in ("postgres", "valkey"):
            for pid in self.family(name):
                send(pid, signal.SIGCONT)
        await asyncio.to_thread(down, self.data_dir)
        self._stopping.set()
        for keeper in self.keepers.values():
            await asyncio.to_thread(keeper.finish, 10.0)
            await asyncio.to_thread(keeper.child.stop, 20.0)
        for probe in self._probes.values():
            probe.close()
        for way in self.ways.values():
            await way.stop()

    @contextmanager
    def executors_paused(self) -> Iterator[None]:
        """Meanwhile work piles up."""
        pids = [one.pid for one in self.executors.values()]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                send(pid, signal.SIGCONT)

    def family(self, name: str) -> list[int]:
        """The process ids of Postgres or valkey, the parent first."""
        pid = self.keepers[name].child.pid if name in self.keepers else None
        return [] if pid is None else [pid, *children(pid)]


def send(pid: int, number: signal.Signals) -> None:
    """A signal, if the process is still there."""
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _now(value: bool) -> bool:
    return value


def _port(server: Postgres | Valkey) -> int:
    assert server.port is not None
    return server.port


def _through(url: str, way: Proxy) -> str:
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{way.port}"))


@asynccontextmanager
async def rig(*, executors: Mapping[str, str] = EXECUTORS, replicas: Mapping[str, int] = SCHEDULERS) -> AsyncIterator[Rig]:
    """A running rig; all of it is gone afterwards. With FAULT_KEEP set its directory stays, to be looked at.

    Args:
        executors: names, and the types of each.
        replicas: of the services that have not just one.
    """
    root = Path(tempfile.mkdtemp(prefix="colonies-fault-"))
    # The embedded servers run as an ordinary user, who must be able to pass.
    root.chmod(0o711)
    made = Rig(root, executors, replicas)
    async with AsyncExitStack() as stack:
        if not os.environ.get("FAULT_KEEP"):
            stack.callback(shutil.rmtree, root, ignore_errors=True)
        stack.push_async_callback(made.close)
        await made.open()
        yield made
