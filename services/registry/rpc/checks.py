"""Bounds of the messages that the registry carries without looking inside."""

from colonies.registry.v1 import registry_service_pb2 as pb
from servicekit.bounds import Bounds

MAX_GPU_KINDS = 100
MAX_COUNT = 1_000_000
MAX_LABELS = 100
MAX_ACCEPTS = 32
MAX_TYPES = 32
MAX_FUNCTIONS = 1_000
MAX_ARGUMENTS = 100
MAX_ENUM_VALUES = 100
MAX_TEXT_BYTES = 4 * 1024
MAX_NAME_BYTES = 256
MAX_MODEL_BYTES = 128
MAX_LABEL_VALUE_BYTES = 128

# How many values each operator takes.
VALUE_COUNTS = {
    pb.LABEL_OPERATOR_EQUALS: (1, 1),
    pb.LABEL_OPERATOR_IN: (1, 32),
    pb.LABEL_OPERATOR_EXISTS: (0, 0),
}


def check_capabilities(bounds: Bounds, field: str, capabilities: pb.Capabilities) -> None:
    """What an executor offers."""
    bounds.cpu(f"{field}.cpu", capabilities.cpu)
    bounds.quantity(f"{field}.memory", capabilities.memory)
    bounds.quantity(f"{field}.storage", capabilities.storage)
    bounds.count(f"{field}.gpus", capabilities.gpus, at_most=MAX_GPU_KINDS)
    for index, gpu in enumerate(capabilities.gpus[:MAX_GPU_KINDS]):
        bounds.printable(f"{field}.gpus[{index}].name", gpu.name, at_most=MAX_MODEL_BYTES)
        bounds.quantity(f"{field}.gpus[{index}].memory", gpu.memory)
        bounds.number(f"{field}.gpus[{index}].count", gpu.count, at_least=1, at_most=MAX_COUNT)
    bounds.number(f"{field}.nodes", capabilities.nodes, at_least=0, at_most=MAX_COUNT)
    bounds.number(f"{field}.processes", capabilities.processes, at_least=0, at_most=MAX_COUNT)
    bounds.count(f"{field}.labels", capabilities.labels, at_most=MAX_LABELS)
    if len(capabilities.labels) <= MAX_LABELS:
        for key, value in capabilities.labels.items():
            bounds.printable(f"{field}.labels", key, at_most=MAX_NAME_BYTES)
            bounds.printable(f"{field}.labels", value, at_most=MAX_NAME_BYTES, optional=True)
    bounds.count(f"{field}.accepts", capabilities.accepts, at_most=MAX_ACCEPTS)
    for index, requirement in enumerate(capabilities.accepts[:MAX_ACCEPTS]):
        _check_requirement(bounds, f"{field}.accepts[{index}]", requirement)


def _check_requirement(bounds: Bounds, field: str, requirement: pb.LabelRequirement) -> None:
    bounds.name(f"{field}.key", requirement.key)
    if requirement.operator not in VALUE_COUNTS:
        bounds.refuse(f"{field}.operator", f"must be EQUALS, IN or EXISTS; got {int(requirement.operator)}")
        return
    at_least, at_most = VALUE_COUNTS[requirement.operator]
    bounds.count(f"{field}.values", requirement.values, at_least=at_least, at_most=at_most)
    for index, value in enumerate(requirement.values[:at_most]):
        bounds.printable(f"{field}.values[{index}]", value, at_most=MAX_LABEL_VALUE_BYTES, optional=True)


def check_function(bounds: Bounds, field: str, function: pb.Function) -> None:
    """A function that an executor announces."""
    bounds.printable(f"{field}.name", function.name, at_most=MAX_NAME_BYTES)
    bounds.text(f"{field}.description", function.description, at_most=MAX_TEXT_BYTES)
    bounds.count(f"{field}.arguments", function.arguments, at_most=MAX_ARGUMENTS)
    for index, argument in enumerate(function.arguments[:MAX_ARGUMENTS]):
        _check_argument(bounds, f"{field}.arguments[{index}]", argument)


def _check_argument(bounds: Bounds, field: str, argument: pb.Argument) -> None:
    bounds.printable(f"{field}.name", argument.name, at_most=MAX_NAME_BYTES)
    bounds.printable(f"{field}.type", argument.type, at_most=MAX_NAME_BYTES, optional=True)
    bounds.text(f"{field}.description", argument.description, at_most=MAX_TEXT_BYTES)
    bounds.count(f"{field}.enum_values", argument.enum_values, at_most=MAX_ENUM_VALUES)
    for index, value in enumerate(argument.enum_values[:MAX_ENUM_VALUES]):
        bounds.text(f"{field}.enum_values[{index}]", value, at_most=MAX_NAME_BYTES)
