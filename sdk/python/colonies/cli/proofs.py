"""Join proofs: how somebody whose key is elsewhere agrees to a membership.

A proof is one word of text: its three parts in JSON, as URL-safe base64. It is no secret; it names one cluster, one colony,
one role and one name, and is good for 24 hours.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path

from colonies.auth.v1.auth_service_pb2 import JoinProof
from colonies.cli.failure import usage
from colonies.cli.output import note
from colonies.client import join_proof
from colonies.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Proof:
    """What a join proof agrees to; `role` is "colony_owner" or "user"."""

    audience: str
    colony: str
    role: str
    name: str

    def signed_by(self, key: PrivateKey) -> JoinProof:
        """The proof that this key's holder agrees, as of now."""
        return join_proof(key, self.audience, self.colony, self.role, self.name)


def to_text(proof: JoinProof) -> str:
    """The proof as one word, for a message or a command line."""
    document = {"public_key": proof.public_key.hex(), "time_ms": proof.time_ms, "signature": proof.signature.hex()}
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).decode("ascii").rstrip("=")


def from_text(text: str) -> JoinProof:
    """The reverse of `to_text`.

    Raises:
        CliError: the text is no proof.
    """
    try:
        document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return JoinProof(
            public_key=bytes.fromhex(document["public_key"]),
            time_ms=document["time_ms"],
            signature=bytes.fromhex(document["signature"]),
        )
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError) as error:
        msg = "this is no join proof; make one with: colonies user proof"
        raise usage(msg) from error


def proof_given_or_made(*, text: str | None, key_file: Path | None, fallback: str, proof: Proof) -> JoinProof:
    """The proof in `text`; without one, a proof by the key in a file, which is made if there is none.

    Args:
        text: what the user pasted, if anything.
        key_file: the key to sign with; None for `fallback` in the working directory.
        fallback: name of the file in that case.
        proof: what it agrees to.

    Raises:
        CliError: the text is no proof.
        KeyFileError: the file is no key file.
    """
    if text is not None:
        return from_text(text)
    path = key_file or Path(fallback)
    fresh = not path.exists()
    key = PrivateKey.load_or_create(path)
    if fresh:
        note(f"made the key {path}: keep it secret, and do not lose it")
    return proof.signed_by(key)
