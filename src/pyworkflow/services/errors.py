"""Errors that memory and SQLite raise with the same messages, and checks of ids and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._protocol.limits import is_id
from pyworkflow.errors import (
    CallbackAlreadyCompletedError,
    CallbackNotFoundError,
    ExecutionAlreadyStartedError,
    ExecutionEndedError,
    ExecutionNameError,
    ExecutionNotFoundError,
    ServiceError,
    UsageError,
)

if TYPE_CHECKING:
    from pyworkflow._protocol.records import Operation


def not_found(execution_id: str) -> ExecutionNotFoundError:
    """Return the error for an id that no execution has."""
    return ExecutionNotFoundError(
        f"Expected the id of an execution, found {execution_id!r}, which this service does not "
        "have; list() shows the ids that it has"
    )


def not_leased(execution: Operation) -> ServiceError:
    """Return the error for the release of an execution that is not leased."""
    status = execution.status if execution.ended else "RUNNING"
    return ServiceError(
        f"Expected an execution that a worker has, found {execution.name!r}, which is {status}, "
        "and no worker has it; there is nothing to release"
    )


def unknown_callback(callback_id: str) -> CallbackNotFoundError:
    """Return the error for an id that no callback has."""
    return CallbackNotFoundError(
        f"Expected the id of a callback, found {callback_id!r}, which this service did not issue; "
        "send the id that the workflow handed out, unchanged"
    )


def completed_callback(callback: Operation) -> CallbackAlreadyCompletedError:
    """Return the error for completing a callback that has ended."""
    return CallbackAlreadyCompletedError(
        f"Expected an open callback, found {_called(callback)}, which is {callback.status}; "
        "nothing was changed, and the work that it stands for can stop"
    )


def ended_execution(callback: Operation, execution: Operation) -> ExecutionEndedError:
    """Return the error for completing a callback of an execution that is over."""
    return ExecutionEndedError(
        f"Expected a running execution, found that of {_called(callback)}, {execution.name!r}, "
        f"which is {execution.status}; nothing was changed, and the work that the callback stands "
        "for can stop"
    )


def _called(callback: Operation) -> str:
    name = "a callback without a name" if callback.name is None else f"callback {callback.name!r}"
    return f"{name} ({callback.callback_id})"


def is_text(value: object) -> bool:
    """Return whether ``value`` is a string that can be stored, as an id or a name must be."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, for example from an argument not in UTF-8
        return False
    return True


def check_execution_name(name: str) -> None:
    """Raise `ExecutionNameError` for a name that an execution can't have."""
    if not isinstance(name, str) or is_id(name) is None:
        raise ExecutionNameError(
            f"Expected an execution name of 1-64 of A-Z a-z 0-9 _ -, found {name!r}; choose another"
        )


def already_started(
    workflow_name: str, execution_name: str, known_id: str
) -> ExecutionAlreadyStartedError:
    """Return the error for a name that is taken by another input."""
    return ExecutionAlreadyStartedError(
        f"Expected a new name for a new input, found the execution {known_id!r} of "
        f"{workflow_name!r} with the name {execution_name!r} and another input; choose another "
        "name, or send the same input"
    )


def no_backup() -> UsageError:
    """Return the error for a backup of executions in memory."""
    return UsageError("executions in memory have no backup: keep them in a file, with Client.local")
