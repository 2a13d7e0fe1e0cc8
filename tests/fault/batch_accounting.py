"""The accounting of generators: what packers were acknowledged, against the batches and against what the scheduler has."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, LiteralString, NamedTuple

import psycopg

from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import FunctionSpec
from tests.fault.accounting import Accounts

# What a root of the workflow has before its batch.
LEADING = ("first",)
ROOTS = ("left", "right")
CHILD = "after"


class Packed(NamedTuple):
    """An argument that was acknowledged: it names its sender and that sender's count."""

    sequence: int
    key: str
    sender: int
    number: int


@dataclass(slots=True)
class Entered:
    """A workflow in the scheduler: the place of its first process in the order of submits, and the arguments of its nodes."""

    sequence: int
    arguments: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Books:
    """What the scheduler has, and what is left in the cron service's tables."""

    entered: dict[str, Entered]
    submissions: Counter[str]
    left: dict[str, int]

    @classmethod
    def read(cls, url: str) -> "Books":
        """As they are now."""
        entered: dict[str, Entered] = {}
        with psycopg.connect(url, autocommit=True) as connection:
            for workflow_id, sequence, node, spec in connection.execute(WORKFLOWS):
                one = entered.setdefault(workflow_id, Entered(sequence))
                one.arguments[node] = [json.loads(value.data) for value in FunctionSpec.FromString(spec).args]
            submissions = Counter(str(row[0]) for row in connection.execute(SUBMISSIONS))
            left = {name: int(next(iter(connection.execute(query)))[0]) for name, query in LEFT.items()}
        return cls(entered, submissions, left)


WORKFLOWS: LiteralString = """
    SELECT w.id::text, min(p.sequence) OVER (PARTITION BY w.id), p.node_name, p.spec
    FROM scheduler.workflow AS w
    JOIN scheduler.process AS p ON p.workflow_id = w.id"""
SUBMISSIONS: LiteralString = "SELECT workflow_id::text FROM scheduler.submission"
LEFT: Mapping[str, LiteralString] = {
    "arguments": "SELECT count(*) FROM cron.argument",
    "bins": "SELECT count(*) FROM cron.bin",
    "unsubmitted batches": "SELECT count(*) FROM cron.batch WHERE submitted_at IS NULL",
}


def account(packed: Sequence[Packed], batches: Sequence[pb.Batch], books: Books, most: int, accounts: Accounts) -> None:
    """Checks that each acknowledged argument is in exactly one workflow, and where it belongs.

    Args:
        packed: what was acknowledged, with its sequence numbers.
        batches: as ListBatches tells of them; any order.
        most: the trigger's count.
    """
    ordered = sorted(batches, key=lambda batch: batch.number)
    wrong: dict[str, list[Any]] = defaultdict(list)
    for what, case in (*_numbers(packed, ordered), *_between(ordered, books), *_contents(packed, ordered, books, most)):
        wrong[what].append(case)
    wrong["left without a batch or a workflow"] = [one for one in books.left.items() if one[1]]
    for what, cases in wrong.items():
        accounts.blame(what, cases)
    reasons = Counter(pb.BatchReason.Name(batch.reason).removeprefix("BATCH_REASON_").lower() for batch in batches)
    accounts.facts |= {
        "arguments": len(packed),
        "senders": len({one.sender for one in packed}),
        "batches": len(batches),
        **{f"batches by {reason}": number for reason, number in reasons.items()},
        "batches tried more than once": sum(batch.tries > 1 for batch in batches),
        "workflows": len(books.entered),
    }


def _numbers(packed: Sequence[Packed], batches: Sequence[pb.Batch]) -> Iterator[tuple[str, Any]]:
    """Sequence and batch numbers have neither gaps nor doubles."""
    given = sorted(one.sequence for one in packed)
    if given != list(range(1, len(given) + 1)):
        yield "sequence numbers with a gap or a double", (given[:1], given[-1:], len(set(given)), len(given))
    if [batch.number for batch in batches] != list(range(1, len(batches) + 1)):
        yield "batch numbers with a gap or a double", [batch.number for batch in batches][-3:]


def _between(batches: Sequence[pb.Batch], books: Books) -> Iterator[tuple[str, Any]]:
    """One service has what the other has, once, and in the same order."""
    wanted = {batch.workflow_id: batch for batch in batches}
    for missing in wanted.keys() - books.entered.keys():
        yield "a batch whose workflow is not in the scheduler", wanted[missing].number
    for strange in books.entered.keys() - wanted.keys():
        yield "a workflow in the scheduler that is of no batch", strange
    for workflow_id in wanted.keys() | books.submissions.keys():
        if books.submissions[workflow_id] != 1:
            yield "a workflow that was not submitted exactly once", (workflow_id, books.submissions[workflow_id])
    for batch, following in pairwise(one for one in batches if one.workflow_id in books.entered):
        if books.entered[batch.workflow_id].sequence > books.entered[following.workflow_id].sequence:
            yield "a batch that overtook the one before it", following.number


def _contents(packed: Sequence[Packed], batches: Sequence[pb.Batch], books: Books, most: int) -> Iterator[tuple[str, Any]]:
    """Each argument is in one batch, of its key, in its sender's order; each root has the whole batch."""
    homes: Counter[tuple[int, int]] = Counter()
    last: dict[tuple[str, int], int] = {}
    known = {(one.sender, one.number): one for one in packed}
    for batch in batches:
        found = books.entered.get(batch.workflow_id)
        if found is None:
            continue
        roots = [found.arguments.get(root, []) for root in ROOTS]
        arguments = [tuple(one) for one in roots[0][len(LEADING) :]]
        if roots[0] != roots[1] or tuple(roots[0][: len(LEADING)]) != LEADING or found.arguments.get(CHILD) != []:
            yield "a workflow whose nodes have not what they should", (batch.number, found.arguments)
        full = batch.reason == pb.BATCH_REASON_COUNT
        if not 1 <= len(arguments) <= most or len(arguments) != batch.count or (full and len(arguments) != most):
            yield "a batch of a wrong size", (batch.number, len(arguments), batch.count)
        if batch.reason not in {pb.BATCH_REASON_COUNT, pb.BATCH_REASON_TIMEOUT}:
            yield "a batch that nobody asked for", (batch.number, batch.reason)
        for sender, number in arguments:
            homes[sender, number] += 1
            there = known.get((sender, number))
            if there is None or there.key != batch.key:
                yield (
                    "an argument under a key that is not its own, or that nobody was acknowledged",
                    (batch.number, sender, number),
                )
            elif not batch.first_sequence <= there.sequence <= batch.last_sequence:
                yield "an argument outside its batch's sequence numbers", (batch.number, there)
            if number <= last.get((batch.key, sender), -1):
                yield "an argument that is not in its sender's order", (batch.number, sender, number)
            last[batch.key, sender] = number
    for one in known:
        if homes[one] != 1:
            yield "an acknowledged argument that is not in exactly one workflow", (one, homes[one])
