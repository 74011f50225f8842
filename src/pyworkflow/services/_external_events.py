"""External events of an execution: ends of callbacks and chained invokes, heartbeats, a stop.

Due timers fire first. An execution that is over accepts no event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._protocol.moves import apply_outside
from pyworkflow._protocol.records import ErrorRecord, Operation, OperationType, Status
from pyworkflow.errors import ServiceError, StaleTokenError
from pyworkflow.services.errors import (
    completed_callback,
    ended_execution,
    is_text,
    unknown_callback,
)

if TYPE_CHECKING:
    from pyworkflow.services._execution_state import ExecutionState


def check_running(state: ExecutionState) -> None:
    """Raise `StaleTokenError` when the execution is over."""
    if not state.is_running:
        raise StaleTokenError(
            f"Expected a running execution, found {state.id!r}, which is {state.root.status}; "
            "nothing can be added to it"
        )


def execution_id_of(callback_id: str) -> str:
    """Return the id of the execution to which a callback with this id belongs.

    Raises `CallbackNotFoundError` if it can't be an id.
    """
    if not is_text(callback_id):
        raise unknown_callback(callback_id)
    return callback_id.rpartition(".")[0]


def open_callback(state: ExecutionState, callback_id: str, now_ms: int) -> Operation:
    """Return the callback, which is open at ``now_ms``.

    Raises `CallbackNotFoundError`, `ExecutionEndedError` and `CallbackAlreadyCompletedError`.
    """
    operation_id = callback_id.rpartition(".")[2]
    known = state.operations.get(operation_id)
    if known is None or known.callback_id is None:
        raise unknown_callback(callback_id)
    if state.is_running:
        state.fire(now_ms)
    operation = state.operations[operation_id]
    if operation.status is not Status.STARTED:
        raise completed_callback(operation)
    if not state.is_running:
        raise ended_execution(operation, state.root)
    return operation


def end_callback(
    state: ExecutionState,
    callback_id: str,
    now_ms: int,
    status: Status,
    *,
    payload: str | None = None,
    error: ErrorRecord | None = None,
) -> None:
    """End a callback; raises as `open_callback`."""
    operation = open_callback(state, callback_id, now_ms)
    state.put(now_ms, apply_outside(operation, status, now_ms, payload=payload, error=error))


def beat(state: ExecutionState, callback_id: str, now_ms: int) -> Operation:
    """Restart a callback's heartbeat timeout; raises as `open_callback`."""
    operation = open_callback(state, callback_id, now_ms)
    state.deadlines[operation.id].beat(now_ms)
    state.set_timer(operation)
    return operation


def end_invoke(
    state: ExecutionState,
    operation_id: str,
    now_ms: int,
    status: Status,
    *,
    payload: str | None = None,
    error: ErrorRecord | None = None,
) -> None:
    """End a chained invoke. Raises `ServiceError` if the operation is not a chained invoke."""
    check_running(state)
    operation = state.operations.get(operation_id)
    if operation is None or operation.type is not OperationType.CHAINED_INVOKE:
        raise ServiceError(
            f"Execution {state.id!r}: expected the id of a chained invoke, found "
            f"{operation_id!r}; operations() lists those that it has"
        )
    state.fire(now_ms)
    check_running(state)
    state.put(now_ms, apply_outside(operation, status, now_ms, payload=payload, error=error))


def stop(state: ExecutionState, now_ms: int, error: ErrorRecord) -> None:
    """End an execution as STOPPED, unless it is already over."""
    state.fire(now_ms)
    if state.is_running:
        root = apply_outside(state.root, Status.STOPPED, now_ms, error=error)
        state.close(now_ms, root)
