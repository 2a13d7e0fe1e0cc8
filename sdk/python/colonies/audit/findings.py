"""What a check of an audit file found: each finding names the line, and what that line is about."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

DEFAULT_MAX_FINDINGS = 20


class Kind(StrEnum):
    """What is wrong, in a word; programs may depend on these."""

    # A line is not what was written: its digest does not fit. Nothing more is said about such a file.
    DAMAGED = "DAMAGED"
    # A line is no record of this format, or not where it belongs.
    MALFORMED = "MALFORMED"
    # The end of the file is not vouched for, or not by somebody trusted.
    SEAL = "SEAL"
    # A call or a proof was not signed by whom it names.
    SIGNATURE = "SIGNATURE"
    # Who signed was not, or not then, who may.
    MEMBERSHIP = "MEMBERSHIP"
    # A hash does not follow from the one before.
    CHAIN = "CHAIN"
    # A process went where it cannot go.
    TRANSITION = "TRANSITION"
    # An event is not what its call asked for.
    CALL = "CALL"
    # What the header promises is not there, or something else is.
    SCOPE = "SCOPE"
    # An earlier file tells something else, or more of what is there.
    HISTORY = "HISTORY"
    # An earlier file has a process of which this one has nothing: retention and removals do that too, so it is no defect yet.
    GONE = "GONE"
    # Nothing is wrong, but nothing proves it: from before calls were kept.
    NOT_PROVEN = "NOT_PROVEN"


WARNINGS = frozenset({Kind.GONE, Kind.NOT_PROVEN})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `line` counts from 1; `where` says what the line is about."""

    line: int
    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.where}: {self.message}"


class TooMany(Exception):
    """There are as many findings as were asked for."""


@dataclass(slots=True)
class Report:
    """What came of a check. `findings` are defects; `warnings` is what could not be proven: `unproven` says how often."""

    cluster: str = ""
    colony: str = ""
    owner: str = ""
    # What was asked for, as the header has it.
    scope: Mapping[str, Any] = field(default_factory=dict)
    sealed_by: str = ""
    sealed_at_ms: int = 0
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    # More than these were not looked for.
    stopped: bool = False
    unproven: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    max_findings: int = DEFAULT_MAX_FINDINGS

    def found(self, line: int, kind: Kind, where: str, message: str) -> None:
        """Notes a defect, or what is not proven.

        Raises:
            TooMany: this was the last one wanted.
        """
        if kind in WARNINGS:
            self.unproven += 1
            if len(self.warnings) < self.max_findings:
                self.warnings.append(Finding(line, kind, where, message))
            return
        self.findings.append(Finding(line, kind, where, message))
        if len(self.findings) >= self.max_findings:
            self.stopped = True
            raise TooMany

    def intact(self, *, strict: bool = False) -> bool:
        """Whether the file proves what it says; with `strict`, all of it."""
        return not self.findings and not (strict and self.unproven)
