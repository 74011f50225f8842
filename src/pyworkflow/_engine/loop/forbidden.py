"""Methods of the loop that workflow code can't use, and the remedy for each.

Sockets, subprocesses, executors, threads and signals give another result on each replay. Each such
method of the loop raises an error that names the remedy: do it in a `@step`. It is also a
`NotImplementedError`, as asyncio's own loops raise, for libraries that can do without.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import getcurrent

from pyworkflow.errors import WorkflowLoopError

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type)

_REASONS = {
    "run_in_executor": "runs code in a thread",
    "set_default_executor": "runs code in a thread",
    "call_soon_threadsafe": "takes callbacks from other threads",
    "getaddrinfo": "asks the network",
    "getnameinfo": "asks the network",
    "run_forever": "runs a loop inside the workflow's loop",
    "run_until_complete": "runs a loop inside the workflow's loop",
    "stop": "stops the workflow's loop",
    "close": "closes the workflow's loop",
    "set_debug": "changes how the loop runs",
    "set_task_factory": "changes how the loop runs",
    "set_exception_handler": "changes how the loop runs",
    "add_signal_handler": "listens to signals",
    "remove_signal_handler": "listens to signals",
}

# Harmless getters: nothing can be set, so they return None.
_NONE = {"get_exception_handler", "get_task_factory"}


def refuse_world(loop_class: C) -> C:
    """Give ``loop_class`` a refusing method for each one of asyncio's that it does not define."""
    for name in dir(asyncio.AbstractEventLoop):
        if name.startswith("_") or name in vars(loop_class):
            continue
        answer = _nothing if name in _NONE else _refusal(name, _REASONS.get(name, "does I/O"))
        setattr(loop_class, name, answer)
    return loop_class


def _nothing(self: object) -> None:
    """Return None: none is set, and none can be."""


def _refusal(name: str, reason: str) -> Callable[..., Any]:
    def refuse(self: Any, *args: object, **kwargs: object) -> Any:
        if name == "call_soon_threadsafe" and getattr(getcurrent(), "owner", None) is None:
            # On another thread, where this error may be lost: a deadlock will name it.
            frame = sys._getframe(1)
            code = frame.f_code
            self.calls_from_threads.append(
                f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
            )
        raise WorkflowLoopError(
            f"loop.{name} was called in workflow code. It {reason}, so each replay would see "
            "something else. Move it into a function with @step, and call that."
        )

    refuse.__name__ = name
    refuse.__doc__ = f"Refuse: it {reason}."
    return refuse
