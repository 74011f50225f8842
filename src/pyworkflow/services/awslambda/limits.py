"""What Lambda would refuse, found before it is sent: the whole batch would be refused with it.

Ids, names, seconds and which move carries what stand in the table of legal moves, and are checked
there; here is what only this service knows: patterns, and sizes in bytes of UTF-8.

Sources: the service model of the Lambda API for patterns and for the largest input and result of an
execution; for the other sizes the smaller of what its documents and its errors say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pyworkflow._engine import transitions
from pyworkflow._engine.records import OperationType
from pyworkflow._engine.transitions import (
    MAX_BATCH_BYTES,
    MAX_ERROR_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_RESULT_BYTES,
    MAX_UPDATES,
)
from pyworkflow.errors import InvalidUpdateError
from pyworkflow.services.awslambda.wire import error_to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._engine.records import ErrorRecord, Update

PAGE_OPERATIONS = 1000
"""How many operations a page of the state may have."""

_PATTERNS = (
    ("parent_id", re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch, "an id: 1-64 of A-Z a-z 0-9 _ -"),
    ("subtype", re.compile(r"[A-Za-z0-9_-]{1,32}").fullmatch, "1-32 of A-Z a-z 0-9 _ -"),
    (
        "function_name",
        re.compile(r"[A-Za-z0-9_:.$-]{1,256}").fullmatch,
        "a function's name or ARN with a version or alias, of 1-256 characters",
    ),
    (
        "tenant_id",
        re.compile(r"[A-Za-z0-9._:/=+@ -]{1,256}").fullmatch,
        "1-256 of A-Z a-z 0-9 . _ : / = + @ - and space",
    ),
)

_to_json = msgspec.json.Encoder().encode


def checked(update: Update) -> Update:
    """Return ``update`` as Lambda accepts it: too long a stack trace lost its outermost frames.

    Raises `InvalidUpdateError` for what it would refuse.
    """
    transitions.check(update, None)
    for name, is_good, expected in _PATTERNS:
        text = getattr(update, name)
        if text is not None and is_good(text) is None:
            raise _refusal(update, f"{name} to be {expected}", repr(text[:80]), "rename it")
    if update.payload is not None:
        _check_payload(update, update.payload)
    if update.error is not None:
        return replace(update, error=_shortened(update, update.error))
    return update


def check_batch(encoded: Sequence[bytes]) -> None:
    """Raise `InvalidUpdateError` if these updates are too many or too large for one checkpoint."""
    size = sum(map(len, encoded))
    if len(encoded) > MAX_UPDATES or (len(encoded) > 1 and size > MAX_BATCH_BYTES):
        raise InvalidUpdateError(
            f"A checkpoint: expected at most {MAX_UPDATES} updates and {MAX_BATCH_BYTES} bytes, "
            f"found {len(encoded)} updates and {size} bytes; send the rest in the next one"
        )


def _check_payload(update: Update, payload: str) -> None:
    is_execution = update.type is OperationType.EXECUTION
    most = MAX_RESULT_BYTES if is_execution else MAX_PAYLOAD_BYTES
    size = _size(update, payload)
    if size > most:
        raise _refusal(
            update,
            f"a payload of at most {most} bytes",
            f"{size} bytes",
            "store the value elsewhere, in S3 for example, and return where it is",
        )


def _shortened(update: Update, error: ErrorRecord) -> ErrorRecord:
    """Return ``error`` within its limit. Its stack goes first, from the outermost frame on."""
    frames = list(error.stack_trace)
    size = _size(update, error)
    while size > MAX_ERROR_BYTES and frames:
        size -= len(_to_json(frames.pop(0))) + 1
    if size > MAX_ERROR_BYTES:
        raise _refusal(
            update,
            f"an error of at most {MAX_ERROR_BYTES} bytes",
            f"{size} bytes without its stack trace",
            "shorten the message and the attributes of the exception",
        )
    return replace(error, stack_trace=tuple(frames))


def _size(update: Update, content: str | ErrorRecord) -> int:
    try:
        if isinstance(content, str):
            return len(content.encode())
        return len(_to_json(error_to_wire(content)))
    except UnicodeEncodeError:
        raise _refusal(
            update, "text that UTF-8 can hold", "a lone surrogate", "remove or replace it"
        ) from None


def _refusal(update: Update, expected: str, found: str, remedy: str) -> InvalidUpdateError:
    named = f" (name {update.name!r})" if update.name is not None else ""
    return InvalidUpdateError(
        f"{update.type} {update.action} of operation {update.id!r}{named}: expected {expected}, "
        f"found {found}; {remedy}"
    )
