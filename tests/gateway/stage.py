"""Services in this process, a real Envoy before them, and gateways: in this process, or each a process of its own."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from colonies.keys import PrivateKey
from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.ports import free_port
from services.gateway.serving import Gateway
from services.gateway.settings import Settings
from tests.attacks.wire import Wire, signed
from tests.gateway.http import Connection, Lines, Reply, ask, request
from tests.harness.calls import eventually
from tests.harness.cluster import COLONY, Cluster
from tests.harness.processes import RunningProcess, environment_of
from tests.rpc.scheduler_colony import Acme

API = "/api"
JSON = ("content-type", "application/json")
LINES = ("accept", "application/jsonl")
SCHEDULER = "/colonies.scheduler.v1.SchedulerService"


class Stage:
    """A cluster behind a front door, and gateways of it. Opened by `stage()`."""

    def __init__(self, cluster: Cluster, front_door: EnvoyFrontDoor, root: Path, stack: AsyncExitStack) -> None:
        self.cluster = cluster
        self.acme = Acme(cluster)
        self.front_door = front_door
        self.gateways: list[Gateway | RunningProcess] = []
        self._root = root
        self._stack = stack
        self._addresses: dict[str, list[tuple[str, int]]] = {}

    @property
    def port(self) -> int:
        """The front door's."""
        assert self.front_door.port is not None
        return self.front_door.port

    async def open(self, **settings: object) -> Gateway:
        """Starts a gateway in this process; returns when the front door sends it requests."""
        chosen: dict[str, Any] = {"listen": "127.0.0.1:0", "front_door_address": self.front_door.address, "drain_seconds": 2.0}
        gateway = Gateway(Settings(**{**chosen, **settings}))
        task = asyncio.create_task(gateway.serve())

        async def end() -> None:
            gateway.told.set()
            await task

        self._stack.push_async_callback(end)
        await asyncio.wait((task, asyncio.ensure_future(gateway.serving.wait())), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        await self._found(gateway, gateway.port)
        return gateway

    async def launch(self, **settings: object) -> RunningProcess:
        """The same as a process of its own."""
        listen = f"127.0.0.1:{free_port()}"
        chosen = {"listen": listen, "front_door_address": self.front_door.address, "drain_seconds": 5.0, **settings}
        log = self._root / f"gateway-{len(self.gateways)}.log"
        process = RunningProcess("gateway", listen, "", log, environment_of(chosen))

        async def end() -> None:
            if process.alive:
                await process.stop()

        self._stack.push_async_callback(end)
        await self._found(process, int(listen.rpartition(":")[2]))
        return process

    async def _found(self, gateway: Gateway | RunningProcess, port: int) -> None:
        self.gateways.append(gateway)
        self._addresses.setdefault("gateway", []).append(("127.0.0.1", port))
        await self.route()
        await self.reaches("gateway", len(self._addresses["gateway"]))

    async def route(self, addresses: Mapping[str, list[tuple[str, int]]] | None = None) -> None:
        """Tells the front door where everything is; `addresses` in place of what is known, by service."""
        for name, replicas in self.cluster.replicas.items():
            found = [replica.address.rpartition(":") for replica in replicas]
            self._addresses[name] = [(host, int(port)) for host, _, port in found]
        await asyncio.to_thread(self.front_door.set_endpoints, {**self._addresses, **(addresses or {})})

    async def reaches(self, name: str, count: int) -> None:
        """Waits until the front door finds so many replicas well."""

        async def well() -> bool:
            return len((await asyncio.to_thread(self.front_door.healthy_endpoints))[name]) == count

        await eventually(well, seconds=10)

    def wire(self, method: str, document: Any = None, *, key: PrivateKey | None = None) -> Wire:
        """A call in JSON, signed by alice or with this key. `document` is a message, or what is to be JSON, or bytes."""
        return signed(self.cluster, key or self.cluster.keys.user, f"{method}+json", as_json(document))

    def http(self, wire: Wire, *headers: tuple[str, str]) -> bytes:
        """A signed call as a request to the gateway."""
        path = API + wire.path.removesuffix("+json")
        return request("POST", path, (JSON, *wire.headers, *headers), wire.body)

    async def call(self, method: str, document: Any = None, *headers: tuple[str, str], key: PrivateKey | None = None) -> Reply:
        """Makes a call through the front door and the gateway."""
        return await ask(self.port, self.http(self.wire(method, document, key=key), *headers))

    @asynccontextmanager
    async def stream(
        self, method: str, document: Any = None, *, port: int = 0, receive_buffer: int = 0, key: PrivateKey | None = None
    ) -> AsyncIterator[Lines]:
        """Opens a stream and reads its head."""
        async with await Connection.to(port or self.port, receive_buffer=receive_buffer) as connection:
            connection.send(self.http(self.wire(method, document, key=key), LINES))
            await connection.head()
            yield Lines(connection)

    async def submit(self, request_id: str = "r") -> str:
        """A process of alice's, submitted over HTTP; its id."""
        spec = {"funcName": "f", "channels": ["chat"], "conditions": {"executorType": "cli"}}
        document = {"colonyName": COLONY, "requestId": request_id, "specs": [spec]}
        reply = await self.call(f"{SCHEDULER}/SubmitProcesses", document)
        assert reply.status == 200, reply
        (process_id,) = reply.document["processIds"]
        return str(process_id)


def as_json(document: Any) -> bytes:
    """A request's body."""
    if isinstance(document, bytes):
        return document
    if isinstance(document, Message):
        return MessageToJson(document, indent=None).encode()
    return json.dumps({} if document is None else document).encode()


@asynccontextmanager
async def stage(opening: Callable[[], Awaitable[Cluster]]) -> AsyncIterator[Stage]:
    """A front door before the services of a cluster; gateways are opened on it."""
    root = Path(tempfile.mkdtemp(prefix="colonies-gateway-", dir="/dev/shm"))
    root.chmod(0o711)
    front_door = EnvoyFrontDoor(root / "envoy", port=free_port())
    try:
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(front_door.start)
            stack.push_async_callback(asyncio.to_thread, front_door.stop)
            cluster = await opening()
            made = Stage(cluster, front_door, root, stack)
            await made.route()
            for name, replicas in cluster.replicas.items():
                await made.reaches(name, len(replicas))
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)
