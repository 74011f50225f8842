"""How large things may be, and how their size is counted: each limit and each rule once.

Bytes are those of UTF-8. The engine keeps the limits: it refuses a payload where its author can
still handle that, shortens an error where it is recorded, and cuts batches. Services check again by
the functions of this module, and no service has a rule of its own.

Sizes are bounded before they are measured, for measuring means encoding. A character takes at most
four bytes, at most six within JSON (``\\u001b``), and at most twelve in JSON of ASCII alone (an
escaped surrogate pair). Most values are far below their limit, and are not encoded for it.

Sources: the service model of the Lambda API for an execution's input and result; for the other
sizes the smaller of what its documents and its errors say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pyworkflow._protocol.records import ErrorRecord
from pyworkflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._protocol.records import Update

MAX_OPERATIONS = 3000
"""Operations of an execution: a quota of Lambda."""
PAGE_OPERATIONS = 1000
"""Operations of a page of the state."""
MAX_UPDATES = 250
MAX_BATCH_BYTES = 750 * 1024
"""All updates of a checkpoint; a single update may be larger."""
MAX_PAYLOAD_BYTES = 256 * 1024
"""A payload of an operation on Lambda, and a child's result that is stored everywhere."""
MAX_RESULT_BYTES = 6 * 1024 * 1024
"""The result of an execution on Lambda."""
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 - 50
"""A Lambda function's answer, once it is escaped; a larger result is recorded before."""
MAX_ERROR_BYTES = 32 * 1024
RECORD_BYTES = MAX_ERROR_BYTES - 64
"""An error as a record, whose fields have shorter names than on the wire."""

FIXED_BYTES = 1536
"""More than the keys, ids, names and numbers of an update take: its texts of bounded length."""

_to_json = msgspec.json.Encoder().encode

# -- texts of bounded length ---------------------------------------------------------------------

MAX_NAME = 256
"""Characters of the name of an operation or a workflow."""

is_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
"""Matches the id of an operation, and the name of an execution."""
# Names and subtypes are the same ones again and again.
is_name = lru_cache(maxsize=256)(re.compile(rf"[ -~]{{1,{MAX_NAME}}}").fullmatch)
is_subtype = lru_cache(maxsize=64)(re.compile(r"[ -~]{1,32}").fullmatch)

# -- payloads ------------------------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True):
    """The limits of a service for one execution; `None`: any.

    The bytes are of an operation's payload, and of the result of the execution itself.
    """

    max_operations: int | None = None
    max_payload_bytes: int | None = None
    max_result_bytes: int | None = None


def size_of(payload: str | None) -> int:
    """Return how many bytes a payload has."""
    if payload is None:
        return 0
    return len(payload) if payload.isascii() else len(payload.encode(errors="surrogatepass"))


def fits(payload: str | None, max_bytes: int | None) -> bool:
    """Return whether a payload has at most that many bytes; `None`: any number."""
    if payload is None or max_bytes is None or 4 * len(payload) <= max_bytes:
        return True
    return size_of(payload) <= max_bytes


def check_size(payload: str | None, max_bytes: int | None, what: str) -> None:
    """Raise `SerializationError` for a payload that a service does not keep, which is ``what``."""
    if fits(payload, max_bytes):
        return
    raise SerializationError(
        f"{what[:1].upper()}{what[1:]} can't be stored: it has {size_of(payload)} bytes as JSON, "
        f"and the service takes at most {max_bytes}. Keep it elsewhere, in S3 for example, and "
        "hand on where it is"
    )


def fits_response(payload: str) -> bool:
    """Return whether a result has room in a Lambda function's answer, which is JSON in ASCII."""
    if 12 * len(payload) + 64 <= MAX_RESPONSE_BYTES:  # 64: more than the keys around it take
        return True
    import json  # here: importing it costs more than the rest, and few results come this far

    return len(json.dumps({"Status": "SUCCEEDED", "Result": payload})) <= MAX_RESPONSE_BYTES


# -- batches -------------------------------------------------------------------------------------


def bound_of(update: Update) -> int:
    """Return an upper bound of the bytes that an update takes in a request, without measuring."""
    return _bytes_of(update, _text_bound)


def wire_size(update: Update) -> int:
    """Return a close upper bound of the bytes that an update takes in a request."""
    return _bytes_of(update, _text_size)


def _bytes_of(update: Update, text_bytes: Callable[[str], int]) -> int:
    payload, error = update.payload, update.error
    size = FIXED_BYTES if payload is None else FIXED_BYTES + text_bytes(payload)
    if error is not None:
        size += text_bytes(error.message) + text_bytes(error.type)
        size += 0 if error.data is None else text_bytes(error.data)
        size += sum(map(text_bytes, error.stack_trace))
    return size


def _text_bound(text: str) -> int:
    return 6 * len(text) + 3  # its quotes, and the comma behind it


def _text_size(text: str) -> int:
    try:
        return len(_to_json(text)) + 1
    except UnicodeEncodeError:  # a lone surrogate, which only some services refuse
        return _text_bound(text)


# -- errors --------------------------------------------------------------------------------------

CUT = "… [truncated]"


def error_fits(record: ErrorRecord, limit_bytes: int = RECORD_BYTES) -> bool:
    """Return whether an error may be recorded as it is."""
    return len(_to_json(record)) <= limit_bytes


def fitted(record: ErrorRecord, *, limit_bytes: int = RECORD_BYTES) -> ErrorRecord:
    """Return ``record`` as one of at most ``limit_bytes`` as JSON.

    What is too long loses first the middle of the stack, then the data as a whole, then the end of
    the message. One that fits stays as it is, so shortening twice is shortening once.
    """
    data = None if record.data is None else storable(record.data)
    record = replace(record, message=storable(record.message))
    for text in (data, None):
        if (found := with_data(record, text, limit_bytes)) is not None:
            return found
    return with_message_cut(record, limit_bytes, lambda _: None)


def with_data(record: ErrorRecord, data: str | None, limit_bytes: int) -> ErrorRecord | None:
    """Return ``record`` with ``data``, and what there is room for of its stack; else `None`."""
    whole = replace(record, data=data, stack_trace=())
    room = limit_bytes - len(_to_json(whole))
    return None if room < 0 else replace(whole, stack_trace=fitting(record.stack_trace, room))


def with_message_cut(
    record: ErrorRecord, limit_bytes: int, data_for: Callable[[str], str | None]
) -> ErrorRecord:
    """Return ``record`` without its stack and the end of its message.

    ``data_for`` returns the data that belongs to a message: what is left of it.
    """
    shortest = replace(record, message=CUT, data=data_for(CUT), stack_trace=())
    room = limit_bytes - len(_to_json(shortest))
    if room >= 0:
        # The class is decided upon with the text that is stored.
        text = _cut(record.message, room) + CUT
        found = replace(shortest, message=text, data=data_for(text))
        if len(_to_json(found)) <= limit_bytes:
            return found
    # Without a type: what is not known of it is a stand-in everywhere.
    return ErrorRecord(CUT)


def _cut(message: str, room: int) -> str:
    message = message[:room]
    while len(_to_json(message)) - 2 > room:
        message = message[: len(message) * 3 // 4]
    return message


def storable(text: str) -> str:
    """Return ``text`` with what UTF-8 can't encode written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def fitting(stack: tuple[str, ...], room: int) -> tuple[str, ...]:
    """Return as much of ``stack`` as ``room`` bytes of JSON have room for, without its middle.

    The middle goes, for the beginning has the error that led to the others, and the end the place
    where the last one was raised. Where there is room for little, the end is what stays.
    """
    room -= len(',"stack_trace":[') + len("]") - len(",")  # the last entry has no comma
    sizes = [len(_to_json(entry)) + 1 for entry in stack]
    if sum(sizes) <= room:
        return stack
    mark_room = len(_to_json(_left_out(len(stack)))) + 1
    tail = len(stack)
    head = 0
    is_tail_next = True
    room -= mark_room
    while head < tail and sizes[tail - 1 if is_tail_next else head] <= room:
        if is_tail_next:
            tail -= 1
            room -= sizes[tail]
        else:
            room -= sizes[head]
            head += 1
        is_tail_next = not is_tail_next
    if head:
        return (*stack[:head], _left_out(tail - head), *stack[tail:])
    room += mark_room
    while tail and sizes[tail - 1] <= room:
        tail -= 1
        room -= sizes[tail]
    return stack[tail:]


def _left_out(count: int) -> str:
    return f"  … [{count} entries left out]"
