"""Files that were changed by somebody who can work out every digest and hash anew: found by the seal; and if the scheduler's own
key seals them, by the calls that the members signed.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from colonies.audit.findings import Kind, Report
from colonies.audit.lines import LineWriter
from colonies.audit.records import decoded
from colonies.audit.verify import verify
from colonies.keys import PrivateKey
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from tests.audit.author import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULER,
    SUCCESSFUL,
    WAITING,
    Author,
    Member,
    Record,
    chained,
    key_of,
)
from tests.audit.stories import STORIES, batch, bumpy, cancelled, failed, growing, plain, recurring, several

Forge = Callable[[list[Record]], Any]


def checked(author: Author, records: Sequence[Record], **options: Any) -> Report:
    return verify(io.BytesIO(author.file(records)), author.trust, **options)


def forged(story: Callable[[Author], Any], forge: Forge, *, in_json: bool = False) -> Report:
    """What is found in a file that was changed, chained and sealed anew, with the scheduler's key."""
    author = Author(in_json=in_json)
    story(author)
    records = author.records()
    forge(records)
    return checked(author, chained(records))


def expect(report: Report, kind: Kind, text: str) -> None:
    assert any(one.kind is kind and text in one.message for one in report.findings), report.findings


def event(records: list[Record], reason: str, nth: int = 0) -> Record:
    return [record for record in records if record.get("reason") == reason][nth]


def changed(reason: str, /, **values: Any) -> Forge:
    """A forger who changes an event."""
    return lambda records: event(records, reason).update(values)


def process(records: list[Record], nth: int = 0) -> Record:
    return [record for record in records if record["record"] == "process"][nth]


def dropped(reason: str) -> Forge:
    """A forger who takes an event away, and numbers the others anew."""

    def forge(records: list[Record]) -> None:
        gone = event(records, reason)
        records.remove(gone)
        for record in records:
            if record["record"] == "process" and record["id"] == gone["process"]:
                record["events"] -= 1
            if record.get("process") == gone["process"] and record["number"] > gone["number"]:
                record["number"] -= 1

    return forge


@pytest.mark.parametrize("in_json", [False, True], ids=["protobuf", "json"])
def test_all_stories_are_intact(in_json: bool) -> None:
    author = Author(in_json=in_json)
    for story in STORIES:
        story(author)
    ann = author.submit(Member("cron", "service", author.cron), on_behalf_of=author.user)
    author.assign(ann[0])
    report = checked(author, author.records())
    assert report.intact(strict=True), report.findings
    assert report.counts["processes"] == len(author.processes)


OTHER = "0" * 64
FORGERIES: Sequence[tuple[Callable[[Author], Any], Forge, Kind, str]] = (
    # What an executor reported
    (plain, changed("CLOSED", to=FAILED, outcome=2, errors=["boom"]), Kind.CALL, "reports a success"),
    (failed, changed("CLOSED", to=SUCCESSFUL, outcome=1, errors=[]), Kind.CALL, "reports a failure"),
    (failed, changed("CLOSED", errors=["something else"]), Kind.CALL, "reports other errors"),
    (failed, changed("CLOSED", reason="RETRIED", to=WAITING), Kind.CALL, "trying again does not help"),
    (bumpy, changed("RETRIED", reason="CLOSED", to=FAILED), Kind.CALL, "asks for another try"),
    (plain, changed("CLOSED", actor=OTHER), Kind.TRANSITION, "the attempt is"),
    (plain, changed("CLOSED", call=""), Kind.CALL, "must name the call"),
    (plain, changed("CLOSED", call=OTHER), Kind.CALL, "does not stand before it"),
    (
        plain,
        lambda records: event(records, "CLOSED", 2).update(output_call=event(records, "CLOSED")["output_call"]),
        Kind.CALL,
        "names another attempt",
    ),
    (
        plain,
        lambda records: event(records, "CLOSED", 1).update(call=event(records, "CLOSED")["call"]),
        Kind.CALL,
        "closes other processes",
    ),
    (
        plain,
        lambda records: event(records, "CLOSED").update(call=process(records)["call"]),
        Kind.CALL,
        "SubmitWorkflow call is said to have closed",
    ),
    (plain, changed("CLOSED", at_us=1_800_000_000_000_000), Kind.CALL, "s before it"),
    # Who submitted what
    (plain, lambda records: process(records).update(place=1), Kind.CALL, "submitted as another process already"),
    (plain, lambda records: process(records).update(place=3), Kind.CALL, "there is no number 3"),
    (plain, lambda records: process(records).update(priority_time=0), Kind.CALL, "priority time does not follow"),
    (
        plain,
        lambda records: process(records).update(initiator=key_of("owner").identity, initiator_name="owner"),
        Kind.CALL,
        "is signed for",
    ),
    (plain, lambda records: process(records).update(workflow_id=""), Kind.CALL, "it is in no workflow"),
    (batch, lambda records: process(records).update(workflow_id=process(records)["id"]), Kind.CALL, "it is in a workflow"),
    (plain, changed("SUBMITTED", actor=OTHER), Kind.CALL, "its actor is"),
    (plain, changed("SUBMITTED", at_us=1_699_999_000_000_000), Kind.TRANSITION, "another time than the process's submit"),
    (growing, changed("ASSIGNED", actor=key_of("ann").identity), Kind.CALL, "its attempt was not its signer's"),
    (
        recurring,
        lambda records: process(records, 1).update(workflow_id=process(records)["workflow_id"]),
        Kind.CALL,
        "chose the id",
    ),
    (
        several,
        lambda records: process(records, 1).update(workflow_id=process(records, 2)["workflow_id"]),
        Kind.CALL,
        "another process of the same workflow of its call",
    ),
    (
        several,
        lambda records: process(records, 2).update(workflow_id=process(records)["workflow_id"]),
        Kind.CALL,
        "or as another one of its call",
    ),
    (several, lambda records: process(records, 2).update(place=3), Kind.CALL, "there is no number 3"),
    (several, lambda records: process(records, 2).update(place=1), Kind.CALL, "submitted as another process already"),
    (several, lambda records: process(records, 2).update(workflow_id=""), Kind.CALL, "it is in no workflow"),
    (
        recurring,
        lambda records: process(records).update(initiator=key_of("owner").identity, initiator_name="owner"),
        Kind.CALL,
        "not of its initiator",
    ),
    # Who cancelled, and who took up again
    (recurring, changed("CANCELLED", actor=key_of("ann").identity), Kind.CALL, "the cron service is known as"),
    (
        recurring,
        lambda records: event(records, "CANCELLED", 1).update(call=event(records, "SUBMITTED")["call"]),
        Kind.CALL,
        "is said to have cancelled",
    ),
    (cancelled, changed("CANCELLED", actor=key_of("exec-1").identity), Kind.CALL, "neither the initiator nor"),
    (cancelled, changed("CANCELLED", actor=key_of("ann").identity), Kind.CALL, "is signed for"),
    (failed, changed("RETRY_REQUESTED", actor=OTHER), Kind.CALL, "neither the initiator nor"),
    (failed, dropped("RETRY_REQUESTED"), Kind.TRANSITION, "the process is FAILED"),
    # What the service does by itself
    (failed, changed("PARENT_FAILED", reason="MAX_WAIT_TIME", call=OTHER), Kind.CALL, "names a call"),
    (failed, changed("PARENT_FAILED", actor=OTHER), Kind.TRANSITION, "names an actor"),
    (batch, changed("MAX_WAIT_TIME", reason="PARENT_FAILED"), Kind.TRANSITION, "in no workflow"),
    # Transitions
    (plain, dropped("ASSIGNED"), Kind.TRANSITION, "the process is WAITING"),
    (plain, changed("ASSIGNED", attempt=2), Kind.TRANSITION, "attempt 2 begins after attempt 0"),
    (plain, changed("ASSIGNED", reason="CLOSED"), Kind.TRANSITION, "no process goes from WAITING to RUNNING"),
    (plain, changed("ASSIGNED", executor_name="other"), Kind.TRANSITION, "of 'other' runs"),
    (plain, changed("ASSIGNED", executor_name=""), Kind.TRANSITION, "the attempt has no executor"),
    (plain, changed("ASSIGNED", actor=""), Kind.TRANSITION, "must say who caused it"),
    (plain, changed("CLOSED", outcome=5), Kind.TRANSITION, "its outcome is CANCELLED"),
    (plain, changed("CLOSED", errors=["oh"]), Kind.TRANSITION, "no attempt failed by it"),
    (bumpy, dropped("LEASE_EXPIRED"), Kind.TRANSITION, "the process is RUNNING"),
    (bumpy, changed("LEASE_EXPIRED", to=FAILED), Kind.TRANSITION, "must be tried again"),
    (bumpy, changed("UNDELIVERED", reason="LEASE_EXPIRED", outcome=4), Kind.TRANSITION, "3 retries are used up"),
    (bumpy, changed("MAX_EXEC_TIME", at_us=1_600_000_000_000_000), Kind.TRANSITION, "older than the event before"),
    (cancelled, changed("CANCELLED", **{"from": SUCCESSFUL}), Kind.TRANSITION, "the process is RUNNING"),
    (batch, changed("CANCELLED", attempt=1), Kind.TRANSITION, "none runs"),
    (plain, lambda records: event(records, "SUBMITTED").update({"from": RUNNING}), Kind.TRANSITION, "the process is NONE"),
    # The file as a whole
    (plain, lambda records: process(records).update(events=9), Kind.CHAIN, "there are 3"),
    (plain, lambda records: event(records, "ASSIGNED").update(number=7), Kind.CHAIN, "should be event 2"),
    (plain, lambda records: records.append(process(records)), Kind.MALFORMED, "stands in the file twice"),
    (plain, lambda records: records.append(event(records, "CLOSED", 2)), Kind.CHAIN, "should be event 4"),
    (plain, lambda records: records.insert(1, event(records, "CLOSED")), Kind.MALFORMED, "right after its process"),
    (plain, lambda records: records.insert(1, records[0]), Kind.MALFORMED, "stands first"),
    (plain, lambda records: records.insert(2, records[1]), Kind.MALFORMED, "already"),
    (plain, lambda records: records[0]["scope"].update(before_us=1), Kind.SCOPE, "does not ask for it"),
    (
        plain,
        lambda records: records[0]["scope"].update(process_ids=[process(records)["id"]]),
        Kind.SCOPE,
        "does not ask for it",
    ),
    (
        plain,
        lambda records: records[0]["scope"].update(workflow_ids=[process(records)["id"]]),
        Kind.SCOPE,
        "which is not there",
    ),
    (plain, lambda records: records[0].update(cluster="other"), Kind.CHAIN, "its digest is another"),
    (plain, lambda records: records[1].update(nonce="0" * 32), Kind.CHAIN, "its digest is another"),
)


@pytest.mark.parametrize("in_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize(
    ("story", "forge", "kind", "text"), FORGERIES, ids=[f"{n}-{one[3]}" for n, one in enumerate(FORGERIES)]
)
def test_what_the_scheduler_makes_up_is_found(
    story: Callable[[Author], Any], forge: Forge, kind: Kind, text: str, in_json: bool
) -> None:
    expect(forged(story, forge, in_json=in_json), kind, text)


@pytest.mark.parametrize("nth", range(len(FORGERIES)))
def test_without_the_key_the_seal_tells(nth: int) -> None:
    """The same forgeries, digests and hashes worked out anew, under the seal of the true file."""
    story, forge, _, _ = FORGERIES[nth]
    author = Author()
    story(author)
    seal = author.file().splitlines(keepends=True)[-1]
    records = author.records()
    forge(records)
    header, *rest = chained(records)
    writer = LineWriter(header)
    lines = [writer.header_line, *(writer.line(record) for record in rest)]
    report = verify(io.BytesIO(b"".join([*lines, seal])), author.trust)
    assert not report.intact()
    # The old seal does not follow from the forged lines; made to follow, its signature does not fit.
    assert report.findings[0].kind is Kind.DAMAGED
    true_seal = author.file().splitlines()[-1][65:]
    relined = b"".join([*lines, writer.line(decoded(true_seal))])
    found = verify(io.BytesIO(relined), author.trust, max_findings=1000)
    assert any(one.kind is Kind.SEAL for one in found.findings), found.findings


def test_without_a_trusted_key_the_seal_tells() -> None:
    author = Author()
    plain(author)
    report = verify(io.BytesIO(author.file(sealed_by=PrivateKey.generate())), author.trust)
    assert [(one.kind, one.line) for one in report.findings] == [(Kind.SEAL, report.counts["lines"])]


def test_a_chain_that_was_not_worked_out_anew() -> None:
    author = Author()
    plain(author)
    records = author.records()
    event(records, "CLOSED")["at_us"] += 1
    report = checked(author, records)
    assert [(one.kind, one.where.split(" of ")[0]) for one in report.findings] == [(Kind.CHAIN, "event 3")]


def test_a_process_told_twice_by_one_call() -> None:
    """A submit replayed in the database: another process, from the same spec of the same call."""
    author = Author()
    (one,) = author.submit(author.user)
    author._enter(one.record["call"], author._specs(1, 3), "", author.user, author.user.identity)
    expect(checked(author, author.records()), Kind.CALL, "submitted as another process already")


def test_a_call_of_which_nothing_came() -> None:
    author = Author()
    plain(author)
    records = author.records()
    (other,) = author.submit(author.user)
    records.append(author.calls[other.record["call"]])
    report = checked(author, chained(records))
    assert [(one.kind, one.message) for one in report.findings] == [(Kind.CALL, "nothing in this file was asked for by it")]


def test_a_call_that_its_key_did_not_sign() -> None:
    author = Author()
    genuine = author.user.key
    thief = key_of("thief")

    class Stolen(PrivateKey):
        def sign(self, message: bytes) -> bytes:
            return thief.sign(message)

    author.user.key = Stolen(bytes.fromhex(genuine.hex))
    author.submit(author.user)
    expect(checked(author, author.records()), Kind.SIGNATURE, "does not fit")


def test_a_call_of_another_method() -> None:
    author = Author()
    (one,) = author.submit(author.user)
    request = scheduler.GetProcessRequest(colony_name="dev", process_id=one.id)
    call = author.call(author.user.key, SCHEDULER + "GetProcess", request)
    author.event(one, "CANCELLED", CANCELLED, actor=author.user.identity, call=call)
    expect(checked(author, author.records()), Kind.CALL, "no event is asked for by")


def test_a_call_about_another_colony() -> None:
    author = Author()
    (one,) = author.submit(author.user)
    request = scheduler.CancelProcessRequest(colony_name="other", process_id=one.id)
    call = author.call(author.user.key, SCHEDULER + "CancelProcess", request)
    author.event(one, "CANCELLED", CANCELLED, actor=author.user.identity, call=call)
    expect(checked(author, author.records()), Kind.CALL, "about another colony")


def test_a_cancel_of_another_process() -> None:
    author = Author()
    one, other = author.submit(author.user, 2)
    request = scheduler.CancelProcessRequest(colony_name="dev", process_id=other.id)
    call = author.call(author.user.key, SCHEDULER + "CancelProcess", request)
    author.event(one, "CANCELLED", CANCELLED, actor=author.user.identity, call=call)
    expect(checked(author, author.records()), Kind.CALL, "neither its process nor its workflow")


def test_a_service_that_is_not_trusted_submits_for_nobody() -> None:
    author = Author()
    author.submit(Member("cron", "service", key_of("not cron")), on_behalf_of=author.user)
    expect(checked(author, author.records()), Kind.CALL, "no cron service that is trusted")


def test_the_scheduler_submits_for_nobody() -> None:
    author = Author()
    author.submit(Member("scheduler", "service", author.scheduler), on_behalf_of=author.user)
    expect(checked(author, author.records()), Kind.CALL, "no cron service that is trusted")
    everybody = author.trust.sealers | author.trust.crons
    report = verify(io.BytesIO(author.file()), replace(author.trust, crons=everybody))
    expect(report, Kind.CALL, "no cron service that is trusted")


def test_the_scheduler_vouches_for_no_owner() -> None:
    """With its own key it adds a colony whose owner it made up: whoever trusts it to seal does not believe that."""
    author = Author()
    author.server_owner = author.scheduler
    author.memberships.clear()
    author._add_colony()
    trust = replace(author.trust, owners=frozenset(), server_owners=frozenset({author.scheduler.identity}))
    expect(verify(io.BytesIO(author.file()), trust), Kind.MEMBERSHIP, "nobody trusted vouches for the colony's owner")


def test_a_member_submits_for_nobody_else() -> None:
    author = Author()
    author.submit(author.owner, on_behalf_of=author.user)
    expect(checked(author, author.records()), Kind.CALL, "no cron service that is trusted")


def test_a_member_cancels_for_nobody_else() -> None:
    author = Author()
    nodes = author.submit_workflow(author.user)
    author.cancel(author.owner, nodes, workflow=True, on_behalf_of=author.user)
    expect(checked(author, author.records()), Kind.CALL, "no cron service that is trusted")


def test_the_cron_service_cancels_only_what_is_its_members() -> None:
    """Also for the owner, who may cancel everything; and for nobody without a member."""
    author = Author()
    author.cancel(author.cron_service, author.submit_workflow(author.user), workflow=True, on_behalf_of=author.owner)
    expect(checked(author, author.records()), Kind.CALL, "not of its initiator")
    author = Author()
    author.cancel(author.cron_service, author.submit_workflow(author.user), workflow=True)
    expect(checked(author, author.records()), Kind.CALL, "neither the initiator nor the colony's owner")


def test_the_cron_service_cancels_for_nobody_who_is_gone() -> None:
    author = Author()
    nodes = author.submit_workflow(author.user)
    author.remove_user(author.user)
    author.now_us += 600 * 1_000_000
    author.cancel(author.cron_service, nodes, workflow=True, on_behalf_of=author.user)
    expect(checked(author, author.records()), Kind.MEMBERSHIP, "")


def test_a_member_chooses_no_workflow_ids() -> None:
    author = Author()
    author.submit_workflows(author.user, [1, 1], chosen=["", author.new_id()])
    expect(checked(author, author.records()), Kind.CALL, "chose an id for a workflow, on nobody's behalf")


DAY_US = 24 * 3_600 * 1_000_000


@pytest.mark.parametrize("later_us", [0, DAY_US])
def test_what_is_repeated_enters_nothing_for_a_day(later_us: int) -> None:
    """Signed anew by a client that got no answer, in other company."""
    author = Author()
    author.submit_workflows(author.user, [1, 1], request_ids=["r0", "r1"])
    author.now_us += later_us
    author.submit_workflows(author.user, [1, 1], request_ids=["r2", "r0"])
    author.submit_workflows(author.owner, [1], request_ids=["r1"])
    report = checked(author, author.records())
    if later_us:
        assert report.intact(strict=True), report.findings
    else:
        expect(report, Kind.CALL, "its request id had entered something else already")
        assert len(report.findings) == 1


def test_one_call_enters_a_request_id_once() -> None:
    author = Author()
    author.submit_workflows(author.user, [1, 1], request_ids=["r", "r"])
    expect(checked(author, author.records()), Kind.CALL, "its request id had entered something else already")


def test_processes_from_before_receipts_are_not_audited() -> None:
    author = Author()
    plain(author)
    records = author.records()
    old = process(records)["id"]
    for record in records:
        if record["record"] == "process" and record["id"] == old:
            record["call"] = ""
        if record.get("process") == old:
            record.update(call="", output_call="", hash="")
    used = {record.get(name) for record in records if record["record"] != "call" for name in ("call", "output_call")}
    used |= {digest for record in records for digest in record.get("calls", ())}
    records = [record for record in records if record["record"] != "call" or record["digest"] in used]
    report = checked(author, records)
    assert report.intact(), report.findings
    assert not report.intact(strict=True)
    assert report.counts["processes not audited"] == 1


def test_findings_stop_where_asked() -> None:
    author = Author()
    for _ in range(10):
        batch(author)
    records = author.records()
    for record in records:
        if record.get("reason") == "CLOSED":
            record["actor"] = OTHER
    report = checked(author, chained(records), max_findings=3)
    assert (len(report.findings), report.stopped) == (3, True)


def test_a_retry_used_twice() -> None:
    """A workflow fails, is taken up again, and fails again: the scheduler takes it up once more by the same call."""
    author = Author()
    (one,) = author.submit_workflow(author.user, 1)
    for _ in range(2):
        author.assign(one)
        author.close([one], errors=["no"])
        author.retry(author.user, [one])
    one.events[-1]["call"] = one.events[3]["call"]
    expect(checked(author, author.records()), Kind.CALL, "an earlier event of this process already")
