"""What a finished execution means to whoever asks for its result: a value, or an exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values import codec
from pyworkflow._values.exception_rebuilding import stand_in
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.errors import (
    ExecutionFailedError,
    ExecutionStoppedError,
    ExecutionTimedOutError,
)

if TYPE_CHECKING:
    from pyworkflow._protocol.executions import ExecutionSummary


def result_of(summary: ExecutionSummary, result_type: object) -> Any:
    """Return the result of an execution that is over, converted to ``result_type``.

    Raises the workflow's own error, where its class is known here, else `ExecutionFailedError`;
    `ExecutionStoppedError` and `ExecutionTimedOutError` if it was ended from outside.
    """
    what = f"{summary.workflow_name!r} ({summary.name})"
    match summary.status:
        case ExecutionStatus.SUCCEEDED:
            return codec.decode(summary.result, result_type, what=f"the result of {what}")
        case ExecutionStatus.STOPPED:
            raise stand_in(_error_of(summary, f"{what} was stopped"), ExecutionStoppedError)
        case ExecutionStatus.TIMED_OUT:
            raise stand_in(_error_of(summary, f"{what} timed out"), ExecutionTimedOutError)
        case _:
            record = _error_of(summary, f"{what} failed")
            # Its class is looked for among all that is loaded by now: nothing is replayed here.
            raise KnownErrors.snapshot().rebuild_for_client(record, ExecutionFailedError)


def _error_of(summary: ExecutionSummary, otherwise: str) -> ErrorRecord:
    return summary.error or ErrorRecord(otherwise)
