"""The reference service: executions in dicts, time from the callable that it is given.

What is due at or before now fires before anything else is done with an execution, so a timer's end
comes before the ends of the batch that found it, and ends when it was due, not when somebody
looked. Every end takes the execution's next sequence number. A commit costs the same however long
the history is.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pyworkflow._engine.limits import check_size
from pyworkflow._engine.records import ErrorRecord, Operation, OperationType, Status
from pyworkflow._engine.transitions import apply_outside
from pyworkflow.errors import InvalidUpdateError
from pyworkflow.services import _outside
from pyworkflow.services._refusals import (
    already_started,
    check_execution_name,
    not_found,
    unknown_callback,
)
from pyworkflow.services._state import ExecutionState
from pyworkflow.services.base import (
    Committed,
    ExecutionStatus,
    ExecutionSummary,
    Invocation,
    Page,
)
from pyworkflow.services.events import HistoryEvent, build_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow._engine.records import Update

_STARTED = Status.STARTED


class MemoryService:
    """Keep executions in this process's memory.

    ``now_ms`` returns the time in milliseconds since the epoch, and is the only source of it.
    Histories are handed out in pages of ``page_size`` operations. No input, result or answer may
    have more than ``max_payload_bytes`` (`None`: any).
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        page_size: int = 1000,
        max_payload_bytes: int | None = None,
    ) -> None:
        self._now_ms = now_ms
        self._page_size = page_size
        self._max_payload_bytes = max_payload_bytes
        self._executions: dict[str, ExecutionState] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._due: list[tuple[int, str]] = []

    def _execution(self, execution_id: str) -> ExecutionState:
        execution = self._executions.get(execution_id)
        if execution is None:
            raise not_found(execution_id)
        return execution

    # -- what a runner needs ---------------------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page that ``marker`` names, of the answer that issued ``token``.

        Raises `StaleTokenError`, `ServiceError` for a marker that this token did not come with.
        """
        return self._execution(execution_id).page_at(token, marker, self._page_size)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply ``updates`` as a whole and return the next token and what changed.

        Raises `StaleTokenError` and `InvalidUpdateError`; the token stays good after the latter.
        """
        return self.commit_now(execution_id, token, updates)

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        execution = self._execution(execution_id)
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
        """Start an execution and return its id; one that has this name and input is returned.

        ``execution_id`` is for callers that make unique ones; without it they are counted.
        Names are per workflow. Raises `ExecutionAlreadyStartedError` when the name is taken by
        another input, `ServiceError` when it is malformed, `SerializationError` when the input is
        too large.
        """
        check_size(input_payload, self._max_payload_bytes, f"the input of {workflow_name!r}")
        if execution_name is not None:
            check_execution_name(execution_name)
            known_id = self._ids.get((workflow_name, execution_name))
            if known_id is not None:
                if self._execution(known_id).root.payload == input_payload:
                    return known_id
                raise already_started(workflow_name, execution_name, known_id)
        if execution_id is None:
            execution_id = f"execution-{len(self._executions) + 1}"
        if execution_name is not None:
            self._ids[workflow_name, execution_name] = execution_id
        root = Operation(
            id=execution_id,
            type=OperationType.EXECUTION,
            status=_STARTED,
            start_ms=self._now_ms(),
            name=execution_name or execution_id,
            payload=input_payload,
        )
        self._executions[execution_id] = ExecutionState(root, workflow_name)
        return execution_id

    def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation: fire what is due, void every older token, return the history.

        Raises `ExecutionNotFoundError`, `StaleTokenError` when the execution is over.
        """
        execution = self._execution(execution_id)
        execution.fire(self._now_ms())
        _outside.check_running(execution)
        return execution.begin(self._page_size, self._max_payload_bytes)

    def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution from outside as STOPPED; one that is over already stays as it is."""
        execution = self._execution(execution_id)
        _outside.stop(execution, self._now_ms(), error)
        return execution.summary()

    # -- timers ----------------------------------------------------------------------------------

    def _list_due(self, execution: ExecutionState) -> None:
        due_ms = execution.next_due()
        listed_ms = execution.listed_ms
        if due_ms is not None and (listed_ms is None or due_ms < listed_ms):
            execution.listed_ms = due_ms
            heappush(self._due, (due_ms, execution.id))

    def next_due(self, execution_id: str | None = None) -> int | None:
        """Return when the next timer is due, of one execution or of all; `None` when there is none.

        Timers are waits, retries and the timeouts of callbacks. Milliseconds since the epoch.
        """
        if execution_id is not None:
            return self._execution(execution_id).next_due()
        # An execution is listed at or before its next timer: an early entry is put right here.
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

    # -- outside events --------------------------------------------------------------------------

    def _of_callback(self, callback_id: str) -> ExecutionState:
        execution = self._executions.get(_outside.execution_id_of(callback_id))
        if execution is None:
            raise unknown_callback(callback_id)
        return execution

    def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Let a callback succeed with the raw text ``payload`` and return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        check_size(payload, self._max_payload_bytes, "the answer of a callback")
        execution = self._of_callback(callback_id)
        now_ms = self._now_ms()
        _outside.end_callback(execution, callback_id, now_ms, Status.SUCCEEDED, payload=payload)
        return execution.id

    def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Let a callback fail with ``error`` and return the execution's id; raises as above."""
        execution = self._of_callback(callback_id)
        _outside.end_callback(execution, callback_id, self._now_ms(), Status.FAILED, error=error)
        return execution.id

    def expire_callback(self, callback_id: str) -> str:
        """Let a callback time out now, sooner than it would; return the execution's id.

        Raises as above, and `InvalidUpdateError` when it has no timeout.
        """
        execution, now_ms = self._of_callback(callback_id), self._now_ms()
        operation = _outside.open_callback(execution, callback_id, now_ms)
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
        _outside.beat(execution, callback_id, self._now_ms())
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
        """End a chained invoke as ``status`` says and return the execution's id.

        Raises `ExecutionNotFoundError`, `ServiceError` for an unknown operation,
        `InvalidUpdateError` when it has ended or is no chained invoke.
        """
        execution = self._execution(execution_id)
        _outside.end_invoke(
            execution, operation_id, self._now_ms(), status, payload=payload, error=error
        )
        return execution_id

    # -- reading ---------------------------------------------------------------------------------

    def get(self, execution_id: str) -> ExecutionSummary:
        """Return how an execution stands. Raises `ExecutionNotFoundError`."""
        return self._execution(execution_id).summary()

    def list(
        self, *, workflow_name: str | None = None, status: ExecutionStatus | None = None
    ) -> tuple[ExecutionSummary, ...]:
        """Return the executions of one workflow or in one status, the newest first."""
        summaries = (execution.summary() for execution in reversed(self._executions.values()))
        return tuple(
            summary
            for summary in summaries
            if workflow_name in (None, summary.workflow_name) and status in (None, summary.status)
        )

    def operations(self, execution_id: str) -> tuple[Operation, ...]:
        """Return every operation in the order of its start, the EXECUTION operation first."""
        return tuple(self._execution(execution_id).operations.values())

    def history(self, execution_id: str) -> tuple[HistoryEvent, ...]:
        """Return what happened, in order of change. Raises `ExecutionNotFoundError`."""
        return build_events(self._execution(execution_id).log)
