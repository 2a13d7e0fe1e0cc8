"""The paper's example, as a program of the first release ran it: `client.py < settings.json`, with that release's stubs alone.

It knows nothing of today's SDK: calls are signed by what protos/vectors/README.md says. A colony is made, its members enter, a
workflow runs on three executors, and what came of it is printed as JSON.
"""

import hashlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import colonies
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.auth.v1 import auth_service_pb2_grpc as auth_grpc
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.registry.v1 import registry_service_pb2_grpc as registry_grpc
from colonies.scheduler.v1 import process_pb2 as process
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_grpc
from colonies.scheduler.v1 import spec_pb2 as spec
from colonies.status.v1 import status_pb2 as status

COLONY = "first-release"
EXECUTORS = {"e1": ["edge"], "e2": ["cloud"], "e3": ["browser"]}
FUNCTIONS: dict[str, Callable[..., list[Any]]] = {
    "gen_nums": lambda: [2, 3],
    "square": lambda x: [x * x],
    "sum": lambda *numbers: [sum(numbers)],
}
CALL_S = 30.0


class Key:
    """An Ed25519 key and its identity."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.identity = hashlib.sha3_256(self.public).hexdigest()

    def sign(self, *lines: object) -> bytes:
        """Signs a text of these lines."""
        return self._key.sign("".join(f"{line}\n" for line in lines).encode())


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Signed:
    """A channel whose calls are signed; stubs use it as one of gRPC's."""

    prefix = ""

    def __init__(self, address: str, key: Key, audience: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._key = key
        self._audience = audience

    def _metadata(self, method: str, body: bytes) -> Any:
        at, nonce = now_ms(), Signed.prefix + os.urandom(16 - len(Signed.prefix) // 2).hex()
        signature = self._key.sign("colonies-call-v1", method, self._audience, at, nonce, hashlib.sha256(body).hexdigest())
        return (
            ("colonies-public-key", self._key.public.hex()),
            ("colonies-time", str(at)),
            ("colonies-nonce", nonce),
            ("colonies-signature", signature.hex()),
        )

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        """gRPC's."""
        call: Any = self._channel.unary_unary(method, None, response_deserializer)

        def made(request: Any) -> Any:
            body = request_serializer(request)
            try:
                return call(body, timeout=CALL_S, metadata=self._metadata(method, body))
            except grpc.RpcError as error:
                Signed.prefix = prefix_asked(error)
                return call(body, timeout=CALL_S, metadata=self._metadata(method, body))

        return made

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        """gRPC's. By the time that streams are opened, the prefix is known."""
        call: Any = self._channel.unary_stream(method, None, response_deserializer)

        def made(request: Any) -> Any:
            body = request_serializer(request)
            return call(body, timeout=CALL_S, metadata=self._metadata(method, body))

        return made


def prefix_asked(error: Any) -> str:
    """The nonce's prefix that a refused call asks for. Raises every other error again."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status.Status.FromString(value).details:
                info = status.ErrorInfo.FromString(detail.value)
                if detail.type_url.endswith("ErrorInfo") and info.reason == "NONCE_PREFIX_REQUIRED":
                    return str(info.metadata["nonce_prefix"])
    raise error


class Story:
    """Who takes part, and what they do."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._server_owner = Key(bytes.fromhex(settings["server_owner"]))
        self._owner, self._user = Key(os.urandom(32)), Key(os.urandom(32))
        self._done = threading.Event()

    def _stub(self, kind: Any, service: str, key: Key) -> Any:
        return kind(Signed(self._settings[service], key, self._settings["cluster"]))

    def _proof(self, key: Key, role: str, name: str) -> auth.JoinProof:
        at = now_ms()
        signature = key.sign("colonies-join-v1", self._settings["cluster"], COLONY, role, name, at)
        return auth.JoinProof(public_key=key.public, time_ms=at, signature=signature)

    def enter(self) -> None:
        """The colony, its owner and a user."""
        server_owner = self._stub(auth_grpc.AuthServiceStub, "auth", self._server_owner)
        owner = self._stub(auth_grpc.AuthServiceStub, "auth", self._owner)
        proof = self._proof(self._owner, "colony_owner", COLONY)
        server_owner.AddColony(auth.AddColonyRequest(name=COLONY, owner=proof))
        proof = self._proof(self._user, "user", "ann")
        owner.AddUser(auth.AddUserRequest(colony_name=COLONY, name="ann", user=proof))

    def start(self, name: str, types: list[str]) -> threading.Thread:
        """An executor that is registered, approved and at work."""
        key = Key(os.urandom(32))
        stub = self._stub(registry_grpc.RegistryServiceStub, "registry", key)
        capabilities = registry.Capabilities(cpu="2", labels={"release": "first"})
        stub.RegisterExecutor(
            registry.RegisterExecutorRequest(colony=COLONY, name=name, executor_types=types, capabilities=capabilities)
        )
        owner = self._stub(registry_grpc.RegistryServiceStub, "registry", self._owner)
        approved = owner.ApproveExecutor(registry.ApproveExecutorRequest(colony_name=COLONY, identity=key.identity))
        assert approved.executor.state == registry.EXECUTOR_STATE_APPROVED
        functions = [registry.Function(name=each) for each in FUNCTIONS]
        stub.AnnounceFunctions(registry.AnnounceFunctionsRequest(colony_name=COLONY, functions=functions))
        thread = threading.Thread(target=self._work, args=(key,))
        thread.start()
        return thread

    def _work(self, key: Key) -> None:
        stub = self._stub(scheduler_grpc.SchedulerServiceStub, "scheduler", key)
        while not self._done.is_set():
            wanted = scheduler.AssignProcessesRequest(colony_name=COLONY, max_processes=1, wait_ms=500)
            for one in stub.AssignProcesses(wanted).assignments:
                ref = scheduler.AttemptRef(process_id=one.process_id, attempt=one.attempt)
                assert one.lease_ms > 0
                beat = stub.Heartbeat(scheduler.HeartbeatRequest(colony_name=COLONY, attempts=[ref]))
                assert not beat.drops
                arguments = [json.loads(value.data) for value in [*one.spec.args, *one.inputs]]
                outputs = [spec.Value(data=json.dumps(each).encode()) for each in FUNCTIONS[one.spec.func_name](*arguments)]
                close = scheduler.Close(attempt=ref, success=scheduler.Close.Success(outputs=outputs))
                stub.CloseProcesses(scheduler.CloseProcessesRequest(colony_name=COLONY, closes=[close]))

    def run(self) -> dict[str, Any]:
        """Submits, follows to the end, and reads what came of it."""
        stub = self._stub(scheduler_grpc.SchedulerServiceStub, "scheduler", self._user)
        request = scheduler.SubmitWorkflowRequest(colony_name=COLONY, request_id=str(uuid.uuid4()), workflow=papers_workflow())
        submitted = stub.SubmitWorkflow(request)
        assert stub.SubmitWorkflow(request) == submitted
        watch = scheduler.WatchProcessesRequest(colony_name=COLONY, workflow_id=submitted.workflow_id)
        steps = [(event.node_name, event.transition.to_state) for page in stub.WatchProcesses(watch) for event in page.events]
        self._done.set()
        found = {}
        for process_id in submitted.process_ids:
            read = stub.GetProcess(scheduler.GetProcessRequest(colony_name=COLONY, process_id=process_id)).process
            found[read.spec.node_name] = {
                "state": process.ProcessState.Name(read.state),
                "input": [json.loads(value.data) for value in read.inputs],
                "output": [json.loads(value.data) for value in read.outputs],
                "steps": [process.ProcessState.Name(state) for node, state in steps if node == read.spec.node_name],
            }
        return found


def papers_workflow() -> spec.WorkflowSpec:
    """Section 3.1: numbers, their squares, and the sum of those."""

    def node(name: str, function: str, kind: str, *parents: spec.Dependency) -> spec.FunctionSpec:
        conditions = spec.Conditions(executor_type=kind, dependencies=parents)
        return spec.FunctionSpec(
            node_name=name, func_name=function, conditions=conditions, priority=1, max_exec_time_ms=200_000, max_retries=5
        )

    def share(index: int) -> spec.Dependency:
        return spec.Dependency(node_name="task1", share=spec.Dependency.Share(index=index, of=2))

    squares = [spec.Dependency(node_name=name) for name in ("task2", "task3")]
    return spec.WorkflowSpec(
        nodes=[
            node("task1", "gen_nums", "edge"),
            node("task2", "square", "cloud", share(0)),
            node("task3", "square", "cloud", share(1)),
            node("task4", "sum", "browser", *squares),
        ]
    )


def main() -> None:
    """Prints what came of it, and what this client knows of the services."""
    story = Story(json.load(sys.stdin))
    story.enter()
    threads = [story.start(name, types) for name, types in EXECUTORS.items()]
    try:
        found = story.run()
    finally:
        story._done.set()
        for thread in threads:
            thread.join()
    services = [auth.DESCRIPTOR, registry.DESCRIPTOR, scheduler.DESCRIPTOR]
    known = {each.name for file in services for one in file.services_by_name.values() for each in one.methods}
    print(json.dumps({"stubs": str(Path(colonies.__file__).parent), "methods": sorted(known), "found": found}))


if __name__ == "__main__":
    main()
