"""`@workflow`: plain code that survives crashes, restarts and month-long waits.

The decorated function keeps its type. Outside of an execution it is the plain function; called
inside one it is a child context: its code has a namespace of its own, and once its outcome is
recorded it never runs again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from pyworkflow._api.base_context import BaseContext
from pyworkflow._api.callables import Described, check_function, default_name, is_async, take_for
from pyworkflow._api.child import run_child, run_child_blocking
from pyworkflow._api.context import WorkflowContext
from pyworkflow._api.input_binding import InputBinder
from pyworkflow._api.names import check_key, check_name
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow._engine.arguments import Checked, Limits, limits_of
from pyworkflow._engine.current import current_execution
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._values.annotations import return_annotation
from pyworkflow._values.constraints import check_signature
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from pyworkflow._api.callables import OfClass
    from pyworkflow._engine.execution import Execution

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
C = TypeVar("C", bound=type[Any])


class Workflow(Described, Generic[P, R_co]):
    """A function with `@workflow`. Call it like the function."""

    def __init__(
        self,
        function: Callable[P, R_co],
        name: str,
        key: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        take_for(self, function)
        self._function = function
        self._key = key
        self._limits = limits
        self.name = name
        self.is_async = is_async(function)

    # -- what an author calls --------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run as a child context; outside of an execution, call the plain function."""
        execution = current_execution()
        if execution is None:
            return self._function(*args, **kwargs)
        if self.binder.takes_context:
            args, kwargs = self._with_context(args, kwargs)  # type: ignore[assignment] # as given
        if not self.is_async:
            return self._run_blocking(execution, args, kwargs)  # type: ignore[no-any-return]
        coroutine: Any = self._run(execution, args, kwargs)
        execution.open_scopes.calls().expect(coroutine, self.name)
        return coroutine  # type: ignore[no-any-return] # R_co is its type: the function is async

    def options(self, *, name: str | None = None, key: str | None = None) -> Workflow[P, R_co]:
        """Return the same workflow, as a child context with another name, or with a key."""
        if key is not None:
            check_key(key, f"workflow {self.name!r}")
        if name is not None:
            check_name(name, f"workflow {self.name!r}")
        return Workflow(self._function, name or self.name, key or self._key, self._limits)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Workflow[P, R_co]: ...

    @overload
    def __get__(
        self: Workflow[Concatenate[S, Q], R_co], instance: S, owner: type | None = None
    ) -> Workflow[Q, R_co]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Workflow[Any, Any]:
        """Bind a method to its instance."""
        if instance is None:
            return self
        function: Any = self._function
        return Workflow(function.__get__(instance, owner), self.name, self._key, self._limits)

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"

    # -- what a runner calls ---------------------------------------------------------------------

    @property
    def function(self) -> Callable[P, R_co]:
        """The plain function."""
        return self._function

    @functools.cached_property
    def binder(self) -> InputBinder:
        """How inputs become arguments."""
        return InputBinder(self._function, self.name, self._limits)

    @functools.cached_property
    def result_type(self) -> object:
        """The evaluated return annotation, to which the result is converted."""
        return return_annotation(self._function)

    def bind(
        self, payload: str | None, execution: Execution, *, was_accepted: bool = False
    ) -> Callable[[], Any]:
        """Return the call of this workflow with a recorded input; raises `InputError`.

        ``was_accepted``: an earlier invocation of the execution began with it.
        """
        _ = self.result_type  # an unusable one is reported before the code runs
        args, kwargs = self.binder.bind(payload, was_accepted=was_accepted)
        if self.binder.takes_context:
            args.insert(0, self._context_kind(execution))
        return functools.partial(self._function, *args, **kwargs)

    @property
    def _context_kind(self) -> type[WorkflowContext | SyncWorkflowContext]:
        return WorkflowContext if self.is_async else SyncWorkflowContext

    def describe(self) -> tuple[str, object]:
        """Return the operation's name and the type that its result is converted to."""
        return self.name, self.result_type

    # -- as a child context ----------------------------------------------------------------------

    def _with_context(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with a ctx of this workflow's kind in place of the caller's."""
        name = self.binder.context_name
        given = args[0] if args else kwargs.get(name)
        if not isinstance(given, BaseContext):
            raise UsageError(
                f"workflow {self.name!r} takes ctx as its first parameter: pass yours, "
                f"{self.name}(ctx, ...)"
            )
        if isinstance(given, self._context_kind):
            return args, kwargs
        own = self._context_kind(given._execution)
        return ((own, *args[1:]), kwargs) if args else (args, {**kwargs, name: own})

    async def _run(
        self, execution: Execution, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        op = self._child(execution, args, kwargs)
        function: Any = functools.partial(self._code_of(op), *args, **kwargs)
        return await run_child(execution, op, function)

    def _run_blocking(
        self, execution: Execution, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        op = self._child(execution, args, kwargs)
        function = functools.partial(self._code_of(op), *args, **kwargs)
        return run_child_blocking(execution, op, function)

    def _child(
        self, execution: Execution, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ChildOp:
        op = ChildOp(execution, self.name, self._key, self.result_type)
        op.source = self._function
        op.asked_for = {"arguments": (*args, *kwargs.values())}
        return op

    def _code_of(self, op: ChildOp) -> Callable[..., Any]:
        """Return what to run; the arguments of a call that has no record yet are judged first."""
        if self._limits is None or op.execution.journal.knows(op.id):
            return self._function
        return Checked(self._function, self._limits, f"workflow {self.name!r}")


class EntryPoint(Generic[P, R_co]):
    """An object that a platform calls in place of a workflow, and that stands for it elsewhere."""

    workflow: Workflow[P, R_co]


if TYPE_CHECKING:

    class ClassWorkflow(Workflow[Concatenate[C, Q], R_co], Generic[C, Q, R_co]):
        """A workflow below `classmethod`, for type checkers: taken from a class, it is bound."""

        @overload  # type: ignore[override] # a class is not an instance
        def __get__(self, instance: None, owner: C) -> Workflow[Q, R_co]: ...

        @overload
        def __get__(self, instance: Any, owner: C | None = None) -> Workflow[Q, R_co]: ...

        def __get__(self, instance: Any, owner: Any = None) -> Workflow[Any, Any]: ...

    class WorkflowDecorator(Protocol):
        """`workflow` with options: makes a function a workflow."""

        @overload
        def __call__(self, function: OfClass[C, Q, R], /) -> ClassWorkflow[C, Q, R]: ...

        @overload
        def __call__(self, function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(function: OfClass[C, Q, R], /) -> ClassWorkflow[C, Q, R]: ...


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(*, name: str | None = None) -> WorkflowDecorator: ...


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
        check_function(function, "@workflow")
        given = default_name(function, "workflow") if name is None else name
        made: Workflow[Any, Any] = Workflow(
            function, check_name(given, f"workflow {function.__qualname__}")
        )
        made._limits = limits_of(function, f"workflow {made.name!r}")
        made.binder  # noqa: B018 - an unusable signature is reported where it is written
        check_signature(function, f"workflow {made.name!r}")
        return made

    return decorate if function is None else decorate(function)
