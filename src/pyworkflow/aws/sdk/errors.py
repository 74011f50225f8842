"""AWS's SDK's errors, as they are recorded, raised again, and let through.

An error that escapes an operation is recorded by its qualified class name and its message. It is
raised again as the operation's error class (`StepError`, `ChildContextError`, …), whose cause
stands in for the recorded error; the SDK's own functions do both. Three kinds are not recorded. A
retryable `InvocationError` ends the invocation, and the service invokes again. An `ExecutionError`,
and any error that is not an `Exception`, passes through the code around unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from aws_durable_execution_sdk_python.exceptions import (
    DurableOperationError,
    ExecutionError,
    InvocationError,
    SerDesError,
)
from aws_durable_execution_sdk_python.lambda_service import ErrorObject

from pyworkflow._protocol.limits import fitted
from pyworkflow._protocol.records import ErrorRecord

if TYPE_CHECKING:
    from pyworkflow._engine.ops.base import Host, Op

_NOTHING_RECORDED = "Unknown error. No ErrorObject exists on the Checkpoint Operation."


def record_of(error: BaseException) -> ErrorRecord:
    """Return ``error`` as the SDK records it, within the size that Lambda takes."""
    said = ErrorObject.from_exception(error)
    record = ErrorRecord(
        said.message or "", said.type or "", said.data, tuple(said.stack_trace or ())
    )
    return fitted(record)


def raised_as(record: ErrorRecord | None, kind: type[DurableOperationError]) -> Exception:
    """Return the exception that the SDK raises for a recorded error of an operation."""
    if record is None:
        return kind(message=_NOTHING_RECORDED)
    stack = list(record.stack_trace) or None
    said = ErrorObject(record.message, record.type or None, record.data, stack)
    try:
        said.raise_as_operation_error(kind)
    except (DurableOperationError, SerDesError) as error:
        return error


def error_object(error: Exception) -> ErrorObject:
    """Return a failed branch's entry in a batch: the error that escaped it."""
    if isinstance(error, DurableOperationError):
        return ErrorObject(error.message, error.error_type, error.data, error.stack_trace)
    return ErrorObject.from_exception(error)


def passes_through(error: BaseException) -> bool:
    """Whether ``error`` is raised in the code around as it is, without being recorded."""
    return isinstance(error, ExecutionError) or not isinstance(error, Exception)


def ends_invocation(error: BaseException) -> bool:
    """Whether ``error`` ends the invocation, so that the service invokes again."""
    return isinstance(error, InvocationError) and error.is_retryable()


def surface(op: Op, error: BaseException) -> None:
    """Deliver ``error``, unrecorded, to the code that waits for ``op``, or end the invocation."""
    if isinstance(error, InvocationError) and error.is_retryable():
        op.execution.attempts.give_up(error)
    else:
        op.future.set_exception(error)


def raise_here(execution: Host, error: Exception) -> NoReturn:
    """Raise ``error`` in the running code; one that ends the invocation parks the code instead."""
    if ends_invocation(error):
        execution.attempts.give_up(error)
        execution.greenlets.wait(execution.loop.create_future())
    raise error
