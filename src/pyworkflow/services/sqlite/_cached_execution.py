"""One execution in memory: its state, what its row says beyond that, and the rows that come of it.

What changed since it was saved last is known here: `is_changed` tells whether anything did, and
each ``take`` hands the rows over and counts them as written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow.services.sqlite import _encoding
from pyworkflow.services.sqlite._encoding import PLACES
from pyworkflow.services.sqlite._sql import NULL

if TYPE_CHECKING:
    from pyworkflow._protocol.executions import ExecutionSummary, InvokedNames
    from pyworkflow._protocol.records import ErrorRecord, Operation
    from pyworkflow.services._execution_state import ExecutionState
    from pyworkflow.services.sqlite._encoding import ExecutionRow
    from pyworkflow.services.sqlite._sql import Blob


class CachedExecution:
    """An execution's state, with what its row says beyond that. Made, it is new and due at once."""

    __slots__ = (
        "failed_invocations",
        "heartbeats",
        "invoked",
        "is_claimed",
        "is_new",
        "is_over",
        "is_rescheduled",
        "lines",
        "losses",
        "not_before_ms",
        "number",
        "owner",
        "parent",
        "problem",
        "state",
        "tokens",
        "version",
        "wake_ms",
    )

    def __init__(
        self, number: int, state: ExecutionState, parent: tuple[str | None, str | None]
    ) -> None:
        self.number = number
        self.state = state
        self.parent = parent
        self.invoked: InvokedNames | None = None
        """The names of those that it invoked, once it invokes one more."""
        self.version = 1
        self.lines = 0
        self.tokens = 0
        """How many tokens were issued when it was saved last."""
        self.owner: str | None = None
        self.wake_ms: int | None = state.root.start_ms
        self.not_before_ms: int | None = state.root.start_ms
        """Not due sooner, whatever happens, and due then: the first time, and after a trouble."""
        self.failed_invocations = 0
        self.losses = 0
        """How many processes in a row died, or left it, while it was theirs."""
        self.problem: ErrorRecord | None = None
        self.is_new = True
        """Whether it has no row yet."""
        self.is_over = False
        """Whether it was over when it was saved last."""
        self.is_claimed = False
        """Whether this process issued the token."""
        self.is_rescheduled = False
        """Whether its owner, or when it is due, has changed."""
        self.heartbeats: list[Operation] = []
        """Callbacks with a new deadline."""

    @classmethod
    def saved(cls, row: ExecutionRow, state: ExecutionState) -> CachedExecution:
        """Return the execution as it was saved."""
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
        """Return how the execution stands."""
        return replace(
            self.state.summary(),
            wake_ms=self.wake_ms,
            problem=self.problem,
            failed_invocations=self.failed_invocations,
        )

    # -- changes ---------------------------------------------------------------------------------

    def postpone(self, problem: ErrorRecord, due_ms: int) -> None:
        """Take it from its owner, to be due at ``due_ms`` and not before."""
        self.failed_invocations += 1
        self.problem = problem
        self.free(due_ms)

    def lose(self, problem: ErrorRecord, due_ms: int) -> None:
        """Do as `trouble`, for one that may be what ended its process."""
        self.losses += 1
        self.postpone(problem, due_ms)

    def free(self, due_ms: int | None = None) -> None:
        """Take it from its owner, whose token is void from now on."""
        self.owner = None
        self.not_before_ms = due_ms
        self.state.tokens += 1
        self.state.token = None
        self.is_claimed = False
        self.is_rescheduled = True

    def next_wake(self, now_ms: int) -> int | None:
        """Return when somebody has to go on with it."""
        state = self.state
        if self.owner is not None or not state.is_running:
            return None
        if self.not_before_ms is not None:
            return self.not_before_ms
        return now_ms if state.unread else state.next_due()

    # -- rows ------------------------------------------------------------------------------------

    def take_rows(
        self, operations: list[tuple[int, Blob, Blob]], lines: list[tuple[int, Blob]]
    ) -> None:
        """Add the rows of what has changed, an operation's once, and its new history."""
        state, base = self.state, self.number << PLACES
        places, deadlines = state.places, state.deadlines
        entries, state.log = state.log, []
        changed = {}
        if self.heartbeats:
            # Before the rest: what happened after the heartbeat, an end, is the newer record.
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
        """Return what each checkpoint changes in the row."""
        state = self.state
        self.version += 1
        self.tokens = state.tokens
        unread = _encoding.encode(list(state.unread)) if state.unread and state.is_running else NULL
        return self.version, self.tokens, self.lines, unread

    def schedule(self) -> tuple[int | Blob, ...]:
        """Return who has a running execution, and when it is due."""
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
        """Return how it ended."""
        state = self.state
        return str(state.root.status), self.failed_invocations, _blob(self.problem), state.result


def _time(time_ms: int | None) -> int | str:
    return NULL if time_ms is None else time_ms


def _blob(record: object) -> Blob:
    return NULL if record is None else _encoding.encode(record)
