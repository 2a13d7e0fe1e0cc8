"""The executor as its author sees it."""

import asyncio
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from colonies.client.rotation import KEEP_OLD_MS
from colonies.errors import ColoniesError, ProfileError, RpcError
from colonies.executor.capabilities import offered
from colonies.executor.connection import PatientClient
from colonies.executor.membership import Membership
from colonies.executor.offers import Offer
from colonies.executor.pull import HOWS, MAX_IN_FLIGHT, How
from colonies.executor.state import OnState, States
from colonies.executor.worker import Worker
from colonies.key_rotation import KeyFileRotation, new_path_of
from colonies.keys import PrivateKey
from colonies.labels import Wanted
from colonies.profile import DEFAULT_PORT, active, config_dir
from colonies.registry.v1.registry_service_pb2 import Capabilities
from colonies.tls import Tls

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

log = logging.getLogger("colonies.executor")

Fn = TypeVar("Fn", bound=Callable[..., Any])


class Executor:
    """A program that pulls work from a colony and runs it with its functions.

        executor = Executor("e1", executor_types=["edge", "cloud"])

        @executor.function
        def square(x: int) -> int:
            "Squares a number."
            return x * x

        executor.run()

    A function is called with the arguments of its spec, then the outputs of its parents, then the keyword arguments.
    A tuple that it returns is several outputs (an empty one is none), anything else is one. An exception fails the
    process; one that is a RetryableError, or of a class in `retry_on`, lets it be tried again.
    """

    def __init__(
        self,
        name: str,
        executor_types: Iterable[str] = ("edge",),
        *,
        host: str | None = None,
        port: int | None = None,
        colony: str | None = None,
        key: PrivateKey | str | None = None,
        key_file: str | Path | None = None,
        cluster: str | None = None,
        profile: str | None = None,
        tls: Tls | bool | None = None,
        location: str = "",
        capabilities: Capabilities | Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        accepts: Wanted | None = None,
        concurrency: int = 1,
        drain_timeout: float = 30.0,
        pull: How = "auto",
        on_state: OnState | None = None,
    ) -> None:
        """Nothing is connected yet.

        Args:
            name: unique among the colony's executors.
            executor_types: the types of work that it takes.
            host: where the server is; default from the environment and the active profile, as for the next three.
            port: its port.
            colony: the colony to work for.
            cluster: the server's cluster id.
            key: its own key, a PrivateKey or 64 hex digits; or
            key_file: the file that holds it. Default: a file of its own next to the profiles, made at the first start.
            profile: name of the profile to use.
            tls: with which certificates to reach the server; True for the public ones, False for plaintext. Default: as the
                environment and the profile say.
            location: name of the place where it is.
            capabilities: what it offers; fields given here replace what is found out about this machine.
            labels: more labels that work may ask for, besides os, arch and python.
            accepts: take only work with such labels: {"team": "a", "size": ["s", "m"], "urgent": True} asks for one value,
                for one of several, and for any.
            concurrency: how many functions may run at once.
            drain_timeout: seconds that running functions have to finish after `stop` or the first signal.
            pull: how to ask for work: by "stream", by long "poll", or "auto": by stream where streams get through.
            on_state: called in the event loop with each new state: "joining", "waiting_for_approval", "ready", "reconnecting",
                "draining".

        Raises:
            ValueError: one of these is out of bounds.
            KeyFileError: `key` is not a key.
        """
        self.name = _checked_name(name, "the executor's name")
        if isinstance(executor_types, str):
            msg = f"executor_types must be a list, such as [{executor_types!r}]"
            raise ValueError(msg)  # noqa: TRY004 - one kind of error for all that is wrong here
        self.executor_types = [_checked_name(each, "an executor type") for each in executor_types]
        if not self.executor_types:
            msg = "an executor serves at least one executor type"
            raise ValueError(msg)
        if concurrency < 1:
            msg = f"concurrency is {concurrency}: it must be at least 1"
            raise ValueError(msg)
        if drain_timeout < 0:
            msg = f"drain_timeout is {drain_timeout}: it must not be negative"
            raise ValueError(msg)
        if pull not in HOWS:
            msg = f"pull is {pull!r}: it is one of {', '.join(HOWS)}"
            raise ValueError(msg)
        if pull == "stream" and concurrency > MAX_IN_FLIGHT:
            msg = f"concurrency is {concurrency}: a stream holds at most {MAX_IN_FLIGHT}"
            raise ValueError(msg)
        if key is not None and key_file is not None:
            msg = "give a key or a key_file, not both"
            raise ValueError(msg)
        self._host, self._port, self._colony, self._cluster = host, port, colony, cluster
        self._profile = profile
        self._tls = tls
        self._key = PrivateKey.from_hex(key) if isinstance(key, str) else key
        self._key_file = Path(key_file).expanduser() if key_file is not None else None
        self._location = location
        self._capabilities = offered(concurrency, capabilities, labels, accepts)
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._pull: How = pull
        self._on_state = on_state
        self._offers: dict[str, Offer] = {}
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, Worker] | None = None
        self._stop_wanted = False

    @overload
    def function(self, fn: Fn, /) -> Fn: ...
    @overload
    def function(
        self,
        /,
        *,
        name: str = "",
        description: str = "",
        retry_on: Sequence[type[BaseException]] = (),
    ) -> Callable[[Fn], Fn]: ...
    def function(
        self,
        fn: Fn | None = None,
        /,
        *,
        name: str = "",
        description: str = "",
        retry_on: Sequence[type[BaseException]] = (),
    ) -> Fn | Callable[[Fn], Fn]:
        """Offers a function, as a decorator with or without arguments; the function itself stays as it is.

        Sync functions run in threads, async ones in the event loop. A parameter annotated Context is given one.

        Args:
            fn: the function.
            name: the name to be called by; default its own.
            description: for people; default its docstring.
            retry_on: exception classes after which trying again may help.

        Raises:
            ValueError: the name is taken, or there is none.
        """

        def offer(given: Fn) -> Fn:
            made = Offer.of(given, name=name, description=description, retry_on=retry_on)
            if made.name in self._offers:
                msg = f"this executor has a function {made.name!r} already"
                raise ValueError(msg)
            self._offers[made.name] = made
            return given

        return offer if fn is None else offer(fn)

    def run(self) -> None:
        """Works until SIGTERM, SIGINT (Ctrl-C) or `stop`, then drains: finishes what is in hand and takes nothing new.

        A second signal ends it at once. Without any logging set up, what happens is written to stderr.

        Raises:
            ProfileError: the server, the colony or the cluster id is not known.
            KeyFileError: the key cannot be read.
            FailedPreconditionError: the colony's owner has rejected this executor.
            RpcError: the server refuses what this executor says of itself.
        """
        if not log.hasHandlers():
            logging.basicConfig(format=LOG_FORMAT)
            log.setLevel(logging.INFO)
        try:
            asyncio.run(self._run_with_signals())
        except ColoniesError as error:
            # Its text says what is wrong; how it was come upon is a screenful about the inside of this.
            raise error.with_traceback(None) from None

    async def arun(self) -> None:
        """`run` for programs that have an event loop, and handle signals and logging themselves."""
        loop = asyncio.get_running_loop()
        async with self._connect() as client:
            await self._finish_rotation(client)
            states = States(self._on_state)
            membership = Membership(
                client=client,
                name=self.name,
                executor_types=self.executor_types,
                location=self._location,
                capabilities=self._capabilities,
                functions=[offer.to_message() for offer in self._offers.values()],
                states=states,
            )
            worker = Worker(
                client=client,
                membership=membership,
                offers=self._offers,
                concurrency=self._concurrency,
                drain_timeout=self._drain_timeout,
                how=self._pull,
                states=states,
            )
            with self._lock:
                if self._running is not None:
                    msg = f"executor {self.name} is running already"
                    raise RuntimeError(msg)
                if self._stop_wanted:
                    worker.stop()
                self._running = (loop, worker)
            try:
                await worker.run()
            finally:
                with self._lock:
                    self._running = None
                    self._stop_wanted = False

    async def arotate_key(self, new: PrivateKey | None = None, *, keep_old_ms: int = KEEP_OLD_MS) -> PrivateKey:
        """`rotate_key` for programs that have an event loop, in which `arun` runs."""
        with self._lock:
            if self._running is None:
                msg = f"executor {self.name} is not running"
                raise RuntimeError(msg)
            worker = self._running[1]
        # One at a time: two would write to one file.
        async with worker.rotating:
            return await self._rotate(worker, new, keep_old_ms)

    async def _rotate(self, worker: Worker, new: PrivateKey | None, keep_old_ms: int) -> PrivateKey:
        client = worker.client
        file: KeyFileRotation | None = None
        if new is None:
            path = self._path_of_key(client.colony)
            if path is None:
                msg = "this executor was given its key, so it takes its new one too: rotate_key(new)"
                raise ValueError(msg)
            file = KeyFileRotation(path)
            new = file.new
        await client.rotate_key(new, keep_old_ms=keep_old_ms)
        if file is not None:
            file.finish()
        if self._key is not None:
            self._key = new
        worker.key_changed()
        log.info("executor %s has a new key: %s", self.name, new.identity)
        return new

    def rotate_key(self, new: PrivateKey | None = None, *, keep_old_ms: int = KEEP_OLD_MS) -> PrivateKey:
        """Gives the running executor a new key; for any thread but the event loop's. What it has in hand goes on.

        Args:
            new: the new key, which you have kept; for executors that were given their key. All others make one, and keep it in
                their key file; the old one stays beside it as `<name>.old`.
            keep_old_ms: how long the old key is still good.

        Returns:
            The new key.

        Raises:
            RuntimeError: the executor does not run.
            ValueError: it was given its key, and is not given the new one.
            RpcError: the server refused; the executor goes on with the key that it has.
        """
        with self._lock:
            if self._running is None:
                msg = f"executor {self.name} is not running"
                raise RuntimeError(msg)
            loop = self._running[0]
        return asyncio.run_coroutine_threadsafe(self.arotate_key(new, keep_old_ms=keep_old_ms), loop).result()

    def stop(self) -> None:
        """Begins the drain; `run` returns when it is over. For any thread; before `run` it makes that return at once."""
        with self._lock:
            self._stop_wanted = True
            if self._running is not None:
                loop, worker = self._running
                loop.call_soon_threadsafe(worker.stop)

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self.arun())
        received: list[str] = []

        def on_signal(number: signal.Signals) -> None:
            received.append(number.name)
            if len(received) == 1:
                log.warning("%s: finishing what is in hand; a second signal ends at once", number.name)
                self.stop()
            else:
                log.warning("%s: ending at once", number.name)
                work.cancel()

        handled = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in handled:
            loop.add_signal_handler(number, on_signal, number)
        try:
            await work
        except asyncio.CancelledError:
            if len(received) <= 1:
                raise  # not by the second signal
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _connect(self) -> PatientClient:
        host, port, colony, cluster, tls = self._host, self._port, self._colony, self._cluster, self._tls
        if host is None or colony is None:
            profile = active(self._profile)
            colony = colony or profile.colony
            if host is None:
                host, port, cluster = profile.host, port or profile.port, cluster or profile.cluster or None
                tls = (profile.transport() or False) if tls is None else tls
        if not colony:
            msg = "no colony to work for: pass colony=..., or set COLONIES_COLONY"
            raise ProfileError(msg)
        path = self._path_of_key(colony)
        key = self._key if path is None else PrivateKey.load_or_create(path)
        assert key is not None  # without one there is a path
        return PatientClient(host, port or DEFAULT_PORT, colony, key, cluster, tls=tls)

    async def _finish_rotation(self, client: PatientClient) -> None:
        """Finishes a rotation in the middle of which this executor, or its machine, died."""
        path = self._path_of_key(client.colony)
        if path is None or not new_path_of(path).exists():
            return
        file = KeyFileRotation(path)
        try:
            await client.rotate_key(file.new)
        except RpcError as error:
            log.warning("a rotation of the key was begun and cannot be finished: %s", error)
        else:
            file.finish()

    def _path_of_key(self, colony: str) -> Path | None:
        """Where its key is; None if it was given the key itself."""
        if self._key is not None:
            return None
        return self._key_file or config_dir() / "executors" / colony / f"{self.name}.key"


def _checked_name(name: str, what: str) -> str:
    if not NAME.fullmatch(name):
        msg = f"{what} is {name!r}: it takes 1-128 letters, digits, '.', '_' and '-', the first a letter or a digit"
        raise ValueError(msg)
    return name
