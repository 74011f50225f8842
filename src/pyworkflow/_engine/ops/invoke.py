"""Chained invokes: another function runs, by itself, and this execution waits for what it returns.

Its START is urgent, since the callee begins with it. An error of the callee is
reported, never raised as its own class: the author of the callee chose that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.ops.base import Op
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
from pyworkflow.errors import InvokeError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.ops.base import Host
    from pyworkflow._engine.outbox import QueuedUpdate


class InvokeOptions(msgspec.Struct, frozen=True):
    """The function to invoke; ``payload`` is JSON text."""

    function_name: str
    payload: str
    tenant_id: str | None = None
    result_type: Any = Any


class InvokeOp(Op):
    """A chained invoke."""

    type = OperationType.CHAINED_INVOKE
    subtype = SubType.CHAINED_INVOKE

    __slots__ = ("_entry", "_options")

    def __init__(
        self, execution: Host, name: str | None, key: str | None, options: InvokeOptions
    ) -> None:
        super().__init__(execution, name, key)
        self._options = options
        self._entry: QueuedUpdate | None = None
        if (fault := self.refusal(options.payload, "input")) is not None:
            raise fault

    def start(self) -> None:
        """Have the function invoked."""
        self._entry = self.write(
            Action.START,
            urgent=True,
            payload=self._options.payload,
            function_name=self._options.function_name,
            tenant_id=self._options.tenant_id,
        )

    def replay(self, record: Operation) -> None:
        """Wait on."""
        self.on_change(record)

    def on_change(self, record: Operation) -> None:
        """The function runs now."""
        self.execution.pending.add(self, None)

    def deliver(self, record: Operation) -> None:
        """Give what the function returned, or say how it failed."""
        if record.status is not Status.SUCCEEDED:
            said = record.error or ErrorRecord(f"{self.awaits()} ended as {record.status}")
            self.future.set_exception(stand_in(said, InvokeError))
            return
        try:
            value = codec.admit(
                record.payload, self._options.result_type, what=f"the result of {self.awaits()}"
            )
        except SerializationError as fault:
            self.future.set_exception(misfit(fault, InvokeError))
        else:
            self.future.set_result(value)

    def asked(self) -> Mapping[str, Any]:
        """Return which function, and its input."""
        options = self._options
        return {
            "function": options.function_name,
            "input": options.payload,
            "tenant_id": options.tenant_id,
        }

    def abandon(self) -> None:
        """Leave the function to itself; one whose START was not sent never runs."""
        if self._entry is not None:
            self.execution.outbox.drop(self._entry)

    def awaits(self) -> str:
        """Say which function."""
        return f"{super().awaits()} of function {self._options.function_name!r}"
