"""An invocation: drive the engine from its history to its next suspension, or its end.

The only place that awaits the world. The engine says what to do, in turns; steps and checkpoints
answer with facts; each fact leads to the next turn. Turns run in plain callbacks of the host's
loop, never inside one of its tasks: since 3.14 the current task belongs to the thread.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from pyworkflow._engine.execution import Execution
from pyworkflow._engine.loop.tasks import current_task
from pyworkflow._engine.messages import (
    Broken,
    End,
    Fact,
    Failed,
    LagElapsed,
    LastCall,
    OutOfTime,
    Refreshing,
    StepRaised,
    StepReturned,
    Succeeded,
    Suspended,
    Turn,
)
from pyworkflow._protocol.limits import Limits
from pyworkflow._protocol.records import Action, OperationType, Update
from pyworkflow._runtime.checkpoints import CheckpointChain
from pyworkflow._runtime.clock import holding
from pyworkflow._runtime.deadline import TimeIsOver, in_time
from pyworkflow._runtime.started_threads import name_threads
from pyworkflow._runtime.steps import StepRunner
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyworkflow._api.workflow import Workflow
    from pyworkflow._engine.messages import StepCall
    from pyworkflow._engine.observer import Observer
    from pyworkflow._protocol.executions import Committed, Invocation
    from pyworkflow._protocol.records import Operation
    from pyworkflow._runtime.clock import Alarm, Clock
    from pyworkflow._runtime.deadline import Deadline
    from pyworkflow.services.port import History

LAG_MS = 100
"""How long the START of a step or timer may wait for other updates in its checkpoint."""

TURNS = 100
"""Maximum number of turns in a row before the loop serves other callbacks."""

SKEW_MS = 500
"""Pause before asking again for a timer that the service did not yet consider due."""


class Runner:
    """Runs one invocation of one execution. Made and used on one loop.

    ``known_errors`` are the exceptions that the workflow's code can catch by their own class.
    """

    def __init__(
        self,
        invocation: Invocation,
        service: History,
        workflow: Workflow[..., Any],
        clock: Clock,
        known_errors: KnownErrors,
        *,
        step_runner: type[StepRunner] | Callable[..., StepRunner] = StepRunner,
        observer: Observer | None = None,
    ) -> None:
        self.invocation = invocation
        self._workflow = workflow
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._clock = clock
        self._checkpoints = CheckpointChain(service, invocation)
        self._execution = Execution(
            invocation.execution_id, invocation.execution_name, known_errors, observer
        )
        self._execution.limits = Limits(
            invocation.max_operations, invocation.max_payload_bytes, invocation.max_result_bytes
        )
        self._steps = step_runner(invocation.execution_id, clock, self._on_outcome)
        self._end: asyncio.Future[End] = self._loop.create_future()
        self._lag: Alarm | None = None
        self._due: tuple[int, Alarm] | None = None
        self._looked_for_ms: int | None = None
        self.is_inside = False
        """Whether workflow code is running, or was when an exception ended the turn."""
        self._is_launching = False
        self._is_given_up = False
        self._unrecorded: tuple[str, ...] = ()
        self._has_begun = False
        self._winds_down = False
        self._looks_again = False
        self._left: Sequence[Fact] = ()
        self._outcomes: list[StepReturned | StepRaised] = []
        self._deadline: Deadline | None = None
        self._last: tuple[Alarm, ...] = ()
        self._operations: list[Operation] = []

    async def run(self, deadline: Deadline | None = None) -> End:
        """Run until the workflow suspends or ends, or until ``deadline``.

        The deadline is kept whatever hangs: see `Deadline`. Raises what the service raises,
        `StaleTokenError` among it; the history is intact then.
        """
        self._deadline = deadline
        with holding(self._clock):
            load = self._checkpoints.load(self.invocation)
            seconds = None if self.invocation.marker is None else self.seconds_left()
            try:
                self._operations = operations = await in_time(load, seconds)
            except TimeIsOver:
                return OutOfTime()
            try:
                call = self._workflow.bind(
                    operations[0].payload, self._execution, was_accepted=len(operations) > 1
                )
            except UsageError as error:
                # The input was accepted once, so the code has changed; it can still be fixed.
                return Failed(record_error(error), error) if len(operations) == 1 else Broken(error)
            self._execution.start(call, self._workflow.result_type, operations)
            self._clock.hold()
            self._loop.call_soon(self._begin)
        try:
            if deadline is not None:
                self._winds_down |= deadline.last_call_ms <= self._clock.now_ms()
                self._last = (
                    self._clock.call_at(deadline.last_call_ms, self.wind_down),
                    self._clock.call_at(deadline.end_ms, self._on_deadline),
                )
            return await self._end
        finally:
            with holding(self._clock):
                try:
                    await self._close()
                finally:
                    if not self._end.cancelled():
                        self._clock.release()

    async def run_and_record(
        self,
        deadline: Deadline | None = None,
        *,
        must_record: Callable[[End], bool] = lambda _: True,
    ) -> End:
        """Run, and write the end of the execution if ``must_record`` says so.

        Else the caller reports the end to the service.
        """
        end = await self.run(deadline)
        if must_record(end):
            try:
                await in_time(self.record(end), self.seconds_left())
            except TimeIsOver:
                return OutOfTime()
        return end

    @property
    def token(self) -> str | None:
        """The token of the next request; `None` if the service accepts no further one."""
        return self._checkpoints.token

    @property
    def title(self) -> str:
        """The execution's name and workflow, for the log."""
        invocation = self.invocation
        return f"execution {invocation.execution_name!r} of {invocation.workflow_name!r}"

    @property
    def unrecorded(self) -> tuple[str, ...]:
        """The steps whose outcomes are lost if nothing more is recorded."""
        queued = self._execution.outbox.step_outcomes
        names = (*self._unrecorded, *self._steps.running, *queued, *self._checkpoints.unrecorded)
        return tuple(dict.fromkeys(names))

    def give_up(self) -> bool:
        """Launch no more bodies, unless the run is busy; return whether it was idle.

        Safe on any thread. An idle run that was given up ends where it would launch a body, if not
        before.
        """
        # The loop announces a launch before it checks whether it may: see `watch`.
        self._is_given_up = True
        if (
            self.is_inside
            or self._is_launching
            or not self._steps.are_idle
            or self._outcomes
            or self._left
            or self._checkpoints.is_writing
        ):
            self._is_given_up = False
        return self._is_given_up

    def seconds_left(self) -> float | None:
        """Return the seconds until the invocation must return; `None` without a deadline."""
        deadline = self._deadline
        return None if deadline is None else deadline.seconds_left(self._clock.now_ms())

    def look_again(self) -> None:
        """Read what changed outside: a callback, a chained invoke, a stop.

        If a checkpoint is in flight, read after it: its answer may be older than the change.
        """
        if self._checkpoints.is_writing or self._left or not self._has_begun:
            self._looks_again = True
        else:
            self._refresh()

    def wind_down(self) -> None:
        """Start no more steps, and end once the running ones are recorded."""
        self._winds_down = True
        if self._has_begun:
            self._on_facts([LastCall()])

    async def record(self, end: End) -> None:
        """Write the end of the execution, if ``end`` is one."""
        match end:
            case Succeeded():
                await self._write_end(Action.SUCCEED, payload=end.payload)
            case Failed():
                await self._write_end(Action.FAIL, error=end.record)

    async def _write_end(self, action: Action, **fields: Any) -> None:
        execution = self._operations[0]
        update = Update(id=execution.id, type=OperationType.EXECUTION, action=action, **fields)
        await self._checkpoints.commit((update,))

    # -- turns -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._has_begun = True
        self._on_facts([LastCall()] if self._winds_down else [])
        self._look_again_if_asked()
        self._clock.release()

    def _on_outcome(self, outcome: StepReturned | StepRaised | BaseException) -> None:
        """Take the outcome of an attempt; those of one tick of the loop share a checkpoint."""
        if isinstance(outcome, BaseException):
            self._finish(outcome)
            return
        self._outcomes.append(outcome)
        if len(self._outcomes) > 1:
            return
        if self._steps.are_idle and current_task(self._loop) is None:
            self._take_outcomes()
        else:
            self._clock.hold()
            # This may be a body's task: what the body set in its context must end with it.
            self._loop.call_soon(self._on_tick, context=self._context)

    def _on_tick(self) -> None:
        self._take_outcomes()
        self._clock.release()

    def _take_outcomes(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        self._on_facts(outcomes)

    def _on_facts(self, facts: Sequence[Fact]) -> None:
        """Take facts, and advance until there is something to wait for."""
        if self._left:
            facts, self._left = [*self._left, *facts], ()
        if self._end.done():
            self._lose(facts)
            return
        try:
            self._go_on(facts)
        except BaseException as error:  # from a service or a signal handler
            self._finish(error)

    def _lose(self, facts: Sequence[Fact]) -> None:
        """Note which outcomes came too late to be recorded."""
        running = self._execution.attempts.running
        for fact in facts:
            if isinstance(fact, StepReturned | StepRaised) and fact.id in running:
                self._unrecorded += (running[fact.id].name or fact.id,)

    def _refresh(self) -> None:
        """Read what has changed, by a checkpoint without updates."""
        if self._end.done():
            return
        try:
            self._execution.resolve(Refreshing())
            answer = self._write(())
            if answer is not None:
                self._go_on([answer])
        except BaseException as error:
            self._finish(error)

    def _go_on(self, facts: Sequence[Fact]) -> None:
        """Advance while the service and the steps answer at once, for `TURNS` turns at most."""
        execution = self._execution
        execution.clock_ms = self._clock.now_ms()
        for _ in range(TURNS):
            for fact in facts:
                execution.resolve(fact)
            self.is_inside = True
            turn = execution.advance()
            self.is_inside = False
            facts = self._carry_out(turn)
            if not facts:
                return
        self._left = facts
        self._clock.hold()
        self._loop.call_soon(self._go_on_with_left)

    def _go_on_with_left(self) -> None:
        self._on_facts(())
        self._look_again_if_asked()
        self._clock.release()

    def _finish(self, end: End | BaseException) -> None:
        """Resume `run` with ``end``; virtual time stands still until then."""
        if self._end.done():
            return
        self._clock.hold()
        if isinstance(end, BaseException):
            self._end.set_exception(end)
        else:
            self._end.set_result(end)

    def _carry_out(self, turn: Turn) -> list[Fact]:
        """Carry out ``turn``; return the facts known at once: an answer, outcomes of steps."""
        facts: list[Fact] = []
        if turn.end is not None:
            self._finish(name_threads(turn.end, self._execution.loop))
        for operation_id in turn.cancel:
            self._steps.cancel(operation_id)
        if turn.write and (answer := self._write(turn.write)) is not None:
            facts.append(answer)
        if self._end.done():
            return []
        if turn.launch and not self._launch(turn.launch, facts):
            return []
        if turn.lags and self._lag is None and not facts:
            self._lag = self._clock.call_at(self._clock.now_ms() + LAG_MS, self._on_lag)
        if turn.next_due_ms is not None:
            self._look_again_at(turn.next_due_ms)
        return facts

    def _launch(self, calls: Sequence[StepCall], facts: list[Fact]) -> bool:
        """Launch attempts, and add outcomes known at once; return False if it was given up."""
        self._is_launching = True
        if self._is_given_up:
            self._finish(OutOfTime())
            return False
        for call in calls:
            call.begin_ms = self._execution.clock_ms
            if (outcome := self._steps.launch(call)) is not None:
                facts.append(outcome)
                self._execution.clock_ms = outcome.end_ms
        self._is_launching = False
        return True

    def _write(self, updates: tuple[Update, ...]) -> Committed | None:
        """Send a checkpoint; return its answer if it came at once and the run may go on."""
        answer = self._checkpoints.write(updates, self._on_written)
        if answer is None:
            self._clock.hold()
        elif self._checkpoints.is_revoked:
            self._finish(Suspended())
            return None
        return answer

    def _on_written(self, answer: Committed | BaseException) -> None:
        if self._end.done():
            pass
        elif isinstance(answer, BaseException):
            self._finish(answer)
        elif self._checkpoints.is_revoked:
            self._finish(Suspended())
        else:
            self._on_facts([answer])
            self._look_again_if_asked()
        self._clock.release()

    def _look_again_if_asked(self) -> None:
        if self._looks_again and not (self._checkpoints.is_writing or self._left):
            self._looks_again = False
            self.look_again()

    def _on_lag(self) -> None:
        self._lag = None
        self._on_facts([LagElapsed()])

    def _look_again_at(self, due_ms: int) -> None:
        if self._due is not None:
            if self._due[0] == due_ms:
                return
            self._due[1].cancel()
        # The service's clock is behind this one, so it was asked too early: pause.
        when_ms = self._clock.now_ms() + SKEW_MS if due_ms == self._looked_for_ms else due_ms
        self._due = (due_ms, self._clock.call_at(when_ms, self._look_again))

    def _look_again(self) -> None:
        assert self._due is not None, "an alarm that rings was set"
        self._looked_for_ms, self._due = self._due[0], None
        self.look_again()

    def _on_deadline(self) -> None:
        self._finish(OutOfTime(self._execution.pending.next_due_ms()))

    async def _close(self) -> None:
        for alarm in self._last:
            alarm.cancel()
        if self._lag is not None:
            self._lag.cancel()
        if self._due is not None:
            self._due[1].cancel()
        self._unrecorded += (*self._steps.running, *self._execution.outbox.step_outcomes)
        try:  # all three, even if the caller is cancelled during one of them
            await self._steps.close(self.seconds_left())
        finally:
            try:
                await self._checkpoints.close(self.seconds_left())
            finally:
                closed: asyncio.Future[None] = self._loop.create_future()
                self._loop.call_soon(self._close_execution, closed)
                await closed

    def _close_execution(self, closed: asyncio.Future[None]) -> None:
        try:
            self._execution.close()
        except BaseException as error:
            closed.set_exception(error)
        if not closed.done():  # the caller may have been cancelled
            closed.set_result(None)
