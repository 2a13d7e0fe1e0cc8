"""Signed calls as the ledger keeps them."""

from collections.abc import Sequence
from typing import Any

from colonies.call.v1.signed_call_pb2 import SignedCall
from colonies.errors import UnreadableRequestError
from colonies.json_calls import base_of, request_of
from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.signing import call_digest, call_text
from colonies.verifying import signer_of
from servicekit.bounds import checked, shown
from servicekit.signature import Signed
from servicekit.signed_calls import message_of
from services.auth.domain.model import Call

MAX_CALLS = 4
MAX_CALL_BYTES = 2 * 1024 * 1024

_REGISTRY = "/colonies.registry.v1.RegistryService/"
# What members ask the registry for that becomes a change of memberships, in JSON too.
_PASSED_ON: dict[str, Any] = {
    _REGISTRY + "RegisterExecutor": registry.RegisterExecutorRequest,
    _REGISTRY + "ApproveExecutor": registry.ApproveExecutorRequest,
    _REGISTRY + "RejectExecutor": registry.RejectExecutorRequest,
    _REGISTRY + "RemoveExecutor": registry.RemoveExecutorRequest,
}


def call_in_hand(signed: Signed) -> Call:
    """The call that is being served."""
    message = message_of(signed)
    return Call(message.SerializeToString(), call_digest(signed.text, message.public_key, message.signature))


def passed_on(calls: Sequence[SignedCall], *, colony: str, cluster: str) -> list[Call]:
    """Calls that a service passes on as the reason for its own; each must bear its signature, and ask for a change of this
    colony's executors.

    Raises:
        InvalidArgument: there are too many, or one is too large, or not signed, or about something else.
    """
    with checked() as bounds:
        bounds.count("calls", calls, at_most=MAX_CALLS)
    kept = []
    with checked() as bounds:
        for index, call in enumerate(calls):
            if (size := call.ByteSize()) > MAX_CALL_BYTES:
                bounds.refuse(f"calls[{index}]", f"must be at most {MAX_CALL_BYTES} bytes; it has {size}")
                continue
            if base_of(call.method) not in _PASSED_ON:
                bounds.refuse(
                    f"calls[{index}].method",
                    f"must be one of {', '.join(_PASSED_ON)}, or its twin in JSON; got {shown(call.method)}",
                )
                continue
            text = call_text(method=call.method, audience=cluster, time_ms=call.time_ms, nonce=call.nonce.hex(), body=call.body)
            if _colony_of(call) != colony:
                bounds.refuse(f"calls[{index}].body", "must be about the colony of the request")
            if signer_of(call.public_key, call.signature, text) is None:
                bounds.refuse(f"calls[{index}].signature", "does not fit the call, its key and this cluster")
            kept.append(Call(call.SerializeToString(), call_digest(text, call.public_key, call.signature)))
    return kept


def _colony_of(call: SignedCall) -> str | None:
    """Which colony a call is about. None: its body is no message of its method."""
    try:
        request = request_of(call.method, call.body, _PASSED_ON[base_of(call.method)])
    except UnreadableRequestError:
        return None
    colony: str = request.colony if isinstance(request, registry.RegisterExecutorRequest) else request.colony_name
    return colony
