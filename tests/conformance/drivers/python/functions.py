"""The executor of a driver, with the functions that every language has."""

import asyncio
from collections.abc import Callable
from typing import Any

from colonies import Context, Executor
from colonies.errors import RetryableError, RpcError
from tests.conformance.drivers.python.answers import LANGUAGE, own_value, text_of
from tests.conformance.drivers.python.connection import Connection, error_of

Message = dict[str, Any]


class CrashError(Exception):
    """What the SDK does not know."""


class RunningExecutor:
    """One executor, and what its functions are asked to do."""

    def __init__(self, connection: Connection, command: Message, emit: Callable[[Message], None]) -> None:
        self._label: str = command["executor"]
        self._emit = emit
        self._held: dict[str, asyncio.Future[tuple[Any, ...] | None]] = {}
        self._executor = Executor(
            command["name"],
            executor_types=command["types"],
            host=connection.host,
            port=connection.port,
            colony=connection.colony,
            cluster=connection.cluster,
            key=connection.key,
            tls=connection.tls,
            concurrency=command["concurrency"],
            labels={"language": LANGUAGE, **command.get("labels", {})},
            pull="stream",
            on_state=lambda state: self._tell("state", state=state),
        )
        for function in (self.echo, self.add, self.fail, self.fail_retryable, self.crash, self.nothing, self.hold, self.effect):
            self._executor.function(function)

    def _tell(self, event: str, **values: object) -> None:
        self._emit({"event": event, "executor": self._label, **values})

    async def run(self) -> None:
        """Works until it is stopped."""
        ended: Message = {}
        try:
            await self._executor.arun()
        except RpcError as error:
            ended["error"] = error_of(error)
        self._tell("stopped", **ended)

    def stop(self) -> None:
        """Begins to drain."""
        self._executor.stop()

    def release(self, command: Message) -> bool:
        """Lets the function that holds this token return; False if none does."""
        held = self._held.get(command["token"])
        if held is None or held.done():
            return False
        held.set_result(tuple(map(own_value, command["outputs"])) if "outputs" in command else None)
        return True

    def echo(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        "Returns its arguments."
        return (*args, kwargs) if kwargs else args

    def add(self, *numbers: float) -> float:
        "The sum."
        return sum(numbers)

    def fail(self, text: str) -> None:
        "Fails."
        raise ValueError(text)

    def fail_retryable(self, text: str) -> None:
        "Fails, and trying again may help."
        raise RetryableError(text)

    def crash(self, text: str) -> None:
        "Raises what the SDK does not know."
        raise CrashError(text)

    def nothing(self) -> tuple[()]:
        "Returns no output."
        return ()

    async def hold(self, ctx: Context, token: str, *outputs: Any) -> tuple[Any, ...]:
        "Waits to be released."
        attempt = {"process_id": ctx.process_id, "attempt": ctx.attempt}
        released: asyncio.Future[tuple[Any, ...] | None] = asyncio.get_running_loop().create_future()
        self._held[token] = released
        self._tell("started", **attempt, function="hold", token=token, args=[text_of(each) for each in (token, *outputs)])
        try:
            chosen = await released
        except asyncio.CancelledError:
            self._tell("dropped", **attempt, reason=ctx.cancelled_because)
            raise
        finally:
            # A later attempt may hold the same token by now.
            if self._held.get(token) is released:
                del self._held[token]
        return outputs if chosen is None else chosen

    def effect(self, ctx: Context, text: str, *outputs: Any) -> tuple[Any, ...]:
        "Has an effect, which is told."
        self._tell("effect", process_id=ctx.process_id, attempt=ctx.attempt, text=text)
        return outputs
