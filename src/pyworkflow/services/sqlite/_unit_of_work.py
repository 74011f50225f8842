"""The executions that are being written: held in memory while somebody runs them, saved as rows.

A *group* is what one transaction writes. Within it an execution is loaded once, changed as
`ExecutionState` says, and saved at the end: its changed operations, its new history, its row. Until
the transaction is committed nobody is told of any of it; if it is undone, what it touched is
forgotten and loaded anew, so memory never runs ahead of the file.

What is held from group to group is what this process claimed and has not released. Another process
may change it meanwhile: SQLite tells that somebody else wrote, and the version in the row tells
whether it was this execution. An execution that nobody runs is not held, but for the last that were
started here, until somebody else writes.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyworkflow._protocol.moves import apply_outside
from pyworkflow._protocol.records import ErrorRecord, Operation, Status
from pyworkflow.errors import DamagedExecutionError
from pyworkflow.services._errors import not_found
from pyworkflow.services._execution_state import ExecutionState
from pyworkflow.services.sqlite import _encoding, _validation
from pyworkflow.services.sqlite._cached_execution import Held
from pyworkflow.services.sqlite._errors import damaged
from pyworkflow.services.sqlite._lru import Recent
from pyworkflow.services.sqlite._validation import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow.services.sqlite._sql import Blob, Store

logger = logging.getLogger("pyworkflow.sqlite")

PUT_OFF_MS = 300_000
"""How long an execution that can't be read is left alone, until it is tried again."""


class Book:
    """What is held, and the group that is being written."""

    def __init__(self, store: Store, path: str, now_ms: Callable[[], int]) -> None:
        self.store = store
        self.finished: Recent[ExecutionSummary] = Recent()
        """The last that ended."""
        self._started: Recent[Held] = Recent()
        """The last that were started here and that nobody has begun."""
        self.has_news = False
        """Whether a group has changed what workers and waiting clients look at."""
        self.others_wrote = False
        """Whether another connection has changed the file: what it changed is not known."""
        self._path = path
        self._now_ms = now_ms
        self._held: dict[str, Held] = {}
        self._touched: dict[str, Held] = {}
        self._doubtful: set[str] = set()
        self._told: set[str] = set()
        """Those that could not be read, of which the log tells once."""
        self._data_version = store.data_version()
        store.check_form()  # not sooner: a change from now on is seen
        self._next_number: int | None = None

    # -- groups ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a group: the file is ours until it ends."""
        self.store.begin()
        self.look_around()

    def look_around(self) -> None:
        """See whether another connection has changed the file."""
        data_version = self.store.data_version()
        if data_version != self._data_version:
            self.store.check_form()  # first: what is refused now is refused the next time, too
            self._data_version = data_version
            self._doubtful = set(self._held)
            self._started.forget()
            self._next_number = None
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
            self._let_go(held)
        self._touched.clear()

    def _let_go(self, held: Held) -> None:
        """Keep what is asked for soon, as a rule, of an execution that is not held any more."""
        state = held.state
        root, length = state.root, len(state.root.payload or "")
        if held.is_over:
            if root.error is None:
                self.finished.keep(root.id, held.summary(), length + len(state.result or ""))
        elif not held.tokens:
            self._started.keep(root.id, held, length)

    def roll_back(self) -> None:
        """Undo the group, in the file and in memory."""
        for execution_id in self._touched:
            self._held.pop(execution_id, None)
        self._touched.clear()
        self._next_number = None
        self.store.rollback()

    # -- executions ------------------------------------------------------------------------------

    def hold(self, execution_id: str) -> Held:
        """Return the execution, as the file has it. Raises `ExecutionNotFoundError`."""
        held = self._touched.get(execution_id)
        if held is not None:
            return held
        held = self._held.get(execution_id)
        if held is not None and execution_id in self._doubtful:
            if self.store.version(held.number) != held.version:
                held = self._load(execution_id, held)
            self._doubtful.discard(execution_id)  # not sooner: the file may fail to be read
        if held is None:
            held = self._started.take(execution_id) or self._load(execution_id, None)
        self._touched[execution_id] = held
        return held

    def _load(self, execution_id: str, known: Held | None) -> Held:
        found = self.store.find(execution_id)
        if found is None:
            raise not_found(execution_id)
        try:
            row = _validation.row_of(found)
            operations, deadlines = _validation.operations_of(
                row, self.store.operations(row.number)
            )
            unread = _validation.unread_of(row, operations)
            if self.store.has_lines_from(row.number, row.lines):
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
        held = Held.saved(row, state)
        if known is not None and known.state.token == state.token:
            state.rest = known.state.rest
            held.is_claimed = True
        return held

    @contextmanager
    def sparing(self, execution_id: str) -> Iterator[None]:
        """Do what concerns one execution. It is put off, and no other, when it can't be read."""
        try:
            yield
        except DamagedExecutionError as error:
            self._touched.pop(execution_id, None)
            self._held.pop(execution_id, None)
            problem = _encoding.encode(
                ErrorRecord(str(error), "pyworkflow.errors.DamagedExecutionError")
            )
            self.store.put_off(execution_id, self._now_ms() + PUT_OFF_MS, problem)
            if execution_id not in self._told:
                self._told.add(execution_id)
                logger.error(
                    "%s; it is tried again every %d s, and others go on", error, PUT_OFF_MS // 1000
                )

    def named(self, workflow: str, name: str) -> tuple[str, str | None] | None:
        """Return the id and the input of the execution with that name, if there is one."""
        self.save()
        found = self.store.named(workflow, name)
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
        """Add an execution that is due at once."""
        self.has_news = True
        state = ExecutionState(root, workflow)
        state.deadline_ms = deadline_ms
        number = self.store.next_number() if self._next_number is None else self._next_number
        self._next_number = number + 1
        self._touched[root.id] = Held(number, state, parent)

    # -- saving ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write all that has changed, so that queries see it, too."""
        # One that has a token runs, and so has no end to carry on.
        for held in [held for held in self._touched.values() if held.state.token is None]:
            self.settle(held)
        changed = [held for held in self._touched.values() if held.is_changed]
        if not changed:
            return
        now_ms, store = self._now_ms(), self.store
        operations: list[tuple[int, Blob, Blob]] = []
        lines: list[tuple[int, Blob]] = []
        starts, unmoved, standing, ends = [], [], [], []
        for held in changed:
            has_moved = self._place(held, now_ms)
            held.take_rows(operations, lines)
            if held.is_new:
                starts.append(held.take_start())
                if not has_moved:
                    continue
            progress = held.take_progress()
            if not has_moved:
                unmoved.append((*progress, held.number))
            elif held.is_over:
                ends.append((*progress, *held.end(), held.number))
            else:
                standing.append((*progress, *held.standing(), held.number))
        store.put_starts(starts)
        store.put_operations(operations)
        store.put_lines(lines)
        store.put_progress(unmoved)
        store.put_standing(standing)
        store.put_ends(ends)

    def settle(self, held: Held) -> None:
        """Carry the end of an execution, if that is over, to the one that invoked it."""
        state = held.state
        if held.is_over or state.is_running:
            return
        parent_id, operation_id = held.parent
        if parent_id is None or operation_id is None:
            held.is_over = held.has_moved = True
            return
        # First: one whose parent can't be read must not be saved as over.
        parent, root = self.hold(parent_id), state.root
        operation = parent.state.operations.get(operation_id)
        if operation is None:
            why = f"it has no operation {operation_id!r}, which invoked {root.id!r}"
            raise damaged(self._path, f"the execution {parent_id!r} can't be read: {why}")
        held.is_over = held.has_moved = True
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


def ids(found: Iterable[tuple[str]]) -> list[str]:
    """Return the first column."""
    return [execution_id for (execution_id,) in found]
