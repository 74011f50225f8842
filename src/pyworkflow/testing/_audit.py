"""Side effects of workflow code past its loop: threads, processes and connections.

A step that is called on a thread of the workflow's own is a plain call: nothing records it, and
each replay makes it again. In production nothing notices. In a test Python does, by its audit
events, before anything has happened; code that the interpreter or a tool runs on the way, such as
an import or a logging handler, is let through.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import TYPE_CHECKING

from pyworkflow._engine.current import enclosing_execution
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_REFUSED = {
    "_thread.start_new_thread": "starts a thread",
    "_thread.start_joinable_thread": "starts a thread",
    "os.fork": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.system": "starts a process",
    "subprocess.Popen": "starts a process",
    "socket.connect": "connects to the network",
    "socket.getaddrinfo": "asks the network",
}
_LET_THROUGH = {"importlib", "logging", "pydevd", "_pydevd_bundle", "debugpy", "coverage"}


@functools.cache
def watch() -> None:
    """Begin to refuse these in executions whose observer ``refuses_world``; for good, but once."""
    sys.addaudithook(_on_event)
    if sys.version_info < (3, 12):  # which has no event for threads
        threading.Thread.start = _audited(threading.Thread.start)  # type: ignore[method-assign, assignment]


def _audited(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @functools.wraps(start)
    def audited(thread: threading.Thread) -> None:
        _on_event("_thread.start_new_thread")
        start(thread)

    return audited


def _on_event(event: str, _: object = None) -> None:
    reason = _REFUSED.get(event)
    if reason is None:
        return
    execution = enclosing_execution()
    if execution is None or not getattr(execution.observer, "refuses_world", False):
        return
    if not _is_let_through(sys._getframe(1)):
        raise UsageError(
            f"workflow code {reason} ({event}). Its effects are not recorded, and each "
            "replay repeats them. Move it into a function with @step, and call that; to run "
            "steps side by side, use asyncio.gather, submit(), ctx.map or ctx.parallel"
        )


def _is_let_through(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LET_THROUGH:
            return True
        frame = frame.f_back
    return False
