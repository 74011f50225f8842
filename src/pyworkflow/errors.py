"""Every exception that PyWorkflow raises or that a workflow author raises.

They are sorted by who is to blame:

* the author's own signals about a step: `FatalError`, `RetryableError`;
* what a durable operation ended with: `OperationError` and below;
* wrong use of the library: `UsageError` and below, raised where the mistake is made;
* history and code disagree: `NonDeterminismError`;
* the service that keeps the history: `ServiceError` and below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta


class PyWorkflowError(Exception):
    """Base of all exceptions of this library."""


# -- raised by authors ---------------------------------------------------------------------------


class FatalError(PyWorkflowError):
    """Raise it in a step: the step fails at once and is never retried."""


class RetryableError(PyWorkflowError):
    """Raise it in a step: the step is tried again, up to the policy's ``max_attempts``.

    ``retry_after`` is this attempt's own delay (a duration: seconds, ``"30s"`` or `timedelta`);
    without it the policy's delay applies.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | str | timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


# -- what an operation ended with ----------------------------------------------------------------


class OperationError(PyWorkflowError):
    """A durable operation failed, and its own exception class could not be restored.

    ``error_type`` is the recorded class name, ``message`` its text and ``stack_trace`` the recorded
    frames, innermost last.
    """

    def __init__(
        self, message: str, *, error_type: str = "", stack_trace: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type
        self.stack_trace = tuple(stack_trace)

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}" if self.error_type else self.message


class StepError(OperationError):
    """A step failed with an exception whose class is not known to this process."""


class ChildContextError(OperationError):
    """A child workflow failed with an exception whose class is not known to this process."""


class StepTimeoutError(PyWorkflowError):
    """A step's attempt ran longer than its ``timeout``. It is retried as the policy says."""


class StepInterruptedError(PyWorkflowError):
    """An ``at_most_once`` step was found started: nobody knows whether its body ran to the end."""


class StepCancelledError(PyWorkflowError):
    """The workflow cancelled the step while an attempt was running."""


# -- wrong use -----------------------------------------------------------------------------------


class UsageError(PyWorkflowError):
    """The library was used where or how it can't be; the message says what to do instead."""


class DurationError(UsageError, ValueError):
    """A duration is malformed, negative or longer than 366 days."""


class InputError(UsageError):
    """The input does not fit the workflow's signature. ``problems`` has one line a field."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class SerializationError(UsageError):
    """A value can't be stored as JSON, or would not come back: that at ``path``, ``$.items[2]``."""

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class DeadlockError(UsageError):
    """Nothing that the workflow awaits can ever happen; the message lists what each task awaits."""


class ReplayHazardError(UsageError):
    """A test saw what a replay would not reproduce; the message says what, and the remedy."""


# -- history and code disagree -------------------------------------------------------------------


class NonDeterminismError(PyWorkflowError):
    """The recorded history and what the code does now differ. Nothing was run or written for it.

    The message shows what was recorded, what was attempted, the position, the usual causes and the
    remedies.
    """


# -- the service ---------------------------------------------------------------------------------


class ServiceError(PyWorkflowError):
    """The service that keeps the history refused a request or could not be used."""


class InvalidUpdateError(ServiceError):
    """An update is not a legal move for its operation; the whole batch was refused."""


class StaleTokenError(ServiceError):
    """The checkpoint token was used or replaced already: another process drives this execution."""


class ExecutionNotFoundError(ServiceError):
    """No execution has that id."""


class ExecutionAlreadyStartedError(ServiceError):
    """An execution with that name exists, with another input."""
