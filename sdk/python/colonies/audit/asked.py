"""Whether each event is what its call asked for, by somebody who may."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from colonies.audit.calls import Attempt, Call, Calls, Cancel, Closes, Output, Retry, Submit
from colonies.audit.findings import Kind
from colonies.audit.life import ASKED_FOR, Life, State
from colonies.audit.members import SLACK_US, Member, Members, too_far
from colonies.audit.records import Record

# One priority step is a day of head start; each spec of a call counts as submitted a nanosecond after the last.
_STEP_NS = -86_400 * 1_000_000_000
_SUBMITTERS = frozenset({"colony_owner", "user", "executor"})
_EXECUTORS = frozenset({"executor"})

Found = Callable[[Kind, str], None]
AskedT = TypeVar("AskedT", Submit, Closes, Output, Cancel, Retry)


@dataclass(frozen=True, slots=True)
class Growth:
    """An attempt that added processes to its workflow, as it is to be when its own events were read."""

    parent: Attempt
    workflow: str
    executor: str


class Asking:
    """Compares events with calls."""

    def __init__(self, header: Record, crons: frozenset[str], members: Members, calls: Calls) -> None:
        self._colony: str = header["colony"]
        self._crons = crons
        self._members = members
        self._calls = calls
        # On whose account each workflow is, and its call.
        self._workflows: dict[str, tuple[str, str]] = {}
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
        if bool(workflow) is not (submit.whole_workflow or submit.parent is not None):
            found(Kind.CALL, f"it is in {'a' if workflow else 'no'} workflow, and {call.method} asked for something else")
            return
        if submit.workflow is None:
            submit.workflow = workflow
        elif submit.workflow != workflow:
            found(Kind.CALL, "another process of the same call is in another workflow")
        if not workflow:
            return
        entered = call.digest if submit.whole_workflow else ""
        initiator, first = self._workflows.setdefault(workflow, (process["initiator"], entered))
        if initiator != process["initiator"]:
            found(Kind.CALL, "its workflow is on another member's account")
        if entered and first and first != entered:
            found(Kind.CALL, "its workflow was submitted by another call")
        elif entered and not first:
            self._workflows[workflow] = (initiator, entered)

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
        elif not member.proven:
            found(Kind.NOT_PROVEN, f"that {member.identity} was a member then is not proven")
        elif not member.roles(at_us) & roles:
            found(Kind.MEMBERSHIP, f"{member.identity} was a member as {', '.join(member.roles(at_us))}, and may not do this")
        elif name and name not in member.names:
            found(Kind.MEMBERSHIP, f"{member.identity} never had the name {name!r}")

    def _check_signer(self, call: Call, event: Record, identity: str, roles: frozenset[str], found: Found) -> None:
        """Checks that a call was signed for a member, and near the time of what came of it."""
        at_us = event["at_us"]
        signer = self._members.holder(call.signer, at_us)
        if not isinstance(signer, str) and signer.identity != identity:
            found(Kind.CALL, f"the {call.method} call is signed for {signer.identity}, not for {identity}")
        else:
            self._check_member(signer, at_us, roles, found)
        if problem := too_far(call, at_us):
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
        initiator = self._members.known(process["initiator"], event["at_us"])
        if submit.on_behalf_of:
            if call.signer not in self._crons or event["actor"] not in self._crons:
                found(Kind.CALL, f"{call.signer}, who submitted it on behalf of a member, is no cron service that is trusted")
            if submit.on_behalf_of != process["initiator"]:
                found(Kind.CALL, f"it was submitted on behalf of {submit.on_behalf_of}, not of its initiator")
            self._check_member(initiator, event["at_us"], _SUBMITTERS, found, process["initiator_name"])
            if problem := too_far(call, event["at_us"]):
                found(Kind.CALL, problem)
            return
        if submit.parent is None:
            self._check_member(initiator, event["at_us"], _SUBMITTERS, found, process["initiator_name"])
            self._check_signer(call, event, process["initiator"], _SUBMITTERS, found)
            self._check_actor(event, process["initiator"], found)
            return
        self._check_signer(call, event, event["actor"], _EXECUTORS, found)
        self.growths.setdefault(call.digest, Growth(submit.parent, process["workflow_id"], event["actor"]))

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
        self._check_controller(life, call, event, found)

    def _retry_requested(self, life: Life, event: Record, found: Found) -> None:
        got = self._call(event["call"], Retry, "taken it up again", found)
        if got is None:
            return
        call, asked = got
        if asked.workflow != life.process["workflow_id"]:
            found(Kind.CALL, "its call names another workflow")
        self._check_controller(life, call, event, found)

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
        signer = self._members.holder(call.signer, call.time_ms * 1000)
        executor = life.executors[-1] if life.executors else ""
        if not isinstance(signer, str) and signer.identity != executor:
            found(Kind.CALL, f"the outputs were set by {signer.identity}, and the attempt is another's")
        else:
            self._check_member(signer, call.time_ms * 1000, _EXECUTORS, found)
        if not life.began_us - SLACK_US <= call.time_ms * 1000 <= event["at_us"] + SLACK_US:
            found(Kind.CALL, "its outputs were not set while the attempt ran")

    _CHECKS: Mapping[str, Callable[["Asking", Life, Record, Found], None]] = {
        "SUBMITTED": _submitted,
        "CLOSED": _closed,
        "RETRIED": _closed,
        "CANCELLED": _cancelled,
        "RETRY_REQUESTED": _retry_requested,
    }
