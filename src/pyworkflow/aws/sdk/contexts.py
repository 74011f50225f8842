"""Child contexts as AWS's SDK has them, and virtual ones, which are not operations.

A virtual context is a namespace: its operations have ids below its own, and their parent is the
context around it. Its code runs again on each replay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.exceptions import ChildContextError

from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._protocol.limits import MAX_PAYLOAD_BYTES, fits
from pyworkflow._protocol.records import Action, Operation, Status
from pyworkflow.aws.sdk.errors import (
    ends_invocation,
    passes_through,
    raise_here,
    raised_as,
    record_of,
    surface,
)
from pyworkflow.aws.sdk.serdes import SerDesEncoding, give

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_durable_execution_sdk_python.serdes import SerDes
    from aws_durable_execution_sdk_python.types import SummaryGenerator

    from pyworkflow._engine.execution import Execution


class SdkChildOp(ChildOp):
    """A child context. ``summarize_by`` makes the summary of a result too large to be stored."""

    result_type: SerDesEncoding

    __slots__ = ("_summarize_by", "_summary", "subtype")

    def __init__(
        self,
        execution: Execution,
        name: str | None,
        subtype: str,
        serdes: SerDes[Any] | None = None,
        summarize_by: SummaryGenerator[Any] | None = None,
    ) -> None:
        super().__init__(execution, name, None, None)
        self.subtype = subtype
        self.result_type = SerDesEncoding(serdes, self.id, execution.id)
        self._summarize_by = summarize_by
        self._summary = ""

    def encode(self, value: Any) -> tuple[str, Any]:
        """Return the payload to store for ``value``, and the value for the code around."""
        payload, received = super().encode(value)
        is_new = self not in self.execution.journal.reruns
        if is_new and self._summarize_by is not None and not fits(payload, MAX_PAYLOAD_BYTES):
            self._summary = self._summarize_by(value)
        return payload, received

    def summarize(self) -> str:
        """Return the text to store instead of a result that is too large."""
        return self._summary

    def fail(self, error: BaseException) -> None:
        """Record the error that the code raised."""
        if passes_through(error) or ends_invocation(error):
            surface(self, error)
        elif self in self.execution.journal.reruns:
            super().fail(error)
        else:
            self.write(Action.FAIL, urgent=True, error=record_of(error))

    def deliver(self, record: Operation) -> None:
        """Deliver the outcome to the code around."""
        if record.status is Status.SUCCEEDED:
            super().deliver(record)
        else:
            self.future.set_exception(raised_as(record.error, ChildContextError))

    def give_recorded(self, payload: str | None) -> None:
        """Deliver the value of a stored result."""
        give(self, payload, self.result_type)


def run_virtual(
    execution: Execution, code: Callable[[], Any], context_id: str, serdes: SerDes[Any] | None
) -> Any:
    """Run the code of a virtual context; return its value, encoded and decoded.

    Raises `ChildContextError` if the code raises.
    """
    encoding = SerDesEncoding(serdes, context_id, execution.id)
    try:
        return encoding.decode(encoding.encode(code()))
    except Exception as error:
        if passes_through(error) or ends_invocation(error):
            raise_here(execution, error)
        failure = raised_as(record_of(error), ChildContextError)
    raise failure
