"""Matching: what a process needs, what an executor offers, and whether the one goes into what is left of the other.

Both have a canonical text, which is what lanes, rows and the queue's scripts carry: JSON with short keys, as `text` writes it.
Type, names and location of a process are not matched here; the queue's indexes do that.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

# Lua's numbers are exact up to here. What is more is cut.
LARGEST: Final = 2**53 - 1
# Distinct texts that are kept parsed. A text can have some 100 KiB at worst.
PARSED: Final = 1_024

EQUALS: Final = "="
IN: Final = "in"
EXISTS: Final = "?"

QUANTITY = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?([A-Za-z]{0,2})\Z")
BYTES: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
# Parts of a core: the unit is a thousandth.
CORES: Final = {"": 1_000, "m": 1}


class ConditionKind(IntEnum):
    """What can keep a process from an executor; numbers as in the protos."""

    EXECUTOR_TYPE = 1
    EXECUTOR_NAMES = 2
    LOCATION = 3
    CPU = 4
    MEMORY = 5
    STORAGE = 6
    GPU = 7
    NODES = 8
    PROCESSES = 9
    LABELS = 10
    ACCEPTS = 11


def cpu_of(text: str) -> int:
    """Thousandths of a core in a quantity such as "1000m", "2" or "1.5", rounded up; 0 for "".

    Raises:
        ValueError: it is no such quantity.
    """
    return _quantity(text, CORES)


def bytes_of(text: str) -> int:
    """Bytes in a quantity such as "10Gi", "1.5k" or "1000000", rounded up; 0 for "".

    Raises:
        ValueError: it is no such quantity.
    """
    return _quantity(text, BYTES)


@lru_cache(maxsize=PARSED)
def _read_quantity(text: str) -> tuple[int, int, str]:
    """Digits without the point, what to divide them by, and the unit."""
    match = QUANTITY.match(text)
    if match is None:
        msg = f"not a quantity: {text[:40]!r}"
        raise ValueError(msg)
    whole, part, unit = match[1], match[2] or "", match[3]
    return int(whole + part), 10 ** len(part), unit


def _quantity(text: str, units: Mapping[str, int]) -> int:
    if not text:
        return 0
    digits, divisor, unit = _read_quantity(text)
    if unit not in units:
        msg = f"not a unit of this quantity: {text[:40]!r}"
        raise ValueError(msg)
    return min(-(-digits * units[unit] // divisor), LARGEST)


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """What one label must be like. `operator` is EQUALS (one value), IN (some) or EXISTS (none)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels are like this; a label that is not there is not."""
        value = labels.get(self.key)
        return value is not None and (self.operator == EXISTS or value in self.values)

    def __str__(self) -> str:
        if self.operator == EXISTS:
            return self.key
        values = ", ".join(self.values)
        return f"{self.key} = {values}" if self.operator == EQUALS else f"{self.key} in ({values})"


@dataclass(frozen=True, slots=True)
class GpuNeeds:
    """Accelerators of one kind: how many, of which model ("" = any), with how much memory each (bytes, at least)."""

    count: int = 1
    name: str = ""
    memory: int = 0


@dataclass(frozen=True, slots=True)
class GpuKind:
    """Accelerators of one kind that an executor has: how many, of which model, with how much memory each (bytes)."""

    count: int
    memory: int
    name: str

    def suits(self, needs: GpuNeeds) -> bool:
        """Whether it is of the kind that is asked for, however many there are."""
        return needs.name in {"", self.name} and self.memory >= needs.memory


@dataclass(frozen=True, slots=True)
class Needs:
    """What a process needs beyond type, names and location. Processor in thousandths of a core, the others in bytes."""

    cpu: int = 0
    memory: int = 0
    storage: int = 0
    nodes: int = 0
    # Room for how many processes; unset is room for one.
    processes: int = 1
    gpu: GpuNeeds | None = None
    # What the executor's labels must be like: all of these.
    labels: tuple[Requirement, ...] = ()
    # The spec's own labels, by which executors choose.
    own: Mapping[str, str] = field(default_factory=dict, hash=False)

    @staticmethod
    def parse(text: str) -> "Needs":
        """The needs that have this text.

        Raises:
            ValueError: it is no such text.
        """
        return _needs_of(text)

    @property
    def text(self) -> str:
        """The canonical text; empty when nothing is needed."""
        parts: dict[str, Any] = {
            "c": self.cpu,
            "m": self.memory,
            "s": self.storage,
            "d": self.nodes,
            "p": self.processes if self.processes > 1 else 0,
            "g": _gpu_parts(self.gpu),
            "l": _listed(self.labels),
            "t": dict(self.own),
        }
        kept = {key: value for key, value in parts.items() if value}
        return _canonical(kept) if kept else ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What an executor offers in all; units as in Needs."""

    cpu: int = 0
    memory: int = 0
    storage: int = 0
    nodes: int = 0
    # 0 = no limit.
    processes: int = 0
    gpus: tuple[GpuKind, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    # What the labels of a spec must be like: all of these.
    accepts: tuple[Requirement, ...] = ()
    location: str = ""

    @staticmethod
    def parse(text: str) -> "Offer":
        """The offer that has this text; "" is the empty offer.

        Raises:
            ValueError: it is no such text.
        """
        return _offer_of(text)

    @property
    def text(self) -> str:
        """The canonical text; every key is there."""
        return _canonical(
            {
                "c": self.cpu,
                "m": self.memory,
                "s": self.storage,
                "d": self.nodes,
                "p": self.processes,
                "g": [{"k": gpu.count, "m": gpu.memory, "n": gpu.name} for gpu in self.gpus],
                "l": dict(self.labels),
                "a": _listed(self.accepts),
                "w": self.location,
            }
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What an executor's open attempts take; units as in Needs."""

    cpu: int = 0
    memory: int = 0
    storage: int = 0
    nodes: int = 0
    processes: int = 0
    # How many of each kind, by model and memory of each.
    gpus: Mapping[tuple[str, int], int] = field(default_factory=dict, hash=False)


NOTHING: Final = Usage()
NO_NEEDS: Final = Needs()


def requirements(items: Iterable[tuple[str, str, Iterable[str]]]) -> tuple[Requirement, ...]:
    """Requirements from key, operator and values, in canonical order: each once, and each value of it once."""
    return tuple(sorted({Requirement(key, operator, tuple(sorted(set(values)))) for key, operator, values in items}))


def kinds(gpus: Iterable[GpuKind]) -> tuple[GpuKind, ...]:
    """The kinds of accelerators, each once: those of one model and memory count together."""
    ordered = sorted(gpus, key=lambda one: (one.name, one.memory))
    grouped = groupby(ordered, key=lambda one: (one.name, one.memory))
    return tuple(GpuKind(sum(one.count for one in same), memory, name) for (name, memory), same in grouped)


def meets(offer: Offer, needs: Needs, used: Usage = NOTHING) -> bool:
    """Whether a process goes into what is left of an offer."""
    return next(_failures(offer, needs, used), None) is None


def static_failures(offer: Offer, needs: Needs) -> frozenset[ConditionKind]:
    """What keeps a process from an executor however idle it is; empty if nothing does."""
    return frozenset(_failures(offer, needs, NOTHING))


def _failures(offer: Offer, needs: Needs, used: Usage) -> Iterator[ConditionKind]:
    if needs.cpu > offer.cpu - used.cpu and needs.cpu:
        yield ConditionKind.CPU
    if needs.memory > offer.memory - used.memory and needs.memory:
        yield ConditionKind.MEMORY
    if needs.storage > offer.storage - used.storage and needs.storage:
        yield ConditionKind.STORAGE
    if needs.nodes > offer.nodes - used.nodes and needs.nodes:
        yield ConditionKind.NODES
    if offer.processes and offer.processes - used.processes < max(1, needs.processes):
        yield ConditionKind.PROCESSES
    if needs.gpu is not None and not any(_gives(kind, needs.gpu, used) for kind in offer.gpus):
        yield ConditionKind.GPU
    if needs.labels and not all(one.holds(offer.labels) for one in needs.labels):
        yield ConditionKind.LABELS
    if offer.accepts and not all(one.holds(needs.own) for one in offer.accepts):
        yield ConditionKind.ACCEPTS


def _gives(kind: GpuKind, needs: GpuNeeds, used: Usage) -> bool:
    return kind.suits(needs) and kind.count - used.gpus.get((kind.name, kind.memory), 0) >= needs.count


def _canonical(parts: Mapping[str, Any]) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def _listed(items: Iterable[Requirement]) -> list[list[str]]:
    return sorted([one.key, one.operator, *one.values] for one in items)


def _unlisted(items: Iterable[list[str]]) -> tuple[Requirement, ...]:
    return tuple(Requirement(key, operator, tuple(values)) for key, operator, *values in items)


def _gpu_parts(gpu: GpuNeeds | None) -> dict[str, Any] | None:
    if gpu is None:
        return None
    named = {"n": gpu.name, "m": gpu.memory}
    return {"k": gpu.count} | {key: value for key, value in named.items() if value}


@lru_cache(maxsize=PARSED)
def _needs_of(text: str) -> Needs:
    if not text:
        return NO_NEEDS
    parts = _parsed(text)
    gpu = parts.get("g")
    return Needs(
        cpu=parts.get("c", 0),
        memory=parts.get("m", 0),
        storage=parts.get("s", 0),
        nodes=parts.get("d", 0),
        processes=parts.get("p", 1),
        gpu=None if gpu is None else GpuNeeds(gpu["k"], gpu.get("n", ""), gpu.get("m", 0)),
        labels=_unlisted(parts.get("l", ())),
        own=parts.get("t", {}),
    )


@lru_cache(maxsize=PARSED)
def _offer_of(text: str) -> Offer:
    if not text:
        return Offer()
    parts = _parsed(text)
    return Offer(
        cpu=parts["c"],
        memory=parts["m"],
        storage=parts["s"],
        nodes=parts["d"],
        processes=parts["p"],
        gpus=tuple(GpuKind(gpu["k"], gpu["m"], gpu["n"]) for gpu in parts["g"]),
        labels=parts["l"],
        accepts=_unlisted(parts["a"]),
        location=parts["w"],
    )


def _parsed(text: str) -> dict[str, Any]:
    parts = json.loads(text)
    if not isinstance(parts, dict):
        msg = f"not an object: {text[:40]!r}"
        raise ValueError(msg)  # noqa: TRY004 the value is at fault, as for text that is no JSON
    return parts
