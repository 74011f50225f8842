"""The contexts that are open in one run: its root, and each child context whose code runs.

The code of a child context runs inline, in the task that called it; while it does, the task counts
from the child's namespace. Work left open when the code returns can no longer be recorded: its
tasks are cancelled, and its operations are handed back to be abandoned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pyworkflow._engine.loop.tasks import take_unread

if TYPE_CHECKING:
    from pyworkflow._engine.ids import Namespace
    from pyworkflow._engine.loop.event_loop import WorkflowLoop
    from pyworkflow._engine.loop.tasks import Task
    from pyworkflow._engine.loop.unawaited import Calls
    from pyworkflow._engine.ops.child import ChildOp
    from pyworkflow._engine.scopes import IssuedOperation, Scope


class OpenScopes:
    """The open scopes of one run."""

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self._open: dict[Scope, None] = {loop.root: None}
        self.are_nested = False
        """Whether the code of a child context runs."""

    def tasks(self) -> list[Task[Any]]:
        """Return the tasks that were made in what is open, in the order of their making."""
        tasks = [task for scope in self._open for task in scope.tasks]
        return cast("list[Task[Any]]", tasks)  # none but the loop's own are added

    def calls(self) -> Calls:
        """Return the calls of the context whose code is running."""
        scope = self._loop.scope() if self.are_nested else None
        return (scope or self._loop.root).calls

    def report_unread(self, main: Task[Any]) -> None:
        """Report the tasks of a finished workflow whose errors were never retrieved.

        asyncio does when it frees a task, but those of the workflow are kept to its end.
        """
        for task in self._loop.root.tasks:
            if task is not main and (error := take_unread(task)) is not None:
                message = f"{task.get_name()} failed, and its outcome was never retrieved"
                self._loop.call_exception_handler({"message": message, "exception": error})

    def forget(self) -> None:
        """Drop the tasks of a finished run, or the collector would have to free them."""
        for scope in self._open:
            scope.calls.close()
            scope.tasks.clear()
            # A body may keep its caller's context for long, in a connection say, and this with it.
            scope.live.clear()

    def enter(self, child: ChildOp, task: Task[Any]) -> Namespace:
        """Move ``task`` into the namespace of ``child``; return the one to come back to."""
        self._open[child.namespace.scope] = None
        self.are_nested = True
        outer, task.namespace = task.namespace, child.namespace
        self._loop.make_callbacks_in(child.namespace)
        return outer

    def leave(self, child: ChildOp, task: Task[Any], outer: Namespace) -> list[IssuedOperation]:
        """Move ``task`` out of ``child``, which is over; return the operations still live in it."""
        task.namespace = outer
        self._loop.make_callbacks_in(outer)
        scope = child.namespace.scope
        scope.is_over = True
        del self._open[scope]
        self.are_nested = len(self._open) > 1
        scope.calls.close()
        for left in scope.tasks:
            if not left.done():
                left.cancel()
                outer.scope.add_task(left)
        scope.tasks.clear()
        return list(scope.live)
