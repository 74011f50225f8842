"""The commands that change executions; each is a job of the writer, within its group.

A command either succeeds or raises one of our errors. A failed one changes nothing except what was
due anyway: it may fire timers and end an execution whose timeout has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._protocol.executions import Committed, Invocation, InvokedNames, Page
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    OperationType,
    Status,
    Update,
)
from pyworkflow.errors import ExecutionNotFoundError
from pyworkflow.services import _external_events
from pyworkflow.services._scheduling import new_root
from pyworkflow.services.errors import already_started, check_execution_name, unknown_callback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow.services.sqlite._cached_execution import CachedExecution
    from pyworkflow.services.sqlite._unit_of_work import UnitOfWork

_INVOKE = OperationType.CHAINED_INVOKE


class Commands:
    """The protocol's commands, for the executions of one file."""

    def __init__(
        self,
        unit: UnitOfWork,
        now_ms: Callable[[], int],
        page_size: int,
        max_payload_bytes: int | None,
    ) -> None:
        self._unit = unit
        self._now_ms = now_ms
        self._page_size = page_size
        self._max_payload_bytes = max_payload_bytes

    # -- History ---------------------------------------------------------------------------------

    def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        execution, now_ms = self._unit.get(execution_id), self._now_ms()
        answer = execution.state.commit(token, updates, now_ms, self._page_size)
        for update in updates:
            if update.type is _INVOKE and update.action is Action.START:
                self._start_child(execution, update, now_ms)
        if execution.failed_invocations and execution.recovers_by(updates):
            execution.failed_invocations, execution.problem, execution.is_rescheduled = (
                0,
                None,
                True,
            )
        return answer

    def load(self, execution_id: str, token: str, marker: str) -> Page:
        return self._unit.get(execution_id).state.page_at(token, marker, self._page_size)

    # -- executions ------------------------------------------------------------------------------

    def start(
        self,
        workflow_name: str,
        input_payload: str,
        execution_name: str | None,
        timeout_seconds: int | None,
    ) -> str:
        if execution_name is not None:
            known_id = self._known(workflow_name, input_payload, execution_name)
            if known_id is not None:
                return known_id
        now_ms = self._now_ms()
        root = new_root(now_ms, execution_name, input_payload)
        deadline_ms = None if timeout_seconds is None else now_ms + timeout_seconds * 1000
        self._unit.add(root, workflow_name, deadline_ms=deadline_ms)
        return root.id

    def _known(self, workflow_name: str, input_payload: str, execution_name: str) -> str | None:
        check_execution_name(execution_name)
        known = self._unit.named(workflow_name, execution_name)
        if known is None:
            return None
        known_id, known_payload = known
        if known_payload == input_payload:
            return known_id
        raise already_started(workflow_name, execution_name, known_id)

    def _start_child(self, execution: CachedExecution, update: Update, now_ms: int) -> None:
        assert update.function_name is not None
        name = _invoked_names(execution, update.id).take(update.id, update.name)
        root = new_root(now_ms, name, "null" if update.payload is None else update.payload)
        self._unit.add(root, update.function_name, parent=(execution.state.id, update.id))

    def claim(self, execution_id: str) -> Invocation:
        execution = self._unit.get(execution_id)
        execution.state.fire(self._now_ms())
        _external_events.check_running(execution.state)
        return self.begin(execution, owner=None)

    def begin(self, execution: CachedExecution, owner: str | None) -> Invocation:
        """Begin an invocation for ``owner``; every older token becomes void."""
        execution.owner, execution.not_before_ms = owner, None
        execution.is_claimed = execution.is_rescheduled = True
        return execution.state.begin(self._page_size, self._max_payload_bytes)

    def stop(self, execution_id: str, error: ErrorRecord) -> None:
        _external_events.stop(self._unit.get(execution_id).state, self._now_ms(), error)

    def expire(self, execution_ids: Sequence[str]) -> None:
        """End those of the executions whose timeout has passed."""
        now_ms = self._now_ms()
        for execution_id in execution_ids:
            with self._unit.isolating(execution_id):
                execution = self._unit.get(execution_id)
                execution.state.fire(now_ms)
                self._unit.settle(execution)

    # -- external events -------------------------------------------------------------------------

    def end_callback(
        self, callback_id: str, status: Status, payload: str | None, error: ErrorRecord | None
    ) -> str:
        state = self._of_callback(callback_id).state
        _external_events.end_callback(
            state, callback_id, self._now_ms(), status, payload=payload, error=error
        )
        return state.id

    def heartbeat_callback(self, callback_id: str) -> str:
        execution = self._of_callback(callback_id)
        execution.heartbeats.append(
            _external_events.beat(execution.state, callback_id, self._now_ms())
        )
        return execution.state.id

    def _of_callback(self, callback_id: str) -> CachedExecution:
        try:
            return self._unit.get(_external_events.execution_id_of(callback_id))
        except ExecutionNotFoundError:
            raise unknown_callback(callback_id) from None

    def end_invoke(
        self,
        execution_id: str,
        operation_id: str,
        status: Status,
        payload: str | None,
        error: ErrorRecord | None,
    ) -> str:
        state = self._unit.get(execution_id).state
        _external_events.end_invoke(
            state, operation_id, self._now_ms(), status, payload=payload, error=error
        )
        return execution_id


def _invoked_names(execution: CachedExecution, operation_id: str) -> InvokedNames:
    """Return the names of the executions that ``execution`` invoked before the operation."""
    if execution.invoked is None:
        root = execution.state.root
        execution.invoked = InvokedNames(root.name or root.id)
        for operation in execution.state.operations.values():
            if operation.id == operation_id:
                break
            if operation.type is _INVOKE:
                execution.invoked.take(operation.id, operation.name)
    return execution.invoked
