"""Validation of rows as they are read: SQLite accepts any type in any cell.

A file may be damaged by a disk, by an incomplete copy, or by hand. An invalid row raises
`UnreadableError`, which names the row and the reason and affects only its execution.
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
    """Return the least and the greatest number allowed in a column."""
    if column.endswith("_ms"):
        return 0, LAST_MS
    return {"number": (1, LAST_NUMBER), "lines": (0, LAST_LINE)}.get(column, (0, LAST_COUNT))


_RANGES = [_range_of(column) for column in ExecutionRow._fields]


def _cell_type(kinds: Sequence[Any], least: int, most: int) -> Any:
    number = Annotated[int, msgspec.Meta(ge=least, le=most)]
    return functools.reduce(operator.or_, (number if kind is int else kind for kind in kinds))


# A Struct: msgspec compiles its checks once.
_RowTypes = msgspec.defstruct(
    "_RowTypes",
    [
        (column, _cell_type(kinds, *ends))
        for column, kinds, ends in zip(ExecutionRow._fields, _KINDS, _RANGES, strict=True)
    ],
    array_like=True,
)
"""The types and ranges of all cells, checked by msgspec in one call."""
_TAKEN_AS_IT_IS = (bytes,)
"""Otherwise msgspec would accept a text as bytes in base64."""


class UnreadableError(Exception):
    """A stored row can't be decoded; the message names the row and the reason."""

    def __init__(self, execution_id: object, place: str, why: object) -> None:
        super().__init__(f"the execution {execution_id!r} can't be read: row {place}: {why}")


def _raise_for_wrong_cell(row: ExecutionRow) -> None:
    """Raise `UnreadableError` for the first invalid cell."""
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
    """Return a validated row of ``executions``."""
    row = ExecutionRow._make(cells)
    try:
        msgspec.convert(row, _RowTypes, builtin_types=_TAKEN_AS_IT_IS)
    except msgspec.ValidationError:
        _raise_for_wrong_cell(row)
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
    """Return all operations of ``row``, in order of start, and the deadlines of callbacks."""
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
    """Return the ids of the operations that the owner of the token has not read yet."""
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
    """Return consecutive operations of ``row``, in order of start, from place ``first`` on."""
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
    """Return lines of the history of ``row``, from line ``first`` on, with their rows' keys."""
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
    """Return the events of ``lines``, which begin at line ``first``."""
    base = row.number << PLACES
    operations = {key - base: _operation_at(row, key, record) for key, record in found}
    for key, line in lines:
        if line.place not in operations:
            why = f"expected a line of an operation, found none at {line.place}"
            raise UnreadableError(row.id, f"{key} of history, lines", why)
    return _encoding.events_of(first, [line for _, line in lines], operations, row.result)


def summary_of(cells: Sequence[Any], record: object) -> ExecutionSummary:
    """Return an execution's summary; ``record`` is its EXECUTION operation."""
    row = row_of(cells)
    return _encoding.summary_of(row, root_of(row, record))


def summary_for_list(cells: Sequence[Any], record: object) -> ExecutionSummary:
    """Return an execution's summary; if it can't be read, one with the cells that are valid."""
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
    """Return the start of an execution by its id, 0 if the id has no time."""
    try:
        return min(max(int(str(execution_id)[:12], 16), 0), LAST_MS)
    except ValueError:
        return 0
