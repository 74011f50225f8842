"""JSON values on their way in and out: the ``--input`` of a command, recorded payloads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from pyworkflow._cli.console import escape, over_lines
from pyworkflow.errors import UsageError


def read_value(given: str, *, option: str) -> object:
    """Return the value that an option gives: JSON, ``@FILE`` that has it, or ``-`` for stdin.

    Raises `UsageError` that says what is wrong where.
    """
    text, source = _read(given, option)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"Expected JSON in {source}, found {_shown(text)}: {error}. Quote it for the shell, "
            f'{option} \'{{"order_id": "A"}}\', or write it to a file: {option} @FILE.'
        ) from None


def _read(given: str, option: str) -> tuple[bytes | str, str]:
    if given == "-":
        return sys.stdin.buffer.read(), f"stdin ({option} -)"
    if not given.startswith("@"):
        return given.encode(errors="surrogateescape"), option
    path = Path(given[1:])
    try:
        return path.read_bytes(), f"the file {path}"
    except OSError as error:
        raise UsageError(f"{option} names the file {path}, which can't be read: {error}") from None


def _shown(text: bytes | str) -> str:
    shown = text if isinstance(text, str) else text.decode(errors="replace")
    return repr(shown[:60] + "…" if len(shown) > 60 else shown) if shown else "nothing"


def value_of(payload: str | None) -> object:
    """Return the value of a recorded payload; text that is not JSON, as a callback's, stays."""
    if payload is None:
        return None
    try:
        value: object = msgspec.json.decode(payload)
        # Nested too deep for one of the two is too deep to be shown as anything but text.
        json.dumps([[[[value]]]])
    except (msgspec.DecodeError, RecursionError, ValueError):
        return payload
    return value


def indented(payload: str | None) -> str:
    """Return a payload for people: JSON over several lines, escaped."""
    if payload is None:
        return "null"
    return "\n".join(map(escape, over_lines(payload).split("\n")))
