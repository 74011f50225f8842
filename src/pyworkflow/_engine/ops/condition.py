"""Waiting for a condition: a step that looks again and again, until what it sees is enough.

Each look (a *poll*) is an attempt. Its result is the *state*: if that does not meet the condition,
it is recorded with a retry and handed to the next poll, which may be in another process. So there
is one operation, however often it polls. The state that meets the condition is the result.

What the check raises ends the operation, and `RetryableError` alone asks for another poll with the
state as it was. The limit in time counts from the recorded start of the operation.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow._engine.body_context import body_context
from pyworkflow._engine.exits import pass_on_signal
from pyworkflow._engine.messages import AttemptSettings
from pyworkflow._engine.mismatch import mismatch_error
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._protocol.records import Action, Operation, SubType
from pyworkflow._values import codec
from pyworkflow.duration import format_duration
from pyworkflow.errors import ConditionTimeoutError, RetryableError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.ops.base import Host

_NO_CHANCE = random.Random(0)  # noqa: S311 - the delays between polls have no jitter


class ConditionSettings(AttemptSettings, Protocol):
    """How a condition is waited for. ``initial`` is the first state as JSON text.

    ``retry`` gives the delays between polls, and how many there may be.
    """

    @property
    def until(self) -> Callable[[Any], object]: ...
    @property
    def initial(self) -> str: ...
    @property
    def limit_seconds(self) -> int | None: ...


class ConditionOp(StepOp):
    """A wait for a condition. ``function`` takes the state if ``takes_state``."""

    subtype = SubType.WAIT_FOR_CONDITION
    settings: ConditionSettings

    __slots__ = ("_start_ms", "_state", "_takes_state")

    def __init__(
        self,
        execution: Host,
        settings: ConditionSettings,
        function: Callable[..., Any],
        *,
        takes_state: bool,
    ) -> None:
        self._takes_state = takes_state
        self._state = settings.initial
        self._start_ms: int | None = None
        super().__init__(execution, settings, function, self._arguments(settings), {})

    def replay(self, record: Operation) -> None:
        """Go on with the state that the last poll left."""
        self._look_at(record)
        super().replay(record)

    def on_change(self, record: Operation) -> None:
        """Follow the service."""
        self._look_at(record)
        super().on_change(record)

    def _look_at(self, record: Operation) -> None:
        self._start_ms = record.start_ms
        if record.payload is not None:
            self._state = record.payload

    # -- polls -----------------------------------------------------------------------------------

    def _arguments(self, settings: ConditionSettings) -> tuple[Any, ...]:
        if not self._takes_state:
            return ()
        if self._state == "null":  # no state yet, whatever the type of the states is
            return (None,)
        return (codec.decode(self._state, settings.result_type, what="the state"),)

    def _launch(self) -> None:
        try:
            self.args = self._arguments(self.settings)
        except SerializationError as error:
            self.execution.break_with(mismatch_error(f"{self.position}: {error}"))
        else:
            super()._launch()

    def succeed(self, payload: str, value: Any) -> None:
        """Record the state of a poll: it is the result, or another poll is to come."""
        try:
            is_met = bool(body_context(self._context).run(self.settings.until, value))
        except BaseException as error:
            pass_on_signal(error)
            self.give_up(error)
            return
        if (fault := self.refusal(payload, "state")) is not None:
            self.give_up(fault)
            return
        self._state = payload
        if is_met:
            super().succeed(payload, value)
            self._value = None  # `until` may have changed it
        else:
            self._poll_again()

    def fail(self, error: BaseException) -> None:
        """Record what a poll raised: the end, unless it asks for another one."""
        if isinstance(error, RetryableError):
            self._poll_again(error)
        else:
            self.give_up(error)

    def _poll_again(self, raised: RetryableError | None = None) -> None:
        reason = raised or RetryableError()
        usual = self._delay_after(RetryableError(), self.attempt)
        left = self._left_seconds()
        if usual is None or left <= 0:
            self.give_up(self._timeout_error(reason))
            return
        delay = max(usual, self._delay_after(reason, self.attempt) or 0)
        # The last poll is at the limit, however long the delays have grown.
        soon = math.ceil(min(delay, left))
        if raised is not None:
            self.log_retry(raised, soon)
        self.end_attempt(self.update(Action.RETRY, self._state, delay_seconds=soon))

    def _delay_after(self, reason: RetryableError, attempt: int) -> int | None:
        return self.settings.retry.delay_after(reason, attempt, _NO_CHANCE)

    def _left_seconds(self) -> float:
        limit = self.settings.limit_seconds
        if limit is None:
            return math.inf
        # No delay is shorter than the usual one, so that much has passed, also where a test skips
        # the waits. The clock knows of the rest, once the start is recorded.
        passed: float = sum(
            self._delay_after(RetryableError(), attempt) or 0 for attempt in range(1, self.attempt)
        )
        if self._start_ms is not None and self.attempt_end_ms is not None:
            passed = max(passed, (self.attempt_end_ms - self._start_ms) / 1000)
        return limit - passed

    def _timeout_error(self, reason: RetryableError) -> ConditionTimeoutError:
        limit = self.settings.limit_seconds
        within = "" if limit is None else f" within {format_duration(limit)}"
        said = f"; the last poll raised RetryableError: {reason}" if str(reason) else ""
        polls = "1 poll" if self.attempt == 1 else f"{self.attempt} polls"
        return ConditionTimeoutError(
            f"condition {self.name!r} was not met{within}, in {polls}{said}",
            polls=self.attempt,
            state=codec.decode(self._state, Any, what="the state"),
        )
