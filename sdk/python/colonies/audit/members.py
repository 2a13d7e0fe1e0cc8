"""Who was a member, and which key signed for whom when: worked out from the chain of membership events, each of them proven.

A member is known for ever by the identity of the key that it entered with; rotations change only the key that signs for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colonies.audit.calls import Call, Calls, Membership
from colonies.audit.chains import membership_hash
from colonies.audit.findings import Kind, Report
from colonies.audit.proofs import joined_by, rotated_by
from colonies.audit.records import Line, Record
from colonies.audit.standing import BEFORE_ALL, SLACK_US, KeyTime, Member, from_before, too_far
from colonies.audit.trust import Trust

OWNER, OWNER_NAME = "colony_owner", "owner"
_APPROVALS = frozenset({"EXECUTOR_APPROVED", "EXECUTOR_RENAMED"})


class Members:
    """The colony's members."""

    def __init__(self, header: Record, trust: Trust, calls: Calls, report: Report) -> None:
        self._cluster: str = header["cluster"]
        self._colony: str = header["colony"]
        self.owner: str = header["owner"]
        self._trust = trust
        self._calls = calls
        self._report = report
        self._members: dict[str, Member] = {}
        self._keys: dict[str, KeyTime] = {}
        self._number, self.hash = 0, ""
        # The ledger begins with the colony: there was no member before it.
        self._whole = False
        # Calls that have asked for an event already, and registrations whose executors went since.
        self._spent: set[str] = set()
        self._void: set[str] = set()
        # Of a colony from before this ledger the server may not know it: then its readers do, or nobody.
        self._owners = frozenset({self.owner}) if self.owner else trust.owners
        # The keys that the header's owner proved to be its own, and whether who added the colony is trusted with that.
        self._owner_keys = set(self._owners)
        self._vouched_for = False
        if self.owner:
            owner = from_before(self.owner, OWNER, OWNER_NAME, proven=self.owner in trust.owners)
            self._enter(owner, self.owner, BEFORE_ALL)

    @property
    def owner_problem(self) -> str:
        """Why nobody need believe that the header's owner is the colony's, if so."""
        if self._trust.owners:
            known = not self._owner_keys.isdisjoint(self._trust.owners)
            return "" if known else "it is none of the owners that are trusted, nor did it rotate to the key of one"
        if self._vouched_for:
            return ""
        return "nobody trusted vouches for the colony's owner; if you know that this is its identity, trust it"

    def _enter(self, member: Member, key: str, since_us: int) -> None:
        self._members[member.identity] = member
        self._keys[key] = KeyTime(member, since_us, member.rotations)

    def is_owner(self, identity: str) -> bool:
        """Whether somebody is the colony's owner."""
        return identity in self._owners

    def is_known(self, identity: str) -> bool:
        """Whether somebody is, or was, a member, as far as was read."""
        return identity in self._members

    def had_name(self, identity: str, name: str) -> bool:
        """Whether it had this name at any time; also if nothing is known of it."""
        member = self._members.get(identity)
        return not self._whole if member is None else name in member.names or member.from_before

    def has_key(self, key: str) -> bool:
        """Whether a key is, or was, a member's."""
        return key in self._keys

    def holder(self, key: str, at_us: int) -> Member | str:
        """The member for whom a key signed at a time, or why there is none."""
        held = self._keys.get(key)
        if held is None:
            if self._whole:
                return f"the key {key} was never a member's"
            return from_before(key)
        if not held.holds(at_us):
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
            return from_before(identity)
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
        self._spend(line, list(present.values()))
        handler = self._HANDLERS.get(record["kind"])
        if handler is None:
            self._found(line, Kind.MALFORMED, f"there is no membership event {record['kind']}")
            return
        if not calls and self._whole:
            self._found(line, Kind.MEMBERSHIP, "no call asked for it, and all of this colony's calls are kept")
        elif not calls:
            self._found(line, Kind.NOT_PROVEN, "no call is kept for it")
        handler(self, line, present, bool(calls))

    def _spend(self, line: Line, calls: Sequence[Call]) -> None:
        """Each call asks for one event; but a registration is there to be approved, also after a rejection."""
        for call in calls:
            if call.method == "RegisterExecutor" and line.record["kind"] in _APPROVALS:
                continue
            if call.digest in self._spent:
                self._found(line, Kind.MEMBERSHIP, f"its {call.method} call has asked for an earlier event already")
            self._spent.add(call.digest)

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
        holder = self.holder(call.signer, call.at_us)
        if isinstance(holder, str) or not self.is_owner(holder.identity):
            self._found(line, Kind.MEMBERSHIP, f"the {call.method} call is not signed by the colony's owner")
        self._check_way(line, call)

    def _check_way(self, line: Line, call: Call) -> None:
        if problem := too_far(call, line.record["at_us"]):
            self._found(line, Kind.CALL, problem)

    def _expect(self, line: Line, holds: bool, message: str) -> None:
        if not holds:
            self._found(line, Kind.MEMBERSHIP, message)

    def _come(self, line: Line, proven: bool) -> None:
        """The member of an event is one from now on."""
        record = line.record
        member = self._members.get(record["identity"])
        renamed = record["kind"] == "EXECUTOR_RENAMED"
        if member is None:
            self._expect(line, not (renamed and self._whole), "it is about somebody who was no member")
            self._expect(line, record["key"] == record["identity"], "a new member is known by the key that it enters with")
            member = Member(record["identity"], record["key"])
            self._enter(member, record["key"], record["at_us"])
        else:
            message = (
                "it is about somebody who was no such member" if renamed else "it is about somebody who was a member already"
            )
            self._expect(line, member.is_in is renamed and (not renamed or member.role == record["role"]), message)
            self._expect(line, record["key"] == member.key, "it enters with another key than it had last")
        held = self._keys.get(record["key"])
        self._expect(line, held is not None and held.member is member, "the key is another member's")
        member.call_it(record["name"])
        member.enter(member.role if renamed else record["role"], record["at_us"], proven=proven)

    def _add_colony(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        self._expect(line, record["number"] == 1, "a colony is added once, before all else")
        is_owner = record["identity"] == self.owner and record["role"] == OWNER and record["name"] == OWNER_NAME
        self._expect(line, is_owner, "the header names another owner")
        if proven and (found := self._request(line, calls, "AddColony")) is not None:
            call, request = found
            joined = joined_by(request.owner, self._cluster, self._colony, OWNER, self._colony, self._report)
            self._expect(line, joined == record["key"], "the owner's proof does not fit")
            self._check_way(line, call)
            self._vouched_for = joined == self.owner and call.signer in self._trust.server_owners
        self._come(line, proven)

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
        if set(calls) == {"ApproveExecutor"}:
            self._found(line, Kind.NOT_PROVEN, "no registration is kept for it: it registered before calls were kept")
            self._come(line, proven=False)
            return
        registered = self._request(line, calls, "RegisterExecutor") if proven else None
        if registered is not None:
            self._check_registration(line, *registered)
        self._come(line, proven)
        if registered is not None:
            member, digest = self._members[record["identity"]], registered[0].digest
            self._void |= member.registrations - {digest}
            member.registrations = {digest}

    def _check_registration(self, line: Line, call: Call, request: Any) -> None:
        record = line.record
        held = self._keys.get(call.signer)
        # It may have registered long ago, with a key that was rotated since; not with one that was rotated before.
        own = call.signer == record["key"] or (held is not None and held.member.identity == record["identity"])
        self._expect(line, own, "the registration is signed by another key")
        good = held is None or call.at_us <= held.until_us + SLACK_US
        self._expect(line, good, "the registration is signed by a key whose time was over")
        self._expect(line, request.name == record["name"], "it registered under another name")
        self._expect(line, call.digest not in self._void, "its executor went, or registered otherwise, since it registered so")

    def _remove_user(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        self._expect(line, line.record["role"] == "user", "it is no user")
        if proven and (found := self._request(line, calls, "RemoveUser")) is not None:
            call, request = found
            self._check_owner_signed(line, call)
            self._expect(line, request.name == line.record["name"], "the RemoveUser call names another user")
        self._go(line)

    def _remove_executor(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        self._expect(line, record["role"] == "executor", "it is no executor")
        method = next((one for one in ("RejectExecutor", "RemoveExecutor") if one in calls), "RegisterExecutor")
        if proven and (found := self._request(line, calls, method)) is not None:
            self._check_removal(line, method, *found)
        member = self._go(line)
        if member is not None and proven and method != "RejectExecutor":
            self._void |= member.registrations
            member.registrations = set()

    def _check_removal(self, line: Line, method: str, call: Call, request: Any) -> None:
        identity = line.record["identity"]
        holder = self.holder(call.signer, call.at_us)
        own = not isinstance(holder, str) and holder.identity == identity
        if method == "RejectExecutor" or (method == "RemoveExecutor" and not own):
            self._check_owner_signed(line, call)
        else:
            self._expect(line, own, f"the {method} call is signed neither by the executor nor by the owner")
            self._check_way(line, call)
        if method == "RegisterExecutor":
            member = self._members.get(identity)
            again = member is not None and call.digest in member.registrations
            self._expect(line, not again, "the RegisterExecutor call is what it was approved with")
        else:
            self._expect(line, request.identity.lower() == identity, f"the {method} call names another executor")

    def _remembered(self, line: Line) -> Member | None:
        """The member of an event that only members can have; it has the role and the name of the event."""
        record = line.record
        member = self._members.get(record["identity"])
        if member is None and not self._whole:
            member = from_before(record["identity"], record["role"], record["name"])
            self._enter(member, record["identity"], BEFORE_ALL)
        self._expect(line, member is not None and member.is_in, "it is about somebody who was no member")
        if member is not None and (member.role, member.name) != (record["role"], record["name"]):
            self._found(line, Kind.MEMBERSHIP, f"its member is the {member.role} {member.name!r}")
        return member

    def _go(self, line: Line) -> Member | None:
        member = self._remembered(line)
        if member is not None:
            self._expect(line, member.key == line.record["key"], "its member has another key")
            member.leave(line.record["at_us"])
        return member

    def _rotate(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        record = line.record
        member = self._remembered(line)
        if member is None:
            return
        keep_us = SLACK_US
        found = self._request(line, calls, "RotateKey") if proven else None
        if found is not None:
            call, request = found
            self._remember_key(member, call.signer)
            self._expect(line, call.signer == member.key, "the RotateKey call is not signed by the key that its member had")
            rotated = rotated_by(request.new_key, self._cluster, self._colony, call.signer, self._report)
            self._expect(line, rotated == record["key"], "the new key's proof does not fit")
            self._check_way(line, call)
            keep_us = request.keep_old_ms * 1000
        else:
            member.chained = False
            member.enter(member.role, record["at_us"], proven=False)
        self._expect(line, record["key"] not in self._keys, "the new key was in use already")
        member.rotate(record["key"], record["at_us"], keep_us)
        self._keys[member.key] = KeyTime(member, record["at_us"], member.rotations)
        if member.identity == self.owner and member.chained:
            self._owner_keys.add(member.key)

    def _remember_key(self, member: Member, key: str) -> None:
        """Of a member from before the ledger the rotations before it are not known: then its first key is this."""
        if member.from_before and member.identity != self.owner and not member.rotations and key not in self._keys:
            member.key, member.chained = key, False
            self._keys[key] = KeyTime(member, BEFORE_ALL, 0)

    def _remove_colony(self, line: Line, calls: Mapping[str, Call], proven: bool) -> None:
        self._expect(line, line.record["role"] == OWNER, "it is not about the colony's owner")
        if proven and (found := self._request(line, calls, "RemoveColony")) is not None:
            call, _ = found
            if call.signer not in self._trust.server_owners:
                self._found(
                    line, Kind.NOT_PROVEN, f"the RemoveColony call is by {call.signer}, no server owner that is trusted"
                )
            self._check_way(line, call)
        self._go(line)
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
