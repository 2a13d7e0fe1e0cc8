"""A build without signatures, for one figure: what signing, checking and claiming nonces cost is measured against it.

`python -P -m bench.unsigned SERVICE` runs a service that believes whoever a call names, if it is not signed, and claims no
nonce; `unsigned_calls()` makes this process's clients name themselves and sign nothing. All else is the code that is shipped,
the receipts too, which then prove nothing.
"""

import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache

from colonies import signing
from colonies.keys import identity_of
from colonies.signing import KEY_HEADER, SIGNATURE_HEADER
from servicekit import pipeline
from servicekit.caller import Caller
from servicekit.signature import Signed, check_call

_NOBODY_SIGNED = "0" * 128
_NO_NONCE = "0" * 32


@lru_cache(maxsize=10_000)
def _identity(public_key: str) -> str:
    return identity_of(bytes.fromhex(public_key))


def believed(headers: Mapping[str, str], *, method: str, audience: str, body: bytes, now_ms: int) -> Signed:
    """In place of servicekit.signature.check_call, to which is left what is signed: setting up a colony takes proofs."""
    if SIGNATURE_HEADER in headers:
        return check_call(headers, method=method, audience=audience, body=body, now_ms=now_ms)
    key = headers[KEY_HEADER]
    return Signed(_identity(key), method, key, now_ms, _NO_NONCE, _NOBODY_SIGNED, body, body)


async def unclaimed(_gate: pipeline.Gate, _caller: Caller) -> None:
    """In place of Gate.claim."""


def named(signer: signing.Signer, _method: str, _body: bytes) -> Sequence[tuple[str, str]]:
    """In place of Signer.headers."""
    return ((KEY_HEADER, signer.key.public_key.hex()),)


def unsigned_calls() -> None:
    """From now on nothing that this process sends is signed."""
    signing.Signer.headers = named  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    unsigned_calls()
    vars(pipeline)["check_call"] = believed
    pipeline.Gate.claim = unclaimed  # type: ignore[assignment, method-assign]
    runpy.run_module(f"services.{sys.argv[1]}", run_name="__main__")
