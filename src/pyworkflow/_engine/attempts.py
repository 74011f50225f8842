"""Attempts of steps, as the engine sees them: to be launched, running, to be cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow._engine.scopes import IssuedOperation

if TYPE_CHECKING:
    from pyworkflow._engine.messages import AttemptSettings, StepCall, StepRaised, StepReturned


class AttemptedOperation(IssuedOperation, Protocol):
    """An operation whose body runs in attempts: a step, a condition."""

    attempt: int
    attempt_end_ms: int | None

    @property
    def settings(self) -> AttemptSettings: ...

    def succeed(self, payload: str, value: Any) -> None:
        """Record the outcome of the running attempt; ``value`` is ``payload`` decoded."""
        ...

    def fail(self, error: BaseException) -> None:
        """Record that the running attempt raised ``error``."""
        ...


class Attempts:
    """The attempts of one run. An outcome counts only for an attempt that is running here."""

    def __init__(self) -> None:
        self.waiting: dict[AttemptedOperation, StepCall] = {}
        """The attempts that are to be launched."""
        self.running: dict[str, AttemptedOperation] = {}
        """The steps whose bodies run, by id."""
        self._cancels: list[str] = []
        self._deferred: dict[str, None] | None = None
        self.given_up: Exception | None = None
        """With what this invocation is to end, to be invoked again."""

    def defer_rest(self) -> None:
        """Begin no further attempt: this invocation has no time for it."""
        if self._deferred is None:
            self._deferred = {}

    def give_up(self, error: Exception) -> None:
        """Begin no further attempt, and end the invocation with ``error`` once the rest is written.

        The execution goes on from there in the next one.
        """
        self.defer_rest()
        self.given_up = self.given_up or error

    def defers(self, op: AttemptedOperation) -> bool:
        """Whether the next attempt of ``op`` must wait for a later invocation."""
        if self._deferred is None:
            return False
        self._deferred[op.id] = None
        return True

    def launch(self, op: AttemptedOperation, call: StepCall) -> None:
        """Have the runtime run an attempt, once replay is over."""
        self.waiting[op] = call

    def cancel(self, op: AttemptedOperation) -> None:
        """Take back a launch, or cancel the body if it runs."""
        if self._deferred is not None:
            self._deferred.pop(op.id, None)
        if self.waiting.pop(op, None) is None and self.running.pop(op.id, None) is not None:
            self._cancels.append(op.id)

    def take_outcome_of(self, outcome: StepReturned | StepRaised) -> AttemptedOperation | None:
        """An attempt is over: return its step, `None` if that attempt does not run any more."""
        op = self.running.get(outcome.id)
        if op is None or op.attempt != outcome.attempt:
            return None
        del self.running[outcome.id]
        op.attempt_end_ms = outcome.end_ms
        return op

    def take_launches(self, *, recorded_alone: bool = False) -> tuple[StepCall, ...]:
        """Take the attempts to start; they run from now on.

        With ``recorded_alone`` the others stay: for them it is too early. The start of one that may
        run at most once is recorded already, and no later run would begin it.
        """
        taken, self.waiting = self.waiting, {}
        if recorded_alone:
            early = {op: call for op, call in taken.items() if not op.settings.at_most_once}
            taken = {op: call for op, call in taken.items() if op not in early}
            self.waiting = early
        for op in taken:
            self.running[op.id] = op
        return tuple(taken.values())

    def take_cancels(self) -> tuple[str, ...]:
        """Take the ids of the steps whose bodies are to be cancelled."""
        if not self._cancels:
            return ()
        cancels, self._cancels = tuple(self._cancels), []
        return cancels

    @property
    def are_deferred(self) -> bool:
        """Whether an attempt waits for a later invocation."""
        return bool(self._deferred)

    def clear(self) -> None:
        """Forget what was not launched."""
        self.waiting.clear()
