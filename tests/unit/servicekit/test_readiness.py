"""Readiness: lost when Postgres has been silent for seconds, back at its first answer."""

import asyncio

import pytest

from servicekit.failures import Unavailable
from servicekit.readiness import OUT_OF_REACH_S, Readiness

pytestmark = pytest.mark.asyncio


class Server:
    """Answers, or does not, or hangs."""

    def __init__(self) -> None:
        self.answers = 0
        self.asked = 0
        self.up = True
        self.hangs = False

    async def ping(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if not self.up:
            msg = "the database is out of reach"
            raise Unavailable(msg, reason="DATABASE_UNAVAILABLE")
        self.answers += 1


class Stage:
    """A readiness whose clock the test owns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.server = Server()
        self.readiness = Readiness(lambda: self.now)
        self.readiness.watch(self.server)

    async def after(self, seconds: float) -> bool:
        """Whether it is ready after one look then, and after what that look asked for."""
        self.now += seconds
        self.readiness.look()
        for _ in range(3):
            await asyncio.sleep(0)
        return self.readiness.ready


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_server_that_answers_when_asked_keeps_it_ready(stage: Stage) -> None:
    assert all([await stage.after(1.0) for _ in range(20)])
    assert stage.server.asked >= 9


async def test_nobody_is_asked_while_others_have_answers(stage: Stage) -> None:
    for _ in range(20):
        stage.server.answers += 1
        assert await stage.after(1.0)
    assert stage.server.asked == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_it_is_lost_after_seconds_of_silence_and_back_at_the_first_answer(stage: Stage, *, hangs: bool) -> None:
    stage.server.up, stage.server.hangs = False, hangs
    states = [await stage.after(1.0) for _ in range(10)]
    assert states == [True] * (int(OUT_OF_REACH_S) - 1) + [False] * (11 - int(OUT_OF_REACH_S))
    # One that hangs is not asked again and again.
    assert (stage.server.asked == 1) is hangs
    stage.server.up, stage.server.hangs = True, False
    stage.server.answers += 1
    assert await stage.after(1.0)


async def test_a_process_that_stood_still_itself_is_ready(stage: Stage) -> None:
    assert await stage.after(1.0)
    assert await stage.after(3_600.0)


async def test_changes_tell_only_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.readiness.LOOK_S", 0.0)
    looks = iter([False, True, False, True])
    readiness = Readiness()
    states = iter([False, True])

    def look() -> bool:
        changed = next(looks)
        if changed:
            readiness.ready = next(states)
        return changed

    monkeypatch.setattr(readiness, "look", look)
    changes = readiness.changes()
    assert [await anext(changes), await anext(changes)] == [False, True]
    await changes.aclose()  # type: ignore[attr-defined]  # it is a generator
