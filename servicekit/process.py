"""A service process: everything that is opened at its start, served, drained and closed at its end."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from colonies.signing import Signer, SigningChannel, signed_channel
from servicekit import redis
from servicekit.caller import Member
from servicekit.clock import NS_PER_MS, Clock, SystemClock
from servicekit.directory import Directory
from servicekit.drain import Drain
from servicekit.entry import StartError, check_plaintext, serve_metrics, start
from servicekit.envelope import LARGE_AT_MOST, MIB
from servicekit.key_file import KeyFile
from servicekit.limits import Limits
from servicekit.members import RemoteMembers, members_of
from servicekit.nonces import RedisNonces
from servicekit.pipeline import CallPipeline, Gate, Handlers
from servicekit.policy import Policy
from servicekit.postgres import Database, migrate
from servicekit.readiness import Readiness
from servicekit.settings import ServiceSettings
from servicekit.tls import Certificates

log = structlog.get_logger()

SERVER_OPTIONS = [
    # A little more than what is taken, so that a request that is too large is told so by name (servicekit.envelope).
    ("grpc.max_receive_message_length", LARGE_AT_MOST + MIB),
    ("grpc.max_send_message_length", -1),
    # Two processes on one port would share its calls unnoticed.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
]


# Loops end at once when they are cancelled; this is for one that does not.
LOOPS_END_S = 5.0
CANCEL_AGAIN_S = 0.1
# New objects after which the garbage collector looks at them.
GARBAGE_THRESHOLD = 20_000


class Process:
    """What one service is made from. Opened in the composition root, then `serve()`."""

    def __init__(self, name: str, settings: ServiceSettings, stack: AsyncExitStack, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.drain = Drain()
        # Set to end the process; main() ties it to SIGTERM and SIGINT.
        self.told = asyncio.Event()
        # Set when calls are served, on `port`.
        self.serving = asyncio.Event()
        self.port = 0
        self.key_file = KeyFile(settings.service_key_file)
        self.metrics_port = 0
        self.certificates = Certificates(settings)
        self.redis = redis.connect(settings.redis_url.get_secret_value())
        self._stack = stack
        self._tasks: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._registrations: list[tuple[Callable[[Handlers], None], str]] = []
        self.readiness = Readiness()
        # Set by serve().
        self.members: Directory[Member] | None = None
        self.background("key file", self.key_file.run)
        stack.push_async_callback(self.redis.aclose)

    async def database(self, schema: str) -> Database:
        """The service's schema, brought up to date."""
        url = self.settings.postgres_url.get_secret_value()
        applied = await migrate(url, schema, f"services.{self.name}.store.migrations")
        if applied:
            log.info("migrated", schema=schema, migrations=applied)
        database = Database(url, schema, connections=self.settings.postgres_connections)
        await database.open()
        self._stack.push_async_callback(database.close)
        self.readiness.watch(database)
        return database

    def channel(self, address: str, setting: str) -> SigningChannel:
        """A channel to another service, signed with this one's key."""
        if not address:
            msg = f"COLONIES_{setting.upper()} is not set"
            raise StartError(msg)
        if self.certificates.for_channels is None:
            check_plaintext(self.settings, f"COLONIES_{setting.upper()}", address, "COLONIES_TLS_CA_FILE")
        # By the same clock that this process checks its own callers by.
        signer = Signer(self.key_file.key, self.settings.cluster, lambda: self.clock.now_ns() // NS_PER_MS)
        channel = signed_channel(address, self.key_file.signs_for(signer), self.certificates.for_channels)
        self._stack.push_async_callback(channel.close)
        return channel

    def remote_members(self) -> Directory[Member]:
        """Auth's members, kept by this process."""
        members = members_of(RemoteMembers(self.channel(self.settings.auth_address, "auth_address")), self.clock)
        self.background("members", members.run)
        return members

    def background(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Runs a loop while the process serves. A loop that ends by itself is a defect and ends the process."""
        self._tasks.append((name, task))

    def at_end(self, callback: Callable[[], None]) -> None:
        """Calls back when everything is closed."""
        self._stack.callback(callback)

    def add(self, register: Callable[[Any, Any], None], servicer: object, service_name: str) -> None:
        """Serves a servicer under its full service name."""
        self._registrations.append((lambda server: register(servicer, server), service_name))

    async def serve(self, members: Directory[Member]) -> None:
        """Serves until told to end, then drains."""
        self.members = members
        gate = Gate(
            audience=self.settings.cluster,
            clock=self.clock,
            nonces=RedisNonces(self.redis, self.clock),
            members=members,
            principals=frozenset({self.settings.server_owner, *self.settings.service_identities.values()}),
            policy=Policy.load(),
            limits=Limits.of(self.settings),
        )
        server = grpc.aio.server(interceptors=[CallPipeline(gate, self.drain)], options=SERVER_OPTIONS)
        for register, _ in self._registrations:
            register(Handlers(server))
        health_servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        names = [name for _, name in self._registrations]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        self._bind(server)
        await server.start()
        for name in ("", *names):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", listen=self.settings.listen, port=self.port, cluster=self.settings.cluster)
        self.serving.set()

        async def tell_readiness() -> None:
            async for ready in self.readiness.changes():
                status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
                for name in names:
                    await health_servicer.set(name, status)

        self.background("readiness", tell_readiness)
        if self.certificates.files is not None:
            self.background("certificates", self.certificates.watch)
        loops = [asyncio.create_task(_forever(name, task), name=name) for name, task in self._tasks]
        try:
            await self._until_told(loops)
        finally:
            log.info("draining", seconds=self.settings.drain_seconds)
            await health_servicer.enter_graceful_shutdown()
            self.drain.begin()
            await server.stop(self.settings.drain_seconds)
            # Only now: calls in hand may need what the loops do until their end.
            stuck = await _ended(loops)
            log.info("stopped", stuck=[loop.get_name() for loop in stuck])

    def _bind(self, server: grpc.aio.Server) -> None:
        listen, secured = self.settings.listen, self.certificates.for_listeners is not None
        if not secured:
            check_plaintext(self.settings, "COLONIES_LISTEN", listen, "COLONIES_TLS_CERT_FILE")
        try:
            if secured:
                self.port = server.add_secure_port(listen, self.certificates.server_credentials())
            else:
                self.port = server.add_insecure_port(listen)
        except RuntimeError as error:
            msg = f"cannot listen on {listen}: {error}"
            raise StartError(msg) from error
        if self.settings.metrics_listen:
            metrics = serve_metrics(self.settings, self.certificates)
            self.metrics_port = metrics.server_port
            self._stack.callback(metrics.end)

    async def _until_told(self, loops: "list[asyncio.Task[None]]") -> None:
        waiting = asyncio.create_task(self.told.wait())
        try:
            done, _ = await asyncio.wait((waiting, *loops), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None:
                    log.error("a background loop failed: the process ends", loop=task.get_name(), exc_info=error)
                    raise error
        finally:
            waiting.cancel()


async def _settle_garbage(process: Process) -> None:
    """Once calls are served: takes what the start made out of the collector's sight, and lets it look less often.

    A batch makes thousands of objects that die without it, and by default it looks every 700 of them, again and again at all
    modules and descriptors too.
    """
    await process.serving.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


async def _forever(name: str, task: Callable[[], Awaitable[None]]) -> None:
    await task()
    msg = f"the background task {name} ended"
    raise RuntimeError(msg)


async def _ended(loops: "list[asyncio.Task[None]]") -> "set[asyncio.Task[None]]":
    """Cancels loops until they end; returns those that do not, which must not keep the process from ending.

    Again and again, for before Python 3.12 a cancellation that falls together with an answer of Postgres is lost in
    asyncio.wait_for.
    """
    clock = asyncio.get_running_loop()
    until = clock.time() + LOOPS_END_S
    pending = set(loops)
    while pending and clock.time() < until:
        for loop in pending:
            loop.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    return pending


S = TypeVar("S", bound=ServiceSettings)


def main(name: str, settings_type: type[S], compose: Callable[[Process, S], Awaitable[None]]) -> NoReturn:
    """Entry point of a service: reads the settings, composes, serves. Never returns."""

    async def run(settings: S) -> None:
        async with AsyncExitStack() as stack:
            process = Process(name, settings, stack, SystemClock())
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, process.told.set)
            # Here and not in serve(): it is for a process that is nothing else.
            settling = asyncio.create_task(_settle_garbage(process))
            stack.callback(settling.cancel)
            await compose(process, settings)

    start(name, settings_type, run)
