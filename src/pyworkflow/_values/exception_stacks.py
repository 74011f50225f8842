"""The stack that is recorded with an error: its frames, and those of the errors that led to it.

A stack is the text that `traceback.format_exception` prints, less the last error's own line, which
its record has as type and message; a group keeps that line, for its members follow it. Frames of
this library are left out. The text is cut into entries, each of which begins with a frame, and is
always cut the same way: a stack that comes back from a record is recorded as it was.
"""

from __future__ import annotations

import re
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow._protocol.limits import storable

if TYPE_CHECKING:
    from types import TracebackType

E = TypeVar("E", bound=Exception)

STACK_NOTE = "Recorded stack trace (innermost last):\n"

_MOST_FRAMES = 200
_MOST_CHARACTERS = 4_000
"""How long an entry may be: an error's text, in a chain, may be of any length."""

_PACKAGE = __file__.rpartition("_values")[0]
_HEADER = "Traceback (most recent call last):\n"
# As the traceback module words them.
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
# In a group's box, frames stand behind bars.
_ENTRY_START = re.compile(r'\n(?=[ |]*  (?:File "|… \[))')

# -- recording -----------------------------------------------------------------------------------


def stack_of(error: BaseException) -> tuple[str, ...]:
    """Return the stack of ``error``, innermost last; of a rebuilt one, that which was recorded.

    The errors that led to it stand before it, those to a rebuilt one since it was rebuilt too.
    """
    recorded = next((note for note in notes_of(error) if is_stack_note(note)), None)
    own = None if recorded is None else recorded.removeprefix(STACK_NOTE)
    try:
        text = _chain(error, own)
    except Exception:  # code of one of these errors raised: what is known without it will do
        text = _frames(error.__traceback__) if own is None else own
    return _entries(storable(text.rstrip("\n")))


def _frames(trace: TracebackType | None) -> str:
    frames: deque[Any] = deque(maxlen=_MOST_FRAMES)
    for frame, line in traceback.walk_tb(trace):
        if not _is_ours(frame.f_code.co_filename):
            frames.append((frame, line))
    return "".join(traceback.format_list(traceback.StackSummary.extract(frames)))


def _chain(error: BaseException, own: str | None) -> str:
    whole = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-_MOST_FRAMES, compact=True
    )
    _drop_ours(whole)
    if own is None and isinstance(error, BaseExceptionGroup):
        return "".join(whole.format())
    context = None if whole.__suppress_context__ else whole.__context__
    before, link = (whole.__cause__, _CAUSE) if whole.__cause__ else (context, _CONTEXT)
    own = "".join(whole.stack.format()) if own is None else own
    if before is None:
        return own
    return "".join([*before.format(), link, _HEADER if own else "", own])


def _drop_ours(whole: traceback.TracebackException) -> None:
    seen = {id(whole)}
    left = [whole]
    while left:
        each = left.pop()
        frames = [frame for frame in each.stack if not _is_ours(frame.filename)]
        each.stack = traceback.StackSummary.from_list(frames)
        for other in (each.__cause__, each.__context__, *(each.exceptions or ())):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                left.append(other)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_PACKAGE)


def _entries(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    return tuple([_shortened(entry) for entry in _ENTRY_START.split(text)])


def _shortened(entry: str) -> str:
    if len(entry) <= _MOST_CHARACTERS:
        return entry
    half = _MOST_CHARACTERS // 2 - 20
    return f"{entry[:half]} … [truncated] … {entry[-half:]}"


# -- on an exception -----------------------------------------------------------------------------


def with_stack(error: E, stack: tuple[str, ...]) -> E:
    """Return ``error`` with a recorded stack as its last note."""
    if stack:
        # Into its dictionary: a frozen dataclass and the like refuse to have attributes set.
        notes = [*notes_of(error), STACK_NOTE + "\n".join(stack)]
        object.__getattribute__(error, "__dict__")["__notes__"] = notes
    return error


def notes_of(error: BaseException) -> list[Any]:
    """Return the notes of ``error``, without running code of its class."""
    notes = object.__getattribute__(error, "__dict__").get("__notes__")
    return notes if isinstance(notes, list) else []


def is_stack_note(note: object) -> bool:
    """Return whether ``note`` is a recorded stack."""
    return isinstance(note, str) and note.startswith(STACK_NOTE)
