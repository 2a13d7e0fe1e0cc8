"""What a member is and was: its roles, names and keys over time."""

from dataclasses import dataclass, field

from colonies.audit.calls import Call

# Services have clocks of their own, learn of changes a moment later, and let calls in that are a minute old.
SLACK_US = 180 * 1_000_000
# Between a call's signature and what came of it: it may have waited in its client's queue, and for an outage.
LONGEST_WAY_US = 600 * 1_000_000
BEFORE_ALL, AFTER_ALL = -(2**63), 2**63 - 1


def too_far(call: Call, at_us: int) -> str:
    """What is wrong with the time between a call and what came of it, if anything."""
    way = at_us - call.at_us
    if -SLACK_US <= way <= LONGEST_WAY_US:
        return ""
    return f"the call was signed {abs(way) / 1e6:.0f} s {'before' if way > 0 else 'after'} it"


@dataclass(slots=True)
class Stay:
    """A time in which somebody was a member; `role` is empty where it is not known."""

    role: str
    since_us: int
    proven: bool
    until_us: int = AFTER_ALL

    def covers(self, at_us: int) -> bool:
        """Whether it was a member then, give or take."""
        return self.since_us - SLACK_US <= at_us <= self.until_us + SLACK_US


@dataclass(slots=True)
class Member:
    """A member, with the times in which it was one."""

    identity: str
    # The key that signs for it now.
    key: str
    # Of its coming no event tells.
    from_before: bool = False
    # Each of its rotations is proven: its first key vouched for the one of now, and this one for the first.
    chained: bool = True
    # That of now, and all that it had.
    name: str = ""
    names: set[str] = field(default_factory=set)
    stays: list[Stay] = field(default_factory=list)
    # Digests of the registrations that it was approved with since it last went by itself, or was removed.
    registrations: set[str] = field(default_factory=set)
    rotations: int = 0
    # When keys end, by the rotation that replaced them.
    _ends_us: list[int] = field(default_factory=list)

    def roles(self, at_us: int) -> set[str]:
        """What it was then, give or take; empty if it was no member."""
        return {stay.role for stay in self.stays if stay.covers(at_us)}

    def proven(self, at_us: int) -> bool:
        """Whether calls prove all that it was then."""
        return all(stay.proven for stay in self.stays if stay.covers(at_us))

    @property
    def is_in(self) -> bool:
        """Whether it is a member, as far as was read."""
        return bool(self.stays) and self.stays[-1].until_us == AFTER_ALL

    @property
    def role(self) -> str:
        """What it is, or was last."""
        return self.stays[-1].role if self.stays else ""

    def call_it(self, name: str) -> None:
        """It has this name from now on."""
        self.name = name
        self.names.add(name)

    def enter(self, role: str, at_us: int, *, proven: bool) -> None:
        """It is a member from now on, or still; this is proven only if all that its keys hang on is."""
        self.leave(at_us)
        self.stays.append(Stay(role, at_us, proven and self.chained))

    def leave(self, at_us: int) -> None:
        """It is no member any more."""
        if self.is_in:
            self.stays[-1].until_us = at_us

    def rotate(self, key: str, at_us: int, keep_old_us: int) -> None:
        """It has another key from now on; the one before is good for a while, and those before that end now."""
        self.key = key
        if self._ends_us:
            self._ends_us[-1] = min(self._ends_us[-1], at_us)
        self._ends_us.append(at_us + keep_old_us)
        self.rotations += 1

    def key_until_us(self, rotation: int) -> int:
        """Until when the key is good that this rotation replaced, or will."""
        return self._ends_us[rotation] if rotation < len(self._ends_us) else AFTER_ALL


def from_before(identity: str, role: str = "", name: str = "", *, proven: bool = False) -> Member:
    """A member of whose coming no event tells."""
    member = Member(identity, identity, from_before=True, stays=[Stay(role, BEFORE_ALL, proven)])
    if name:
        member.call_it(name)
    return member


@dataclass(frozen=True, slots=True)
class KeyTime:
    """Whose a key is, since when, and which of its member's rotations replaces it."""

    member: Member
    since_us: int
    rotation: int

    @property
    def until_us(self) -> int:
        """When it ends, as far as was read."""
        return self.member.key_until_us(self.rotation)

    def holds(self, at_us: int) -> bool:
        """Whether the key was the member's then, give or take."""
        return self.since_us - SLACK_US <= at_us <= self.until_us + SLACK_US
