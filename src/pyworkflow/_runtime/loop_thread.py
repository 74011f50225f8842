"""A loop on a thread of its own, with something open on it, for synchronous callers.

Nobody waits for ever: calls that the loop did not finish before it ended are told so, those
included that arrived while it was ending.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow.errors import UsageError
from pyworkflow.services import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class LoopThread:
    """Opens ``resource``, runs coroutines for other threads, and closes it at `stop`.

    The thread is a daemon: a process that forgets to stop it can end. A step that raises
    `SystemExit` on the loop ends the thread, as it would end a process; ``resource`` is closed.
    """

    def __init__(self, name: str, resource: AbstractAsyncContextManager[object]) -> None:
        self._resource = resource
        self._process = processes.here
        self._lock = threading.Lock()
        self._is_ready = threading.Event()
        self._calls: set[Future[Any]] = set()
        self._has_ended = False
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Return once ``resource`` is open; raises what opening it raises."""
        self._thread.start()
        self._is_ready.wait()
        if self._has_ended:
            self.stop()

    def stop(self) -> None:
        """End the loop and the thread; raises what ended it otherwise, or what closing raised.

        A forked process has no such thread, and nothing of its own to end.
        """
        if self._process != processes.here:
            return
        with suppress(RuntimeError):  # the loop has ended, or ends at this moment
            if not self._has_ended:
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        error, self._error = self._error, None
        if isinstance(error, SystemExit):
            raise UsageError(f"a step ended the client: it raised SystemExit({error.code})")
        if error is not None:
            raise error

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that ``function`` makes on the loop, and return its result.

        Interrupted by `KeyboardInterrupt`, it cancels the coroutine. Raises `UsageError` on the
        loop's own thread, which would wait for itself, when the loop has ended, and in a process
        that was forked from the one that started it.
        """
        self.check_process()
        if threading.current_thread() is self._thread:
            raise UsageError(
                "this was called on the loop that would have to do it: in an async step, use a "
                "client of your own, or make it a sync step"
            )
        with self._lock:
            if self._has_ended:
                raise UsageError("this client has ended")
            coroutine = function()
            try:
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            except RuntimeError:  # the loop ends at this moment
                coroutine.close()
                raise UsageError("this client has ended") from None
            self._calls.add(future)
        try:
            return future.result()
        except CancelledError:
            coroutine.close()  # it may never have begun
            raise UsageError("the client was ended before this was done") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            self._calls.discard(future)

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that started it."""
        processes.check_process(self._process, "this client")

    # -- on the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # raised again by whoever stops it
            self._error = error
        with self._lock:
            self._has_ended = True
        for call in list(self._calls):
            call.cancel()
        self._is_ready.set()

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with self._resource:
            self._is_ready.set()
            await self._stopping.wait()
