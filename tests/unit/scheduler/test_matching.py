"""Matching: quantities are exact, texts are canonical, and more on offer never turns a process away."""

import dataclasses
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.matching import (
    BYTES,
    EQUALS,
    EXISTS,
    IN,
    LARGEST,
    ConditionKind,
    GpuKind,
    GpuNeeds,
    Needs,
    Offer,
    Requirement,
    Usage,
    bytes_of,
    cpu_of,
    kinds,
    meets,
    requirements,
    static_failures,
)

keys = st.sampled_from(["os", "arch", "site", "tier"])
values = st.sampled_from(["linux", "arm64", "north", "é", 'a"b', ""])
labels = st.dictionaries(keys, values, max_size=4)
requirement = st.one_of(
    st.tuples(keys, st.just(EQUALS), st.tuples(values)),
    st.tuples(keys, st.just(IN), st.lists(values, min_size=1, max_size=3).map(tuple)),
    st.tuples(keys, st.just(EXISTS), st.just(())),
)
several = st.lists(requirement, max_size=3).map(requirements)
small = st.integers(0, 5)
models = st.sampled_from(["a100", "h100"])
gpu_needs = st.none() | st.builds(GpuNeeds, st.integers(1, 4), st.just("") | models, small)
gpu_kinds = st.lists(st.builds(GpuKind, st.integers(1, 4), small, models), max_size=3).map(kinds)
needs_ = st.builds(Needs, small, small, small, small, st.integers(1, 4), gpu_needs, several, labels)
offers = st.builds(Offer, small, small, small, small, small, gpu_kinds, labels, several, st.just("here") | st.just(""))
used_ = st.builds(
    Usage, small, small, small, small, small, st.dictionaries(st.tuples(models, small), st.integers(0, 4), max_size=3)
)
numbers = st.tuples(st.integers(0, 10**15 - 1), st.integers(0, 3), st.integers(0, 999))


def written(whole: int, places: int, part: int) -> str:
    return str(whole) if not places else f"{whole}.{str(part)[:places].zfill(places)}"


@given(numbers, st.sampled_from(sorted(BYTES)))
def test_bytes_are_those_of_the_fraction_rounded_up(number: tuple[int, int, int], unit: str) -> None:
    text = written(*number)
    exact = Fraction(text) * BYTES[unit]
    assert bytes_of(text + unit) == min(-(-exact.numerator // exact.denominator), LARGEST)


@given(numbers)
def test_cores_are_those_of_the_fraction_rounded_up(number: tuple[int, int, int]) -> None:
    text = written(*number)
    exact = Fraction(text) * 1_000
    assert cpu_of(text) == min(-(-exact.numerator // exact.denominator), LARGEST)
    assert cpu_of(f"{number[0]}m") == min(number[0], LARGEST)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 0),
        ("10Gi", 10 * 2**30),
        ("1.5k", 1_500),
        ("512Mi", 2**29),
        ("1000000", 10**6),
        ("0.001", 1),
        ("9999999Ti", LARGEST),
    ],
)
def test_quantities_of_bytes(text: str, found: int) -> None:
    assert bytes_of(text) == found


@pytest.mark.parametrize("text", ["-1", "1.", ".5", "1e3", "1 Gi", "Gi", "1m", "1GiB", "１", "1\n", "9" * 31])
def test_what_is_no_quantity_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        bytes_of(text)


@pytest.mark.parametrize("text", ["1Gi", "1k", "m", "1.5.5", "NaN"])
def test_what_is_no_quantity_of_processor(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        cpu_of(text)


@given(needs_)
def test_needs_are_what_their_text_says(needs: Needs) -> None:
    assert Needs.parse(needs.text) == needs
    assert Needs.parse(needs.text).text == needs.text


@given(offers)
def test_an_offer_is_what_its_text_says(offer: Offer) -> None:
    assert Offer.parse(offer.text) == offer
    assert Offer.parse(offer.text).text == offer.text
    assert set(json.loads(offer.text)) == set("cmsdpglaw")


def test_texts_are_spelled_as_the_scripts_read_them() -> None:
    assert Needs().text == ""
    assert Needs(processes=1).text == ""
    wanted = requirements([("os", IN, ["b", "a", "b"]), ("arch", EXISTS, []), ("os", EQUALS, ["a"]), ("arch", EXISTS, [])])
    needs = Needs(1500, 2**30, 0, 2, 4, GpuNeeds(2, "A100", 5), wanted, {"team": "x"})
    assert needs.text == (
        '{"c":1500,"d":2,"g":{"k":2,"m":5,"n":"A100"},"l":[["arch","?"],["os","=","a"],["os","in","a","b"]],'
        '"m":1073741824,"p":4,"t":{"team":"x"}}'
    )
    assert Needs(gpu=GpuNeeds()).text == '{"g":{"k":1}}'
    offer = Offer(gpus=(GpuKind(8, 80, "A100"),), labels={"os": "a"}, accepts=wanted[:1], location="lund")
    assert (
        offer.text
        == '{"a":[["arch","?"]],"c":0,"d":0,"g":[{"k":8,"m":80,"n":"A100"}],"l":{"os":"a"},"m":0,"p":0,"s":0,"w":"lund"}'
    )


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_what_is_no_text_of_needs_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Needs.parse(text)


def test_accelerators_of_one_kind_count_together() -> None:
    given_kinds = [GpuKind(2, 40, "b"), GpuKind(1, 80, "a"), GpuKind(3, 40, "b")]
    assert kinds(given_kinds) == (GpuKind(1, 80, "a"), GpuKind(5, 40, "b"))


@given(needs_, used_)
def test_what_needs_nothing_of_a_kind_is_not_kept_out_by_it(needs: Needs, used: Usage) -> None:
    """Even where more is in use than is offered now."""
    bare = Needs(own=needs.own)
    assert meets(Offer(), bare, used)


@given(offers, needs_, used_)
def test_less_in_use_never_turns_away(offer: Offer, needs: Needs, used: Usage) -> None:
    if meets(offer, needs, used):
        assert meets(offer, needs)
        assert not static_failures(offer, needs)


@given(offers, needs_, used_, st.sampled_from(["cpu", "memory", "storage", "nodes"]), small)
def test_more_on_offer_never_turns_away(offer: Offer, needs: Needs, used: Usage, name: str, more: int) -> None:
    larger = dataclasses.replace(offer, **{name: getattr(offer, name) + more})
    assert meets(larger, needs, used) >= meets(offer, needs, used)
    assert static_failures(larger, needs) <= static_failures(offer, needs)
    without_limit = dataclasses.replace(offer, processes=0, accepts=(), gpus=kinds([*offer.gpus, GpuKind(more + 1, 9, "h100")]))
    assert meets(without_limit, needs, used) >= meets(offer, needs, used)


@given(offers, needs_, used_)
def test_meets_is_what_the_rules_say(offer: Offer, needs: Needs, used: Usage) -> None:
    """The rules once more, spelled as plainly as can be."""
    left = {name: getattr(offer, name) - getattr(used, name) for name in ("cpu", "memory", "storage", "nodes")}
    plain = all(getattr(needs, name) == 0 or left[name] >= getattr(needs, name) for name in left)
    room = offer.processes == 0 or offer.processes - used.processes >= max(1, needs.processes)
    gpu = needs.gpu is None or any(
        (not needs.gpu.name or kind.name == needs.gpu.name)
        and kind.memory >= needs.gpu.memory
        and kind.count - used.gpus.get((kind.name, kind.memory), 0) >= needs.gpu.count
        for kind in offer.gpus
    )

    def all_hold(wanted: tuple[Requirement, ...], has: Any) -> bool:
        return all(one.key in has and (one.operator == EXISTS or has[one.key] in one.values) for one in wanted)

    matched = all_hold(needs.labels, offer.labels) and all_hold(offer.accepts, needs.own)
    assert meets(offer, needs, used) == (plain and room and gpu and matched)


def test_accelerators_must_be_of_one_kind() -> None:
    offer = Offer(gpus=(GpuKind(2, 40, "a"), GpuKind(2, 80, "b")))
    assert meets(offer, Needs(gpu=GpuNeeds(2)))
    assert static_failures(offer, Needs(gpu=GpuNeeds(3))) == {ConditionKind.GPU}
    assert meets(offer, Needs(gpu=GpuNeeds(2)), Usage(gpus={("a", 40): 1}))
    assert not meets(offer, Needs(gpu=GpuNeeds(2)), Usage(gpus={("a", 40): 1, ("b", 80): 1}))
    assert not meets(offer, Needs(gpu=GpuNeeds(1, memory=60)), Usage(gpus={("b", 80): 2}))


def test_what_fails_is_named() -> None:
    needs = Needs(1, 1, 1, 1, 2, GpuNeeds(), requirements([("os", EXISTS, [])]))
    offer = Offer(processes=1, accepts=requirements([("team", EXISTS, [])]))
    assert static_failures(offer, needs) == {
        ConditionKind.CPU,
        ConditionKind.MEMORY,
        ConditionKind.STORAGE,
        ConditionKind.NODES,
        ConditionKind.PROCESSES,
        ConditionKind.GPU,
        ConditionKind.LABELS,
        ConditionKind.ACCEPTS,
    }


@pytest.mark.parametrize(
    ("item", "words"),
    [((("os", EQUALS, ["a"])), "os = a"), (("os", IN, ["b", "a"]), "os in (a, b)"), (("os", EXISTS, []), "os")],
)
def test_a_requirement_in_words(item: tuple[str, str, list[str]], words: str) -> None:
    assert str(requirements([item])[0]) == words
