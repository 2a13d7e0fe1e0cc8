"""Templates of messages in JSON: filled to be sent, and compared with what came.

"${name}"             a name for a value: what it is first, it must be again; sent before it was seen, it is a new UUID
"${identity:alice}"   the identity of somebody's key
{"$like": value}      something of this type that is not empty; a stand-in answers this very value
{"$signed": {...}}    a signed call: `by`, `method`, `request`
null                  not there
{...}                 has these fields, and perhaps others
"""

import re
import uuid
from collections.abc import Callable
from typing import Any

from colonies.keys import PrivateKey
from tests.harness.keys import key_of

NAME = re.compile(r"\$\{([^}]+)\}")
IDENTITY = "identity:"
OTHER_NAMES = {"owner": "owner of acme"}


class MismatchError(AssertionError):
    """What came is not what was expected."""


def key_named(name: str) -> PrivateKey:
    """The key of a caller in the files."""
    return key_of(OTHER_NAMES.get(name, name))


class Names:
    """The values that names stand for, in one expectation."""

    def __init__(self, signed: Callable[[dict[str, Any]], Any] | None = None) -> None:
        """`signed` makes a signed call of what `$signed` says."""
        self._values: dict[str, Any] = {}
        self._signed = signed

    def _value(self, name: str) -> Any:
        if name.startswith(IDENTITY):
            return key_named(name.removeprefix(IDENTITY)).identity
        return self._values.get(name)

    def filled(self, template: Any) -> Any:
        """The template with values in place of names."""
        match template:
            case {"$like": sample}:
                return sample
            case {"$signed": call}:
                return self._signed(call) if self._signed else {}
            case dict():
                return {key: self.filled(value) for key, value in template.items() if value is not None}
            case list():
                return [self.filled(value) for value in template]
            case str():
                return NAME.sub(lambda found: str(self._known(found[1])), template)
        return template

    def _known(self, name: str) -> Any:
        value = self._value(name)
        if value is None:
            value = self._values[name] = str(uuid.uuid4())
        return value

    def match(self, template: Any, actual: Any, where: str = "response", *, whole: bool = False) -> None:
        """Compares.

        Args:
            template: what is expected.
            actual: what came.
            where: its name in the error.
            whole: there may be no other fields than those expected.

        Raises:
            MismatchError: they differ; names the place.
        """
        match template:
            case None:
                _must(actual in (None, "", [], {}, False, 0), where, "nothing", actual)
            case {"$like": sample}:
                _must(type(actual) is type(sample) and bool(actual), where, f"something like {sample!r}", actual)
            case {"$signed": call}:
                method = actual.get("method") if isinstance(actual, dict) else None
                _must(method == call["method"], where, f"a signed {call['method']}", actual)
            case dict():
                _must(isinstance(actual, dict), where, template, actual)
                extra = set(actual) - set(template) if whole else set()
                _must(not extra, where, "no other fields", sorted(extra))
                for key, value in template.items():
                    self.match(value, actual.get(key), f"{where}.{key}", whole=whole)
            case list():
                _must(isinstance(actual, list) and len(actual) == len(template), where, template, actual)
                for index, value in enumerate(template):
                    self.match(value, actual[index], f"{where}[{index}]", whole=whole)
            case str() if (found := NAME.fullmatch(template)) and self._value(found[1]) is None:
                _must(bool(actual), where, template, actual)
                self._values[found[1]] = actual
            case str():
                _must(self.filled(template) == actual, where, self.filled(template), actual)
            case _:
                _must(template == actual and type(template) is type(actual), where, template, actual)


def _must(holds: bool, where: str, expected: Any, actual: Any) -> None:
    if not holds:
        msg = f"{where}: expected {expected!r}, and it is {actual!r}"[:2000]
        raise MismatchError(msg)
