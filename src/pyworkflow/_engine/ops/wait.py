"""Waits: `ctx.sleep` and the durable timers behind `call_later`.

A wait is over when the service says so. An abandoned one is dropped if it was not sent, and left
alone if it was: a cancellation could meet the timer as it fires, and would spoil its whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._engine.ops.base import Op
from pyworkflow._protocol.records import Action, Operation, OperationType, SubType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.loop.event_loop import TimerHandle
    from pyworkflow._engine.ops.base import Host
    from pyworkflow._engine.outbox import QueuedUpdate


class WaitOp(Op):
    """A wait of whole seconds, at least 1; ``exact_seconds`` is what they were rounded from."""

    type = OperationType.WAIT
    subtype = SubType.WAIT

    __slots__ = ("_entry", "_seconds", "exact_seconds")

    def __init__(
        self,
        execution: Host,
        seconds: int,
        name: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(execution, name, key)
        self._seconds = seconds
        self.exact_seconds: float = seconds
        self._entry: QueuedUpdate | None = None

    def start(self) -> None:
        """Ask for the timer; it lags, for it may turn out not to be needed."""
        self._entry = self.write(Action.START, patient=True, wait_seconds=self._seconds)

    def replay(self, record: Operation) -> None:
        """Wait on."""
        self.on_change(record)

    def on_change(self, record: Operation) -> None:
        """The service keeps the timer now."""
        self.execution.pending.add(self, record.scheduled_end_ms)

    def deliver(self, record: Operation) -> None:
        """Resume the code."""
        self.future.set_result(None)

    def abandon(self) -> None:
        """Leave the timer to itself."""
        if self._entry is not None:
            self.execution.outbox.drop(self._entry)

    def asked(self) -> Mapping[str, Any]:
        """Return how long."""
        return {"seconds": self.exact_seconds}

    def awaits(self) -> str:
        """Say how long."""
        return f"{super().awaits()} of {self._seconds} s"


class TimerOp(WaitOp):
    """The wait behind a callback of the loop: `asyncio.sleep`, `asyncio.timeout`."""

    __slots__ = ("_handle",)

    def __init__(self, execution: Host, seconds: int, handle: TimerHandle) -> None:
        super().__init__(execution, seconds)
        self._handle = handle
        self.exact_seconds = handle.due - execution.loop.time()

    def deliver(self, record: Operation) -> None:
        """Queue the callback."""
        self.execution.loop.ring(self._handle)
