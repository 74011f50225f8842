"""Every exception that PyWorkflow raises or that a workflow author raises.

They are sorted by who is to blame:

* the author's own signals about a step: `FatalError`, `RetryableError`;
* what a durable operation ended with: `OperationError` and below;
* wrong use of the library: `UsageError` and below, raised where the mistake is made;
* history and code disagree: `NonDeterminismError`;
* an invocation's time is over: `OutOfTimeError`;
* the service that keeps the history: `ServiceError` and below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = [
    "BatchError",
    "CallbackAlreadyCompletedError",
    "CallbackError",
    "CallbackNotFoundError",
    "CallbackTimeoutError",
    "ChildContextError",
    "ConditionTimeoutError",
    "DamagedExecutionError",
    "DeadlockError",
    "DurationError",
    "ExecutionAlreadyStartedError",
    "ExecutionEndedError",
    "ExecutionFailedError",
    "ExecutionNameError",
    "ExecutionNotFoundError",
    "ExecutionStatusError",
    "ExecutionStoppedError",
    "ExecutionTimedOutError",
    "FatalError",
    "InputError",
    "InvalidUpdateError",
    "InvokeError",
    "NonDeterminismError",
    "OperationError",
    "OutOfTimeError",
    "PyWorkflowError",
    "ReplayHazardError",
    "RequestRefusedError",
    "RetryableError",
    "SagaError",
    "SerializationError",
    "ServiceBusyError",
    "ServiceError",
    "ServiceUnavailableError",
    "StaleTokenError",
    "StepCancelledError",
    "StepError",
    "StepInterruptedError",
    "StepTimeoutError",
    "StorageError",
    "UsageError",
    "WorkflowLoopError",
]


class PyWorkflowError(Exception):
    """Base of all exceptions of this library."""


# -- raised by authors ---------------------------------------------------------------------------


class FatalError(PyWorkflowError):
    """Raise it in a step: the step fails at once and is never retried."""


class RetryableError(PyWorkflowError):
    """Raise it in a step: the step is tried again, up to the policy's ``max_attempts``.

    ``retry_after`` is this attempt's own delay (a duration: seconds, ``"30s"`` or `timedelta`);
    without it the policy's delay applies. So it does for one that is not a duration (``"5"``),
    with a note on the error: a malformed delay must not hide what went wrong in the step.
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


class CallbackError(OperationError):
    """A callback was completed with a failure, or with a result that does not fit its type.

    ``error_type`` and ``message`` are the sender's words; that class is never looked for here.
    """


class CallbackTimeoutError(CallbackError):
    """Nobody completed a callback in time, or no heartbeat came in time.

    ``error_type`` is ``Callback.Timeout`` or ``Callback.Heartbeat``.
    """

    @property
    def is_heartbeat(self) -> bool:
        """Whether it was the heartbeat that did not come."""
        return self.error_type == "Callback.Heartbeat"


class InvokeError(OperationError):
    """An invoked function failed, was stopped, or returned what does not fit the result's type.

    ``error_type`` and ``message`` are the callee's words; that class is never looked for here.
    """


class ExecutionFailedError(OperationError):
    """A whole execution failed with an exception whose class is not known to this process."""


class ExecutionStoppedError(OperationError):
    """The execution has no result: it was stopped from outside, for the reason in ``message``."""


class ExecutionTimedOutError(OperationError):
    """The execution has no result: it was not over when its timeout was."""


class BatchError(PyWorkflowError):
    """More branches of a ``ctx.parallel`` or ``ctx.map`` failed than its options tolerate.

    ``result`` is the `BatchResult`, with what did succeed; it is `None` where the error came out of
    a child workflow, whose record has the message alone. The cause is the first branch's error.
    """

    result: Any = None

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        if result is not None:
            self.result = result


class ConditionTimeoutError(PyWorkflowError):
    """The condition of ``ctx.wait_for_condition`` did not come true in time, or in its polls.

    ``polls`` is how often it was looked at, ``state`` what the last look gave, as plain JSON
    values. With a state that is too large for the record of an error, neither is kept.
    """

    polls = 0
    state: Any = None

    def __init__(self, message: str = "", *, polls: int = 0, state: Any = None) -> None:
        super().__init__(message)
        self.polls = polls
        self.state = state


class SagaError(PyWorkflowError, ExceptionGroup[Exception]):
    """A ``ctx.saga`` block failed, and not all of its compensations succeeded.

    An `ExceptionGroup` of the block's own error and those of the compensations that failed.
    """

    @property
    def reason(self) -> Exception:
        """The error that the block failed with."""
        return self.exceptions[0]

    @property
    def failures(self) -> tuple[Exception, ...]:
        """The errors of the compensations that failed, in the order in which they ran."""
        return self.exceptions[1:]


class StepTimeoutError(PyWorkflowError):
    """A step's attempt ran longer than its ``timeout``. It is retried as the policy says."""


class StepInterruptedError(PyWorkflowError):
    """An ``at_most_once`` step was found started: nobody knows whether its body ran to the end."""


class StepCancelledError(PyWorkflowError):
    """The workflow cancelled the step while an attempt was running."""


# -- wrong use -----------------------------------------------------------------------------------


class UsageError(PyWorkflowError):
    """The library was used where or how it can't be; the message says what to do instead."""


class WorkflowLoopError(UsageError, NotImplementedError):
    """Workflow code called a method of its event loop that would touch the world."""


class DurationError(UsageError, ValueError):
    """A duration is malformed, negative or longer than 366 days."""


class ExecutionStatusError(UsageError, ValueError):
    """The given execution status does not exist."""


class InputError(UsageError):
    """An input does not fit the workflow's signature, or a call's arguments their constraints.

    ``problems`` has one line a field or parameter.
    """

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


# -- the invocation ------------------------------------------------------------------------------


class OutOfTimeError(PyWorkflowError):
    """An invocation's time is over while steps wait to run; the next one goes on from there.

    Raised out of a Lambda handler, to be invoked again at once. Nothing recorded is lost.
    """


# -- the service ---------------------------------------------------------------------------------


class ServiceError(PyWorkflowError):
    """The service that keeps the history refused a request or could not be used.

    ``is_final`` says that it will refuse the same again, so that no further invocation can help.
    """

    is_final = False


class ServiceUnavailableError(ServiceError):
    """The service could not be reached, or could not answer now, and retries did not help."""


class ServiceBusyError(ServiceUnavailableError):
    """Another process keeps the service from writing; nothing was written: ask it again."""


class StorageError(ServiceError):
    """The file that keeps the executions can't be used as it is; the message says what to do.

    It can't be written to, is damaged, is not a PyWorkflow file, or is of a newer version.
    """

    is_final = True


class DamagedExecutionError(StorageError):
    """A stored row of an execution can't be decoded; the message names the row and the reason.

    Others in the file are not concerned. It stays as it is, and goes on once it can be read.
    """


class RequestRefusedError(ServiceError):
    """The service refuses this request for good; ``code`` is its name for the reason."""

    is_final = True

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class InvalidUpdateError(ServiceError):
    """An update is not a legal move for its operation; the whole batch was refused."""

    is_final = True


class StaleTokenError(ServiceError):
    """The checkpoint token was used or replaced already: another process drives this execution."""


class ExecutionNotFoundError(ServiceError):
    """No execution has that id."""


class ExecutionAlreadyStartedError(ServiceError):
    """An execution with that name exists, with another input."""


class ExecutionEndedError(ServiceError):
    """The execution is over, so a callback of it can't be answered and no heartbeat counts."""


class CallbackNotFoundError(ServiceError):
    """No callback has that id."""


class CallbackAlreadyCompletedError(ServiceError):
    """The callback has its end: an earlier answer, a failure or a timeout. It ends once."""


class ExecutionNameError(UsageError, ServiceError):
    """An execution can't have that name: names have 1 to 64 of ``A-Z a-z 0-9 _ -``."""
