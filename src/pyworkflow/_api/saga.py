"""`ctx.saga`: what was done is undone, in reverse order, when the block around it fails.

A compensation is a step: recorded, retried, never run again once it succeeded. The block fails by
an exception or by the cancellation of its task, and by nothing else: a run that is suspended or
disposed of has not failed. Whatever a compensation does, the others run, and the block's own error
is never lost. A cancellation that comes meanwhile waits until all of them are over.
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
        """Have ``compensation(*args, **kwargs)`` run if the block fails from here on.

        It is a step, or a plain function, sync or async, which then runs as one: with its name, the
        default retries, and no result. Add it when there is something to undo; or before, if it
        does no harm where there is nothing.

        Raises `UsageError` outside of the saga's block, and for what can't run as a step.
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
        while self._compensations:  # a task that still runs may add some
            name, start = self._compensations.pop()
            try:
                future = start()
                cancelled = self._wait_for(future) or cancelled
                future.result()
            except Exception as error:
                failures.append((name, error))
        if failures:
            self._tell(reason, failures, is_cancelled=cancelled is not None)
        if cancelled is not None:
            raise cancelled

    def _tell(
        self, reason: BaseException, failures: list[tuple[str, Exception]], *, is_cancelled: bool
    ) -> None:
        message = (
            f"the saga's block ended with {type(reason).__name__}, and what should have undone it "
            f"failed, too: {', '.join(name for name, _ in failures)}"
        )
        if isinstance(reason, Exception) and not is_cancelled:
            raise SagaError(message, [reason, *(error for _, error in failures)])
        # A cancellation goes on as what it is, so it can be told nowhere else.
        for _, error in failures:
            self._execution.report({"message": message, "exception": error})

    def _wait_for(self, future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
        """Block until ``future`` is done; return a cancellation that came meanwhile."""
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
            "runs as one step. Add the steps that it consists of, each on its own"
        )
    if not callable(compensation):
        raise UsageError(
            f"saga.add() takes a step or a function, and its arguments; it got {compensation!r}. "
            "Give the function itself, not its call: saga.add(refund, payment)"
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
