"""The driver of the Python SDK (tests/conformance/README.md): commands on standard input, answers and events on standard output."""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from colonies.errors import ColoniesError, RpcError
from tests.conformance.drivers.python.answers import PLAIN
from tests.conformance.drivers.python.connection import Connection, error_of
from tests.conformance.drivers.python.functions import RunningExecutor

Message = dict[str, Any]

log = logging.getLogger(__name__)


class NotDoneError(Exception):
    """The command was not done, and no call was made for it."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Driver:
    """Does what it is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._executors: dict[str, RunningExecutor] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: Mapping[str, Callable[[Message], Awaitable[Message]]] = {
            "connect": self._connect,
            "call": self._call,
            "stream": self._stream,
            "end_stream": self._end_stream,
            "start_executor": self._start_executor,
            "release": self._release,
            "stop_executor": self._stop_executor,
        }

    def emit(self, message: Message) -> None:
        """Writes a line; for any thread."""
        line = json.dumps(message).encode()
        with self._lock:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()

    async def run(self) -> None:
        """Until the input ends."""
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[bytes] = asyncio.Queue()

        def read() -> None:
            for line in sys.stdin.buffer:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, b"")

        threading.Thread(target=read, daemon=True).start()
        while line := await lines.get():
            self._begin(self._answer(json.loads(line)))

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, command: Message) -> None:
        answer: Message = {"id": command["id"]}
        try:
            answer["result"] = await self._do(command)
        except NotDoneError as error:
            answer["error"] = {"code": error.code, "message": str(error)}
        except RpcError as error:
            answer["error"] = error_of(error)
        except ColoniesError as error:
            answer["error"] = {"code": "REFUSED", "message": str(error)}
        except Exception as error:
            log.exception("command %s failed", command["do"])
            answer["error"] = {"code": "DRIVER_FAILED", "message": repr(error)}
        self.emit(answer)

    async def _do(self, command: Message) -> Message:
        name = command["do"]
        if name in PLAIN:
            return PLAIN[name](command)
        if name not in self._commands:
            raise NotDoneError("UNKNOWN_COMMAND", name)
        return await self._commands[name](command)

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise NotDoneError("REFUSED", "not connected")
        return self._connection

    async def _connect(self, command: Message) -> Message:
        if self._connection is not None:
            await self._connection.close()
        self._connection = Connection(command)
        return {}

    async def _call(self, command: Message) -> Message:
        return {"response": await self._connected.call(command["method"], command["request"], command.get("timeout_ms"))}

    async def _stream(self, command: Message) -> Message:
        name, connection = command["stream"], self._connected

        async def follow() -> None:
            end: Message = {"event": "end", "stream": name}
            try:
                async for message in connection.stream(command["method"], command["request"]):
                    self.emit({"event": "message", "stream": name, "message": message})
            except RpcError as error:
                end["error"] = error_of(error)
            finally:
                self.emit(end)

        self._streams[name] = self._begin(follow())
        return {}

    async def _end_stream(self, command: Message) -> Message:
        self._streams.pop(command["stream"]).cancel()
        return {}

    async def _start_executor(self, command: Message) -> Message:
        executor = RunningExecutor(self._connected, command, self.emit)
        self._executors[command["executor"]] = executor
        self._begin(executor.run())
        return {}

    async def _release(self, command: Message) -> Message:
        if not self._executors[command["executor"]].release(command):
            raise NotDoneError("REFUSED", f"nothing holds {command['token']!r}")
        return {}

    async def _stop_executor(self, command: Message) -> Message:
        self._executors[command["executor"]].stop()
        return {}


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    asyncio.run(Driver().run())


if __name__ == "__main__":
    main()
