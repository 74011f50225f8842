"""Callbacks: a sender outside of the workflow receives an id, and completes the callback later.

``ctx.callback`` blocks until the callback is recorded, and its id exists. The workflow may wait for
the result at any time. ``ctx.wait_for_callback`` combines both: a child context that creates a
callback, passes the id to a step, and waits for the result.

A sender sends text. JSON is converted to ``result_type``; any other text is returned unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from pyworkflow._api.callables import without_result
from pyworkflow._api.child import run_child, run_child_blocking
from pyworkflow._api.names import check_key, check_name
from pyworkflow._api.step import step
from pyworkflow._engine.current import current_execution
from pyworkflow._engine.ops.callback import CallbackOp, CallbackOptions, WaitForCallbackOp
from pyworkflow._values.codec import check_outside
from pyworkflow.duration import whole_seconds
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration
    from pyworkflow.retry import Retry

T = TypeVar("T")


class CallbackKeywords(TypedDict, total=False):
    """The options of ``ctx.callback``, without the type of its result."""

    timeout: Duration | None
    heartbeat_timeout: Duration | None
    key: str | None


class WaitKeywords(CallbackKeywords, total=False):
    """The options of ``ctx.wait_for_callback``, without the type of its result."""

    retry: Retry | int | bool | None


class _Callback:
    """A recorded callback."""

    def __init__(self, execution: Execution, op: CallbackOp, callback_id: str) -> None:
        self._execution = execution
        self._op = op
        self.id = callback_id

    def _waiter(self) -> asyncio.Future[Any]:
        """Return a future for the result; the caller must have the operation forget it."""
        if current_execution() is not self._execution:
            raise UsageError(
                f"the result of {self!r} was requested outside the run that created it, that of "
                f"execution {self._execution.name!r}. Await it in that workflow's own code; "
                "the sender needs only its id"
            )
        self._execution.admit("the result of a callback")
        return self._op.expect()

    def __repr__(self) -> str:
        return f"<callback {self._op.name or self.id!r}>"


class SyncCallback(_Callback, Generic[T]):
    """A callback of a ``def`` workflow. The sender needs its ``id`` to complete it."""

    def result(self) -> T:
        """Wait until the callback is completed and return the sender's result.

        Cancelling the wait leaves the callback open: call this again. Raises `CallbackTimeoutError`
        and `CallbackError`, at every call.
        """
        waiter = self._waiter()
        try:
            return self._execution.greenlets.wait(waiter)  # type: ignore[no-any-return]
        finally:
            self._op.forget(waiter)


class Callback(_Callback, Generic[T]):
    """A callback of an ``async def`` workflow. The sender needs its ``id`` to complete it."""

    def result(self) -> Coroutine[Any, Any, T]:
        """Wait until the callback is completed and return the sender's result.

        Cancelling the wait leaves the callback open: call this again. Raises `CallbackTimeoutError`
        and `CallbackError`, at every call.
        """
        coroutine = self._result()
        self._execution.open_scopes.calls().expect(coroutine, f"the result of {self!r}")
        return coroutine

    async def _result(self) -> T:
        waiter = self._waiter()
        try:
            return await waiter  # type: ignore[no-any-return]
        finally:
            self._op.forget(waiter)


def callback_options(
    name: str | None,
    timeout: Duration | None,
    heartbeat_timeout: Duration | None,
    result_type: Any,
) -> CallbackOptions:
    """Return the options of a callback; raise `UsageError` if one is invalid or two conflict."""
    what = _what(name)
    check_outside(result_type, what=f"the result of {what}")
    whole = _seconds(what, "timeout", timeout)
    beat = _seconds(what, "heartbeat_timeout", heartbeat_timeout)
    if whole is not None and beat is not None and beat > whole:
        raise UsageError(
            f"{what} has a heartbeat_timeout of {beat} s, longer than its timeout of {whole} s, so "
            "it would never matter. Make it shorter, or leave it out"
        )
    return CallbackOptions(whole, beat, result_type)


def _what(name: str | None) -> str:
    return "a callback" if name is None else f"callback {check_name(name, 'a callback')!r}"


def _seconds(what: str, option: str, duration: Duration | None) -> int | None:
    if duration is None:
        return None
    seconds = whole_seconds(duration)
    if seconds == 0:
        raise UsageError(f"the {option} of {what} must be longer than 0; leave it out for none")
    return seconds


def create_callback(
    execution: Execution, name: str | None, key: str | None, options: CallbackOptions
) -> tuple[CallbackOp, str]:
    """Create a callback and block until it is recorded; return it with its id."""
    if key is not None:
        check_key(key, _what(name))
    op = CallbackOp(execution, name, key, options)
    execution.issue(op)
    return op, execution.wait(op)


class CallbackWait:
    """A call of ``ctx.wait_for_callback``: a callback, a step that sends its id, a wait."""

    def __init__(
        self,
        submit: Callable[[str], Any],
        name: str | None,
        key: str | None,
        options: CallbackOptions,
        retry: Retry | int | bool | None,
    ) -> None:
        if not callable(submit):
            raise UsageError(
                f"ctx.wait_for_callback takes a function of the callback's id, not {submit!r}"
            )
        if key is not None:
            check_key(key, _what(name))
        start = "" if name is None else f"{name} "
        self._name = name
        self._key = key
        self._options = options
        self._callback_name = check_name(f"{start}create callback id", "a callback")
        self._submitter = step(name=f"{start}submitter", retry=retry)(without_result(submit))

    def blocking(self, execution: Execution) -> Any:
        """Do it all; block until the result arrives."""

        def inside() -> Any:
            op, callback_id = self._create(execution)
            self._submitter.submit(callback_id).result()
            return SyncCallback[Any](execution, op, callback_id).result()

        return run_child_blocking(execution, self._op(execution), inside)

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that runs all three."""
        coroutine = self._run(execution)
        execution.open_scopes.calls().expect(coroutine, f"wait_for_callback of {_what(self._name)}")
        return coroutine

    async def _run(self, execution: Execution) -> Any:
        async def inside() -> Any:
            op, callback_id = self._create(execution)
            await self._submitter(callback_id)
            return await Callback[Any](execution, op, callback_id).result()

        return await run_child(execution, self._op(execution), inside)

    def _create(self, execution: Execution) -> tuple[CallbackOp, str]:
        return create_callback(execution, self._callback_name, None, self._options)

    def _op(self, execution: Execution) -> WaitForCallbackOp:
        op = WaitForCallbackOp(execution, self._name, self._key, self._options.result_type)
        op.source = self._submitter
        op.asked_for = self._options.asked()
        return op
