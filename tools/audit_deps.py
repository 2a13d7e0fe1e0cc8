"""Asks the advisory services about every installed package: `python -m tools.audit_deps`.

Three outcomes: nothing known, something known (which fails), and not checked, because no service was in reach or none knew the
package. The last is told loudly and never taken for the first.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

SERVICES = ("pypi", "osv")
TIMEOUT_S = 120
# Not published: there is nothing to ask about.
OURS = "colonies"


@dataclass(slots=True)
class Audit:
    """What a service said."""

    checked: int = 0
    unchecked: list[str] = field(default_factory=list)
    vulnerable: list[str] = field(default_factory=list)


def read(report: dict[str, Any]) -> Audit:
    """pip-audit's report in JSON."""
    audit = Audit()
    for package in report["dependencies"]:
        if package["name"] == OURS:
            continue
        if "skip_reason" in package:
            audit.unchecked.append(package["name"])
            continue
        audit.checked += 1
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
            audit.vulnerable.append(f"{package['name']} {package['version']}: {advisory['id']} (fixed in {fixed})")
    return audit


def ask(service: str) -> Audit | None:
    """Asks one service about all that is installed; None if it is out of reach."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off", "-s", service]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    try:
        return read(json.loads(result.stdout))
    except ValueError:
        return None


def told(audits: dict[str, Audit | None]) -> tuple[int, list[str]]:
    """Exit code and lines for what the services said."""
    heard = {service: audit for service, audit in audits.items() if audit is not None and audit.checked}
    if vulnerable := sorted({line for audit in heard.values() for line in audit.vulnerable}):
        return 1, ["VULNERABLE DEPENDENCIES:", *vulnerable]
    if not heard:
        return 0, [
            "DEPENDENCIES NOT CHECKED: no advisory service is in reach from here. Nothing is known of them, good or bad."
        ]
    best = min(heard.values(), key=lambda audit: len(audit.unchecked))
    lines = [f"{best.checked} dependencies checked, nothing known against them"]
    if best.unchecked:
        lines.append(f"NOT CHECKED, for no advisory service knows them: {', '.join(sorted(best.unchecked))}")
    return 0, lines


def main() -> int:
    """Asks one service after the other, until one could tell of all."""
    audits: dict[str, Audit | None] = {}
    for service in SERVICES:
        audit = audits[service] = ask(service)
        if audit is not None and audit.checked and not audit.unchecked:
            break
    code, lines = told(audits)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
