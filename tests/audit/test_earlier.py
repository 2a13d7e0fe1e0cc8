"""Whoever keeps files notices history that was rewritten, even by the scheduler itself."""

import io
from typing import Any

from colonies.audit.findings import Kind, Report
from colonies.audit.verify import verify
from tests.audit.author import Author, Record, key_of
from tests.audit.stories import failed, plain


def compared(later: bytes, earlier: bytes, author: Author, **options: Any) -> Report:
    return verify(io.BytesIO(later), author.trusted, after=io.BytesIO(earlier), **options)


def grown() -> tuple[Author, bytes]:
    """A colony, and an earlier file of it, in which a process still runs."""
    author = Author()
    plain(author)
    (one,) = author.submit(author.user)
    author.assign(one)
    earlier = author.file()
    author.close([one])
    author.add_user("bob", key_of("bob"))
    failed(author)
    return author, earlier


def test_what_goes_on_bears_out_what_was() -> None:
    author, earlier = grown()
    assert compared(author.file(), earlier, author).intact(strict=True)
    assert compared(earlier, earlier, author).intact(strict=True)


def test_a_process_that_is_gone() -> None:
    author, earlier = grown()
    gone = author.processes.pop(0)
    report = compared(author.file(), earlier, author)
    assert [(one.kind, one.where) for one in report.findings] == [(Kind.HISTORY, f"event 3 of process {gone.id}")]


def test_events_that_are_gone() -> None:
    author, earlier = grown()
    one = author.processes[3]
    del one.events[1:]
    report = compared(author.file(), earlier, author)
    assert [(one.kind, one.where) for one in report.findings] == [(Kind.HISTORY, f"event 2 of process {one.id}")]


def test_an_event_that_is_another() -> None:
    author, earlier = grown()
    author.processes[3].events[1]["at_us"] += 1
    report = compared(author.file(), earlier, author)
    assert [one.kind for one in report.findings] == [Kind.HISTORY]
    assert report.findings[0].where == f"event 2 of process {author.processes[3].id} (ASSIGNED)"


def test_a_membership_that_is_another_or_gone() -> None:
    author, earlier = grown()
    author.memberships[1]["at_us"] += 1
    report = compared(author.file(), earlier, author)
    assert {one.kind for one in report.findings} == {Kind.HISTORY}
    assert report.findings[0].where == "membership event 2 (USER_ADDED ann)"
    later, kept = grown()
    del later.memberships[3:]
    assert compared(later.file(), kept, later).intact()
    del later.memberships[2:]
    messages = [one.message for one in compared(later.file(), kept, later).findings]
    assert "the earlier file has more membership events" in messages


def test_only_what_the_later_file_was_asked_for_is_missed() -> None:
    author, earlier = grown()
    wanted = author.processes[-1].workflow
    author.processes = [process for process in author.processes if process.workflow == wanted]
    records: list[Record] = author.records(workflow_ids=[wanted])
    assert compared(author.file(records), earlier, author).intact(strict=True)


def test_an_earlier_file_that_proves_nothing() -> None:
    author, earlier = grown()
    later = author.file()
    damaged = earlier.replace(b"ASSIGNED", b"assigned", 1)
    stranger = author.file(sealed_by=key_of("stranger"))
    other = Author()
    other.records()
    for bad, text in ((damaged, "does not follow"), (stranger, "not among the trusted"), (b"", "nothing can be compared")):
        (finding,) = compared(later, bad, author).findings
        assert (finding.kind, finding.where) == (Kind.HISTORY, "the earlier file")
        assert text in finding.message
