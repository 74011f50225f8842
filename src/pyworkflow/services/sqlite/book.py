"""The executions that are being written: held in memory while somebody runs them, saved as rows.

A *group* is what one transaction writes. Within it an execution is loaded once, changed as
`ExecutionState` says, and saved at the end: its changed operations, its new history, its row. Until
the transaction is committed nobody is told of any of it; if it is undone, what it touched is
forgotten and loaded anew, so memory never runs ahead of the file.

What is held from group to group is what this process claimed and has not released. Another process
may change it meanwhile: SQLite tells that somebody else wrote, and the version in the row tells
whether it was this execution. An execution that nobody runs is not held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pyworkflow._engine.records import ErrorRecord, Operation, Status
from pyworkflow._engine.transitions import apply_outside
from pyworkflow.services._refusals import not_found
from pyworkflow.services._state import ExecutionState
from pyworkflow.services.events import Entry
from pyworkflow.services.sqlite import rows
from pyworkflow.services.sqlite.faults import damaged
from pyworkflow.services.sqlite.finished import Finished
from pyworkflow.services.sqlite.rows import PLACES, ExecutionRow
from pyworkflow.services.sqlite.store import NULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyworkflow.services.base import ExecutionSummary
    from pyworkflow.services.sqlite.store import Blob, Store


class Held:
    """An execution's state, with what its row says beyond that."""

    __slots__ = (
        "beaten",
        "has_moved",
        "is_claimed",
        "is_over",
        "lines",
        "not_before_ms",
        "number",
        "owner",
        "parent",
        "problem",
        "state",
        "tokens",
        "troubles",
        "version",
        "wake_ms",
    )

    def __init__(self, row: ExecutionRow, state: ExecutionState) -> None:
        self.number = row.number
        self.version = row.version
        self.lines = row.lines
        self.tokens = row.tokens
        """How many tokens were issued when it was saved last."""
        self.owner = row.owner
        self.wake_ms = row.wake_ms
        self.not_before_ms = row.not_before_ms
        """Not due sooner, whatever happens, and due then: the first time, and after a trouble."""
        self.troubles = row.troubles
        self.problem = None if row.problem is None else rows.decode_error(row.problem)
        self.parent = row.parent_id, row.parent_operation
        self.state = state
        self.is_over = not state.is_running
        """Whether it was over when it was saved last."""
        self.is_claimed = False
        """Whether this process issued the token."""
        self.has_moved = False
        """Whether its owner, or when it is due, has changed."""
        self.beaten: list[Operation] = []
        """Callbacks with a new deadline."""

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to save."""
        state = self.state
        return bool(state.log or self.has_moved or self.beaten or state.tokens != self.tokens)

    def summary(self) -> ExecutionSummary:
        """Return how the execution stands."""
        return replace(
            self.state.summary(),
            wake_ms=self.wake_ms,
            problem=self.problem,
            troubles=self.troubles,
        )

    def trouble(self, problem: ErrorRecord, due_ms: int) -> None:
        """Take it from its owner, to be due at ``due_ms`` and not before."""
        self.troubles += 1
        self.problem = problem
        self.free(due_ms)

    def free(self, due_ms: int | None = None) -> None:
        """Take it from its owner, whose token is void from now on."""
        self.owner = None
        self.not_before_ms = due_ms
        self.state.tokens += 1
        self.state.token = None
        self.is_claimed = False
        self.has_moved = True

    def next_wake(self, now_ms: int) -> int | None:
        """Return when somebody has to go on with it."""
        state = self.state
        if self.owner is not None or not state.is_running:
            return None
        if self.not_before_ms is not None:
            return self.not_before_ms
        return now_ms if state.unread else state.next_due()


class Book:
    """What is held, and the group that is being written."""

    def __init__(self, store: Store, path: str, now_ms: Callable[[], int]) -> None:
        self.store = store
        self.finished = Finished()
        self.has_news = False
        """Whether a group has changed what workers and waiting clients look at."""
        self.others_wrote = False
        """Whether another connection has changed the file: what it changed is not known."""
        self._path = path
        self._now_ms = now_ms
        self._held: dict[str, Held] = {}
        self._touched: dict[str, Held] = {}
        self._doubtful: set[str] = set()
        self._data_version = store.data_version()

    # -- groups ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a group: the file is ours until it ends."""
        self.store.begin()
        self.look_around()

    def look_around(self) -> None:
        """See whether another connection has changed the file."""
        data_version = self.store.data_version()
        if data_version != self._data_version:
            self._data_version = data_version
            self._doubtful = set(self._held)
            self.others_wrote = True

    def commit(self) -> None:
        """Save what the group changed, durably."""
        self.save()
        self.store.commit()
        for execution_id, held in self._touched.items():
            if held.is_claimed and held.state.token is not None:
                self._held[execution_id] = held
                continue
            self._held.pop(execution_id, None)
            if held.is_over:
                self.finished.keep(held.summary())
        self._touched.clear()

    def roll_back(self) -> None:
        """Undo the group, in the file and in memory."""
        for execution_id in self._touched:
            self._held.pop(execution_id, None)
        self._touched.clear()
        self.store.rollback()

    # -- executions ------------------------------------------------------------------------------

    def hold(self, execution_id: str) -> Held:
        """Return the execution, as the file has it. Raises `ExecutionNotFoundError`."""
        held = self._touched.get(execution_id)
        if held is not None:
            return held
        held = self._held.get(execution_id)
        if held is not None and execution_id in self._doubtful:
            self._doubtful.discard(execution_id)
            if self.store.version(held.number) != held.version:
                held = self._load(execution_id, held)
        if held is None:
            held = self._load(execution_id, None)
        self._touched[execution_id] = held
        return held

    def _load(self, execution_id: str, known: Held | None) -> Held:
        row = self.store.find(execution_id)
        if row is None:
            raise not_found(execution_id)
        operations: list[Operation] = []
        deadlines = {}
        try:
            for record, times in self.store.operations(row.number):
                operation = rows.decode_operation(record)
                operations.append(operation)
                if times is not None:
                    deadlines[operation.id] = rows.decode_deadlines(times)
            state = ExecutionState.restore(
                row.workflow,
                operations,
                deadlines,
                tokens=row.tokens,
                unread=() if row.unread is None else rows.decode_ids(row.unread),
            )
            state.result = row.result
            state.deadline_ms = row.deadline_ms
            held = Held(row, state)
        except (msgspec.MsgspecError, UnicodeDecodeError, LookupError) as error:
            raise damaged(self._path, f"the execution {execution_id!r}") from error
        if known is not None and known.state.token == state.token:
            state.rest = known.state.rest
            held.is_claimed = True
        return held

    def add(
        self,
        root: Operation,
        workflow: str,
        *,
        deadline_ms: int | None = None,
        parent: tuple[str, str] | None = None,
    ) -> None:
        """Add an execution that is due at once."""
        self.has_news = True
        start_ms = root.start_ms
        lines = rows.lines_of([Entry(start_ms, root)], {root.id: 0})
        times = (start_ms, start_ms, _time(deadline_ms))
        parent_of = (NULL, NULL) if parent is None else parent
        number = self.store.add(
            (root.id, workflow, root.name or root.id, len(lines), *times, *parent_of)
        )
        self.store.put_operations([(number << PLACES, rows.encode(root), NULL)])
        self.store.put_lines([(number << PLACES, rows.encode(lines))])

    # -- saving ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write all that has changed, so that queries see it, too."""
        for held in list(self._touched.values()):
            self._settle(held)
        changed = [held for held in self._touched.values() if held.is_changed]
        if not changed:
            return
        now_ms, store = self._now_ms(), self.store
        operations: list[tuple[int, Blob, Blob]] = []
        lines: list[tuple[int, Blob]] = []
        unmoved, standing, ends = [], [], []
        for held in changed:
            has_moved = self._place(held, now_ms)
            _take_rows(held, operations, lines)
            progress = _take_progress(held)
            if not has_moved:
                unmoved.append((*progress, held.number))
            elif held.is_over:
                ends.append((*progress, *_end(held), held.number))
            else:
                standing.append((*progress, *_standing(held), held.number))
        store.put_operations(operations)
        store.put_lines(lines)
        store.put_progress(unmoved)
        store.put_standing(standing)
        store.put_ends(ends)

    def _settle(self, held: Held) -> None:
        """Carry the end of an execution to the one that invoked it."""
        state = held.state
        if held.is_over or state.is_running:
            return
        held.is_over = held.has_moved = True
        parent_id, operation_id = held.parent
        if parent_id is None or operation_id is None:
            return
        parent, root = self.hold(parent_id), state.root
        parent.state.fire(self._now_ms())
        if parent.state.is_running:
            operation = parent.state.operations[operation_id]
            if operation.status is Status.STARTED:
                ended = apply_outside(
                    operation,
                    root.status,
                    root.end_ms or self._now_ms(),
                    payload=state.result,
                    error=root.error,
                )
                parent.state.put(ended.end_ms or 0, ended)
        self._settle(parent)

    def _place(self, held: Held, now_ms: int) -> bool:
        """Return whether the row's standing has to be written."""
        if held.is_over:
            held.owner = held.not_before_ms = None
        if held.is_over or held.state.unread:
            self.has_news = True
        elif held.owner is not None and not held.has_moved:
            return False
        wake_ms = held.next_wake(now_ms)
        if wake_ms == held.wake_ms and not held.has_moved:
            return False
        held.wake_ms = wake_ms
        held.has_moved = False
        return True


def _take_rows(
    held: Held, operations: list[tuple[int, Blob, Blob]], lines: list[tuple[int, Blob]]
) -> None:
    """Add the rows of what has changed, an operation's once, and its new history."""
    state, base = held.state, held.number << PLACES
    places, deadlines = state.places, state.deadlines
    entries, state.log = state.log, []
    changed = {entry.operation.id: entry.operation for entry in entries}
    if held.beaten:
        changed.update((operation.id, operation) for operation in held.beaten)
        held.beaten = []
    for operation_id, operation in changed.items():
        times = deadlines.get(operation_id)
        row = base | places[operation_id], rows.encode(operation), _blob(times)
        operations.append(row)
    new_lines = rows.lines_of(entries, places)
    if new_lines:
        lines.append((base | held.lines, rows.encode(new_lines)))
        held.lines += len(new_lines)


def _take_progress(held: Held) -> tuple[int, int, int, Blob]:
    state = held.state
    held.version += 1
    held.tokens = state.tokens
    unread = rows.encode(list(state.unread)) if state.unread and state.is_running else NULL
    return held.version, held.tokens, held.lines, unread


def _standing(held: Held) -> tuple[int | Blob, ...]:
    return (
        held.owner or NULL,
        1 if held.owner else 0,
        _time(held.wake_ms),
        _time(held.not_before_ms),
        _time(held.state.deadline_ms),
        held.troubles,
        _blob(held.problem),
    )


def _end(held: Held) -> tuple[int | Blob | None, ...]:
    state = held.state
    return str(state.root.status), held.troubles, _blob(held.problem), state.result


def _time(time_ms: int | None) -> int | str:
    return NULL if time_ms is None else time_ms


def _blob(record: object) -> Blob:
    return NULL if record is None else rows.encode(record)


def ids(found: Iterable[tuple[str]]) -> list[str]:
    """Return the first column."""
    return [execution_id for (execution_id,) in found]
