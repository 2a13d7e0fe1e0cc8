"""The scans that stand before every change: they find what they are for, and never take "not checked" for "nothing found"."""

import os
from pathlib import Path

from tools.audit_deps import Audit, read, told
from tools.scan_secrets import Finding, findings, judged


def test_keys_and_passwords_are_found(tmp_path: Path) -> None:
    # Made here, so that they stand in no file of ours.
    kind = "PRIVATE KEY"
    planted = {
        "key.pem": f"-----BEGIN {kind}-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END {kind}-----\n",
        "settings.py": f'KEY = "{os.urandom(32).hex()}"\n',
        "compose.yaml": f"url: postgresql://colonies:{os.urandom(8).hex()}@postgres/colonies\n",
        "plain.py": "answer = 42\n",
    }
    for name, text in planted.items():
        (tmp_path / name).write_text(text)
    assert {one.path for one in findings(planted, tmp_path)} == {"key.pem", "settings.py", "compose.yaml"}


def test_what_is_allowed_must_be_there() -> None:
    found = [Finding("a/keys.json", 1, "Hex", "d1"), Finding("b.py", 2, "Hex", "d2"), Finding("c.py", 3, "Hex", "d3")]
    wrong = judged(found, {"files": {"a/*.json": "", "gone/*": ""}, "digests": {"d2": "", "d9": ""}})
    assert [line.partition(" ")[0] for line in wrong] == ["c.py:3:", "allowed_secrets.toml:", "allowed_secrets.toml:"]
    assert "'gone/*'" in wrong[2]
    assert "'d9'" in wrong[1]


def test_what_no_advisory_service_told_of_is_not_taken_for_good() -> None:
    skipped = {"name": "left", "skip_reason": "not found"}
    clean = {"name": "right", "version": "1", "vulns": []}
    bad = {"name": "wrong", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    silent: list[dict[str, Audit | None]] = [
        {"pypi": None, "osv": None},
        {"pypi": read({"dependencies": [skipped]}), "osv": None},
    ]
    for nothing in silent:
        code, lines = told(nothing)
        assert code == 0
        assert "NOT CHECKED" in lines[0]
        assert not any("nothing known" in line for line in lines)
    code, lines = told({"pypi": read({"dependencies": [skipped, clean, {"name": "colonies", "skip_reason": "ours"}]})})
    assert (code, lines[0].startswith("1 dependencies checked"), lines[1].endswith(": left")) == (0, True, True)
    code, lines = told({"pypi": Audit(checked=1), "osv": read({"dependencies": [bad, clean]})})
    assert code == 1
    assert lines[1] == "wrong 1: CVE-1 (fixed in 2)"
