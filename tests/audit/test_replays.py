"""Calls that members did sign, used again or for something else; and changes that no call asked for."""

import io
from collections.abc import Callable

import pytest

from colonies.audit.findings import Kind, Report
from colonies.audit.verify import verify
from colonies.registry.v1 import registry_service_pb2 as registry
from tests.audit.author import COLONY, REGISTRY, WAITING, Author, Member, Record, chained, key_of
from tests.audit.stories import cancelled, failed, growing, plain

MINUTE_US = 60 * 1_000_000
HOUR_US = 60 * MINUTE_US


def checked(author: Author, records: list[Record] | None = None) -> Report:
    return verify(io.BytesIO(author.file(records)), author.trust, max_findings=1000)


def found(report: Report, kind: Kind, text: str) -> bool:
    return any(one.kind is kind and text in one.message for one in report.findings)


def calls_of(author: Author, nth: int = -1) -> list[str]:
    return list(author.memberships[nth]["calls"])


def used_again(author: Author, member: Member, kind: str, calls: list[str]) -> bool:
    author.membership(kind, member, calls)
    return found(checked(author), Kind.MEMBERSHIP, "has asked for an earlier event already")


def test_a_user_is_added_once_by_a_call() -> None:
    author = Author()
    add = calls_of(author, 1)
    author.remove_user(author.user)
    assert used_again(author, author.user, "USER_ADDED", add)


def test_a_user_is_removed_once_by_a_call() -> None:
    author = Author()
    author.remove_user(author.user)
    remove = calls_of(author)
    author.add_user("ann", author.user.key)
    assert used_again(author, author.user, "USER_REMOVED", remove)


def test_an_executor_is_approved_once_by_a_call() -> None:
    author = Author()
    approval = calls_of(author, 2)
    author.remove_executor(author.executor)
    assert used_again(author, author.executor, "EXECUTOR_APPROVED", approval)


def reject(author: Author) -> None:
    request = registry.RejectExecutorRequest(colony_name=COLONY, identity=author.executor.identity)
    calls = [author.call(author.owner.key, REGISTRY + "RejectExecutor", request)]
    author.membership("EXECUTOR_REMOVED", author.executor, calls)


def approve(author: Author, registration: str, kind: str = "EXECUTOR_APPROVED") -> None:
    """Once more, by a new call of the owner's."""
    request = registry.ApproveExecutorRequest(colony_name=COLONY, identity=author.executor.identity)
    approval = author.call(author.owner.key, REGISTRY + "ApproveExecutor", request)
    author.membership(kind, author.executor, [approval, registration])


def test_who_was_rejected_is_approved_by_the_same_registration() -> None:
    author = Author()
    registration = calls_of(author, 2)[0]
    for _ in range(2):
        reject(author)
        author.now_us += HOUR_US
        approve(author, registration)
    report = checked(author)
    assert report.intact(strict=True), report.findings


@pytest.mark.parametrize("by", ["executor", "owner"])
def test_who_was_removed_must_register_anew(by: str) -> None:
    author = Author()
    registration = calls_of(author, 2)[0]
    author.remove_executor(author.executor, by=getattr(author, by).key)
    approve(author, registration)
    assert found(checked(author), Kind.MEMBERSHIP, "since it registered so")


def test_who_registers_otherwise_is_out_until_it_is_approved_so() -> None:
    author = Author()
    old = calls_of(author, 2)[0]
    request = registry.RegisterExecutorRequest(colony=COLONY, name="exec-1b", executor_types=["cli"])
    new = author.call(author.executor.key, REGISTRY + "RegisterExecutor", request)
    author.membership("EXECUTOR_REMOVED", author.executor, [new])
    author.executor = Member("exec-1b", "executor", author.executor.key)
    approve(author, new)
    assert checked(author).intact(strict=True)
    author.memberships.pop()
    author.executor = Member("exec-1", "executor", author.executor.key)
    approve(author, old)
    assert found(checked(author), Kind.MEMBERSHIP, "since it registered so")


def test_a_registration_ends_the_one_before() -> None:
    author = Author()
    old = calls_of(author, 2)[0]
    author.executor = author.add_executor("exec-2", author.executor.key, kind="EXECUTOR_RENAMED")
    assert checked(author).intact(strict=True)
    author.executor = Member("exec-1", "executor", author.executor.key)
    approve(author, old, kind="EXECUTOR_RENAMED")
    assert found(checked(author), Kind.MEMBERSHIP, "since it registered so")


def test_a_registration_is_no_farewell() -> None:
    author = Author()
    author.membership("EXECUTOR_REMOVED", author.executor, calls_of(author, 2)[:1])
    assert found(checked(author), Kind.MEMBERSHIP, "is what it was approved with")


def test_an_executor_goes_when_it_says_so() -> None:
    author = Author()
    author.remove_executor(author.executor, by=author.executor.key)
    author.memberships[-1]["at_us"] += HOUR_US
    assert found(checked(author), Kind.CALL, "s before it")


def test_an_executor_that_goes_again_by_its_old_call() -> None:
    author = Author()
    author.remove_executor(author.executor, by=author.executor.key)
    gone = calls_of(author)
    author.add_executor("exec-1", author.executor.key)
    author.now_us += HOUR_US
    assert used_again(author, author.executor, "EXECUTOR_REMOVED", gone)


@pytest.mark.parametrize(
    ("kind", "name", "role", "method"),
    [
        ("USER_REMOVED", "ann", "user", "RemoveUser"),
        ("EXECUTOR_REMOVED", "exec-2", "executor", "RemoveExecutor"),
        ("KEY_ROTATED", "bobby", "user", "RotateKey"),
        ("KEY_ROTATED", "bob", "colony_owner", "RotateKey"),
    ],
)
def test_an_event_is_about_its_member_as_it_is(kind: str, name: str, role: str, method: str) -> None:
    author = Author()
    bob = author.add_user("bob", key_of("bob"))
    if method == "RemoveUser":
        author.remove_user(Member("ann", "user", bob.key))
    elif method == "RemoveExecutor":
        author.remove_executor(Member("exec-2", "executor", author.executor.key))
    else:
        author.rotate(bob, key_of("bob 2"))
    assert author.memberships[-1]["kind"] == kind
    author.memberships[-1].update(name=name, role=role)
    report = checked(author)
    assert found(report, Kind.MEMBERSHIP, "its member is the "), report.findings


def test_nobody_enters_twice_and_nobody_new_is_renamed() -> None:
    author = Author()
    author.add_user("ann", author.user.key)
    assert found(checked(author), Kind.MEMBERSHIP, "was a member already")
    author = Author()
    author.add_executor("exec-2", key_of("exec-2"), kind="EXECUTOR_RENAMED")
    assert found(checked(author), Kind.MEMBERSHIP, "no member")


@pytest.mark.parametrize("whole", [True, False])
def test_a_rotation_that_no_call_asked_for(whole: bool) -> None:
    author = Author()
    if not whole:
        author.memberships.clear()
    author.user.key = key_of("evil")
    author.membership("KEY_ROTATED", author.user, [])
    author.now_us += HOUR_US
    author.rotate(author.user, key_of("evil 2"))
    author.now_us += HOUR_US
    plain(author)
    report = checked(author)
    assert found(report, Kind.MEMBERSHIP, "no call asked for it") is whole
    assert report.intact() is not whole
    assert any("was a member then is not proven" in one.message for one in report.warnings)


def test_an_unproven_member_gets_no_key_from_anywhere() -> None:
    """Only of members from before the ledger earlier rotations may be missing; not of one whose registration is not kept."""
    author = Author()
    request = registry.ApproveExecutorRequest(colony_name=COLONY, identity=key_of("exec-9").identity)
    late = Member("exec-9", "executor", key_of("exec-9"))
    author.membership("EXECUTOR_APPROVED", late, [author.call(author.owner.key, REGISTRY + "ApproveExecutor", request)])
    author.rotate(late, key_of("evil 2"), signed_by=key_of("evil"))
    assert found(checked(author), Kind.MEMBERSHIP, "not signed by the key that its member had")


def test_a_colony_is_not_added_after_what_happened_in_it() -> None:
    author = Author()
    evil, runs = Member("ann", "user", key_of("evil")), Member("exec-1", "executor", key_of("evil runs"))
    (one,) = author.submit(evil)
    author.assign(one, runs)
    author.close([one])
    records = author.records()
    first = next(place for place, record in enumerate(records) if record.get("method", "").endswith("SubmitProcesses"))
    records = [records[0], *records[first:], *records[1:first]]
    assert found(checked(author, chained(records)), Kind.MALFORMED, "a colony is added before all")


# What calls about processes are used for


def test_a_child_is_on_the_account_of_its_workflow_by_name() -> None:
    author = Author()
    nodes = growing(author)
    nodes[-1].record["initiator_name"] = "somebody-else"
    report = checked(author)
    assert found(report, Kind.CALL, "its workflow is on the account of ann")
    assert found(report, Kind.MEMBERSHIP, "never had the name 'somebody-else'")


@pytest.mark.parametrize("late_us", [HOUR_US, -HOUR_US])
def test_children_come_while_their_parent_runs(late_us: int) -> None:
    author = Author()
    nodes = author.submit_workflow(author.user, 2)
    author.assign(nodes[0])
    author.close([nodes[0]])
    author.now_us += late_us
    author.add_children(nodes[0])
    assert found(checked(author), Kind.CALL, "its attempt did not run then")


def test_children_of_one_call_come_together() -> None:
    author = Author()
    nodes = author.submit_workflow(author.user, 2)
    author.assign(nodes[0])
    *_, last = author.add_children(nodes[0], 2)
    author.close([nodes[0]])
    last.record["submitted_us"] += 5 * MINUTE_US
    last.record["priority_time"] += 5 * MINUTE_US * 1000
    last.events[0]["at_us"] += 5 * MINUTE_US
    assert found(checked(author), Kind.CALL, "to others at another time")


def test_a_retry_is_not_kept_for_what_fails_later() -> None:
    author = Author()
    nodes = author.submit_workflow(author.user, 2)
    author.assign(nodes[0])
    author.close([nodes[0]], errors=["x"])
    author.retry(author.user, [nodes[0]])
    call = nodes[0].events[-1]["call"]
    author.now_us += MINUTE_US
    author.assign(nodes[1])
    author.close([nodes[1]], errors=["y"])
    author.event(nodes[1], "RETRY_REQUESTED", WAITING, actor=author.user.identity, call=call)
    assert found(checked(author), Kind.CALL, "RetryWorkflow call did the same to others at another time")


@pytest.mark.parametrize("story", [cancelled, failed])
def test_what_one_call_does_it_does_at_once(story: Callable[[Author], object]) -> None:
    author = Author()
    story(author)
    for process in author.processes[1:]:
        for event in process.events:
            if event["reason"] in {"CANCELLED", "RETRY_REQUESTED"}:
                event["at_us"] += 4 * MINUTE_US
    assert found(checked(author), Kind.CALL, "to others at another time")
