"""`ctx.saga`: compensations that run in reverse order when the block fails.

A compensation is a step: recorded, retried, never run again once it succeeded. The block fails only
by an exception or by the cancellation of its task: a run that is suspended or disposed of has not
failed. If a compensation fails, the others still run, and the block's own error is never lost. A
cancellation that arrives meanwhile takes effect when all of them are over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ParamSpec, Self

from pyworkflow._api.callables import Described, name_of, without_result
from pyworkflow._api.names import check_name
from pyworkflow._api.step import Step, StepOptions
from pyworkflow._engine.exits import is_from_signal
from pyworkflow._values.annotations import Returned
from pyworkflow.errors import SagaError, UsageError
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pyworkflow._engine.execution import Execution

P = ParamSpec("P")


class Saga:
    """Compensations that run in reverse order if the block fails."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._compensations: list[tuple[str, Callable[[], asyncio.Future[Any]]]] = []
        self._is_open = False

    def add(self, compensation: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run ``compensation(*args, **kwargs)`` if the block fails from here on.

        It is a step, or a plain function, sync or async, which then runs as a step: with its name,
        the default retries, and no result. Add it when there is something to undo; or before, if it
        is harmless when there is nothing.

        Raises `UsageError` outside of the saga's block, and for an object that can't be a step.
        """
        step = _step_of(compensation)
        if not self._is_open:
            raise UsageError(
                f"saga.add({step.name}) was called outside of the saga's block, where it would "
                "never run. Call it within `with ctx.saga() as saga:`; tasks that add to it must "
                "end before the block does (asyncio.TaskGroup sees to that)"
            )
        self._compensations.append((step.name, lambda: step.submit(*args, **kwargs)))

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None and self._is_failure(error):
                self._undo(error)
        finally:
            self._is_open = False
            self._compensations.clear()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    # -- when the block has failed ---------------------------------------------------------------

    def _is_failure(self, error: BaseException) -> bool:
        # Not failures: the block's generator was closed, or a signal ends the process.
        return not (
            self._execution.is_closing or isinstance(error, GeneratorExit) or is_from_signal(error)
        )

    def _undo(self, reason: BaseException) -> None:
        failures: list[tuple[str, Exception]] = []
        cancelled: asyncio.CancelledError | None = None
        while self._compensations:  # a task that still runs may add more
            name, start = self._compensations.pop()
            try:
                future = start()
                cancelled = self._wait_for(future) or cancelled
                future.result()
            except Exception as error:
                failures.append((name, error))
        if failures:
            self._raise_or_report(reason, failures, is_cancelled=cancelled is not None)
        if cancelled is not None:
            raise cancelled

    def _raise_or_report(
        self, reason: BaseException, failures: list[tuple[str, Exception]], *, is_cancelled: bool
    ) -> None:
        message = (
            f"the saga's block ended with {type(reason).__name__}, and these compensations failed: "
            f"{', '.join(name for name, _ in failures)}"
        )
        if isinstance(reason, Exception) and not is_cancelled:
            raise SagaError(message, [reason, *(error for _, error in failures)])
        # A cancellation stays a cancellation, so the failures are reported to the loop's handler.
        for _, error in failures:
            self._execution.report({"message": message, "exception": error})

    def _wait_for(self, future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
        """Block until ``future`` is done; return a cancellation that arrived meanwhile."""
        cancelled = None
        while not future.done():
            gate: asyncio.Future[None] = self._execution.loop.create_future()

            def ring(_: object, gate: asyncio.Future[None] = gate) -> None:
                if not gate.done():
                    gate.set_result(None)

            future.add_done_callback(ring)
            try:
                self._execution.greenlets.wait(gate)
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled


def _step_of(compensation: Callable[..., Any]) -> Step[..., Any]:
    if isinstance(compensation, Step):
        return compensation
    if isinstance(compensation, Described):
        raise UsageError(
            f"saga.add() takes a step or a plain function, not {compensation!r}: a compensation "
            "runs as one step. Add the steps that it consists of, one by one"
        )
    if not callable(compensation):
        raise UsageError(
            f"saga.add() takes a step or a function, and its arguments; it got {compensation!r}. "
            "Pass the function itself, not its call: saga.add(refund, payment)"
        )
    name = name_of(getattr(compensation, "func", compensation)) or "compensation"
    compensate = without_result(compensation)
    settings = StepOptions(
        check_name(name, "a compensation"),
        compensate,
        Returned(compensate),
        Retry(),
        is_async=True,
    )
    return Step(compensate, settings)
