"""Functions that an executor offers: how they are announced, and how they are called."""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union

from colonies.executor.context import Context
from colonies.executor.text import bounded
from colonies.registry.v1 import registry_service_pb2 as registry

MAX_DESCRIPTION_BYTES = 4 * 1024
MAX_TYPE_BYTES = 256
MAX_ARGUMENTS = 100
MAX_ENUM_VALUES = 100
MAX_ENUM_BYTES = 256

# Words that people and forms in any language understand.
_TYPE_WORDS: Mapping[object, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    bytes: "bytes",
    list: "array",
    tuple: "array",
    dict: "object",
    type(None): "null",
    None: "null",
    Any: "any",
}


_PREFIXES: Mapping[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class CallMismatchError(Exception):
    """The arguments of a call do not fit the function."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A function under the name that it is called by."""

    name: str
    fn: Callable[..., Any]
    description: str
    retry_on: tuple[type[BaseException], ...]
    signature: inspect.Signature
    hints: Mapping[str, Any]
    # Name of the parameter that takes the Context, if there is one.
    context_parameter: str | None
    # Whether it runs in the event loop.
    is_async: bool
    # How many arguments it takes by position at least and at most; None where counting does not tell whether they fit.
    counts: tuple[int, float] | None

    @classmethod
    def of(
        cls,
        fn: Callable[..., Any],
        *,
        name: str = "",
        description: str = "",
        retry_on: Sequence[type[BaseException]] = (),
    ) -> "Offer":
        """An offer of a callable.

        Raises:
            ValueError: it has no name, or no signature that Python can tell.
        """
        chosen = name or getattr(fn, "__name__", "")
        if not chosen or chosen == "<lambda>":
            msg = f"{fn!r} has no name to be called by: pass name=..."
            raise ValueError(msg)
        hints = _hints(fn)
        signature = inspect.signature(fn)
        takers = [key for key in signature.parameters if _is_context(hints.get(key))]
        return cls(
            name=chosen,
            fn=fn,
            description=bounded(description or inspect.getdoc(fn) or "", MAX_DESCRIPTION_BYTES),
            retry_on=tuple(retry_on),
            signature=signature,
            hints=hints,
            context_parameter=takers[0] if takers else None,
            is_async=_is_async(fn),
            counts=None if takers else _counts(signature),
        )

    def to_message(self) -> registry.Function:
        """What is announced."""
        arguments = [
            self._argument(parameter)
            for parameter in self.signature.parameters.values()
            if parameter.name != self.context_parameter
        ]
        return registry.Function(name=self.name, description=self.description, arguments=arguments[:MAX_ARGUMENTS])

    def _argument(self, parameter: inspect.Parameter) -> registry.Argument:
        prefix = _PREFIXES.get(parameter.kind, "")
        hint = self.hints.get(parameter.name, parameter.annotation)
        return registry.Argument(
            name=prefix + parameter.name,
            type=bounded(_type_word(hint), MAX_TYPE_BYTES),
            required=parameter.default is parameter.empty and not prefix,
            enum_values=_enum_values(hint),
        )

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any], context: Context | None) -> Callable[[], Any]:
        """The call with these arguments, and with the context where the function wants it.

        Raises:
            CallMismatchError: they do not fit its signature.
        """
        if not kwargs and self.counts is not None and self.counts[0] <= len(args) <= self.counts[1]:
            return functools.partial(self.fn, *args)
        positional, named = list(args), dict(kwargs)
        if self.context_parameter is not None:
            self._insert(context, positional, named)
        try:
            self.signature.bind(*positional, **named)
        except TypeError as error:
            msg = f"{self._shape} cannot be called like this: {error}"
            raise CallMismatchError(msg) from None
        return functools.partial(self.fn, *positional, **named)

    @property
    def _shape(self) -> str:
        """The function as its caller sees it."""
        parameters = [each for name, each in self.signature.parameters.items() if name != self.context_parameter]
        return f"{self.name}{self.signature.replace(parameters=parameters, return_annotation=self.signature.empty)}"

    def _insert(self, context: Context | None, positional: list[Any], named: dict[str, Any]) -> None:
        name = typing.cast("str", self.context_parameter)
        parameter = self.signature.parameters[name]
        place = list(self.signature.parameters).index(name)
        by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if by_position and place <= len(positional):
            positional.insert(place, context)
        else:
            named[name] = context


def _is_async(fn: Callable[..., Any]) -> bool:
    call = type(fn).__call__  # of an object that is callable, and of no interest for a function
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)


def _counts(signature: inspect.Signature) -> tuple[int, float] | None:
    least, most = 0, 0.0
    for parameter in signature.parameters.values():
        needed = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            least += needed
            most += 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind is parameter.KEYWORD_ONLY and needed:
            return None
    return least, most


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn if inspect.isroutine(fn) else type(fn).__call__)
    except (NameError, TypeError, AttributeError):
        # An annotation that only a type checker can resolve: what Python has of the others must do.
        return {key: value for key, value in getattr(fn, "__annotations__", {}).items() if not isinstance(value, str)}


def _is_context(hint: object) -> bool:
    return hint is Context or Context in typing.get_args(hint)


def _type_word(hint: Any) -> str:
    if hint is inspect.Parameter.empty:
        return ""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " | ".join(dict.fromkeys(_type_word(type(value)) for value in typing.get_args(hint)))
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type_word(member) for member in typing.get_args(hint)))
    if origin is typing.Annotated:
        return _type_word(typing.get_args(hint)[0])
    known = _TYPE_WORDS.get(origin or hint) if _is_hashable(hint) else None
    return known or (hint if isinstance(hint, str) else inspect.formatannotation(hint))


def _is_hashable(hint: object) -> bool:
    return getattr(type(hint), "__hash__", None) is not None


def _enum_values(hint: Any) -> list[str]:
    """The few values that an argument can have: of a Literal, also one that may be None, or of an Enum."""
    members: list[Any] = []
    for part in typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,):
        if typing.get_origin(part) is Literal:
            members += typing.get_args(part)
        elif isinstance(part, type) and issubclass(part, Enum):
            members += [member.value for member in part]
        elif part is not type(None):
            return []
    texts = [str(member) for member in members]
    fits = len(texts) <= MAX_ENUM_VALUES and all(len(text.encode("utf-8", "replace")) <= MAX_ENUM_BYTES for text in texts)
    return texts if fits else []
