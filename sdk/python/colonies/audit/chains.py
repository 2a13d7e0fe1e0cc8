"""The hashes in an audit file, as docs/audit.md has them: each text in one place, for those who write and those who check.

A text is lines of UTF-8, each ended by one line feed. No value may hold a line feed: names, identities and reasons cannot, and
the errors of an event are JSON, which escapes it.
"""

import hashlib
import json
from collections.abc import Sequence

MEMBERSHIP_PREFIX = "colonies-membership-v1"
PROCESS_PREFIX = "colonies-process-v1"
EVENT_PREFIX = "colonies-event-v1"
SEAL_PREFIX = "colonies-audit-v1"


def text_of(*values: str | int) -> bytes:
    """Values as lines of a text."""
    return "".join(f"{value}\n" for value in values).encode()


def hash_of(*values: str | int) -> str:
    """The SHA-256 digest of a text, as 64 lower-case hex digits."""
    return hashlib.sha256(text_of(*values)).hexdigest()


def errors_text(errors: Sequence[str]) -> str:
    """Errors as JSON, just as Postgres's array_to_json writes them."""
    return json.dumps(list(errors), ensure_ascii=False, separators=(",", ":"))


def membership_hash(
    previous: str,
    *,
    colony: str,
    number: int,
    at_us: int,
    kind: str,
    identity: str,
    key: str,
    role: str,
    name: str,
    calls: Sequence[str],
) -> str:
    """The hash of a membership event.

    Args:
        previous: hash of the colony's event before; empty for the first.
        colony: the tenant.
        number: the event's number in its colony, from 1.
        at_us: unix microseconds.
        kind: such as "USER_ADDED".
        identity: what the member is known by.
        key: identity of the key that signs for the member from here on.
        role: "colony_owner", "user" or "executor".
        name: the member's name.
        calls: digests of the calls that asked for it.
    """
    return hash_of(MEMBERSHIP_PREFIX, previous, colony, number, at_us, kind, identity, key, role, name, *calls)


def process_root(
    *,
    colony: str,
    process: str,
    workflow: str,
    initiator: str,
    initiator_name: str,
    submitted_us: int,
    priority_time: int,
    call: str,
    place: int,
) -> str:
    """The hash that the chain of a process begins with.

    Args:
        colony: the tenant.
        process: its id.
        workflow: id of its workflow; empty for none.
        initiator: identity of the member on whose account it is.
        initiator_name: that member's name at the time.
        submitted_us: unix microseconds.
        priority_time: nanoseconds, may be negative.
        call: digest of the call that submitted it.
        place: which of that call's specs it is, from 0.
    """
    return hash_of(
        PROCESS_PREFIX, colony, process, workflow, initiator, initiator_name, submitted_us, priority_time, call, place
    )


def event_hash(
    previous: str,
    *,
    at_us: int,
    from_state: int,
    to_state: int,
    attempt: int,
    executor_name: str,
    actor: str,
    reason: str,
    outcome: int,
    errors: Sequence[str],
    call: str,
    output_call: str,
) -> str:
    """The hash of a process's event.

    Args:
        previous: hash of the event before; the process's root for the first.
        at_us: unix microseconds.
        from_state: number of the state before.
        to_state: number of the state after.
        attempt: the attempt it concerned; 0 for none.
        executor_name: that attempt's executor.
        actor: identity of whoever caused it; empty for the service itself.
        reason: such as "CLOSED".
        outcome: how the attempt ended, as a number.
        errors: what was reported.
        call: digest of the call that asked for it; empty for none.
        output_call: digest of the last SetOutput of the attempt that ended; empty for none.
    """
    return hash_of(
        EVENT_PREFIX,
        previous,
        at_us,
        from_state,
        to_state,
        attempt,
        executor_name,
        actor,
        reason,
        outcome,
        errors_text(errors),
        call,
        output_call,
    )


def seal_text(*, cluster: str, colony: str, time_ms: int, records: int, digest: str) -> bytes:
    """What the scheduler signs at the end of a file.

    Args:
        cluster: the cluster's id.
        colony: the tenant.
        time_ms: unix milliseconds.
        records: number of lines before the seal.
        digest: that of the last of them.
    """
    return text_of(SEAL_PREFIX, cluster, colony, time_ms, records, digest)
