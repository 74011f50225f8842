"""Validate a client's arguments before calling the service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyworkflow._api.completion import check_count
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._values import codec
from pyworkflow.duration import whole_seconds
from pyworkflow.errors import ExecutionStatusError, InputError, UsageError

if TYPE_CHECKING:
    from typing import Any

    from pyworkflow._api.workflow import Workflow
    from pyworkflow.duration import Duration
    from pyworkflow.services.port import Executions


async def check_input(
    service: Executions,
    workflow: Workflow[..., Any],
    payload: str,
    execution_name: str | None,
) -> None:
    """Raise `InputError` for an input that does not fit the workflow.

    If an execution of that name exists, its input was accepted when it began.
    """
    try:
        workflow.binder.bind(payload)
    except InputError:
        if execution_name is None or not await service.list(
            workflow_name=workflow.name, execution_name=execution_name, limit=1
        ):
            raise


MAX_LIMIT = 2**63 - 1
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)


def checked_status(status: ExecutionStatus | str | None) -> ExecutionStatus | None:
    """Return the status to filter by, `None` for any.

    Raises `ExecutionStatusError` if the status does not exist.
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


def checked_limit(limit: int | None) -> int | None:
    """Return the most executions that a list may have, `None` for all; raises `UsageError`."""
    count = check_count(limit, "limit", 0, "list()")
    # No list is longer, and a service may use 64-bit numbers.
    return None if count is None else min(count, MAX_LIMIT)


def checked_time(time: datetime | None, what: str) -> int | None:
    """Return a time in milliseconds since the epoch, `None` for `None`.

    Raises `UsageError` if it is not a datetime with a time zone.
    """
    if time is None:
        return None
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise UsageError(
            f"expected a datetime with a time zone as {what}, found {time!r}; for local time use "
            "time.astimezone()"
        )
    # Rounded up: it is compared with whole milliseconds.
    return -((_EPOCH - time) // _MILLISECOND)


def checked_timeout(timeout: Duration | None) -> int | None:
    """Return an execution's timeout in whole seconds, `None` for no timeout.

    Raises `DurationError`, and `UsageError` for a timeout of zero.
    """
    if timeout is None:
        return None
    seconds = whole_seconds(timeout)
    if not seconds:
        raise UsageError(
            f"expected a timeout of a second or more, found {timeout!r}; for an execution without "
            "a timeout leave timeout= out"
        )
    return seconds


def answer_of(result: Any, what: str) -> str:
    """Return the text to send as a callback's ``result``: bytes unchanged, the rest as JSON.

    Raises `SerializationError` if it has no JSON, and `UsageError` for bytes that are not UTF-8.
    """
    if not isinstance(result, bytes):
        return codec.encode(result, what=what)
    try:
        return result.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"expected bytes of UTF-8 text as {what}, found byte {result[error.start]:#04x} at "
            f"{error.start}; send other bytes as JSON, in base64 for example"
        ) from None
