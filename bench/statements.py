"""The scheduler's own hot statements, by name, with parameters such as it gives them.

This is all that the benchmarks know of them: when the scheduler's SQL changes, this changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from bench.calls import noop
from bench.installation import EXECUTOR_TYPE
from colonies.scheduler.v1.spec_pb2 import Value
from services.scheduler.domain.endings import CloseCall, Closing
from services.scheduler.domain.records import (
    Account,
    AttemptRef,
    Claim,
    Claimed,
    ExecutorProfile,
    NewProcess,
    Submission,
)
from services.scheduler.domain.spec import Spec
from services.scheduler.store import assigning, closing, entering
from services.scheduler.store.sql import ASSIGNING, ENDING, ENTERING

# What the tables are made from.
MIGRATIONS = "services.scheduler.store.migrations"
IDENTITY = "0" * 64
NAME = "submitter"
COLONY = "bench"

_SPEC = noop().SerializeToString()
_OUTPUTS = [Value(data=b"4").SerializeToString()]

Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction: statements in order, sent together. A step that is not durable may commit before it is on disk."""

    statements: Sequence[tuple[str, Parameters]]
    durable: bool = True


def enter(ids: Sequence[UUID]) -> Step:
    """Submits processes that are ready at once, as one call does."""
    at = datetime.now(UTC)
    spec = Spec(func_name="noop", executor_type=EXECUTOR_TYPE, body=_SPEC)
    time_ns = int(at.timestamp() * 1e9)
    submission = Submission(
        colony=COLONY,
        request_id=str(uuid4()),
        digest=bytes(32),
        account=Account(IDENTITY, NAME),
        actor=IDENTITY,
        at=at,
        processes=[NewProcess(one, spec, time_ns + order, 0, order) for order, one in enumerate(ids)],
    )
    return Step([(ENTERING["enter"], {**entering.parameters_of([submission]), "at": at})])


def assign(ids: Sequence[UUID]) -> Step:
    """Begins the first attempt of each."""
    executor = ExecutorProfile(IDENTITY, "worker-1", (EXECUTOR_TYPE,), "", "")
    claim = Claim(COLONY, executor, [Claimed(one, 1) for one in ids])
    return Step([(ASSIGNING["assign"], assigning.parameters_of([claim], datetime.now(UTC)))], durable=False)


def close(ids: Sequence[UUID]) -> Step:
    """Closes the first attempt of each as successful, with one small output."""
    call = CloseCall(COLONY, IDENTITY, {AttemptRef(one, 1): Closing(successful=True, outputs=_OUTPUTS) for one in ids})
    return Step([(ENDING["close_successes"], closing.parameters_of([call], datetime.now(UTC)))])
