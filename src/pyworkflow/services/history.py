"""History events: the changes of an execution, in order, for people and tools to read.

A service keeps a compact `HistoryEntry` for each change and builds the events only when they are
asked for. Names follow AWS: `StepStarted`, `WaitSucceeded`, ...; a retry is recorded as
`StepFailed`, or `StepSucceeded` if it has no error, with the delay. Event ids count from 1 in the
order of change. A step that becomes READY makes no event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyworkflow._protocol.records import ErrorRecord, Operation, OperationType, Status, Update

if TYPE_CHECKING:
    from collections.abc import Iterable


class HistoryEntry(msgspec.Struct, frozen=True, gc=False):
    """A change: its time, the new record, and the update; `None` if the service made the change."""

    time_ms: int
    operation: Operation
    update: Update | None = None


class HistoryEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An event of an execution. Times are milliseconds since the epoch.

    ``payload`` is the input of a started execution or chained invoke, and the result of a succeeded
    operation. ``current_attempt`` is the number of the step's attempt that began or ended, from 1;
    ``delay_seconds`` is set when another attempt follows. The events of an attempt have the times
    of its body; events are in the order in which they were recorded.
    """

    id: int
    type: str
    time_ms: int
    operation_id: str
    operation_type: OperationType
    name: str | None = None
    parent_id: str | None = None
    subtype: str | None = None
    payload: str | None = None
    error: ErrorRecord | None = None
    current_attempt: int | None = None
    delay_seconds: int | None = None
    wait_seconds: int | None = None
    scheduled_end_ms: int | None = None
    callback_id: str | None = None
    timeout_seconds: int | None = None
    heartbeat_timeout_seconds: int | None = None
    function_name: str | None = None
    tenant_id: str | None = None


_KINDS = {
    OperationType.EXECUTION: "Execution",
    OperationType.CONTEXT: "Context",
    OperationType.STEP: "Step",
    OperationType.WAIT: "Wait",
    OperationType.CALLBACK: "Callback",
    OperationType.CHAINED_INVOKE: "ChainedInvoke",
}
_OUTCOMES = {
    Status.STARTED: "Started",
    Status.SUCCEEDED: "Succeeded",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Cancelled",
    Status.TIMED_OUT: "TimedOut",
    Status.STOPPED: "Stopped",
}


def _outcome(operation: Operation) -> str:
    if operation.status is Status.PENDING:
        return "Succeeded" if operation.error is None else "Failed"
    return _OUTCOMES[operation.status]


def _payload(operation: Operation, update: Update | None) -> str | None:
    match operation:
        # The record of an ended execution has its input; that of a started invoke has no payload.
        case Operation(type=OperationType.EXECUTION, status=Status.STARTED):
            return operation.payload
        case Operation(type=OperationType.EXECUTION) | Operation(status=Status.STARTED):
            return None if update is None else update.payload
        case _:
            return operation.payload


def _event(number: int, entry: HistoryEntry) -> HistoryEvent:
    operation, update = entry.operation, entry.update
    kind = operation.type
    started = operation.status is Status.STARTED
    wait_seconds = None
    if operation.scheduled_end_ms is not None:
        wait_seconds = (operation.scheduled_end_ms - operation.start_ms) // 1000
    return HistoryEvent(
        id=number,
        type=_KINDS[kind] + _outcome(operation),
        time_ms=entry.time_ms,
        operation_id=operation.id,
        operation_type=kind,
        name=operation.name,
        parent_id=operation.parent_id,
        subtype=operation.subtype,
        payload=_payload(operation, update),
        error=None if started else operation.error,
        current_attempt=operation.attempt if kind is OperationType.STEP else None,
        delay_seconds=None if update is None else update.delay_seconds,
        wait_seconds=wait_seconds,
        scheduled_end_ms=operation.scheduled_end_ms if started else None,
        callback_id=operation.callback_id if started else None,
        timeout_seconds=None if update is None else update.timeout_seconds,
        heartbeat_timeout_seconds=None if update is None else update.heartbeat_timeout_seconds,
        function_name=None if update is None else update.function_name,
        tenant_id=None if update is None else update.tenant_id,
    )


def build_events(entries: Iterable[HistoryEntry], first_id: int = 1) -> tuple[HistoryEvent, ...]:
    """Return the events of ``entries``, which are in order of change."""
    shown = (entry for entry in entries if entry.operation.status is not Status.READY)
    return tuple(_event(number, entry) for number, entry in enumerate(shown, first_id))
