"""Rotations as callers make them, and the ledger as an auditor reads it."""

import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.keys import PrivateKey, identity_of
from tests.harness.cluster import CLUSTER, COLONY, Cluster


def proof(cluster: Cluster, old: PrivateKey, new: PrivateKey, *, colony: str = COLONY, **other: Any) -> pb.JoinProof:
    """A new key's agreement to take an old one's place. The text is spelled out here once more."""
    time_ms = other.get("time_ms", cluster.clock_ms())
    audience = other.get("audience", CLUSTER)
    text = f"colonies-rotate-v1\n{audience}\n{colony}\n{old.identity}\n{time_ms}\n".encode()
    return pb.JoinProof(public_key=new.public_key, time_ms=time_ms, signature=new.sign(text))


async def rotate(
    cluster: Cluster,
    old: PrivateKey,
    new: PrivateKey,
    *,
    colony: str = COLONY,
    keep_old_ms: int = 0,
    signer: PrivateKey | None = None,
) -> Any:
    """Puts a new key in the place of an old one."""
    request = pb.RotateKeyRequest(colony_name=colony, new_key=proof(cluster, old, new, colony=colony), keep_old_ms=keep_old_ms)
    return await cluster.stub(AuthServiceStub, signer or old).RotateKey(request)


async def ledger(cluster: Cluster, key: PrivateKey, colony: str = COLONY) -> list[pb.MembershipEvent]:
    """The whole ledger of a colony, page by page."""
    auth = cluster.stub(AuthServiceStub, key)
    events: list[pb.MembershipEvent] = []
    while True:
        after = events[-1].number if events else 0
        request = pb.ListMembershipEventsRequest(colony_name=colony, after_number=after, page_size=2)
        page = (await auth.ListMembershipEvents(request)).events
        if not page:
            return events
        events += page


ROLES = {
    pb.MEMBER_ROLE_COLONY_OWNER: "colony_owner",
    pb.MEMBER_ROLE_USER: "user",
    pb.MEMBER_ROLE_EXECUTOR: "executor",
    pb.MEMBER_ROLE_SERVER_OWNER: "server_owner",
    pb.MEMBER_ROLE_SERVICE: "service",
}


def signed_text(call: Any) -> bytes:
    """What the caller of a kept call signed."""
    digest = hashlib.sha256(call.body).hexdigest()
    lines = ("colonies-call-v1", call.method, CLUSTER, str(call.time_ms), call.nonce.hex(), digest)
    return "".join(f"{line}\n" for line in lines).encode()


def verified(events: Sequence[pb.MembershipEvent], colony: str = COLONY) -> None:
    """Checks every link and every signature, with nothing but what the documents say."""
    previous = b""
    for number, event in enumerate(events, start=1):
        assert event.number == number
        assert event.previous_hash == previous
        kind = pb.MembershipEventKind.Name(event.kind).removeprefix("MEMBERSHIP_EVENT_KIND_")
        time_us = event.time.seconds * 1_000_000 + event.time.nanos // 1000
        lines = [
            "colonies-membership-v1",
            previous.hex(),
            colony,
            str(number),
            str(time_us),
            kind,
            event.identity,
            event.key_identity,
            ROLES[event.role],
            event.name,
        ]
        for call in event.calls:
            text = signed_text(call)
            Ed25519PublicKey.from_public_bytes(call.public_key).verify(call.signature, text)
            lines.append(hashlib.sha256(text + call.public_key + call.signature).hexdigest())
        assert event.hash == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()
        previous = event.hash


def links(events: Sequence[pb.MembershipEvent], colony: str = COLONY) -> list[tuple[str, str]]:
    """The keys that took each other's places, as identities: each link signed by both."""
    found = []
    for event in events:
        if event.kind != pb.MEMBERSHIP_EVENT_KIND_KEY_ROTATED:
            continue
        (call,) = event.calls
        request = pb.RotateKeyRequest.FromString(call.body)
        old, new = identity_of(call.public_key), identity_of(request.new_key.public_key)
        assert call.method == "/colonies.auth.v1.AuthService/RotateKey"
        assert (request.colony_name, event.key_identity) == (colony, new)
        text = f"colonies-rotate-v1\n{CLUSTER}\n{colony}\n{old}\n{request.new_key.time_ms}\n".encode()
        Ed25519PublicKey.from_public_bytes(request.new_key.public_key).verify(request.new_key.signature, text)
        found.append((old, new))
    return found
