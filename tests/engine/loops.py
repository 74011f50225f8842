"""A workflow loop with its greenlets and without an engine: timers ring when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pyworkflow._engine.ids import Namespace
from pyworkflow._engine.loop.event_loop import TimerHandle, make_loop
from pyworkflow._engine.loop.greenlets import Greenlets
from pyworkflow._engine.loop.tasks import Task


class World:
    """The owner of a loop, as far as the loop knows one."""

    def __init__(self) -> None:
        self.loop = make_loop(self)
        self.greenlets = Greenlets(self.loop)
        self.namespace = Namespace("", self.loop.root)
        self.next: deque[Callable[[], Any]] = deque()
        self.timers: list[tuple[int, TimerHandle]] = []
        self.abandoned: list[TimerHandle] = []
        self.reports: list[dict[str, Any]] = []
        self.is_closing = False

    # -- what a test does ------------------------------------------------------------------------

    def start(self, main: Coroutine[Any, Any, Any]) -> Task[Any]:
        """Make the main task, and run until nothing more happens by itself."""
        task = self.loop.make_task(main, self.namespace)
        self.run()
        return task

    def run(self, *steps: Callable[[], Any]) -> None:
        """Run until idle; then, each time the code is idle, do one of ``steps``."""
        self.next.extend(steps)
        self.loop.inside(self.greenlets.run)

    def ring(self, index: int = 0) -> None:
        """Let a timer be over."""
        seconds, handle = self.timers.pop(index)
        self.loop.elapsed_ms += seconds * 1000
        self.loop.ring(handle)
        self.run()

    def close(self) -> None:
        """Dispose of what has not ended."""
        self.is_closing = True
        self.loop.inside(lambda: self.greenlets.close(self.tasks()))
        self.loop.dispose_asyncgens()

    def tasks(self) -> list[Task[Any]]:
        """Return the tasks of the loop."""
        return cast("list[Task[Any]]", self.loop.root.tasks)

    def errors(self) -> list[BaseException]:
        """Return what nobody handled."""
        return [report["exception"] for report in self.reports]

    # -- what the loop asks for ------------------------------------------------------------------

    def bring_next(self) -> bool:
        if not self.next:
            return False
        self.next.popleft()()
        return True

    def start_timer(self, seconds: int, handle: TimerHandle) -> None:
        self.admit("a timer")
        self.timers.append((seconds, handle))
        handle.abandon = lambda: self.abandoned.append(handle)

    def admit(self, what: str) -> None:
        if self.is_closing:
            self.greenlets.refuse()
        assert what

    def report(self, context: dict[str, Any]) -> None:
        self.reports.append(context)

    # -- what the loop's code does ---------------------------------------------------------------

    def wait(self) -> Any:
        """Block the running task until a new future of its own is done."""
        self.admit("a wait")
        return self.greenlets.wait(self.loop.create_future())
