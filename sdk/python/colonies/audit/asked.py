"""Whether each event is what its call asked for, by somebody who may."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from colonies.audit.calls import Attempt, Call, Calls, Cancel, Closes, Output, Retry, Submit
from colonies.audit.findings import Kind
from colonies.audit.life import ASKED_FOR, Life, State
from colonies.audit.life import Attempt as Lived
from colonies.audit.members import Members
from colonies.audit.records import Record
from colonies.audit.standing import SLACK_US, Member, too_far

# One priority step is a day of head start; each spec of a call counts as submitted a nanosecond after the last.
_STEP_NS = -86_400 * 1_000_000_000
_SUBMITTERS = frozenset({"colony_owner", "user", "executor"})
_EXECUTORS = frozenset({"executor"})
# Less than a day, after which a request id may count as new: by some replica's clock.
_REQUEST_IDS_HOLD_US = 23 * 3_600 * 1_000_000

Found = Callable[[Kind, str], None]
AskedT = TypeVar("AskedT", Submit, Closes, Output, Cancel, Retry)


@dataclass(frozen=True, slots=True)
class Growth:
    """An attempt that added processes to its workflow, as it is to be when its own events were read."""

    parent: Attempt
    workflow: str
    executor: str
    # When its call was signed, and when what it added was entered.
    called_us: int
    entered_us: int

    def problem(self, workflow: str, attempts: Sequence[Lived]) -> str:
        """Why that attempt cannot have added it, if so: of a process with these attempts."""
        if workflow != self.workflow:
            return "its attempt is in another workflow than what it added"
        if self.parent.number > len(attempts) or attempts[self.parent.number - 1].executor != self.executor:
            return "its attempt was not its signer's"
        attempt = attempts[self.parent.number - 1]
        early, late = min(self.called_us, self.entered_us), max(self.called_us, self.entered_us)
        if early < attempt.began_us - SLACK_US or (attempt.ended_us is not None and late > attempt.ended_us + SLACK_US):
            return "its attempt did not run then"
        return ""


@dataclass(slots=True)
class _Account:
    """On whose account a workflow is, and which workflow of which call it was; None while that was not read."""

    initiator: str
    name: str
    entered: tuple[str, int] | None


class Asking:
    """Compares events with calls."""

    def __init__(self, header: Record, crons: frozenset[str], members: Members, calls: Calls) -> None:
        self._colony: str = header["colony"]
        self._crons = crons
        self._members = members
        self._calls = calls
        self._workflows: dict[str, _Account] = {}
        # By signer and request id: what entered under it last, and when.
        self._requests: dict[tuple[str, str], tuple[tuple[str, int], int]] = {}
        # When the events came about that calls about several processes asked for.
        self._came_us: dict[str, int] = {}
        # What the cron service is known by; its key may change.
        self._cron = ""
        # Where processes were added to workflows: settled at the end, for the attempts may come later in the file.
        self.growths: dict[str, Growth] = {}

    def check_process(self, process: Record, found: Found) -> Submit | None:
        """Checks a process against the call that submitted it; returns what that asked for."""
        call = self._call(process["call"], Submit, "submitted it", found)
        if call is None:
            return None
        submit = call[1]
        place = process["place"]
        if place >= len(submit.priorities):
            found(Kind.CALL, f"its call has {len(submit.priorities)} specs; there is no number {place}")
            return None
        if place in submit.seen:
            found(Kind.CALL, f"spec {place} of its call has been submitted as another process already")
        submit.seen.add(place)
        order = process["priority_time"] - submit.priorities[place] * _STEP_NS - process["submitted_us"] * 1000
        # The time of a submit is kept in microseconds, rounded or cut.
        if not place - 1000 <= order <= place + 1000:
            found(Kind.CALL, "its priority time does not follow from its spec and the time of its submit")
        self._check_workflow(process, call[0], submit, found)
        return submit

    def _check_workflow(self, process: Record, call: Call, submit: Submit, found: Found) -> None:
        workflow = process["workflow_id"]
        if bool(workflow) is not (bool(submit.firsts) or submit.parent is not None):
            found(Kind.CALL, f"it is in {'a' if workflow else 'no'} workflow, and {call.method} asked for something else")
            return
        part = submit.part_of(process["place"])
        if submit.workflows.setdefault(part, workflow) != workflow:
            found(Kind.CALL, "another process of the same workflow of its call is in another workflow")
        if not workflow:
            return
        if submit.chosen and submit.chosen[part] not in {"", workflow}:
            found(Kind.CALL, f"its call chose the id {submit.chosen[part]} for its workflow")
        entered = (call.digest, part) if submit.firsts else None
        account = self._workflows.setdefault(workflow, _Account(process["initiator"], process["initiator_name"], entered))
        if (account.initiator, account.name) != (process["initiator"], process["initiator_name"]):
            found(Kind.CALL, f"its workflow is on the account of {account.name} ({account.initiator})")
        if entered and account.entered and account.entered != entered:
            found(Kind.CALL, "its workflow was submitted by another call, or as another one of its call")
        account.entered = account.entered or entered

    def check_event(self, life: Life, event: Record, found: Found) -> None:
        """Checks an event, the next of its process, against its calls."""
        if event["output_call"]:
            self._check_output(life, event, found)
        if event["reason"] == "ASSIGNED":
            executor = self._members.known(event["actor"], event["at_us"])
            self._check_member(executor, event["at_us"], _EXECUTORS, found, event["executor_name"])
        if event["reason"] not in ASKED_FOR:
            if event["call"]:
                found(Kind.CALL, "it comes about by itself, and names a call")
            return
        if not event["call"]:
            found(Kind.CALL, "it must name the call that asked for it")
            return
        if event["call"] in life.calls:
            found(Kind.CALL, "its call has asked for an earlier event of this process already")
        self._CHECKS[event["reason"]](self, life, event, found)

    def _call(self, digest: str, wanted: type[AskedT], verb: str, found: Found) -> tuple[Call, AskedT] | None:
        """A call of this colony that asked for something of a kind."""
        call = self._calls.get(digest)
        if call is None:
            found(Kind.CALL, f"the call {digest} does not stand before it")
            return None
        if not isinstance(call.asked, wanted):
            found(Kind.CALL, f"a {call.method} call is said to have {verb}")
            return None
        if call.asked.colony != self._colony:
            found(Kind.CALL, f"the {call.method} call is about another colony")
        return call, call.asked

    def _check_member(self, member: Member | str, at_us: int, roles: frozenset[str], found: Found, name: str = "") -> None:
        """Checks that somebody was a member then, in one of these roles, and at any time by this name."""
        if isinstance(member, str):
            found(Kind.MEMBERSHIP, member)
        elif not member.proven(at_us):
            found(Kind.NOT_PROVEN, f"that {member.identity} was a member then is not proven")
        elif not member.roles(at_us) & roles:
            found(Kind.MEMBERSHIP, f"{member.identity} was a member as {', '.join(member.roles(at_us))}, and may not do this")
        elif name and name not in member.names:
            found(Kind.MEMBERSHIP, f"{member.identity} never had the name {name!r}")

    def _check_signer(self, call: Call, event: Record, identity: str, roles: frozenset[str], found: Found) -> None:
        """Checks that a call was signed for a member, and near the time of what came of it."""
        signer = self._members.holder(call.signer, call.at_us)
        if not isinstance(signer, str) and signer.identity != identity:
            found(Kind.CALL, f"the {call.method} call is signed for {signer.identity}, not for {identity}")
        else:
            self._check_member(signer, call.at_us, roles, found)
        if problem := too_far(call, event["at_us"]):
            found(Kind.CALL, problem)

    def _submitted(self, life: Life, event: Record, found: Found) -> None:
        process = life.process
        if event["call"] != process["call"]:
            found(Kind.CALL, "it names another call than its process")
            return
        call = self._calls.get(event["call"])
        if call is None or not isinstance(call.asked, Submit):
            return  # said of the process
        submit = call.asked
        self._check_request_id(process, call, submit, event, found)
        if submit.parent is not None:
            self._check_signer(call, event, event["actor"], _EXECUTORS, found)
            if not self._members.had_name(process["initiator"], process["initiator_name"]):
                found(Kind.MEMBERSHIP, f"{process['initiator']} never had the name {process['initiator_name']!r}")
            growth = Growth(submit.parent, process["workflow_id"], event["actor"], call.at_us, event["at_us"])
            self.growths.setdefault(call.digest, growth)
            self._check_together(call, event, SLACK_US, found)
            return
        initiator = self._members.known(process["initiator"], call.at_us)
        self._check_member(initiator, call.at_us, _SUBMITTERS, found, process["initiator_name"])
        if submit.on_behalf_of:
            self._check_on_behalf(call, submit.on_behalf_of, process, event, found)
            return
        if any(submit.chosen):
            found(Kind.CALL, f"the {call.method} call chose an id for a workflow, on nobody's behalf")
        self._check_signer(call, event, process["initiator"], _SUBMITTERS, found)
        self._check_actor(event, process["initiator"], found)

    def _check_request_id(self, process: Record, call: Call, submit: Submit, event: Record, found: Found) -> None:
        """Checks that nothing else was entered under the request id: whoever repeats it gets the first answer."""
        part = submit.part_of(process["place"])
        key, entered = (event["actor"], submit.request_ids[part]), (call.digest, part)
        before, at_us = self._requests.get(key, (entered, 0))
        if before != entered and abs(process["submitted_us"] - at_us) < _REQUEST_IDS_HOLD_US:
            found(Kind.CALL, "its request id had entered something else already")
        self._requests[key] = (entered, process["submitted_us"])

    def _check_on_behalf(self, call: Call, member: str, process: Record, event: Record, found: Found) -> None:
        """Checks that the cron service asked for it, for its initiator, by whatever key it had then, and always as the same."""
        if member != process["initiator"]:
            found(Kind.CALL, f"the {call.method} call is on behalf of {member}, not of its initiator")
        if call.signer not in self._crons:
            found(Kind.CALL, f"{call.signer}, who asked for it on behalf of a member, is no cron service that is trusted")
        self._cron = self._cron or event["actor"]
        if event["actor"] != self._cron or self._members.is_known(event["actor"]):
            found(Kind.CALL, f"its actor is {event['actor']}, and the cron service is known as {self._cron}")
        if problem := too_far(call, event["at_us"]):
            found(Kind.CALL, problem)

    def _check_actor(self, event: Record, identity: str, found: Found) -> None:
        if event["actor"] != identity:
            found(Kind.CALL, f"its actor is {event['actor']}, and its call was signed for {identity}")

    def _closed(self, life: Life, event: Record, found: Found) -> None:
        got = self._call(event["call"], Closes, "closed it", found)
        if got is None:
            return
        call, asked = got
        self._check_signer(call, event, event["actor"], _EXECUTORS, found)
        closed = asked.closes.get(event["process"])
        if closed is None:
            found(Kind.CALL, "its call closes other processes")
            return
        if closed.attempt != event["attempt"]:
            found(Kind.CALL, f"its call closes attempt {closed.attempt}")
        if closed.successful is not (event["to"] == State.SUCCESSFUL):
            found(Kind.CALL, f"its call reports a {'success' if closed.successful else 'failure'}")
        if list(closed.errors) != event["errors"]:
            found(Kind.CALL, "its call reports other errors")
        if event["reason"] == "RETRIED" and not closed.retryable:
            found(Kind.CALL, "its call says that trying again does not help")
        if event["to"] == State.FAILED and closed.retryable and life.may_retry:
            found(Kind.CALL, "its call asks for another try, which it is entitled to")

    def _cancelled(self, life: Life, event: Record, found: Found) -> None:
        got = self._call(event["call"], Cancel, "cancelled it", found)
        if got is None:
            return
        call, asked = got
        workflow = life.process["workflow_id"]
        if asked.process != event["process"] and not (workflow and asked.workflow == workflow):
            found(Kind.CALL, "its call names neither its process nor its workflow")
        if asked.on_behalf_of:
            member = self._members.known(asked.on_behalf_of, call.at_us)
            self._check_member(member, call.at_us, _SUBMITTERS, found)
            self._check_on_behalf(call, asked.on_behalf_of, life.process, event, found)
        else:
            self._check_controller(life, call, event, found)
        self._check_together(call, event, SLACK_US, found)

    def _retry_requested(self, life: Life, event: Record, found: Found) -> None:
        got = self._call(event["call"], Retry, "taken it up again", found)
        if got is None:
            return
        call, asked = got
        if asked.workflow != life.process["workflow_id"]:
            found(Kind.CALL, "its call names another workflow")
        self._check_controller(life, call, event, found)
        self._check_together(call, event, 0, found)

    def _check_together(self, call: Call, event: Record, slack_us: int, found: Found) -> None:
        """What comes of such a call comes at one moment: it is not kept for what ends, or fails, later."""
        came_us = self._came_us.setdefault(call.digest, event["at_us"])
        if abs(event["at_us"] - came_us) > slack_us:
            found(Kind.CALL, f"the same {call.method} call did the same to others at another time")

    def _check_controller(self, life: Life, call: Call, event: Record, found: Found) -> None:
        """Only the initiator and the colony's owner may do this."""
        if event["actor"] != life.process["initiator"] and not self._members.is_owner(event["actor"]):
            found(Kind.CALL, f"it is by {event['actor']}, neither the initiator nor the colony's owner")
        self._check_signer(call, event, event["actor"], _SUBMITTERS, found)

    def _check_output(self, life: Life, event: Record, found: Found) -> None:
        got = self._call(event["output_call"], Output, "set its outputs", found)
        if got is None:
            return
        call, asked = got
        if event["from"] != State.RUNNING:
            found(Kind.CALL, "it names outputs, and no attempt ends by it")
            return
        if asked.attempt != Attempt(event["process"], event["attempt"]):
            found(Kind.CALL, "the SetOutput call names another attempt")
        signer = self._members.holder(call.signer, call.at_us)
        attempt = life.attempts[-1] if life.attempts else None
        if not isinstance(signer, str) and (attempt is None or signer.identity != attempt.executor):
            found(Kind.CALL, f"the outputs were set by {signer.identity}, and the attempt is another's")
        else:
            self._check_member(signer, call.at_us, _EXECUTORS, found)
        if attempt is None or not attempt.began_us - SLACK_US <= call.at_us <= event["at_us"] + SLACK_US:
            found(Kind.CALL, "its outputs were not set while the attempt ran")

    _CHECKS: Mapping[str, Callable[["Asking", Life, Record, Found], None]] = {
        "SUBMITTED": _submitted,
        "CLOSED": _closed,
        "RETRIED": _closed,
        "CANCELLED": _cancelled,
        "RETRY_REQUESTED": _retry_requested,
    }
