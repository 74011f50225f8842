"""Where the running code is: in workflow code, in a step, or in neither.

Workflow code is code on a `WorkflowLoop`, so asyncio's own "running loop" tells; nothing is passed
along, and nothing leaks into threads or step bodies.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from pyworkflow._engine.loop import WorkflowLoop
from pyworkflow._engine.tasks import running_loop
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pyworkflow._engine.execution import Execution


class Named(Protocol):
    """What messages need of a running step."""

    @property
    def name(self) -> str: ...


running_step: ContextVar[Named | None] = ContextVar("pyworkflow.step", default=None)
"""The attempt whose body is running, in its task or thread."""


def current_execution() -> Execution | None:
    """Return the execution whose workflow code is running, `None` elsewhere."""
    loop = running_loop()
    if type(loop) is WorkflowLoop:
        return loop.owner  # type: ignore[return-value] # an Execution owns each of them
    return None


def require_execution(what: str) -> Execution:
    """Return the running execution; raise `UsageError` outside of workflow code."""
    execution = current_execution()
    if execution is not None:
        return execution
    step = running_step.get()
    if step is not None:
        raise UsageError(
            f"{what} was called inside step {step.name!r}. A step's body is plain code whose outcome "
            "is recorded as a whole; durable operations belong into the workflow function around it."
        )
    raise UsageError(
        f"{what} was called outside of a running workflow. Call it from the code of a function "
        "with @workflow, on the thread that runs it."
    )
