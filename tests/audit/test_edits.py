"""A file of many workflows: any single edit is found, at the line where it was made, and the event there is named."""

import io
import os
from dataclasses import dataclass

import pytest

from colonies.audit.findings import Kind
from colonies.audit.records import decoded, label
from colonies.audit.trust import Trust
from colonies.audit.verify import verify
from tests.audit.edits import EDITS, Edit, random_edit
from tests.audit.stories import told

# `make test-audit` sets a thousand.
WORKFLOWS = int(os.environ.get("COLONIES_TEST_WORKFLOWS", "200"))
RANDOM_EDITS = 1_000
SEEDS = range(20_261_123, 20_261_123 + RANDOM_EDITS)


@dataclass(frozen=True)
class Intact:
    """A file, whom its reader trusts, and what its lines are about."""

    data: bytes
    trust: Trust
    labels: list[str]

    def check(self, edit: Edit, seed: int) -> None:
        """The edit is found, where it was made."""
        report = verify(io.BytesIO(edit.data), self.trust, max_findings=1)
        about = f"seed {seed}, {edit.name} at line {edit.line}: {report.findings}"
        assert not report.intact(), about
        finding = report.findings[0]
        assert (finding.line, finding.kind) == (edit.line, Kind.DAMAGED), about
        # What stands before the edit is as it was, and is named; so is what was edited, if it can be read.
        named = self.labels[edit.line - 2] if edit.line > 1 else "first in the file"
        assert named in finding.where, about


@pytest.fixture(scope="module")
def intact() -> Intact:
    author = told(WORKFLOWS)
    data = author.file()
    return Intact(data, author.trust, [label(decoded(line[65:])) for line in data.splitlines()])


def test_an_intact_file_passes(intact: Intact) -> None:
    report = verify(io.BytesIO(intact.data), intact.trust)
    assert report.intact(strict=True), report.findings + report.warnings
    assert report.counts["processes"] > WORKFLOWS
    assert report.counts["lines"] == len(intact.labels)


@pytest.mark.parametrize("batch", range(10))
def test_every_random_edit_is_found_and_named(intact: Intact, batch: int) -> None:
    seeds = SEEDS[batch::10]
    print(f"seeds {seeds}")
    for seed in seeds:
        intact.check(random_edit(intact.data, seed), seed)


def test_the_edits_are_of_all_kinds(intact: Intact) -> None:
    assert {random_edit(intact.data[:5000], seed).name for seed in SEEDS} == {edit.__name__ for edit in EDITS}


def test_every_byte_counts() -> None:
    author = told(1)
    small = Intact(author.file(), author.trust, [label(decoded(line[65:])) for line in author.file().splitlines()])
    for place in range(len(small.data)):
        data = bytearray(small.data)
        data[place] ^= 1 << place % 8
        small.check(Edit("flip", bytes(data), small.data.count(b"\n", 0, place) + 1), place)
