"""The future that ``step.submit(...)`` returns: await it, or call ``result()`` in sync code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from pyworkflow._engine.current import current_execution
from pyworkflow._engine.loop.tasks import Future

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.ops.base import Op

T = TypeVar("T")


class StepFuture(Future[T]):
    """A step that has been started.

    ``await future`` returns its result, and so does ``future.result()``, which blocks only its
    caller's task. A future that is not awaited by the time the workflow returns is an error.
    """

    def __init__(self, execution: Execution, op: Op) -> None:
        super().__init__(loop=execution.loop)
        self._execution = execution
        self._op = op
        self.is_awaited = False
        execution.open_scopes.calls().expect(self, f"{op.name} (submitted)")
        op.future = cast("asyncio.Future[Any]", self)

    def result(self) -> T:
        """Return the step's result or raise its error; block until then."""
        self.is_awaited = True
        if not self.done() and current_execution() is self._execution:
            return cast("T", self._execution.wait(self._op))
        return super().result()

    def exception(self) -> BaseException | None:
        """Return the step's error, `None` if it succeeded; it must be done."""
        self.is_awaited = True
        return super().exception()

    def __await__(self) -> Generator[Any, None, T]:
        self.is_awaited = True
        return super().__await__()

    def add_done_callback(self, fn: Callable[..., Any], /, **kwargs: Any) -> None:
        """Call ``fn`` with this future when it is done."""
        self.is_awaited = True
        super().add_done_callback(fn, **kwargs)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the step; False if it is over."""
        self.is_awaited = True
        cancelled = super().cancel(msg=msg)
        if cancelled:
            self._execution.abandon(self._op)
        return cancelled
