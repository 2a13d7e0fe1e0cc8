"""Who is trusted with one thing vouches for nothing else; and who got a new key is still the same."""

import io
from dataclasses import replace

import pytest

from colonies.audit.findings import Kind, Report
from colonies.audit.trust import Trust
from colonies.audit.verify import verify
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.keys import PrivateKey
from colonies.registry.v1 import registry_service_pb2 as registry
from tests.audit.author import AUTH, COLONY, REGISTRY, Author, Member, Record, key_of
from tests.audit.stories import plain

NOBODY: frozenset[str] = frozenset()
HOUR_US = 3600 * 1_000_000


def checked(author: Author, records: list[Record] | None = None, **trust: frozenset[str]) -> Report:
    return verify(io.BytesIO(author.file(records)), replace(author.trust, **trust))


def has(report: Report, kind: Kind, text: str) -> bool:
    return any(one.kind is kind and text in one.message for one in (*report.findings, *report.warnings))


def identities(*keys: PrivateKey) -> frozenset[str]:
    return frozenset(key.identity for key in keys)


def made_up(adder: PrivateKey) -> Author:
    """A colony with an owner who was never one, added by somebody."""
    author = Author()
    author.server_owner = adder
    author.owner = Member("owner", "colony_owner", key_of("made up"))
    author.calls, author.memberships = {}, []
    author._add_colony()
    author.user = author.add_user("ann", key_of("made-up ann"))
    author.executor = author.add_executor("exec-1", key_of("made-up exec"))
    plain(author)
    return author


def test_an_old_key_of_the_scheduler_adds_no_colony() -> None:
    old = key_of("old scheduler")
    author = made_up(old)
    sealers = identities(author.scheduler, old)
    server_owner = identities(key_of("server owner"))
    report = checked(author, sealers=sealers, owners=NOBODY, server_owners=server_owner)
    assert has(report, Kind.MEMBERSHIP, "nobody trusted vouches"), report.findings
    # Not even if it is said to be a server owner as well.
    report = checked(author, sealers=sealers, owners=NOBODY, server_owners=sealers | server_owner)
    assert has(report, Kind.MEMBERSHIP, "nobody trusted vouches"), report.findings


@pytest.mark.parametrize("adder", ["owner", "cron", "ann"])
def test_nobody_else_who_is_trusted_adds_a_colony(adder: str) -> None:
    report = checked(made_up(key_of(adder)), owners=NOBODY, server_owners=identities(key_of("server owner")))
    assert has(report, Kind.MEMBERSHIP, "nobody trusted vouches"), report.findings


def test_a_colony_that_was_truly_added_is_not_the_readers() -> None:
    """Even the server owner makes up no owner for whoever knows the true one."""
    author = made_up(key_of("server owner"))
    report = checked(author, owners=identities(key_of("owner")))
    assert has(report, Kind.MEMBERSHIP, "none of the owners that are trusted")


def test_the_owner_seals_nothing() -> None:
    """A file without owner and proof, sealed by the owner who is trusted as such."""
    author = Author()
    plain(author)
    records = [record for record in author.records() if record["record"] in {"header", "process", "event"}]
    for record in records:
        if record["record"] == "header":
            record["owner"] = ""
        elif record["record"] == "process":
            record["call"] = ""
        else:
            record.update(call="", output_call="", hash="")
    data = author.file(records, sealed_by=author.owner.key)
    report = verify(io.BytesIO(data), author.trust)
    assert [one.kind for one in report.findings] == [Kind.SEAL]


def test_no_owner_is_nobodys() -> None:
    author = Author()
    author.memberships.clear()
    records = author.records()
    records[0]["owner"] = ""
    assert checked(author, records).intact()
    report = checked(author, records, owners=NOBODY)
    assert has(report, Kind.MEMBERSHIP, "nobody trusted vouches"), report.findings
    report = verify(io.BytesIO(author.file(records)), Trust(author.trust.sealers))
    assert not report.intact()


def test_an_owner_is_known_by_the_key_that_it_has_now() -> None:
    author = Author()
    for number in (2, 3):
        author.rotate(author.owner, key_of(f"owner {number}"))
    author.now_us += HOUR_US
    author.add_user("bob", key_of("bob"))
    plain(author)
    for name in ("owner", "owner 2", "owner 3"):
        report = checked(author, owners=identities(key_of(name)), server_owners=NOBODY)
        assert report.intact(strict=True), (name, report.findings)
    report = checked(author, owners=identities(key_of("owner 4")))
    assert has(report, Kind.MEMBERSHIP, "none of the owners that are trusted")


def test_a_rotation_that_nobody_signed_leads_to_no_owner() -> None:
    """The scheduler makes up an owner, and says that the true one's key took its place."""
    author = made_up(key_of("server owner"))
    author.owner.key = key_of("owner")
    author.membership("KEY_ROTATED", author.owner, [])
    report = checked(author, owners=identities(key_of("owner")))
    assert has(report, Kind.MEMBERSHIP, "none of the owners that are trusted")
    # The same before the ledger, where rotations may be missing: a true rotation of the true owner, said to be another's.
    author = Author()
    author.memberships.clear()
    author.rotate(author.owner, key_of("owner 2"))
    author.memberships[-1]["identity"] = author.owner.identity = key_of("made up").identity
    report = checked(author, owners=identities(key_of("owner 2")))
    assert has(report, Kind.MEMBERSHIP, "not signed by the key that its member had")


def test_cron_goes_on_with_a_new_key() -> None:
    author = Author()
    old = Member("cron", "service", author.cron)
    new = Member("cron", "service", key_of("cron 2"), old.identity)
    author.submit(new, on_behalf_of=author.user)
    assert checked(author, crons=identities(new.key)).intact(strict=True)
    author.submit(old, on_behalf_of=author.user)
    assert checked(author, crons=identities(new.key, old.key)).intact(strict=True)
    report = checked(author, crons=identities(new.key))
    assert has(report, Kind.CALL, "no cron service that is trusted")


def test_cron_is_one_all_along() -> None:
    author = Author()
    author.submit(Member("cron", "service", author.cron), on_behalf_of=author.user)
    author.submit(Member("cron", "service", author.cron, "0" * 64), on_behalf_of=author.user)
    assert has(checked(author), Kind.CALL, "and the cron service is known as")
    author = Author()
    author.submit(Member("cron", "service", author.cron, author.user.identity), on_behalf_of=author.user)
    assert has(checked(author), Kind.CALL, "and the cron service is known as")


def remove_colony(author: Author, by: PrivateKey) -> None:
    request = auth.RemoveColonyRequest(name=COLONY)
    author.membership("COLONY_REMOVED", author.owner, [author.call(by, AUTH + "RemoveColony", request)])


def test_a_colony_is_removed_by_the_server_owner() -> None:
    author = Author()
    remove_colony(author, author.server_owner)
    assert checked(author).intact(strict=True)
    for stranger in (key_of("nobody"), author.owner.key, author.scheduler):
        author = Author()
        remove_colony(author, stranger)
        report = checked(author)
        assert has(report, Kind.NOT_PROVEN, "no server owner that is trusted")
        assert not report.intact(strict=True)


def test_a_removal_of_a_colony_is_not_kept_for_later() -> None:
    author = Author()
    remove_colony(author, author.server_owner)
    author.memberships[-1]["at_us"] += HOUR_US
    assert has(checked(author), Kind.CALL, "s before it")


def test_an_approval_of_who_registered_before_calls_were_kept() -> None:
    author = Author()
    late = Member("exec-9", "executor", key_of("exec-9"))
    request = registry.ApproveExecutorRequest(colony_name=COLONY, identity=late.identity)
    author.membership("EXECUTOR_APPROVED", late, [author.call(author.owner.key, REGISTRY + "ApproveExecutor", request)])
    (one,) = author.submit(author.user)
    author.assign(one, late)
    author.close([one])
    report = checked(author)
    assert report.intact(), report.findings
    assert has(report, Kind.NOT_PROVEN, "no registration is kept")
    assert has(report, Kind.NOT_PROVEN, "was a member then is not proven")
    # It is proven as soon as it registers and is approved once more.
    author.remove_executor(late)
    again = author.add_executor("exec-9", late.key)
    author.now_us += HOUR_US
    (one,) = author.submit(author.user)
    author.assign(one, again)
    author.close([one])
    warned = len(report.warnings)
    assert len(checked(author).warnings) == warned


def test_a_key_is_judged_when_it_signed() -> None:
    """A submit waits five minutes for the database, and its signer gets another key meanwhile."""
    author = Author()
    old = Member("ann", "user", author.user.key)
    (one,) = author.submit(old)
    author.rotate(author.user, key_of("ann 2"), keep_old_ms=0)
    late = one.record["submitted_us"] + 400 * 1_000_000
    one.record["priority_time"] += (late - one.record["submitted_us"]) * 1000
    one.record["submitted_us"] = one.events[0]["at_us"] = late
    report = checked(author)
    assert report.intact(strict=True), report.findings
    # What the old key signs after its time is nobody's, however it is entered.
    author.now_us += HOUR_US
    author.submit(old)
    assert has(checked(author), Kind.MEMBERSHIP, "its time was over")
