"""Running step bodies: async ones on the host's loop, sync ones in threads.

An attempt ends in exactly one fact: what it returned, encoded and decoded again, or what it raised.
A value that can't be stored, or does not come back as the step's result type, is an error of the
attempt: it is raised here, live, and not by each later replay.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pyworkflow._api.body_threads import BODIES, body_threads
from pyworkflow._api.current_step import CurrentStep
from pyworkflow._engine.body_context import body_context, call_in_thread
from pyworkflow._engine.current import running_step
from pyworkflow._engine.exits import is_from_signal, pass_on_signal
from pyworkflow._engine.messages import StepRaised, StepReturned
from pyworkflow._runtime.eager import Starter
from pyworkflow._runtime.forks import PerProcess
from pyworkflow._values import codec
from pyworkflow.duration import format_duration
from pyworkflow.errors import StepTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from contextvars import Context

    from pyworkflow._engine.messages import StepCall
    from pyworkflow._runtime.clock import Clock

    Outcome = StepReturned | StepRaised
    Report = Callable[[Outcome | BaseException], None]

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.steps")

_threads: Executor = body_threads

_overdue: PerProcess[set[_Attempt]] = PerProcess(set)
"""Attempts in threads that exceeded their timeout and whose bodies are still running."""


class StepRunner:
    """Runs the attempts of one invocation and reports each one's outcome.

    `launch` returns the outcome of an attempt that does not have to wait. Any other is passed to
    ``report``, which is called on the host's loop, in the task of an async body. An exception that
    a signal handler raised in a body is passed to ``report`` as well, or raised by `launch`.
    """

    def __init__(self, execution_id: str, clock: Clock, report: Report) -> None:
        self._execution_id = execution_id
        self._clock = clock
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._starter = Starter.of(self._loop)
        self._running: dict[str, _Attempt] = {}
        self._leaving: list[asyncio.Task[Any]] = []

    def launch(self, call: StepCall) -> Outcome | None:
        """Start an attempt; return its outcome if it is over already."""
        if call.settings.is_async:
            return self.launch_async(call)
        if call.settings.inline:
            return body_context(call.context).run(self.run_sync, call)
        attempt = self._begin(call)
        if call.settings.timeout_seconds is None:
            future = self.in_thread(self._run_begun, call, body_context(call.context))
        else:
            future = self.in_thread(self._run_timed, attempt, body_context(call.context))
        attempt.thread = future
        future.add_done_callback(partial(self._on_sync_done, attempt))
        return None

    def in_thread(
        self, run: Callable[[T], Outcome], what: T, context: Context
    ) -> asyncio.Future[Outcome]:
        """Run a sync body by ``run(what)`` in ``context``, in a thread, once one is free."""
        return self._loop.run_in_executor(_threads, context.run, call_in_thread, run, what)

    def _run_begun(self, call: StepCall) -> Outcome:
        # Waiting for a thread is not part of the body's time.
        call.begin_ms = self._clock.now_ms()
        return self.run_sync(call)

    def _run_timed(self, attempt: _Attempt) -> Outcome:
        self._loop.call_soon_threadsafe(self._set_alarm, attempt)
        try:
            return self._run_begun(attempt.call)
        finally:
            attempt.is_over = True
            _overdue.value.discard(attempt)

    def _set_alarm(self, attempt: _Attempt) -> None:
        seconds = attempt.call.settings.timeout_seconds
        if seconds is not None and self._running.get(attempt.call.id) is attempt:
            attempt.alarm = self._loop.call_later(seconds, self._on_sync_timeout, attempt)

    def launch_async(self, call: StepCall) -> Outcome | None:
        """Start an attempt on the host's loop, as a task if it has to wait."""
        attempt = self._begin(call)
        try:
            begun = self._starter.begin(
                self._loop,
                self.run_async(call),
                partial(self._on_async_end, attempt),
                body_context(call.context),
            )
        except BaseException as error:
            pass_on_signal(error)
            outcome: Outcome = self.raised(call, _as_own(call, error))
        else:
            if isinstance(begun, asyncio.Task):
                attempt.task = begun
                return None
            outcome = begun
        del self._running[call.id]
        self.release_clock(attempt)
        return outcome

    def _begin(self, call: StepCall) -> _Attempt:
        attempt = _Attempt(call)
        self._running[call.id] = attempt
        self.hold_clock(attempt)
        return attempt

    def hold_clock(self, attempt: _Attempt) -> None:
        """Stop virtual time, and the skipping of time, while a body runs."""
        attempt.holds = True
        self._clock.enter_body()

    def release_clock(self, attempt: _Attempt) -> None:
        """Undo `hold_clock`."""
        if attempt.holds:
            attempt.holds = False
            self._clock.leave_body()

    def cancel(self, operation_id: str) -> None:
        """Cancel the running attempt of a step; a sync body is abandoned."""
        attempt = self._running.pop(operation_id, None)
        if attempt is not None:
            self._let_go(attempt)
            if attempt.task is not None:
                attempt.task.cancel()
                self._leaving.append(attempt.task)

    @property
    def are_idle(self) -> bool:
        """Whether no attempt runs."""
        return not self._running

    @property
    def running(self) -> tuple[str, ...]:
        """The names of steps with a running attempt. Safe on any thread."""
        return tuple(attempt.call.name for attempt in list(self._running.values()))

    async def close(self, seconds: float | None = None) -> None:
        """Cancel running attempts; wait for async bodies to end, for ``seconds`` at most."""
        for operation_id in list(self._running):
            self.cancel(operation_id)
        if not self._leaving:
            return
        _, left = await asyncio.wait(self._leaving, timeout=seconds)
        if left:
            logger.warning(
                "the invocation's time is over, but %d cancelled steps of execution %r are still "
                "cleaning up: they are abandoned, and run again in the next invocation",
                len(left),
                self._execution_id,
            )

    # -- bodies; a test double overrides these ---------------------------------------------------

    async def run_async(self, call: StepCall) -> Outcome:
        """Run an async body to its outcome."""
        running_step.set(CurrentStep.of(call, self._execution_id))
        try:
            _ = call.settings.result_type  # an unusable one raises before the body runs
            if call.settings.timeout_seconds is None:
                value = await call.function(*call.args, **call.kwargs)
            else:
                value = await _within_timeout(call, call.settings.timeout_seconds)
            return self.returned(call, value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            return self.failed(call, error)

    def run_sync(self, call: StepCall) -> Outcome:
        """Run a sync body to its outcome, in whatever thread this is."""
        running_step.set(CurrentStep.of(call, self._execution_id))
        try:
            _ = call.settings.result_type
            return self.returned(call, call.function(*call.args, **call.kwargs))
        except BaseException as error:
            return self.failed(call, error)

    def returned(self, call: StepCall, value: Any) -> StepReturned:
        """Return the fact of an attempt that returned ``value``; raises `SerializationError`."""
        payload, decoded = codec.roundtrip(value, call.settings.result_type, what=call)
        return StepReturned(call.id, call.attempt, payload, decoded, self._clock.now_ms())

    def failed(self, call: StepCall, error: BaseException) -> StepRaised:
        """Return the fact of an attempt whose body raised ``error``, if it was the body's own.

        An exception of a signal handler is raised again: it ends the run.
        """
        pass_on_signal(error)
        return self.raised(call, error)

    def raised(self, call: StepCall, error: BaseException) -> StepRaised:
        """Return the fact of an attempt that raised ``error``."""
        return StepRaised(call.id, call.attempt, error, self._clock.now_ms())

    # -- ends ------------------------------------------------------------------------------------

    def _on_async_end(self, attempt: _Attempt, end: Outcome | BaseException) -> None:
        if isinstance(end, BaseException):
            if is_from_signal(end):
                self._report(end)
                return
            end = self.raised(attempt.call, _as_own(attempt.call, end))
        self._end(attempt, end)

    def _on_sync_done(self, attempt: _Attempt, future: asyncio.Future[Outcome]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        # No signal reaches this thread, so whatever it raised is the body's own.
        self._end(attempt, self.raised(attempt.call, error) if error else future.result())

    def _on_sync_timeout(self, attempt: _Attempt) -> None:
        call = attempt.call
        _keep_overdue(attempt)
        self._end(attempt, self.raised(call, timeout_error(call)))

    def _end(self, attempt: _Attempt, outcome: Outcome) -> None:
        if self._running.get(attempt.call.id) is attempt:
            del self._running[attempt.call.id]
            self._report(outcome)
            self._let_go(attempt)

    def _let_go(self, attempt: _Attempt) -> None:
        if attempt.alarm is not None:
            attempt.alarm.cancel()
        if attempt.thread is not None:
            attempt.thread.cancel()  # a body without a thread never begins
        self.release_clock(attempt)


class _Attempt(msgspec.Struct, eq=False):
    """An attempt that is running."""

    call: StepCall
    task: asyncio.Task[Any] | None = None
    thread: asyncio.Future[Outcome] | None = None
    alarm: asyncio.TimerHandle | None = None
    holds: bool = False
    is_over: bool = False
    """Whether a body with a timeout has left its thread."""


def _keep_overdue(attempt: _Attempt) -> None:
    _overdue.value.add(attempt)
    if attempt.is_over:  # it ended in its thread meanwhile
        _overdue.value.discard(attempt)
    elif len(_overdue.value) == BODIES:
        logger.warning(
            "all %d threads for sync steps are occupied by bodies that exceeded their timeouts, "
            "the last one by step %r: no other sync step begins in this process until one of them "
            "returns. Set a timeout on what they wait for",
            BODIES,
            attempt.call.name,
        )


def _as_own(call: StepCall, error: BaseException) -> BaseException:
    """Return the error of a body that the runner did not cancel."""
    if isinstance(error, asyncio.CancelledError):
        return asyncio.CancelledError(f"step {call.name!r} cancelled itself")
    return error


async def _within_timeout(call: StepCall, seconds: float) -> Any:
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await call.function(*call.args, **call.kwargs)
    except TimeoutError as error:
        if scope.expired():
            raise timeout_error(call) from error
        raise


def timeout_error(call: StepCall) -> StepTimeoutError:
    """Return the error of an attempt that took longer than its timeout."""
    limit = format_duration(call.settings.timeout_seconds or 0)
    return StepTimeoutError(
        f"step {call.name!r} took longer than its timeout of {limit} (attempt {call.attempt})"
    )
