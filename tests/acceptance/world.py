"""A whole installation of its own: home directory, data directory, stack, executors. Everything a real process."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colonies.client import AsyncClient
from colonies.keys import PrivateKey
from colonies.profile import Profile, load_profiles
from deploy.local.ports import free_port

EXECUTOR = Path(__file__).with_name("worker.py")
COMMAND_SECONDS = 120


@dataclass
class World:
    """Where everything of one test lives."""

    root: Path
    port: int
    executors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.root / "data"

    @property
    def effects(self) -> Path:
        """Every run of a function by an executor adds a line here: process, attempt, function."""
        return self.root / "effects"

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell would have; no settings of the machine's own user get in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
        home = self.root / "home"
        return {
            **kept,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "COLONIES_DATA_DIR": str(self.data_dir),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def colonies(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the command line."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("colonies")), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            msg = f"colonies {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            raise AssertionError(msg)
        return done

    def json(self, *arguments: str) -> Any:
        """What the command line prints with --json."""
        return json.loads(self.colonies("--json", *arguments).stdout)

    @property
    def profile(self) -> Profile:
        os.environ["COLONIES_CONFIG"] = str(self.root / "home" / ".config" / "colonies" / "profiles.toml")
        try:
            return load_profiles()["local"]
        finally:
            del os.environ["COLONIES_CONFIG"]

    def key(self, name: str) -> PrivateKey:
        """A key of the stack: user, colony-owner, server-owner."""
        return PrivateKey.load(self.data_dir / "keys" / f"{name}.key")

    @asynccontextmanager
    async def client(self, key: str = "user") -> AsyncIterator[AsyncClient]:
        """A client of the colony `dev`."""
        profile = self.profile
        async with AsyncClient(profile.host, profile.port, "dev", self.key(key), profile.cluster, retry_for=60.0) as client:
            yield client

    async def start_executor(self, name: str, types: Sequence[str], *, concurrency: int = 1) -> "subprocess.Popen[bytes]":
        """Starts a worker process, and approves it once it has registered."""
        key_file = self.root / "keys" / f"{name}.key"
        identity = PrivateKey.load_or_create(key_file).identity
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(EXECUTOR), name, ",".join(types), str(key_file), str(concurrency), str(self.effects)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.executors.append(process)
        async with self.client("colony-owner") as owner:
            await until(lambda: self._registered(owner, identity), f"{name} registers")
            await owner.approve_executor(identity)
        return process

    @staticmethod
    async def _registered(owner: AsyncClient, identity: str) -> bool:
        return any([one.identity == identity async for one in owner.list_executors()])

    def pid_of(self, name: str) -> int:
        """The process id of a part of the stack, as `colonies status` tells it."""
        state = json.loads((self.data_dir / "state.json").read_text())
        return next(int(one["pid"]) for one in state["processes"] if one["name"] == name)

    def kill(self, name: str) -> None:
        """kill -9 of a part of the stack."""
        os.kill(self.pid_of(name), signal.SIGKILL)

    def end_executors(self) -> None:
        """Ends the workers as an operator would."""
        for process in self.executors:
            process.terminate()
        for process in self.executors:
            process.wait(timeout=40)
        self.executors.clear()


@contextmanager
def world() -> Iterator[World]:
    """A world with a running stack; all of it is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="colonies-world-"))
    # The embedded servers run as an ordinary user, who must be able to pass.
    root.chmod(0o711)
    (root / "home").mkdir()
    made = World(root, free_port())
    try:
        made.colonies("up", "--port", str(made.port))
        yield made
    finally:
        for process in made.executors:
            process.kill()
            process.wait()
        made.colonies("down", check=False)
        shutil.rmtree(root, ignore_errors=True)


async def until(condition: Any, what: str, *, seconds: float = 60.0) -> None:
    """Waits for a condition (a coroutine function) to hold; looks again every 50 ms."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        assert loop.time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
