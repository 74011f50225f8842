"""Threads for calls that block, made when they are needed, up to a number.

One hand-over to the thread and one back. `loop.run_in_executor` does the same through two futures
with locks of their own, which costs twice as much, and a step waits for it.

The threads are daemons: a call that is wanted is awaited by somebody, and others need not keep the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallThreads:
    """Runs calls in up to ``most`` threads; used from any number of loops."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._under_way = 0

    def run(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call ``function(*args)`` in a thread; the future is of the running loop."""
        call = _Call(asyncio.get_running_loop(), function, args)
        with self._lock:
            self._under_way += 1
            if len(self._threads) < min(self._under_way, self._most):
                self._start_thread()
        self._calls.put(call)
        return call.future

    def close(self) -> None:
        """End the threads, once the calls that began are through."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _start_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            outcome = call.run()
            with self._lock:
                self._under_way -= 1
            call.tell(*outcome)
            del call, outcome  # nothing is kept while the thread rests


class _Call:
    """A call, and the future of a loop that waits for it."""

    __slots__ = ("_args", "_function", "_loop", "future")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._function = function
        self._args = args

    def run(self) -> tuple[Any, BaseException | None]:
        try:
            return self._function(*self._args), None
        except BaseException as error:  # a thread has nobody to raise to
            return None, error

    def tell(self, result: Any, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._end, result, error)

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():  # cancelled
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
