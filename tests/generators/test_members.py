"""What members may do with generators, and what they see."""

import pytest

from servicekit.failures import (
    AlreadyExists,
    NotFound,
    PermissionDenied,
)
from tests.generators.replica import (
    GeneratorReplica,
    caller,
)

pytestmark = pytest.mark.asyncio

OTHER = "0b" * 32


async def test_adding_again_changes_nothing_and_another_of_its_name_is_refused(replica: GeneratorReplica) -> None:
    added = await replica.add(max_count=3)
    assert await replica.add(max_count=3) == added
    with pytest.raises(AlreadyExists):
        await replica.add(max_count=4)
    assert (await replica.add(max_count=4, colony="other")).generator_id != added.generator_id


async def test_only_its_initiator_and_the_owner_may_change_it(replica: GeneratorReplica) -> None:
    await replica.add(max_count=3)
    await replica.pack("1", "a", sender=OTHER)
    stranger, generators = caller(OTHER), replica.generators
    for call in (
        generators.flush(stranger, "g", None),
        generators.drop(stranger, "g", None),
        generators.pause(stranger, "g"),
        generators.resume(stranger, "g"),
        generators.remove(stranger, "g", force=True),
    ):
        with pytest.raises(PermissionDenied):
            await call
    found = await replica.found()
    assert (found.waiting, found.paused) == (1, False)
    await generators.remove(caller(OTHER, owns_all=True), "g", force=True)


async def test_what_is_not_there_is_not_found(replica: GeneratorReplica) -> None:
    generators = replica.generators
    await replica.add(colony="other")
    for call in (
        generators.get("dev", "g"),
        generators.bins("dev", "g", after=None, limit=1),
        generators.batches("dev", "g", before=1, limit=1, unsubmitted=False),
        generators.flush(caller(), "g", None),
        generators.drop(caller(), "g", None),
        generators.pause(caller(), "g"),
        generators.resume(caller(), "g"),
        generators.remove(caller(), "g", force=True),
        replica.pack("1", "a"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_lists_go_on_where_the_page_before_ended(replica: GeneratorReplica) -> None:
    for name in ("c", "a", "b"):
        await replica.add(name, max_count=1)
    first, more = await replica.generators.page("dev", after="", limit=2)
    assert ([each.name for each in first], more) == (["a", "b"], True)
    assert {each.launchable.workflow for each in first} == {b""}
    last, more = await replica.generators.page("dev", after="b", limit=2)
    assert ([each.name for each in last], more) == (["c"], False)
    await replica.pack("1", *"xyz", name="a")
    batches, more = await replica.generators.batches("dev", "a", before=3, limit=1, unsubmitted=True)
    assert ([each.number for each in batches], more) == ([2], True)
    await replica.work()
    assert await replica.generators.batches("dev", "a", before=9, limit=9, unsubmitted=True) == ([], False)
