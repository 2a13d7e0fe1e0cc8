"""Threads for functions that are not async."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class DaemonThreads:
    """Runs calls in threads that do not keep the program from ending.

    A function that was dropped cannot be stopped from outside; with the standard pool it would hold up the exit until
    it ends by itself.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def run(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Starts a call in a thread at once; its result or exception arrives in the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result = context.run(call)
            except BaseException as error:  # noqa: BLE001 - handed over, whatever it is
                deliver = _exception_setter(future, error)
            else:
                deliver = _result_setter(future, result)
            self._put_idle()
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver)

        with self._lock:
            new_thread = self._idle == 0
            if not new_thread:
                self._idle -= 1
        self._calls.put(work)
        if new_thread:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return future

    def _put_idle(self) -> None:
        with self._lock:
            self._idle += 1

    def _serve(self) -> None:
        while True:
            self._calls.get()()


def _result_setter(future: asyncio.Future[Any], result: Any) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(result)


def _exception_setter(future: asyncio.Future[Any], error: BaseException) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
