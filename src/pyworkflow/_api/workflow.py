"""`@workflow`: plain code that survives crashes, restarts and month-long waits.

The decorated function keeps its type. Outside of an execution it is the plain function; called
inside one it is a child context: its code has a namespace of its own, and once its outcome is
recorded it never runs again.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from pyworkflow._api.binding import InputBinder
from pyworkflow._api.context import BaseContext, SyncWorkflowContext, WorkflowContext
from pyworkflow._api.naming import check_key, check_name
from pyworkflow._engine import codec
from pyworkflow._engine.annotations import return_annotation
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._engine.scope import current_execution
from pyworkflow._engine.tasks import Task, current_task
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.execution import Execution

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A function with `@workflow`. Call it as the function that it is."""

    def __init__(self, function: Callable[P, R], name: str, key: str | None = None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._key = key
        self.name = name
        self.is_async = inspect.iscoroutinefunction(function)
        # `inspect.iscoroutinefunction` takes an object with a function's attributes for one.
        plain: Any = getattr(function, "__func__", function)
        self.__code__ = plain.__code__
        self.__defaults__ = plain.__defaults__
        self.__kwdefaults__ = plain.__kwdefaults__

    # -- what an author calls --------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run as a child context; outside of an execution, call the plain function."""
        execution = current_execution()
        if execution is None:
            return self._function(*args, **kwargs)
        self._check_context(args)
        if not self.is_async:
            return self._run_blocking(execution, args, kwargs)  # type: ignore[no-any-return]
        ticket = execution.take_ticket()
        coroutine: Any = self._run(execution, ticket, args, kwargs)
        execution.expect_call(ticket, coroutine, self.name)
        return coroutine  # type: ignore[no-any-return] # R is its type: the function is async

    def options(self, *, name: str | None = None, key: str | None = None) -> Workflow[P, R]:
        """Return the same workflow, as a child context with another name, or with a key."""
        if key is not None:
            check_key(key, f"workflow {self.name!r}")
        if name is not None:
            check_name(name, f"workflow {self.name!r}")
        return Workflow(self._function, name or self.name, key or self._key)

    def __get__(self, instance: Any, owner: type | None = None) -> Workflow[..., R]:
        """Bind a method to its instance."""
        if instance is None:
            return self
        function: Any = self._function
        return Workflow(function.__get__(instance, owner), self.name, self._key)

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"

    # -- what a runner calls ---------------------------------------------------------------------

    @functools.cached_property
    def binder(self) -> InputBinder:
        """How inputs become arguments."""
        return InputBinder(self._function, self.name)

    @functools.cached_property
    def result_type(self) -> object:
        """The evaluated return annotation, to which the result is converted."""
        return return_annotation(self._function)

    def bind(self, payload: str | None, execution: Execution) -> Callable[[], Any]:
        """Return the call of this workflow with a recorded input; raises `InputError`."""
        args, kwargs = self.binder.bind(payload)
        if self.binder.takes_context:
            context = WorkflowContext if self.is_async else SyncWorkflowContext
            args.insert(0, context(execution))
        return functools.partial(self._function, *args, **kwargs)

    # -- as a child context ----------------------------------------------------------------------

    def _check_context(self, args: tuple[Any, ...]) -> None:
        if self.binder.takes_context and not (args and isinstance(args[0], BaseContext)):
            raise UsageError(
                f"workflow {self.name!r} takes ctx as its first parameter: pass yours on, "
                f"{self.name}(ctx, ...)"
            )

    async def _run(
        self, execution: Execution, ticket: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        execution.call_awaited(ticket)
        child = _Child(execution, self)
        try:
            if child.begins():
                try:
                    value: Any = await self._function(*args, **kwargs)  # type: ignore[misc]
                except Exception as error:
                    await child.settled()
                    child.fail(error)
                else:
                    await child.settled()
                    child.succeed(value)
            return await child.op.future
        except asyncio.CancelledError:
            execution.abandon_if_cancelled(child.op)
            raise
        finally:
            child.ends()

    def _run_blocking(
        self, execution: Execution, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        child = _Child(execution, self)
        try:
            if child.begins():
                try:
                    value = self._function(*args, **kwargs)
                except Exception as error:
                    execution.bridge.wait(child.settled())
                    child.fail(error)
                else:
                    execution.bridge.wait(child.settled())
                    child.succeed(value)
            return execution.wait(child.op)
        finally:
            child.ends()


class _Child:
    """One run of a child context's code, inline in the task that called it."""

    def __init__(self, execution: Execution, workflow: Workflow[..., Any]) -> None:
        self.op = ChildOp(execution, workflow.name, workflow._key, workflow.result_type)
        self._execution = execution
        self._workflow = workflow
        self._task: Task[Any] = current_task()  # type: ignore[assignment]
        self._outer = self._task.namespace
        self._is_inside = False

    def begins(self) -> bool:
        """Issue the operation; return whether its code has to run."""
        self._execution.issue(self.op)
        if self.op.is_recorded or self._execution.is_broken:
            return False
        self._execution.enter(self.op, self._task)
        self._is_inside = True
        return True

    def settled(self) -> asyncio.Future[Any]:
        """Cancel the tasks that the code left behind; return the future of their ends."""
        left = [task for task in self.op.namespace.scope.tasks if not task.done()]
        for task in left:
            task.cancel()
        return asyncio.gather(*left, return_exceptions=True)

    def succeed(self, value: Any) -> None:
        """Record the code's value; one that can't be stored is the child's failure."""
        self.ends()
        try:
            payload, value = codec.roundtrip(
                value, self._workflow.result_type, what=f"the result of {self._workflow.name!r}"
            )
        except Exception as error:
            self.op.fail(error)
        else:
            self.op.succeed(payload, value)

    def fail(self, error: Exception) -> None:
        """Record what the code raised."""
        self.ends()
        self.op.fail(error)

    def ends(self) -> None:
        """Come back to the namespace around."""
        if self._is_inside:
            self._is_inside = False
            self._execution.leave(self.op, self._task, self._outer)


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(*, name: str | None = None) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...


def workflow(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a durable workflow; use it bare or with options.

    The first parameter is given the context if it is named ``ctx`` or annotated `WorkflowContext`
    or `SyncWorkflowContext`; the others come from the input.

    Args:
        name: the workflow's name, 1 to 256 printable ASCII characters; default: the function's.

    Raises:
        UsageError: the function can't be a workflow.
    """

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
            raise UsageError(f"@workflow takes a def or async def function, not {function!r}")
        if inspect.isasyncgenfunction(function):
            raise UsageError(f"{function.__qualname__}: a workflow returns one value, not a stream")
        made: Workflow[Any, Any] = Workflow(
            function,
            check_name(
                function.__name__ if name is None else name, f"workflow {function.__qualname__}"
            ),
        )
        made.binder  # noqa: B018 - an unusable signature is told where it is written
        return made

    return decorate if function is None else decorate(function)
