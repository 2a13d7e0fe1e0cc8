"""Proofs that a new key agrees: to a membership, or to take the place of another key."""

from typing import Any

from colonies.audit.findings import Report
from colonies.signing import join_text, rotate_text
from colonies.verifying import signer_of


def joined_by(proof: Any, cluster: str, colony: str, role: str, name: str, report: Report) -> str | None:
    """Identity of the key that agreed to a membership; None if the proof does not fit it."""
    report.counts["signatures"] += 1
    text = join_text(audience=cluster, colony=colony, role=role, name=name, time_ms=proof.time_ms)
    return signer_of(proof.public_key, proof.signature, text)


def rotated_by(proof: Any, cluster: str, colony: str, old_key: str, report: Report) -> str | None:
    """Identity of the key that agreed to take the place of another; None if the proof does not fit that."""
    report.counts["signatures"] += 1
    text = rotate_text(audience=cluster, colony=colony, old=old_key, time_ms=proof.time_ms)
    return signer_of(proof.public_key, proof.signature, text)
