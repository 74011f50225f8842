"""What a ``ctx`` offers for the world outside: callbacks and invokes, awaited or blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from pyworkflow._api.callback import (
    Callback,
    CallbackWait,
    SyncCallback,
    callback_options,
    create_callback,
)
from pyworkflow._api.invoke import InvokeCall

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Unpack

    from pyworkflow._api.callback import CallbackKeywords, WaitKeywords
    from pyworkflow._api.invoke import InvokeKeywords
    from pyworkflow._api.workflow import Workflow
    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration
    from pyworkflow.retry import Retry

T = TypeVar("T")


class _OfExecution:
    """What both kinds need of the context that they are part of."""

    def _running(self, what: str) -> Execution:
        raise NotImplementedError


class OutsideCalls(_OfExecution):
    """Callbacks and invokes of an ``async def`` workflow."""

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
        """Create a callback, right here: it has an ``id`` to hand out and a ``result()`` to await.

        ``timeout`` and ``heartbeat_timeout`` are durations of at least a second; without them the
        callback stays open as long as the execution. The sender's JSON is converted to
        ``result_type``; text that is no JSON is given as it is, to ``str`` and by default.

        Raises:
            UsageError: an option can't be, or two contradict each other.
            CallbackTimeoutError: by ``result()``: nobody completed it in time.
            CallbackError: by ``result()``: the sender sent a failure, or what does not fit.
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
        """Hand out the id of a new callback and wait for its result; await what this returns.

        ``submit(callback_id)``, sync or async, runs as a step with ``retry`` as its policy; what it
        returns is dropped. The rest is as for `callback`. All of it is a child context: ``gather``,
        ``wait_for`` and ``create_task`` take it.

        Raises:
            CallbackTimeoutError: nobody completed the callback in time.
            CallbackError: the sender sent a failure, or what does not fit ``result_type``.
            Exception: what ``submit`` raised in its last attempt.
        """
        execution = self._running("ctx.wait_for_callback()")
        options = callback_options(name, timeout, heartbeat_timeout, result_type)
        return CallbackWait(submit, name, key, options, retry).coroutine(execution)

    @overload
    def invoke(
        self,
        function: Workflow[..., Coroutine[Any, Any, T]],
        input: Any = None,
        **options: Unpack[InvokeKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def invoke(
        self,
        function: Workflow[..., T],
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
        input: Any = None,  # noqa: A002 - what the callee calls it, too
        *,
        name: str | None = None,
        tenant_id: str | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> Any:
        """Run another durable function as an execution of its own; await what this returns.

        ``function`` is a function's name, version or alias included, or a workflow: that gives its
        name and the type of its result. ``input`` is any JSON value. ``name`` is the operation's,
        ``tenant_id`` the tenant of a function that isolates them.

        Raises:
            InvokeError: the function failed, was stopped, or returned what does not fit.
            UsageError: an argument can't be used.
        """
        execution = self._running("ctx.invoke()")
        call = InvokeCall(function, input, name, key, tenant_id=tenant_id, result_type=result_type)
        return call.coroutine(execution)


class BlockingOutsideCalls(_OfExecution):
    """Callbacks and invokes of a ``def`` workflow: the same names, and they block."""

    @overload
    def callback(
        self, name: str | None = None, *, result_type: type[T], **options: Unpack[CallbackKeywords]
    ) -> SyncCallback[T]: ...

    @overload
    def callback(
        self,
        name: str | None = None,
        *,
        result_type: Any = ...,
        **options: Unpack[CallbackKeywords],
    ) -> SyncCallback[Any]: ...

    def callback(
        self,
        name: str | None = None,
        *,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> SyncCallback[Any]:
        """Create a callback: it has an ``id`` to hand out and a ``result()`` that blocks.

        The options and errors are those of `WorkflowContext.callback`.
        """
        execution = self._running("ctx.callback()")
        options = callback_options(name, timeout, heartbeat_timeout, result_type)
        return SyncCallback(execution, *create_callback(execution, name, key, options))

    @overload
    def wait_for_callback(
        self,
        submit: Callable[[str], Any],
        name: str | None = None,
        *,
        result_type: type[T],
        **options: Unpack[WaitKeywords],
    ) -> T: ...

    @overload
    def wait_for_callback(
        self,
        submit: Callable[[str], Any],
        name: str | None = None,
        *,
        result_type: Any = ...,
        **options: Unpack[WaitKeywords],
    ) -> Any: ...

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
        """Hand out the id of a new callback and block until its result is there.

        The options and errors are those of `WorkflowContext.wait_for_callback`.
        """
        execution = self._running("ctx.wait_for_callback()")
        options = callback_options(name, timeout, heartbeat_timeout, result_type)
        return CallbackWait(submit, name, key, options, retry).blocking(execution)

    @overload
    def invoke(
        self,
        function: Workflow[..., Coroutine[Any, Any, T]],
        input: Any = None,
        **options: Unpack[InvokeKeywords],
    ) -> T: ...

    @overload
    def invoke(
        self,
        function: Workflow[..., T],
        input: Any = None,
        **options: Unpack[InvokeKeywords],
    ) -> T: ...

    @overload
    def invoke(
        self,
        function: object,
        input: Any = None,
        *,
        result_type: type[T],
        **options: Unpack[InvokeKeywords],
    ) -> T: ...

    @overload
    def invoke(
        self,
        function: object,
        input: Any = None,
        *,
        result_type: Any = ...,
        **options: Unpack[InvokeKeywords],
    ) -> Any: ...

    def invoke(
        self,
        function: object,
        input: Any = None,  # noqa: A002 - what the callee calls it, too
        *,
        name: str | None = None,
        tenant_id: str | None = None,
        result_type: Any = Any,
        key: str | None = None,
    ) -> Any:
        """Run another durable function as an execution of its own; block for its result.

        The options and errors are those of `WorkflowContext.invoke`.
        """
        execution = self._running("ctx.invoke()")
        call = InvokeCall(function, input, name, key, tenant_id=tenant_id, result_type=result_type)
        return call.blocking(execution)
