"""A resource that is open on this thread's host loop, which runs behind, for synchronous callers.

No call blocks forever: calls still pending when it ends raise, and so do those that arrive while it
is ending.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow._runtime.host_loop import BLOCKED_SECONDS, SIGNAL_SECONDS, host_loop, result_of
from pyworkflow.errors import UsageError
from pyworkflow.services import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.steps")


ANSWER_SECONDS = 2
"""How long an interrupted caller waits for the loop to answer."""


class LoopThread:
    """Opens ``resource``, runs coroutines for other threads, and closes it at `stop`.

    ``closing_seconds`` is the longest that closing it takes on a loop that is not blocked.
    """

    def __init__(
        self,
        name: str,
        resource: AbstractAsyncContextManager[object],
        closing_seconds: float = 0,
    ) -> None:
        self._name = name
        self._resource = resource
        self._wait_seconds = closing_seconds + BLOCKED_SECONDS
        self._process = processes.here
        self._lock = threading.Lock()
        self._is_ready = threading.Event()
        self._calls: set[Future[Any]] = set()
        self._has_ended = False
        self._stopping: asyncio.Event
        self._host = host_loop()
        self._open: Future[None] | None = None

    def start(self) -> None:
        """Return once ``resource`` is open; raises what opening it raises."""
        self._loop = self._host.begin_use()
        self._open = asyncio.run_coroutine_threadsafe(self._main(), self._loop)
        try:
            while not self._is_ready.wait(SIGNAL_SECONDS):  # see `result_of`
                pass
        except BaseException:  # Ctrl-C: the caller can't stop it
            self._open.cancel()
            self._open = None
            self._host.end_use(BLOCKED_SECONDS)
            raise
        if self._has_ended:
            self.stop()

    def stop(self, *, waits_if_blocked: bool = True) -> None:
        """Close ``resource``; raises what closing it raised.

        If code blocks the loop, it waits as long as closing may take, or not at all. In a forked
        process it does nothing: the loop is the parent's.
        """
        if self._process != processes.here:
            return
        self._check_thread()
        opened, self._open = self._open, None
        if opened is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        wait_seconds = self._wait_seconds
        if not waits_if_blocked and not self._answers():
            wait_seconds = 0
        try:
            opened.result(wait_seconds)
        except TimeoutError:
            if opened.done():  # closing raised it
                raise
            logger.warning(
                "%s is abandoned before it is closed: code on its loop blocks it. Blocking code "
                "belongs in a def step, without inline=True",
                self._name,
            )
            self._end_calls()
        finally:
            # If interrupted again, do not wait.
            self._host.end_use(BLOCKED_SECONDS if opened.done() else 0)

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that ``function`` makes on the loop, and return its result.

        `KeyboardInterrupt` cancels the coroutine. Raises `UsageError` on the loop's own thread,
        which would wait for itself; after the client has ended; and in a forked process.
        """
        self.check_process()
        self._check_thread()
        with self._lock:
            if self._has_ended:
                raise UsageError("this client has ended")
            future = asyncio.run_coroutine_threadsafe(function(), self._loop)
            self._calls.add(future)
        try:
            return result_of(future)
        except CancelledError:
            raise UsageError("the client ended before this call was done") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            self._calls.discard(future)

    def _answers(self) -> bool:
        answered = threading.Event()
        self._loop.call_soon_threadsafe(answered.set)
        return answered.wait(ANSWER_SECONDS)

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that started it."""
        processes.check_process(self._process, "this client")

    def _check_thread(self) -> None:
        if threading.current_thread() is self._host.thread:
            raise UsageError(
                "this call would wait for the loop on which it was made: the synchronous clients, "
                "mocks and runs of a thread share one. In an async step, use a client of your own "
                "(AsyncClient), or make it a sync step"
            )

    # -- on the loop -----------------------------------------------------------------------------

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        try:
            async with self._resource:
                self._is_ready.set()
                await self._stopping.wait()
        finally:
            self._end_calls()
            self._is_ready.set()

    def _end_calls(self) -> None:
        with self._lock:
            self._has_ended = True
        for call in list(self._calls):
            call.cancel()
