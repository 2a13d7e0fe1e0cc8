"""Who was a member, and which key signed for whom when: worked out from the chain of membership events, each of them proven.

A member is known for ever by the identity of the key that it entered with; rotations change only the key that signs for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colonies.audit.calls import Call, Calls, Membership
from colonies.audit.chains import membership_hash
from colonies.audit.findings import Kind, Report
from colonies.audit.proofs import joined_by, rotated_by
from colonies.audit.records import Line, Record

# Services have clocks of their own, learn of changes a moment later, and let calls in that are a minute old.
SLACK_US = 180 * 1_000_000
# Between a call's signature and what came of it: it may have waited in its client's queue, and for an outage.
LONGEST_WAY_US = 600 * 1_000_000
BEFORE_ALL, AFTER_ALL = -(2**63), 2**63 - 1


@dataclass(slots=True)
class _Stay:
    """A time in which somebody was a member; `role` is empty where it is not known."""

    role: str
    since_us: int
    until_us: int = AFTER_ALL


@dataclass(slots=True)
class Member:
    """A member, with the times in which it was one."""

    identity: str
    # The key that signs for it now.
    key: str
    proven: bool
    names: set[str] = field(default_factory=set)
    stays: list[_Stay] = field(default_factory=list)

    def roles(self, at_us: int) -> set[str]:
        """What it was then, give or take; empty if it was no member."""
        return {stay.role for stay in self.stays if stay.since_us - SLACK_US <= at_us <= stay.until_us + SLACK_US}

    @property
    def is_in(self) -> bool:
        """Whether it is a member, as far as was read."""
        return bool(self.stays) and self.stays[-1].until_us == AFTER_ALL

    def enter(self, role: str, at_us: int) -> None:
        """It is a member from now on."""
        if not self.is_in:
            self.stays.append(_Stay(role, at_us))

    def leave(self, at_us: int) -> None:
        """It is no member any more."""
        if self.is_in:
            self.stays[-1].until_us = at_us


def _from_before(identity: str, role: str = "", *, proven: bool = False) -> Member:
    """A member of whose coming no event tells."""
    return Member(identity, identity, proven, stays=[_Stay(role, BEFORE_ALL)])


@dataclass(slots=True)
class _KeyTime:
    """Whose a key is, and when."""

    member: Member
    since_us: int
    until_us: int = AFTER_ALL


def too_far(call: Call, at_us: int) -> str:
    """What is wrong with the time between a call and what came of it, if anything."""
    way = at_us - call.time_ms * 1000
    if -SLACK_US <= way <= LONGEST_WAY_US:
        return ""
    return f"the call was signed {abs(way) / 1e6:.0f} s {'before' if way > 0 else 'after'} it"


class Members:
    """The colony's members."""

    def __init__(self, header: Record, trusted: frozenset[str], calls: Calls, report: Report) -> None:
        self._cluster: str = header["cluster"]
        self._colony: str = header["colony"]
        self.owner: str = header["owner"]
        self._trusted = trusted
        self._calls = calls
        self._report = report
        self._members: dict[str, Member] = {}
        self._keys: dict[str, _KeyTime] = {}
        self._number, self.hash = 0, ""
        # The ledger begins with the colony: there was no member before it.
        self._whole = False
        # Of a colony from before this ledger the server may not know it: then it is one of those who are trusted.
        self._owners = frozenset({self.owner}) if self.owner else trusted
        self.owner_proven = self._owners <= trusted
        if self.owner:
            owner = _from_before(self.owner, "colony_owner", proven=self.owner_proven)
            owner.names.add("owner")
            self._enter(owner, self.owner, BEFORE_ALL)

    def _enter(self, member: Member, key: str, since_us: int) -> None:
        self._members[member.identity] = member
        self._keys[key] = _KeyTime(member, since_us)

    def is_owner(self, identity: str) -> bool:
        """Whether somebody is the colony's owner."""
        return identity in self._owners

    def has_key(self, key: str) -> bool:
        """Whether a key is, or was, a member's."""
        return key in self._keys

    def holder(self, key: str, at_us: int) -> Member | str:
        """The member for whom a key signed at a time, or why there is none."""
        held = self._keys.get(key)
        if held is None:
            if self._whole:
                return f"the key {key} was never a member's"
            return _from_before(key)
        if not held.since_us - SLACK_US <= at_us <= held.until_us + SLACK_US:
            return f"the key {key} did not sign for its member then: its time was over, or not come"
        if not held.member.roles(at_us):
            return f"the member {held.member.identity} was none then"
        return held.member

    def known(self, identity: str, at_us: int) -> Member | str:
        """The member known by an identity at a time, or why there is none."""
        member = self._members.get(identity)
        if member is None:
            if self._whole:
                return f"{identity} was never a member"
            return _from_before(identity)
        return member if member.roles(at_us) else f"the member {identity} was none then"

    def add(self, line: Line) -> None:
        """Takes in a membership event.

        Raises:
            TooMany: enough was found.
        """
        record = line.record
        self._report.counts["membership events"] += 1
        self._check_chain(line)
        if record["number"] == 1 and record["kind"] == "COLONY_ADDED":
            self._whole = True
            self._members.clear()
            self._keys.clear()
        calls = [self._calls.get(digest) for digest in record["calls"]]
        present = {call.method: call for call in calls if call is not None and isinstance(call.asked, Membership)}
        if len(present) != len(calls):
            self._found(line, Kind.MEMBERSHIP, "not all of its calls stand before it, or they are not about members")
        handler = self._HANDLERS.get(record["kind"])
        if handler is None:
            self._found(line, Kind.MALFORMED, f"there is no membership event {record['kind']}")
            return
        if not calls:
            self._found(line, Kind.NOT_PROVEN, "no call is kept for it")
        handler(self, line, present, bool(calls))

    def _found(self, line: Line, kind: Kind, message: str) -> None:
        self._report.found(line.number, kind, line.label, message)

    def _check_chain(self, line: Line) -> None:
        record = line.record
        self._number += 1
        if record["number"] != self._number:
            self._found(line, Kind.CHAIN, f"it has the number {record['number']}, and should have {self._number}")
            self._number = record["number"]
        fields = {name: record[name] for name in ("number", "at_us", "kind", "identity", "key", "role", "name", "calls")}
        expected = membership_hash(self.hash, colony=self._colony, **fields)
        if record["hash"] != expected:
            self._found(line, Kind.CHAIN, "its hash does not follow from the event before")
        self.hash = record["hash"]

    def _request(self, line: Line, calls: Mapping[str, Call], method: str) -> tuple[Call, Any] | None:
        """The call of a method, and its request, which is about this colony."""
        call = calls.get(method)
        if call is None:
            self._found(line, Kind.MEMBERSHIP, f"no {method} call asked for it")
            return None
        assert isinstance(call.asked, Membership)
        request = call.asked.request
        if method in {"AddColony", "RemoveColony"}:
            colony = request.name
        else:
            colony = request.colony if method == "RegisterExecutor" else request.colony_name
        if colony != self._colony:
            self._found(line, Kind.MEMBERSHIP, f"the {method} call is about another colony")
        return call, request

    def _check_owner_signed(self, line: Line, call: Call) -> None:
        at_us = line.record["at_us"]
        holder = self.holder(call.signer, at_us)
        if isinstance(holder, str) or not self.is_owner(holder.identity):
            self._found(line, Kind.MEMBERSHIP, f"the {call.method} call is not signed by the colony's owner")
        if problem := too_far(call, at_us):
            self._found(line, Kind.CALL, problem)

    def _expect(self, line: Line, holds: bool, message: str) -> None:
        if not holds:
            self._found(line, Kind.MEMBERSHIP, message)

    def _come(self, line: Line, proven: bool) -> None:
        """The member of an event is one from now on."""
        record = line.record
        member = self._members.get(record["identity"])
        if member is None:
            self._expect(line, record["key"] == record["identity"], "a new member is known by the key that it enters with")
            member = Member(record["identity"], record["key"], proven)
            self._enter(member, record["key"], record["at_us"])
        else:
            self._expect(line, record["key"] == member.key, "it enters with another key than it had last")
        held = self._keys.get(record["key"])
        self._expect(line, held is not None and held.member is member, "the key is another member's")
        member.proven = proven
        member.names.add(record["name"])
        member.enter(record["role"], record["at_us"])

    def _add_colony(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        self._expect(line, record["number"] == 1, "a colony is added once, before all else")
        is_owner = record["identity"] == self.owner and record["role"] == "colony_owner"
        self._expect(line, is_owner, "the header names another owner")
        if proven and (found := self._request(line, calls, "AddColony")) is not None:
            call, request = found
            joined = joined_by(request.owner, self._cluster, self._colony, "colony_owner", self._colony, self._report)
            self._expect(line, joined == record["key"], "the owner's proof does not fit")
            if joined == self.owner and call.signer in self._trusted:
                self.owner_proven = True
        self._come(line, proven)
        self._members[record["identity"]].names.add("owner")

    def _add_user(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        self._expect(line, record["role"] == "user", "it is no user")
        if proven and (found := self._request(line, calls, "AddUser")) is not None:
            call, request = found
            self._check_owner_signed(line, call)
            self._expect(line, request.name == record["name"], "the AddUser call names another user")
            joined = joined_by(request.user, self._cluster, self._colony, "user", record["name"], self._report)
            self._expect(line, joined == record["key"], "the user's proof does not fit")
        self._come(line, proven)

    def _approve(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        self._expect(line, record["role"] == "executor", "it is no executor")
        if proven and (found := self._request(line, calls, "ApproveExecutor")) is not None:
            call, request = found
            self._check_owner_signed(line, call)
            self._expect(line, request.identity.lower() == record["identity"], "the approval is of another executor")
        if proven and (found := self._request(line, calls, "RegisterExecutor")) is not None:
            call, request = found
            held = self._keys.get(call.signer)
            # It may have registered with a key that was rotated since.
            own = call.signer == record["key"] or (held is not None and held.member.identity == record["identity"])
            self._expect(line, own, "the registration is signed by another key")
            self._expect(line, request.name == record["name"], "it registered under another name")
        self._come(line, proven)

    def _remove_user(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        if proven and (found := self._request(line, calls, "RemoveUser")) is not None:
            call, request = found
            self._check_owner_signed(line, call)
            self._expect(line, request.name == line.record["name"], "the RemoveUser call names another user")
        self._go(line)

    def _remove_executor(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        if proven:
            method = next((one for one in ("RejectExecutor", "RemoveExecutor") if one in calls), "RegisterExecutor")
            if (found := self._request(line, calls, method)) is not None:
                call, request = found
                holder = self.holder(call.signer, record["at_us"])
                own = not isinstance(holder, str) and holder.identity == record["identity"]
                if method == "RejectExecutor" or (method == "RemoveExecutor" and not own):
                    self._check_owner_signed(line, call)
                else:
                    self._expect(line, own, f"the {method} call is signed neither by the executor nor by the owner")
                named = record["identity"] if method == "RegisterExecutor" else request.identity.lower()
                self._expect(line, named == record["identity"], f"the {method} call names another executor")
        self._go(line)

    def _remembered(self, line: Line) -> Member | None:
        """The member of an event that only members can have."""
        record = line.record
        member = self._members.get(record["identity"])
        if member is None and not self._whole:
            member = _from_before(record["identity"], record["role"])
            member.names.add(record["name"])
            self._enter(member, record["identity"], BEFORE_ALL)
        self._expect(line, member is not None and member.is_in, "it is about somebody who was no member")
        return member

    def _go(self, line: Line) -> None:
        member = self._remembered(line)
        if member is not None:
            self._expect(line, member.key == line.record["key"], "its member has another key")
            member.leave(line.record["at_us"])

    def _rotate(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        member = self._remembered(line)
        if member is None:
            return
        keep_us = SLACK_US
        if proven and (found := self._request(line, calls, "RotateKey")) is not None:
            call, request = found
            if not member.proven and member.key == member.identity:
                # From before the ledger: earlier rotations are not in it.
                member.key = call.signer
                self._keys.setdefault(call.signer, _KeyTime(member, BEFORE_ALL))
            self._expect(line, call.signer == member.key, "the RotateKey call is not signed by the key that its member had")
            rotated = rotated_by(request.new_key, self._cluster, self._colony, call.signer, self._report)
            self._expect(line, rotated == record["key"], "the new key's proof does not fit")
            if problem := too_far(call, record["at_us"]):
                self._found(line, Kind.CALL, problem)
            keep_us = request.keep_old_ms * 1000
        self._expect(line, record["key"] not in self._keys, "the new key was in use already")
        for key, held in self._keys.items():
            if held.member is member:
                until_us = record["at_us"] + (keep_us if key == member.key else 0)
                held.until_us = min(held.until_us, until_us)
        member.key = record["key"]
        self._keys[member.key] = _KeyTime(member, record["at_us"])

    def _remove_colony(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        if proven:
            self._request(line, calls, "RemoveColony")
        for member in self._members.values():
            member.leave(line.record["at_us"])

    _HANDLERS: Mapping[str, Callable[["Members", Line, Mapping[str, Call], bool], None]] = {
        "COLONY_ADDED": _add_colony,
        "USER_ADDED": _add_user,
        "USER_REMOVED": _remove_user,
        "EXECUTOR_APPROVED": _approve,
        "EXECUTOR_RENAMED": _approve,
        "EXECUTOR_REMOVED": _remove_executor,
        "KEY_ROTATED": _rotate,
        "COLONY_REMOVED": _remove_colony,
    }
