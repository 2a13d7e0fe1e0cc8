"""Who was a member, and which key signed for whom: what the membership events of a file prove, and what they do not."""

import io
from dataclasses import replace

import pytest

from colonies.audit.findings import Kind, Report
from colonies.audit.verify import verify
from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.keys import PrivateKey
from tests.audit.author import AUTH, COLONY, Author, Member, chained, key_of

HOUR_US = 3600 * 1_000_000


def checked(author: Author, **trust: frozenset[str]) -> Report:
    return verify(io.BytesIO(author.file()), replace(author.trust, **trust))


def only(report: Report, kind: Kind, text: str) -> None:
    """There are findings, all of one kind, and one says this."""
    assert {finding.kind for finding in report.findings} == {kind}, report.findings
    assert any(text in finding.message for finding in report.findings), report.findings


def run_one(author: Author, by: Member | None = None) -> None:
    (process,) = author.submit(by or author.user)
    author.assign(process)
    author.close([process])


@pytest.fixture
def author() -> Author:
    return Author()


def test_members_come_and_go_and_come_again(author: Author) -> None:
    run_one(author)
    author.remove_user(author.user)
    author.now_us += HOUR_US
    ann = author.add_user("ann", author.user.key)
    run_one(author, ann)
    author.remove_executor(author.executor, by=author.executor.key)
    author.executor = author.add_executor("exec-1", author.executor.key)
    run_one(author, author.owner)
    assert checked(author).intact(strict=True)


def test_a_member_may_come_again_as_something_else(author: Author) -> None:
    run_one(author)
    author.now_us += HOUR_US
    author.remove_user(author.user)
    author.now_us += HOUR_US
    author.executor = author.add_executor("ann-runs", author.user.key)
    run_one(author, author.owner)
    report = checked(author)
    assert report.intact(strict=True), report.findings


def test_an_executor_gets_another_name(author: Author) -> None:
    run_one(author)
    author.executor = author.add_executor("exec-2", author.executor.key, kind="EXECUTOR_RENAMED")
    run_one(author)
    assert checked(author).intact(strict=True)


def test_an_executor_by_a_name_that_it_never_had(author: Author) -> None:
    author.executor = Member("exec-9", "executor", author.executor.key)
    run_one(author)
    only(checked(author), Kind.MEMBERSHIP, "never had the name 'exec-9'")


@pytest.mark.parametrize("who", ["owner", "user", "executor"])
def test_rotated_keys_sign_for_the_same_member(author: Author, who: str) -> None:
    (process,) = author.submit(author.user)
    author.assign(process)
    for number in range(2):
        author.rotate(getattr(author, who), key_of(f"{who} {number}"))
        author.now_us += HOUR_US
        author.add_executor(f"new-{number}", key_of(f"new {number}"))
    author.close([process])
    run_one(author)
    author.cancel(author.owner, author.submit(author.user), workflow=False)
    report = checked(author)
    assert report.intact(strict=True), report.findings


def test_an_old_key_signs_for_a_while(author: Author) -> None:
    old = Member("ann", "user", author.user.key)
    author.rotate(author.user, key_of("ann 2"), keep_old_ms=3_600_000)
    author.now_us += HOUR_US // 2
    run_one(author, old)
    assert checked(author).intact(strict=True)


def test_an_old_key_signs_no_longer(author: Author) -> None:
    old = Member("ann", "user", author.user.key)
    author.rotate(author.user, key_of("ann 2"), keep_old_ms=60_000)
    author.now_us += HOUR_US
    run_one(author, old)
    only(checked(author), Kind.MEMBERSHIP, "its time was over")


def test_a_rotation_ends_the_time_of_older_keys(author: Author) -> None:
    old = Member("ann", "user", author.user.key)
    author.rotate(author.user, key_of("ann 2"), keep_old_ms=3_600_000)
    author.rotate(author.user, key_of("ann 3"), keep_old_ms=0)
    author.now_us += HOUR_US // 2
    run_one(author, old)
    only(checked(author), Kind.MEMBERSHIP, "its time was over")


def test_a_rotation_by_another_key(author: Author) -> None:
    author.rotate(author.user, key_of("thief"), signed_by=author.owner.key)
    only(checked(author), Kind.MEMBERSHIP, "not signed by the key that its member had")


def test_a_rotation_to_a_key_that_did_not_agree(author: Author) -> None:
    author.rotate(author.user, key_of("ann 2"))
    author.memberships[-1]["key"] = key_of("ann 3").identity
    only(checked(author), Kind.MEMBERSHIP, "the new key's proof does not fit")


def test_a_removed_member_may_do_nothing(author: Author) -> None:
    author.remove_user(author.user)
    author.now_us += HOUR_US
    run_one(author)
    only(checked(author), Kind.MEMBERSHIP, "was none then")


def test_a_stranger_may_do_nothing(author: Author) -> None:
    run_one(author, Member("eve", "user", key_of("eve")))
    only(checked(author), Kind.MEMBERSHIP, "was never a member")


def test_a_user_may_not_close(author: Author) -> None:
    author.executor = author.user
    run_one(author, author.owner)
    only(checked(author), Kind.MEMBERSHIP, "was a member as user, and may not do this")


def test_a_user_whom_the_owner_did_not_add(author: Author) -> None:
    owner = author.owner.key
    author.owner.key = author.user.key
    author.add_user("bob", key_of("bob"))
    author.owner.key = owner
    only(checked(author), Kind.MEMBERSHIP, "not signed by the colony's owner")


def test_a_user_who_did_not_agree(author: Author) -> None:
    request = auth.AddUserRequest(colony_name=COLONY, name="bob", user=author.proof(key_of("bob"), "user", "bobby"))
    bob = Member("bob", "user", key_of("bob"))
    author.membership("USER_ADDED", bob, [author.call(author.owner.key, AUTH + "AddUser", request)])
    only(checked(author), Kind.MEMBERSHIP, "the user's proof does not fit")


def test_an_approval_of_another_executor(author: Author) -> None:
    bob = author.add_executor("bob", key_of("bob"))
    registration, _ = author.memberships[-1]["calls"]
    _, approval = author.memberships[-2]["calls"]
    author.memberships[-1]["calls"] = [registration, approval]
    only(checked(author), Kind.MEMBERSHIP, "the approval is of another executor")
    assert bob.role == "executor"


def test_events_out_of_the_middle_are_missed(author: Author) -> None:
    author.add_user("bob", key_of("bob"))
    author.remove_user(author.user)
    records = author.records()
    records = [record for record in records if record.get("name") != "bob"]
    report = verify(io.BytesIO(author.file(chained(records))), author.trust)
    assert any(finding.kind is Kind.CHAIN and "should have 4" in finding.message for finding in report.findings), (
        report.findings
    )


def test_the_owner_must_be_vouched_for(author: Author) -> None:
    run_one(author)
    nobody: frozenset[str] = frozenset()
    assert checked(author, owners=nobody).intact(strict=True)
    assert checked(author, server_owners=nobody).intact(strict=True)
    only(checked(author, owners=nobody, server_owners=nobody), Kind.MEMBERSHIP, "nobody trusted vouches for the colony's owner")
    # Who knows the owner need not believe the server owner.
    only(checked(author, owners=frozenset({author.user.identity})), Kind.MEMBERSHIP, "none of the owners that are trusted")


def test_another_owner_than_the_header_names(author: Author) -> None:
    records = author.records()
    records[0]["owner"] = author.user.identity
    report = verify(io.BytesIO(author.file(records)), replace(author.trust, owners=frozenset({author.user.identity})))
    assert any("the header names another owner" in finding.message for finding in report.findings)


def test_members_from_before_the_ledger_are_not_proven(author: Author) -> None:
    run_one(author)
    author.memberships.clear()
    report = checked(author)
    assert report.intact()
    assert not report.intact(strict=True)
    assert report.unproven
    assert report.warnings[0].kind is Kind.NOT_PROVEN


def test_a_member_from_before_the_ledger_rotates_and_goes(author: Author) -> None:
    author.memberships.clear()
    run_one(author)
    author.rotate(author.user, key_of("ann 2"))
    author.now_us += HOUR_US
    run_one(author)
    author.remove_user(author.user)
    report = checked(author)
    assert report.intact(), report.findings
    assert report.unproven


def test_who_left_is_no_member_from_before_the_ledger(author: Author) -> None:
    author.memberships.clear()
    author.remove_user(author.user)
    author.now_us += HOUR_US
    run_one(author)
    only(checked(author), Kind.MEMBERSHIP, "was none then")


def test_a_member_may_not_seal(author: Author) -> None:
    run_one(author)
    trust = replace(author.trust, sealers=frozenset({author.user.identity}))
    report = verify(io.BytesIO(author.file(sealed_by=author.user.key)), trust)
    only(report, Kind.SEAL, "a member of the colony")


def test_a_forger_whom_nobody_trusts_is_told(author: Author) -> None:
    run_one(author)
    report = verify(io.BytesIO(author.file(sealed_by=PrivateKey.generate())), author.trust)
    only(report, Kind.SEAL, "not among the trusted sealers")


def test_a_colony_whose_owner_the_server_does_not_know(author: Author) -> None:
    author.memberships.clear()
    run_one(author)
    author.add_user("bob", key_of("bob"))
    author.cancel(author.owner, author.submit(author.user), workflow=False)
    records = author.records()
    records[0]["owner"] = ""
    report = verify(io.BytesIO(author.file(records)), author.trust)
    assert report.intact(), report.findings
    assert any("names no owner" in warning.message for warning in report.warnings)
    report = verify(io.BytesIO(author.file(records)), replace(author.trust, owners=frozenset()))
    assert [finding.kind for finding in report.findings] == [Kind.MEMBERSHIP, Kind.MEMBERSHIP, Kind.CALL]
    assert "nobody trusted vouches" in report.findings[0].message
    assert "not signed by the colony's owner" in report.findings[1].message
