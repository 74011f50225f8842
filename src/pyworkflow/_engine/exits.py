"""Exceptions that end a program: those that code raises, and those that a signal throws into it.

A body or a workflow that raises `SystemExit`, `KeyboardInterrupt` or any other `BaseException` has
failed, as with any exception. One that the handler of a signal raised is not a failure of the code
that it happened to interrupt: it ends what the signal was meant for.

The traceback distinguishes them. Python calls a handler with the frame that it interrupts, which is
also the frame above the handler's own. Its own handler for Ctrl-C has no frame: that
`KeyboardInterrupt` begins where no code raises anything.
"""

from __future__ import annotations

from opcode import opmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

FAILURES = (Exception, SystemExit, KeyboardInterrupt)
"""Exceptions that count as failures of workflow code; see `pass_on_signal` for signals."""

_RAISE = opmap["RAISE_VARARGS"]


def pass_on_signal(error: BaseException) -> None:
    """Raise ``error`` if a signal's handler raised it."""
    if is_from_signal(error):
        raise error


def is_from_signal(error: BaseException | None) -> bool:
    """Whether a signal's handler raised ``error``, or what code made ``error`` of.

    An `Exception` is the code's own: whoever made it has handled the signal.
    """
    seen: set[int] = set()
    while error is not None and not isinstance(error, Exception) and id(error) not in seen:
        if _was_thrown_in(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _was_thrown_in(error: BaseException) -> bool:
    trace: TracebackType | None = error.__traceback__
    above: FrameType | None = None
    last = None
    while trace is not None:
        if above is not None and _was_given(trace.tb_frame, above):
            return True
        above, last, trace = trace.tb_frame, trace, trace.tb_next
    if last is None or not isinstance(error, KeyboardInterrupt):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] != _RAISE


def _was_given(frame: FrameType, above: FrameType) -> bool:
    """Whether ``above`` is an argument of the call that ``frame`` runs."""
    return any(
        value is above or (type(value) is tuple and any(each is above for each in value))
        for value in frame.f_locals.values()
    )
