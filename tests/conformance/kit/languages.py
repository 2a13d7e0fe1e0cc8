"""The languages that take part: a folder in tests/conformance/drivers for each."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DRIVERS = ROOT / "tests" / "conformance" / "drivers"
# In the table, from left to right; a language that is not named here comes after them.
ORDER = ("python", "node", "go", "cpp", "ruby", "browser")
TITLES = {"python": "Python", "node": "Node", "go": "Go", "cpp": "C++", "ruby": "Ruby", "browser": "Browser"}
BUILD_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Language:
    """A language with a driver."""

    name: str

    @property
    def title(self) -> str:
        """As people write it."""
        return TITLES.get(self.name, self.name)

    @property
    def folder(self) -> Path:
        """Where its driver is."""
        return DRIVERS / self.name

    async def build(self) -> str:
        """Builds the driver; returns what went wrong, in its own words."""
        process = await asyncio.create_subprocess_exec(
            str(self.folder / "build"),
            cwd=ROOT,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(BUILD_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            return f"its build is not over after {BUILD_SECONDS:g} s"
        return "" if process.returncode == 0 else output.decode(errors="replace").strip()[-2000:] or "its build failed"


def environment() -> dict[str, str]:
    """For builds and drivers: this Python is the first `python`, and no settings of the machine's user get in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def languages() -> list[Language]:
    """All that have a driver here."""
    there = {path.parent.name for path in DRIVERS.glob("*/run")}
    return [Language(name) for name in (*(name for name in ORDER if name in there), *sorted(there.difference(ORDER)))]
