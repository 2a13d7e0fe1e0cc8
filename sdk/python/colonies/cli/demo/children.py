"""The demo's executors: processes of their own, started, told to begin, and ended."""

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from colonies.cli.bootstrap import Address
from colonies.cli.demo.executor import BEGIN, REGISTERED
from colonies.cli.failure import CliError

START_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Role:
    """One of the paper's executors."""

    name: str
    executor_types: tuple[str, ...]
    key_file: Path

    def command(self, address: Address, colony: str) -> list[str]:
        """The command line that runs it until it is interrupted."""
        return [
            sys.executable,
            "-m",
            "colonies.cli.demo.executor",
            self.name,
            *("--types", ",".join(self.executor_types)),
            *("--host", address.host),
            *("--port", str(address.port)),
            *("--cluster", address.cluster),
            *(("--ca-file", address.ca_file) if address.ca_file else ()),
            *("--colony", colony),
            *("--key-file", str(self.key_file)),
        ]


class Child:
    """A running executor process. It ends with the demo, however that ends: its standard input is a pipe from here."""

    def __init__(self, role: Role, process: asyncio.subprocess.Process, log: Path) -> None:
        self.role = role
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, role: Role, address: Address, colony: str, log: Path) -> "Child":
        """Starts it; it registers, and pulls nothing before `begin`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *role.command(address, colony),
                "--held",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                # Ctrl-C is for the demo, which then ends its children in order.
                start_new_session=True,
            )
        return cls(role, process, log)

    async def registered(self) -> str:
        """Its identity, once it has registered.

        Raises:
            CliError: it ended, or took too long.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                line = (await self._process.stdout.readline()).decode().split()
        except TimeoutError as error:
            raise self._trouble(f"has not registered within {START_SECONDS:.0f} s") from error
        match line:
            case [word, identity] if word == REGISTERED:
                return identity
        raise self._trouble("ended before it had registered")

    async def begin(self) -> None:
        """Lets it pull work."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{BEGIN}\n".encode())
        await self._process.stdin.drain()

    async def stop(self) -> None:
        """Ends it: it finishes what is in hand first. Killed if it does not end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            # Between the time-out and the kill it may have ended after all.
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _trouble(self, what: str) -> CliError:
        tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return CliError(f"executor {self.role.name} {what}; its log is {self._log}", details=tail)
