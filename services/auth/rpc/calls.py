"""Signed calls as the ledger keeps them."""

from collections.abc import Sequence

from colonies.call.v1.signed_call_pb2 import SignedCall
from colonies.signing import call_digest, call_text
from colonies.verifying import signer_of
from servicekit.bounds import checked
from servicekit.signature import Signed
from servicekit.signed_calls import message_of
from services.auth.domain.model import Call

MAX_CALLS = 4
MAX_CALL_BYTES = 2 * 1024 * 1024


def call_in_hand(signed: Signed) -> Call:
    """The call that is being served."""
    message = message_of(signed)
    return Call(message.SerializeToString(), call_digest(signed.text, message.public_key, message.signature))


def passed_on(calls: Sequence[SignedCall], *, cluster: str) -> list[Call]:
    """Calls that a service passes on as the reason for its own; each must bear its signature.

    Raises:
        InvalidArgument: there are too many, or one is too large, or not signed.
    """
    with checked() as bounds:
        bounds.count("calls", calls, at_most=MAX_CALLS)
    kept = []
    with checked() as bounds:
        for index, call in enumerate(calls):
            if (size := call.ByteSize()) > MAX_CALL_BYTES:
                bounds.refuse(f"calls[{index}]", f"must be at most {MAX_CALL_BYTES} bytes; it has {size}")
                continue
            try:
                text = call_text(
                    method=call.method, audience=cluster, time_ms=call.time_ms, nonce=call.nonce.hex(), body=call.body
                )
            except ValueError:
                bounds.refuse(f"calls[{index}].method", "must be a full method name")
                continue
            if signer_of(call.public_key, call.signature, text) is None:
                bounds.refuse(f"calls[{index}].signature", "does not fit the call, its key and this cluster")
            kept.append(Call(call.SerializeToString(), call_digest(text, call.public_key, call.signature)))
    return kept
