"""What is packed, on a real Postgres and a real Redis: once for each request, within bounds, and submitted when it is full."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from servicekit.failures import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Violation,
)
from services.cron.domain.generator import Room
from services.cron.domain.packing import Reason
from tests.cron.fakes import OWNER
from tests.generators.replica import (
    GeneratorReplica,
    arguments,
    caller,
    pack,
    rows,
)

pytestmark = pytest.mark.asyncio

OTHER = "0b" * 32


async def test_a_full_batch_is_submitted_with_its_arguments_and_ids_of_its_own(replica: GeneratorReplica) -> None:
    generator = await replica.add(max_count=3)
    assert await replica.pack("1", "a", "b") == 1
    await replica.work()
    assert not replica.scheduler.launches
    assert await replica.pack("2", "c", "d", "e", "f", "g") == 3
    await replica.work()
    assert replica.submitted() == [["a", "b", "c"], ["d", "e", "f"]]
    assert replica.scheduler.calls == [2]
    batches = await replica.batches()
    assert [(each.number, each.first, each.last, each.reason) for each in batches] == [
        (1, 1, 3, Reason.COUNT),
        (2, 4, 6, Reason.COUNT),
    ]
    assert replica.scheduler.workflow_ids == [each.workflow_id for each in batches]
    assert list(replica.scheduler.entered) == [(OWNER, f"generator-{generator.generator_id}-{n}") for n in (1, 2)]
    found = await replica.found()
    assert (found.waiting, found.unsubmitted, found.submitted, found.last_workflow_id) == (
        1, 0, 2, str(batches[1].workflow_id),
    )  # fmt: skip
    assert await rows(replica.database, "argument") == 1


async def test_a_repeated_pack_gets_the_first_answer_and_adds_nothing(replica: GeneratorReplica) -> None:
    await replica.add()
    assert await replica.pack("1", "a", "b") == 1
    assert await replica.pack("2", "c") == 3
    assert await replica.pack("1", "a", "b") == 1
    # Also long after its arguments have gone.
    await replica.work()
    assert await replica.pack("1", "a", "b") == 1
    # Another sender's request of that name is another.
    assert await replica.pack("1", "a", "b", sender=OTHER) == 4
    assert (await replica.found()).waiting == 2
    assert replica.submitted() == [["a", "b", "c"]]


async def test_a_request_id_is_for_one_content(replica: GeneratorReplica) -> None:
    await replica.add()
    await replica.pack("1", "a", "b")
    for other in (arguments("a"), arguments("a", "b", key="k"), arguments("b", "a"), arguments("ab")):
        with pytest.raises(AlreadyExists):
            await replica.generators.pack(pack("1", *other))
    assert (await replica.found()).waiting == 2


async def test_one_request_twice_at_once_is_added_once(replica: GeneratorReplica) -> None:
    await replica.add(max_count=100)
    firsts = await asyncio.gather(*(replica.pack("1", "a", "b") for _ in range(10)), replica.pack("2", "c"))
    assert len(set(firsts[:10])) == 1
    assert (await replica.found()).waiting == 3


async def test_packs_of_many_generators_are_written_together(replica: GeneratorReplica) -> None:
    names = [f"g{index}" for index in range(8)]
    for name in names:
        await replica.add(name, max_count=4)
    outcomes = await asyncio.gather(
        *(replica.pack(f"{name}-{call}", f"{name}:{call}", name=name) for call in range(10) for name in names),
        replica.pack("x", "x", name="nobody"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[-1], NotFound)
    assert sorted(outcomes[:-1]) == sorted(list(range(1, 11)) * 8)  # type: ignore[type-var]
    assert replica.generators._packing.batches < 20
    await replica.work()
    for name in names:
        found = await replica.found(name)
        assert (found.waiting, found.submitted) == (2, 2)
    assert all(len({text[:2] for text in batch}) == 1 for batch in replica.submitted())


async def test_keys_never_share_a_batch(replica: GeneratorReplica) -> None:
    await replica.add(max_count=2)
    mixed = [each for text in "123" for key in ("a", "b", "") for each in arguments(f"{key}{text}", key=key)]
    await replica.generators.pack(pack("1", *mixed))
    await replica.work()
    assert replica.submitted() == [["a1", "a2"], ["b1", "b2"], ["1", "2"]]
    generator = await replica.found()
    _, bins, more = await replica.generators.bins("dev", "g", after=None, limit=2)
    assert ([bin_.key for bin_ in bins], more, generator.bins) == (["", "a"], True, 3)
    _, bins, more = await replica.generators.bins("dev", "g", after="a", limit=2)
    assert ([(bin_.key, bin_.count, bin_.first) for bin_ in bins], more) == ([("b", 1, 8)], False)


async def test_an_argument_larger_than_a_batch_is_refused_and_nothing_is_taken(replica: GeneratorReplica) -> None:
    await replica.add(max_bytes=10)
    too_large = [*arguments("a"), *arguments("b", size=11)]
    with pytest.raises(InvalidArgument) as caught:
        await replica.generators.pack(pack("1", *too_large))
    assert caught.value.violations == (Violation("arguments[1].value", "must be at most 10 bytes, the generator's; it has 11"),)
    assert (await replica.found()).waiting == 0
    assert await replica.pack("1", "a") == 1


@pytest.mark.parametrize(
    ("room", "fits", "too_much"),
    [
        (Room(5, 1_000, 50), arguments("a", "b", "c"), arguments("d", "e", "f")),
        (Room(50, 100, 50), arguments("a", size=60), arguments("b", size=41)),
        (Room(50, 100, 2), [*arguments("a", key="1"), *arguments("b", key="2")], arguments("c", key="3")),
    ],
)
async def test_what_waits_is_bounded(
    new: Callable[..., GeneratorReplica], room: Room, fits: list[Any], too_much: list[Any]
) -> None:
    replica = new(room=room)
    await replica.add(max_count=100)
    await replica.generators.pack(pack("1", *fits))
    before = await replica.found()
    with pytest.raises(ResourceExhausted) as caught:
        await replica.generators.pack(pack("2", *too_much))
    assert (caught.value.reason, caught.value.retry_delay_s > 0) == ("GENERATOR_FULL", True)
    assert await replica.found() == before
    # What was taken before is still answered.
    assert await replica.generators.pack(pack("1", *fits)) == 1
    await replica.generators.flush(caller(), "g", None)
    # Of arguments and bytes, batches that are not submitted take room too.
    if room.keys > 2:
        with pytest.raises(ResourceExhausted):
            await replica.generators.pack(pack("2", *too_much))
    await replica.work()
    assert await replica.generators.pack(pack("2", *too_much)) == len(fits) + 1
