"""Calls with curl alone: the very lines of the documentation, against a stack that has just started."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.world import World

REPOSITORY = Path(__file__).resolve().parents[2]
HEADING = "## With curl alone"
PAGES = ("README.md", "docs/http.md")


def lines_of(page: Path) -> str:
    """The shell's lines in the section."""
    _, found, section = page.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    return "\n".join(re.findall(r"```sh\n(.*?)```", re.split(r"\n## ", section)[0], re.DOTALL)) if found else ""


@pytest.mark.parametrize("page", [name for name in PAGES if lines_of(REPOSITORY / name)])
def test_the_lines_of_the_documentation(installation: World, tmp_path: Path, page: str) -> None:
    environment = {**installation.environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
    script = lines_of(REPOSITORY / page)
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (process_id,) = json.loads((tmp_path / "submitted.json").read_text())["processIds"]
    documents = [json.loads(line) for line in done.stdout.replace("}{", "}\n{").splitlines() if line]
    process = documents[0]["process"]
    assert (process["processId"], process["state"]) == (process_id, "PROCESS_STATE_WAITING")
    assert documents[1]["events"][0]["processId"] == process_id
    # It is what any other client finds.
    assert installation.json("process", "get", process_id)["state"] == "PROCESS_STATE_WAITING"


def test_there_is_such_a_section() -> None:
    assert lines_of(REPOSITORY / "docs/http.md")
