"""The front door, kept by a process of its own: `python -m tests.browser.door DIRECTORY PORT`.

It starts Envoy under another account, for which Python must fork; and a process with gRPC's threads in it does not survive a fork
for sure. It takes commands from its standard input, a JSON value a line, and answers each by one.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from deploy.local.envoy import EnvoyFrontDoor


def main(directory: str, port: str) -> None:
    """Keeps an Envoy until the input ends."""
    door = EnvoyFrontDoor(Path(directory), port=int(port))
    commands: dict[str, Callable[[Any], Any]] = {
        "start": lambda _: door.start(),
        "kill": lambda _: door.kill(),
        "tell": lambda given: door.set_endpoints(
            {name: [(host, port) for host, port in places] for name, places in given.items()}
        ),
        "endpoints": lambda _: door.healthy_endpoints(),
    }
    try:
        for line in sys.stdin:
            name, given = json.loads(line)
            print(json.dumps(commands[name](given)), flush=True)
    finally:
        door.stop()


class Door:
    """That process, for tests."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._process = process

    @classmethod
    async def open(cls, directory: Path, port: int) -> Self:
        """Starts it."""
        command = [sys.executable, "-m", "tests.browser.door", str(directory), str(port)]
        pipe = asyncio.subprocess.PIPE
        made = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe), port)
        await made.start()
        return made

    async def start(self) -> None:
        """Starts Envoy."""
        await self._do("start")

    async def kill(self) -> None:
        """Ends Envoy as a power cut would."""
        await self._do("kill")

    async def tell(self, endpoints: dict[str, list[tuple[str, int]]]) -> None:
        """Says where everything is."""
        await self._do("tell", endpoints)

    async def endpoints(self) -> dict[str, list[str]]:
        """Where calls would be sent to now."""
        found: dict[str, list[str]] = await self._do("endpoints")
        return found

    async def close(self) -> None:
        """Ends both."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _do(self, name: str, given: object = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, given]).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, f"the front door's keeper has ended while it was to {name}"
        return json.loads(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
