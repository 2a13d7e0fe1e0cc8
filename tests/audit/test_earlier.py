"""Whoever keeps files notices history that was rewritten, even by the scheduler itself."""

import io
from typing import Any

from colonies.audit.findings import Kind, Report
from colonies.audit.verify import verify
from tests.audit.author import FAILED, Author, Record, key_of
from tests.audit.stories import failed, plain


def compared(later: bytes, earlier: bytes, author: Author, **options: Any) -> Report:
    return verify(io.BytesIO(later), author.trust, after=io.BytesIO(earlier), **options)


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
    assert [(one.kind, one.where) for one in report.warnings] == [(Kind.GONE, f"process {gone.id}")]
    assert report.intact()
    assert not report.intact(strict=True)


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
    report = compared(author.file(records), earlier, author)
    assert report.intact(), report.findings
    assert [(one.kind, "4 processes" in one.message) for one in report.warnings] == [(Kind.NOT_PROVEN, True)]
    assert report.counts["processes not compared"] == 4


def test_a_narrower_file_that_holds_all_the_same() -> None:
    author, earlier = grown()
    assert compared(author.file(author.records(since_us=1)), earlier, author).intact(strict=True)


def not_audited(records: list[Record]) -> list[Record]:
    """The same, from before calls were kept."""
    for record in records:
        if record["record"] == "process":
            record.update(call="", place=0)
        if record["record"] == "event":
            record.update(call="", output_call="", hash="")
    return [record for record in records if record["record"] != "call" or "Scheduler" not in record["method"]]


def rewritten(records: list[Record]) -> None:
    closed = next(record for record in records if record.get("reason") == "CLOSED")
    closed.update(to=FAILED, outcome=2, errors=["never so"])


def test_what_was_never_audited_must_be_told_alike() -> None:
    author, _ = grown()
    earlier = author.file(not_audited(author.records()))
    (one,) = author.submit(author.user)
    later = not_audited(author.records())
    assert compared(author.file(later), earlier, author).intact()
    rewritten(later)
    report = compared(author.file(later), earlier, author)
    assert [one.kind for one in report.findings] == [Kind.HISTORY]
    for name, value in (("initiator", author.executor.identity), ("priority_time", 0)):
        later = not_audited(author.records())
        next(record for record in later if record["record"] == "process")[name] = value
        report = compared(author.file(later), earlier, author)
        assert {finding.kind for finding in report.findings} == {Kind.HISTORY}
    assert one.id


def test_a_chain_that_was_broken_off_since_says_the_same() -> None:
    """What an older replica wrote to is not audited any more, calls or not: a warning, unless it tells something else."""
    author, earlier = grown()

    def broken_off() -> list[Record]:
        records = author.records()
        for record in records:
            if record.get("id") == author.processes[0].id:
                record["call"] = ""
            if record.get("process") == author.processes[0].id:
                record["hash"] = ""
        return records

    report = compared(author.file(broken_off()), earlier, author)
    assert report.intact(), report.findings
    assert report.counts["processes not audited"] == 1
    records = broken_off()
    rewritten(records)
    report = compared(author.file(records), earlier, author)
    assert [one.kind for one in report.findings] == [Kind.HISTORY]


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
