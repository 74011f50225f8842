"""What the file holds of an execution, checked as it is read: SQLite takes any type in any cell.

A file is damaged by a disk, by a copy that was cut short, or by hand. What does not hold what it
must is `UnreadableError`, with its row and why: that is one execution's affair, and no other's.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec

from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._protocol.records import LAST_COUNT, LAST_MS, ErrorRecord, OperationType, Status
from pyworkflow.services import _execution_state
from pyworkflow.services.sqlite import _encoding
from pyworkflow.services.sqlite._encoding import LAST_LINE, LAST_NUMBER, PLACES, ExecutionRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyworkflow._protocol.records import Operation
    from pyworkflow.services.history import HistoryEvent

T = TypeVar("T")
N = TypeVar("N", int, None)

_KINDS = [get_args(kind) or (kind,) for kind in get_type_hints(ExecutionRow).values()]


def _range_of(column: str) -> tuple[int, int]:
    """Return the least and the greatest number that a column may hold."""
    if column.endswith("_ms"):
        return 0, LAST_MS
    return {"number": (1, LAST_NUMBER), "lines": (0, LAST_LINE)}.get(column, (0, LAST_COUNT))


_RANGES = [_range_of(column) for column in ExecutionRow._fields]


def _cell_type(kinds: Sequence[Any], least: int, most: int) -> Any:
    number = Annotated[int, msgspec.Meta(ge=least, le=most)]
    return functools.reduce(operator.or_, (number if kind is int else kind for kind in kinds))


# A Struct, for msgspec knows what it checks there without looking it up.
_RowTypes = msgspec.defstruct(
    "_RowTypes",
    [
        (column, _cell_type(kinds, *ends))
        for column, kinds, ends in zip(ExecutionRow._fields, _KINDS, _RANGES, strict=True)
    ],
    array_like=True,
)
"""The types and ranges of all cells, which msgspec checks at once."""
_TAKEN_AS_IT_IS = (bytes,)
"""Else msgspec would take a text for bytes in base64."""


class UnreadableError(Exception):
    """Something of an execution can't be read; the message tells the row and why."""

    def __init__(self, execution_id: object, place: str, why: object) -> None:
        super().__init__(f"the execution {execution_id!r} can't be read: row {place}: {why}")


def _tell_wrong_cell(row: ExecutionRow) -> None:
    """Raise `UnreadableError` for the first cell that is not what it must be."""
    for cell, kinds, (least, most), column in zip(row, _KINDS, _RANGES, row._fields, strict=True):
        if type(cell) not in kinds:
            expected = " or ".join(
                "NULL" if kind is type(None) else kind.__name__ for kind in kinds
            )
            found = "NULL" if cell is None else type(cell).__name__
            why = f"expected {expected}, found {found}"
            raise UnreadableError(row.id, f"{row.number} of executions, {column}", why)
        if type(cell) is int and not least <= cell <= most:
            why = f"expected {least} to {most}, found {cell}"
            raise UnreadableError(row.id, f"{row.number} of executions, {column}", why)


def row_of(cells: Sequence[Any]) -> ExecutionRow:
    """Return a row of ``executions``, every cell of the type that it must have."""
    row = ExecutionRow._make(cells)
    try:
        msgspec.convert(row, _RowTypes, builtin_types=_TAKEN_AS_IT_IS)
    except msgspec.ValidationError:
        _tell_wrong_cell(row)
    if row.problem is not None:
        _decode(_encoding.decode_error, row.problem, row, f"{row.number} of executions, problem")
    return row


def _decode(decode: Callable[[Any], T], cell: object, row: ExecutionRow, place: str) -> T:
    try:
        return decode(cell)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
        raise UnreadableError(row.id, place, error) from error


def operations_of(
    row: ExecutionRow, found: Iterable[tuple[int, object, object]]
) -> tuple[list[Operation], dict[str, _execution_state.CallbackDeadlines]]:
    """Return the operations of ``row`` in the order of their start, none missing, and deadlines."""
    operations: list[Operation] = []
    deadlines = {}
    base = row.number << PLACES
    for key, record, times in found:
        if key != base + len(operations):
            break
        place = f"{key} of operations"
        operation = _decode(_encoding.decode_operation, record, row, f"{place}, record")
        operations.append(operation)
        if times is not None:
            times_read = _decode(_encoding.decode_deadlines, times, row, f"{place}, deadlines")
            deadlines[operation.id] = times_read
        elif operation.type is OperationType.CALLBACK and operation.status is Status.STARTED:
            raise UnreadableError(
                row.id, f"{place}, deadlines", "expected those of an open callback"
            )
    else:
        if operations:
            _check_root(row, operations[0], base)
            return operations, deadlines
    raise UnreadableError(row.id, f"{base + len(operations)} of operations", "it is missing")


def _check_root(row: ExecutionRow, root: Operation, key: int) -> None:
    if root.id != row.id or root.type is not OperationType.EXECUTION:
        why = f"expected the EXECUTION operation, found the {root.type} {root.id!r}"
        raise UnreadableError(row.id, f"{key} of operations, record", why)


def root_of(row: ExecutionRow, record: object) -> Operation:
    """Return the EXECUTION operation of ``row``."""
    ((root,), _) = operations_of(
        row, [] if record is None else [(row.number << PLACES, record, None)]
    )
    return root


def unread_of(row: ExecutionRow, operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the ids of those operations that the holder of the token has not read yet."""
    if row.unread is None:
        return ()
    place = f"{row.number} of executions, unread"
    unread = _decode(_encoding.decode_ids, row.unread, row, place)
    unknown = set(unread).difference(operation.id for operation in operations)
    if unknown:
        raise UnreadableError(row.id, place, f"there is no operation {min(unknown)!r}")
    return unread


def page_of_operations(
    row: ExecutionRow, first: int, found: Iterable[tuple[int, object, object]]
) -> list[Operation]:
    """Return operations of ``row`` in the order of their start, from a place on, none missing."""
    operations: list[Operation] = []
    base = (row.number << PLACES) + first
    for key, record, _ in found:
        if key != base + len(operations):
            break
        operations.append(_operation_at(row, key, record))
    else:
        if operations and not first:
            _check_root(row, operations[0], base)
        if operations or first:
            return operations
    raise UnreadableError(row.id, f"{base + len(operations)} of operations", "it is missing")


def _operation_at(row: ExecutionRow, key: int, record: object) -> Operation:
    return _decode(_encoding.decode_operation, record, row, f"{key} of operations, record")


def lines_of(
    row: ExecutionRow, kept: Iterable[tuple[int, object]], first: int, limit: int
) -> list[tuple[int, _encoding.Line]]:
    """Return lines of the history of ``row``, from ``first`` on, each with its row's key."""
    lines: list[tuple[int, _encoding.Line]] = []
    base = row.number << PLACES
    for key, cell in kept:
        read = _decode(_encoding.decode_lines, cell, row, f"{key} of history, lines")
        lines += [(key, line) for line in read[max(first - (key - base), 0) :]]
        if len(lines) >= limit:
            break
    return lines[:limit]


def events_of(
    row: ExecutionRow,
    first: int,
    lines: Sequence[tuple[int, _encoding.Line]],
    found: Iterable[tuple[int, object]],
) -> tuple[HistoryEvent, ...]:
    """Return the events of ``lines``, which begin at line ``first``, with their operations."""
    base = row.number << PLACES
    operations = {key - base: _operation_at(row, key, record) for key, record in found}
    for key, line in lines:
        if line.place not in operations:
            why = f"expected a line of an operation, found none at {line.place}"
            raise UnreadableError(row.id, f"{key} of history, lines", why)
    return _encoding.events_of(first, [line for _, line in lines], operations, row.result)


def summary_of(cells: Sequence[Any], record: object) -> ExecutionSummary:
    """Return how an execution stands; ``record`` is its EXECUTION operation."""
    row = row_of(cells)
    return _encoding.summary_of(row, root_of(row, record))


def summary_for_list(cells: Sequence[Any], record: object) -> ExecutionSummary:
    """Return how an execution stands, or what its row tells of one that can't be read."""
    try:
        return summary_of(cells, record)
    except UnreadableError as error:
        row = ExecutionRow._make(cells)
        is_open = row.status == Status.STARTED or row.status not in set(ExecutionStatus)
        return ExecutionSummary(
            id=str(row.id),
            name=str(row.name),
            workflow_name=str(row.workflow),
            status=ExecutionStatus.RUNNING if is_open else ExecutionStatus(row.status),
            start_ms=_age_of(row.id),
            input_payload="",
            wake_ms=_number_or(None, row.wake_ms, LAST_MS),
            problem=ErrorRecord(
                f"{error}; restore a backup", "pyworkflow.errors.DamagedExecutionError"
            ),
            failed_invocations=_number_or(0, row.troubles, LAST_COUNT),
        )


def _number_or(other: N, cell: object, most: int) -> int | N:
    return cell if type(cell) is int and 0 <= cell <= most else other


def _age_of(execution_id: object) -> int:
    """Return when the execution with that id was started, as far as the id tells."""
    try:
        return min(max(int(str(execution_id)[:12], 16), 0), LAST_MS)
    except ValueError:
        return 0
