"""Rotations and the ledger: requests checked and turned into the domain's words, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.call.v1.signed_call_pb2 import SignedCall
from colonies.keys import identity_of
from servicekit.bounds import checked
from servicekit.caller import Caller, Role
from servicekit.clock import NS_PER_MS, Clock
from servicekit.failures import PermissionDenied
from servicekit.signature import Rotation, check_rotation
from services.auth.domain.model import Event, EventKind, Rotated
from services.auth.rpc.convert import ROLES, check_proof, timestamp

MAX_KEEP_OLD_MS = 3_600_000
MAX_NUMBER = 2**63 - 1

KINDS = {kind: pb.MembershipEventKind.Value(f"MEMBERSHIP_EVENT_KIND_{kind}") for kind in EventKind}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A rotation that is asked for; whether the new key agrees has yet to be looked at."""

    colony: str
    new: str
    proof: pb.JoinProof
    keep_old_ms: int

    def check(self, old: str, *, cluster: str, clock: Clock) -> None:
        """Whether the new key agrees to take the place of the old one.

        Raises:
            InvalidArgument: it does not.
        """
        check_rotation(
            Rotation(cluster, self.colony, old),
            field="new_key",
            public_key=self.proof.public_key,
            signature=self.proof.signature,
            time_ms=self.proof.time_ms,
            now_ms=clock.now_ns() // NS_PER_MS,
        )


def wanted(request: pb.RotateKeyRequest) -> Wanted:
    """The rotation that is asked for."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name, optional=True)
        check_proof(bounds, "new_key", request.new_key)
        bounds.number("keep_old_ms", request.keep_old_ms, at_least=0, at_most=MAX_KEEP_OLD_MS)
    return Wanted(request.colony_name, identity_of(request.new_key.public_key), request.new_key, request.keep_old_ms)


def rotated_response(rotated: Rotated) -> pb.RotateKeyResponse:
    """Who the caller is now, as it goes out."""
    return pb.RotateKeyResponse(
        role=ROLES[rotated.role],
        name=rotated.name,
        identity=rotated.identity,
        key_identity=rotated.key,
        old_key_valid_until=timestamp(rotated.old_until),
    )


def ledger_page(request: pb.ListMembershipEventsRequest, caller: Caller) -> tuple[str, int, int]:
    """Colony (empty for none), the number that the page begins behind, and how many are wanted.

    Raises:
        PermissionDenied: the server owner wants the ledger of a colony.
    """
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name, optional=True)
        bounds.number("after_number", request.after_number, at_least=0, at_most=MAX_NUMBER)
        limit = bounds.page("page_size", request.page_size)
    if caller.role is Role.SERVER_OWNER and request.colony_name:
        msg = "a colony's ledger is for its owner and users, and for services"
        raise PermissionDenied(msg, reason="LEDGER_OF_A_COLONY")
    return request.colony_name, request.after_number, limit


def ledger_response(events: Sequence[Event]) -> pb.ListMembershipEventsResponse:
    """A page of the ledger, as it goes out."""
    return pb.ListMembershipEventsResponse(events=map(_event_message, events))


def _event_message(event: Event) -> pb.MembershipEvent:
    return pb.MembershipEvent(
        number=event.number,
        time=timestamp(event.at),
        kind=KINDS[event.kind],
        identity=event.identity,
        key_identity=event.key,
        role=ROLES[event.role],
        name=event.name,
        calls=map(SignedCall.FromString, event.calls),
        previous_hash=event.previous_hash,
        hash=event.hash,
    )
