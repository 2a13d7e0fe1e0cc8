"""Templates that are filled with what a case has come to know, and patterns that answers are held against.

In a template, and in a pattern, "${name}" stands for a variable (as it is, if it is the whole text), "${name.0.field}" for a part
of one; and these objects for what would be long to write, or is written otherwise on the wire:

    {"$repeat": "text", "times": 3}     that text, so many times
    {"$list": item, "times": 3}         a list of the item, so many times
    {"$value": json}                    the Value message of a JSON value, {"$value_of": "text"} of bytes that are this text
    {"$hex": "text"}                    the UTF-8 bytes of a text, in hex
    {"$merge": [{...}, {...}]}          one object of several

In a pattern an object matches one that has at least these fields, a list one of as many items, each of which matches; all else
only what is equal to it, a number not a truth value. Further

    {"$any": true}                      anything; {"$absent": true}: a field that is not there, or empty
    {"$exact": {...}}                   an object that has these fields and no others
    {"$regex": "..."}                   a text in which it is found
    {"$keep": "name", "is": pattern}    what matches the pattern (anything, if there is none), and is a variable from then on
    {"$one_of": [pattern, ...]}         what matches one of them
    {"$some": pattern}                  a list that has a match for it; {"$all": [pattern, ...]}: what matches all of them
    {"$json": value}                    a text that is JSON and means this value
    {"$not": pattern}                   anything else
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Scope = dict[str, Any]

_NAME = re.compile(r"\$\{([a-z_]+(?:\.[A-Za-z0-9_]+)*)\}")


class MismatchError(AssertionError):
    """Something is not as it should be."""


def _look_up(path: str, scope: Mapping[str, Any]) -> Any:
    name, *rest = path.split(".")
    if name not in scope:
        msg = f"the case uses {name!r}, which nothing has set"
        raise KeyError(msg)
    value = scope[name]
    for part in rest:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _filled_text(text: str, scope: Mapping[str, Any]) -> Any:
    whole = _NAME.fullmatch(text)
    if whole is not None:
        return _look_up(whole[1], scope)
    return _NAME.sub(lambda found: str(_look_up(found[1], scope)), text)


def value_message(data: bytes) -> dict[str, str]:
    """A Value, in the proto3 JSON mapping."""
    return {"data": base64.b64encode(data).decode()}


_SHORT: Mapping[str, Callable[[Any, dict[str, Any]], Any]] = {
    "$repeat": lambda text, form: text * form["times"],
    "$list": lambda item, form: [item] * form["times"],
    "$value": lambda value, _form: value_message(compact(value).encode()),
    "$value_of": lambda text, _form: value_message(text.encode()),
    "$hex": lambda text, _form: text.encode().hex(),
    "$merge": lambda parts, _form: {name: value for part in parts for name, value in part.items()},
}


def compact(value: Any) -> str:
    """The shortest JSON of a value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def fill(template: Any, scope: Mapping[str, Any]) -> Any:
    """The template with its variables, and its short forms written out."""
    if isinstance(template, str):
        return _filled_text(template, scope)
    if isinstance(template, list):
        return [fill(each, scope) for each in template]
    if not isinstance(template, dict):
        return template
    filled = {_filled_text(key, scope): fill(each, scope) for key, each in template.items()}
    for name, made in _SHORT.items():
        if name in filled:
            return made(filled[name], filled)
    return filled


def match(pattern: Any, actual: Any, scope: Scope, path: str = "") -> None:
    """Holds something against a pattern.

    Raises:
        MismatchError: it does not match; says where, and what is there.
    """
    if isinstance(pattern, str):
        pattern = _filled_text(pattern, scope)
    if isinstance(pattern, dict):
        for name, operator in _OPERATORS.items():
            if name in pattern:
                operator(pattern, actual, scope, path)
                return
        if any(name in pattern for name in _SHORT):
            pattern = fill(pattern, scope)
    if isinstance(pattern, dict):
        _match_object(pattern, actual, scope, path)
    elif isinstance(pattern, list):
        _require(isinstance(actual, list), path, "a list", actual)
        _require(len(actual) == len(pattern), path, f"{len(pattern)} items", actual)
        for index, each in enumerate(pattern):
            match(each, actual[index], scope, f"{path}[{index}]")
    else:
        _require(_same(pattern, actual), path, repr(pattern), actual)


def matches(pattern: Any, actual: Any, scope: Scope) -> bool:
    """Whether it matches; variables are kept only if it does."""
    tried = dict(scope)
    try:
        match(pattern, actual, tried)
    except MismatchError:
        return False
    scope.update(tried)
    return True


def shown(value: Any, most: int = 400) -> str:
    """A value for a message, cut."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _require(holds: bool, path: str, wanted: str, actual: Any) -> None:
    if not holds:
        msg = f"{path or 'it'} is {shown(actual)}, not {shown(wanted)}"
        raise MismatchError(msg)


def _same(wanted: Any, actual: Any) -> bool:
    """Whether two JSON values are the same; Python takes True for 1."""
    if isinstance(wanted, bool) or isinstance(actual, bool):
        return wanted is actual
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(wanted) == len(actual) and all(map(_same, wanted, actual))
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return wanted.keys() == actual.keys() and all(_same(wanted[key], actual[key]) for key in wanted)
    return bool(wanted == actual)


def _match_object(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    _require(isinstance(actual, dict), path, "an object", actual)
    for key, each in pattern.items():
        name = _filled_text(key, scope)
        if isinstance(each, dict) and "$absent" in each:
            _require(not actual.get(name), f"{path}.{name}", "absent", actual.get(name))
            continue
        if name not in actual:
            msg = f"{path or 'it'} has no {name!r}: {shown(actual)}"
            raise MismatchError(msg)
        match(each, actual[name], scope, f"{path}.{name}")


def _match_exact(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    _match_object(pattern["$exact"], actual, scope, path)
    more = actual.keys() - {_filled_text(key, scope) for key in pattern["$exact"]}
    _require(not more, path, f"without {sorted(more)}", actual)


def _match_regex(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    wanted = _filled_text(pattern["$regex"], scope)
    _require(isinstance(actual, str) and re.search(wanted, actual) is not None, path, f"a match of {wanted!r}", actual)


def _match_kept(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    match(pattern.get("is", {"$any": True}), actual, scope, path)
    scope[pattern["$keep"]] = actual


def _match_one_of(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    found = any(matches(each, actual, scope) for each in fill(pattern["$one_of"], scope))
    _require(found, path, f"one of {pattern['$one_of']}", actual)


def _match_some(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    found = isinstance(actual, list) and any(matches(pattern["$some"], each, scope) for each in actual)
    _require(found, path, f"a list with {pattern['$some']}", actual)


def _match_all(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    for each in pattern["$all"]:
        match(each, actual, scope, path)


def _match_json(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    try:
        meant = json.loads(actual)
    except (TypeError, ValueError):
        _require(False, path, "JSON", actual)
    wanted = fill(pattern["$json"], scope)
    _require(_same(wanted, meant), path, f"JSON of {shown(wanted)}", actual)


def _match_not(pattern: dict[str, Any], actual: Any, scope: Scope, path: str) -> None:
    _require(not matches(pattern["$not"], actual, scope), path, f"not {pattern['$not']}", actual)


_OPERATORS: Mapping[str, Callable[[dict[str, Any], Any, Scope, str], None]] = {
    "$any": lambda _pattern, _actual, _scope, _path: None,
    "$exact": _match_exact,
    "$regex": _match_regex,
    "$keep": _match_kept,
    "$one_of": _match_one_of,
    "$some": _match_some,
    "$all": _match_all,
    "$json": _match_json,
    "$not": _match_not,
}
