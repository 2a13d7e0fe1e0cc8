"""One workflow run by executors in every language, two of each, of which one is killed (-9) with work in hand."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from colonies.keys import PrivateKey
from colonies.scheduler.v1 import process_pb2
from colonies.scheduler.v1.spec_pb2 import WorkflowSpec
from colonies.values import decode_all
from tests.acceptance.ledger import Account, check_process
from tests.conformance.kit.driver import Driver
from tests.conformance.kit.languages import ORDER, TITLES, Language, languages
from tests.conformance.kit.stage import Colony, Stage, stage
from tests.fault.mixed_workflow import Node, mixed_workflow

pytestmark = [pytest.mark.fault, pytest.mark.asyncio, pytest.mark.timeout(1200)]

SECONDS = 120.0
CONCURRENCY = 2
# What an attempt comes to that was its executor's when that was killed.
CUT_SHORT = {process_pb2.ATTEMPT_OUTCOME_LOST, process_pb2.ATTEMPT_OUTCOME_UNDELIVERED}


@dataclass(slots=True)
class Worker:
    """A driver with one executor."""

    name: str
    driver: Driver
    killed: bool = False

    async def started(self) -> str:
        """The token of the next function that holds here."""
        return str((await self.driver.event({"event": "started"}, {}))["token"])

    async def kill(self) -> None:
        """kill -9 of the driver and all that it has started: a browser, too."""
        self.killed = True
        await self.driver.kill()


async def start_worker(on: Stage, colony: Colony, language: Language, number: int) -> Worker:
    """An executor of that language, approved and ready; its type is its language."""
    key = PrivateKey.generate()
    name = f"{language.name}-{number}"
    async with on.client(colony.name, key) as client:
        await client.register_executor(name, [language.name])
    await colony.owner.approve_executor(key.identity)
    driver = Driver(language, on.root / f"{name}.log")
    await driver.start()
    address = f"127.0.0.1:{on.port}"
    commands: tuple[dict[str, object], ...] = (
        {"do": "connect", "address": address, "cluster": on.cluster, "colony": colony.name, "seed": key.hex},
        {"do": "start_executor", "executor": "e", "name": name, "types": [language.name], "concurrency": CONCURRENCY},
    )
    async with asyncio.timeout(SECONDS):
        for command in commands:
            answer = await driver.tell(command)
            assert "result" in answer, answer
        await driver.event({"event": "state", "state": "ready"}, {})
    return Worker(name, driver)


async def kill_one(pair: Sequence[Worker]) -> None:
    """Kills whoever of the two begins the function that holds; the other one gets it in its place, and is let finish it."""
    async with asyncio.timeout(SECONDS):
        waiting = {asyncio.create_task(worker.started()): worker for worker in pair}
        done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        (first,) = done
        victim = waiting[first]
        await victim.kill()
        (survivor,) = (worker for worker in pair if worker is not victim)
        token = await survivor.started()
        assert token == first.result()
        answer = await survivor.driver.tell({"do": "release", "executor": "e", "token": token})
        assert "result" in answer, answer


def check_effects(workers: Mapping[str, Worker], accounts: Mapping[str, Account], nodes: Sequence[Node]) -> None:
    """Every call of a function that told of itself was an attempt of that executor, made once; and one that was made again had
    been cut short by a kill.
    """
    calls = Counter(
        (event["process_id"], event["attempt"], name)
        for name, worker in workers.items()
        for event in worker.driver.history
        if event["event"] in {"effect", "started"}
    )
    assert max(calls.values()) == 1
    told = {node.name for node in nodes if node.function in {"effect", "hold"}}
    for name, account in accounts.items():
        process_id = account.process.process_id
        called = {(attempt, worker) for process, attempt, worker in calls if process == process_id}
        recorded = {(attempt.number, attempt.executor_name): attempt for attempt in account.attempts}
        assert called <= recorded.keys(), (name, called, account)
        for attempt in account.attempts:
            if attempt.outcome == process_pb2.ATTEMPT_OUTCOME_SUCCESSFUL:
                assert name not in told or (attempt.number, attempt.executor_name) in called, (name, account)
            else:
                assert attempt.outcome in CUT_SHORT, (name, account)
                assert workers[attempt.executor_name].killed, (name, account)


def report(pairs: Mapping[str, Sequence[Worker]], accounts: Mapping[str, Account], nodes: Sequence[Node]) -> str:
    """A table: language, executors, processes, attempts, and how many of these were cut short by the kill."""
    language_of = {worker.name: language for language, pair in pairs.items() for worker in pair}
    processes = Counter(node.language for node in nodes)
    attempts: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for account in accounts.values():
        for attempt in account.attempts:
            attempts[language_of[attempt.executor_name]] += 1
            cut[language_of[attempt.executor_name]] += attempt.outcome in CUT_SHORT
    lines = [f"{'':10}{'executors':>10}{'killed':>8}{'processes':>11}{'attempts':>10}{'cut short':>11}"]
    for language, pair in pairs.items():
        killed = sum(worker.killed for worker in pair)
        counts = f"{processes[language]:>11}{attempts[language]:>10}{cut[language]:>11}"
        lines.append(f"{TITLES.get(language, language):10}{len(pair):>10}{killed:>8}{counts}")
    return "\n".join(lines)


async def test_one_workflow_in_every_language() -> None:
    there = languages()
    assert {language.name for language in there} >= set(ORDER)
    for language in there:
        assert await language.build() == "", language.title
    nodes = mixed_workflow([language.name for language in there], seed=1)
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(stage())
        colony = await opened.colony("mixed")
        pairs: dict[str, list[Worker]] = {}
        for language in there:
            pairs[language.name] = [await start_worker(opened, colony, language, number) for number in (1, 2)]
            for worker in pairs[language.name]:
                stack.push_async_callback(worker.driver.kill)
        workflow = WorkflowSpec(nodes=[node.to_spec() for node in nodes])
        submitted = await colony.user.submit_workflow(workflow, request_id=str(uuid.uuid4()))
        await asyncio.gather(*map(kill_one, pairs.values()))
        async with asyncio.timeout(SECONDS):
            while not (await colony.user.get_workflow(submitted.workflow_id)).HasField("end_time"):
                await asyncio.sleep(0.1)
        ids = dict(zip((node.name for node in nodes), submitted.process_ids, strict=True))
        accounts = {name: await check_process(colony.user, process_id) for name, process_id in ids.items()}
        entered = [one.process_id async for one in colony.user.list_processes()]
    assert sorted(entered) == sorted(ids.values())
    assert len(accounts) == 200
    for node in nodes:
        assert decode_all(accounts[node.name].process.outputs) == [node.output], node
    workers = {worker.name: worker for pair in pairs.values() for worker in pair}
    check_effects(workers, accounts, nodes)
    assert all(sum(worker.killed for worker in pair) == 1 for pair in pairs.values())
    print(f"\n{report(pairs, accounts, nodes)}")
