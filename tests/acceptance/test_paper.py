"""The paper: its demo, its snippet, its tables."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.world import World

# As printed in section 3.1, with its slips of names mended: one object is gen_nums, and sum sums.
SNIPPET = """
from colonies import ColoniesWorkflow, Function

gen_nums = Function(gen_data, colonyid, executortype="edge")
square1 = Function(square, colonyid, executortype="cloud")
square2 = Function(square, colonyid, executortype="cloud")
sum = Function(sum, colonyid, executortype="browser")

wf = ColoniesWorkflow("localhost", {port}, colonyid, executor_prvkey)
wf >> gen_nums
gen_nums >> square1
gen_nums >> square2
[square1, square2] >> sum
res = wf.execute()
print(res)
"""


def rows(text: str, title: str) -> list[list[str]]:
    """The rows of a printed table: cells are set apart by at least two spaces."""
    lines = text.split(title, 1)[1].split("\n\n")[1].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines[2:] if line.strip()]


def test_demo_prints_the_papers_tables(installation: World) -> None:
    for _ in range(2):
        text = installation.colonies("demo", "--port", str(installation.port)).stdout
        assert [row[1:] for row in rows(text, "Table 1")] == [
            ["gen_nums()", "edge", "1", "200 s", "5"],
            ["square()", "cloud", "1", "200 s", "5"],
            ["square()", "cloud", "1", "200 s", "5"],
            ["sum()", "browser", "1", "200 s", "5"],
        ]
        assert [row[1:5] for row in rows(text, "Table 2")] == [
            ["F1", "False", "E1", "Successful"],
            ["F2", "False", "E1", "Running"],
            ["F3", "False", "E2", "Running"],
            ["F4", "True", "-", "Waiting"],
        ]
        assert [row[1:] for row in rows(text, "Table 3")] == [
            ["Task1", "-"],
            ["Task2", "Task1"],
            ["Task3", "Task1"],
            ["Task4", "Task2, Task3"],
        ]
        assert rows(text, "Table 4") == [
            ["P1", "[2, 3]"],
            ["P2", "2", "4"],
            ["P3", "3", "9"],
            ["P4", "[4, 9]", "13"],
        ]
        # Priority 1 is one day of head start (section 2.1.1).
        for row in rows(text, "Table 2"):
            assert re.fullmatch(r"\d{19}", row[5])


@pytest.mark.asyncio
async def test_the_snippet_gives_13(installation: World, tmp_path: Path) -> None:
    await installation.start_executor("snippet-1", ["edge", "cloud"])
    await installation.start_executor("snippet-2", ["cloud", "browser"])
    script = tmp_path / "snippet.py"
    script.write_text(
        "from builtins import sum\n"
        "def gen_data(): ...\n"
        "def square(x): ...\n"
        'colonyid = "dev"\n'
        f'executor_prvkey = "{installation.key("user").hex}"\n' + SNIPPET.format(port=installation.port)
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("13\n", "")
    installation.end_executors()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: apt-get install chromium")
@pytest.mark.browser
def test_demo_with_a_browser_prints_the_papers_tables(installation: World) -> None:
    # The second time the browser has a key already, and the third time it has lost it: the old one's place is taken.
    agents = []
    for lost in (False, False, True):
        if lost:
            shutil.rmtree(installation.data_dir / "demo-browser")
        text = installation.colonies("demo", "--browser", "--port", str(installation.port)).stdout
        assert [row[1:4] for row in rows(text, "Table 2")] == [
            ["F1", "False", "E1"],
            ["F2", "False", "E1"],
            ["F3", "False", "E2"],
            ["F4", "True", "-"],
        ]
        assert rows(text, "Table 4")[-1] == ["P4", "[4, 9]", "13"]
        agents += re.findall(r"P4's executor B1 is a browser: (.*)", text)
    assert len(agents) == 3
    assert all("Chrome" in agent for agent in agents)
