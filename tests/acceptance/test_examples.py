"""The examples, as programs of their own on a running stack."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.world import World

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(installation: World, name: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_cron_builds_on_its_own_outputs(installation: World) -> None:
    text = run(installation, "nightly_cron.py")
    # A job of half past two, in the night that has no half past two, runs when the gap ends.
    assert re.findall(r"2027-03-2\d \d\d:\d\d:\d\d CES?T", text) == [
        "2027-03-27 02:30:00 CET",
        "2027-03-28 03:00:00 CEST",
        "2027-03-29 02:30:00 CEST",
    ]
    assert re.findall(r"the count is (\d)", text) == ["1", "2", "3", "4", "5"]
    assert text.endswith("5 runs counted to 5\n")
    assert installation.json("cron", "list") == []


def test_sensors_are_averaged_in_batches(installation: World) -> None:
    text = run(installation, "sensor_generator.py")
    assert "packed 440 readings of 8 sensors" in text
    batches = re.findall(r"batch +\d+ of (sensor-\d): mean of +(\d+) is \d\d\.\d\d \((count|timeout)\)", text)
    assert sum(int(count) for _, count, _ in batches) == 440
    assert all(int(count) <= 25 for _, count, _ in batches)
    assert {sensor for sensor, _, _ in batches} == {f"sensor-{number}" for number in range(1, 9)}
    assert "440 readings averaged by" in text
    assert installation.json("generator", "list") == []
