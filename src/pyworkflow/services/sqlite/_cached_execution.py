"""A cached execution: its state, its scheduling columns, and the rows that a save writes.

It knows what changed since the last save: `is_changed` says whether there is anything to write, and
each ``take_*`` method returns rows and marks them as written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow.services._scheduling import Scheduled
from pyworkflow.services.sqlite import _encoding
from pyworkflow.services.sqlite._encoding import PLACES
from pyworkflow.services.sqlite._sql import NULL

if TYPE_CHECKING:
    from pyworkflow._protocol.executions import ExecutionSummary, InvokedNames
    from pyworkflow._protocol.records import ErrorRecord, Operation
    from pyworkflow.services._execution_state import ExecutionState
    from pyworkflow.services.sqlite._encoding import ExecutionRow
    from pyworkflow.services.sqlite._sql import Blob


class CachedExecution(Scheduled):
    """An execution's state plus its scheduling columns. A new instance is unsaved and due now."""

    __slots__ = (
        "heartbeats",
        "invoked",
        "is_claimed",
        "is_new",
        "is_rescheduled",
        "lines",
        "number",
        "parent",
        "tokens",
        "version",
    )

    def __init__(
        self, number: int, state: ExecutionState, parent: tuple[str | None, str | None]
    ) -> None:
        super().__init__(state)
        self.wake_ms = state.root.start_ms
        self.number = number
        self.parent = parent
        """The ids of the execution that invoked it and of the operation that did."""
        self.invoked: InvokedNames | None = None
        """The names of the executions that it invoked; set when it invokes another one."""
        self.version = 1
        self.lines = 0
        self.tokens = 0
        """Number of tokens that were issued by the last save."""
        self.is_new = True
        """Whether it has no row yet."""
        self.is_claimed = False
        """Whether this process issued the token."""
        self.is_rescheduled = False
        """Whether its owner, or when it is due, has changed."""
        self.heartbeats: list[Operation] = []
        """Callbacks whose deadline was extended."""

    @classmethod
    def saved(cls, row: ExecutionRow, state: ExecutionState) -> CachedExecution:
        """Return the execution that ``row`` and its operations describe."""
        execution = cls(row.number, state, (row.parent_id, row.parent_operation))
        execution.version = row.version
        execution.lines = row.lines
        execution.tokens = row.tokens
        execution.owner = row.owner
        execution.wake_ms = row.wake_ms
        execution.not_before_ms = row.not_before_ms
        execution.failed_invocations = row.troubles
        execution.losses = row.losses or 0
        execution.problem = None if row.problem is None else _encoding.decode_error(row.problem)
        execution.is_new = False
        execution.is_over = not state.is_running
        return execution

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to save."""
        state = self.state
        return bool(
            state.log or self.is_rescheduled or self.heartbeats or state.tokens != self.tokens
        )

    def summary(self) -> ExecutionSummary:
        """Return the execution's summary."""
        return replace(
            self.state.summary(),
            wake_ms=self.wake_ms,
            problem=self.problem,
            failed_invocations=self.failed_invocations,
        )

    # -- changes ---------------------------------------------------------------------------------

    def lose(self, problem: ErrorRecord, due_ms: int) -> None:
        """Do as `postpone`, for an execution that may have killed its process."""
        self.losses += 1
        self.postpone(problem, due_ms)

    def free(self, due_ms: int | None = None) -> None:
        """Take it from its owner, whose token is void from now on."""
        super().free(due_ms)
        self.is_claimed = False
        self.is_rescheduled = True

    # -- rows ------------------------------------------------------------------------------------

    def take_rows(
        self, operations: list[tuple[int, Blob, Blob]], lines: list[tuple[int, Blob]]
    ) -> None:
        """Append a row for each changed operation, and one for the new lines of history."""
        state, base = self.state, self.number << PLACES
        places, deadlines = state.places, state.deadlines
        entries, state.log = state.log, []
        changed = {}
        if self.heartbeats:
            # First: the end of a callback, which is newer than its heartbeat, must replace it.
            changed = {operation.id: operation for operation in self.heartbeats}
            self.heartbeats = []
        changed.update((entry.operation.id, entry.operation) for entry in entries)
        for operation_id, operation in changed.items():
            times = _blob(deadlines.get(operation_id)) if deadlines else NULL
            operations.append((base | places[operation_id], _encoding.encode(operation), times))
        new_lines = _encoding.lines_of(entries, places)
        if new_lines:
            lines.append((base | self.lines, _encoding.encode(new_lines)))
            self.lines += len(new_lines)

    def take_start(self) -> tuple[int | str, ...]:
        """Return the row of a new execution."""
        self.is_new = False
        state, (parent_id, parent_operation) = self.state, self.parent
        root = state.root
        return (
            self.number,
            root.id,
            state.workflow_name,
            root.name or root.id,
            self.lines,
            root.start_ms,
            root.start_ms,
            _time(state.deadline_ms),
            parent_id or NULL,
            parent_operation or NULL,
        )

    def take_progress(self) -> tuple[int, int, int, Blob]:
        """Return the columns that each checkpoint changes."""
        state = self.state
        self.version += 1
        self.tokens = state.tokens
        unread = _encoding.encode(list(state.unread)) if state.unread and state.is_running else NULL
        return self.version, self.tokens, self.lines, unread

    def schedule(self) -> tuple[int | Blob, ...]:
        """Return the columns of a running execution's owner and due times."""
        return (
            self.owner or NULL,
            1 if self.owner else 0,
            _time(self.wake_ms),
            _time(self.not_before_ms),
            _time(self.state.deadline_ms),
            self.failed_invocations,
            self.losses,
            _blob(self.problem),
        )

    def end(self) -> tuple[int | Blob | None, ...]:
        """Return the columns of the execution's end."""
        state = self.state
        return str(state.root.status), self.failed_invocations, _blob(self.problem), state.result


def _time(time_ms: int | None) -> int | str:
    return NULL if time_ms is None else time_ms


def _blob(record: object) -> Blob:
    return NULL if record is None else _encoding.encode(record)
