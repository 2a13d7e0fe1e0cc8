"""The table: a case a row, a language a column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.conformance.kit.cases import Case, KnownFailure
from tests.conformance.kit.languages import Language
from tests.conformance.kit.runner import Verdict

PASSED, FAILED, NOT_RUN = "✓", "✗", "–"
_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Column:
    """A language and its verdicts, as they come; None if it could not be run, and `problem` says why."""

    language: Language
    verdicts: Mapping[Case, Verdict] | None
    problem: str = ""


class Table:
    """Prints rows as they come, then what failed."""

    def __init__(self, columns: Sequence[Column], cases: Sequence[Case], known: Sequence[KnownFailure]) -> None:
        self._columns = columns
        self._cases = cases
        self._known = {(each.language, each.case): each.reason for each in known}
        self._first = max((len(str(case)) for case in cases), default=0) + 2

    def head(self) -> str:
        """The first line."""
        return "".ljust(self._first) + "".join(column.language.title.rjust(_WIDTH) for column in self._columns)

    def row(self, case: Case) -> str:
        """A case: whether each language passed it, in how many seconds; with a star if services were killed in its middle."""
        return str(case).ljust(self._first) + "".join(self._cell(column, case).rjust(_WIDTH) for column in self._columns)

    def _verdict(self, column: Column, case: Case) -> Verdict | None:
        return column.verdicts.get(case) if column.verdicts is not None else None

    def _cell(self, column: Column, case: Case) -> str:
        verdict = self._verdict(column, case)
        if verdict is None:
            return NOT_RUN
        mark = FAILED if verdict.failure else PASSED
        return f"{mark} {verdict.seconds:6.2f}{'*' if verdict.killed else ' '}"

    def foot(self) -> str:
        """How many of how many."""
        return "passed".ljust(self._first) + "".join(self._total(column).rjust(_WIDTH) for column in self._columns)

    def _total(self, column: Column) -> str:
        verdicts = [self._verdict(column, case) for case in self._cases]
        return f"{sum(each is not None and not each.failure for each in verdicts)}/{len(verdicts)} "

    def faults(self) -> list[str]:
        """What must not be: cases that failed or were not run, and known failures that do not fail (any more)."""
        found = []
        for column in self._columns:
            if column.verdicts is None:
                found.append(f"{column.language.title} was not run: {column.problem}")
                continue
            for case in self._cases:
                verdict = self._verdict(column, case)
                known = self._known.get((column.language.name, str(case)))
                if verdict is None:
                    found.append(f"{column.language.title}, {case}: was not run")
                elif verdict.failure and known is None:
                    found.append(f"{column.language.title}, {case}: {verdict.failure}")
                elif known is not None and not verdict.failure:
                    found.append(f"{column.language.title}, {case}: is listed as a known failure, and passed")
        return found

    def known(self) -> list[str]:
        """Cases that failed as it is listed."""
        return [
            f"{column.language.title}, {case}: known: {self._known[column.language.name, str(case)]}"
            for column in self._columns
            for case in self._cases
            if (verdict := self._verdict(column, case)) is not None
            and verdict.failure
            and (column.language.name, str(case)) in self._known
        ]
