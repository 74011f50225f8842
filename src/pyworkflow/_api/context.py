"""`WorkflowContext`: the ``ctx`` of an ``async def`` workflow.

Each method checks its arguments when it is called, and raises `UsageError` before anything starts.
Methods that wait return coroutines, so `asyncio.gather`, `asyncio.wait_for` and
`asyncio.create_task` take them. The exceptions block the calling task: `sleep`, `sleep_until`, and
`callback` until the callback is recorded.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pyworkflow._api.base_context import BaseContext
from pyworkflow._api.callback import Callback, CallbackWait, callback_options, create_callback
from pyworkflow._api.child import ChildCall
from pyworkflow._api.condition import NOT_GIVEN, ConditionCall
from pyworkflow._api.fan_out import map_call, parallel_call
from pyworkflow._api.invoke import InvokeCall
from pyworkflow._api.sleep import Slept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

    from pyworkflow._api.batch import BatchResult
    from pyworkflow._api.callback import CallbackKeywords, WaitKeywords
    from pyworkflow._api.condition import ConditionKeywords
    from pyworkflow._api.fan_out import FanOutKeywords, MapKeywords
    from pyworkflow._api.invoke import Invocable, InvokeKeywords
    from pyworkflow.duration import Duration
    from pyworkflow.retry import Retry

    Awaited = Coroutine[Any, Any, "T"]

A = TypeVar("A")
T = TypeVar("T")


class WorkflowContext(BaseContext):
    """The ``ctx`` of an ``async def`` workflow: methods that wait return coroutines."""

    # -- waiting ---------------------------------------------------------------------------------

    def sleep(
        self, duration: Duration, *, name: str | None = None, key: str | None = None
    ) -> Slept:
        """Sleep durably when called, awaited or not. For `gather` use `pyworkflow.sleep`.

        ``duration``: seconds, ``"90s"``, ``"5m"``, ``"1h30m"``, ``"7d"`` or a timedelta; rounded up
        to whole seconds, 366 days at most. 0 returns at once.

        Raises `DurationError` if the duration is malformed, negative or too long.
        """
        self._sleep(duration, name, key)
        return Slept()

    def sleep_until(
        self, when: datetime, *, name: str | None = None, key: str | None = None
    ) -> Slept:
        """Sleep durably until ``when``, a datetime with a time zone. The past returns at once."""
        self._sleep_until(when, name, key)
        return Slept()

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: type[T],
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Coroutine[Any, Any, T]],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., T],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = NOT_GIVEN,
        *,
        every: Duration,
        until: Callable[[Any], object] = bool,
        result_type: Any = Any,
        **options: Unpack[ConditionKeywords],
    ) -> Any:
        """Poll ``check`` until the state that it returns satisfies ``until``.

        Args:
            check: sync or async; its return value is the *state*. If it takes a parameter, it
                receives the last state, at first ``initial``.
            initial: the state for the first poll, any JSON value. Default: None.
            every: the delay between two polls, a duration of at least a second. The first poll is
                immediate.
            until: returns whether a state is final. Default: `bool`.
            backoff: the delay is multiplied by this number, at least 1, after each poll.
                Default: 1.
            max_every: the longest delay, a duration. Default: 5 minutes, or ``every`` if longer.
            timeout: a duration from the recorded start; there is a last poll when it is over.
            max_attempts: the largest number of polls.
            name: the operation's name. Default: that of ``check``.
            key: an identity that does not depend on the position; see `Step.options`.
            result_type: the type of the states. Default: the return annotation of ``check``.

        Returns:
            The final state.

        Raises:
            ConditionTimeoutError: ``timeout`` or ``max_attempts`` is reached.
            Exception: any error of ``check`` or ``until``, at once; except that after a
                `RetryableError` the same state is polled again, no sooner than its
                ``retry_after``.
            UsageError: an argument is invalid.
        """
        execution = self._running("ctx.wait_for_condition()")
        call = ConditionCall(
            check, initial, every=every, until=until, result_type=result_type, options=options
        )
        return call.coroutine(execution)

    # -- child contexts --------------------------------------------------------------------------

    @overload
    def child(
        self, code: Awaited[T], /, *, name: str | None = None, key: str | None = None
    ) -> Awaited[T]: ...

    @overload
    def child(
        self,
        code: Callable[..., Awaited[T]],
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
    ) -> Awaited[T]: ...

    @overload
    def child(
        self,
        code: Callable[..., T],
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
    ) -> Awaited[T]: ...

    def child(
        self, code: Any, /, *args: Any, name: str | None = None, key: str | None = None
    ) -> Any:
        """Run ``code(*args)``, or a coroutine, as a child context and return its result.

        The code may be sync or async. Its operations have a namespace of their own, and once its
        outcome is recorded it never runs again. The result is converted to the return annotation.
        A result of more than 256 KiB is not stored: a replay runs the code again over its recorded
        operations.

        Raises:
            UsageError: ``code`` is neither a function nor a coroutine, or a name or key is invalid.
            Exception: any error of the code.
        """
        execution = self._running("ctx.child()")
        return ChildCall(code, args, name, key).coroutine(execution)

    @overload
    def parallel(
        self,
        branches: Sequence[Awaited[T] | Callable[[], Awaited[T]]]
        | Mapping[str, Awaited[T] | Callable[[], Awaited[T]]],
        **options: Unpack[FanOutKeywords],
    ) -> Awaited[BatchResult[T]]: ...

    @overload
    def parallel(
        self,
        branches: Sequence[Callable[[], T]] | Mapping[str, Callable[[], T]],
        **options: Unpack[FanOutKeywords],
    ) -> Awaited[BatchResult[T]]: ...

    @overload  # of several kinds, which a type checker takes for objects
    def parallel(
        self, branches: Sequence[object] | Mapping[str, object], **options: Unpack[FanOutKeywords]
    ) -> Awaited[BatchResult[Any]]: ...

    def parallel(self, branches: Any, **options: Any) -> Any:
        """Run branches concurrently, each as a child context, and return their results.

        ``branches`` is a list of functions without parameters and of coroutines (calls of async
        steps), or a dict of them by name. A branch that blocks does not block the others.
        ``max_concurrency`` limits the number of branches that run at once.

        By default the first failure ends the operation. With ``min_successful`` it ends when that
        number of branches has succeeded; with ``tolerated_failure_count`` or
        ``tolerated_failure_percentage`` (0 to 100, of all branches) when more have failed. Branches
        that still run are then cancelled. ``name`` and ``key`` are those of the operation.

        Raises:
            UsageError: a branch or an option is invalid, or there are more branches than the
                service allows.
            BatchError: too many branches failed, or too few succeeded; see its ``result``.
        """
        execution = self._running("ctx.parallel()")
        return parallel_call(branches, **options).coroutine(execution)

    @overload
    def map(
        self,
        function: Callable[[A], Awaited[T]] | Callable[[A, int], Awaited[T]],
        items: Iterable[A],
        **options: Unpack[MapKeywords],
    ) -> Awaited[BatchResult[T]]: ...

    @overload
    def map(
        self,
        function: Callable[[A], T] | Callable[[A, int], T],
        items: Iterable[A],
        **options: Unpack[MapKeywords],
    ) -> Awaited[BatchResult[T]]: ...

    def map(self, function: Any, items: Any, **options: Any) -> Any:
        """Run ``function(item)`` for each item concurrently and return the results.

        ``function``, sync or async, also receives the item's index if it has a second parameter
        that is required or named ``index``. ``item_name(item)`` or ``item_name(item, index)`` names
        the branches. The other options and the errors are those of `parallel`.
        """
        execution = self._running("ctx.map()")
        return map_call(function, items, **options).coroutine(execution)

    # -- the world outside -----------------------------------------------------------------------

    @overload
    def callback(
        self, name: str | None = None, *, result_type: type[T], **options: Unpack[CallbackKeywords]
    ) -> Callback[T]: ...

    @overload
    def callback(
        self,
        name: str | None = None,
        *,
        result_type: Any = ...,
        **options: Unpack[CallbackKeywords],
    ) -> Callback[Any]: ...

    def callback(
        self,
        name: str | None = None,
        *,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> Callback[Any]:
        """Create a callback: its ``id`` is for the sender, its ``result()`` waits for the answer.

        ``timeout`` and ``heartbeat_timeout`` are durations of at least a second; without them the
        callback stays open until the execution ends. The sender's JSON is converted to
        ``result_type``. Text that is not JSON is returned unchanged, if ``result_type`` is ``str``
        or omitted.

        Raises:
            UsageError: an option is invalid, or two options conflict.
            CallbackTimeoutError: from ``result()``: the callback was not completed in time.
            CallbackError: from ``result()``: the sender reported a failure, or its answer does not
                fit ``result_type``.
        """
        execution = self._running("ctx.callback()")
        options = callback_options(name, timeout, heartbeat_timeout, result_type)
        return Callback(execution, *create_callback(execution, name, key, options))

    @overload
    def wait_for_callback(
        self,
        submit: Callable[[str], Any],
        name: str | None = None,
        *,
        result_type: type[T],
        **options: Unpack[WaitKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_callback(
        self,
        submit: Callable[[str], Any],
        name: str | None = None,
        *,
        result_type: Any = ...,
        **options: Unpack[WaitKeywords],
    ) -> Coroutine[Any, Any, Any]: ...

    def wait_for_callback(
        self,
        submit: Callable[[str], Any],
        name: str | None = None,
        *,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        retry: Retry | int | bool | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> Any:
        """Create a callback, pass its id to ``submit``, and return the callback's result.

        ``submit(callback_id)``, sync or async, runs as a step with the policy ``retry``; its return
        value is ignored. The other options are those of `callback`. It all runs in a child context.

        Raises:
            UsageError: an option is invalid, or two options conflict.
            CallbackTimeoutError: the callback was not completed in time.
            CallbackError: the sender reported a failure, or its answer does not fit
                ``result_type``.
            Exception: the error of the last attempt of ``submit``.
        """
        execution = self._running("ctx.wait_for_callback()")
        options = callback_options(name, timeout, heartbeat_timeout, result_type)
        return CallbackWait(submit, name, key, options, retry).coroutine(execution)

    @overload
    def invoke(
        self,
        function: Invocable[Coroutine[Any, Any, T]],
        input: Any = None,
        **options: Unpack[InvokeKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def invoke(
        self,
        function: Invocable[T],
        input: Any = None,
        **options: Unpack[InvokeKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def invoke(
        self,
        function: object,
        input: Any = None,
        *,
        result_type: type[T],
        **options: Unpack[InvokeKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def invoke(
        self,
        function: object,
        input: Any = None,
        *,
        result_type: Any = ...,
        **options: Unpack[InvokeKeywords],
    ) -> Coroutine[Any, Any, Any]: ...

    def invoke(
        self,
        function: object,
        input: Any = None,  # noqa: A002 - the callee's word for it
        *,
        name: str | None = None,
        tenant_id: str | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> Any:
        """Run another durable function as an execution of its own and return its result.

        ``function`` is a function's name, including its version or alias, or a workflow, which
        supplies its name and result type. ``input`` is any JSON value. ``name`` is the name of the
        operation, ``tenant_id`` the tenant of a function with tenant isolation.

        Raises:
            InvokeError: the function failed, was stopped, or its result does not fit
                ``result_type``.
            UsageError: an argument is invalid.
        """
        execution = self._running("ctx.invoke()")
        call = InvokeCall(function, input, name, key, tenant_id=tenant_id, result_type=result_type)
        return call.coroutine(execution)
