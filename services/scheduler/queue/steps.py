"""What one call of settle.lua is to do, gathered and spelled as its arguments."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from servicekit.clock import unix_ms
from services.scheduler.domain.ports import Timer
from services.scheduler.domain.records import Live, Place
from services.scheduler.queue import keys
from services.scheduler.queue.serving import use_of


def timer_ms(moment: datetime) -> int:
    """A deadline for a timer: rounded up, so that a timer never fires before its deadline."""
    return unix_ms(moment) + 1


class Steps:
    """Steps of one colony. Those that take away go first, in the order of settle.lua's table."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._finish: list[str | int] = []
        self._disarm: list[str] = []
        self._arm: list[str | int] = []
        self._keep: list[str | int] = []
        self._offer: list[str | int] = []
        self._confirm: list[str | int] = []
        self._lease: list[str | int] = []
        self._release: list[str | int] = []
        self._hold: list[str | int] = []
        self._withdraw: dict[str, list[str]] = defaultdict(list)
        self._ready: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.news: list[str] = []
        # Whoever follows all of the colony is told, also where none of these is.
        self.has_changed = False

    def disarm(self, timer: str) -> None:
        """Forgets a timer."""
        self._disarm.append(timer)

    def disarm_wait(self, process_id: UUID, deadline: datetime | None) -> None:
        """It does not wait any more."""
        if deadline is not None:
            self._disarm.append(keys.wait_timer(process_id, unix_ms(deadline)))

    def offer(self, live: Live, until_ms: int) -> None:
        """Its attempt is on offer and on its executor's load, unless the queue knows of it already; its time limit begins."""
        self._offer += (keys.attempt_of(live.id, live.attempt, live.executor_id), until_ms)
        self._limit(live)
        self.hold(live)

    def lease(self, live: Live, until_ms: int) -> None:
        """Its executor holds its attempt."""
        self._lease += (keys.attempt_of(live.id, live.attempt, live.executor_id), until_ms)
        self._limit(live)
        self.hold(live)

    def _limit(self, live: Live) -> None:
        if (deadline := live.exec_deadline) is not None:
            self._keep += (timer_ms(deadline), keys.exec_timer(live.id, live.attempt))

    def confirm(self, live: Live, until_ms: int) -> None:
        """The attempt that was claimed for it is recorded."""
        deadline = live.exec_deadline
        limit: tuple[str | int, str] = ("", "")
        if deadline is not None:
            limit = (timer_ms(deadline), keys.exec_timer(live.id, live.attempt))
        self._confirm += (keys.attempt_of(live.id, live.attempt, live.executor_id), until_ms, *limit)

    def hold(self, live: Live) -> None:
        """Its attempt is on its executor's load."""
        self._hold += (str(live.id), live.attempt, live.executor_id, use_of(live.needs))

    def release(self, process_id: UUID, number: int, executor_id: str, *, announce: bool) -> None:
        """An attempt is over. `announce`: should its executor have been short of room, other replicas are told."""
        self._disarm += (
            keys.lease_timer(process_id, number, executor_id),
            keys.offer_timer(process_id, number, executor_id),
            keys.exec_timer(process_id, number),
        )
        self._release += (str(process_id), number, executor_id, int(announce))

    def finish(self, timer: Timer, executor_id: str, *, announce: bool) -> None:
        """A timer was taken care of; with an executor, its attempt is over, or never began."""
        self._finish += (str(timer.again_ms), timer.member, str(timer.process_id), timer.attempt, executor_id, int(announce))

    def withdraw(self, place: Place) -> None:
        """Does not belong into the queue any more."""
        self._withdraw[keys.lane(place)].append(keys.member(place)[1])
        self.disarm_wait(place.id, place.wait_deadline)
        if place.not_before is not None:
            self._disarm.append(keys.ready_timer(place.id, unix_ms(place.not_before)))

    def enqueue(self, places: Sequence[Place]) -> None:
        """Belong into their lanes, or will when their back-off is over."""
        for place in places:
            if place.wait_deadline is not None:
                deadline = place.wait_deadline
                self._arm += (timer_ms(deadline), keys.wait_timer(place.id, unix_ms(deadline)))
            if place.not_before is not None and (at := timer_ms(place.not_before)) > self._now_ms:
                self._arm += (at, keys.ready_timer(place.id, unix_ms(place.not_before)))
            else:
                self._ready[keys.lane(place)].append(keys.member(place))

    @property
    def has_news(self) -> bool:
        """Somebody may follow what changed."""
        return self.has_changed or bool(self.news)

    def lanes(self) -> list[tuple[str, int]]:
        """The lanes that may grow, and by how many at most."""
        return [(lane, len(members)) for lane, members in self._ready.items()]

    def arguments(self, absorbed: Sequence[int]) -> list[str | int]:
        """For settle.lua. `absorbed` says for each of `lanes` how many processes waiters of this replica take."""
        found: list[str | int] = []
        plain = (
            ("finish", self._finish),
            ("disarm", self._disarm),
            ("release", self._release),
            ("offer", self._offer),
            ("confirm", self._confirm),
            ("lease", self._lease),
            ("keep", self._keep),
            ("hold", self._hold),
            ("arm", self._arm),
        )
        for name, items in plain:
            if items:
                found += (name, len(items))
                found += items
        for lane, members in self._withdraw.items():
            names = keys.indexes(lane)
            found += ("withdraw", 2 + len(names) + len(members), lane, len(names), *names, *members)
        for (lane, ranked), taken in zip(self._ready.items(), absorbed, strict=True):
            ranked.sort()
            names = keys.indexes(lane)
            found += ("ready", 3 + len(names) + 2 * len(ranked), lane, taken, len(names), *names)
            for pair in ranked:
                found += pair
        if self.has_news:
            found += ("news", len(self.news))
            found += self.news
        return found
