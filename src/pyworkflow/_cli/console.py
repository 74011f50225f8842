"""Output of the command line: results to stdout, everything else to stderr.

Names, errors and payloads come out of a history that anybody may have written, so nothing in them
is interpreted: no markup, and each character that a terminal could act upon is spelled out. Without
a terminal there is no colour and no cutting at its width.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, TextIO, TypeGuard

import msgspec
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NO_TERMINAL_WIDTH = 2_000
"""Wide enough that no line of ours is cut or folded where a program may read it."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

MAX_DEPTH = 100
"""How deep JSON that is indented may nest: what is deeper would be little but spaces."""

_brackets_and_strings = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]').findall


def escape(text: str) -> str:
    r"""Return ``text`` with all that is not printable spelled out: ``\x1b``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def cut(text: str, limit: int) -> str:
    """Return ``text``, or its beginning and how long it is."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text):,} characters; --json shows all)"


def plain(text: str, style: str = "") -> Text:
    """Return a piece of text to print, escaped."""
    return Text(escape(text), style=style)


def stdout() -> Console:
    """Return a console on stdout."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Return a console on stderr."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _NO_TERMINAL_WIDTH
    return Console(
        file=stream,
        width=width,
        # rich alone would leave bold and dim.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        emoji=False,
        highlight=False,
    )


def print_lines(console: Console, lines: Iterable[Text]) -> None:
    """Print lines, thousands of them at once if need be; the terminal folds what is too long."""
    if console.is_terminal:
        for line in lines:
            console.print(line, soft_wrap=True)
    else:
        console.file.writelines(f"{line.plain}\n" for line in lines)


def print_document(document: Mapping[str, object]) -> None:
    """Print one JSON document, in ASCII: no terminal and no encoding can misread it."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(f"{over_lines(text)}\n")


def over_lines(text: str) -> str:
    """Return JSON over several lines; what is none, or nests deeper than `MAX_DEPTH`, as it is."""
    with contextlib.suppress(RecursionError, ValueError, msgspec.DecodeError):
        if _depth_of(text) <= MAX_DEPTH:
            text = msgspec.json.format(text, indent=2)
    return text


def _depth_of(text: str) -> int:
    depth = deepest = 0
    for piece in _brackets_and_strings(text):
        if piece in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif piece in "]}":
            depth -= 1
    return deepest


def end_when_nobody_reads() -> None:
    """From here on, let the process end as other programs do once its output's reader has gone.

    Python ignores SIGPIPE and raises an error instead. To be called when only output is left to
    do: while a workflow runs, a pager that was closed must not kill it.
    """
    if hasattr(signal, "SIGPIPE") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@contextlib.contextmanager
def without_a_reader() -> Iterator[None]:
    """Once the reader of stderr has gone, write it to nowhere: a workflow must not end by that."""
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def is_refused_write(error: BaseException) -> TypeGuard[OSError]:
    """Return whether a write to an open stream failed for want of room.

    Errors about a file that is named there are others' affair.
    """
    return isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None


def flush_stdout() -> OSError | None:
    """Write what is left for stdout; return why it can't be, a full disk for instance.

    What can't be written is dropped then, or Python would try again, and complain, at its end.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more
        return None
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return error
    return None


def open_closed_streams() -> None:
    """Write to nowhere what goes to a stream that the caller has closed."""
    # Python has `None` in their places. They are left open to the end of the process.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def escape_what_cannot_be_encoded() -> None:
    """Make streams that are not UTF-8 escape characters that they lack, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
