from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow._protocol.moves import (
    MAX_CALLBACK_SECONDS,
    MOVES,
    OUTSIDE_MOVES,
    apply,
    apply_batch,
    apply_outside,
    check,
    check_batch,
)
from pyworkflow._protocol.records import (
    ENDED,
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow.duration import MAX_SECONDS
from pyworkflow.errors import InvalidUpdateError

ERROR = ErrorRecord(message="no", type="ValueError")


def update(kind: OperationType, action: Action, **fields: Any) -> Update:
    return Update(**{"id": "a", "type": kind, "action": action, **fields})


def legal(kind: OperationType, action: Action) -> Update:
    """Return an update whose content is right, whatever the state of its operation."""
    content: dict[tuple[OperationType, Action], dict[str, Any]] = {
        (OperationType.STEP, Action.RETRY): {"delay_seconds": 1, "error": ERROR},
        (OperationType.WAIT, Action.START): {"wait_seconds": 1},
        (OperationType.CHAINED_INVOKE, Action.START): {"function_name": "f"},
    }
    return update(kind, action, **content.get((kind, action), {}))


def stored(kind: OperationType, status: Status, **fields: Any) -> Operation:
    return Operation(**{"id": "a", "type": kind, "status": status, "start_ms": 5, **fields})


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("kind", OperationType)
def test_the_table_decides(kind: OperationType, status: Status | None, action: Action) -> None:
    operation = None if status is None else stored(kind, status)
    move = legal(kind, action)
    if (kind, status, action) not in MOVES:
        found = "no such operation" if status is None else status
        with pytest.raises(InvalidUpdateError, match=f"{kind} {action} of .*'a'.*found {found};"):
            check(move, operation)
        return
    check(move, operation)
    result = apply(move, operation, 1_000)
    assert result.status is MOVES[kind, status, action]
    assert result.start_ms == (1_000 if operation is None else 5)
    assert result.end_ms == (1_000 if result.ended else None)
    ends_an_attempt = kind is OperationType.STEP and action is not Action.START
    assert result.ended_attempts == int(ends_an_attempt)
    assert result.attempt == int(kind is OperationType.STEP)
    assert result.sequence is None


@pytest.mark.parametrize("new", Status)
@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("kind", OperationType)
def test_what_the_service_may_do(kind: OperationType, status: Status, new: Status) -> None:
    operation = stored(kind, status, next_attempt_ms=7)
    if (kind, status, new) not in OUTSIDE_MOVES:
        with pytest.raises(InvalidUpdateError, match=f"{kind} operation 'a'.*{new}.*{status}"):
            apply_outside(operation, new, 9)
        return
    result = apply_outside(operation, new, 9, payload="1", error=ERROR)
    assert result.status is new
    if new is Status.READY:
        assert (result.end_ms, result.next_attempt_ms, result.payload) == (None, None, None)
    else:
        kept = None if kind is OperationType.EXECUTION else "1"
        assert (result.end_ms, result.payload, result.error) == (9, kept, ERROR)


@given(st.lists(st.sampled_from(Action), max_size=12), st.sampled_from(OperationType))
def test_no_move_leaves_an_ended_operation(actions: list[Action], kind: OperationType) -> None:
    operation: Operation | None = None
    for action in actions:
        move = legal(kind, action)
        try:
            check(move, operation)
        except InvalidUpdateError:
            continue
        assert operation is None or operation.status not in ENDED
        operation = apply(move, operation, 0)


def test_the_record_of_a_start() -> None:
    move = update(OperationType.STEP, Action.START, name="n", subtype="Step", parent_id="p")
    assert apply(move, None, 7) == Operation(
        id="a",
        type=OperationType.STEP,
        status=Status.STARTED,
        start_ms=7,
        name="n",
        subtype="Step",
        parent_id="p",
    )


def test_a_wait_knows_when_it_ends() -> None:
    move = update(OperationType.WAIT, Action.START, wait_seconds=MAX_SECONDS)
    check(move, None)
    assert apply(move, None, 7).scheduled_end_ms == 7 + MAX_SECONDS * 1_000


def test_a_retry_knows_when_it_goes_on() -> None:
    move = update(OperationType.STEP, Action.RETRY, delay_seconds=MAX_SECONDS, payload="1")
    check(move, None)
    pending = apply(move, stored(OperationType.STEP, Status.STARTED, ended_attempts=3), 7)
    assert (pending.attempt, pending.next_attempt_ms) == (4, 7 + MAX_SECONDS * 1_000)
    assert (pending.payload, pending.error) == ("1", None)


def test_the_start_of_an_invoke_keeps_no_result() -> None:
    move = update(OperationType.CHAINED_INVOKE, Action.START, function_name="f", payload="1")
    assert apply(move, None, 7).payload is None


def test_an_ended_execution_keeps_its_input() -> None:
    root = stored(OperationType.EXECUTION, Status.STARTED, payload='"in"', name="order-1")
    move = update(OperationType.EXECUTION, Action.SUCCEED, payload='"out"')
    check(move, root)
    assert apply(move, root, 7).payload == '"in"'


def test_an_outcome_replaces_the_last_one() -> None:
    started = stored(OperationType.STEP, Status.STARTED, ended_attempts=1, error=ERROR)
    done = apply(update(OperationType.STEP, Action.SUCCEED, payload="1"), started, 7)
    assert (done.attempt, done.payload, done.error) == (2, "1", None)


STEP, WAIT, CALLBACK = OperationType.STEP, OperationType.WAIT, OperationType.CALLBACK


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (update(STEP, Action.START, id=""), "an id of 1-64 .*found 0 characters"),
        (update(STEP, Action.START, id="a" * 65), "found 65 characters"),
        (update(STEP, Action.START, id="a.b"), "an id of"),
        (update(STEP, Action.START, id="a\n"), "an id of"),
        (update(STEP, Action.START, name=""), "a name of 1-256 printable ASCII, found 0 char"),
        (update(STEP, Action.START, name="n" * 257), "found 257 characters"),
        (update(STEP, Action.START, name="a\tb"), r"\(name 'a\\tb'\): expected a name"),
        (update(STEP, Action.START, subtype=""), "a subtype of 1-32"),
        (update(STEP, Action.START, subtype="s" * 33), "a subtype of 1-32"),
        (update(STEP, Action.SUCCEED, error=ERROR), "expected no error"),
        (update(STEP, Action.FAIL, payload="1"), "expected no payload"),
        (update(STEP, Action.RETRY, error=ERROR), "delay_seconds from 1 .*found None"),
        (update(STEP, Action.RETRY, error=ERROR, delay_seconds=0), "found 0"),
        (update(STEP, Action.RETRY, error=ERROR, delay_seconds=MAX_SECONDS + 1), "31622401"),
        (update(STEP, Action.RETRY, delay_seconds=1), "either .*found none"),
        (update(STEP, Action.RETRY, delay_seconds=1, error=ERROR, payload="1"), "found both"),
        (update(WAIT, Action.START), "wait_seconds from 1 .*found None"),
        (update(WAIT, Action.START, wait_seconds=0), "found 0"),
        (update(WAIT, Action.START, wait_seconds=MAX_SECONDS + 1), "found 31622401"),
        (update(CALLBACK, Action.START, timeout_seconds=-1), "timeout_seconds .*found -1"),
        (
            update(CALLBACK, Action.START, heartbeat_timeout_seconds=MAX_CALLBACK_SECONDS + 1),
            "heartbeat_timeout_seconds from 0 to 99999999, found 100000000",
        ),
        (update(OperationType.CHAINED_INVOKE, Action.START), "a function_name, found None"),
        (update(OperationType.EXECUTION, Action.START), "an action that EXECUTION has"),
        (update(OperationType.EXECUTION, Action.FAIL, payload="1"), "expected no payload"),
        (update(OperationType.CONTEXT, Action.SUCCEED, error=ERROR), "expected no error"),
    ],
)
def test_content_is_checked(move: Update, message: str) -> None:
    with pytest.raises(InvalidUpdateError, match=message):
        check(move, None)


def test_content_at_its_limits_is_fine() -> None:
    check(update(STEP, Action.START, id="aZ0_-" * 12, name=" ~" * 128, subtype="s" * 32), None)
    check(update(CALLBACK, Action.START, timeout_seconds=0), None)
    check(update(CALLBACK, Action.START, heartbeat_timeout_seconds=MAX_CALLBACK_SECONDS), None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", OperationType.CONTEXT),
        ("name", None),
        ("name", "other"),
        ("subtype", "other"),
        ("parent_id", "other"),
    ],
)
def test_an_operation_stays_what_it_is(field: str, value: object) -> None:
    same: dict[str, Any] = {"name": "n", "subtype": "Step", "parent_id": "p"}
    operation = stored(STEP, Status.STARTED, **same)
    move = Update(**{"id": "a", "type": STEP, "action": Action.SUCCEED, **same, field: value})
    with pytest.raises(InvalidUpdateError, match=f"expected {field} '.*' as recorded, found"):
        check(move, operation)


def test_an_execution_update_can_not_take_the_id_of_another_operation() -> None:
    with pytest.raises(InvalidUpdateError, match="expected type 'STEP' as recorded"):
        check(update(OperationType.EXECUTION, Action.SUCCEED), stored(STEP, Status.STARTED))


def test_a_batch_builds_on_itself_and_leaves_the_state_alone() -> None:
    operations: dict[str, Operation] = {}
    batch = [
        update(OperationType.CONTEXT, Action.START, id="c"),
        update(STEP, Action.START, id="s", parent_id="c"),
        update(STEP, Action.RETRY, id="s", parent_id="c", delay_seconds=1, error=ERROR),
        update(OperationType.CONTEXT, Action.FAIL, id="c", error=ERROR),
    ]
    results = apply_batch(batch, operations, 7)
    assert [result.status for result in results] == [
        Status.STARTED,
        Status.STARTED,
        Status.PENDING,
        Status.FAILED,
    ]
    assert operations == {}
    check_batch(batch, operations)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([update(STEP, Action.START), update(STEP, Action.START)], "one update .*STARTED"),
        ([update(STEP, Action.SUCCEED), update(STEP, Action.FAIL)], "became SUCCEEDED"),
        (
            [update(WAIT, Action.START, wait_seconds=1), update(WAIT, Action.CANCEL)],
            "one update of an operation in a batch",
        ),
        ([update(STEP, Action.START, parent_id="a")], "a context with the id 'a', found none"),
        (
            [update(STEP, Action.START), update(STEP, Action.START, id="b", parent_id="a")],
            "'a' to be a CONTEXT, found STEP",
        ),
        (
            [
                update(OperationType.CONTEXT, Action.SUCCEED),
                update(STEP, Action.START, id="b", parent_id="a"),
            ],
            "'a' STARTED, found SUCCEEDED",
        ),
        (
            [update(OperationType.EXECUTION, Action.SUCCEED), update(STEP, Action.START, id="b")],
            "EXECUTION to be the last update, found it at place 1 of 2",
        ),
        ([update(STEP, Action.START)] * 251, "at most 250 updates, found 251"),
    ],
)
def test_a_batch_is_refused(batch: list[Update], message: str) -> None:
    with pytest.raises(InvalidUpdateError, match=message):
        check_batch(batch, {})


def test_nothing_below_an_ended_context_moves() -> None:
    operations = {
        "top": stored(OperationType.CONTEXT, Status.SUCCEEDED, id="top"),
        "c": stored(OperationType.CONTEXT, Status.STARTED, id="c", parent_id="top"),
        "a": stored(STEP, Status.STARTED, parent_id="c"),
    }
    with pytest.raises(InvalidUpdateError, match="the context 'top' STARTED, found SUCCEEDED"):
        check_batch([update(STEP, Action.SUCCEED, parent_id="c")], operations)


def test_a_retry_starts_only_once_it_was_read() -> None:
    operations = {"a": stored(STEP, Status.READY, ended_attempts=1)}
    start = [update(STEP, Action.START)]
    with pytest.raises(InvalidUpdateError, match="READY to have been read"):
        check_batch(start, operations, unread={"a"})
    check_batch(start, operations, unread={"b"})


def test_250_updates_are_fine() -> None:
    batch = [update(STEP, Action.START, id=f"s{n}") for n in range(250)]
    assert len(apply_batch(batch, {}, 0)) == 250
