"""Auth's ledger of memberships, as the audit export needs it."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC

import grpc

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.call.v1.signed_call_pb2 import SignedCall
from colonies.signing import call_digest, call_text
from servicekit.members import TIMEOUT_S, outage_of
from services.scheduler.domain.audited import MembershipEvent
from services.scheduler.domain.records import Receipt

PAGE = 1_000
KIND_PREFIX = "MEMBERSHIP_EVENT_KIND_"
ROLE_PREFIX = "MEMBER_ROLE_"


class RemoteMemberships:
    """Asks auth. May raise Unavailable."""

    def __init__(self, channel: grpc.aio.Channel, cluster: str) -> None:
        self._auth = AuthServiceStub(channel)
        self._cluster = cluster

    async def events(self, colony: str, after: int) -> AsyncIterator[Sequence[MembershipEvent]]:
        """A colony's from behind a number on, in order, by pages."""
        while True:
            request = pb.ListMembershipEventsRequest(colony_name=colony, after_number=after, page_size=PAGE)
            try:
                page = (await self._auth.ListMembershipEvents(request, timeout=TIMEOUT_S)).events
            except grpc.aio.AioRpcError as error:
                raise outage_of(error) from error
            if not page:
                return
            yield [self._event_of(event) for event in page]
            after = page[-1].number

    def _event_of(self, event: pb.MembershipEvent) -> MembershipEvent:
        return MembershipEvent(
            number=event.number,
            at=event.time.ToDatetime(UTC),
            kind=pb.MembershipEventKind.Name(event.kind).removeprefix(KIND_PREFIX),
            identity=event.identity,
            key=event.key_identity,
            role=pb.MemberRole.Name(event.role).removeprefix(ROLE_PREFIX).lower(),
            name=event.name,
            calls=[self._receipt_of(call) for call in event.calls],
            hash=event.hash,
        )

    def _receipt_of(self, call: SignedCall) -> Receipt:
        nonce = call.nonce.hex()
        text = call_text(method=call.method, audience=self._cluster, time_ms=call.time_ms, nonce=nonce, body=call.body)
        return Receipt(
            digest=bytes.fromhex(call_digest(text, call.public_key, call.signature)),
            method=call.method,
            public_key=call.public_key,
            time_ms=call.time_ms,
            nonce=call.nonce,
            signature=call.signature,
            body=call.body,
        )
