"""Group commit: what gathers, in which order it goes out, and whom a failure reaches."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import structlog

from servicekit.batching import GroupCommit
from servicekit.failures import NotFound, Unavailable

pytestmark = pytest.mark.asyncio


class Line:
    """A `run` that notes its batches and ends each when the test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.doors: asyncio.Queue[None] = asyncio.Queue()
        self.open = True
        self.outcome: Callable[[list[int]], list[int | Exception]] = lambda items: [item * 10 for item in items]

    async def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if not self.open:
            await self.doors.get()
        self.at_once -= 1
        return self.outcome(items)

    async def settled(self) -> None:
        """Lets everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Line]:
    """What the groups of a test write to."""
    yield Line()


async def test_the_first_goes_at_once_and_the_rest_gathers(line: Line) -> None:
    line.open = False
    group = GroupCommit(line)
    first = asyncio.create_task(group.do(1))
    await line.settled()
    assert line.batches == [[1]], "nobody waits for company"
    rest = [asyncio.create_task(group.do(number)) for number in range(2, 7)]
    await line.settled()
    assert line.batches == [[1]]
    assert group.gathered == 5
    line.doors.put_nowait(None)
    line.doors.put_nowait(None)
    assert await first == 10
    assert await asyncio.gather(*rest) == [20, 30, 40, 50, 60]
    assert line.batches == [[1], [2, 3, 4, 5, 6]]


async def test_calls_of_one_moment_share_the_first_batch(line: Line) -> None:
    group = GroupCommit(line)
    assert await asyncio.gather(*map(group.do, range(5))) == [0, 10, 20, 30, 40]
    assert line.batches == [[0, 1, 2, 3, 4]]


async def test_weights_bound_a_batch_and_nothing_overtakes(line: Line) -> None:
    group = GroupCommit(line, max_weight=10)
    weights = [4, 4, 4, 25, 1, 9, 1]
    await asyncio.gather(*(group.do(index, weight) for index, weight in enumerate(weights)))
    assert line.batches == [[0, 1], [2], [3], [4, 5], [6]]


async def test_no_more_workers_than_told(line: Line) -> None:
    line.open = False
    group = GroupCommit(line, max_weight=1, workers=2)
    tasks = [asyncio.create_task(group.do(number)) for number in range(6)]
    await line.settled()
    assert line.batches == [[0], [1]]
    for _ in tasks:
        line.doors.put_nowait(None)
    await asyncio.gather(*tasks)
    assert line.batches == [[number] for number in range(6)]
    assert line.most_at_once == 2


async def test_an_item_that_comes_as_the_worker_ends_is_not_left_behind(line: Line) -> None:
    group = GroupCommit(line)

    async def one_after_another(number: int) -> None:
        for _ in range(50):
            assert await group.do(number) == number * 10

    async with asyncio.timeout(10):
        await asyncio.gather(*map(one_after_another, range(7)))
    assert sum(map(len, line.batches)) == 350


async def test_an_outcome_that_is_an_exception_is_that_items_own(line: Line) -> None:
    gone = NotFound("no such thing", reason="NOT_THERE")
    line.outcome = lambda items: [gone if item == 2 else item for item in items]
    answers = await asyncio.gather(*map(GroupCommit(line).do, range(4)), return_exceptions=True)
    assert answers == [0, 1, gone, 3]
    assert len(line.batches) == 1


async def test_unavailable_reaches_every_item_of_the_batch_and_no_other(line: Line) -> None:
    def outcome(items: list[int]) -> list[int | Exception]:
        if 1 in items:
            raise Unavailable("away", reason="DATABASE_UNAVAILABLE", metadata={"a": "b"}, retry_delay_s=2)
        return list(items)

    line.outcome = outcome
    group = GroupCommit(line, max_weight=3)
    answers = await asyncio.gather(*map(group.do, range(5)), return_exceptions=True)
    assert answers[3:] == [3, 4]
    refused = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert [(one.reason, one.metadata, one.retry_delay_s) for one in refused] == [("DATABASE_UNAVAILABLE", {"a": "b"}, 2)] * 3
    assert len(set(map(id, refused))) == 3
    assert line.batches == [[0, 1, 2], [3, 4]], "nothing is tried again: it may have been done"


async def test_a_poisonous_item_fails_only_itself(line: Line) -> None:
    def outcome(items: list[int]) -> list[int | Exception]:
        if 2 in items:
            raise ValueError(2)
        return list(items)

    line.outcome = outcome
    answers = await asyncio.gather(*map(GroupCommit(line).do, range(4)), return_exceptions=True)
    assert isinstance(answers[2], ValueError)
    assert [answers[0], answers[1], answers[3]] == [0, 1, 3]
    assert line.batches == [[0, 1, 2, 3], [0], [1], [2], [3]]


async def test_an_outage_while_items_run_alone_is_not_waited_for_again_and_again(line: Line) -> None:
    def outcome(items: list[int]) -> list[int | Exception]:
        if len(items) > 1:
            raise ValueError
        if items == [1]:
            raise Unavailable("away", reason="DATABASE_UNAVAILABLE")
        return list(items)

    line.outcome = outcome
    answers = await asyncio.gather(*map(GroupCommit(line).do, range(4)), return_exceptions=True)
    assert answers[0] == 0
    assert all(isinstance(answer, Unavailable) for answer in answers[1:])
    assert line.batches == [[0, 1, 2, 3], [0], [1]]


async def test_too_few_outcomes_are_a_defect_and_nothing_runs_twice(line: Line) -> None:
    line.outcome = lambda items: []
    answers = await asyncio.gather(*map(GroupCommit(line).do, range(2)), return_exceptions=True)
    assert all(isinstance(answer, RuntimeError) for answer in answers)
    assert line.batches == [[0, 1]]


async def test_a_cancelled_callers_item_is_run_and_nobody_else_notices(line: Line) -> None:
    line.open = False
    group = GroupCommit(line)
    tasks = [asyncio.create_task(group.do(number)) for number in range(2)]
    await line.settled()
    tasks += [asyncio.create_task(group.do(number)) for number in range(2, 5)]
    await line.settled()
    tasks[0].cancel()  # in the batch that runs
    tasks[3].cancel()  # in the one that gathers
    await line.settled()
    line.doors.put_nowait(None)
    line.doors.put_nowait(None)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[1], answers[2], answers[4]] == [10, 20, 40]
    assert all(isinstance(answers[gone], asyncio.CancelledError) for gone in (0, 3))
    assert line.batches == [[0, 1], [2, 3, 4]]


async def test_a_failure_after_the_caller_has_gone_is_logged(line: Line) -> None:
    line.open = False

    def outcome(items: list[int]) -> list[int | Exception]:
        raise ValueError("nobody hears this")

    line.outcome = outcome
    group = GroupCommit(line)
    task = asyncio.create_task(group.do(1))
    await line.settled()
    task.cancel()
    line.doors.put_nowait(None)
    with structlog.testing.capture_logs() as logs:
        await group.close()
    assert [entry["error"] for entry in logs] == ["nobody hears this"]


async def test_close_drains_and_takes_nothing_more(line: Line) -> None:
    line.open = False
    group = GroupCommit(line, max_weight=1)
    tasks = [asyncio.create_task(group.do(number)) for number in range(3)]
    await line.settled()
    closing = asyncio.create_task(group.close())
    await line.settled()
    with pytest.raises(Unavailable, match="shutting down"):
        await group.do(9)
    assert not closing.done()
    for _ in tasks:
        line.doors.put_nowait(None)
    await closing
    assert await asyncio.gather(*tasks) == [0, 10, 20]
    assert line.batches == [[0], [1], [2]]


async def test_a_batch_runs_outside_its_callers_context(line: Line) -> None:
    seen = []
    with structlog.contextvars.bound_contextvars(service="mine"):
        group = GroupCommit(line)

    def outcome(items: list[int]) -> list[int | Exception]:
        seen.append(structlog.contextvars.get_contextvars())
        return list(items)

    line.outcome = outcome
    with structlog.contextvars.bound_contextvars(request_id="a caller's"):
        await group.do(1)
    assert seen == [{"service": "mine"}]
