"""`@step`: a function whose outcome is recorded; once it is, the function never runs again.

The decorated function keeps its type. Outside of a workflow it is the plain function; inside, a
sync step blocks until its value is there, and an async step returns a lazy coroutine.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec
from msgspec.structs import replace

from pyworkflow._api.callables import (
    Described,
    check_bound,
    check_function,
    default_name,
    is_async,
    take_for,
)
from pyworkflow._api.names import check_key, check_name
from pyworkflow._api.step_future import StepFuture
from pyworkflow._engine.arguments import Checked, Limits, limits_of
from pyworkflow._engine.current import current_execution, require_execution
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._engine.replay_fast_path import recall_step
from pyworkflow._values.annotations import Returned
from pyworkflow._values.codec import decoder_for
from pyworkflow._values.constraints import check_result
from pyworkflow.duration import parse_duration
from pyworkflow.errors import UsageError
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Protocol

    from pyworkflow._api.callables import OfClass
    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.loop.unawaited import Calls
    from pyworkflow._values.codec import Decode
    from pyworkflow.duration import Duration

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
C = TypeVar("C", bound=type[Any])
T = TypeVar("T")

_UNSET: Any = object()


class StepOptions(msgspec.Struct, frozen=True, dict=True):
    """How a step is run; `step` documents each option."""

    name: str
    function: Callable[..., Any]
    returned: Returned
    retry: Retry
    timeout_seconds: float | None = None
    at_most_once: bool = False
    inline: bool = False
    is_async: bool = False
    key: str | None = None
    limits: Limits | None = None

    @functools.cached_property
    def result_type(self) -> object:
        """The evaluated return annotation, to which recorded results are converted.

        Raises `UsageError` or `SerializationError` if nothing can be converted to it.
        """
        annotation = self.returned.annotation
        decoder_for(annotation, what=f"the result of step {self.name!r}")
        return annotation

    @functools.cached_property
    def decode(self) -> Decode:
        """The function from recorded text to a result of that type; raises as `result_type`."""
        return decoder_for(self.result_type, what=f"the result of step {self.name!r}")


class Step(Described, Generic[P, R_co]):
    """A function with `@step`. Call it like the function."""

    # Beside its `__dict__`, which contains the attributes from `take_for`: a slot is found sooner.
    __slots__ = ("_body", "_function", "_settings")

    def __init__(self, function: Callable[P, R_co], settings: StepOptions) -> None:
        take_for(self, function)
        self._set(function, settings)

    def _set(self, function: Callable[..., Any], settings: StepOptions) -> None:
        self._function: Callable[P, R_co] = function
        self._body: Callable[..., Any] = function
        if settings.limits is not None:
            self._body = Checked(function, settings.limits, f"step {settings.name!r}")
        self._settings = settings

    def _copy(self, function: Callable[..., Any], settings: StepOptions) -> Step[Any, Any]:
        """Return a step of the same function, perhaps bound to an object."""
        made: Step[Any, Any] = Step.__new__(Step)
        vars(made).update(vars(self), __wrapped__=function)  # what `take_for` found out once
        made._set(function, settings)
        return made

    @property
    def name(self) -> str:
        """The operation's name."""
        return self._settings.name

    def describe(self) -> tuple[str, object]:
        """Return the operation's name and the type that its result is converted to."""
        return self._settings.name, self._settings.result_type

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the step; outside of a workflow, call the plain function."""
        execution = current_execution()
        if execution is None:
            return self._function(*args, **kwargs)
        if not self._settings.is_async:
            return self._run_blocking(execution, args, kwargs)  # type: ignore[no-any-return]
        scopes = execution.open_scopes
        calls = scopes.calls() if scopes.are_nested else execution.calls
        number = calls.take_number()
        coroutine: Any = self._await(execution, calls, number, args, kwargs)
        calls.waiting[number] = coroutine, self._settings.name
        return coroutine  # type: ignore[no-any-return] # R_co is its type: the function is async

    def _run_blocking(
        self, execution: Execution, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        op = self._begin(execution, args, kwargs)
        return execution.wait(op) if isinstance(op, StepOp) else op[0]

    async def _await(
        self,
        execution: Execution,
        calls: Calls,
        number: int,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        calls.waiting.pop(number, None)
        op = self._begin(execution, args, kwargs)
        if not isinstance(op, StepOp):
            return op[0]
        try:
            return await op.future
        except asyncio.CancelledError:
            execution.abandon_if_cancelled(op)
            raise

    def _begin(
        self, execution: Execution, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> StepOp | tuple[Any]:
        """Issue the step; return its operation, or its recorded result in a tuple of one."""
        recalled = recall_step(execution, self._settings, args, kwargs)
        if recalled is not None:
            return recalled
        op = StepOp(execution, self._settings, self._body, args, kwargs)
        execution.issue(op)
        return op

    @overload
    def submit(
        self: Step[Q, Coroutine[Any, Any, T]], *args: Q.args, **kwargs: Q.kwargs
    ) -> StepFuture[T]: ...

    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R_co]: ...

    def submit(self, *args: Any, **kwargs: Any) -> StepFuture[Any]:
        """Start the step at once; return a future: ``await`` it, or call its ``result()``."""
        check_bound(self._function, "submit()")
        execution = require_execution(f"{self.name}.submit()")
        op = StepOp(execution, self._settings, self._body, args, kwargs)
        future: StepFuture[Any] = StepFuture(execution, op)
        execution.issue(op)
        return future

    def options(
        self,
        *,
        key: str | None = _UNSET,
        name: str = _UNSET,
        retry: Retry | int | bool | None = _UNSET,
        timeout: Duration | None = _UNSET,
        at_most_once: bool = _UNSET,
    ) -> Step[P, R_co]:
        """Return the same step with other options; those not given stay as they are.

        ``key`` identifies the operation independently of its position: unique within the workflow
        or child context, the same on each replay.
        """
        check_bound(self._function, "options()")
        settings = self._settings
        if at_most_once is not _UNSET:
            retry = _retry(settings.retry if retry is _UNSET else retry, at_most_once, retry)
            settings = replace(settings, at_most_once=at_most_once)
        if key is not _UNSET:
            settings = replace(settings, key=None if key is None else check_key(key, self.name))
        if name is not _UNSET:
            settings = replace(settings, name=check_name(name, f"step {self.name!r}"))
        if retry is not _UNSET:
            settings = replace(settings, retry=Retry.of(retry))
        if timeout is not _UNSET:
            settings = replace(settings, timeout_seconds=_timeout(timeout, self.name))
        return self._copy(self._function, settings)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Step[P, R_co]: ...

    @overload
    def __get__(
        self: Step[Concatenate[S, Q], R_co], instance: S, owner: type | None = None
    ) -> Step[Q, R_co]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Step[Any, Any]:
        """Bind a method to its instance."""
        if instance is None:
            return self
        bound: Any = self._function
        return self._copy(bound.__get__(instance, owner), self._settings)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"


if TYPE_CHECKING:

    class ClassStep(Step[Concatenate[C, Q], R_co], Generic[C, Q, R_co]):
        """A step below `classmethod`, for type checkers: taken from a class, it is bound."""

        @overload  # type: ignore[override] # a class is not an instance
        def __get__(self, instance: None, owner: C) -> Step[Q, R_co]: ...

        @overload
        def __get__(self, instance: Any, owner: C | None = None) -> Step[Q, R_co]: ...

        def __get__(self, instance: Any, owner: Any = None) -> Step[Any, Any]: ...

    class StepDecorator(Protocol):
        """`step` with options: makes a function a step."""

        @overload
        def __call__(self, function: OfClass[C, Q, R], /) -> ClassStep[C, Q, R]: ...

        @overload
        def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(function: OfClass[C, Q, R], /) -> ClassStep[C, Q, R]: ...


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | bool | None = _UNSET,
    timeout: Duration | None = None,
    at_most_once: bool = False,
    inline: bool = False,
) -> StepDecorator: ...


def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | bool | None = _UNSET,
    timeout: Duration | None = None,
    at_most_once: bool = False,
    inline: bool = False,
) -> Any:
    """Make a function a durable step; use it bare or with options.

    Args:
        name: the operation's name, 1 to 256 printable ASCII characters; default: the function's.
        retry: a `Retry`, a number of attempts, or False for one attempt only. Default: 3 attempts
            with exponential delays; one attempt if ``at_most_once``.
        timeout: how long one attempt may take (a duration). It cancels an async step; a sync one
            is abandoned. The attempt fails with `StepTimeoutError`, which is retried.
        at_most_once: never run an attempt twice: its start is durable before the body runs, and an
            attempt that was interrupted fails with `StepInterruptedError`.
        inline: run a quick, pure, sync body without a thread.

    Raises:
        UsageError: an option is invalid, or the function can't be a step.
    """

    def decorate(function: Callable[..., Any]) -> Step[Any, Any]:
        check_function(function, "@step")
        step_name = check_name(
            default_name(function, "step") if name is None else name,
            f"step {function.__qualname__}",
        )
        if inline and is_async(function):
            raise UsageError(
                f"step {step_name!r}: inline=True is for sync functions; an async one runs on the "
                "loop anyway"
            )
        check_result(function, f"step {step_name!r}")
        settings = StepOptions(
            name=step_name,
            function=function,
            returned=Returned(function),
            retry=_retry(None if retry is _UNSET else retry, at_most_once, retry),
            timeout_seconds=_timeout(timeout, step_name),
            at_most_once=at_most_once,
            inline=inline,
            is_async=is_async(function),
            limits=limits_of(function, f"step {step_name!r}"),
        )
        return Step(function, settings)

    return decorate if function is None else decorate(function)


def _retry(retry: Retry | int | bool | None, at_most_once: bool, given: object) -> Retry:
    if at_most_once and given is _UNSET:
        return Retry.of(False)
    return Retry.of(retry)


def _timeout(timeout: Duration | None, name: str) -> float | None:
    if timeout is None:
        return None
    seconds = parse_duration(timeout)
    if seconds <= 0:
        raise UsageError(f"the timeout of step {name!r} must be longer than 0")
    return seconds
