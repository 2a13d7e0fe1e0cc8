"""The command line against a server of canned answers, in this process."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from colonies.cli.app import app
from colonies.errors import DETAILS_KEY, TYPE_URL_PREFIX
from colonies.keys import PrivateKey
from colonies.signing import SIGNATURE_HEADER
from colonies.status.v1 import status_pb2

Answer = Callable[[Any], Any]


class Refusal(Exception):
    """Raise it in an answer: the call fails with this status."""

    def __init__(self, code: grpc.StatusCode, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violations = violations

    def end(self, context: grpc.ServicerContext) -> None:
        """Ends a call so."""
        context.set_trailing_metadata(((DETAILS_KEY, self.details()),))
        context.abort(self.code, self.message)

    def details(self) -> bytes:
        """The typed details, as the services send them."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.violations:
            bad = status_pb2.BadRequest(
                field_violations=[
                    status_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in self.violations
                ]
            )
            packed = status.details.add()
            packed.type_url = TYPE_URL_PREFIX + "BadRequest"
            packed.value = bad.SerializeToString()
        return status.SerializeToString()


@dataclass
class FakeServer(grpc.GenericRpcHandler):
    """Answers RPCs as a test says; what it does not say is UNIMPLEMENTED. Keeps every request."""

    port: int = 0
    answers: dict[str, tuple[Any, Answer]] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)

    def on(self, method: str, request_type: Any, answer: Answer) -> None:
        """Sets the answer to "/package.Service/Method": a message, or a list of messages for a stream."""
        self.answers[method] = (request_type, answer)

    def service(self, handler_call_details: Any) -> Any:
        known = self.answers.get(handler_call_details.method)
        if known is None:
            return None
        request_type, answer = known
        signed = SIGNATURE_HEADER in dict(handler_call_details.invocation_metadata)

        def answered(request: Any, context: grpc.ServicerContext) -> Any:
            assert signed, "an unsigned call"
            self.requests.append(request)
            try:
                return answer(request)
            except Refusal as refusal:
                refusal.end(context)
                raise

        def streamed(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from answered(request, context)
            except Refusal as refusal:  # in the middle of the stream
                refusal.end(context)

        is_stream = handler_call_details.method.rpartition("/")[2] in {
            "ExportAudit",
            "FollowChannel",
            "FollowLogs",
            "WatchProcesses",
        }
        make = grpc.unary_stream_rpc_method_handler if is_stream else grpc.unary_unary_rpc_method_handler
        return make(
            streamed if is_stream else answered,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@pytest.fixture
def server() -> Iterator[FakeServer]:
    handler = FakeServer()
    with futures.ThreadPoolExecutor(max_workers=4) as pool:
        running = grpc.server(pool, handlers=[handler])
        handler.port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        yield handler
        running.stop(None).wait()


@dataclass
class Shell:
    """Runs commands in an environment of its own."""

    env: dict[str, str]
    key: PrivateKey
    folder: Path

    def __call__(self, *args: str, stdin: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(app, list(args), env={**self.env, **env}, input=stdin)

    def json(self, *args: str) -> Any:
        """The JSON document that a command prints; the command must succeed."""
        result = self("--json", *args)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell without profile and server, whatever the environment of the tests has."""
    monkeypatch.delenv("COLONIES_DATA_DIR", raising=False)
    env = dict.fromkeys(("HOST", "PORT", "CLUSTER", "COLONY", "KEY", "KEY_FILE", "PROFILE"), "")
    variables = {f"COLONIES_{name}": value for name, value in env.items()}
    variables |= {"COLONIES_CONFIG": str(tmp_path / "profiles.toml"), "TZ": "UTC"}
    return Shell(variables, PrivateKey.generate(), tmp_path)


@pytest.fixture
def shell(offline: Shell, server: FakeServer) -> Shell:
    """A shell that reaches the fake server."""
    key_file = offline.folder / "user.key"
    offline.key.save(key_file)
    offline.env |= {
        "COLONIES_HOST": "127.0.0.1",
        "COLONIES_PORT": str(server.port),
        "COLONIES_CLUSTER": "test",
        "COLONIES_COLONY": "dev",
        "COLONIES_KEY_FILE": str(key_file),
    }
    return offline
