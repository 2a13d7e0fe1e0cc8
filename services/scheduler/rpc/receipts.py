"""The signed call in hand as what is kept of it."""

from dataclasses import dataclass

from colonies.signing import call_digest
from servicekit.caller import Caller
from servicekit.signature import Signed
from services.scheduler.domain.records import Receipt


@dataclass(frozen=True, slots=True)
class Receipts:
    """Makes receipts, if they are kept."""

    kept: bool

    def current(self) -> Receipt | None:
        """That of the RPC in hand."""
        return receipt_of(Caller.current().call) if self.kept else None


def receipt_of(call: Signed) -> Receipt:
    """The digest is specified in protos/vectors/README.md."""
    public_key, signature = bytes.fromhex(call.public_key), bytes.fromhex(call.signature)
    return Receipt(
        digest=bytes.fromhex(call_digest(call.text, public_key, signature)),
        method=call.method,
        public_key=public_key,
        time_ms=call.time_ms,
        nonce=bytes.fromhex(call.nonce),
        signature=signature,
        body=call.body,
    )
