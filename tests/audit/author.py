"""Writes audit files as a scheduler would: real keys, real signatures, real chains, and no server.

What a test wants to be wrong, it changes in `records()`, and has them chained anew and sealed by whom it likes.
"""

import base64
import copy
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from colonies.audit.chains import event_hash, membership_hash, process_root
from colonies.audit.lines import LineWriter
from colonies.audit.trust import Trust
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.json_calls import SUFFIX, body_of
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1 import spec_pb2 as spec
from colonies.signing import call_digest, call_text, join_text, rotate_text

CLUSTER, COLONY = "test-cluster", "dev"
BEGIN_US = 1_700_000_000_000_000
AUTH, REGISTRY, SCHEDULER = (f"/colonies.{name}.v1.{name.capitalize()}Service/" for name in ("auth", "registry", "scheduler"))
STEP_US = 20_000
WAITING, RUNNING, SUCCESSFUL, FAILED, CANCELLED = range(1, 6)
Record = dict[str, Any]


def key_of(name: str) -> PrivateKey:
    """A key that is the same in each run."""
    return PrivateKey(hashlib.sha256(name.encode()).digest())


@dataclass
class Member:
    """A member: its identity stays, its key may change."""

    name: str
    role: str
    key: PrivateKey
    identity: str = ""

    def __post_init__(self) -> None:
        self.identity = self.identity or self.key.identity


@dataclass
class Process:
    """A process with its events, not chained yet."""

    record: Record
    events: list[Record] = field(default_factory=list)
    state: int = 0
    attempt: int = 0
    executor: Member | None = None

    @property
    def id(self) -> str:
        return str(self.record["id"])

    @property
    def workflow(self) -> str:
        return str(self.record["workflow_id"])


class Author:
    """A colony and what happens in it."""

    def __init__(self, seed: str = "", *, in_json: bool = False) -> None:
        """With `in_json`, all calls are made in JSON."""
        self.seed = seed
        self.in_json = in_json
        self.now_us = BEGIN_US
        self.server_owner, self.scheduler, self.cron = (key_of(name) for name in ("server owner", "scheduler", "cron"))
        self.cron_service = Member("cron", "service", self.cron)
        self.owner = Member("owner", "colony_owner", key_of("owner"))
        self.calls: dict[str, Record] = {}
        self.memberships: list[Record] = []
        self.processes: list[Process] = []
        self._ids = 0
        self._add_colony()
        self.user = self.add_user("ann", key_of("ann"))
        self.executor = self.add_executor("exec-1", key_of("exec-1"))

    @property
    def trust(self) -> Trust:
        """Whom a reader of these files trusts."""
        return Trust(
            sealers=frozenset({self.scheduler.identity}),
            owners=frozenset({self.owner.identity}),
            server_owners=frozenset({self.server_owner.identity}),
            crons=frozenset({self.cron.identity}),
        )

    def tick(self) -> int:
        """The next moment."""
        self.now_us += STEP_US
        return self.now_us

    def new_id(self) -> str:
        """A UUID, the same in each run."""
        self._ids += 1
        return str(uuid.UUID(bytes=hashlib.sha256(f"{self.seed} {self._ids}".encode()).digest()[:16], version=4))

    def call(self, key: PrivateKey, method: str, request: Message, *, cluster: str = CLUSTER) -> str:
        """Signs a call; gives its digest."""
        body = body_of(request) if self.in_json else request.SerializeToString()
        return self.call_of(key, method + SUFFIX if self.in_json else method, body, cluster=cluster)

    def call_of(self, key: PrivateKey, method: str, body: bytes, *, cluster: str = CLUSTER) -> str:
        """Signs a call with these very bytes; gives its digest."""
        time_ms = self.now_us // 1000
        nonce = hashlib.sha256(f"{self.seed} {len(self.calls)} {method}".encode()).hexdigest()[:32]
        text = call_text(method=method, audience=cluster, time_ms=time_ms, nonce=nonce, body=body)
        signature = key.sign(text)
        digest = call_digest(text, key.public_key, signature)
        self.calls[digest] = {
            "record": "call",
            "digest": digest,
            "method": method,
            "public_key": key.public_key.hex(),
            "time_ms": time_ms,
            "nonce": nonce,
            "signature": signature.hex(),
            "body": base64.b64encode(body).decode(),
        }
        return digest

    # Members

    def membership(self, kind: str, member: Member, calls: Sequence[str]) -> None:
        """A membership event."""
        self.memberships.append(
            {
                "record": "membership",
                "at_us": self.tick(),
                "kind": kind,
                "identity": member.identity,
                "key": member.key.identity,
                "role": member.role,
                "name": member.name,
                "calls": list(calls),
            }
        )

    def proof(self, key: PrivateKey, role: str, name: str) -> auth.JoinProof:
        """A proof that a key agrees to a membership."""
        time_ms = self.now_us // 1000
        text = join_text(audience=CLUSTER, colony=COLONY, role=role, name=name, time_ms=time_ms)
        return auth.JoinProof(public_key=key.public_key, time_ms=time_ms, signature=key.sign(text))

    def _add_colony(self) -> None:
        request = auth.AddColonyRequest(name=COLONY, owner=self.proof(self.owner.key, "colony_owner", COLONY))
        self.membership("COLONY_ADDED", self.owner, [self.call(self.server_owner, AUTH + "AddColony", request)])

    def add_user(self, name: str, key: PrivateKey) -> Member:
        """A user comes in."""
        member = Member(name, "user", key)
        request = auth.AddUserRequest(colony_name=COLONY, name=name, user=self.proof(key, "user", name))
        self.membership("USER_ADDED", member, [self.call(self.owner.key, AUTH + "AddUser", request)])
        return member

    def remove_user(self, member: Member) -> None:
        """A user goes."""
        request = auth.RemoveUserRequest(colony_name=COLONY, name=member.name)
        self.membership("USER_REMOVED", member, [self.call(self.owner.key, AUTH + "RemoveUser", request)])

    def add_executor(self, name: str, key: PrivateKey, *, kind: str = "EXECUTOR_APPROVED", identity: str = "") -> Member:
        """An executor is approved."""
        member = Member(name, "executor", key, identity)
        registration = registry.RegisterExecutorRequest(colony=COLONY, name=name, executor_types=["cli"])
        approval = registry.ApproveExecutorRequest(colony_name=COLONY, identity=member.identity)
        calls = [
            self.call(key, REGISTRY + "RegisterExecutor", registration),
            self.call(self.owner.key, REGISTRY + "ApproveExecutor", approval),
        ]
        self.membership(kind, member, calls)
        return member

    def remove_executor(self, member: Member, *, by: PrivateKey | None = None) -> None:
        """An executor is thrown out, or goes by itself."""
        request = registry.RemoveExecutorRequest(colony_name=COLONY, identity=member.identity)
        self.membership("EXECUTOR_REMOVED", member, [self.call(by or self.owner.key, REGISTRY + "RemoveExecutor", request)])

    def rotate(
        self, member: Member, key: PrivateKey, *, keep_old_ms: int = 60_000, signed_by: PrivateKey | None = None
    ) -> None:
        """A member gets another key."""
        signed_by = signed_by or member.key
        time_ms = self.now_us // 1000
        text = rotate_text(audience=CLUSTER, colony=COLONY, old=signed_by.identity, time_ms=time_ms)
        proof = auth.JoinProof(public_key=key.public_key, time_ms=time_ms, signature=key.sign(text))
        request = auth.RotateKeyRequest(colony_name=COLONY, new_key=proof, keep_old_ms=keep_old_ms)
        call = self.call(signed_by, AUTH + "RotateKey", request)
        member.key = key
        self.membership("KEY_ROTATED", member, [call])

    # Processes

    def _specs(self, count: int, max_retries: int) -> list[spec.FunctionSpec]:
        conditions = spec.Conditions(executor_type="cli")
        return [
            spec.FunctionSpec(
                node_name=f"n{number}", func_name="f", priority=number % 3, max_retries=max_retries, conditions=conditions
            )
            for number in range(count)
        ]

    def _enter(
        self, call: str, specs: Sequence[spec.FunctionSpec], workflow: str, account: Member, actor: str, *, first: int = 0
    ) -> list[Process]:
        """Enters specs whose places in their call begin with `first`."""
        submitted_us = self.tick()
        entered = []
        for place, one in enumerate(specs, first):
            record: Record = {
                "record": "process",
                "id": self.new_id(),
                "workflow_id": workflow,
                "initiator": account.identity,
                "initiator_name": account.name,
                "submitted_us": submitted_us,
                "priority_time": submitted_us * 1000 + place - one.priority * 86_400 * 10**9,
                "call": call,
                "place": place,
            }
            process = Process(record)
            self.event(process, "SUBMITTED", WAITING, actor=actor, call=call, at_us=submitted_us)
            entered.append(process)
        self.processes += entered
        return entered

    def submit(self, by: Member, count: int = 1, *, max_retries: int = 3, on_behalf_of: Member | None = None) -> list[Process]:
        """Processes outside of workflows."""
        specs = self._specs(count, max_retries)
        behalf = on_behalf_of.identity if on_behalf_of else ""
        request = scheduler.SubmitProcessesRequest(
            colony_name=COLONY, request_id=self.new_id(), specs=specs, on_behalf_of=behalf
        )
        call = self.call(by.key, SCHEDULER + "SubmitProcesses", request)
        return self._enter(call, specs, "", on_behalf_of or by, by.identity)

    def submit_workflow(self, by: Member, count: int = 3, *, max_retries: int = 3) -> list[Process]:
        """A workflow."""
        specs = self._specs(count, max_retries)
        workflow = spec.WorkflowSpec(nodes=specs)
        request = scheduler.SubmitWorkflowRequest(colony_name=COLONY, request_id=self.new_id(), workflow=workflow)
        call = self.call(by.key, SCHEDULER + "SubmitWorkflow", request)
        return self._enter(call, specs, self.new_id(), by, by.identity)

    def submit_workflows(
        self,
        by: Member,
        counts: Sequence[int],
        *,
        on_behalf_of: Member | None = None,
        chosen: Sequence[str] = (),
        request_ids: Sequence[str] = (),
    ) -> list[list[Process]]:
        """Several workflows by one call, with so many processes each; under ids that were chosen for them, if any."""
        specs = [self._specs(count, 3) for count in counts]
        behalf = on_behalf_of.identity if on_behalf_of else ""
        submissions = [
            scheduler.WorkflowSubmission(
                request_id=request_ids[nth] if request_ids else self.new_id(),
                workflow=spec.WorkflowSpec(nodes=mine),
                workflow_id=chosen[nth] if chosen else "",
            )
            for nth, mine in enumerate(specs)
        ]
        request = scheduler.SubmitWorkflowsRequest(colony_name=COLONY, submissions=submissions, on_behalf_of=behalf)
        call = self.call(by.key, SCHEDULER + "SubmitWorkflows", request)
        account, flows, first = on_behalf_of or by, [], 0
        for nth, mine in enumerate(specs):
            workflow = chosen[nth] if chosen else self.new_id()
            flows.append(self._enter(call, mine, workflow, account, by.identity, first=first))
            first += len(mine)
        return flows

    def add_children(self, parent: Process, count: int = 1) -> list[Process]:
        """The running attempt of a process adds to its workflow."""
        assert parent.executor is not None
        specs = self._specs(count, 0)
        attempt = scheduler.AttemptRef(process_id=parent.id, attempt=parent.attempt)
        request = scheduler.AddChildrenRequest(colony_name=COLONY, request_id=self.new_id(), attempt=attempt, nodes=specs)
        call = self.call(parent.executor.key, SCHEDULER + "AddChildren", request)
        account = Member(parent.record["initiator_name"], "user", self.user.key, parent.record["initiator"])
        return self._enter(call, specs, parent.workflow, account, parent.executor.identity)

    def event(self, process: Process, reason: str, to: int, **values: Any) -> Record:
        """An event; what is not given follows from the state of the process."""
        leaves = process.state == RUNNING
        executor = process.executor.name if leaves and process.executor else ""
        event: Record = {
            "record": "event",
            "process": process.id,
            "at_us": 0,
            "from": process.state,
            "to": to,
            "attempt": process.attempt if leaves else 0,
            "executor_name": executor,
            "actor": "",
            "reason": reason,
            "outcome": 0,
            "errors": [],
            "call": "",
            "output_call": "",
        } | values
        event["at_us"] = event["at_us"] or self.tick()
        process.events.append(event)
        process.state = to
        return event

    def assign(self, process: Process, executor: Member | None = None) -> None:
        """A new attempt."""
        executor = executor or self.executor
        process.attempt += 1
        self.event(process, "ASSIGNED", RUNNING, attempt=process.attempt, executor_name=executor.name, actor=executor.identity)
        process.executor = executor

    def set_output(self, process: Process) -> str:
        """The running attempt sets its outputs; gives the call."""
        assert process.executor is not None
        attempt = scheduler.AttemptRef(process_id=process.id, attempt=process.attempt)
        request = scheduler.SetOutputRequest(colony_name=COLONY, attempt=attempt, outputs=[spec.Value(data=b"1")])
        return self.call(process.executor.key, SCHEDULER + "SetOutput", request)

    def close(
        self, processes: Sequence[Process], *, errors: Sequence[str] | None = None, retry: bool = False, output_call: str = ""
    ) -> None:
        """One call closes them all: as successful, or with errors."""
        executor = processes[0].executor
        assert executor is not None
        outputs = [] if output_call else [spec.Value(data=b'{"a":1}')]
        closes = []
        for process in processes:
            attempt = scheduler.AttemptRef(process_id=process.id, attempt=process.attempt)
            if errors is None:
                success = scheduler.Close.Success(outputs=outputs)
                closes.append(scheduler.Close(attempt=attempt, success=success))
            else:
                failure = scheduler.Close.Failure(errors=errors, retryable=retry)
                closes.append(scheduler.Close(attempt=attempt, failure=failure))
        request = scheduler.CloseProcessesRequest(colony_name=COLONY, closes=closes)
        call = self.call(executor.key, SCHEDULER + "CloseProcesses", request)
        reason, to = ("CLOSED", SUCCESSFUL) if errors is None else ("RETRIED", WAITING) if retry else ("CLOSED", FAILED)
        for process in processes:
            self.event(
                process,
                reason,
                to,
                actor=executor.identity,
                outcome=1 if errors is None else 2,
                errors=list(errors or ()),
                call=call,
                output_call=output_call,
            )

    def cancel(self, by: Member, processes: Sequence[Process], *, workflow: bool, on_behalf_of: Member | None = None) -> None:
        """Cancels a process, or a workflow with all that is open in it."""
        if workflow:
            request: Message = scheduler.CancelWorkflowRequest(
                colony_name=COLONY,
                workflow_id=processes[0].workflow,
                on_behalf_of=on_behalf_of.identity if on_behalf_of else "",
            )
            call = self.call(by.key, SCHEDULER + "CancelWorkflow", request)
        else:
            request = scheduler.CancelProcessRequest(colony_name=COLONY, process_id=processes[0].id)
            call = self.call(by.key, SCHEDULER + "CancelProcess", request)
        for process in processes:
            outcome = 5 if process.state == RUNNING else 0
            self.event(process, "CANCELLED", CANCELLED, actor=by.identity, outcome=outcome, call=call)

    def retry(self, by: Member, processes: Sequence[Process]) -> None:
        """Takes up a workflow again."""
        request = scheduler.RetryWorkflowRequest(colony_name=COLONY, workflow_id=processes[0].workflow)
        call = self.call(by.key, SCHEDULER + "RetryWorkflow", request)
        at_us = self.tick()
        for process in processes:
            self.event(process, "RETRY_REQUESTED", WAITING, actor=by.identity, call=call, at_us=at_us)

    # Files

    def records(self, **scope: Any) -> list[Record]:
        """All records but the seal, in order, chained."""
        records: list[Record] = [self._header(scope)]
        written: set[str] = set()
        for membership in self.memberships:
            records += self._calls_of(membership["calls"], written)
            records.append(dict(membership))
        for process in self.processes:
            calls = [process.record["call"]]
            for event in process.events:
                calls += [event["call"], event["output_call"]]
            records += self._calls_of(calls, written)
            records.append(process.record | {"events": len(process.events)})
            records += [event | {"number": number} for number, event in enumerate(process.events, 1)]
        return chained(records)

    def _header(self, scope: Record) -> Record:
        everything: Record = {"process_ids": [], "workflow_ids": [], "since_us": None, "before_us": None}
        return {
            "record": "header",
            "version": 1,
            "cluster": CLUSTER,
            "colony": COLONY,
            "owner": self.owner.identity,
            "asked_by": self.user.identity,
            "time_ms": self.now_us // 1000,
            "scope": everything | scope,
        }

    def _calls_of(self, digests: Sequence[str], written: set[str]) -> list[Record]:
        fresh = [digest for digest in dict.fromkeys(digests) if digest and digest not in written]
        written.update(fresh)
        return [dict(self.calls[digest]) for digest in fresh]

    def file(self, records: Sequence[Record] | None = None, *, sealed_by: PrivateKey | None = None) -> bytes:
        """The whole file."""
        header, *rest = records if records is not None else self.records()
        writer = LineWriter(header)
        lines = [writer.header_line, *(writer.line(record) for record in rest)]
        return b"".join([*lines, writer.seal(sealed_by or self.scheduler, time_ms=self.now_us // 1000)])


def chained(records: Sequence[Record]) -> list[Record]:
    """The same records, with every hash of every chain worked out anew: what a forger with the database can do."""
    chain = copy.deepcopy(list(records))
    membership, process = "", ""
    for record in chain:
        if record["record"] == "membership":
            record.setdefault("number", sum(1 for one in chain if "hash" in one and one["record"] == "membership") + 1)
            values = {name: value for name, value in record.items() if name not in {"record", "hash"}}
            membership = record["hash"] = membership_hash(membership, colony=COLONY, **values)
        elif record["record"] == "process":
            process = process_root(
                colony=COLONY,
                process=record["id"],
                workflow=record["workflow_id"],
                **{
                    name: record[name]
                    for name in ("initiator", "initiator_name", "submitted_us", "priority_time", "call", "place")
                },
            )
        elif record["record"] == "event":
            names = ("at_us", "attempt", "executor_name", "actor", "reason", "outcome", "errors", "call", "output_call")
            values = {name: record[name] for name in names}
            process = record["hash"] = event_hash(process, from_state=record["from"], to_state=record["to"], **values)
    return chain
