"""Running code as a child context: inline in the task that calls it, in a namespace of its own.

What the code leaves behind ends with it: its tasks are cancelled and awaited before its outcome is
recorded, and what they still had open is abandoned.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyworkflow._engine.exits import pass_on_signal
from pyworkflow._engine.tasks import call_plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.ops.child import ChildOp


async def run_child(
    execution: Execution, op: ChildOp, function: Callable[[], Awaitable[Any]]
) -> Any:
    """Run ``function`` as the child context ``op``; return its value or raise its error.

    A recorded outcome is given without running it.
    """
    execution.issue(op)
    return await run_issued(execution, op, function)


async def run_issued(
    execution: Execution, op: ChildOp, function: Callable[[], Awaitable[Any]]
) -> Any:
    """Do what `run_child` does, for an operation that was issued already."""
    child = _Child(execution, op)
    try:
        if child.begins():
            try:
                value: Any = await function()
            except BaseException as error:
                child.pass_on(error)
                for ends in child.leftovers():
                    await ends
                if child.was_cancelled_by(error):
                    raise
                child.fail(error)
            else:
                for ends in child.leftovers():
                    await ends
                child.succeed(value)
        return await op.outcome()
    finally:
        child.ends()


def run_child_blocking(execution: Execution, op: ChildOp, function: Callable[[], Any]) -> Any:
    """Do what `run_child` does, for code that blocks."""
    child = _Child(execution, op)
    execution.issue(op)
    try:
        if child.begins():
            try:
                value = call_plain(function)
            except BaseException as error:
                child.pass_on(error)
                for ends in child.leftovers():
                    execution.bridge.wait(ends)
                if child.was_cancelled_by(error):
                    raise
                child.fail(error)
            else:
                for ends in child.leftovers():
                    execution.bridge.wait(ends)
                child.succeed(value)
        return execution.wait(op)
    finally:
        child.ends()


class _Child:
    """One run of a child context's code."""

    def __init__(self, execution: Execution, op: ChildOp) -> None:
        self._op = op
        self._execution = execution
        self._task = execution.bridge.blocking_task()
        self._outer = self._task.namespace
        self._is_inside = False
        self._cancelling = self._task.cancelling()

    def begins(self) -> bool:
        """Return whether the code has to run; enter the namespace then."""
        if self._execution.is_broken or self._op.ended:
            return False
        self._execution.contexts.enter(self._op, self._task)
        if self._task.is_cancel_due:
            self._op.namespace.scope.is_disturbed = True
        self._is_inside = True
        return True

    def pass_on(self, error: BaseException) -> None:
        """Raise ``error`` if the code did not fail with it, but was unwound or interrupted."""
        pass_on_signal(error)
        is_exit = not isinstance(error, Exception)
        if isinstance(error, GeneratorExit) or (is_exit and self._execution.is_closing):
            raise error

    def was_cancelled_by(self, error: BaseException) -> bool:
        """Whether ``error`` is the end of a cancellation that the task was asked for.

        One that the code raised by itself, or that came out of what it awaited, is its failure.
        """
        return isinstance(error, asyncio.CancelledError) and (
            self._op.namespace.scope.is_disturbed or self._task.cancelling() > self._cancelling
        )

    def leftovers(self) -> Iterator[asyncio.Future[Any]]:
        """Cancel the tasks that the code left behind and yield their ends, until none is left."""
        while left := [task for task in self._op.namespace.scope.tasks if not task.done()]:
            for task in left:
                task.cancel()
            yield asyncio.gather(*left, return_exceptions=True)

    def succeed(self, value: Any) -> None:
        """Record the code's value; one that can't be stored is the child's failure.

        So is a call that the code did not await.
        """
        op = self._op
        scope = op.namespace.scope
        try:
            scope.calls.check(scope)
            self.ends()
            payload, value = op.encode(value)
        except Exception as error:
            self.fail(error)
        else:
            op.succeed(payload, value)

    def fail(self, error: BaseException) -> None:
        """Record what the code raised."""
        self.ends()
        self._op.fail(error)

    def ends(self) -> None:
        """Come back to the namespace around."""
        if self._is_inside:
            self._is_inside = False
            if not self._op.namespace.scope.is_disturbed:
                # What the code did to its task, as TaskGroup does up to 3.12, no replay repeats.
                while self._task.cancelling() > self._cancelling:
                    self._task.uncancel()
            self._execution.leave(self._op, self._task, self._outer)
