"""The blocking face: async objects used from code that is not.

One event loop runs in a background thread. Calling a coroutine method blocks until it is done, an async iterator
becomes an iterator. This works in scripts, in threads, and in notebooks, whose own event loop stays untouched.
"""

import asyncio
import functools
import inspect
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Self, TypeVar

from colonies.client.asynchronous import AsyncClient
from colonies.keys import PrivateKey
from colonies.profile import Profile
from colonies.tls import Tls

Result = TypeVar("Result")

_END = object()


class LoopThread:
    """An event loop in a thread of its own, ended by `stop`, or with the program."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="colonies-client", daemon=True)
        self._thread.start()
        self.stop = weakref.finalize(self, _stop, self.loop, self._thread)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine to its end. Ctrl-C cancels it.

        Raises:
            RuntimeError: the loop has been stopped.
        """
        if not self.stop.alive:
            coroutine.close()
            msg = "this client is closed"
            raise RuntimeError(msg)
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def cancel_rest() -> None:
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await loop.shutdown_asyncgens()

    if threading.current_thread() is thread:  # garbage collected by the loop's own thread, which cannot wait for itself
        loop.call_soon(loop.stop)
        return
    asyncio.run_coroutine_threadsafe(cancel_rest(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class BlockingFace:
    """All attributes of an async object, its coroutine methods blocking and its async iterators plain ones."""

    def __init__(self, inner: Any, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = self._attribute(name)
        if inspect.isasyncgenfunction(value):

            @functools.wraps(value)
            def iterate(*args: Any, **kwargs: Any) -> Generator[Any]:
                return self._iterate(value(*args, **kwargs))

            return iterate
        if inspect.iscoroutinefunction(value):

            @functools.wraps(value)
            def block(*args: Any, **kwargs: Any) -> Any:
                return self._thread.run(value(*args, **kwargs))

            return block
        return value

    def _attribute(self, name: str) -> Any:
        if not isinstance(inspect.getattr_static(type(self._inner), name, None), property | functools.cached_property):
            return getattr(self._inner, name)

        async def compute() -> Any:
            return getattr(self._inner, name)

        # A computed attribute may open the connection, and that has to happen in the loop that will use it.
        return self._thread.run(compute())

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._inner) if not name.startswith("_"))})

    def _iterate(self, items: AsyncGenerator[Any]) -> Generator[Any]:
        async def following() -> Any:
            return await anext(items, _END)

        try:
            while (item := self._thread.run(following())) is not _END:
                yield item
        finally:
            if self._thread.stop.alive:
                self._thread.run(items.aclose())

    def close(self) -> None:
        """Ends the connection and the background thread. Closing twice is fine."""
        if self._thread.stop.alive:
            self._thread.run(self._inner.close())
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class BlockingChannel(BlockingFace):
    """A Channel for code that is not async: the same methods, blocking, and a plain iterator."""

    def __iter__(self) -> Generator[Any]:
        return self._iterate(self._inner.received())

    def close(self) -> None:
        """Does nothing: the connection is the client's."""


class Client(BlockingFace):
    """AsyncClient for code that is not async: the same methods with the same arguments, blocking.

        with Client("localhost", 50080, "dev", key) as client:
            process_id = client.submit(Function("square", args=[2]))
            (four,) = client.wait(process_id)

    The methods of the raw stubs are for `call`: `client.call(client.auth.GetColony, request)`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        colony: str,
        key: PrivateKey | str,
        cluster: str | None = None,
        *,
        retry_for: float = 30.0,
        tls: Tls | bool | None = None,
    ) -> None:
        """Arguments and errors as for AsyncClient."""
        super().__init__(AsyncClient(host, port, colony, key, cluster, retry_for=retry_for, tls=tls), LoopThread())

    @classmethod
    def from_profile(
        cls, profile: Profile | str | None = None, *, key: PrivateKey | None = None, retry_for: float = 30.0
    ) -> Self:
        """Arguments and errors as for AsyncClient.from_profile."""
        return cls.over(AsyncClient.from_profile(profile, key=key, retry_for=retry_for))

    def channel(self, process_id: str, name: str, *, attempt: int = 0) -> BlockingChannel:
        """One of the channels of a process. Arguments as for AsyncClient."""
        return BlockingChannel(self._inner.channel(process_id, name, attempt=attempt), self._thread)

    @classmethod
    def over(cls, client: AsyncClient) -> Self:
        """The blocking face of an AsyncClient that no event loop has used yet."""
        face = cls.__new__(cls)
        BlockingFace.__init__(face, client, LoopThread())
        return face
