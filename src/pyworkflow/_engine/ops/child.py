"""Child contexts: workflow code in a namespace of its own, with one recorded outcome.

The code runs inline, in the task that called it. Once the outcome is recorded, the code and all
below it never run again: a replay takes the outcome and skips the rest.

Code that was cancelled from outside has no outcome that could be recorded, not even if it went on
and returned: a replay that skipped it would cancel whoever waits for it instead. It runs again over
what is recorded below, is cancelled at the same place, and does the same.

A result that is too large to be stored is the exception. Its end is recorded without it, what is
recorded below is kept, and a replay runs the code again over that: nothing new may happen then. The
end has its place in the order of ends, and the code can't return before that place is reached, for
whatever it waited for was delivered before its end was written. So the end is queued when the code
has returned, and is delivered where it was delivered in the live run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._engine.ids import Namespace
from pyworkflow._engine.mismatch import mismatch_error
from pyworkflow._engine.ops.base import Op
from pyworkflow._engine.scopes import Scope
from pyworkflow._protocol.limits import MAX_PAYLOAD_BYTES, fits
from pyworkflow._protocol.records import (
    Action,
    Operation,
    OperationType,
    Status,
    SubType,
)
from pyworkflow._values import codec
from pyworkflow._values.exception_classes import home_of
from pyworkflow.errors import ChildContextError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.ops.base import Host
    from pyworkflow._values.exception_classes import Home


class ChildOp(Op):
    """A child context."""

    type = OperationType.CONTEXT
    subtype: str = SubType.RUN_IN_CHILD_CONTEXT

    __slots__ = ("_value", "asked_for", "namespace", "result_type", "source")

    def __init__(
        self, execution: Host, name: str | None, key: str | None, result_type: object
    ) -> None:
        super().__init__(execution, name, key)
        self.result_type = result_type
        self._value: tuple[str, Any] | None = None
        self.source: object = None
        """The function that runs, or its globals: the home of its errors."""
        self.namespace = Namespace(self.id, Scope(self.id, self.scope))
        self.asked_for: Mapping[str, Any] | None = None
        """The arguments or items, and options, for `asked`."""

    def start(self) -> None:
        """Open the context; the code runs now."""
        self.write(Action.START, begin_ms=self.execution.clock_ms)

    def replay(self, record: Operation) -> None:
        """Run the code again, over what is recorded below."""

    def replay_end(self, record: Operation) -> None:
        """Skip the code, or run it again for a result that was not stored."""
        journal = self.execution.journal
        if record.replay_children and record.status is Status.SUCCEEDED:
            journal.reruns[self] = record
        else:
            super().replay_end(record)
            journal.consume_below(self.id)

    def asked(self) -> Mapping[str, Any]:
        """Return the arguments or items, and options."""
        return self.asked_for or {}

    # -- the outcome of the code -----------------------------------------------------------------

    def encode(self, value: Any) -> tuple[str, Any]:
        """Return what is stored for ``value``, and what the code around receives for it."""
        what = f"the result of {self._label()}"
        if self in self.execution.journal.reruns:
            return codec.reread(value, self.result_type, what=what)
        return codec.roundtrip(value, self.result_type, what=what)

    def _label(self) -> str:
        return repr(self.name) if self.name else f"a {self.subtype} without a name"

    def summarize(self) -> str:
        """Return what is stored instead of a result that is too large."""
        return ""

    def succeed(self, payload: str, value: Any) -> None:
        """Record what the code returned, unless it ran again."""
        self._value = (payload, value)
        record = self.execution.journal.reruns.pop(self, None)
        if record is not None:
            super().replay_end(record)
        elif self.namespace.scope.is_disturbed:
            self._end_unrecorded(Status.SUCCEEDED, payload=payload)
        elif not fits(
            payload,
            min(MAX_PAYLOAD_BYTES, self.execution.limits.max_payload_bytes or MAX_PAYLOAD_BYTES),
        ):
            summary = self.summarize()
            self.write(Action.SUCCEED, urgent=True, payload=summary, replay_children=True)
        else:
            self.write(Action.SUCCEED, urgent=True, payload=payload)

    def fail(self, error: BaseException) -> None:
        """Record what the code raised."""
        if self in self.execution.journal.reruns:
            self.execution.break_with(
                mismatch_error(
                    f"history and code disagree at {self.position}.\n"
                    f"  recorded:  {self.awaits()} has succeeded\n"
                    "  attempted: its code, run again because its result was too large to be "
                    f"stored, raised {type(error).__name__}: {error}"
                )
            )
        elif self.namespace.scope.is_disturbed:
            self._end_unrecorded(Status.FAILED, error=self.recorded_error(error))
        else:
            self.write(Action.FAIL, urgent=True, error=self.recorded_error(error))

    @property
    def home(self) -> Home:
        """The globals of the function that runs."""
        return home_of(self.source)

    def _end_unrecorded(self, status: Status, **outcome: Any) -> None:
        self.execution.abandon(self)
        now_ms = self.execution.now_ms
        self.deliver(
            Operation(id=self.id, type=self.type, status=status, start_ms=now_ms, **outcome)
        )

    def abandon(self) -> None:
        """Leave the context as it is: its code has ended, or was cancelled."""
        self.execution.journal.reruns.pop(self, None)

    def deliver(self, record: Operation) -> None:
        """Give the outcome to the code around."""
        self.scope.leave_child()
        if record.status is Status.SUCCEEDED:
            value = self._value
            if value is not None and (record.replay_children or value[0] == record.payload):
                self.future.set_result(value[1])
            else:
                self.give_recorded(record.payload)
        else:
            self.give_error(record.error, ChildContextError)

    def give_recorded(self, payload: str | None) -> None:
        """Give what a stored result stands for."""
        self.execution.give_decoded(self, payload, self.result_type)
