"""The accountings of crons and generators find what they are for."""

from collections import Counter

import pytest

from colonies.cron.v1 import cron_service_pb2 as crons
from colonies.cron.v1 import generator_service_pb2 as generators
from tests.fault import batch_accounting, cron_accounting
from tests.fault.accounting import Accounts
from tests.fault.batch_accounting import CHILD, LEADING, ROOTS, Packed
from tests.fault.cron_accounting import SKIPPED, SUBMITTED, Added, Entered, Fire, Submission, delays

UNTIL_MS = 5_500
ALLOW = Added("a", "allow", crons.OVERLAP_POLICY_ALLOW, 500, by_expression=True)
SKIP = Added("s", "skip", crons.OVERLAP_POLICY_SKIP, 500, by_expression=False)
QUEUE = Added("q", "queue", crons.OVERLAP_POLICY_QUEUE_ONE, 500, by_expression=True)
CANCEL = Added("c", "cancel", crons.OVERLAP_POLICY_CANCEL_PREVIOUS, 500, by_expression=True)
ADDED = (ALLOW, SKIP, QUEUE, CANCEL)


def rows(cron: Added, *outcomes: int) -> list[Fire]:
    moments = range(cron.first_ms, cron.first_ms + 1_000 * len(outcomes), 1_000)
    return [
        Fire(cron.cron_id, f"{cron.cron_id}{moment}", moment, outcome, 1, 1, moment + 10)
        for moment, outcome in zip(moments, outcomes, strict=True)
    ]


def waiting(fires: list[Fire]) -> list[Fire]:
    """With what passed while the second waited: told together."""
    return [*fires[:2], fires[2]._replace(moments=4)]


def good() -> cron_accounting.Books:
    fires = [
        *rows(ALLOW, *[SUBMITTED] * 6),
        *rows(SKIP, SUBMITTED, *[SKIPPED] * 5),
        *waiting(rows(QUEUE, SUBMITTED, SKIPPED, SKIPPED)),
        *rows(CANCEL, *[SUBMITTED] * 6),
    ]
    names = {cron.cron_id: cron.name for cron in ADDED}
    going = [fire for fire in fires if fire.outcome == SUBMITTED]
    last = {fire.cron_id: fire.fire_id for fire in going}
    entered = [
        Entered(fire.fire_id, names[fire.cron_id], number, 1, int(fire.cron_id != CANCEL.cron_id or last["c"] == fire.fire_id))
        for number, fire in enumerate(going)
    ]
    submissions = [Submission(f"cron-{fire.fire_id}", fire.fire_id) for fire in going]
    return cron_accounting.Books(fires, entered, submissions)


def blamed(books: cron_accounting.Books) -> str:
    accounts = Accounts()
    cron_accounting.account(ADDED, books, UNTIL_MS, accounts)
    return "\n".join(accounts.wrong)


def test_crons_that_are_right_are_not_blamed() -> None:
    assert (ALLOW.first_ms, SKIP.first_ms) == (1_000, 1_500)
    assert not blamed(good())


def test_a_moment_that_is_missing_or_there_twice() -> None:
    books = good()
    books.fires[2] = books.fires[1]._replace(fire_id="x")
    found = blamed(books)
    assert "a moment that was missed:\n    ('allow', 3000)" in found
    assert "a moment that has fired twice:\n    ('allow', 2000)" in found


def test_a_fire_between_moments_and_one_of_nobody() -> None:
    books = good()
    books.fires[2] = books.fires[2]._replace(due_ms=3_001)
    books.fires.append(Fire("n", "n", 1_000, SKIPPED, 1, 1, 1_000))
    assert "a fire at no moment of its cron:\n    ('allow', 3001)" in blamed(books)
    assert "a fire of no cron:\n    n" in blamed(books)


def test_a_cron_that_stopped_or_never_began() -> None:
    books = good()
    books.fires = [fire for fire in books.fires if fire.cron_id != "q" and (fire.cron_id != "s" or fire.due_ms < 4_000)]
    assert "a cron that has never fired:\n    queue" in blamed(books)
    assert "a cron that has stopped:\n    ('skip', 3500, 5500)" in blamed(books)


def test_moments_that_are_told_together_by_whom_the_policy_does_not_let() -> None:
    books = good()
    books.fires[5] = books.fires[5]._replace(moments=2)
    books.fires[14] = books.fires[14]._replace(moments=3)
    found = blamed(books)
    assert "a fire that did not end as its cron's policy says:\n    ('allow'" in found
    assert "a cron that has stopped:\n    ('queue', 5000, 5500)" in found


@pytest.mark.parametrize("number", range(15))
def test_an_outcome_that_the_policy_does_not_give(number: int) -> None:
    books = good()
    books.fires[number] = books.fires[number]._replace(outcome=crons.FIRE_OUTCOME_MISSED)
    assert "a fire that did not end as its cron's policy says" in blamed(books)


def test_a_workflow_that_is_missing_twice_or_of_nobody() -> None:
    books = good()
    gone = books.entered.pop(1)
    assert "a fire whose workflow is not in the scheduler" in blamed(books)
    books.entered.insert(1, gone._replace(workflow_id="x"))
    assert "a workflow in the scheduler that no fire has submitted" in blamed(books)
    books = good()
    books.submissions.append(books.submissions[0])
    assert "a fire that the scheduler has not taken exactly once" in blamed(books)
    books.submissions[-1] = Submission("cron-x", "x")
    assert "a submit in the scheduler that is of no fire" in blamed(books)


def test_a_workflow_of_another_cron_or_out_of_order() -> None:
    books = good()
    books.entered[0] = books.entered[0]._replace(label="skip")
    assert "a workflow that is not its cron's" in blamed(books)
    books = good()
    books.entered[0] = books.entered[0]._replace(sequence=99)
    assert "a workflow that overtook an earlier one of its cron" in blamed(books)


def test_workflows_that_should_be_open_or_should_not() -> None:
    books = good()
    books.entered[0] = books.entered[0]._replace(waiting=0)
    books.entered[-2] = books.entered[-2]._replace(waiting=1)
    found = blamed(books)
    assert "('allow', 5, 6)" in found
    assert "('cancel', 2, 1)" in found


def test_delays_are_told_apart() -> None:
    lines = delays(ADDED, good(), lambda moment: moment < 3)
    assert lines == [
        "all: 19 fires, p50 10 ms, p90 10 ms, p99 10 ms, max 10 ms",
        "not near a kill: 12 fires, p50 10 ms, p90 10 ms, p99 10 ms, max 10 ms",
        "near a kill: 7 fires, p50 10 ms, p90 10 ms, p99 10 ms, max 10 ms",
    ]


PACKED = [Packed(1, "red", 0, 0), Packed(2, "blue", 1, 0), Packed(3, "red", 0, 1), Packed(4, "red", 1, 1)]


def batch(
    number: int, key: str, first: int, last: int, count: int, reason: generators.BatchReason.ValueType
) -> generators.Batch:
    return generators.Batch(
        number=number, key=key, first_sequence=first, last_sequence=last, count=count, reason=reason, workflow_id=f"w{number}"
    )


BATCHES = [
    batch(3, "red", 4, 4, 1, generators.BATCH_REASON_TIMEOUT),
    batch(2, "blue", 2, 2, 1, generators.BATCH_REASON_TIMEOUT),
    batch(1, "red", 1, 3, 2, generators.BATCH_REASON_COUNT),
]


def whole(*contents: list[list[int]]) -> batch_accounting.Books:
    """Books with these arguments in the roots of the workflows of batch 1, 2, 3."""
    entered = {
        f"w{number}": batch_accounting.Entered(number, {**{root: [*LEADING, *some] for root in ROOTS}, CHILD: []})
        for number, some in enumerate(contents, 1)
    }
    return batch_accounting.Books(entered, Counter(list(entered)), {"bins": 0})


def found_wrong(books: batch_accounting.Books, packed: list[Packed] = PACKED) -> str:
    accounts = Accounts()
    batch_accounting.account(packed, BATCHES, books, 2, accounts)
    return "\n".join(accounts.wrong)


GOOD = ([[0, 0], [0, 1]], [[1, 0]], [[1, 1]])


def test_batches_that_are_right_are_not_blamed() -> None:
    assert not found_wrong(whole(*GOOD))


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        pytest.param(([[0, 1], [0, 0]], [[1, 0]], [[1, 1]]), "not in its sender's order", id="order"),
        pytest.param(([[0, 0]], [[1, 0]], [[1, 1]]), "not in exactly one workflow:\n    ((0, 1), 0)", id="lost"),
        pytest.param(([[0, 0], [0, 1]], [[1, 0]], [[0, 1]]), "not in exactly one workflow:\n    ((0, 1), 2)", id="twice"),
        pytest.param(([[0, 0], [1, 0]], [[0, 1]], [[1, 1]]), "under a key that is not its own", id="key"),
        pytest.param(([[0, 0], [0, 1]], [[1, 0]], [[7, 7]]), "or that nobody was acknowledged", id="nobody's"),
        pytest.param(([[0, 0], [1, 1]], [[1, 0]], [[0, 1]]), "outside its batch's sequence numbers", id="sequence"),
        pytest.param(([[0, 0], [0, 1], [1, 1]], [[1, 0]], []), "a batch of a wrong size", id="size"),
        pytest.param(([[0, 0], [0, 1]], [[1, 0]]), "a batch whose workflow is not in the scheduler", id="workflow"),
        pytest.param((*GOOD, [[9, 9]]), "a workflow in the scheduler that is of no batch", id="strange"),
    ],
)
def test_what_is_wrong_in_a_workflow(contents: tuple[list[list[int]], ...], what: str) -> None:
    assert what in found_wrong(whole(*contents))


def test_what_is_wrong_around_the_workflows() -> None:
    books = whole(*GOOD)
    books.submissions["w1"] = 2
    books.entered["w2"].sequence = 9
    books.entered["w3"].arguments[CHILD] = [[1, 1]]
    books.left["bins"] = 1
    found = found_wrong(books, [PACKED[0]._replace(sequence=2), *PACKED[1:]])
    assert "a workflow that was not submitted exactly once:\n    ('w1', 2)" in found
    assert "a batch that overtook the one before it:\n    3" in found
    assert "a workflow whose nodes have not what they should" in found
    assert "left without a batch or a workflow:\n    ('bins', 1)" in found
    assert "sequence numbers with a gap or a double" in found
