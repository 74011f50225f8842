"""Where the running code is: in workflow code, in a step, or in neither.

Workflow code runs in the greenlets of its run, so the current greenlet decides; nothing is passed
along, and nothing leaks into threads or step bodies.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from greenlet import getcurrent

from pyworkflow._engine.loop.event_loop import WorkflowLoop
from pyworkflow._engine.loop.greenlets import WorkflowGreenlet
from pyworkflow._engine.loop.tasks import running_loop
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pyworkflow._engine.execution import Execution


class Named(Protocol):
    """A running step, as messages name it."""

    @property
    def name(self) -> str: ...
    @property
    def attempt(self) -> int: ...


running_step: ContextVar[Named | None] = ContextVar("pyworkflow.step", default=None)
"""The attempt whose body is running, in its task or thread."""


def current_execution() -> Execution | None:
    """Return the execution whose workflow code is running, `None` elsewhere.

    Raises `UsageError` in a greenlet that workflow code has started by itself.
    """
    running = getcurrent()
    if type(running) is WorkflowGreenlet:
        return running.owner  # type: ignore[return-value] # an Execution owns each of them
    if type(running_loop()) is WorkflowLoop:
        raise UsageError(
            "something durable was called in a greenlet that the workflow's code, or a library in "
            f"it, has started: {running!r}. It can neither be suspended nor replayed there. Call "
            "it from the workflow's own code or from an asyncio task; move what needs greenlets "
            "into a @step"
        )
    return None


def enclosing_execution() -> Execution | None:
    """Return the execution whose code is running, in whatever greenlet, `None` elsewhere."""
    loop = running_loop()
    return loop.owner if type(loop) is WorkflowLoop else None  # type: ignore[return-value]


def require_execution(what: str) -> Execution:
    """Return the running execution; raise `UsageError` outside of workflow code."""
    execution = current_execution()
    if execution is None:
        raise outside_error(what)
    return execution


def outside_error(what: str) -> UsageError:
    """Return the error of a call that needs workflow code around it and has none."""
    step = running_step.get()
    if step is not None:
        return UsageError(
            f"{what} was called inside step {step.name!r}. A step's body is plain code, recorded "
            "as a whole; durable operations belong in the workflow that calls it."
        )
    return UsageError(
        f"{what} was called outside of a running workflow. Call it from the code of a function "
        "with @workflow, on the thread that runs it."
    )
