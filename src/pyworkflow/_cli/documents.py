"""The JSON documents of ``--json``. Their fields are a promise: none is renamed or left out.

Fields are those of the records; times are milliseconds since the epoch. A payload stands as the
value that it holds, under the name of what it is: ``input``, ``result``, ``state``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._cli.values import value_of
from pyworkflow._protocol.executions import ExecutionSummary
from pyworkflow._protocol.records import Operation, OperationType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyworkflow._protocol.records import ErrorRecord
    from pyworkflow.services.history import HistoryEvent

Document = dict[str, Any]

_OF_THE_LIST = (
    "id", "name", "workflow_name", "status", "start_ms", "end_ms", "wake_ms", "failed_invocations",
)  # fmt: skip


def listed_document(summary: ExecutionSummary) -> Document:
    """Return an execution without what it was given and what it returned."""
    document = {name: getattr(summary, name) for name in _OF_THE_LIST}
    return document | {"problem": error_document(summary.problem)}


def execution_document(summary: ExecutionSummary) -> Document:
    """Return an execution with its input, its result and its error."""
    return listed_document(summary) | {
        "input": value_of(summary.input_payload),
        "result": value_of(summary.result),
        "error": error_document(summary.error),
    }


def operations_document(operations: Iterable[Operation]) -> list[Document]:
    """Return the operations in the order of their start, without the execution itself."""
    return [
        _operation_document(operation)
        for operation in operations
        if operation.type is not OperationType.EXECUTION
    ]


def _operation_document(operation: Operation) -> Document:
    document = _fields(operation)
    del document["sequence"], document["replay_children"], document["ended_attempts"]
    document["attempt"] = operation.attempt
    value = value_of(document.pop("payload"))
    return document | {
        "result": value if operation.ended else None,
        "state": None if operation.ended else value,
        "error": error_document(operation.error),
    }


def event_document(event: HistoryEvent) -> Document:
    """Return an event of the history."""
    document = _fields(event)
    document["payload"] = value_of(event.payload)
    return document | {"error": error_document(event.error)}


def error_document(error: ErrorRecord | None) -> Document | None:
    """Return a recorded error."""
    if error is None:
        return None
    return _fields(error) | {
        "data": value_of(error.data),
        "stack_trace": list(error.stack_trace),
    }


def _fields(record: msgspec.Struct) -> Document:
    return {name: getattr(record, name) for name in record.__struct_fields__}
