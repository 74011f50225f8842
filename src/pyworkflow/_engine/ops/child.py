"""Child contexts: workflow code in a namespace of its own, with one recorded outcome.

The code runs inline, in the task that called it. Once the outcome is recorded, the code and all
below it never run again: a replay takes the outcome and skips the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._engine.failures import record_error
from pyworkflow._engine.ids import Namespace, Scope
from pyworkflow._engine.ops.base import Op
from pyworkflow._engine.records import Action, Operation, OperationType, Status, SubType
from pyworkflow.errors import ChildContextError

if TYPE_CHECKING:
    from pyworkflow._engine.execution import Execution


class ChildOp(Op):
    """One child context."""

    type = OperationType.CONTEXT
    subtype = SubType.RUN_IN_CHILD_CONTEXT

    __slots__ = ("_result_type", "_value", "namespace")

    def __init__(
        self, execution: Execution, name: str | None, key: str | None, result_type: object
    ) -> None:
        super().__init__(execution, name, key)
        self._result_type = result_type
        self._value: tuple[str, Any] | None = None
        self.namespace = Namespace(self.id, Scope(self.id))

    def start(self) -> None:
        """Open the context; the code runs now."""
        self.write(Action.START)

    def replay(self, record: Operation) -> None:
        """Run the code again, over what is recorded below."""

    def succeed(self, payload: str, value: Any) -> None:
        """Record what the code returned."""
        self._value = (payload, value)
        self.write(Action.SUCCEED, urgent=True, payload=payload)

    def fail(self, error: BaseException) -> None:
        """Record what the code raised."""
        self.write(Action.FAIL, urgent=True, error=record_error(error))

    def deliver(self, record: Operation) -> None:
        """Give the outcome to the code around."""
        if record.status is Status.SUCCEEDED:
            value = self._value
            if value is not None and value[0] == record.payload:
                self.future.set_result(value[1])
            else:
                self.execution.give_decoded(self, record.payload, self._result_type)
        else:
            self.execution.give_error(self, record.error, ChildContextError)
