"""The executions that a transaction changes: loaded once, saved as rows, cached between groups.

A *group* is what one transaction writes. Within it an execution is loaded once, changed as
`ExecutionState` says, and saved at the end: its changed operations, its new history, its row.
Nothing is reported to anyone until the transaction is committed. If it is rolled back, the
executions in it are dropped from memory and loaded again, so memory never runs ahead of the file.

Executions that this process claimed and has not released stay cached from group to group. Another
process may change them meanwhile: SQLite's data version says that another connection wrote, and the
version in the row says whether it changed this execution. Executions that nobody runs are not
cached, except for those started here most recently, until another connection writes.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyworkflow._protocol.moves import apply_outside
from pyworkflow._protocol.records import ErrorRecord, Operation, Status
from pyworkflow.errors import DamagedExecutionError
from pyworkflow.services._execution_state import ExecutionState
from pyworkflow.services.errors import not_found
from pyworkflow.services.sqlite import _encoding, _validation
from pyworkflow.services.sqlite._bounded_cache import BoundedCache
from pyworkflow.services.sqlite._cached_execution import CachedExecution
from pyworkflow.services.sqlite._errors import damaged
from pyworkflow.services.sqlite._validation import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow.services.sqlite._sql import Blob, SqlConnection

logger = logging.getLogger("pyworkflow.sqlite")

PUT_OFF_MS = 300_000
"""How long an execution that can't be read is deferred before the next attempt."""


class UnitOfWork:
    """The cached executions, and the group that is being written."""

    def __init__(self, sql: SqlConnection, path: str, now_ms: Callable[[], int]) -> None:
        self.sql = sql
        self.finished: BoundedCache[ExecutionSummary] = BoundedCache()
        """Executions that ended recently."""
        self._started: BoundedCache[CachedExecution] = BoundedCache()
        """Executions that were started here recently and have not begun."""
        self.has_changes = False
        """Whether a group has changed something that workers or waiting clients need to see."""
        self.others_wrote = False
        """Whether another connection has changed the file, in whatever way."""
        self._path = path
        self._now_ms = now_ms
        self._cached: dict[str, CachedExecution] = {}
        self._touched: dict[str, CachedExecution] = {}
        self._unverified: set[str] = set()
        self._logged: set[str] = set()
        """Executions that could not be read, each logged once."""
        self._data_version = sql.data_version()
        sql.check_form()  # not sooner: a change from now on is seen
        self._next_number: int | None = None

    # -- groups ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a group, which locks the file for other writers until it ends."""
        self.sql.begin()
        self.detect_other_writes()

    def detect_other_writes(self) -> None:
        """Check whether another connection has changed the file."""
        data_version = self.sql.data_version()
        if data_version != self._data_version:
            self.sql.check_form()  # first: if it raises now, it must raise again next time
            self._data_version = data_version
            self._unverified = set(self._cached)
            self._started.forget()
            self._next_number = None
            self.others_wrote = True

    def commit(self) -> None:
        """Save what the group changed and commit the transaction."""
        self.save()
        self.sql.commit()
        for execution_id, execution in self._touched.items():
            if execution.is_claimed and execution.state.token is not None:
                self._cached[execution_id] = execution
                continue
            self._cached.pop(execution_id, None)
            self._remember(execution)
        self._touched.clear()

    def _remember(self, execution: CachedExecution) -> None:
        """Cache what is usually needed soon of an execution that leaves the main cache."""
        state = execution.state
        root, length = state.root, len(state.root.payload or "")
        if execution.is_over:
            if root.error is None:
                self.finished.keep(root.id, execution.summary(), length + len(state.result or ""))
        elif not execution.tokens:
            self._started.keep(root.id, execution, length)

    def roll_back(self) -> None:
        """Roll back the group, in the file and in memory."""
        for execution_id in self._touched:
            self._cached.pop(execution_id, None)
        self._touched.clear()
        self._next_number = None
        self.sql.rollback()

    # -- executions ------------------------------------------------------------------------------

    def get(self, execution_id: str) -> CachedExecution:
        """Return the execution in its current state. Raises `ExecutionNotFoundError`."""
        execution = self._touched.get(execution_id)
        if execution is not None:
            return execution
        execution = self._cached.get(execution_id)
        if execution is not None and execution_id in self._unverified:
            if self.sql.version(execution.number) != execution.version:
                execution = self._load(execution_id, execution)
            self._unverified.discard(execution_id)  # not sooner: the file may fail to be read
        if execution is None:
            execution = self._started.take(execution_id) or self._load(execution_id, None)
        self._touched[execution_id] = execution
        return execution

    def _load(self, execution_id: str, known: CachedExecution | None) -> CachedExecution:
        found = self.sql.find(execution_id)
        if found is None:
            raise not_found(execution_id)
        try:
            row = _validation.row_of(found)
            operations, deadlines = _validation.operations_of(row, self.sql.operations(row.number))
            unread = _validation.unread_of(row, operations)
            if self.sql.has_lines_from(row.number, row.lines):
                raise UnreadableError(
                    row.id,
                    f"{row.number} of executions, lines",
                    f"expected the end of its history, found {row.lines}",
                )
        except UnreadableError as error:
            raise damaged(self._path, error) from error
        state = ExecutionState.restore(
            row.workflow, operations, deadlines, tokens=row.tokens, unread=unread
        )
        state.result = row.result
        state.deadline_ms = row.deadline_ms
        execution = CachedExecution.saved(row, state)
        if known is not None and known.state.token == state.token:
            state.rest = known.state.rest
            execution.is_claimed = True
        return execution

    @contextmanager
    def isolating(self, execution_id: str) -> Iterator[None]:
        """Confine damage to the execution: if it can't be read, only this one is deferred."""
        try:
            yield
        except DamagedExecutionError as error:
            self._touched.pop(execution_id, None)
            self._cached.pop(execution_id, None)
            problem = _encoding.encode(
                ErrorRecord(str(error), "pyworkflow.errors.DamagedExecutionError")
            )
            self.sql.put_off(execution_id, self._now_ms() + PUT_OFF_MS, problem)
            if execution_id not in self._logged:
                self._logged.add(execution_id)
                logger.error(
                    "%s; it is retried every %d s, and others continue", error, PUT_OFF_MS // 1000
                )

    def named(self, workflow: str, name: str) -> tuple[str, str | None] | None:
        """Return the id and the input of the execution with that name, or `None`."""
        self.save()
        found = self.sql.named(workflow, name)
        if found is None:
            return None
        row, record = found
        try:
            summary = _validation.summary_of(row, record)
        except UnreadableError as error:
            raise damaged(self._path, error) from error
        return summary.id, summary.input_payload

    def add(
        self,
        root: Operation,
        workflow: str,
        *,
        deadline_ms: int | None = None,
        parent: tuple[str, str] | tuple[None, None] = (None, None),
    ) -> None:
        """Add a new execution, which is due now."""
        self.has_changes = True
        state = ExecutionState(root, workflow)
        state.deadline_ms = deadline_ms
        number = self.sql.next_number() if self._next_number is None else self._next_number
        self._next_number = number + 1
        self._touched[root.id] = CachedExecution(number, state, parent)

    # -- saving ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write all changes, so that queries see them."""
        # An execution with a token is running, so it has no end to carry to its parent.
        touched = self._touched.values()
        for execution in [each for each in touched if each.state.token is None]:
            self.settle(execution)
        changed = [each for each in self._touched.values() if each.is_changed]
        if not changed:
            return
        now_ms, sql = self._now_ms(), self.sql
        operations: list[tuple[int, Blob, Blob]] = []
        lines: list[tuple[int, Blob]] = []
        starts, unmoved, schedules, ends = [], [], [], []
        for execution in changed:
            is_rescheduled = self._place(execution, now_ms)
            execution.take_rows(operations, lines)
            if execution.is_new:
                starts.append(execution.take_start())
                if not is_rescheduled:
                    continue
            progress = execution.take_progress()
            if not is_rescheduled:
                unmoved.append((*progress, execution.number))
            elif execution.is_over:
                ends.append((*progress, *execution.end(), execution.number))
            else:
                schedules.append((*progress, *execution.schedule(), execution.number))
        sql.put_starts(starts)
        sql.put_operations(operations)
        sql.put_lines(lines)
        sql.put_progress(unmoved)
        sql.put_schedules(schedules)
        sql.put_ends(ends)

    def settle(self, execution: CachedExecution) -> None:
        """If the execution is over, carry its end to the execution that invoked it."""
        state = execution.state
        if execution.is_over or state.is_running:
            return
        parent_id, operation_id = execution.parent
        if parent_id is None or operation_id is None:
            execution.is_over = execution.is_rescheduled = True
            return
        # First: an execution whose parent can't be read must not be saved as over.
        parent, root = self.get(parent_id), state.root
        operation = parent.state.operations.get(operation_id)
        if operation is None:
            why = f"it has no operation {operation_id!r}, which invoked {root.id!r}"
            raise damaged(self._path, f"the execution {parent_id!r} can't be read: {why}")
        execution.is_over = execution.is_rescheduled = True
        parent.state.fire(self._now_ms())
        if parent.state.is_running and operation.status is Status.STARTED:
            ended = apply_outside(
                operation,
                root.status,
                root.end_ms or self._now_ms(),
                payload=state.result,
                error=root.error,
            )
            parent.state.put(ended.end_ms or 0, ended)
        self.settle(parent)

    def _place(self, execution: CachedExecution, now_ms: int) -> bool:
        """Update when it is due; return whether the schedule has to be written."""
        if execution.is_over:
            execution.owner = execution.not_before_ms = None
        if execution.is_over or execution.state.unread:
            self.has_changes = True
        elif execution.owner is not None and not execution.is_rescheduled:
            return False
        wake_ms = execution.next_wake(now_ms)
        if wake_ms == execution.wake_ms and not execution.is_rescheduled:
            return False
        execution.wake_ms = wake_ms
        execution.is_rescheduled = False
        return True


def ids(found: Iterable[tuple[str]]) -> list[str]:
    """Return the ids, the only column of ``found``."""
    return [execution_id for (execution_id,) in found]
