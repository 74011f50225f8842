"""What a ``ctx`` offers for child contexts: `child`, `parallel`, `map`, awaited or blocking.

What is wrong with a call is told where it is made, before anything is started.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from pyworkflow._api.branches import map_call, parallel_call
from pyworkflow._api.child import run_child, run_child_blocking
from pyworkflow._api.code import code_of, drop
from pyworkflow._api.names import check_key, check_name
from pyworkflow._api.outside import _OfExecution
from pyworkflow._engine.ops.child import ChildOp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Unpack

    from pyworkflow._api.batch import BatchResult
    from pyworkflow._engine.execution import Execution

    Awaited = Coroutine[Any, Any, "T"]

A = TypeVar("A")
T = TypeVar("T")


class FanOutKeywords(TypedDict, total=False):
    """The options of `parallel`."""

    name: str | None
    key: str | None
    max_concurrency: int | None
    min_successful: int | None
    tolerated_failure_count: int | None
    tolerated_failure_percentage: float | None


class MapKeywords(FanOutKeywords, total=False):
    """The options of `map`."""

    item_name: Callable[[Any], str] | Callable[[Any, int], str] | None


class ChildCalls(_OfExecution):
    """Child contexts of an ``async def`` workflow: coroutines, lazy as always."""

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
        """Run ``code(*args)``, or a coroutine, as a child context; await what this returns.

        The code may be sync or async. Its operations have a namespace of their own, and once its
        outcome is recorded it never runs again. The result is converted to the return annotation;
        one of more than 256 KiB is not stored: a replay runs the code over what is recorded below.

        Raises:
            UsageError: ``code`` is neither a function nor a coroutine, or a name can't be.
            Exception: what the code raised.
        """
        execution = self._running("ctx.child()")
        child = _Child(code, args, name, key)
        coroutine = child.run(execution)
        execution.open_scopes.calls().expect(
            coroutine, f"ctx.child() of {child.name or 'code without a name'}"
        )
        return coroutine

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
        """Run branches concurrently, each as a child context; await what this returns.

        ``branches`` is a list of functions without parameters and of coroutines (the calls of async
        steps), or a dict of them by name. ``max_concurrency`` bounds how many run at once.

        Without another option the first failure ends it. ``min_successful``: it ends as soon as so
        many have succeeded. ``tolerated_failure_count``, ``tolerated_failure_percentage`` (0 to
        100, of all branches): it ends as soon as more have failed. Whatever still runs then is
        cancelled. ``name`` and ``key`` are those of the operation.

        Raises:
            UsageError: a branch or an option can't be, or the service has no room for so many.
            BatchError: too many failed, or too few succeeded; ``.result`` says which.
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
        """Run ``function(item)`` for each item concurrently; await what this returns.

        ``function``, sync or async, is also given the item's index if it has a second parameter
        that needs a value or is named ``index``. ``item_name(item)`` or ``item_name(item, index)``
        names the branches. The other options, and what is raised, are those of `parallel`.
        """
        execution = self._running("ctx.map()")
        return map_call(function, items, **options).coroutine(execution)


class BlockingChildCalls(_OfExecution):
    """Child contexts of a ``def`` workflow: the same names, and they block."""

    @overload
    def child(
        self, code: Awaited[T], /, *, name: str | None = None, key: str | None = None
    ) -> T: ...

    @overload
    def child(
        self,
        code: Callable[..., Awaited[T]],
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
    ) -> T: ...

    @overload
    def child(
        self,
        code: Callable[..., T],
        /,
        *args: Any,
        name: str | None = None,
        key: str | None = None,
    ) -> T: ...

    def child(
        self, code: Any, /, *args: Any, name: str | None = None, key: str | None = None
    ) -> Any:
        """Run code as a child context and return its value; see `WorkflowContext.child`."""
        execution = self._running("ctx.child()")
        return _Child(code, args, name, key).run_blocking(execution)

    @overload
    def parallel(
        self,
        branches: Sequence[Awaited[T] | Callable[[], Awaited[T]]]
        | Mapping[str, Awaited[T] | Callable[[], Awaited[T]]],
        **options: Unpack[FanOutKeywords],
    ) -> BatchResult[T]: ...

    @overload
    def parallel(
        self,
        branches: Sequence[Callable[[], T]] | Mapping[str, Callable[[], T]],
        **options: Unpack[FanOutKeywords],
    ) -> BatchResult[T]: ...

    @overload  # of several kinds, which a type checker takes for objects
    def parallel(
        self, branches: Sequence[object] | Mapping[str, object], **options: Unpack[FanOutKeywords]
    ) -> BatchResult[Any]: ...

    def parallel(self, branches: Any, **options: Any) -> Any:
        """Run branches concurrently and return their outcome; see `WorkflowContext.parallel`.

        A branch that calls a sync step blocks itself alone.
        """
        execution = self._running("ctx.parallel()")
        return parallel_call(branches, **options).blocking(execution)

    @overload
    def map(
        self,
        function: Callable[[A], Awaited[T]] | Callable[[A, int], Awaited[T]],
        items: Iterable[A],
        **options: Unpack[MapKeywords],
    ) -> BatchResult[T]: ...

    @overload
    def map(
        self,
        function: Callable[[A], T] | Callable[[A, int], T],
        items: Iterable[A],
        **options: Unpack[MapKeywords],
    ) -> BatchResult[T]: ...

    def map(self, function: Any, items: Any, **options: Any) -> Any:
        """Run a function for each item concurrently; see `WorkflowContext.map`."""
        execution = self._running("ctx.map()")
        return map_call(function, items, **options).blocking(execution)


class _Child:
    """One call of ``ctx.child``."""

    def __init__(
        self, target: Any, args: tuple[Any, ...], name: str | None, key: str | None
    ) -> None:
        try:
            self._code = code_of(target, "ctx.child()", *args)
            self.name = self._code.name if name is None else name
            if self.name is not None:
                check_name(self.name, "ctx.child()")
            self._key = None if key is None else check_key(key, "ctx.child()")
        except BaseException:
            drop([target])
            raise

    def _op(self, execution: Execution) -> ChildOp:
        op = ChildOp(execution, self.name, self._key, self._code.result_type)
        op.source = self._code.source
        return op

    async def run(self, execution: Execution) -> Any:
        try:
            return await run_child(execution, self._op(execution), self._code.run)
        finally:
            self._code.close()

    def run_blocking(self, execution: Execution) -> Any:
        def inside() -> Any:
            value = self._code.call()
            if not inspect.isawaitable(value):
                return value
            # In a task of the engine's own: it takes no number.
            task = execution.loop.make_task(_await(value), op.namespace, name=f"child {self.name}")
            return execution.greenlets.wait(task)

        try:
            op = self._op(execution)
            return run_child_blocking(execution, op, inside)
        finally:
            self._code.close()


async def _await(value: Any) -> Any:
    return await value
