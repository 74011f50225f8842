"""Drive an `Execution` by hand: facts in, turns out, and a service of a few lines behind it.

The service applies each batch through `transitions.apply_batch`, so an illegal one raises; it
numbers ends and fires timers only when told. A crash drops the run and starts a new one from what
the service holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pyworkflow._api.context import WorkflowContext
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.messages import (
    End,
    LagElapsed,
    Refreshing,
    StepRaised,
    StepReturned,
    Succeeded,
    Turn,
)
from pyworkflow._engine.ops.base import Op
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.moves import apply_batch, apply_outside
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow._values import codec
from pyworkflow._values.exceptions import KnownErrors

if TYPE_CHECKING:
    from pyworkflow._engine.messages import AttemptSettings, StepCall
    from pyworkflow._engine.scopes import IssuedOperation


START_MS = 1_000_000
KNOWN = KnownErrors.snapshot()

Body = Callable[..., Any]


class Service:
    """Who keeps the history: strict about moves, and still until told."""

    def __init__(self, *, sequences: bool = True) -> None:
        root = Operation(
            id="root", type=OperationType.EXECUTION, status=Status.STARTED, start_ms=START_MS
        )
        self.operations: dict[str, Operation] = {"root": root}
        self.now_ms = START_MS
        self.batches: list[tuple[Update, ...]] = []
        self._sequences = sequences
        self._ends = 0
        self._unread: dict[str, None] = {}

    def _put(self, operation: Operation) -> None:
        if operation.ended and self._sequences:
            self._ends += 1
            operation = replace(operation, sequence=self._ends)
        if operation.type is OperationType.CALLBACK:
            operation = replace(operation, callback_id=f"callback {operation.name}")
        self.operations[operation.id] = operation
        self._unread.pop(operation.id, None)
        self._unread[operation.id] = None

    def commit(self, updates: tuple[Update, ...]) -> Committed:
        """Apply a batch, or raise; return what changed since the last answer."""
        self.batches.append(updates)
        assert all(update.action is not Action.CANCEL for update in updates)
        self.now_ms += 10
        for operation in apply_batch(updates, self.operations, self.now_ms, tuple(self._unread)):
            self._put(operation)
        return self.refresh()

    def refresh(self) -> Committed:
        """Return what changed since the last answer."""
        changed = tuple(self.operations[i] for i in self._unread)
        self._unread.clear()
        return Committed("token", changed)

    def load(self) -> list[Operation]:
        """Return the whole history, as a new invocation reads it."""
        self._unread.clear()
        return list(self.operations.values())

    def due(self) -> list[tuple[int, str]]:
        """Return when the open timers and retries are due, the next first."""
        due = []
        for operation in self.operations.values():
            if operation.status is Status.PENDING:
                assert operation.next_attempt_ms is not None
                due.append((operation.next_attempt_ms, operation.id))
            elif operation.type is OperationType.WAIT and operation.status is Status.STARTED:
                assert operation.scheduled_end_ms is not None
                due.append((operation.scheduled_end_ms, operation.id))
        return sorted(due)

    def fire_next(self) -> Operation:
        """Let time jump to the next timer or retry, and fire it."""
        due_ms, operation_id = self.due()[0]
        self.now_ms = max(self.now_ms, due_ms)
        operation = self.operations[operation_id]
        is_wait = operation.type is OperationType.WAIT
        fired = apply_outside(operation, Status.SUCCEEDED if is_wait else Status.READY, self.now_ms)
        self._put(fired)
        return fired

    def open_outside(self) -> list[str]:
        """Return the ids of the callbacks and invokes that somebody outside may end."""
        kinds = (OperationType.CALLBACK, OperationType.CHAINED_INVOKE)
        return [o.id for o in self.operations.values() if o.type in kinds and not o.ended]

    def end(
        self,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> None:
        """Let somebody outside end a callback or an invoke."""
        self.now_ms += 1
        operation = self.operations[operation_id]
        self._put(apply_outside(operation, status, self.now_ms, payload=payload, error=error))

    def named(self, name: str) -> list[Operation]:
        """Return the operations with this name."""
        return [o for o in self.operations.values() if o.name == name]


class Trace:
    """What a run issued and what was delivered to it."""

    def __init__(self) -> None:
        self.issued: list[Op] = []
        self.delivered: list[str] = []

    def on_issue(self, op: Op) -> None:
        self.issued.append(op)

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        assert record.ended
        self.delivered.append(op.id)

    def on_recall(
        self,
        operation_id: str,
        settings: AttemptSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        assert record.ended
        self.delivered.append(operation_id)


class Run:
    """One run of a workflow function, as a runner would see it."""

    def __init__(
        self,
        function: Callable[..., Any],
        service: Service | None = None,
        *,
        result_type: object = Any,
        history: list[Operation] | None = None,
        start: bool = True,
    ) -> None:
        self.service = service or Service()
        self.trace = Trace()
        self.execution = Execution("execution-1", "name-1", KNOWN, self.trace)
        self.running: dict[str, StepCall] = {}
        self.launched: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.in_flight: tuple[Update, ...] | None = None
        self.turn = Turn()
        self.execution.start(
            _call(function, self.execution),
            result_type,
            self.service.load() if history is None else history,
        )
        if start:
            self.advance()

    @property
    def end(self) -> End | None:
        return self.turn.end

    @property
    def value(self) -> Any:
        assert isinstance(self.turn.end, Succeeded), self.turn.end
        return self.turn.end.value

    # -- facts -----------------------------------------------------------------------------------

    def advance(self) -> Turn:
        turn = self.turn = self.execution.advance()
        for operation_id in turn.cancel:
            self.cancelled.append(self.running.pop(operation_id).name)
        for call in turn.launch:
            assert call.id not in self.running, "a body was launched while one runs"
            self.running[call.id] = call
            self.launched.append((call.name, call.attempt))
        if turn.write:
            assert self.in_flight is None, "two checkpoints in flight"
            self.in_flight = turn.write
        return turn

    def call(self, name: str) -> StepCall:
        return next(call for call in self.running.values() if call.name == name)

    def ok(self, name: str, value: Any = None) -> Turn:
        """The running attempt of a step returns."""
        return self.finish(self.call(name), partial(_return, value))

    def fail(self, name: str, error: BaseException) -> Turn:
        """The running attempt of a step raises."""
        return self.finish(self.call(name), partial(_raise, error))

    def finish(self, call: StepCall, body: Body) -> Turn:
        del self.running[call.id]
        end_ms = self.service.now_ms
        try:
            payload, value = codec.roundtrip(body(), call.settings.result_type, what=call.name)
        except BaseException as error:  # whatever a body raises
            self.execution.resolve(StepRaised(call.id, call.attempt, error, end_ms))
        else:
            self.execution.resolve(StepReturned(call.id, call.attempt, payload, value, end_ms))
        return self.advance()

    def write(self) -> Committed:
        """The batch in flight becomes durable; nobody heard of it yet."""
        assert self.in_flight is not None, "nothing is in flight"
        updates, self.in_flight = self.in_flight, None
        return self.service.commit(updates)

    def commit(self) -> Turn:
        """The batch in flight becomes durable and is acknowledged."""
        self.execution.resolve(self.write())
        return self.advance()

    def refresh(self) -> Turn:
        """An empty checkpoint goes out and is answered."""
        self.execution.resolve(Refreshing())
        self.execution.resolve(self.service.refresh())
        return self.advance()

    def lag(self) -> Turn:
        self.execution.resolve(LagElapsed())
        return self.advance()

    # -- several at once -------------------------------------------------------------------------

    def settle(self) -> Turn:
        """Acknowledge whatever is in flight until nothing is."""
        while self.in_flight is not None:
            self.commit()
        return self.turn

    def done(self, name: str, value: Any = None) -> Turn:
        """A step returns, and that is recorded."""
        self.ok(name, value)
        return self.settle()

    def close(self) -> None:
        self.execution.close()

    def crash(self, function: Callable[..., Any]) -> Run:
        """Drop this run, and begin another from what is recorded."""
        self.close()
        return Run(function, self.service)

    def wake(self, function: Callable[..., Any]) -> Run:
        """Let the next timer fire, and begin another run."""
        self.close()
        self.service.fire_next()
        return Run(function, self.service)


def _call(function: Callable[..., Any], execution: Execution) -> Callable[[], Any]:
    code = function.__code__
    if "ctx" not in code.co_varnames[: code.co_argcount]:
        return function
    is_async = bool(code.co_flags & 0x80)
    return partial(function, (WorkflowContext if is_async else SyncWorkflowContext)(execution))


def _return(value: Any) -> Any:
    return value


def _raise(error: BaseException) -> Any:
    raise error


def actions(updates: tuple[Update, ...] | None) -> list[str]:
    """Say what a batch does, one word pair an update: ``START a``."""
    return [f"{update.action} {update.name or update.type}" for update in updates or ()]


def shape(operations: Mapping[str, Operation]) -> list[dict[str, Any]]:
    """Return operations without what depends on time and order, sorted by id."""
    left_out = {
        "start_ms", "end_ms", "attempt_start_ms", "sequence", "next_attempt_ms", "scheduled_end_ms",
    }  # fmt: skip
    return [
        {k: v for k, v in msgspec.structs.asdict(operations[i]).items() if k not in left_out}
        for i in sorted(operations)
    ]
