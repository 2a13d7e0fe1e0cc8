"""Twenty thousand processes and two hundred workflows, while something dies, hangs or is cut off every two seconds.

Size and seed are those of the environment: FAULT_PROCESSES, FAULT_WORKFLOWS, FAULT_SECONDS (of chaos), FAULT_SEED. The seed
decides what is submitted, what is done to whom, and when; it is printed.
"""

import asyncio
import json
import os
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.world import until
from tests.fault.accounting import Accounts, Promised, audit, audit_logs, count_open
from tests.fault.chaos import Chaos, plan
from tests.fault.leftovers import leftovers
from tests.fault.order import IN_QUEUE_S, Calendar, out_of_order
from tests.fault.proofs import flaws
from tests.fault.rig import LEASE_MS, Rig, rig
from tests.fault.submitter import Plan

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1_200)]

PROCESSES = int(os.environ.get("FAULT_PROCESSES", "20000"))
WORKFLOWS = int(os.environ.get("FAULT_WORKFLOWS", "200"))
SECONDS = float(os.environ.get("FAULT_SECONDS", "100"))
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
FLUSHES = 2
# One part in so many comes after the chaos: with nothing in the way, it must come out in exact order.
ONE_IN_CALM = 10
SUBMITTED_WITHIN_S = 300.0
DRAINED_WITHIN_S = 300.0
TIDY_WITHIN_S = 2 * LEASE_MS / 1000 + 10


@dataclass(slots=True)
class Story:
    """What happened."""

    rig: Rig
    chaos: Chaos
    logs: list[Path] = field(default_factory=list)
    calm_from: float = 0.0
    calm_open: int = 0
    drained: bool = True

    def plan(self, name: str, *, first: int, processes: int, workflows: int, seconds: float) -> Path:
        """Writes the plan of one submitting process."""
        log = self.rig.root / f"{name}.acks"
        self.logs.append(log)
        path = self.rig.root / f"{name}.plan"
        Plan(
            port=self.rig.ways["client"].port,
            cluster=self.rig.cluster_id,
            key_file=str(self.rig.key_file("user")),
            log=str(log),
            seed=SEED + first,
            first=first,
            processes=processes,
            workflows=workflows,
            seconds=seconds,
        ).save(path)
        return path

    async def submitted(self, plan: Path) -> None:
        """Runs a submitting process to its end: every submit of its plan is acknowledged."""
        process = self.rig.start_submitter(plan)
        try:

            async def over() -> bool:
                return process.poll() is not None

            await until(over, "everything is submitted", seconds=SUBMITTED_WITHIN_S)
            assert process.returncode == 0, (self.rig.root / "submitter.log").read_text()[-4_000:]
        finally:
            process.kill()
            process.wait()


async def tell(running: Rig) -> Story:
    """Submits through the chaos, then in the calm, and waits for the end of all work."""
    story = Story(running, Chaos(running))
    calm = PROCESSES // ONE_IN_CALM
    stormy = story.plan("storm", first=0, processes=PROCESSES - calm, workflows=WORKFLOWS, seconds=SECONDS * 0.8)
    submitting = asyncio.create_task(story.submitted(stormy))
    await story.chaos.run(plan(SEED, SECONDS), FLUSHES)
    # Whatever is to be mended is mended by now, if the promises hold.
    await asyncio.sleep(IN_QUEUE_S + 1.0)
    story.calm_from = time.time()
    await submitting
    url = running.postgres.url()
    story.calm_open = await asyncio.to_thread(count_open, url)
    # Executors as fast as the client would leave no queue, and so no order to get wrong.
    with running.executors_paused():
        await story.submitted(story.plan("calm", first=10**9, processes=calm, workflows=0, seconds=0.0))
    deadline = time.time() + DRAINED_WITHIN_S
    while await asyncio.to_thread(count_open, url):
        if time.time() > deadline:
            story.drained = False
            break
        await asyncio.sleep(0.5)
    return story


async def tidy(running: Rig) -> list[str]:
    """What is left in valkey, once leases had the time to run out."""
    deadline = time.time() + TIDY_WITHIN_S
    while (left := await asyncio.to_thread(leftovers, running.valkey.url())) and time.time() < deadline:
        await asyncio.sleep(0.5)
    return left


def account(story: Story) -> Accounts:
    """The accounting, and the order."""
    accounts = Accounts()
    url = story.rig.postgres.url()
    if not story.drained:
        accounts.blame(f"the work is not done {DRAINED_WITHIN_S:g} s after the chaos", [count_open(url)])
    audit(url, Promised.read(*story.logs), story.rig.effects, story.chaos.crashes, accounts)
    audit_logs(story.rig.data_dir / "logs", accounts)
    # Of use where FAULT_KEEP keeps it: nothing else tells when what was away.
    (story.rig.root / "outages.json").write_text(json.dumps([asdict(one) for one in story.chaos.outages]))
    stranded, unordered = out_of_order(url, story.chaos.outages, story.calm_from)
    accounts.blame(f"a process passed over for more than {IN_QUEUE_S:g} s outside outages", stranded)
    accounts.blame("a process passed over in the calm", unordered)
    return accounts


async def play() -> None:
    begun = time.time()
    async with rig() as running:
        up = time.time()
        story = await tell(running)
        over = time.time()
        left = await tidy(running)
        accounts = await asyncio.to_thread(account, story)
        accounts.blame("a leftover in valkey", left)
        async with running.client() as client:
            found, counts = await flaws(client, running.data_dir / "keys", running.root / "colony.audit")
        accounts.blame("a flaw of the audit file", found)
        accounts.blame(
            "an audit file that lacks processes", [] if counts["processes"] == accounts.facts["processes"] else [counts]
        )
        facts = ", ".join(f"{count} {name}" for name, count in accounts.facts.items())
        away = Calendar(story.chaos.outages).away()
        print(
            f"chaos seed {SEED}: {facts}; {story.chaos.done} faults ({story.chaos.passed_over} passed over), {FLUSHES} flushes, "
            f"{away:.0f} s of outage; {counts['events']} events and {counts['calls']} calls proven; {story.calm_open} open when the calm came; "
            f"{up - begun:.0f} s to start, {over - up:.0f} s of work, {time.time() - begun:.0f} s in all; "
            f"{'all accounted for' if not accounts.wrong else 'NOT ACCOUNTED FOR'}",
            flush=True,
        )
        assert not accounts.wrong, f"seed {SEED}:\n" + "\n".join(accounts.wrong)


def test_chaos() -> None:
    print(f"\nchaos seed {SEED}", flush=True)
    asyncio.run(play())
