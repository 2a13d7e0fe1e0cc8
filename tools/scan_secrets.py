"""Looks through every file of the repository for keys and passwords. Run it as `python -m tools.scan_secrets`.

What is found and is no secret stands in allowed_secrets.toml with the reason; an entry there that fits nothing any more is an
error too, so that the list says what there is.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

ROOT = Path(__file__).parents[1]
ALLOWED = Path(__file__).with_name("allowed_secrets.toml")
# Generated from the protos: long descriptors, and nothing that anybody wrote.
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", "*.binpb", "sdk/web/dist/*.mjs")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that looks like a secret; `digest` stands for it, so that no list has to hold it."""

    path: str
    line: int
    kind: str
    digest: str


def findings(paths: Iterable[str], root: Path) -> Iterator[Finding]:
    """What looks like a secret in these files."""
    with default_settings():
        for path in paths:
            for found in scan_file(str(root / path)):
                yield Finding(path, found.line_number, found.type, found.secret_hash)


def judged(found: Iterable[Finding], allowed: dict[str, dict[str, str]]) -> list[str]:
    """What is wrong: findings that are not allowed, and what is allowed and was not found."""
    wrong, used = [], set()
    for one in found:
        keys = {pattern for pattern in allowed["files"] if fnmatchcase(one.path, pattern)}
        keys |= {one.digest} & set(allowed["digests"])
        if not keys:
            wrong.append(f"{one.path}:{one.line}: {one.kind} (digest {one.digest})")
        used |= keys
    stale = {*allowed["files"], *allowed["digests"]} - used
    return [*wrong, *(f"{ALLOWED.name}: nothing is found any more for {key!r}" for key in sorted(stale))]


def main() -> int:
    """Scans what git knows of; 1 if anything is wrong."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [path for path in listed.split("\0") if path and not any(fnmatchcase(path, pattern) for pattern in GENERATED)]
    wrong = judged(findings(paths, ROOT), tomllib.loads(ALLOWED.read_text(encoding="utf-8")))
    for line in wrong:
        print(line)
    print(f"{len(paths)} files scanned for secrets, {len(wrong)} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
