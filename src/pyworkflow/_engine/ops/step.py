"""Steps: code whose outcome is recorded, and that never runs again once it is.

The engine never runs a body. It launches a `StepCall`, receives its outcome, and decides:
recorded as done, tried again after a delay, or failed. An outcome counts only for the attempt that
is running; what comes after the step was abandoned is dropped.
"""

from __future__ import annotations

import logging
import random
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pyworkflow._engine.messages import StepCall
from pyworkflow._engine.ops.base import Op
from pyworkflow._protocol.records import Action, Operation, OperationType, Status, SubType, Update
from pyworkflow._values.exception_classes import home_of
from pyworkflow._values.exceptions import record_error
from pyworkflow.errors import StepCancelledError, StepError, StepInterruptedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyworkflow._engine.messages import AttemptSettings
    from pyworkflow._engine.ops.base import Host
    from pyworkflow._engine.outbox import QueuedUpdate
    from pyworkflow._protocol.records import ErrorRecord
    from pyworkflow._values.exception_classes import Home

logger = logging.getLogger("pyworkflow.steps")

_START, _SUCCEED = Action.START, Action.SUCCEED
_SUCCEEDED = Status.SUCCEEDED


def asked_of(settings: AttemptSettings) -> Mapping[str, Any]:
    """Return how a step or condition is to be run, by the names of the options."""
    retry = settings.retry
    return {
        "timeout": settings.timeout_seconds,
        "at_most_once": settings.at_most_once,
        "max_attempts": retry.max_attempts,
        "delay": retry.delay,
        "backoff": retry.backoff,
        "max_delay": retry.max_delay,
        "jitter": retry.jitter,
        "initial": getattr(settings, "initial", None),
        "limit": getattr(settings, "limit_seconds", None),
    }


class StepOp(Op):
    """A step of the workflow."""

    type = OperationType.STEP
    subtype: str = SubType.STEP

    __slots__ = (
        "_call",
        "_context",
        "_function",
        "_has_outcome",
        "_is_recorded_started",
        "_start",
        "_value",
        "args",
        "attempt",
        "attempt_end_ms",
        "kwargs",
        "settings",
    )

    def __init__(
        self,
        execution: Host,
        settings: AttemptSettings,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        Op.__init__(self, execution, settings.name, settings.key)
        self.settings = settings
        self._function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.attempt_end_ms: int | None = None
        self._call: StepCall | None = None
        self._start: QueuedUpdate | None = None
        self._is_recorded_started = False
        self._has_outcome = False
        self._value: tuple[str, Any] | None = None

    # -- what is recorded ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the first attempt."""
        self._context = copy_context()
        self._begin_attempt()

    def replay(self, record: Operation) -> None:
        """Go on: an attempt that was begun is run again, or is lost if it may run only once."""
        self.attempt = record.ended_attempts + 1
        self._context = copy_context()
        if record.status is not Status.STARTED:
            self.on_change(record)
            return
        self._is_recorded_started = True
        if self.settings.at_most_once:
            self.fail(self._interruption())
        elif not self.execution.attempts.defers(self):
            self._launch()

    def on_change(self, record: Operation) -> None:
        """Follow the service: started, waiting for its next attempt, or due."""
        self.attempt = record.ended_attempts + 1
        match record.status:
            case Status.STARTED:
                is_news, self._is_recorded_started = not self._is_recorded_started, True
                if is_news and self.settings.at_most_once:
                    self._launch()
            case Status.PENDING:
                self.execution.pending.add(self, record.next_attempt_ms)
            case Status.READY if self._has_outcome or self._start is None:
                self._begin_attempt()
            case _:
                pass

    def deliver(self, record: Operation) -> None:
        """Give the value, or raise the step's own exception."""
        if record.status is _SUCCEEDED:
            value = self._value
            if value is not None and value[0] == record.payload:
                self.future.set_result(value[1])
            else:
                self.execution.give_decoded(self, record.payload, self.settings.result_type)
        else:
            self.give_error(record.error, StepError)

    @property
    def home(self) -> Home:
        """The globals of the step's function."""
        return home_of(self._function)

    def _interruption(self) -> Exception:
        return StepInterruptedError(
            f"step {self.name!r} was found started (attempt {self.attempt}): the process ended "
            "before its outcome was recorded, and at_most_once=True forbids to run that attempt "
            "again"
        )

    def asked(self) -> Mapping[str, Any]:
        """Return how it is to be run; its arguments stand beside."""
        return asked_of(self.settings)

    # -- attempts --------------------------------------------------------------------------------

    def _begin_attempt(self) -> None:
        if self.execution.attempts.defers(self):
            return
        careful = self.settings.at_most_once
        self._has_outcome = self._is_recorded_started = False
        self._call = self.attempt_end_ms = None
        self._start = self.execution.outbox.put(self._start_update, careful)
        if not careful:
            self._launch()

    def _launch(self) -> None:
        self._call = call = StepCall(
            self.id,
            self.name or "",
            self.attempt,
            self.settings,
            self._function,
            self.args,
            self.kwargs,
            self._context,
        )
        self.execution.attempts.launch(self, call)

    def _start_update(self) -> Update:
        """Return the START, made when it is sent: by then the body may have begun."""
        call = self._call
        return Update(
            id=self.id,
            type=OperationType.STEP,
            action=_START,
            parent_id=self.scope.operation_id,
            name=self.name,
            subtype=self.subtype,
            begin_ms=None if call is None else call.begin_ms,
        )

    def update(
        self,
        action: Action,
        payload: str | None = None,
        error: ErrorRecord | None = None,
        **details: Any,
    ) -> Update:
        """Return an update of this step, with the times of the attempt's body."""
        update = Update(
            id=self.id,
            type=self.type,
            action=action,
            parent_id=self.scope.operation_id,
            name=self.name,
            subtype=self.subtype,
            payload=payload,
            error=error,
            begin_ms=None if self._call is None else self._call.begin_ms,
            end_ms=self.attempt_end_ms,
        )
        return replace(update, **details) if details else update

    def succeed(self, payload: str, value: Any) -> None:
        """Record the outcome of the running attempt; ``value`` is ``payload`` decoded.

        One that is too large for the service is the step's failure: no attempt mends that.
        """
        if (fault := self.refusal(payload, "result")) is not None:
            self.give_up(fault)
            return
        self._value = (payload, value)
        self.end_attempt(self.update(_SUCCEED, payload))

    def fail(self, error: BaseException) -> None:
        """Record that the running attempt raised ``error``: try again, or fail."""
        seed = f"{self.execution.id}/{self.id}/{self.attempt}"
        jitter = random.Random(seed)  # noqa: S311 - spreads retries; replayable
        delay = self.settings.retry.delay_after(error, self.attempt, jitter)
        if delay is None:
            self.give_up(error)
        else:
            self.log_retry(error, delay)
            record = record_error(error)
            self.end_attempt(self.update(Action.RETRY, error=record, delay_seconds=delay))

    def give_up(self, error: BaseException) -> None:
        """Record that the step has failed with ``error``."""
        self.end_attempt(self.update(Action.FAIL, error=self.recorded_error(error)))

    def log_retry(self, error: BaseException, delay_seconds: float) -> None:
        """Log a failed attempt before a retry; its error is reported nowhere else."""
        logger.warning(
            "step %r failed in attempt %d and is tried again in %d s",
            self.name,
            self.attempt,
            delay_seconds,
            exc_info=error,
            extra={
                "execution_id": self.execution.id,
                "step": self.name,
                "attempt": self.attempt,
            },
        )

    def end_attempt(self, how: Update) -> None:
        """Record how the running attempt ended."""
        self._has_outcome = True
        self.execution.outbox.put(how, True)

    def abandon(self) -> None:
        """Cancel the body. A start that was written is closed; another is never written."""
        self.execution.attempts.cancel(self)
        if self._has_outcome:
            return
        if self._start is not None:
            self.execution.outbox.drop(self._start)
        if self._is_recorded_started or (self._start is not None and self._start.sent):
            error = StepCancelledError(f"the workflow cancelled step {self.name!r}")
            self.write(Action.FAIL, urgent=True, error=self.recorded_error(error))
