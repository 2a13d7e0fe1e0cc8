"""A whole installation of its own: what users run, on a port and in a directory of its own, gone afterwards."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.failure import BenchError
from bench.figures import file_system
from colonies.client import AsyncClient, state_name
from colonies.client.calls import Backoff
from colonies.errors import PermissionDeniedError
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.process_pb2 import ProcessState
from deploy.local import control
from deploy.local.control import StackError, StackSettings, StackState
from deploy.local.files import secret
from deploy.local.ports import free_port

# Where the data lies while it runs. Not /tmp by default: that is memory on many machines.
DIRECTORY_VARIABLE = "BENCH_DIR"
DEFAULT_DIRECTORY = Path("/var/tmp")
VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs"})
RIDE_OUT_S = 30.0
EXECUTOR_TYPE = "bench"


@dataclass(frozen=True, slots=True)
class Door:
    """How to get in: the front door's address, the cluster id, and a colony."""

    host: str
    port: int
    cluster: str
    colony: str

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    def client(self, key: PrivateKey) -> AsyncClient:
        """A client that fails at once when a call gets no answer: a figure must not hide a retry."""
        return AsyncClient(self.host, self.port, self.colony, key, self.cluster, retry_for=0.0)


@dataclass(frozen=True, slots=True)
class Build:
    """How services are run: as shipped, or otherwise for a comparison."""

    environment: Mapping[str, str] = field(default_factory=dict)
    service_command: tuple[str, ...] = StackSettings().service_command
    is_signed: bool = True


PLAIN = Build()
# What is compared must not run into the same bound: none of these has limits of rate, which the unsigned build could not have.
UNLIMITED = {"COLONIES_IDENTITY_RATE": "0", "COLONIES_COLONY_RATE": "0"}
WITH_ALL = Build(environment=UNLIMITED)
WITHOUT_RECEIPTS = Build(environment={**UNLIMITED, "COLONIES_RECEIPTS": "false"})
UNSIGNED = Build(
    environment=UNLIMITED,
    service_command=(sys.executable, "-P", "-m", "bench.unsigned", "{name}"),
    is_signed=False,
)


@dataclass(frozen=True, slots=True)
class Worker:
    """An approved executor's name and private key."""

    name: str
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Colony:
    """A colony with a user and approved executors of the type `bench`."""

    door: Door
    user: PrivateKey
    workers: Sequence[Worker]


class Installation:
    """The running stack."""

    def __init__(self, state: StackState) -> None:
        self._data = Path(state.data_dir)
        self._host, _, port = state.address.rpartition(":")
        self._port = int(port)
        self._cluster = state.cluster_id
        self._server_owner = PrivateKey.load(state.key_file("server-owner"))

    @property
    def postgres_url(self) -> str:
        """The stack's own database, for the limits: the same server, disk and settings that the services have."""
        port = (self._data / "postgres" / "port").read_text(encoding="ascii").strip()
        return f"postgresql://colonies:{secret(self._data / 'postgres' / 'password')}@127.0.0.1:{port}/colonies"

    @property
    def redis_url(self) -> str:
        """The stack's own Valkey."""
        port = (self._data / "valkey" / "port").read_text(encoding="ascii").strip()
        return f"redis://:{secret(self._data / 'valkey' / 'password')}@127.0.0.1:{port}/0"

    def processes(self, colony: str) -> dict[str, int]:
        """How many processes of a colony are in which state: counted in the table, for a list of a million takes minutes."""
        with psycopg.connect(self.postgres_url) as connection:
            query = "SELECT state, count(*) FROM scheduler.process WHERE colony = %s GROUP BY state"
            rows: list[tuple[int, int]] = connection.execute(query, [colony]).fetchall()
        return {state_name(ProcessState.ValueType(state)): count for state, count in rows}

    def pid_of(self, name: str) -> int:
        """The process id of a part of the stack.

        Raises:
            BenchError: it does not run.
        """
        for process in control.status(self._data).processes:
            if process.name == name and process.pid is not None and process.alive:
                return process.pid
        msg = f"{name} does not run"
        raise BenchError(msg)

    def environment_of(self, name: str) -> dict[str, str]:
        """What a part of the stack was started with.

        Raises:
            BenchError: it does not run.
        """
        entries = Path(f"/proc/{self.pid_of(name)}/environ").read_bytes().decode().rstrip("\0").split("\0")
        return dict(entry.split("=", 1) for entry in entries)

    def rss_bytes(self, name: str) -> int:
        """The resident memory of a part of the stack.

        Raises:
            BenchError: it does not run.
        """
        status = Path(f"/proc/{self.pid_of(name)}/status").read_text(encoding="ascii")
        (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kib) * 1024

    def restarts(self) -> int:
        """How often a part of the stack had to be started again. A figure that was taken across a restart is none."""
        return sum(process.restarts for process in control.status(self._data).processes)

    def colony(self, name: str, *, workers: int = 0) -> Colony:
        """A new colony, so that what one case leaves behind is in no other's way."""
        return asyncio.run(self._colony(name, workers))

    async def _colony(self, name: str, workers: int) -> Colony:
        door = Door(self._host, self._port, self._cluster, name)
        owner, user = PrivateKey.generate(), PrivateKey.generate()
        async with AsyncClient(
            door.host,
            door.port,
            name,
            self._server_owner,
            door.cluster,
            retry_for=RIDE_OUT_S,
        ) as client:
            await client.add_colony(name, owner)
        async with door.client(owner) as client:
            await client.add_user("submitter", user)
            made = [Worker(f"worker-{number}", PrivateKey.generate()) for number in range(1, workers + 1)]
            await asyncio.gather(*(_admit(door, worker, client) for worker in made))
        await _known(door, user)
        return Colony(door, user, made)


async def _admit(door: Door, worker: Worker, owner: AsyncClient) -> None:
    async with door.client(worker.key) as client:
        await client.register_executor(worker.name, [EXECUTOR_TYPE])
        await owner.approve_executor(worker.key.identity)
        backoff = Backoff()
        while True:
            try:
                await client.call(client.scheduler.Heartbeat, scheduler.HeartbeatRequest(colony_name=door.colony))
            except PermissionDeniedError:
                # Approved a moment ago; the scheduler hears of it in a moment.
                await asyncio.sleep(backoff.next_seconds())
            else:
                return


async def _known(door: Door, user: PrivateKey) -> None:
    backoff = Backoff()
    async with door.client(user) as client:
        while True:
            try:
                await client.get_colony()
                async for _ in client.list_processes(limit=1):
                    pass
            except PermissionDeniedError:
                await asyncio.sleep(backoff.next_seconds())
            else:
                return


@contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    """What is started inside has these too."""
    os.environ.update(extra)
    try:
        yield
    finally:
        for name in extra:
            del os.environ[name]


@contextmanager
def installation(*, schedulers: int = 1, build: Build = PLAIN) -> Iterator[Installation]:
    """A stack from nothing with so many replicas of the scheduler, its data in $BENCH_DIR (default /var/tmp).

    Raises:
        BenchError: it does not come up or down, or its data would lie in memory.
    """
    # The user's own settings (another log level, another server) must not get into the figures.
    for name in [name for name in os.environ if name.startswith("COLONIES_") and name != "COLONIES_CACHE_DIR"]:
        del os.environ[name]
    parent = Path(os.environ.get(DIRECTORY_VARIABLE, DEFAULT_DIRECTORY))
    kind = file_system(parent)
    if kind in VOLATILE:
        msg = f"{parent} is a {kind}, where a commit is not durable: set {DIRECTORY_VARIABLE} to a directory on a disk"
        raise BenchError(msg)
    root = Path(tempfile.mkdtemp(prefix="colonies-bench-", dir=parent))
    # The embedded servers run as an ordinary user, who must be able to pass.
    root.chmod(0o711)
    try:
        try:
            settings = StackSettings(
                data_dir=root / "data",
                port=free_port(),
                replicas={"scheduler": schedulers},
                service_command=build.service_command,
            )
            with _environment(build.environment):
                state = control.up(settings)
            yield Installation(state)
        finally:
            control.down(root / "data")
            shutil.rmtree(root)
    except StackError as error:
        msg = f"the stack does not come up, or not down: {error.message}\n{error.log_tail}".rstrip()
        raise BenchError(msg) from error
