"""How functions are announced and called."""

from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest

from colonies import Context
from colonies.executor.offers import CallMismatchError, Offer


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def everything(  # type: ignore[no-untyped-def]
    a: int,
    b: "float",
    ctx: Context,
    *rest: str,
    c: Literal["x", "y"] = "x",
    d: Optional[Literal[1, 2]] = None,  # noqa: UP045 - both spellings must work
    e: list[int] | None = None,
    f: dict[str, int] = {},  # noqa: B006 - only announced
    g: Colour = Colour.RED,
    h: Annotated[bool, "meta"] = True,
    i: Any = None,
    j=0,  # noqa: ANN001 - an argument may come without
    **more: bytes,
) -> None:
    """Does everything.

    And more.
    """


def test_announced_arguments() -> None:
    message = Offer.of(everything).to_message()
    assert message.name == "everything"
    assert message.description == "Does everything.\n\nAnd more."
    assert [(each.name, each.type, each.required, list(each.enum_values)) for each in message.arguments] == [
        ("a", "integer", True, []),
        ("b", "number", True, []),
        ("*rest", "string", False, []),
        ("c", "string", False, ["x", "y"]),
        ("d", "integer | null", False, ["1", "2"]),
        ("e", "array | null", False, []),
        ("f", "object", False, []),
        ("g", inspected(Colour), False, ["red", "blue"]),
        ("h", "boolean", False, []),
        ("i", "any", False, []),
        ("j", "", False, []),
        ("**more", "bytes", False, []),
    ]


def inspected(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def test_an_annotation_that_python_cannot_resolve_does_no_harm() -> None:
    def odd(x: "Missing", y: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert [(each.name, each.type) for each in Offer.of(odd).to_message().arguments] == [("x", "Missing"), ("y", "integer")]


def test_texts_fit_their_bounds() -> None:
    def wordy(x: "int") -> None: ...

    wordy.__doc__ = "ä" * 10_000
    assert len(Offer.of(wordy).to_message().description.encode()) <= 4096


def first(ctx: Context, x: int) -> tuple[str, int]:
    return ctx.process_id, x


def last(x: int, ctx: Context | None = None) -> tuple[str, int]:
    assert ctx is not None
    return ctx.process_id, x


def keyword(x: int, *, ctx: Context) -> tuple[str, int]:
    return ctx.process_id, x


def after_rest(*rest: int, ctx: Context) -> tuple[str, int]:
    return ctx.process_id, rest[0]


def positional_only(ctx: Context, /, x: int) -> tuple[str, int]:
    return ctx.process_id, x


@pytest.mark.parametrize("fn", [first, last, keyword, after_rest, positional_only])
def test_the_context_comes_where_it_is_wanted(fn: Any) -> None:
    assert Offer.of(fn).bind([4], {}, Context(process_id="p"))() == ("p", 4)


@pytest.mark.parametrize("fn", [first, last, keyword, positional_only])
def test_the_context_comes_beside_keyword_arguments(fn: Any) -> None:
    assert Offer.of(fn).bind([], {"x": 4}, Context(process_id="p"))() == ("p", 4)


@pytest.mark.parametrize(("args", "kwargs"), [([], {}), ([1, 2], {}), ([1], {"x": 1}), ([1], {"y": 1})])
def test_arguments_that_do_not_fit_are_told(args: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(CallMismatchError, match=r"^first\(x: int\) cannot be called like this: "):
        Offer.of(first).bind(args, kwargs, Context())


def test_what_has_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name="):
        Offer.of(lambda: None)
    assert Offer.of(lambda: None, name="nothing").name == "nothing"


def test_a_callable_object() -> None:
    class Adder:
        async def __call__(self, x: int) -> int:
            return x

    offer = Offer.of(Adder(), name="add")
    assert offer.is_async
    assert [(each.name, each.type) for each in offer.to_message().arguments] == [("x", "integer")]
