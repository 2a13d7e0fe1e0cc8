"""What a service calls of others, read from its sources: no call can be made without a stub, or a method by its name."""

import ast
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from tests.contract.services.expectations import ROOT

SERVICES: dict[str, ServiceDescriptor] = {
    f"{service.name}Stub": service
    for module in (auth, cron, generator, registry, scheduler)
    for service in module.DESCRIPTOR.services_by_name.values()
}
# A channel's call by any of these goes past the stubs. A handler of calls has two of them as well.
HANDLER = "handler"
BARE_CALLS = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})


def sources(consumer: str) -> list[Path]:
    """A consumer's modules."""
    folder = ROOT / consumer if consumer == "servicekit" else ROOT / "services" / consumer
    return sorted(folder.rglob("*.py"))


def called(source: str) -> Iterator[str]:
    """The methods that a module calls, as gRPC spells them."""
    tree = ast.parse(source)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    services = [SERVICES[name] for name in imported & set(SERVICES)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            for service in services:
                if node.attr in service.methods_by_name:
                    yield f"/{service.full_name}/{node.attr}"


def bare_calls(source: str) -> Iterator[str]:
    """Calls of a module that name their method otherwise."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in BARE_CALLS:
            of = node.value
            if not (isinstance(of, ast.Name) and of.id == HANDLER):
                yield node.attr


def reasons_decided_on(source: str, constants: dict[str, str]) -> Iterator[str]:
    """The reasons that a module compares another service's failure with; `constants` has those that it names."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if not any(isinstance(side, ast.Attribute) and side.attr == "reason" for side in sides):
            continue
        for part in (part for side in sides for part in ast.walk(side)):
            if isinstance(part, ast.Name) and part.id in constants:
                yield constants[part.id]
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
                yield part.value


def constants_of(paths: list[Path]) -> dict[str, str]:
    """Texts that a consumer's modules give names to."""
    found: dict[str, str] = {}
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found
