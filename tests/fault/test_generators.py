"""Arguments from many senders, while replicas, valkey and Postgres die: each in exactly one workflow, in its sender's order.

COLONIES_TEST_ARGUMENTS (how many), COLONIES_TEST_PACK_SECONDS (over which they are spread) and COLONIES_TEST_KILL_SECONDS (between
two kills) set the size, COLONIES_TEST_SEED what is packed; it is printed.
"""

import asyncio
import json
import os
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import pytest

from colonies.client import AsyncClient
from colonies.cron.v1 import generator_service_pb2 as pb
from colonies.keys import PrivateKey
from colonies.scheduler.v1.spec_pb2 import Conditions, Dependency, FunctionSpec, Value, WorkflowSpec
from tests.acceptance.world import until
from tests.fault.accounting import Accounts, audit_logs
from tests.fault.batch_accounting import CHILD, LEADING, ROOTS, Books, Packed, account
from tests.fault.kills import Kills
from tests.fault.rig import COLONY, Rig, rig

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1_800)]

ARGUMENTS = int(os.environ.get("COLONIES_TEST_ARGUMENTS", "10000"))
SECONDS = float(os.environ.get("COLONIES_TEST_PACK_SECONDS", "40"))
KILL_EVERY_S = float(os.environ.get("COLONIES_TEST_KILL_SECONDS", "7"))
SEED = int(os.environ.get("COLONIES_TEST_SEED") or random.SystemRandom().randrange(2**32))
REPLICAS = ("cron", "cron-2", "cron-3")
SERVERS = ("valkey", "postgres")
SENDERS = 16
GENERATOR = "gather"
KEYS = ("red", "blue")
MOST = 100
TIMEOUT_MS = 2_000
MOST_IN_CALL = 20
# One call in so many is made again after it was acknowledged, as by a client that did not hear that.
ONE_IN_REPEATED = 20
CALL_S = 5.0
AGAIN_S = 0.2
ACKNOWLEDGED_WITHIN_S = 300.0
SUBMITTED_WITHIN_S = 120.0


@dataclass(slots=True)
class Packer:
    """One sender, with a key of its own: one call after another, each repeated under its request id until it is acknowledged."""

    number: int
    client: AsyncClient
    acknowledged: list[Packed] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)

    async def pack(self, arguments: int, seconds: float) -> None:
        """Packs so many arguments, spread over some seconds."""
        rng = random.Random(f"{SEED} {self.number}")
        clock = asyncio.get_running_loop().time
        begun = clock()
        done = 0
        while done < arguments:
            await asyncio.sleep(max(0.0, begun + seconds * done / arguments - clock()))
            keys = [rng.choice(KEYS) for _ in range(min(rng.randint(1, MOST_IN_CALL), arguments - done))]
            request = pb.PackRequest(colony_name=COLONY, name=GENERATOR, request_id=str(uuid.uuid4()))
            for number, key in enumerate(keys, done):
                request.arguments.add(key=key, value=Value(data=json.dumps([self.number, number]).encode()))
            first = await self._acknowledged(request)
            if rng.randrange(ONE_IN_REPEATED) == 0 and (again := await self._acknowledged(request)) != first:
                self.differing.append(f"{request.request_id}: {first}, then {again}")
            self.acknowledged += [Packed(first + at, key, self.number, done + at) for at, key in enumerate(keys)]
            done += len(keys)

    async def _acknowledged(self, request: pb.PackRequest) -> int:
        while True:
            try:
                return (await self.client.generator.Pack(request, timeout=CALL_S)).first_sequence
            except grpc.aio.AioRpcError as error:
                # Whatever it is: only an acknowledgement ends this.
                self.errors[error.code().name] += 1
                await asyncio.sleep(AGAIN_S)


def workflow() -> WorkflowSpec:
    """Two roots, which get the batch, and a child, which does not."""

    def node(name: str, *parents: str, args: Sequence[str] = ()) -> FunctionSpec:
        return FunctionSpec(
            node_name=name,
            func_name="gather",
            args=[Value(data=json.dumps(one).encode()) for one in args],
            conditions=Conditions(executor_type="nobody", dependencies=[Dependency(node_name=parent) for parent in parents]),
        )

    return WorkflowSpec(nodes=[*(node(root, args=LEADING) for root in ROOTS), node(CHILD, *ROOTS)])


async def packers(running: Rig) -> list[Packer]:
    """New members of the colony, each with a connection of its own."""
    keys = [PrivateKey.generate() for _ in range(SENDERS)]
    async with running.client("colony-owner") as owner:
        for number, key in enumerate(keys):
            await owner.add_user(f"sender-{number}", key)
    return [Packer(number, running.client(key)) for number, key in enumerate(keys)]


async def pack_all(senders: Sequence[Packer]) -> None:
    """Packs everything; all of it is acknowledged then."""
    shares = [ARGUMENTS // SENDERS + (number < ARGUMENTS % SENDERS) for number in range(SENDERS)]
    async with asyncio.timeout(SECONDS + ACKNOWLEDGED_WITHIN_S):
        await asyncio.gather(*(sender.pack(share, SECONDS) for sender, share in zip(senders, shares, strict=True)))


async def tell(running: Rig, kills: Kills) -> tuple[list[Packer], list[pb.Batch]]:
    """Packs among kills, waits for the timeout to take what is left, and returns what packers and calls tell."""
    senders = await packers(running)
    async with running.client() as client:
        trigger = pb.Trigger(max_count=MOST, timeout_ms=TIMEOUT_MS)
        adding = pb.AddGeneratorRequest(colony_name=COLONY, name=GENERATOR, trigger=trigger, workflow=workflow())
        await client.call(client.generator.AddGenerator, adding)
        killing = asyncio.create_task(kills.go_on_for(SECONDS))
        await pack_all(senders)
        await killing

        async def nothing_waits() -> bool:
            now = await client.get_generator(GENERATOR)
            return (now.waiting, now.bins, now.unsubmitted_batches) == (0, 0, 0)

        await until(nothing_waits, "the timeout takes what is left", seconds=SUBMITTED_WITHIN_S)
        batches = [batch async for batch in client.list_batches(GENERATOR)]
    for sender in senders:
        await sender.client.close()
    return senders, batches


async def play() -> None:
    async with rig(executors={}, replicas={"cron": len(REPLICAS)}) as running:
        kills = Kills(running, REPLICAS, KILL_EVERY_S, servers=SERVERS)
        senders, batches = await tell(running, kills)
        accounts = Accounts()
        packed = [one for sender in senders for one in sender.acknowledged]
        books = await asyncio.to_thread(Books.read, running.postgres.url())
        account(packed, batches, books, MOST, accounts)
        accounts.blame("a repeated pack that was answered otherwise", [one for sender in senders for one in sender.differing])
        accounts.blame("fewer arguments than were packed", [] if len(packed) == ARGUMENTS else [len(packed)])
        audit_logs(running.data_dir / "logs", accounts)
        errors = sum((sender.errors for sender in senders), Counter[str]())
        print("; ".join(f"{number} {name}" for name, number in accounts.facts.items()), flush=True)
        print(
            f"{kills.count('cron')} kills of replicas, {kills.count('valkey')} of valkey, {kills.count('postgres')} of Postgres; "
            f"tries that failed: {dict(errors)}",
            flush=True,
        )
        assert not accounts.wrong, f"seed {SEED}:\n" + "\n".join(accounts.wrong)


def test_generators() -> None:
    print(f"\ngenerators seed {SEED}", flush=True)
    asyncio.run(play())
