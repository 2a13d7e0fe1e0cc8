"""A dataclass of options as one parameter of a command."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints


def spread(
    kind: type, parameter: str, described: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command all the fields of a dataclass as options, in place of the parameter that takes the object itself.

    Args:
        kind: the dataclass; its fields are annotated as a command's parameters are.
        parameter: the name of the command's parameter.
        described: annotations by which the command describes some of the fields in its own way.
    """
    hints = {**get_type_hints(kind, include_extras=True), **(described or {})}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        taken = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=hints[each.name],
                **({} if each.default is MISSING else {"default": each.default}),
            )
            for each in fields(kind)
        ]
        # What Typer reads; it wants the context first, and options in the order of the help.
        signature: list[inspect.Parameter] = []
        for each in inspect.signature(command).parameters.values():
            signature += taken if each.name == parameter else [each.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = kind(**{each.name: given.pop(each.name) for each in fields(kind)})
            command(**{parameter: made}, **given)

        run.__dict__["__signature__"] = inspect.Signature(signature)
        return run

    return decorate
