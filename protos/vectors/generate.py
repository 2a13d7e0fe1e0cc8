"""Writes the files of vectors: `python protos/vectors/generate.py`; with `--check`, says whether they are up to date.

Deterministic. It spells the signed texts by itself and takes nothing from the SDK or the services: what they do is held against
these vectors, and a change on one side alone shows. The keys are TEST keys, worked out from their names: never use them for
anything else.
"""

import json
import sys
from pathlib import Path

import calls
import proofs
from texts import ALICE, BOB, TestKey, Vector

HERE = Path(__file__).parent
NOTICE = "TEST keys only: their private halves are public. Made by generate.py; specified in README.md."


def identities() -> list[Vector]:
    """Private keys, their public keys, and what these are known by."""
    rfc = [TestKey("", bytes.fromhex(seed)) for seed in calls.RFC_KEYS]
    keys = {
        "alice": ALICE,
        "bob": BOB,
        "of_zeros": TestKey("", bytes(32)),
        "of_ones": TestKey("", b"\xff" * 32),
        **{f"key_{number}_of_rfc_8032": key for number, key in enumerate(rfc, 1)},
    }
    return [
        {
            "name": name,
            "client": {"test_private_key": key.seed.hex(), "public_key_hex": key.public.hex(), "identity": key.identity},
        }
        for name, key in keys.items()
    ]


def documents() -> dict[str, str]:
    """The files' names and contents."""
    vectors = {
        "identity_vectors.json": identities(),
        "call_vectors.json": calls.vectors(),
        "join_vectors.json": proofs.joins(),
        "rotation_vectors.json": proofs.rotations(),
    }
    for file, entries in vectors.items():
        assert len({entry["name"] for entry in entries}) == len(entries), f"two vectors of {file} have one name"
    return {
        file: json.dumps({"notice": NOTICE, "vectors": entries}, indent=2, ensure_ascii=True) + "\n"
        for file, entries in vectors.items()
    }


def main() -> int:
    """Writes the files, or compares them."""
    made = documents()
    if "--check" not in sys.argv[1:]:
        for file, content in made.items():
            (HERE / file).write_text(content, encoding="ascii")
        return 0
    stale = [file for file, content in made.items() if (HERE / file).read_text(encoding="ascii") != content]
    for file in stale:
        print(f"{file} is not what generate.py makes; run it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
