"""Checks of updates before they are sent: Lambda refuses a whole batch for one bad update.

The table of legal moves has the rules for ids, names, seconds and the fields of each move, and
`limits` has the sizes. This module applies both, and adds the patterns that only Lambda has.

Source: the service model of the Lambda API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow._protocol import limits, moves
from pyworkflow._protocol.records import OperationType
from pyworkflow.errors import InvalidUpdateError

if TYPE_CHECKING:
    from pyworkflow._protocol.records import Update

_PATTERNS = (
    ("parent_id", limits.is_id, "an id: 1-64 of A-Z a-z 0-9 _ -"),
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


def checked(update: Update) -> Update:
    """Return ``update`` as Lambda accepts it; an error that is too large is shortened.

    Raises `InvalidUpdateError` for an update that Lambda would refuse.
    """
    moves.check(update, None)
    for name, is_good, expected in _PATTERNS:
        text = getattr(update, name)
        if text is not None and is_good(text) is None:
            raise _refusal(update, f"{name} to be {expected}", repr(text[:80]), "rename it")
    try:
        if update.payload is not None:
            _check_payload(update, update.payload)
        if update.error is None or limits.error_fits(update.error):
            return update
    except UnicodeEncodeError:
        raise _refusal(
            update, "text that UTF-8 can encode", "a lone surrogate", "remove or replace it"
        ) from None
    return replace(update, error=limits.fitted(update.error))


def check_batch(count: int, size: int) -> None:
    """Raise `InvalidUpdateError` if a checkpoint has too many updates or too many bytes."""
    if count > limits.MAX_UPDATES or (count > 1 and size > limits.MAX_BATCH_BYTES):
        raise InvalidUpdateError(
            f"A checkpoint: expected at most {limits.MAX_UPDATES} updates and "
            f"{limits.MAX_BATCH_BYTES} bytes, found {count} updates and {size} bytes; send the "
            "rest in the next one"
        )


def _check_payload(update: Update, payload: str) -> None:
    size = len(payload) if payload.isascii() else len(payload.encode())
    is_execution = update.type is OperationType.EXECUTION
    most = limits.MAX_RESULT_BYTES if is_execution else limits.MAX_PAYLOAD_BYTES
    if size > most:
        raise _refusal(
            update,
            f"a payload of at most {most} bytes",
            f"{size} bytes",
            "store the value elsewhere, for example in S3, and return its location",
        )


def _refusal(update: Update, expected: str, found: str, remedy: str) -> InvalidUpdateError:
    named = f" (name {update.name!r})" if update.name is not None else ""
    return InvalidUpdateError(
        f"{update.type} {update.action} of operation {update.id!r}{named}: expected {expected}, "
        f"found {found}; {remedy}"
    )
