"""Service processes under raw bytes, in a colony with something of everything, and one case after the other."""

import asyncio
import json
import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from colonies.cron.v1 import cron_service_pb2 as cron_pb
from colonies.cron.v1 import generator_service_pb2 as generator_pb
from colonies.cron.v1.cron_service_pb2_grpc import CronServiceStub
from colonies.cron.v1.generator_service_pb2_grpc import GeneratorServiceStub
from colonies.errors import from_rpc_error
from colonies.json_calls import SUFFIX
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import controls_pb2
from colonies.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from colonies.signing import Signer
from servicekit.caller import Role
from servicekit.envelope import RequestType
from servicekit.json_calls import JsonRequestType
from servicekit.policy import Policy
from tests.attacks.places import ACME, Place, add_generator, furnish, run_one
from tests.attacks.requests import filled
from tests.attacks.tables import contents
from tests.attacks.wire import nonce_prefix
from tests.harness.cluster import CLUSTER, COLONY
from tests.harness.keys import key_of
from tests.harness.processes import ProcessCluster
from tests.harness.servers import ALL_SERVICES
from tests.rpc.methods import Method

from . import json_mutations, mutations
from .mutations import Program

AT_ONCE = 64
# A stream's first response, or a wait's end, is not waited for any longer.
STREAM_S = 0.3
CALL_S = 20.0
WAITED = "waited"
OPEN = "open"
# Calls that may wait for as long as they ask for.
WAITING = frozenset({"AssignProcesses"})
DEFECTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE"})
# Methods that end or remove what the others need: theirs is a member or a colony that nobody misses.
DECOYS: Mapping[str, Mapping[str, Any]] = {
    "RemoveColony": {"name": "decoy-colony"},
    "RemoveUser": {"RemoveUser:name": "decoy"},
    "RejectExecutor": {"identity": key_of("decoy").identity},
    "RemoveExecutor": {"identity": key_of("decoy").identity},
    "ApproveExecutor": {"identity": key_of("decoy").identity},
    "DropExecutor": {"identity": key_of("decoy").identity},
    "PutExecutor": {"identity": key_of("decoy").identity, "name": "decoy"},
    "UpdateControls": {"paused": False},
}
# Whoever calls these changes what it is itself: nobody whom the others need.
SELVES: Mapping[str, str] = {
    "RegisterExecutor": "registering",
    "UpdateExecutor": "changing",
    "AnnounceFunctions": "changing",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and whether and how it is signed."""

    body: bytes
    signing: str

    @classmethod
    def of(cls, base: bytes, data: bytes, change: Callable[[bytes, Program], bytes]) -> "Case":
        """What a program makes of a good request."""
        program = Program(data)
        kind, signing = program.byte() % 8, program.byte() % 16
        how = {13: "unsigned", 14: "another body", 15: "another key"}.get(signing, "signed")
        if kind == 0:
            return cls(program.rest(), how)
        return cls(base if kind == 1 else change(base, program), how)


@dataclass(frozen=True, slots=True)
class Target:
    """A method, and the form in which it is called."""

    method: Method
    in_json: bool = False

    @property
    def path(self) -> str:
        """As it is called."""
        return self.method.path + SUFFIX if self.in_json else self.method.path

    @property
    def most(self) -> int:
        """Bytes that a request may have."""
        return (JsonRequestType if self.in_json else RequestType)(self.path).at_most

    def body(self, request: Message) -> bytes:
        """A good request, as it is sent."""
        return MessageToJson(request, indent=None).encode() if self.in_json else request.SerializeToString()

    def cases(self, base: bytes, programs: Sequence[bytes]) -> list[Case]:
        """One for each program."""
        change = json_mutations.mutated if self.in_json else mutations.mutated
        return [Case.of(base, program, change) for program in programs]


class Stage:
    """Four service processes, their colony, and what came of the cases."""

    def __init__(self, database_url: str, redis_url: str, directory: Path) -> None:
        self.answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.notes: list[str] = []
        self._database_url = database_url
        unlimited: dict[str, object] = {"identity_rate": 0, "colony_rate": 0, "streams_per_identity": 0}
        settings = {name: dict(unlimited) for name in ALL_SERVICES}
        settings["scheduler"]["lease_ms"] = 3_600_000
        self.cluster = ProcessCluster(database_url, redis_url, directory, settings=settings)
        self._runner = asyncio.Runner()
        self._policy = Policy.load()
        self._place: Place
        self._prefix = ""

    def __enter__(self) -> Self:
        self._runner.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.cluster.stop())
        self._runner.close()

    async def _open(self) -> None:
        await self.cluster.__aenter__()
        owner = self.cluster.keys.owner
        await self.cluster.add_executor(COLONY, owner, "changing", key_of("changing"))
        worker = key_of("furnisher")
        await self.cluster.add_executor(COLONY, owner, "furnisher", worker, executor_types=["fuzz"])
        keys = {**ACME.keys, "executor": worker}
        self._place = await furnish(self.cluster, Place(COLONY, keys, ACME.names), executor_type="fuzz")

    def memory(self) -> dict[str, int]:
        """Bytes that each process holds."""
        return {process.name: process.memory() for process in self.cluster.processes}

    def errors(self) -> list[str]:
        """What the processes told of as errors in their logs: defects that no caller hears of, too."""
        lines = [line for process in self.cluster.processes for line in process.log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if not line.startswith("{") or json.loads(line)["level"] in {"error", "critical"}]

    def play(self, target: Target, programs: Sequence[bytes], *, checked: bool) -> None:
        """Sends a case for each program, and judges what comes back. With `checked`, what was refused is sent again between two
        looks at the tables."""
        self._runner.run(self._play(target, programs, checked=checked))

    async def _play(self, target: Target, programs: Sequence[bytes], *, checked: bool) -> None:
        await self._refurnish()
        self._prefix = nonce_prefix(self.cluster)
        cases = target.cases(target.body(self._base(target.method)), programs)
        answers = await self._all(target, cases)
        self.answers[target.path].update(answers)
        self._judge(target, cases, answers)
        if checked:
            refused = [case for case, answer in zip(cases, answers, strict=True) if answer not in {"OK", OPEN, WAITED}]
            await self._changes_nothing(target, refused)

    def _judge(self, target: Target, cases: Sequence[Case], answers: Sequence[str]) -> None:
        dead = [process.name for process in self.cluster.processes if not process.alive]
        assert not dead, f"processes ended: {dead}"
        most = target.most
        for case, answer in zip(cases, answers, strict=True):
            told = f"{target.path} answered {answer} to {case.signing} {case.body[:2_000].hex()} ({len(case.body)} bytes)"
            assert answer not in DEFECTS, told
            # What is too large is refused before anybody asks who signed it.
            by_size = len(case.body) > most and answer == "INVALID_ARGUMENT"
            assert by_size or (case.signing == "signed") == (answer != "UNAUTHENTICATED"), told

    async def _changes_nothing(self, target: Target, refused: Sequence[Case]) -> None:
        """Three times, for what services do by themselves, by the time, may fall in between."""
        for _ in range(3):
            before = contents(self._database_url)
            answers = await self._all(target, refused)
            after = contents(self._database_url)
            if after == before or not refused or any(answer in {"OK", OPEN, WAITED} for answer in answers):
                return
        changed = {table: sorted({*before[table]} ^ {*after[table]})[:4] for table in after if after[table] != before[table]}
        msg = f"{target.path}: refused calls changed {changed}"
        raise AssertionError(msg)

    def _base(self, method: Method) -> Message:
        name = method.descriptor.name
        values = {**self._place.values(), "executor_types": ["cli"], **DECOYS.get(name, {})}
        # Another each time: what is repeated under one id is not done again.
        fresh = os.urandom(8).hex()
        request: Any = filled(method, {**values, "request_id": fresh})
        if name == "AddChildren":
            request.nodes[0].node_name = f"n{fresh}"
        if name == "SubmitWorkflows":
            request.on_behalf_of = self._place.keys["user"].identity
            request.submissions[0].workflow_id = str(uuid.uuid4())
        if name in {"AddColony", "AddUser"}:
            # Of keys that are new, too: only with their proof does it get far.
            request.name = fresh
            role, field, colony = ("colony_owner", "owner", fresh) if name == "AddColony" else ("user", "user", COLONY)
            proof = self.cluster.proof(key_of(fresh), colony=colony, role=role, name=fresh)
            getattr(request, field).CopyFrom(proof)
        return request  # type: ignore[no-any-return]

    def _key(self, method: Method) -> PrivateKey:
        """Whom the policy lets make this call."""
        if (name := SELVES.get(method.descriptor.name)) is not None:
            return key_of(name)
        if method.descriptor.name in {"AssignProcesses", "WatchAssignments"}:
            return self.cluster.keys.executor
        if method.descriptor.name == "SubmitWorkflows":
            # It may ask for more than members may.
            return self.cluster.keys.service("cron")
        rule = self._policy.rules[method.path]
        if Role.SERVER_OWNER in rule.roles:
            return self.cluster.keys.server_owner
        for role in (Role.EXECUTOR, Role.COLONY_OWNER, Role.USER):
            if role in rule.roles:
                return self._place.keys[role]
        if rule.initiators:
            return self._place.keys["user"]
        if Role.SERVICE in rule.roles:
            return self.cluster.keys.service("registry")
        assert rule.services or Role.ANYONE in rule.roles
        return self.cluster.keys.service(next(iter(rule.services), "cron"))

    def _signer(self, key: PrivateKey) -> Signer:
        return Signer(key, CLUSTER, self.cluster.clock_ms, self._prefix)

    async def _all(self, target: Target, cases: Sequence[Case]) -> list[str]:
        slots = asyncio.Semaphore(AT_ONCE)
        key = self._key(target.method)

        async def one(case: Case) -> str:
            async with slots:
                return await self._answer(target, case, key)

        return await asyncio.gather(*(one(case) for case in cases))

    async def _answer(self, target: Target, case: Case, key: PrivateKey) -> str:
        method = target.method
        channel: Any = self.cluster.channel(method.service)
        metadata: tuple[tuple[str, str], ...] = ()
        if case.signing != "unsigned":
            body = case.body if case.signing != "another body" else case.body + b"\0"
            metadata = self._signer(key).headers(target.path, body)
            if case.signing == "another key":
                other = self._signer(key_of("another")).headers(target.path, body)
                metadata = (other[0], *metadata[1:])
        name = method.descriptor.name
        waits = name in WAITING or method.descriptor.server_streaming
        call: Any = (channel.unary_stream if method.descriptor.server_streaming else channel.unary_unary)(
            target.path, None, None
        )(case.body, metadata=grpc.aio.Metadata(*metadata), timeout=STREAM_S if waits and case.signing == "signed" else CALL_S)
        try:
            await (call.read() if method.descriptor.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            if waits and case.signing == "signed" and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return WAITED
            # Its details are what programs go by: they must be readable.
            from_rpc_error(error)
            return error.code().name
        finally:
            call.cancel()
        return OPEN if method.descriptor.server_streaming else "OK"

    async def _refurnish(self) -> None:
        """A process that runs, for the last one's cases may have ended it; and the owner's settings as they were."""
        owner = self.cluster.stub(SchedulerServiceStub, self.cluster.keys.owner)
        await owner.UpdateControls(controls_pb2.UpdateControlsRequest(colony_name=COLONY, paused=False, max_waiting=0))
        await run_one(self.cluster, self._place, executor_type="fuzz")
        if "cron" not in self.cluster.replicas:
            return
        crons = self.cluster.stub(CronServiceStub, self.cluster.keys.owner)
        listed = await crons.ListCrons(cron_pb.ListCronsRequest(colony_name=COLONY, page_size=1_000))
        for cron in listed.crons:
            if cron.name != self._place.names["cron"]:
                await crons.RemoveCron(cron_pb.RemoveCronRequest(colony_name=COLONY, name=cron.name))
        generators = self.cluster.stub(GeneratorServiceStub, self.cluster.keys.owner)
        gathering = await generators.ListGenerators(generator_pb.ListGeneratorsRequest(colony_name=COLONY, page_size=1_000))
        for generator in gathering.generators:
            # Its own too: cases may have added it anew, with another workflow, or paused it.
            named: dict[str, Any] = {"colony_name": COLONY, "name": generator.name}
            await generators.RemoveGenerator(generator_pb.RemoveGeneratorRequest(**named, force=True))
        await add_generator(self.cluster, self._place)

    def table(self) -> list[str]:
        """How often each method gave each answer."""
        codes = sorted({code for counts in self.answers.values() for code in counts})
        lines = [f"{'method':<48}" + "".join(f"{code:>20}" for code in codes)]
        for path, counts in sorted(self.answers.items()):
            service, _, name = path.rpartition("/")
            lines.append(f"{service.split('.')[1] + '/' + name:<48}" + "".join(f"{counts[code]:>20}" for code in codes))
        return [*lines, f"{sum(sum(counts.values()) for counts in self.answers.values())} cases", *self.notes]


def words(data: bytes, size: int) -> list[bytes]:
    """Programs out of one draw, so that drawing does not cost more than sending."""
    return [data[start : start + size] for start in range(0, len(data), size)]
