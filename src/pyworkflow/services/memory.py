"""The reference service: executions in dicts, with the time of a given callable.

`ImmediateMemoryService` is the protocol without waiting; its caller is the only worker, as the mock
is. `MemoryService` adds leases and a lock, and implements all three ports.

Due timers fire before anything else is done with an execution. So the end of a timer precedes the
ends of the batch that found it, and has the time at which it was due. Every end takes the
execution's next sequence number. The cost of a commit does not depend on the history's length.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow._protocol.executions import (
    Committed,
    ExecutionStatus,
    ExecutionSummary,
    Invocation,
    Page,
    Paged,
)
from pyworkflow._protocol.limits import PAGE_OPERATIONS, check_size
from pyworkflow._protocol.moves import apply_outside
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
)
from pyworkflow.errors import ExecutionNotFoundError, InvalidUpdateError, ServiceError
from pyworkflow.services import _external_events, processes
from pyworkflow.services._execution_state import ExecutionState
from pyworkflow.services._listing import Wanted, number_of, page_of
from pyworkflow.services._memory_queue import MemoryQueue, QueuedExecution
from pyworkflow.services._scheduling import new_root
from pyworkflow.services.errors import (
    already_started,
    check_execution_name,
    no_backup,
    not_found,
    unknown_callback,
)
from pyworkflow.services.history import HistoryEvent, build_events
from pyworkflow.services.port import LIST_LIMIT, PAGE_LIMIT, Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Unpack

    from pyworkflow._protocol.executions import Filters
    from pyworkflow._protocol.records import Update

logger = logging.getLogger("pyworkflow.memory")

_STARTED = Status.STARTED


class ImmediateMemoryService:
    """Keep executions in this process's memory, for one caller that drives them all.

    ``now_ms`` returns the time in milliseconds since the epoch, and is the only clock. Histories
    are returned in pages of ``page_size`` operations. ``max_payload_bytes`` limits inputs, results
    and callback results (`None`: no limit).
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        page_size: int = PAGE_OPERATIONS,
        max_payload_bytes: int | None = None,
    ) -> None:
        self._now_ms = now_ms
        self._page_size = page_size
        self._max_payload_bytes = max_payload_bytes
        self._executions: dict[str, ExecutionState] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._due: list[tuple[int, str]] = []

    def state(self, execution_id: str) -> ExecutionState:
        """Return an execution's state. Raises `ExecutionNotFoundError`."""
        execution = self._executions.get(execution_id)
        if execution is None:
            raise not_found(execution_id)
        return execution

    # -- History ---------------------------------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names.

        Raises `StaleTokenError`; `ServiceError` for a marker that was not issued with ``token``.
        """
        return self.state(execution_id).page_at(token, marker, self._page_size)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply ``updates`` atomically and return the next token and what changed.

        Raises `StaleTokenError` and `InvalidUpdateError`; the token stays valid after the latter.
        """
        return self.commit_now(execution_id, token, updates)

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do as `commit` does, and return the result directly."""
        execution = self.state(execution_id)
        answer = execution.commit(token, updates, self._now_ms(), self._page_size)
        self._list_due(execution)
        return answer

    # -- executions ------------------------------------------------------------------------------

    def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        execution_id: str | None = None,
    ) -> str:
        """Start an execution, or find the one with this name and input, and return its id.

        ``execution_id`` is for callers that make unique ids; by default executions are numbered.
        Names are unique per workflow. Raises `ExecutionAlreadyStartedError` when the name is taken
        by another input, `ExecutionNameError` for a malformed name, `SerializationError` when the
        input is too large.
        """
        check_size(input_payload, self._max_payload_bytes, f"the input of {workflow_name!r}")
        if execution_name is not None:
            check_execution_name(execution_name)
            known_id = self._ids.get((workflow_name, execution_name))
            if known_id is not None:
                if self.state(known_id).root.payload == input_payload:
                    return known_id
                raise already_started(workflow_name, execution_name, known_id)
        if execution_id is None:
            execution_id = f"execution-{len(self._executions) + 1}"
        self.add(
            Operation(
                id=execution_id,
                type=OperationType.EXECUTION,
                status=_STARTED,
                start_ms=self._now_ms(),
                name=execution_name or execution_id,
                payload=input_payload,
            ),
            workflow_name,
        )
        return execution_id

    def add(self, root: Operation, workflow_name: str) -> ExecutionState:
        """Add the execution that begins with ``root``, under its name."""
        if root.name is not None and root.name != root.id:
            self._ids[workflow_name, root.name] = root.id
        state = self._executions[root.id] = ExecutionState(root, workflow_name)
        return state

    def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation: fire due timers, void every older token, return the history.

        Raises `ExecutionNotFoundError`, `StaleTokenError` when the execution is over.
        """
        execution = self.state(execution_id)
        execution.fire(self._now_ms())
        _external_events.check_running(execution)
        return execution.begin(self._page_size, self._max_payload_bytes)

    def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution as STOPPED, unless it is already over, and return it."""
        execution = self.state(execution_id)
        _external_events.stop(execution, self._now_ms(), error)
        return execution.summary()

    # -- timers ----------------------------------------------------------------------------------

    def _list_due(self, execution: ExecutionState) -> None:
        due_ms = execution.next_due()
        listed_ms = execution.listed_ms
        if due_ms is not None and (listed_ms is None or due_ms < listed_ms):
            execution.listed_ms = due_ms
            heappush(self._due, (due_ms, execution.id))

    def next_due(self, execution_id: str | None = None) -> int | None:
        """Return when the next timer of one execution, or of all, is due; `None` without timers.

        Timers are waits, retries and the timeouts of callbacks. Milliseconds since the epoch.
        """
        if execution_id is not None:
            return self.state(execution_id).next_due()
        # An execution is listed at or before its next timer; an early entry is corrected here.
        while self._due:
            due_ms, listed_id = self._due[0]
            execution = self._executions[listed_id]
            if execution.listed_ms == due_ms:
                if execution.next_due() == due_ms:
                    return due_ms
                execution.listed_ms = None
                self._list_due(execution)
            heappop(self._due)
        return None

    # -- external events -------------------------------------------------------------------------

    def _of_callback(self, callback_id: str) -> ExecutionState:
        execution = self._executions.get(_external_events.execution_id_of(callback_id))
        if execution is None:
            raise unknown_callback(callback_id)
        return execution

    def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Complete a callback with the raw text ``payload`` and return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        check_size(payload, self._max_payload_bytes, "the answer of a callback")
        execution = self._of_callback(callback_id)
        now_ms = self._now_ms()
        _external_events.end_callback(
            execution, callback_id, now_ms, Status.SUCCEEDED, payload=payload
        )
        return execution.id

    def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Fail a callback with ``error`` and return the execution's id; raises as above."""
        execution = self._of_callback(callback_id)
        _external_events.end_callback(
            execution, callback_id, self._now_ms(), Status.FAILED, error=error
        )
        return execution.id

    def expire_callback(self, callback_id: str) -> str:
        """Time out a callback now, ahead of its deadline; return the execution's id.

        Raises as above, and `InvalidUpdateError` when it has no timeout.
        """
        execution, now_ms = self._of_callback(callback_id), self._now_ms()
        operation = _external_events.open_callback(execution, callback_id, now_ms)
        deadlines = execution.deadlines[operation.id]
        if deadlines.next_ms() is None:
            raise InvalidUpdateError(
                f"Expected a callback with a timeout, found {callback_id!r}, which has none and "
                "never expires; give it one when it is created"
            )
        error = deadlines.error(deadlines.timeout_ms)
        execution.put(now_ms, apply_outside(operation, Status.TIMED_OUT, now_ms, error=error))
        return execution.id

    def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout and return the execution's id; raises as above."""
        execution = self._of_callback(callback_id)
        _external_events.beat(execution, callback_id, self._now_ms())
        self._list_due(execution)
        return execution.id

    def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str:
        """End a chained invoke with ``status`` and return the execution's id.

        Raises `ExecutionNotFoundError`, `ServiceError` for an unknown operation,
        `InvalidUpdateError` when it has ended or is not a chained invoke.
        """
        execution = self.state(execution_id)
        _external_events.end_invoke(
            execution, operation_id, self._now_ms(), status, payload=payload, error=error
        )
        return execution_id

    # -- reading ---------------------------------------------------------------------------------

    def get(self, execution_id: str) -> ExecutionSummary:
        """Return an execution's status, times and payloads. Raises `ExecutionNotFoundError`."""
        return self.state(execution_id).summary()

    def list(
        self, *, workflow_name: str | None = None, status: ExecutionStatus | None = None
    ) -> tuple[ExecutionSummary, ...]:
        """Return the executions of a workflow or with a status, the newest first."""
        summaries = (execution.summary() for execution in reversed(self._executions.values()))
        return tuple(
            summary
            for summary in summaries
            if workflow_name in (None, summary.workflow_name) and status in (None, summary.status)
        )

    def operations(self, execution_id: str) -> tuple[Operation, ...]:
        """Return every operation in the order of its start, the EXECUTION operation first."""
        return tuple(self.state(execution_id).operations.values())

    def history(self, execution_id: str) -> tuple[HistoryEvent, ...]:
        """Return what happened, in order of change. Raises `ExecutionNotFoundError`."""
        return build_events(self.state(execution_id).log)


class MemoryService:
    """All three ports over an `ImmediateMemoryService`, for workers and clients of this process.

    A lock guards it, so every method may be called on any loop of any thread. Workflows that an
    execution invokes are started here. ``now_ms`` returns the time of the executions and
    ``machine_ms`` that of leases (the same by default). The other arguments are those of
    `ImmediateMemoryService`.
    """

    capabilities = frozenset({Capability.RELEASE})

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        machine_ms: Callable[[], int] | None = None,
        page_size: int = PAGE_OPERATIONS,
        max_payload_bytes: int | None = None,
    ) -> None:
        self._now_ms = now_ms
        self._max_payload_bytes = max_payload_bytes
        self._executions = ImmediateMemoryService(
            now_ms, page_size=page_size, max_payload_bytes=max_payload_bytes
        )
        self._queue = MemoryQueue(now_ms, machine_ms or now_ms)
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._is_closed = False
        self._process = processes.here

    def __repr__(self) -> str:
        return "<executions in memory>"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Guard a change or a read, and notify listeners of changes after it."""
        processes.check_process(self._process, "this memory service")
        try:
            with self._lock:
                if self._is_closed:
                    raise ServiceError(
                        "The executions in memory were closed by this process; open others"
                    )
                yield
        finally:
            if self._queue.has_changes:
                self._queue.has_changes = False
                self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                logger.exception("a subscriber of the executions in memory failed")

    @contextmanager
    def _changing(self, execution_id: str) -> Iterator[QueuedExecution]:
        """Guard a change of one execution; due timers take effect even if the change is refused."""
        with self._locked():
            each = self._queue.find(execution_id)
            try:
                yield each
            finally:
                self._queue.settle(each)

    # -- what a run needs: History ---------------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names."""
        with self._locked():
            return await self._executions.load(execution_id, token, marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply ``updates`` atomically and return the next token and what changed."""
        with self._changing(execution_id) as each:
            answer = self._executions.commit_now(execution_id, token, updates)
            for update in updates:
                if update.type is OperationType.CHAINED_INVOKE and update.action is Action.START:
                    self._start_child(each, update)
            if each.failed_invocations and each.recovers_by(updates):
                each.failed_invocations, each.problem = 0, None
            return answer

    def _start_child(self, each: QueuedExecution, update: Update) -> None:
        assert update.function_name is not None
        name = each.invoked.take(update.id, update.name)
        payload = "null" if update.payload is None else update.payload
        root = new_root(self._now_ms(), name, payload)
        state = self._executions.add(root, update.function_name)
        self._queue.add(state, parent=(each, update.id))

    # -- what a worker needs: Queue --------------------------------------------------------------

    async def claim_due(
        self,
        owner: str,
        workflow_names: Collection[str],
        limit: int,
        *,
        suspects: int | None = None,
        keep: bool = False,
    ) -> Sequence[Invocation]:
        """Lease up to ``limit`` due executions of those workflows and begin their invocations."""
        with self._locked():
            queue, claimed = self._queue, []
            queue.take_from_the_lost(limit)
            queue.expire()
            for each in queue.take_due(workflow_names, limit, suspects):
                each.state.fire(self._now_ms())
                queue.settle(each)
                if each.state.is_running:
                    queue.add_owner(owner, keeps=keep)
                    claimed.append(self._begin(each, owner))
            return claimed

    def _begin(self, each: QueuedExecution, owner: str | None) -> Invocation:
        invocation = self._executions.claim(each.id)
        self._queue.begin(each, owner)
        return replace(invocation, losses=each.losses) if each.losses else invocation

    async def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation without a lease, for a caller that keeps other workers away.

        Raises `ExecutionNotFoundError`, `StaleTokenError` when the execution is over.
        """
        with self._changing(execution_id) as each:
            return self._begin(each, None)

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Extend the leases of ``owner`` on these executions."""
        with self._locked():
            self._queue.renew(owner, execution_ids)

    async def release(
        self,
        execution_id: str,
        token: str,
        *,
        problem: ErrorRecord | None = None,
        is_unfinished: bool = False,
    ) -> None:
        """Give up the lease; a stale ``token`` is ignored."""
        with self._changing(execution_id) as each:
            each.state.fire(self._now_ms())
            if each.state.is_running and each.state.token == token:
                self._queue.release(each, problem, is_unfinished=is_unfinished)

    async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return the executions that ``owner`` has leased: ids with the number of their tokens."""
        with self._locked():
            return self._queue.leased_by(owner, late=late)

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Give up these leases of ``owner``, so that others may claim now."""
        with self._locked():
            self._queue.hand_back(owner, leased)

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Record why ``owner`` makes no progress."""
        with self._locked():
            self._queue.report(owner, report)

    async def retire(self, owner: str) -> None:
        """Forget an owner that stops claiming."""
        with self._locked():
            self._queue.retire(owner)

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows has to claim next; `None`: after a change."""
        with self._locked():
            times = (
                self._queue.next_deadline(),
                self._queue.next_wake(workflow_names, suspects=suspects),
            )
            return min((time for time in times if time is not None), default=None)

    async def next_deadline(self) -> int | None:
        """Return when the first running execution exceeds its timeout."""
        with self._locked():
            return self._queue.next_deadline()

    async def unserved(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return the execution that has been due the longest, for each workflow except these."""
        with self._locked():
            return tuple(map(self._queue.summary, self._queue.unserved(workflow_names)))

    async def changed(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return the ids, among those leased by ``owner``, of executions that changed."""
        with self._locked():
            return self._queue.changed(owner, execution_ids)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from the thread that made the change."""

        def end() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not on_change)

        with self._locked():
            self._listeners = (*self._listeners, on_change)
        return end

    # -- what clients need: Executions -----------------------------------------------------------

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution, or find the one with this name and input, and return its id."""
        with self._locked():
            root = new_root(self._now_ms(), execution_name, input_payload)
            started_id = self._executions.start(
                workflow_name, input_payload, execution_name=execution_name, execution_id=root.id
            )
            if started_id == root.id:
                state = self._executions.state(root.id)
                self._queue.add(state, timeout_seconds=timeout_seconds)
            return started_id

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution as STOPPED, unless it is already over, and return it."""
        with self._changing(execution_id) as each:
            self._executions.stop(execution_id, error)
            self._queue.settle(each)
            return self._queue.summary(each)

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, so that others may claim it now, and return it."""
        with self._changing(execution_id) as each:
            each.state.fire(self._now_ms())
            self._queue.revoke(each)
            return self._queue.summary(each)

    async def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Complete a callback with the raw text ``payload``; return the execution's id."""
        check_size(payload, self._max_payload_bytes, "the answer of a callback")
        with self._callback(callback_id):
            return self._executions.complete_callback(callback_id, payload)

    async def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Fail a callback; return the execution's id."""
        with self._callback(callback_id):
            return self._executions.fail_callback(callback_id, error)

    async def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout; return the execution's id."""
        with self._callback(callback_id):
            return self._executions.heartbeat_callback(callback_id)

    @contextmanager
    def _callback(self, callback_id: str) -> Iterator[None]:
        execution_id = _external_events.execution_id_of(callback_id)
        try:
            with self._changing(execution_id):
                yield
        except ExecutionNotFoundError:
            raise unknown_callback(callback_id) from None

    async def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str:
        """End a chained invoke with ``status``, before the invoked execution ends."""
        with self._changing(execution_id):
            return self._executions.complete_invoke(
                execution_id, operation_id, payload, status=status, error=error
            )

    async def get(self, execution_id: str) -> ExecutionSummary:
        """Return an execution's status, times and payloads."""
        with self._locked():
            return self._queue.summary(self._queue.find(execution_id))

    async def list(
        self,
        *,
        limit: int = LIST_LIMIT,
        after: str | None = None,
        payloads: bool = False,
        **filters: Unpack[Filters],
    ) -> Paged[ExecutionSummary]:
        """Return the executions that match every filter, the newest first."""
        wanted, below = Wanted(**filters), number_of(after)
        found: list[tuple[int, ExecutionSummary]] = []
        with self._locked():
            for each in self._queue.newest_first():
                if below is not None and each.number >= below:
                    continue
                if len(found) > limit:
                    break
                summary = self._queue.summary(each)
                if wanted.matches(summary):
                    found.append((each.number, summary))
        marker = str(found[limit - 1][0]) if 0 < limit < len(found) else None
        shown = [summary for _, summary in found[:limit]]
        if not payloads:
            shown = [replace(summary, input_payload="", result=None) for summary in shown]
        return Paged(shown, marker)

    async def operations(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[Operation]:
        """Return operations in the order of their start, the EXECUTION operation first."""
        with self._locked():
            return page_of(self._executions.operations(execution_id), limit, after)

    async def history(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[HistoryEvent]:
        """Return what happened, in order of change."""
        with self._locked():
            return page_of(self._executions.history(execution_id), limit, after)

    # -- the service itself ----------------------------------------------------------------------

    async def backup(
        self, destination: str, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Raise `UsageError`: there is no file to copy."""
        raise no_backup()

    async def close(self) -> None:
        """Refuse every later call."""
        self._is_closed = True
        self._listeners = ()
