"""The state machine of an execution: its operations, token, timers and log, and all changes.

Every change passes through `ExecutionState.put`, which numbers ends and collects the changes that
the owner of the token has not read, in the order of the last change. Timers are a heap in which a
void entry stays until it is reached, so no call costs more as the history grows.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pyworkflow._protocol.executions import (
    Committed,
    ExecutionStatus,
    ExecutionSummary,
    Invocation,
    Page,
)
from pyworkflow._protocol.moves import apply, apply_batch, apply_outside
from pyworkflow._protocol.records import (
    ErrorRecord,
    Milliseconds,
    Operation,
    OperationType,
    Status,
)
from pyworkflow._protocol.times import event_ms
from pyworkflow.errors import ServiceError, StaleTokenError
from pyworkflow.services.history import HistoryEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyworkflow._protocol.records import Update

_EXECUTION, _CALLBACK = OperationType.EXECUTION, OperationType.CALLBACK
_STEP, _WAIT = OperationType.STEP, OperationType.WAIT
_STARTED = Status.STARTED


class CallbackDeadlines(msgspec.Struct):
    """When an open callback times out; a heartbeat moves the second time."""

    timeout_ms: Milliseconds | None
    heartbeat_interval_ms: Milliseconds
    heartbeat_ms: Milliseconds | None = None

    @classmethod
    def of(cls, update: Update, now_ms: int) -> CallbackDeadlines:
        """Return the deadlines of a callback that ``update`` starts."""
        timeout_ms = now_ms + update.timeout_seconds * 1000 if update.timeout_seconds else None
        deadlines = cls(timeout_ms, (update.heartbeat_timeout_seconds or 0) * 1000)
        deadlines.beat(now_ms)
        return deadlines

    def beat(self, now_ms: int) -> None:
        if self.heartbeat_interval_ms:
            self.heartbeat_ms = now_ms + self.heartbeat_interval_ms

    def next_ms(self) -> int | None:
        return min(
            (ms for ms in (self.timeout_ms, self.heartbeat_ms) if ms is not None), default=None
        )

    def error(self, due_ms: int | None) -> ErrorRecord:
        """Return the error of a timeout at ``due_ms``; `None` is a heartbeat's."""
        if due_ms is not None and due_ms == self.timeout_ms:
            return ErrorRecord(message="Callback timed out", type="Callback.Timeout")
        return ErrorRecord(message="Callback timed out on heartbeat", type="Callback.Heartbeat")


class ExecutionState:
    """The state of an execution, and the only code that changes it."""

    __slots__ = (
        "_ends",
        "_timers",
        "deadline_ms",
        "deadlines",
        "id",
        "listed_ms",
        "log",
        "operations",
        "places",
        "rest",
        "result",
        "token",
        "tokens",
        "unread",
        "workflow_name",
    )

    def __init__(self, root: Operation, workflow_name: str) -> None:
        self.id = root.id
        self.workflow_name = workflow_name
        self.operations = {root.id: root}
        self.log = [HistoryEntry(root.start_ms, root)]
        self.unread: dict[str, None] = {}
        self.token: str | None = None
        self.rest: tuple[Operation, ...] = ()
        """The operations of the result that issued the token, if it has more than one page."""
        self.result: str | None = None
        self.deadlines: dict[str, CallbackDeadlines] = {}
        self.deadline_ms: int | None = None
        """When the execution itself times out."""
        self.listed_ms: int | None = None
        """The time at which the service's list of timers has this execution."""
        self._ends = 0
        self.places = {root.id: 0}
        """Each operation's place in the order of start."""
        self._timers: list[tuple[int, int, str]] = []
        self.tokens = 0
        """Number of tokens issued so far; it is part of the newest one."""

    @classmethod
    def restore(
        cls,
        workflow_name: str,
        operations: Sequence[Operation],
        deadlines: dict[str, CallbackDeadlines],
        *,
        tokens: int,
        unread: Iterable[str],
    ) -> ExecutionState:
        """Return a saved state, from ``operations`` in order of start; its log is empty."""
        state = cls(operations[0], workflow_name)
        state.log = []
        state.operations = {operation.id: operation for operation in operations}
        state.places = {operation_id: n for n, operation_id in enumerate(state.operations)}
        state.deadlines = deadlines
        state.tokens = tokens
        state.unread = dict.fromkeys(unread)
        state._ends = max(operation.sequence or 0 for operation in operations)
        if state.is_running:
            state.token = f"{state.id}:{tokens}" if tokens else None
            for operation in operations:
                state.set_timer(operation)
        return state

    @property
    def root(self) -> Operation:
        return self.operations[self.id]

    @property
    def is_running(self) -> bool:
        return self.root.status is _STARTED

    # -- changes ---------------------------------------------------------------------------------

    def put(self, time_ms: int, operation: Operation, update: Update | None = None) -> None:
        """Store the new record of an operation; every change passes through here."""
        operation_id = operation.id
        if operation.end_ms is not None:
            self._ends += 1
            operation = replace(operation, sequence=self._ends)
        if operation_id not in self.places:
            self.places[operation_id] = len(self.places)
        self.operations[operation_id] = operation
        unread = self.unread
        unread.pop(operation_id, None)
        unread[operation_id] = None
        self.log.append(HistoryEntry(time_ms, operation, update))

    def record(self, update: Update, operation: Operation, now_ms: int) -> None:
        """Store ``operation``, the result of a checked ``update``."""
        if update.type is _EXECUTION:
            self.result = update.payload
            self.close(now_ms, apply(update, self.root, now_ms), update)
            return
        if operation.type is _CALLBACK:
            operation = replace(operation, callback_id=f"{self.id}.{operation.id}")
            self.deadlines[operation.id] = CallbackDeadlines.of(update, now_ms)
        time_ms = operation.end_ms
        if time_ms is None:
            if operation.attempt_start_ms is None and operation.status is _STARTED:
                time_ms = operation.start_ms
            else:
                time_ms = event_ms(update, operation, now_ms)
        self.put(time_ms, operation, update)
        self.set_timer(operation)

    def commit(
        self, token: str, updates: Sequence[Update], now_ms: int, page_size: int
    ) -> Committed:
        """Fire due timers, apply ``updates`` atomically, and return what changed.

        Raises `StaleTokenError` and `InvalidUpdateError`, after which only due timers have fired.
        """
        self.fire(now_ms)
        self.check_token(token)
        results = apply_batch(
            updates, self.operations, now_ms, self.unread, self.operations[self.id].start_ms
        )
        for update, operation in zip(updates, results, strict=True):
            self.record(update, operation, now_ms)
        changes = self.take_changes()
        if self.token is None:
            return Committed(None, changes)
        next_token = self.issue(changes, page_size)
        if len(changes) <= page_size:
            return Committed(next_token, changes)
        page = self.page(changes, 0, page_size)
        return Committed(next_token, page.operations, page.marker)

    def close(self, now_ms: int, root: Operation, update: Update | None = None) -> None:
        """End the execution: its token becomes void, and no timer fires."""
        self.put(now_ms, root, update)
        self.token = None
        self.rest = ()
        self._timers.clear()
        self.deadline_ms = None

    # -- timers ----------------------------------------------------------------------------------

    def set_timer(self, operation: Operation) -> None:
        due_ms = self._due_ms(operation)
        if due_ms is not None:
            heappush(self._timers, (due_ms, self.places[operation.id], operation.id))

    def _due_ms(self, operation: Operation) -> int | None:
        if operation.type is _STEP:
            return operation.next_attempt_ms  # there while PENDING, and only then
        if operation.status is not _STARTED:
            return None
        if operation.type is _CALLBACK:
            return self.deadlines[operation.id].next_ms()
        return operation.scheduled_end_ms

    def next_due(self) -> int | None:
        """Return when the earliest valid timer is due, and drop void timers before it."""
        timers = self._timers
        while timers:
            due_ms, _, operation_id = timers[0]
            if self._due_ms(self.operations[operation_id]) == due_ms:
                return due_ms
            heappop(timers)
        return None

    def fire(self, now_ms: int) -> None:
        """Fire all due timers, ordered by due time, then by start; the execution's timeout last."""
        timers, deadline_ms = self._timers, self.deadline_ms
        if deadline_ms is not None and deadline_ms <= now_ms:
            self.deadline_ms = None
            self.fire(deadline_ms)
            error = ErrorRecord(message="Execution timed out", type="Execution.Timeout")
            root = apply_outside(self.root, Status.TIMED_OUT, deadline_ms, error=error)
            self.close(deadline_ms, root)
            return
        while timers and timers[0][0] <= now_ms:
            due_ms, _, operation_id = heappop(timers)
            operation = self.operations[operation_id]
            if self._due_ms(operation) != due_ms:
                continue
            if operation.type is _WAIT:
                fired = apply_outside(operation, Status.SUCCEEDED, due_ms)
            elif operation.type is _STEP:
                fired = apply_outside(operation, Status.READY, due_ms)
            else:
                error = self.deadlines[operation_id].error(due_ms)
                fired = apply_outside(operation, Status.TIMED_OUT, due_ms, error=error)
            self.put(due_ms, fired)

    # -- results ---------------------------------------------------------------------------------

    def check_token(self, token: str) -> None:
        if token != self.token:
            raise StaleTokenError(
                f"Execution {self.id!r}: expected the token that was issued last, found {token!r}, "
                f"which was used, replaced or ended with the execution ({self.root.status}); stop "
                "this invocation: another one continues"
            )

    def issue(self, operations: tuple[Operation, ...], page_size: int) -> str:
        """Return a new token, and store ``operations`` if they need more than one page."""
        self.tokens += 1
        token = self.token = f"{self.id}:{self.tokens}"
        self.rest = operations if len(operations) > page_size else ()
        return token

    def begin(self, page_size: int, max_payload_bytes: int | None) -> Invocation:
        """Return a new invocation with the whole history; every older token becomes void."""
        operations = tuple(self.operations.values())
        token, page = self.issue(operations, page_size), self.page(operations, 0, page_size)
        self.unread.clear()
        return Invocation(
            execution_id=self.id,
            execution_name=self.root.name or self.id,
            workflow_name=self.workflow_name,
            token=token,
            operations=page.operations,
            marker=page.marker,
            max_payload_bytes=max_payload_bytes,
            max_result_bytes=max_payload_bytes,
        )

    def page_at(self, token: str, marker: str, page_size: int) -> Page:
        """Return a further page of the result that issued ``token``."""
        self.check_token(token)
        start = int(marker) if marker.isdecimal() else 0
        if not 0 < start < len(self.rest):
            raise ServiceError(
                f"Execution {self.id!r}: expected a marker that was issued with the token, found "
                f"{marker!r}; read pages with the newest token"
            )
        return self.page(self.rest, start, page_size)

    def page(self, operations: tuple[Operation, ...], start: int, page_size: int) -> Page:
        end = start + page_size
        if len(operations) <= end:
            return Page(operations[start:] if start else operations)
        return Page(operations[start:end], str(end))

    def take_changes(self) -> tuple[Operation, ...]:
        operations = self.operations
        changes = tuple([operations[operation_id] for operation_id in self.unread])
        self.unread.clear()
        return changes

    def summary(self) -> ExecutionSummary:
        return summary_of(self.root, self.workflow_name, self.result)


def summary_of(root: Operation, workflow_name: str, result: str | None) -> ExecutionSummary:
    """Return an execution's summary; ``root`` is its EXECUTION operation."""
    running = root.status is _STARTED
    return ExecutionSummary(
        id=root.id,
        name=root.name or root.id,
        workflow_name=workflow_name,
        status=ExecutionStatus.RUNNING if running else ExecutionStatus(root.status),
        start_ms=root.start_ms,
        end_ms=root.end_ms,
        input_payload=root.payload or "",
        result=result,
        error=root.error,
    )
