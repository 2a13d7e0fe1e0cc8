"""What a service expects of another one, as its own folder has it: files of calls, and of what must come of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

import colonies.auth.v1.auth_service_pb2
import colonies.cron.v1.cron_service_pb2
import colonies.cron.v1.generator_service_pb2
import colonies.registry.v1.registry_service_pb2
import colonies.scheduler.v1.scheduler_service_pb2  # noqa: F401 - each brings its service into the pool

ROOT = Path(__file__).resolve().parents[3]
JSON_TWIN = "+json"

Step = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One thing that the consumer relies on: steps, the first before the second."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Expectations:
    """One file: what one consumer expects of one provider. Calls without an `as` are made by `caller`."""

    consumer: str
    provider: str
    caller: str
    all: tuple[Expectation, ...]

    def own_steps(self) -> Iterator[Step]:
        """What the consumer itself does: calls and streams."""
        for expectation in self.all:
            for step in expectation.steps:
                if path_of(step) and step.get("as", self.caller) == self.caller:
                    yield step


def path_of(step: Step) -> str:
    """The method that a step calls, as gRPC spells it; empty for none."""
    return str(step.get("call") or step.get("watch") or "")


def method_of(path: str) -> MethodDescriptor:
    """What is called."""
    service, _, name = path.removesuffix(JSON_TWIN).removeprefix("/").rpartition("/")
    found: MethodDescriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return found


def parsed(text: str) -> Expectations:
    """What a file says."""
    document = json.loads(text)
    return Expectations(
        consumer=document["consumer"],
        provider=document["provider"],
        caller=document["as"],
        all=tuple(Expectation(one["name"], tuple(one["steps"])) for one in document["expectations"]),
    )


def all_expectations() -> list[Expectations]:
    """Every file of every consumer."""
    paths = [*ROOT.glob("services/*/expects/*.json"), *ROOT.glob("servicekit/expects/*.json")]
    return [parsed(path.read_text(encoding="utf-8")) for path in sorted(paths)]
