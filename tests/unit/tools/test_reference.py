"""The description of the interface: valid, whole, and what the protos say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from colonies.scheduler.v1 import scheduler_service_pb2 as pb
from colonies.scheduler.v1 import spec_pb2
from services.gateway.problems import HTTP_STATUS, Problem
from tests.rpc.methods import all_methods
from tools import reference
from tools.reference.policy import callers
from tools.reference.words import STATUSES, short

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "services" / "gateway" / "pages"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads((PAGES / "openapi.json").read_text())


@pytest.fixture(scope="module")
def page() -> str:
    return (PAGES / "reference.html").read_text()


def public() -> dict[str, Any]:
    """Methods that others than the servers may call, by path."""
    known = callers(ROOT / "servicekit" / "policy.toml")
    return {method.path: method for method in all_methods() if method.path[1:].replace("/", ".") in known}


def test_it_has_not_drifted() -> None:
    for path, text in reference.files(ROOT).items():
        assert (ROOT / path).read_text() == text, path


def test_the_document_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema["description"] or schema.get("properties") == {}, name


def test_every_public_method_is_there_with_its_comment_and_who_may_call_it(document: Any, page: str) -> None:
    methods = public()
    assert len(methods) > 70
    assert set(document["paths"]) == {f"/api{path}" for path in methods}
    for path, method in methods.items():
        operation = document["paths"][f"/api{path}"]["post"]
        assert operation["x-stream"] == method.descriptor.server_streaming
        assert len(operation["description"].partition("May be called by ")[0].strip()) > 20, path
        assert operation["x-callers"]
        request = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert request == f"#/components/schemas/{short(method.descriptor.input_type.full_name)}"
        kind = "application/jsonl" if method.descriptor.server_streaming else "application/json"
        assert set(operation["responses"]["200"]["content"]) == {kind}
        assert f'<section id="{path[1:]}">' in page
    # What only the servers ask of each other is nobody else's matter.
    assert not any("ResolveMember" in path for path in document["paths"])


def test_every_field_of_every_message_is_there(document: Any) -> None:
    schemas = document["components"]["schemas"]
    left = [one for method in public().values() for one in (method.descriptor.input_type, method.descriptor.output_type)]
    seen = set()
    while left:
        message = left.pop()
        if message.full_name in seen or message.file.package == "google.protobuf":
            continue
        seen.add(message.full_name)
        schema = schemas[short(message.full_name)]
        assert set(schema["properties"]) == {field.json_name for field in message.fields}, message.full_name
        left += [field.message_type for field in message.fields if field.message_type and not is_map(field)]
    assert len(seen) > 100


def is_map(field: Any) -> bool:
    return bool(field.message_type.GetOptions().map_entry)


def test_messages_fit_their_schemas_and_other_documents_do_not(document: Any) -> None:
    def problems(name: str, value: Any) -> list[str]:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        return [error.message for error in Draft202012Validator(schema).iter_errors(value)]

    spec = spec_pb2.FunctionSpec(
        func_name="f",
        args=[spec_pb2.Value(data=b"\x00\xff", media_type="x/y")],
        kwargs={"k": spec_pb2.Value(data=b"1")},
        max_wait_time_ms=2**60,
        parent_policy=spec_pb2.PARENT_POLICY_ANY_DONE,
        conditions=spec_pb2.Conditions(executor_type="cli"),
        labels={"a": "b"},
        backoff=spec_pb2.Backoff(first_ms=5, factor=1.5),
    )
    request = MessageToDict(pb.SubmitProcessesRequest(colony_name="acme", request_id="r", specs=[spec]))
    assert problems("scheduler.SubmitProcessesRequest", request) == []
    wrong: list[tuple[str, Any]] = [
        ("colonyName", 1), ("specs", {}), ("specs", [{"maxWaitTimeMs": "x"}]), ("specs", [{"parentPolicy": "NONE"}]),
        ("specs", [{"args": [{"data": 1}]}]), ("specs", [{"priority": "1"}]), ("specs", [{"labels": {"a": 1}}]),
    ]  # fmt: skip
    for key, value in wrong:
        assert problems("scheduler.SubmitProcessesRequest", {**request, key: value}), (key, value)
    watch = {"colonyName": "acme", "processId": "p"}
    assert problems("scheduler.WatchProcessesRequest", watch) == []
    assert problems("scheduler.WatchProcessesRequest", {"colonyName": "acme"}) == []
    assert problems("scheduler.WatchProcessesRequest", {**watch, "workflowId": "w"})
    problem = Problem(503, "UNAVAILABLE", "m", "R", {"a": "b"}, retry_delay_s=0.5)
    assert problems("Error", problem.document()) == []
    assert problems("ErrorLine", json.loads(problem.line())) == []
    assert problems("Error", {"code": "X"})


def test_the_statuses_that_are_told_are_those_that_are_given() -> None:
    given = {code.name: status for code, status in HTTP_STATUS.items()}
    for status, code, _ in STATUSES:
        assert given[code] == status


def test_links_of_the_page_lead_somewhere(page: str) -> None:
    names = set(re.findall(r'id="([^"]+)"', page))
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) > 500
    assert set(links) <= names
    assert "<script" not in page
    assert len(names) == len(re.findall(r'id="', page))
