"""How records lie in the file: msgpack, decoded into this library's own types and nothing else.

A history line keeps the facts that an operation's own row no longer has: the moment, the status,
and, for retries, the attempt's outcome. Names, times and final results are taken from
the operation, so a payload is kept once. A step's becoming READY takes no line: it is not an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from pyworkflow._protocol.records import (
    ENDED,
    Action,
    Count,
    ErrorRecord,
    Milliseconds,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow.services import _execution_state
from pyworkflow.services.history import HistoryEntry, HistoryEvent, build_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyworkflow._protocol.executions import ExecutionSummary

_READY, _PENDING = Status.READY, Status.PENDING

PLACES = 32
"""Number of bits of a key for the place within the execution."""
LAST_NUMBER = (1 << 31) - 1
"""The highest number of an execution: keys have 64 bits, with a sign."""
LAST_LINE = 1 << 31
"""The most lines of a history; what one checkpoint adds still finds a place in the key."""


class ExecutionRow(NamedTuple):
    """A row of ``executions``, in the order of its columns."""

    number: int
    id: str
    workflow: str
    name: str
    status: str
    version: int
    tokens: int
    lines: int
    unread: bytes | None
    owner: str | None
    lease_ms: int | None
    wake_ms: int | None
    not_before_ms: int | None
    deadline_ms: int | None
    troubles: int
    problem: bytes | None
    result: str | None
    parent_id: str | None
    parent_operation: str | None
    losses: int | None


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event of an execution; ``place`` is its operation's."""

    place: Count
    time_ms: Milliseconds
    status: Status
    attempt: Count = 0
    payload: str | None = None
    error: ErrorRecord | None = None
    delay_seconds: Count | None = None
    timeout_seconds: Count | None = None
    heartbeat_timeout_seconds: Count | None = None
    function_name: str | None = None
    tenant_id: str | None = None


_encode_into = msgspec.msgpack.Encoder().encode_into
decode_operation = msgspec.msgpack.Decoder(Operation).decode
decode_deadlines = msgspec.msgpack.Decoder(_execution_state.CallbackDeadlines).decode
decode_lines = msgspec.msgpack.Decoder(tuple[Line, ...]).decode
decode_error = msgspec.msgpack.Decoder(ErrorRecord).decode
decode_ids = msgspec.msgpack.Decoder(tuple[str, ...]).decode


def encode(record: object) -> bytearray:
    """Return the stored form of a record."""
    # A bytearray: for bytes, sqlite3 would look for an adapter, which takes longer than the write.
    encoded = bytearray()
    _encode_into(record, encoded)
    return encoded


def lines_of(entries: Iterable[HistoryEntry], places: dict[str, int]) -> list[Line]:
    """Return the lines to store for ``entries``."""
    lines = []
    for entry in entries:
        operation = entry.operation
        if operation.end_ms is not None:
            place = places[operation.id]
            lines.append(Line(place, entry.time_ms, operation.status, operation.ended_attempts))
        elif operation.status is not _READY:
            lines.append(_line_of(entry, places[operation.id]))
    return lines


def _line_of(entry: HistoryEntry, place: int) -> Line:
    """Return the line of an operation that has not ended."""
    operation, update = entry.operation, entry.update
    status = operation.status
    if status is _PENDING:
        payload, error = operation.payload, operation.error
    else:
        payload, error = None if update is None else update.payload, None
    if update is None:
        return Line(place, entry.time_ms, status, operation.ended_attempts, payload, error)
    return Line(
        place,
        entry.time_ms,
        status,
        operation.ended_attempts,
        payload,
        error,
        update.delay_seconds,
        update.timeout_seconds,
        update.heartbeat_timeout_seconds,
        update.function_name,
        update.tenant_id,
    )


def events_of(
    first: int, lines: Iterable[Line], operations: Mapping[int, Operation], result: str | None
) -> tuple[HistoryEvent, ...]:
    """Return the events of an execution's ``lines``, which begin at line ``first``."""
    entries = [_entry_of(line, operations[line.place], result) for line in lines]
    return build_events(entries, first + 1)


def _entry_of(line: Line, operation: Operation, result: str | None) -> HistoryEntry:
    is_execution = operation.type is OperationType.EXECUTION
    update_payload = line.payload
    if line.status in ENDED:
        if is_execution:
            update_payload = result
        operation = replace(operation, status=line.status, ended_attempts=line.attempt)
    else:
        operation = replace(
            operation,
            status=line.status,
            ended_attempts=line.attempt,
            payload=operation.payload if is_execution else line.payload,
            error=line.error,
            end_ms=None,
        )
    update = Update(
        id=operation.id,
        type=operation.type,
        action=Action.START,  # any: events don't show the action
        payload=update_payload,
        delay_seconds=line.delay_seconds,
        timeout_seconds=line.timeout_seconds,
        heartbeat_timeout_seconds=line.heartbeat_timeout_seconds,
        function_name=line.function_name,
        tenant_id=line.tenant_id,
    )
    return HistoryEntry(line.time_ms, operation, update)


def summary_of(row: ExecutionRow, root: Operation) -> ExecutionSummary:
    """Return an execution's summary; ``root`` is its EXECUTION operation."""
    return replace(
        _execution_state.summary_of(root, row.workflow, row.result),
        wake_ms=row.wake_ms,
        problem=None if row.problem is None else decode_error(row.problem),
        failed_invocations=row.troubles,
    )
