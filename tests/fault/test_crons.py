"""Crons that are due every second, while their replicas die one after the other, and valkey once: none missed, none doubled.

COLONIES_TEST_CRONS (how many), COLONIES_TEST_CRON_SECONDS and COLONIES_TEST_KILL_SECONDS (between two kills) set the size.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

import psycopg
import pytest

from colonies.client import AsyncClient
from colonies.cron.v1 import cron_service_pb2 as pb
from colonies.scheduler.v1.spec_pb2 import Conditions, FunctionSpec, WorkflowSpec
from tests.acceptance.world import until
from tests.fault.accounting import Accounts, audit_logs
from tests.fault.cron_accounting import SUBMITTED, Added, Books, account, delays
from tests.fault.kills import Kills
from tests.fault.rig import COLONY, Rig, rig

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1_800)]

CRONS = int(os.environ.get("COLONIES_TEST_CRONS", "1000"))
SECONDS = float(os.environ.get("COLONIES_TEST_CRON_SECONDS", "40"))
KILL_EVERY_S = float(os.environ.get("COLONIES_TEST_KILL_SECONDS", "10"))
REPLICAS = ("cron", "cron-2", "cron-3")
# One cron in ten of each; all the others allow overlap.
SELDOM = {7: pb.OVERLAP_POLICY_SKIP, 8: pb.OVERLAP_POLICY_QUEUE_ONE, 9: pb.OVERLAP_POLICY_CANCEL_PREVIOUS}
CALLERS = 16
# What a killed replica had in hand is taken up when its lease of five seconds is over.
STRUCK_S = 6.0
CAUGHT_UP_WITHIN_S = 600.0
SAMPLED = 3
NEVER_MISSED_MS = 86_400_000
DAY = pb.FirePolicy(missed=pb.MISSED_POLICY_ALL, missed_at_most=1_000, missed_after_ms=NEVER_MISSED_MS)

Item = TypeVar("Item")
Made = TypeVar("Made")


async def each(items: Sequence[Item], act: Callable[[Item], Awaitable[Made]]) -> list[Made]:
    """Some at a time."""
    room = asyncio.Semaphore(CALLERS)

    async def one(item: Item) -> Made:
        async with room:
            return await act(item)

    return await asyncio.gather(*map(one, items))


async def add(client: AsyncClient, number: int) -> Added:
    """Adds a cron that is due every second."""
    name = f"cron-{number:04}"
    # Half by expression, half by interval, of each policy.
    schedule = pb.Schedule(expression="* * * * * *") if number // 10 % 2 else pb.Schedule(interval_ms=1_000)
    policy = pb.FirePolicy(overlap=SELDOM.get(number % 10, pb.OVERLAP_POLICY_ALLOW))
    policy.MergeFrom(DAY)
    node = FunctionSpec(node_name="tick", func_name="tick", conditions=Conditions(executor_type="nobody"))
    request = pb.AddCronRequest(
        colony_name=COLONY, name=name, schedule=schedule, policy=policy, workflow=WorkflowSpec(label=name, nodes=[node])
    )
    cron = (await client.call(client.cron.AddCron, request)).cron
    return Added(cron.cron_id, name, policy.overlap, cron.created_time.ToMilliseconds(), schedule.HasField("expression"))


def count(url: str, query: Any, *values: object) -> int:
    """One number from the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


BEHIND = "SELECT count(*) FROM cron.cron WHERE overlap <> 3 AND coalesce(last_fire_at < %s, true)"
PENDING = "SELECT count(*) FROM cron.fire WHERE outcome = 1"


async def comes_to_none(running: Rig, what: str, query: str, *values: object) -> None:
    async def none() -> bool:
        return await asyncio.to_thread(count, running.postgres.url(), query, *values) == 0

    await until(none, what, seconds=CAUGHT_UP_WITHIN_S)


async def as_calls_tell(client: AsyncClient, cron: Added, books: Books) -> list[str]:
    """What the RPCs say of a cron otherwise than the tables."""
    found = [fire async for fire in client.list_fires(cron.name)]
    workflows = [one.workflow_id async for one in client.list_workflows(label=cron.name)]
    kept = [fire for fire in books.fires if fire.cron_id == cron.cron_id][::-1]
    submitted = [fire.fire_id for fire in kept if fire.outcome == SUBMITTED]
    now = await client.get_cron(cron.name)
    told = {
        "ListFires": [(one.fire_id, one.due_time.ToMilliseconds(), one.outcome, one.tries) for one in found]
        == [(one.fire_id, one.due_ms, one.outcome, one.tries) for one in kept],
        "the workflows of ListFires": [one.workflow_id for one in found if one.workflow_id] == submitted,
        "ListWorkflows": workflows == submitted,
        "GetCron": (now.runs, now.state, now.HasField("pending"), now.last_workflow_id, now.last_fire_time.ToMilliseconds())
        == (len(submitted), pb.CRON_STATE_PAUSED, False, submitted[0], kept[0].due_ms),
    }
    return [f"{cron.name}: {name}" for name, is_so in told.items() if not is_so]


async def tell(running: Rig, kills: Kills) -> tuple[list[Added], Books, int, list[str]]:
    """Lets crons fire among kills; returns them, the books, the moment up to which all have fired, and what RPCs say otherwise."""
    async with running.client() as client:
        crons = await each(range(CRONS), lambda number: add(client, number))
        await kills.go_on_for(SECONDS)
        until_ms = time.time_ns() // 1_000_000
        await comes_to_none(running, "every cron has fired up to now", BEHIND, psycopg.TimestampFromTicks(until_ms / 1000 - 1))
        behind_s = time.time() - until_ms / 1000
        print(f"\n{CRONS} crons for {SECONDS:g} s; all had fired {behind_s:.1f} s after that", flush=True)
        await each(crons, lambda cron: client.pause_cron(cron.name))
        await comes_to_none(running, "nothing is pending", PENDING)
        books = await asyncio.to_thread(Books.read, running.postgres.url())
        by_policy = groupby(sorted(crons, key=lambda cron: cron.overlap), key=lambda cron: cron.overlap)
        sample = [cron for _, some in by_policy for cron in list(some)[:SAMPLED]]
        otherwise = [line for lines in await each(sample, lambda cron: as_calls_tell(client, cron, books)) for line in lines]
    return crons, books, until_ms - 1_000, otherwise


async def play() -> None:
    async with rig(executors={}, replicas={"cron": len(REPLICAS)}) as running:
        kills = Kills(running, REPLICAS, KILL_EVERY_S, servers=("valkey",))
        crons, books, until_ms, otherwise = await tell(running, kills)
        accounts = Accounts()
        account(crons, books, until_ms, accounts)
        accounts.blame("a call that tells otherwise than the tables", otherwise)
        audit_logs(running.data_dir / "logs", accounts)
        print("; ".join(f"{number} {name}" for name, number in accounts.facts.items()), flush=True)
        print(f"{kills.count('cron')} kills of replicas, {kills.count('valkey')} of valkey; firing delay:", flush=True)
        for line in delays(crons, books, lambda moment: kills.after(moment, STRUCK_S)):
            print(f"  {line}", flush=True)
        assert not accounts.wrong, "\n".join(accounts.wrong)


def test_crons() -> None:
    asyncio.run(play())
