"""Keeps processes alive: starts them in order, starts again what dies, and ends them in reverse order.

One thread per child waits for it and asks it how it is; the thread that called `run` watches over all of them, tells
the front door which replicas there are, and writes the state down.

A child that dies is started again after a pause that doubles from 0.1 s up to 5 s, and is 0.1 s again once it has lived
for 10 s. A child that lives but has not answered for 30 s is killed, and so started again.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessId, log_tail
from deploy.local.server import Child
from deploy.local.service import Service
from deploy.local.state import ProcessStatus

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
SETTLED_SECONDS = 10.0
HUNG_SECONDS = 30.0
UPKEEP_SECONDS = 3600.0
_LOOK_SECONDS = 0.05
_PROBE_STARTING_SECONDS = 0.1
_PROBE_SETTLED_SECONDS = 1.0
# A server that cannot start says why, and trying again changes nothing. A service may lose a race at first.
_SERVER_PATIENCE = 1
_SERVICE_PATIENCE = 4


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to keep alive, in the order it is started."""

    foundations: Sequence[Child]
    front_door: EnvoyFrontDoor
    services: Sequence[Service]
    # What services were told at their start. When it changes (Postgres on another port), they are started anew.
    told: Callable[[], object] = field(default=lambda: None)
    # Done at times while everything runs.
    upkeep: Callable[[], None] = field(default=lambda: None)

    @property
    def children(self) -> list[Child]:
        """All of them."""
        return [*self.foundations, self.front_door, *self.services]


class Keeper:
    """Keeps one child alive, in a thread of its own."""

    def __init__(self, child: Child, stopping: threading.Event) -> None:
        self.child = child
        self.healthy = False
        self.in_service = False
        """Whether it has been healthy since it was last started."""
        self.ever_healthy = False
        self.restarts = 0
        self.failures = 0
        self.problem: StackError | None = None
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name=f"keeper-{child.name}", daemon=True)

    def begin(self) -> None:
        """Starts keeping."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Waits for the thread, which ends once `stopping` is set. It does not end the child."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def status(self) -> ProcessStatus:
        """The child as others are told of it."""
        pid = self.child.pid
        identity = ProcessId.of(pid) if pid is not None else None
        return ProcessStatus(
            name=self.child.name,
            pid=pid,
            alive=identity is not None,
            healthy=self.healthy and identity is not None,
            restarts=self.restarts,
            port=self.child.port,
            began=identity.started if identity else None,
        )

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                self.child.start()
                self._watch()
            except StackError as error:
                self.problem = error
            except Exception as error:  # noqa: BLE001 - a thread that ends here would leave its child dead for good
                self.problem = StackError(f"{self.child.name} could not be started: {error}", log=self.child.log)
            self.healthy = self.in_service = False
            if self._stopping.is_set():
                return
            self.failures += 1
            if time.monotonic() - begun > SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self.restarts += 1

    def _watch(self) -> None:
        """Returns when the child is dead or everything stops."""
        next_probe = answered = time.monotonic()
        while self.child.alive():
            now = time.monotonic()
            if now >= next_probe:
                self.healthy = self.child.healthy()
                now = time.monotonic()
                if self.healthy:
                    self.in_service = self.ever_healthy = True
                    answered = now
                elif self.in_service and now - answered > HUNG_SECONDS:
                    self.child.kill()
                next_probe = now + (_PROBE_SETTLED_SECONDS if self.healthy else _PROBE_STARTING_SECONDS)
            if self._stopping.wait(_LOOK_SECONDS):
                return
        self.problem = StackError(f"{self.child.name} keeps stopping; its log is {self.child.log}", log=self.child.log)


class Supervisor:
    """Runs a plan until told to stop."""

    def __init__(self, plan: StackPlan, stopping: threading.Event, changed: Callable[[str, list[ProcessStatus]], None]) -> None:
        """`changed` is called with the phase and the processes whenever either is different."""
        self._plan = plan
        self._stopping = stopping
        self._changed = changed
        self._keepers: list[Keeper] = []
        self._phase = "starting"
        self._reported: object = None

    def run(self, ready_seconds: float) -> None:
        """Brings everything up, keeps it up until `stopping` is set, and ends it in good order, also on failure.

        Raises:
            StackError: something could not be brought up; says what, with the end of its log.
        """
        deadline = time.monotonic() + ready_seconds
        try:
            # Waiting for a first answer of the front door needs no services, and services need no front door to start.
            servers = self._keep([*self._plan.foundations, self._plan.front_door])
            self._await(servers, _SERVER_PATIENCE, deadline)
            services = self._keep(self._plan.services)
            self._await(services, _SERVICE_PATIENCE, deadline)
            self._await_routes(deadline)
            if not self._stopping.is_set():
                self._phase = "ready"
            told = self._plan.told()
            next_upkeep = time.monotonic() + UPKEEP_SECONDS
            while not self._stopping.wait(_LOOK_SECONDS):
                self._tick()
                if time.monotonic() >= next_upkeep:
                    next_upkeep = time.monotonic() + UPKEEP_SECONDS
                    self._plan.upkeep()
                if told != (now_told := self._plan.told()):
                    told = now_told
                    for service in self._plan.services:
                        service.drain()
        finally:
            self._shut_down()

    def _keep(self, children: Sequence[Child]) -> list[Keeper]:
        keepers = [Keeper(child, self._stopping) for child in children]
        self._keepers += keepers
        for keeper in keepers:
            keeper.begin()
        return keepers

    def _await(self, keepers: Sequence[Keeper], patience: int, deadline: float) -> None:
        while not all(keeper.ever_healthy for keeper in keepers):
            if self._stopping.wait(_LOOK_SECONDS):
                return
            self._tick()
            for keeper in keepers:
                if keeper.problem is not None and keeper.failures >= patience and not keeper.ever_healthy:
                    raise _with_tail(keeper.problem, keeper.child)
            if time.monotonic() > deadline:
                late = next((keeper.child for keeper in keepers if not keeper.ever_healthy), keepers[0].child)
                raise _with_tail(StackError(f"{late.name} is not healthy in time; its log is {late.log}"), late)

    def _await_routes(self, deadline: float) -> None:
        """Waits until the front door has checked the replicas for itself, so that the first call gets through."""
        wanted = {service.service for service in self._plan.services}
        looks = 0
        while not self._stopping.wait(_LOOK_SECONDS):
            self._tick()
            routes = self._plan.front_door.healthy_endpoints()
            looks = looks + 1 if all(routes[service] for service in wanted) else 0
            # Envoy's workers hear of it a moment after its main thread, which is the one that tells.
            if looks > 1:
                return
            if time.monotonic() > deadline:
                msg = f"the front door does not reach every service; its log is {self._plan.front_door.log}"
                raise _with_tail(StackError(msg), self._plan.front_door)

    def _tick(self) -> None:
        try:
            self._publish_endpoints()
        except OSError:
            self._reported = None  # A full disk must not end the supervisor. Tried again at the next look.
        statuses = [keeper.status() for keeper in self._keepers]
        if (self._phase, statuses) != self._reported:
            self._changed(self._phase, statuses)
            self._reported = (self._phase, statuses)

    def _publish_endpoints(self) -> None:
        endpoints: dict[str, list[tuple[str, int]]] = {}
        for keeper in self._keepers:
            child = keeper.child
            # Once in service, a replica stays until it dies: whether it is well at this moment Envoy judges by itself.
            if isinstance(child, Service) and keeper.in_service and child.port is not None:
                endpoints.setdefault(child.service, []).append((LOOPBACK, child.port))
        self._plan.front_door.set_endpoints(endpoints)

    def _shut_down(self) -> None:
        """Services first, all at once, through the front door still open to what they have in hand; Postgres last."""
        self._phase = "stopping"
        self._stopping.set()
        self._tick()
        started = {id(keeper.child) for keeper in self._keepers}
        services = [service for service in self._plan.services if id(service) in started]
        with ThreadPoolExecutor(max_workers=max(1, len(services))) as together:
            list(together.map(lambda service: service.stop(), services))
        for child in [self._plan.front_door, *reversed(self._plan.foundations)]:
            if id(child) in started:
                child.stop()
        for keeper in self._keepers:
            keeper.finish(seconds=5.0)
            # Had it been starting the child just then, the child was born after it was ended.
            keeper.child.stop()
        self._phase = "stopped"
        self._tick()


def _with_tail(problem: StackError, child: Child) -> StackError:
    return StackError(problem.message, log=problem.log or child.log, log_tail=problem.log_tail or log_tail(child.log))
