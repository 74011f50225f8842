"""What a client is told, looked at before any service is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow.duration import whole_seconds
from pyworkflow.errors import ExecutionStatusError, InputError, UsageError
from pyworkflow.services.base import ExecutionStatus

if TYPE_CHECKING:
    from typing import Any

    from pyworkflow._api.workflow import Workflow
    from pyworkflow.duration import Duration
    from pyworkflow.services.base import SchedulingService


async def check_input(
    service: SchedulingService,
    workflow: Workflow[..., Any],
    payload: str,
    execution_name: str | None,
) -> None:
    """Raise `InputError` for an input that does not fit the workflow.

    Where an execution of that name is there, its input was accepted when it began.
    """
    try:
        workflow.binder.bind(payload)
    except InputError:
        if execution_name is None or not await service.list(
            workflow_name=workflow.name, execution_name=execution_name, limit=1
        ):
            raise


def status_of(status: ExecutionStatus | str | None) -> ExecutionStatus | None:
    """Return the status to look for, `None` for any.

    Raises `ExecutionStatusError` for what is none.
    """
    if status is None:
        return None
    try:
        return ExecutionStatus(status)
    except ValueError:
        raise ExecutionStatusError(
            f"expected a status, one of {', '.join(ExecutionStatus)}, found {status!r}; for "
            "executions in any of them leave status= out"
        ) from None


def timeout_of(timeout: Duration | None) -> int | None:
    """Return an execution's timeout in whole seconds, `None` for none.

    Raises `DurationError`, and `UsageError` for no time at all.
    """
    if timeout is None:
        return None
    seconds = whole_seconds(timeout)
    if not seconds:
        raise UsageError(
            f"expected a timeout of a second or more, found {timeout!r}; for an execution that "
            "may take as long as it needs leave timeout= out"
        )
    return seconds
