"""Callbacks: an id that an external system completes.

The code goes on with the id as soon as the service keeps the callback, and asks for the result
whenever it likes, more than once if it likes: a wait for the result that is cancelled leaves the
callback open. So the end of a callback is kept here, and each wait has a future of its own. An open
callback is something to wait for, in the sense that the invocation may end, only while code does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.ops.base import Op
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    SubType,
)
from pyworkflow._values import codec
from pyworkflow._values.exception_rebuilding import misfit, stand_in
from pyworkflow.errors import CallbackError, CallbackTimeoutError, SerializationError, UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from pyworkflow._engine.ops.base import Host
    from pyworkflow._engine.outbox import QueuedUpdate


class CallbackOptions(msgspec.Struct, frozen=True):
    """The options of a callback. Seconds are whole numbers from 1; `None` disables a timeout."""

    timeout_seconds: int | None = None
    heartbeat_timeout_seconds: int | None = None
    result_type: Any = Any

    def asked(self) -> Mapping[str, Any]:
        """Return the timeouts by name."""
        return {
            "timeout": self.timeout_seconds,
            "heartbeat_timeout": self.heartbeat_timeout_seconds,
        }


class CallbackOp(Op):
    """A callback. ``future`` gives the callback's id, once it is created."""

    type = OperationType.CALLBACK
    subtype: str = SubType.CALLBACK

    __slots__ = ("_end", "_entry", "_options", "_waiters")

    def __init__(
        self, execution: Host, name: str | None, key: str | None, options: CallbackOptions
    ) -> None:
        super().__init__(execution, name, key)
        self._options = options
        self._entry: QueuedUpdate | None = None
        self._end: tuple[Any, Exception | None] | None = None
        self._waiters: dict[asyncio.Future[Any], None] = {}
        # Not in `start` or `replay`: neither is called if its end is recorded already.
        execution.journal.creations[self] = None

    def start(self) -> None:
        """Ask for the callback."""
        self._entry = self.write(
            Action.START,
            urgent=True,
            timeout_seconds=self._options.timeout_seconds,
            heartbeat_timeout_seconds=self._options.heartbeat_timeout_seconds,
        )

    def replay(self, record: Operation) -> None:
        """Wait on; its creation comes in its turn."""

    def create(self, record: Operation) -> None:
        """Give the code the id that the service chose."""
        self.future.set_result(record.callback_id)

    def on_change(self, record: Operation) -> None:
        """The callback is open; code may be waiting for it already."""
        self._update_pending()

    def deliver(self, record: Operation) -> None:
        """Keep the end, and give it to those who wait."""
        if record.status is Status.SUCCEEDED:
            self._end = self._read(record.payload)
        else:
            self._end = None, self._error(record)
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            self._resolve(waiter)

    def abandon(self) -> None:
        """Leave it open; a START that was not sent never is."""
        self.execution.journal.creations.pop(self, None)
        if self._entry is not None:
            self.execution.outbox.drop(self._entry)

    def asked(self) -> Mapping[str, Any]:
        """Return the timeouts."""
        return self._options.asked()

    # -- who waits for the result ----------------------------------------------------------------

    def expect(self) -> asyncio.Future[Any]:
        """Return a future for the result; call `forget` with it in the end."""
        if self.abandoned and self._end is None:
            raise UsageError(
                f"{self.awaits()} belongs to a child context that is over, so its result can't be "
                "awaited any more. Await it before the child returns, or create it outside"
            )
        waiter: asyncio.Future[Any] = self.execution.loop.create_future()
        if self._end is not None:
            self._resolve(waiter)
        else:
            self._waiters[waiter] = None
            self._update_pending()
        return waiter

    def forget(self, waiter: asyncio.Future[Any]) -> None:
        """Stop waiting at ``waiter``."""
        self._waiters.pop(waiter, None)
        self._update_pending()

    def _update_pending(self) -> None:
        if self._waiters and not self.abandoned:
            self.execution.pending.add(self, None)
        else:
            self.execution.pending.discard(self)

    def _resolve(self, waiter: asyncio.Future[Any]) -> None:
        assert self._end is not None
        value, error = self._end
        if waiter.done():  # cancelled, and its task did not run since
            return
        if error is None:
            waiter.set_result(value)
        else:
            waiter.set_exception(error)

    # -- what the sender said --------------------------------------------------------------------

    def _read(self, text: str | None) -> tuple[Any, Exception | None]:
        result_type = self._options.result_type
        try:
            return codec.admit(text, result_type, what=f"the result of {self.awaits()}"), None
        except SerializationError as fault:
            if result_type is str or result_type is Any:
                return text or "", None  # not JSON, or not a JSON string: the text is the value
            return None, misfit(fault, CallbackError)

    def _error(self, record: Operation) -> Exception:
        is_late = record.status is Status.TIMED_OUT
        kind = CallbackTimeoutError if is_late else CallbackError
        said = record.error or ErrorRecord(
            f"{self.awaits()} {'timed out' if is_late else 'failed'}",
            "Callback.Timeout" if is_late else "",
        )
        return stand_in(said, kind)


class WaitForCallbackOp(ChildOp):
    """The child context in which `ctx.wait_for_callback` does its work."""

    subtype = SubType.WAIT_FOR_CALLBACK

    __slots__ = ()
