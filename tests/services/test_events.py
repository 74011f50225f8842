from __future__ import annotations

from typing import Any

import pytest

from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow.services.history import HistoryEntry, HistoryEvent, build_events

ERROR = ErrorRecord(message="no", type="ValueError")


def entry(
    kind: OperationType, status: Status, update: Update | None = None, **fields: Any
) -> HistoryEntry:
    operation = Operation(id="a", type=kind, status=status, start_ms=1_000, **fields)
    return HistoryEntry(2_000, operation, update)


def event_of(one: HistoryEntry) -> HistoryEvent:
    (event,) = build_events([one])
    return event


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        (OperationType.EXECUTION, Status.TIMED_OUT, "ExecutionTimedOut"),
        (OperationType.CONTEXT, Status.STARTED, "ContextStarted"),
        (OperationType.STEP, Status.FAILED, "StepFailed"),
        (OperationType.WAIT, Status.CANCELLED, "WaitCancelled"),
        (OperationType.CALLBACK, Status.TIMED_OUT, "CallbackTimedOut"),
        (OperationType.CHAINED_INVOKE, Status.STOPPED, "ChainedInvokeStopped"),
    ],
)
def test_events_are_named_after_kind_and_outcome(
    kind: OperationType, status: Status, name: str
) -> None:
    assert event_of(entry(kind, status)).type == name


def test_ids_count_from_one_and_ready_is_no_event() -> None:
    entries = [
        entry(OperationType.STEP, Status.STARTED),
        entry(OperationType.STEP, Status.READY),
        entry(OperationType.STEP, Status.SUCCEEDED),
    ]
    assert [(event.id, event.type) for event in build_events(entries)] == [
        (1, "StepStarted"),
        (2, "StepSucceeded"),
    ]


def test_a_retry_is_a_failure_with_a_delay() -> None:
    update = Update(id="a", type=OperationType.STEP, action=Action.RETRY, delay_seconds=4)
    failed = event_of(
        entry(OperationType.STEP, Status.PENDING, update, error=ERROR, ended_attempts=2)
    )
    assert (failed.type, failed.error) == ("StepFailed", ERROR)
    assert (failed.current_attempt, failed.delay_seconds) == (2, 4)
    polled = event_of(
        entry(OperationType.STEP, Status.PENDING, update, payload="1", ended_attempts=1)
    )
    assert (polled.type, polled.payload) == ("StepSucceeded", "1")


def test_the_start_of_a_retry_repeats_nothing_of_the_last_attempt() -> None:
    update = Update(id="a", type=OperationType.STEP, action=Action.START)
    started = event_of(
        entry(
            OperationType.STEP, Status.STARTED, update, payload="1", error=ERROR, ended_attempts=1
        )
    )
    assert (started.payload, started.error, started.current_attempt) == (None, None, 2)


def test_an_execution_tells_its_input_first_and_its_result_last() -> None:
    kind = OperationType.EXECUTION
    assert event_of(entry(kind, Status.STARTED, payload='"in"')).payload == '"in"'
    update = Update(id="a", type=kind, action=Action.SUCCEED, payload='"out"')
    assert event_of(entry(kind, Status.SUCCEEDED, update, payload='"in"')).payload == '"out"'
    assert event_of(entry(kind, Status.STOPPED, payload='"in"', error=ERROR)).payload is None


def test_a_wait_tells_its_length_and_its_end() -> None:
    started = event_of(entry(OperationType.WAIT, Status.STARTED, scheduled_end_ms=61_000))
    assert (started.wait_seconds, started.scheduled_end_ms) == (60, 61_000)
    ended = event_of(entry(OperationType.WAIT, Status.SUCCEEDED, scheduled_end_ms=61_000))
    assert (ended.wait_seconds, ended.scheduled_end_ms) == (60, None)


def test_callbacks_and_invokes_tell_how_they_were_started() -> None:
    update = Update(
        id="a",
        type=OperationType.CALLBACK,
        action=Action.START,
        timeout_seconds=9,
        heartbeat_timeout_seconds=3,
    )
    opened = event_of(entry(OperationType.CALLBACK, Status.STARTED, update, callback_id="x.a"))
    assert (opened.callback_id, opened.timeout_seconds) == ("x.a", 9)
    assert opened.heartbeat_timeout_seconds == 3
    update = Update(
        id="a",
        type=OperationType.CHAINED_INVOKE,
        action=Action.START,
        function_name="f",
        tenant_id="t",
        payload='"in"',
    )
    invoked = event_of(entry(OperationType.CHAINED_INVOKE, Status.STARTED, update))
    assert (invoked.function_name, invoked.tenant_id, invoked.payload) == ("f", "t", '"in"')


def test_an_event_says_where_it_belongs() -> None:
    event = event_of(
        entry(OperationType.STEP, Status.SUCCEEDED, name="n", parent_id="p", subtype="Step")
    )
    assert (event.time_ms, event.operation_id, event.operation_type) == (
        2_000,
        "a",
        OperationType.STEP,
    )
    assert (event.name, event.parent_id, event.subtype) == ("n", "p", "Step")
