"""A call that was signed, as the message that is kept and passed on."""

from colonies.call.v1.signed_call_pb2 import SignedCall
from servicekit.signature import Signed


def message_of(signed: Signed) -> SignedCall:
    """The call with all that proves who made it."""
    return SignedCall(
        method=signed.method,
        public_key=bytes.fromhex(signed.public_key),
        time_ms=signed.time_ms,
        nonce=bytes.fromhex(signed.nonce),
        signature=bytes.fromhex(signed.signature),
        body=signed.body,
    )
