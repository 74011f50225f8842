"""Waiting for executions to end, in this process or in another.

When the service reports a change, one sweep looks up every awaited execution. No end is missed: a
waiter is registered before its first look, and a change during or right after a sweep leads to
another sweep. Sweeps take at most a tenth of the time, however many changes there are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow.errors import DamagedExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow.services.port import Executions

_PACE = 10


class Completions:
    """The waiters for ends of executions, on one loop."""

    def __init__(self, service: Executions) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, set[asyncio.Future[ExecutionSummary]]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._has_changed = False
        self._error: BaseException | None = None
        self._unsubscribe: Callable[[], None] = service.subscribe(self._on_change)

    async def wait(self, execution_id: str) -> ExecutionSummary:
        """Return the execution once it is over; raises the error given to `fail`."""
        if self._error is not None:
            raise self._error
        future: asyncio.Future[ExecutionSummary] = self._loop.create_future()
        waiting = self._waiting.setdefault(execution_id, set())
        waiting.add(future)
        try:
            summary = await self._service.get(execution_id)
            return summary if is_over(summary) else await future
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(execution_id) is waiting:
                del self._waiting[execution_id]

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in all waiters, present and future."""
        self._error = error
        self._raise(error)

    def _raise(self, error: BaseException) -> None:
        for futures in self._waiting.values():
            _raise_to(futures, error)

    def close(self) -> None:
        """Stop listening to the service."""
        self._unsubscribe()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- sweeps ----------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Note a change. Safe on any thread."""
        try:
            self._loop.call_soon_threadsafe(self._on_change_here)
        except RuntimeError:  # the loop is closed: there are no waiters
            return

    def _on_change_here(self) -> None:
        self._has_changed = True
        self._sweep_if_needed()

    def _sweep_if_needed(self) -> None:
        is_needed = self._has_changed and self._waiting and self._error is None
        if is_needed and self._sweeper is None:
            self._sweeper = self._loop.create_task(self._sweep())
            self._sweeper.add_done_callback(self._on_swept)

    def _on_swept(self, sweeper: asyncio.Task[None]) -> None:
        self._sweeper = None
        if not sweeper.cancelled() and (error := sweeper.exception()) is not None:
            self._raise(error)  # it may be transient: new waiters try again
        self._sweep_if_needed()  # for a change since the sweeper's last look

    async def _sweep(self) -> None:
        while self._has_changed and self._waiting:
            self._has_changed = False
            began = self._loop.time()
            for execution_id in list(self._waiting):
                try:
                    summary = await self._service.get(execution_id)
                except DamagedExecutionError as error:  # concerns only its own waiters
                    _raise_to(self._waiting.get(execution_id, ()), error)
                    continue
                if is_over(summary):
                    self._resolve(summary)
            # Other processes live in real time, so this pause is real.
            await asyncio.sleep((self._loop.time() - began) * _PACE)

    def _resolve(self, summary: ExecutionSummary) -> None:
        for future in self._waiting.pop(summary.id, ()):
            if not future.done():
                future.set_result(summary)


def _raise_to(futures: Iterable[asyncio.Future[ExecutionSummary]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # retrieved: its waiter may be gone


def is_over(summary: ExecutionSummary) -> bool:
    """Return whether the execution has a final status."""
    return summary.status is not ExecutionStatus.RUNNING
