"""Stand-ins for the bodies of steps, by step name: results, errors, side effects, virtual time."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._api.current_step import CurrentStep
from pyworkflow._engine.arguments import check_arguments
from pyworkflow._engine.current import running_step
from pyworkflow._engine.messages import StepRaised, StepReturned
from pyworkflow._runtime.steps import StepRunner, timeout_error
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pyworkflow._engine.messages import StepCall
    from pyworkflow._runtime.clock import Alarm, Clock
    from pyworkflow.testing._strictness import Strictness

    Outcome = StepReturned | StepRaised
    Report = Callable[[Outcome | BaseException], None]

_UNSET: Any = msgspec.UNSET


class Fake:
    """A stand-in for the body of a step. ``seconds`` is the virtual time that it takes."""

    def __init__(
        self,
        *,
        result: Any = _UNSET,
        error: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        seconds: float = 0,
    ) -> None:
        given = (result is not _UNSET) + (error is not None) + (side_effect is not None)
        if given > 1:
            raise UsageError("mock_step takes one of result=, error= and side_effect=, not several")
        self.result = result
        self.error = error
        self.side_effect = side_effect
        self.seconds = seconds

    @property
    def keeps_body(self) -> bool:
        """Whether the step's own body runs."""
        return self.error is None and self.result is _UNSET and self.side_effect is None

    def answer(self, call: StepCall) -> Any:
        """Do what the fake does instead of the body; return its value, or what to await for it."""
        if self.error is not None:
            raise self.error
        if self.result is not _UNSET:
            return self.result
        function = call.function if self.side_effect is None else self.side_effect
        return function(*call.args, **call.kwargs)

    async def call(self, call: StepCall) -> Any:
        """Do what the fake does instead of an async body."""
        value = self.answer(call)
        return await value if inspect.isawaitable(value) else value


class Fakes:
    """The fakes of a mock context, and the failures that were ordered."""

    def __init__(self) -> None:
        self._fakes: dict[str, Fake] = {}
        self._failures: dict[str, list[BaseException | type[BaseException]]] = {}
        self._ran: dict[str, None] = {}

    def put(self, name: str, fake: Fake) -> None:
        """Use ``fake`` for each call of the step ``name``."""
        self._fakes[name] = fake

    def fail(self, name: str, times: int, error: BaseException | type[BaseException]) -> None:
        """Make the next ``times`` attempts of the step ``name`` raise ``error``."""
        self._failures.setdefault(name, []).extend([error] * times)

    def take(self, name: str) -> Fake | None:
        """Return what the next attempt of ``name`` does, `None` for its own body."""
        self._ran[name] = None
        failures = self._failures.get(name)
        if failures:
            fake = self._fakes.get(name)
            return Fake(error=failures.pop(0), seconds=fake.seconds if fake else 0)
        return self._fakes.get(name)

    def warn_of_unused(self, stack_level: int) -> None:
        """Warn of each name under which no step has run: the real body may have, under its own."""
        for name in sorted({*self._fakes, *self._failures} - self._ran.keys()):
            ran = ", ".join(map(repr, self._ran)) or "none"
            warnings.warn(
                f"mock_step or fail_step of {name!r} changed nothing, for no step of that name has "
                f"run. Steps that have: {ran}. Correct the name, or leave it out",
                stacklevel=stack_level + 1,
            )


class FakingStepRunner(StepRunner):
    """Runs fakes where there are some, and looks at what real bodies do to their values."""

    def __init__(
        self,
        execution_id: str,
        clock: Clock,
        report: Report,
        fakes: Fakes,
        strictness: Strictness,
    ) -> None:
        super().__init__(execution_id, clock, report)
        self._fakes = fakes
        self._strictness = strictness
        self._taken: dict[tuple[str, int], Fake] = {}
        self._alarms: dict[str, Alarm] = {}

    def launch(self, call: StepCall) -> Outcome | None:
        """Start an attempt: of the body, or of its fake."""
        fake = self._fakes.take(call.name)
        if fake is None:
            return super().launch(call)
        self._taken[call.id, call.attempt] = fake
        return self.launch_async(call)

    def cancel(self, operation_id: str) -> None:
        """Cancel an attempt at once: the rest of the time that its fake takes does not pass."""
        alarm = self._alarms.pop(operation_id, None)
        if alarm is not None:
            alarm.cancel()
        super().cancel(operation_id)

    async def run_async(self, call: StepCall) -> Outcome:
        """Run an async body, or a fake, to its outcome."""
        fake = self._taken.pop((call.id, call.attempt), None)
        if fake is None:
            before = self._strictness.before(call)
            outcome = await super().run_async(call)
            self._strictness.after(call, before)
            return outcome
        running_step.set(CurrentStep.of(call, self._execution_id))
        try:
            await self._pass_time(fake, call)
            if not call.settings.is_async:
                return await self._run_sync_fake(fake, call)
            before = self._strictness.before(call)
            check_arguments(call.function, call.args, call.kwargs)
            value = await fake.call(call)
            self._strictness.after(call, before)
            return self.returned(call, value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            return self.failed(call, error)

    async def _run_sync_fake(self, fake: Fake, call: StepCall) -> Outcome:
        """Run the body of a sync step where it always runs, or let its fake end as it would."""
        if fake.keeps_body:
            if call.settings.inline:
                return self.run_sync(call)
            return await self.in_thread(self.run_sync, call, copy_context())
        before = self._strictness.before(call)
        try:
            check_arguments(call.function, call.args, call.kwargs)
            value = fake.answer(call)
            value = await value if inspect.isawaitable(value) else value
        except BaseException as error:
            return self.failed(call, error)
        self._strictness.after(call, before)
        return self.returned(call, value)

    def run_sync(self, call: StepCall) -> Outcome:
        """Run a sync body to its outcome."""
        before = self._strictness.before(call)
        outcome = super().run_sync(call)
        self._strictness.after(call, before)
        return outcome

    def returned(self, call: StepCall, value: Any) -> StepReturned:
        """Look at whether the workflow receives what the body returned."""
        fact = super().returned(call, value)
        self._strictness.on_result(call, value, fact.value)
        return fact

    async def _pass_time(self, fake: Fake, call: StepCall) -> None:
        limit = call.settings.timeout_seconds
        seconds = fake.seconds if limit is None else min(fake.seconds, limit)
        if seconds:
            over: asyncio.Future[None] = self._loop.create_future()
            attempt = self._running[call.id]

            def ring() -> None:
                self.hold_clock(attempt)
                over.set_result(None)

            due_ms = self._clock.now_ms() + round(seconds * 1000)
            self._alarms[call.id] = self._clock.call_at(due_ms, ring)
            self.release_clock(attempt)
            await over
            del self._alarms[call.id]
        if limit is not None and fake.seconds > limit:
            raise timeout_error(call)
