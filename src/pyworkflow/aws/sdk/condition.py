"""`wait_for_condition` as AWS's SDK has it: one step whose attempts are polls.

A poll receives the state of the last one and returns a new one. The strategy decides whether to go
on, and after how long. Any error of a poll or of the strategy ends the operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.exceptions import WaitForConditionError

from pyworkflow._protocol.records import Action, Operation, SubType
from pyworkflow.aws.sdk.errors import ends_invocation, surface
from pyworkflow.aws.sdk.serdes import SerDesEncoding
from pyworkflow.aws.sdk.steps import AttemptsOp, SdkStepSettings, carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_durable_execution_sdk_python.waits import WaitForConditionConfig

    from pyworkflow._api.current_step import CurrentStep
    from pyworkflow._engine.execution import Execution


class SdkConditionOp(AttemptsOp):
    """A wait for a condition. ``poll`` is called with the state and the attempt, in a thread."""

    raises = WaitForConditionError

    __slots__ = ("_config", "_poll", "_state", "subtype")

    def __init__(
        self,
        execution: Execution,
        name: str | None,
        config: WaitForConditionConfig[Any],
        poll: Callable[[Any, CurrentStep], Any],
    ) -> None:
        settings = SdkStepSettings(name)
        super().__init__(execution, settings, carried(self._run), (), {})
        self.name = name
        self.subtype = SubType.WAIT_FOR_CONDITION
        settings.result_type = SerDesEncoding(config.serdes, self.id, execution.id)
        self._config = config
        self._poll = poll
        self._state: str | None = None

    def replay(self, record: Operation) -> None:
        """Continue with the state of the last poll."""
        self._state = record.payload or self._state
        super().replay(record)

    def on_change(self, record: Operation) -> None:
        """Follow the service."""
        self._state = record.payload or self._state
        super().on_change(record)

    def _run(self, step: CurrentStep) -> Any:
        encoding = self.settings.result_type
        state = self._state
        if state is None:
            state = encoding.encode(self._config.initial_state)
        return self._poll(encoding.decode(state), step)

    def succeed(self, payload: str, value: Any) -> None:
        """Record the state that a poll returned: as the result, or for the next poll."""
        try:
            decision = self._config.wait_strategy(value, self.attempt)
        except Exception as error:
            self.fail(error)
            return
        if (fault := self.refusal(payload, "state")) is not None:
            self.give_up(fault)
            return
        if decision.should_continue:
            delay = max(1, decision.delay_seconds)
            self.end_attempt(self.update(Action.RETRY, payload, delay_seconds=delay))
        else:
            # Decoded again when it is delivered: the strategy may have changed the value.
            self.end_attempt(self.update(Action.SUCCEED, payload))

    def fail(self, error: BaseException) -> None:
        """Record the error of a poll or of the strategy."""
        if ends_invocation(error) or not isinstance(error, Exception):
            surface(self, error)
        else:
            self.give_up(error)
