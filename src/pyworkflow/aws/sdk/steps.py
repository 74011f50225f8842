"""Steps as AWS's SDK has them: a strategy decides on retries, a serdes on the payload.

An error is recorded with a RETRY if the strategy asks for one, else with a FAIL; an error of the
serdes is never retried. When its context is over, a step's record stays as it is.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from aws_durable_execution_sdk_python.config import StepSemantics
from aws_durable_execution_sdk_python.exceptions import (
    DurableOperationError,
    RetryableSerDesError,
    SerDesError,
    StepError,
    StepInterruptedError,
)
from aws_durable_execution_sdk_python.retries import RetryPresets

from pyworkflow._api.current_step import CurrentStep, current_step
from pyworkflow._engine.current import running_step
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._protocol.records import Action, Operation, Status, SubType
from pyworkflow.aws.sdk.errors import passes_through, raised_as, record_of, surface
from pyworkflow.aws.sdk.serdes import SerDesEncoding, give
from pyworkflow.errors import SerializationError
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_durable_execution_sdk_python.config import StepConfig

    from pyworkflow._engine.execution import Execution
    from pyworkflow._values.codec import Encoding

T = TypeVar("T")

_default_strategy = RetryPresets.default()


class SdkStepSettings:
    """How the runtime runs a body of an SDK step: in a thread, without a time limit.

    ``retry`` is not used: the operation asks the strategy.
    """

    key = None
    retry = Retry.of(False)
    timeout_seconds = None
    inline = False
    is_async = False
    result_type: Encoding

    def __init__(self, name: str | None, *, at_most_once: bool = False) -> None:
        self.name = name or ""
        self.at_most_once = at_most_once


def carried(code: Callable[[CurrentStep], T]) -> Callable[[], T]:
    """Return a body that calls ``code`` with the running attempt.

    It sees the context variables of the code that calls the step, as with the SDK, which runs both
    in one thread.
    """
    around = contextvars.copy_context()

    def body() -> T:
        attempt = current_step()

        def run() -> T:
            running_step.set(attempt)
            return code(attempt)

        return around.copy().run(run)

    return body


class AttemptsOp(StepOp):
    """The base of steps and conditions: attempts in threads, and the SDK's errors."""

    settings: SdkStepSettings
    raises: ClassVar[type[DurableOperationError]]

    __slots__ = ()

    def give_up(self, error: BaseException) -> None:
        """Record that the operation has failed with ``error``."""
        if isinstance(error, SerializationError):  # of the engine: the service refuses the payload
            error = SerDesError(str(error))
        self.end_attempt(self.update(Action.FAIL, error=record_of(error)))

    def deliver(self, record: Operation) -> None:
        """Deliver the value, or the SDK's error."""
        if record.status is not Status.SUCCEEDED:
            self.future.set_exception(raised_as(record.error, self.raises))
        elif self._value is not None and self._value[0] == record.payload:
            self.future.set_result(self._value[1])
        else:
            give(self, record.payload, self.settings.result_type)

    def abandon(self) -> None:
        """Cancel the body; what is recorded stays as it is, for the context around is over."""
        self.execution.attempts.cancel(self)
        if self._start is not None and not self._has_outcome:
            self.execution.outbox.drop(self._start)


class SdkStepOp(AttemptsOp):
    """A step. ``body`` is called without arguments, in the thread of each attempt."""

    raises = StepError

    __slots__ = ("_strategy", "subtype")

    def __init__(
        self, execution: Execution, name: str | None, config: StepConfig, body: Callable[[], Any]
    ) -> None:
        careful = config.step_semantics is StepSemantics.AT_MOST_ONCE_PER_RETRY
        settings = SdkStepSettings(name, at_most_once=careful)
        super().__init__(execution, settings, body, (), {})
        self.name = name
        self.subtype = config.sub_type or SubType.STEP
        settings.result_type = SerDesEncoding(config.serdes, self.id, execution.id)
        self._strategy = config.retry_strategy or _default_strategy

    def fail(self, error: BaseException) -> None:
        """Record the error of the running attempt, as the strategy decides."""
        if isinstance(error, SerDesError):
            self.give_up(error)
        elif isinstance(error, RetryableSerDesError) or passes_through(error):
            self._leave_started(error)
        else:
            assert isinstance(error, Exception)
            self._retry_or_fail(error)

    def _retry_or_fail(self, error: Exception) -> None:
        try:
            decision = self._strategy(error, self.attempt)
        except Exception as fault:  # the strategy's own error is not recorded
            self._leave_started(fault)
            return
        if decision.should_retry:
            delay = max(1, decision.delay_seconds)
            self.log_retry(error, delay)
            record = record_of(error)
            self.end_attempt(self.update(Action.RETRY, error=record, delay_seconds=delay))
        else:
            self.give_up(error)

    def _leave_started(self, error: BaseException) -> None:
        """Record only that the body ran, and let ``error`` surface."""
        if self._start is not None and not self._start.sent:
            self.execution.outbox.drop(self._start)
            self.write(Action.START, urgent=True)
        self._has_outcome = True
        surface(self, error)

    def _interruption(self) -> Exception:
        return StepInterruptedError(
            f"Step operation_id={self.id} name={self.name} was previously interrupted"
        )
