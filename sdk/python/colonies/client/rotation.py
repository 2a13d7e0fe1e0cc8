"""A new key in the place of the one that a client has."""

from collections.abc import AsyncGenerator

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.client.calls import Calls
from colonies.errors import PermissionDeniedError
from colonies.keys import PrivateKey
from colonies.signing import now_ms, rotate_text

KEEP_OLD_MS = 60_000


def rotation_proof(new: PrivateKey, audience: str, colony: str, old: str) -> auth.JoinProof:
    """The proof, good for 24 hours, that a new key takes the place of an old one.

    Args:
        new: the new key.
        audience: cluster id of the server.
        colony: the colony; empty for the server owner and for services.
        old: the identity of the old key.
    """
    time_ms = now_ms()
    text = rotate_text(audience=audience, colony=colony, old=old, time_ms=time_ms)
    return auth.JoinProof(public_key=new.public_key, time_ms=time_ms, signature=new.sign(text))


class KeyCalls(Calls):
    """What can be done about the caller's own key, and seen of everybody's."""

    async def rotate_key(
        self, new: PrivateKey, *, colony: str | None = None, keep_old_ms: int = KEEP_OLD_MS
    ) -> auth.RotateKeyResponse:
        """Puts a new key in the place of this client's, which signs with it from then on.

        Keep both keys before you call this, and until it has returned: once it is made, the new one alone proves who you are.
        Whatever it raises, this client signs with the old key as before. If that was an outage or a cancellation, nobody here
        knows whether it was made; until you do, the old key may be refused. Repeat it with the same key, which does no harm:
        it finds out, with whichever of the two is good, and ends with the new one. (A KeyFileRotation has both in files.)

        Args:
            new: the new key.
            colony: the colony in which it counts; this client's if not given, and "" for the server owner and services.
            keep_old_ms: how long the old key is still good, for those who use it too: 0 to 3 600 000.

        Raises:
            PermissionDeniedError: the client's key is nobody's.
            FailedPreconditionError: another key has taken its place already.
            AlreadyExistsError: the new key is, or was, somebody's.
            ResourceExhaustedError: the member has rotated ten times within an hour.
        """
        old = self.key
        place = self.colony if colony is None else colony
        proof = rotation_proof(new, self.cluster, place, old.identity)
        request = auth.RotateKeyRequest(colony_name=place, new_key=proof, keep_old_ms=keep_old_ms)
        try:
            response = await self.call(self.auth.RotateKey, request)
        except PermissionDeniedError:
            # Perhaps because it has been made, and nobody heard the answer: then the new key may ask again.
            self.use_key(new)
            try:
                return await self.call(self.auth.RotateKey, request)
            except PermissionDeniedError:
                # Neither key is anybody's: what was said of the client's own is the answer.
                self.use_key(old)
            except BaseException:
                self.use_key(old)
                raise
            raise
        self.use_key(new)
        return response

    async def list_membership_events(
        self, *, colony: str | None = None, after_number: int = 0
    ) -> AsyncGenerator[auth.MembershipEvent]:
        """Who came in, changed keys and went; for the colony's owner and users. "" is for the server owner."""
        place = self.colony if colony is None else colony
        while True:
            request = auth.ListMembershipEventsRequest(colony_name=place, after_number=after_number)
            events = (await self.call(self.auth.ListMembershipEvents, request)).events
            if not events:
                return
            for event in events:
                yield event
            after_number = events[-1].number
