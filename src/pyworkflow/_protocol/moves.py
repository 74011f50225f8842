"""The legal moves of durable operations: one table, and pure functions over the records.

An operation changes in two ways only. A checkpoint sends an `Update`, whose move must stand in
`MOVES`; the service itself ends or readies an operation, and that must stand in `OUTSIDE_MOVES`.
A batch is checked against the state that its own earlier updates leave, and is refused as a whole:
`apply_batch` returns every new record or raises, and changes nothing. Fields that only
a service knows, `sequence` and `callback_id`, are not set here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow._protocol.limits import MAX_NAME, MAX_UPDATES, is_id, is_name, is_subtype
from pyworkflow._protocol.records import (
    ENDED,
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow._protocol.times import attempt_ms, begun_late, within
from pyworkflow.duration import MAX_SECONDS
from pyworkflow.errors import InvalidUpdateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

MAX_CALLBACK_SECONDS = 99_999_999

# Looking up a member on an Enum class costs as much as a table look-up, and these run on each move.
_EXECUTION, _CONTEXT, _STEP, _WAIT, _CALLBACK, _CHAINED_INVOKE = (
    OperationType.EXECUTION,
    OperationType.CONTEXT,
    OperationType.STEP,
    OperationType.WAIT,
    OperationType.CALLBACK,
    OperationType.CHAINED_INVOKE,
)
_START, _SUCCEED, _FAIL, _RETRY, _CANCEL = (
    Action.START,
    Action.SUCCEED,
    Action.FAIL,
    Action.RETRY,
    Action.CANCEL,
)
_STARTED, _PENDING, _READY = Status.STARTED, Status.PENDING, Status.READY

MOVES: dict[tuple[OperationType, Status | None, Action], Status] = {
    (_STEP, None, _START): Status.STARTED,
    (_STEP, _READY, _START): Status.STARTED,
    **{(_STEP, found, _SUCCEED): Status.SUCCEEDED for found in (None, _STARTED, _READY)},
    **{(_STEP, found, _FAIL): Status.FAILED for found in (None, _STARTED, _READY)},
    **{(_STEP, found, _RETRY): Status.PENDING for found in (None, _STARTED, _READY)},
    (_CONTEXT, None, _START): Status.STARTED,
    **{(_CONTEXT, found, _SUCCEED): Status.SUCCEEDED for found in (None, _STARTED)},
    **{(_CONTEXT, found, _FAIL): Status.FAILED for found in (None, _STARTED)},
    (_WAIT, None, _START): Status.STARTED,
    (_WAIT, _STARTED, _CANCEL): Status.CANCELLED,
    (_CALLBACK, None, _START): Status.STARTED,
    (_CHAINED_INVOKE, None, _START): Status.STARTED,
    # The sender may not know the id of the EXECUTION operation, and use one of its own.
    **{(_EXECUTION, found, _SUCCEED): Status.SUCCEEDED for found in (None, _STARTED)},
    **{(_EXECUTION, found, _FAIL): Status.FAILED for found in (None, _STARTED)},
}
"""(type, status or none, action) -> new status: every move that a checkpoint may make."""

OUTSIDE_MOVES: frozenset[tuple[OperationType, Status, Status]] = frozenset(
    {
        (_STEP, _PENDING, _READY),
        (_WAIT, _STARTED, Status.SUCCEEDED),
        (_CALLBACK, _STARTED, Status.SUCCEEDED),
        (_CALLBACK, _STARTED, Status.FAILED),
        (_CALLBACK, _STARTED, Status.TIMED_OUT),
        (_CHAINED_INVOKE, _STARTED, Status.SUCCEEDED),
        (_CHAINED_INVOKE, _STARTED, Status.FAILED),
        (_CHAINED_INVOKE, _STARTED, Status.TIMED_OUT),
        (_CHAINED_INVOKE, _STARTED, Status.STOPPED),
        (_EXECUTION, _STARTED, Status.TIMED_OUT),
        (_EXECUTION, _STARTED, Status.STOPPED),
    }
)
"""(type, status, new status): what the service does by itself, or an outside event makes it do."""


def _refusal(update: Update, expected: str, found: object, remedy: str) -> InvalidUpdateError:
    where = f"{update.type} {update.action} of operation {update.id!r}"
    if update.name is not None:
        where += f" (name {update.name!r})"
    return InvalidUpdateError(f"{where}: expected {expected}, found {found}; {remedy}")


# -- one update ----------------------------------------------------------------------------------


def _check_no_error(update: Update) -> None:
    if update.error is not None:
        raise _refusal(update, "no error", "one", "send the error with FAIL, or leave it out")


def _check_no_payload(update: Update) -> None:
    if update.payload is not None:
        raise _refusal(
            update, "no payload", "one", "send the payload with SUCCEED, or leave it out"
        )


def _check_retry(update: Update) -> None:
    delay = update.delay_seconds
    if delay is None or not 1 <= delay <= MAX_SECONDS:
        remedy = "give the whole seconds until the next attempt"
        raise _refusal(update, f"delay_seconds from 1 to {MAX_SECONDS}", delay, remedy)
    if (update.payload is None) is (update.error is None):
        found = "none" if update.error is None else "both"
        remedy = "send the error of a failed attempt, or the state of a condition"
        raise _refusal(update, "either an error or a payload", found, remedy)


def _check_wait(update: Update) -> None:
    seconds = update.wait_seconds
    if seconds is None or not 1 <= seconds <= MAX_SECONDS:
        remedy = "round up to whole seconds; a wait of 0 is not an operation"
        raise _refusal(update, f"wait_seconds from 1 to {MAX_SECONDS}", seconds, remedy)


def _check_callback(update: Update) -> None:
    for field in ("timeout_seconds", "heartbeat_timeout_seconds"):
        seconds = getattr(update, field)
        if seconds is not None and not 0 <= seconds <= MAX_CALLBACK_SECONDS:
            expected = f"{field} from 0 to {MAX_CALLBACK_SECONDS}"
            raise _refusal(update, expected, seconds, "leave it out for no timeout")


def _check_chained_invoke(update: Update) -> None:
    if not update.function_name:
        remedy = "name the function to invoke"
        raise _refusal(update, "a function_name", repr(update.function_name), remedy)


_CONTENT_CHECKS: dict[tuple[OperationType, Action], Callable[[Update], None]] = {
    (_STEP, _RETRY): _check_retry,
    (_WAIT, _START): _check_wait,
    (_CALLBACK, _START): _check_callback,
    (_CHAINED_INVOKE, _START): _check_chained_invoke,
    **{(kind, _SUCCEED): _check_no_error for kind in (_STEP, _CONTEXT, _EXECUTION)},
    **{(kind, _FAIL): _check_no_payload for kind in (_STEP, _CONTEXT, _EXECUTION)},
}


def _check_new(update: Update) -> None:
    if is_id(update.id) is None:
        found = f"{len(update.id)} characters"
        raise _refusal(update, "an id of 1-64 of A-Z a-z 0-9 _ -", found, "shorten or hash it")
    if update.name is not None and is_name(update.name) is None:
        found = f"{len(update.name)} characters"
        raise _refusal(
            update, f"a name of 1-{MAX_NAME} printable ASCII", found, "rename the operation"
        )
    if update.subtype is not None and is_subtype(update.subtype) is None:
        raise _refusal(
            update, "a subtype of 1-32 printable ASCII", repr(update.subtype), "use a SubType"
        )


def _shown(value: str | None) -> str:
    return "none" if value is None else repr(str(value))


def _check_same(update: Update, operation: Operation) -> None:
    fields = ("type",) if update.type is _EXECUTION else ("type", "subtype", "name", "parent_id")
    for field in fields:
        stored, sent = getattr(operation, field), getattr(update, field)
        if stored != sent:
            remedy = f"send the {field} that the operation was started with, or use another id"
            raise _refusal(update, f"{field} {_shown(stored)} as recorded", _shown(sent), remedy)


def check(update: Update, operation: Operation | None) -> Status:
    """Return to which status ``update`` moves ``operation``.

    ``operation`` is the stored record, `None` when there is none. The batch checks rules across
    operations (parents, the same id twice). Raises `InvalidUpdateError` if the move is not legal.
    """
    if operation is None:
        _check_new(update)
        found = None
    else:
        # The four comparisons stand here once more, as they are made for each end of a step.
        if (
            operation.type is not update.type
            or operation.parent_id != update.parent_id
            or operation.name != update.name
            or operation.subtype != update.subtype
        ):
            _check_same(update, operation)
        found = operation.status
    status = MOVES.get((update.type, found, update.action))
    if status is None:
        legal = sorted(
            before or "no such operation"
            for kind, before, action in MOVES
            if kind is update.type and action is update.action
        )
        expected = " or ".join(legal) if legal else f"an action that {update.type} has"
        remedy = "read the operation's latest state, and send only what it allows"
        raise _refusal(update, expected, found or "no such operation", remedy)
    content_check = _CONTENT_CHECKS.get((update.type, update.action))
    if content_check is not None:
        content_check(update)
    return status


def _apply_start(update: Update, operation: Operation, status: Status, now_ms: int) -> Operation:
    if operation.type is _WAIT:
        assert update.wait_seconds is not None
        due_ms = now_ms + update.wait_seconds * 1000
        return replace(operation, status=status, scheduled_end_ms=due_ms)
    if operation.status is status:
        return operation
    begin_ms = within(update.begin_ms, attempt_ms(operation), now_ms)
    return replace(operation, status=status, attempt_start_ms=begin_ms)


def _apply_end(update: Update, operation: Operation, status: Status, now_ms: int) -> Operation:
    kind = operation.type
    if kind is _STEP:
        since_ms = operation.attempt_start_ms or operation.start_ms
        begin_ms, end_ms = update.begin_ms, update.end_ms
        if begin_ms is not None and begin_ms > since_ms:
            operation = begun_late(update, operation, now_ms)
            since_ms = attempt_ms(operation)
        # As `within` has it; written out, for this runs at each end of a step.
        if end_ms is None or end_ms > now_ms:
            end_ms = now_ms
        elif end_ms < since_ms:
            end_ms = since_ms
        return replace(
            operation,
            status=status,
            end_ms=end_ms,
            ended_attempts=operation.ended_attempts + 1,
            payload=update.payload,
            error=update.error,
        )
    return replace(
        operation,
        status=status,
        end_ms=now_ms,
        payload=operation.payload if kind is _EXECUTION else update.payload,
        error=update.error,
        replay_children=update.replay_children,
    )


def _apply_retry(update: Update, operation: Operation, status: Status, now_ms: int) -> Operation:
    assert update.delay_seconds is not None
    operation = begun_late(update, operation, now_ms)
    return replace(
        operation,
        status=status,
        ended_attempts=operation.ended_attempts + 1,
        next_attempt_ms=now_ms + update.delay_seconds * 1000,
        payload=update.payload,
        error=update.error,
    )


_APPLY: dict[Action, Callable[[Update, Operation, Status, int], Operation]] = {
    _START: _apply_start,
    _SUCCEED: _apply_end,
    _FAIL: _apply_end,
    _CANCEL: _apply_end,
    _RETRY: _apply_retry,
}


def apply(update: Update, operation: Operation | None, now_ms: int) -> Operation:
    """Return the record that a checked ``update`` makes of ``operation`` at ``now_ms``.

    A START of a retry keeps what the last attempt recorded: the state of a condition must outlive a
    crash of the next poll. The EXECUTION operation keeps its input as payload when it ends.
    """
    found = None if operation is None else operation.status
    return _moved(update, operation, MOVES[update.type, found, update.action], now_ms, 0)


def _moved(
    update: Update, operation: Operation | None, status: Status, now_ms: int, since_ms: int
) -> Operation:
    if operation is None:
        begin_ms = update.begin_ms
        if begin_ms is None or begin_ms > now_ms:
            begin_ms = now_ms
        elif begin_ms < since_ms:
            begin_ms = since_ms
        operation = Operation(
            id=update.id,
            type=update.type,
            status=status,
            start_ms=begin_ms,
            parent_id=update.parent_id,
            name=update.name,
            subtype=update.subtype,
        )
    return _APPLY[update.action](update, operation, status, now_ms)


# -- a batch -------------------------------------------------------------------------------------


def _check_ancestors(
    update: Update, staged: Mapping[str, Operation], operations: Mapping[str, Operation]
) -> int:
    """Return when the parent began."""
    since_ms: int | None = None
    parent_id = update.parent_id
    while parent_id is not None:
        parent = staged.get(parent_id) or operations.get(parent_id)
        if parent is None:
            remedy = "start the context earlier, at the latest earlier in this batch"
            raise _refusal(update, f"a context with the id {parent_id!r}", "none", remedy)
        if parent.type is not _CONTEXT:
            remedy = "only a child context can contain operations"
            raise _refusal(update, f"the parent {parent_id!r} to be a CONTEXT", parent.type, remedy)
        if parent.status is not _STARTED:
            remedy = "nothing below an ended context is recorded: drop the update"
            raise _refusal(update, f"the context {parent_id!r} STARTED", parent.status, remedy)
        if since_ms is None:
            since_ms = parent.start_ms
        parent_id = parent.parent_id
    return since_ms or 0


def _check_twice(update: Update, staged: Operation) -> None:
    # Within a batch only START leaves an operation STARTED.
    first_was_start = staged.status is _STARTED and staged.type in (_STEP, _CONTEXT)
    if not first_was_start or update.action is _START:
        expected = (
            "one update of an operation in a batch, or START and the end of a STEP or CONTEXT"
        )
        remedy = "send the later update in the next batch"
        raise _refusal(update, expected, f"another after it became {staged.status}", remedy)


def apply_batch(
    updates: Sequence[Update],
    operations: Mapping[str, Operation],
    now_ms: int,
    unread: Collection[str] = (),
    since_ms: int = 0,
) -> list[Operation]:
    """Return the record that each of ``updates`` makes, in their order; ``operations`` stays as is.

    ``operations`` has, by id, at least what the updates name and the ancestors of these.
    ``unread`` has the ids of operations that changed since the sender last read the state: a
    retry that became READY unread is not the sender's to start. ``since_ms`` is when the execution
    began. Raises `InvalidUpdateError`.
    """
    if len(updates) > MAX_UPDATES:
        raise InvalidUpdateError(
            f"A checkpoint: expected at most {MAX_UPDATES} updates, found {len(updates)}; "
            "send the rest in the next one"
        )
    staged: dict[str, Operation] = {}
    results: list[Operation] = []
    for update in updates:
        operation = staged.get(update.id)
        if operation is not None:
            _check_twice(update, operation)
        else:
            operation = operations.get(update.id)
            if operation is not None and operation.status is _READY and update.id in unread:
                remedy = "refresh with an empty checkpoint first, and read that it is READY"
                raise _refusal(update, "READY to have been read", "it became READY since", remedy)
        status = check(update, operation)
        first_ms = since_ms
        if update.parent_id is not None:
            first_ms = _check_ancestors(update, staged, operations)
        elif update.type is _EXECUTION and len(results) != len(updates) - 1:
            found = f"it at place {len(results) + 1} of {len(updates)}"
            remedy = "end the execution once, with everything else before it"
            raise _refusal(update, "EXECUTION to be the last update", found, remedy)
        staged[update.id] = operation = _moved(update, operation, status, now_ms, first_ms)
        results.append(operation)
    return results


def check_batch(
    updates: Sequence[Update], operations: Mapping[str, Operation], unread: Collection[str] = ()
) -> None:
    """Raise `InvalidUpdateError` unless `apply_batch` would accept ``updates``."""
    apply_batch(updates, operations, 0, unread)


# -- what the service does -----------------------------------------------------------------------


def apply_outside(
    operation: Operation,
    status: Status,
    now_ms: int,
    *,
    payload: str | None = None,
    error: ErrorRecord | None = None,
) -> Operation:
    """Return ``operation`` as it is after the service or an outside event moved it to ``status``.

    ``now_ms`` is when that happened. Raises `InvalidUpdateError` when the move is not legal: the
    operation has ended already, most of the time.
    """
    if (operation.type, operation.status, status) not in OUTSIDE_MOVES:
        raise InvalidUpdateError(
            f"{operation.type} operation {operation.id!r}: can't become {status}, for it is "
            f"{operation.status}; an operation ends once, and only a callback, a chained invoke or "
            "a due timer ends from outside"
        )
    if status not in ENDED:
        return replace(operation, status=status, next_attempt_ms=None, attempt_start_ms=now_ms)
    kept = operation.payload if operation.type is _EXECUTION else payload
    return replace(operation, status=status, end_ms=now_ms, payload=kept, error=error)
