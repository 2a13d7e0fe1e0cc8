"""Services running in this process, each put together by its own composition root.

async with Cluster(database_url, redis_url, directory) as cluster:
    users = await cluster.stub(AuthServiceStub, cluster.keys.owner).ListUsers(...)
"""

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import grpc

from colonies.auth.v1 import auth_service_pb2 as auth_pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry_pb
from colonies.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from colonies.signing import CHANNEL_OPTIONS, Signer, SigningChannel, join_text
from servicekit.clock import NS_PER_MS, Clock, SystemClock
from servicekit.process import Process
from tests.harness.json_channel import JsonChannel
from tests.harness.keys import Keys
from tests.harness.servers import ALL_SERVICES, present_services

CLUSTER = "test-cluster"
COLONY = "acme"
USER = "alice"
EXECUTOR_TYPES = ("cli",)
START_S = 30.0
# A channel of its own for every stub's service: gRPC would share connections between channels with equal options.
LOCAL_POOL = ("grpc.use_local_subchannel_pool", 1)


class Replica:
    """One running service."""

    def __init__(self, name: str, process: Process, task: "asyncio.Task[None]") -> None:
        self.name = name
        self.process = process
        self._task = task

    @property
    def address(self) -> str:
        """host:port of its gRPC server."""
        return f"127.0.0.1:{self.process.port}"

    async def stop(self) -> None:
        """Ends it as SIGTERM would. Raises what it ended with."""
        self.process.told.set()
        await self._task


class Cluster:
    """Chosen services on one database and one Valkey, with the colony "acme" in it."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        directory: Path,
        *,
        services: Sequence[str] | None = None,
        clock: Clock | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        populate: bool = True,
        in_json: bool = False,
    ) -> None:
        """`services` are started in this order (default: all that there are); `settings` has what to change, by service;
        `in_json` has its stubs speak JSON."""
        self.keys = Keys()
        self.clock: Clock = clock or SystemClock()
        self.replicas: dict[str, list[Replica]] = {}
        self.in_json = in_json
        self._database_url = database_url
        self.redis_url = redis_url
        self._directory = directory
        self._wanted = present_services() if services is None else tuple(services)
        self._settings = settings or {}
        self._populate = populate
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        try:
            for name in self._wanted:
                await self.start(name)
            if self._populate:
                await self.populate()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends everything, the last started first. Raises what a service ended with."""
        for channel in self._channels.values():
            await channel.close()
        running = [replica for name in reversed(self.replicas) for replica in self.replicas[name]]
        self.replicas.clear()
        ends = [await asyncio.gather(replica.stop(), return_exceptions=True) for replica in running]
        for (end,) in ends:
            if isinstance(end, BaseException):
                raise end

    async def stop_replica(self, replica: Replica) -> None:
        """Ends one replica. One with a `listen` of its own in the settings can be brought back where the others look for it."""
        self.replicas[replica.name].remove(replica)
        await replica.stop()

    async def start(self, name: str, **changes: object) -> Replica:
        """Starts one (more) replica of a service; returns when it serves."""
        settings_type = importlib.import_module(f"services.{name}.settings").Settings
        compose = importlib.import_module(f"services.{name}.__main__").compose
        settings = settings_type(**{**self._settings_of(name), **self._settings.get(name, {}), **changes})
        stack = AsyncExitStack()
        process = Process(name, settings, stack, self.clock)

        async def run() -> None:
            async with stack:
                await compose(process, settings)

        task = asyncio.create_task(run(), name=f"service {name}")
        serving = asyncio.create_task(process.serving.wait())
        await asyncio.wait((task, serving), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not process.serving.is_set():
            serving.cancel()
            task.cancel()
            await task
        replica = Replica(name, process, task)
        self.replicas.setdefault(name, []).append(replica)
        return replica

    def _settings_of(self, name: str) -> dict[str, object]:
        key_file = self._directory / f"{name}.key"
        if not key_file.exists():
            key_file.touch(mode=0o600)
            key_file.write_text(self.keys.service(name).hex)
        addresses = {f"{other}_address": running[0].address for other, running in self.replicas.items() if running}
        return {
            "cluster": CLUSTER,
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "postgres_url": self._database_url,
            "redis_url": self.redis_url,
            "server_owner": self.keys.server_owner.identity,
            "service_key_file": key_file,
            "service_identities": {other: self.keys.service(other).identity for other in ALL_SERVICES},
            "postgres_connections": 5,
            "drain_seconds": 2.0,
            **addresses,
        }

    def channel(self, name: str, *, replica: int = 0) -> grpc.aio.Channel:
        """An unsigned channel to a service."""
        address = self.replicas[name][replica].address
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=(*CHANNEL_OPTIONS, LOCAL_POOL))
        return self._channels[address]

    def signer(self, key: PrivateKey) -> Signer:
        """Signs with this key, by this cluster's clock."""
        return Signer(key, CLUSTER, self.clock_ms)

    def clock_ms(self) -> int:
        """Unix milliseconds of this cluster's clock."""
        return self.clock.now_ns() // NS_PER_MS

    def stub(self, kind: Any, key: PrivateKey, *, replica: int = 0) -> Any:
        """A stub such as AuthServiceStub whose calls are signed with this key."""
        service = kind.__module__.split(".")[1]
        channel = SigningChannel(self.channel(service, replica=replica), self.signer(key))
        return kind(JsonChannel(channel) if self.in_json else channel)

    def proof(self, key: PrivateKey, *, colony: str, role: str, name: str) -> auth_pb.JoinProof:
        """A new identity's agreement to a membership."""
        time_ms = self.clock_ms()
        text = join_text(audience=CLUSTER, colony=colony, role=role, name=name, time_ms=time_ms)
        return auth_pb.JoinProof(public_key=key.public_key, time_ms=time_ms, signature=key.sign(text))

    async def add_colony(self, name: str, owner: PrivateKey) -> None:
        """Adds a colony, as the server owner."""
        proof = self.proof(owner, colony=name, role="colony_owner", name=name)
        auth = self.stub(AuthServiceStub, self.keys.server_owner)
        await auth.AddColony(auth_pb.AddColonyRequest(name=name, owner=proof))

    async def add_user(self, colony: str, owner: PrivateKey, name: str, key: PrivateKey) -> None:
        """Adds a user, as the colony's owner."""
        proof = self.proof(key, colony=colony, role="user", name=name)
        auth = self.stub(AuthServiceStub, owner)
        await auth.AddUser(auth_pb.AddUserRequest(colony_name=colony, name=name, user=proof))

    async def register(self, colony: str, name: str, key: PrivateKey, **offer: Any) -> registry_pb.Executor:
        """Registers an executor, as itself."""
        request = registry_pb.RegisterExecutorRequest(
            **{"colony": colony, "name": name, "executor_types": EXECUTOR_TYPES, **offer}
        )
        response = await self.stub(RegistryServiceStub, key).RegisterExecutor(request)
        return registry_pb.Executor.FromString(response.executor.SerializeToString())

    async def approve(self, colony: str, owner: PrivateKey, identity: str) -> None:
        """Approves an executor, as the colony's owner."""
        request = registry_pb.ApproveExecutorRequest(colony_name=colony, identity=identity)
        await self.stub(RegistryServiceStub, owner).ApproveExecutor(request)

    async def add_executor(self, colony: str, owner: PrivateKey, name: str, key: PrivateKey, **offer: Any) -> None:
        """Registers an executor and approves it."""
        await self.register(colony, name, key, **offer)
        await self.approve(colony, owner, key.identity)

    async def populate(self) -> None:
        """The colony "acme" with its owner and the user "alice"; with a registry, the executors "worker-1" and "worker-2"."""
        if "auth" not in self.replicas:
            return
        await self.add_colony(COLONY, self.keys.owner)
        await self.add_user(COLONY, self.keys.owner, USER, self.keys.user)
        if "registry" in self.replicas:
            await self.add_executor(COLONY, self.keys.owner, "worker-1", self.keys.executor)
            await self.add_executor(COLONY, self.keys.owner, "worker-2", self.keys.executor_2)
