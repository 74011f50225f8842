"""Waiting for executions to end, whoever runs them: this process or another.

The service says when there may be something new; then one sweep looks at every execution that
somebody waits for. An end between the look and the wait can't be missed: who waits is on the list
before the first look, and a change during a sweep, or right after it, leads to another. Sweeps take
at most a tenth of the time, however many changes there are.
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
    """Who waits for which executions, on one loop."""

    def __init__(self, service: Executions) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, set[asyncio.Future[ExecutionSummary]]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._has_changed = False
        self._error: BaseException | None = None
        self._unsubscribe: Callable[[], None] = service.subscribe(self._on_change)

    async def wait(self, execution_id: str) -> ExecutionSummary:
        """Return the execution once it is over; raises what `fail` was told."""
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
        """Let everybody who waits, now or later, have ``error``."""
        self._error = error
        self._raise(error)

    def _raise(self, error: BaseException) -> None:
        for futures in self._waiting.values():
            _raise_to(futures, error)

    def close(self) -> None:
        """Listen to the service no more."""
        self._unsubscribe()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- sweeps ----------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Note a change; called from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._on_change_here)
        except RuntimeError:  # the loop is closed: nobody waits any more
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
            self._raise(error)  # it may pass: whoever waits anew tries anew
        self._sweep_if_needed()  # what came between the sweeper's last look and this

    async def _sweep(self) -> None:
        while self._has_changed and self._waiting:
            self._has_changed = False
            began = self._loop.time()
            for execution_id in list(self._waiting):
                try:
                    summary = await self._service.get(execution_id)
                except DamagedExecutionError as error:  # no affair of those that wait for others
                    _raise_to(self._waiting.get(execution_id, ()), error)
                    continue
                if is_over(summary):
                    self._tell(summary)
            # Other processes are real: the pause is one of the machine's time.
            await asyncio.sleep((self._loop.time() - began) * _PACE)

    def _tell(self, summary: ExecutionSummary) -> None:
        for future in self._waiting.pop(summary.id, ()):
            if not future.done():
                future.set_result(summary)


def _raise_to(futures: Iterable[asyncio.Future[ExecutionSummary]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # one whose waiter has gone is no loss


def is_over(summary: ExecutionSummary) -> bool:
    """Return whether the execution has a final status."""
    return summary.status is not ExecutionStatus.RUNNING
