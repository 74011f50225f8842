"""Running code as a child context: inline in the task that calls it, in a namespace of its own.

Tasks that the code leaves behind end with it: they are cancelled and awaited before its outcome is
recorded, and their open operations are abandoned.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from pyworkflow._api.callables import code_of, drop
from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.exits import pass_on_signal
from pyworkflow._engine.loop.tasks import call_plain
from pyworkflow._engine.ops.child import ChildOp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from pyworkflow._engine.execution import Execution


async def run_child(
    execution: Execution, op: ChildOp, function: Callable[[], Awaitable[Any]]
) -> Any:
    """Run ``function`` as the child context ``op``; return its value or raise its error.

    A recorded outcome is returned without running it.
    """
    execution.issue(op)
    return await run_issued(execution, op, function)


async def run_issued(
    execution: Execution, op: ChildOp, function: Callable[[], Awaitable[Any]]
) -> Any:
    """As `run_child`, for an operation that was already issued."""
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
    """As `run_child`, for code that blocks."""
    child = _Child(execution, op)
    execution.issue(op)
    try:
        if child.begins():
            try:
                value = call_plain(function)
            except BaseException as error:
                child.pass_on(error)
                for ends in child.leftovers():
                    execution.greenlets.wait(ends)
                if child.was_cancelled_by(error):
                    raise
                child.fail(error)
            else:
                for ends in child.leftovers():
                    execution.greenlets.wait(ends)
                child.succeed(value)
        return execution.wait(op)
    finally:
        child.ends()


class _Child:
    """A run of a child context's code."""

    def __init__(self, execution: Execution, op: ChildOp) -> None:
        self._op = op
        self._execution = execution
        self._task = execution.greenlets.blocking_task()
        self._outer = self._task.namespace
        self._is_inside = False
        self._cancelling = self._task.cancelling()

    def begins(self) -> bool:
        """Return whether the code has to run; if so, enter the namespace."""
        if self._execution.is_broken or self._op.ended:
            return False
        self._execution.open_scopes.enter(self._op, self._task)
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
        """Record the code's value.

        A value that can't be stored fails the child, as does a call that was never awaited.
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
        """Record the code's error."""
        self.ends()
        self._op.fail(error)

    def ends(self) -> None:
        """Return to the enclosing namespace."""
        if self._is_inside:
            self._is_inside = False
            if not self._op.namespace.scope.is_disturbed:
                # Replay does not repeat cancellations of the task, such as TaskGroup's up to 3.12.
                while self._task.cancelling() > self._cancelling:
                    self._task.uncancel()
            self._execution.leave(self._op, self._task, self._outer)


class ChildCall:
    """A checked call of ``ctx.child``."""

    def __init__(
        self, target: Any, args: tuple[Any, ...], name: str | None, key: str | None
    ) -> None:
        try:
            self._code = code_of(target, "ctx.child()", *args)
            self._name = self._code.name if name is None else name
            if self._name is not None:
                check_name(self._name, "ctx.child()")
            self._key = None if key is None else check_key(key, "ctx.child()")
        except BaseException:
            drop([target])
            raise

    def _op(self, execution: Execution) -> ChildOp:
        op = ChildOp(execution, self._name, self._key, self._code.result_type)
        op.source = self._code.source
        return op

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that runs the code."""
        coroutine = self._run(execution)
        what = f"ctx.child() of {self._name or 'code without a name'}"
        execution.open_scopes.calls().expect(coroutine, what)
        return coroutine

    async def _run(self, execution: Execution) -> Any:
        try:
            return await run_child(execution, self._op(execution), self._code.run)
        finally:
            self._code.close()

    def blocking(self, execution: Execution) -> Any:
        """Run the code; block until its outcome is recorded."""

        def inside() -> Any:
            value = self._code.call()
            if not inspect.isawaitable(value):
                return value
            # A task of the engine takes no number.
            task = execution.loop.make_task(_await(value), op.namespace, name=f"child {self._name}")
            return execution.greenlets.wait(task)

        try:
            op = self._op(execution)
            return run_child_blocking(execution, op, inside)
        finally:
            self._code.close()


async def _await(value: Any) -> Any:
    return await value
