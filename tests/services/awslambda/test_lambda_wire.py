"""Records to the wire and back, and invocations from events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pyworkflow._engine.messages import Failed, Succeeded, Suspended
from pyworkflow._protocol import wire
from pyworkflow._protocol.executions import Committed, Page
from pyworkflow._protocol.records import (
    LAST_MS,
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow._protocol.wire import (
    committed_from_response,
    error_to_wire,
    operations_from_event,
    page_from_response,
    update_to_wire,
)
from pyworkflow._protocol.wire_misfits import MisfitError
from pyworkflow.aws._answer import answer
from pyworkflow.errors import ServiceError
from pyworkflow.services.awslambda import invocation_from_event
from tests.services.awslambda.lambda_api import ARN

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

to_json = msgspec.json.encode

STEP = {"Id": "a", "Type": "STEP", "Status": "STARTED"}
RECORD = Operation(id="a", type=OperationType.STEP, status=Status.STARTED, start_ms=1000)
ERROR = ErrorRecord("bad", "ValueError", '{"code": 3}', ("outer", "inner"))
ERROR_OBJECT = {
    "ErrorMessage": "bad",
    "ErrorType": "ValueError",
    "ErrorData": '{"code": 3}',
    "StackTrace": ("outer", "inner"),
}

# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({"type": OperationType.STEP, "action": Action.START}, {}),
        (
            {
                "type": OperationType.STEP,
                "action": Action.SUCCEED,
                "parent_id": "p",
                "name": "charge",
                "subtype": "Step",
                "payload": "",
            },
            {"ParentId": "p", "Name": "charge", "SubType": "Step", "Payload": ""},
        ),
        (
            {
                "type": OperationType.STEP,
                "action": Action.RETRY,
                "error": ERROR,
                "delay_seconds": 7,
            },
            {"Error": ERROR_OBJECT, "StepOptions": {"NextAttemptDelaySeconds": 7}},
        ),
        (
            {"type": OperationType.CONTEXT, "action": Action.SUCCEED, "replay_children": True},
            {"ContextOptions": {"ReplayChildren": True}},
        ),
        (
            {"type": OperationType.WAIT, "action": Action.START, "wait_seconds": 60},
            {"WaitOptions": {"WaitSeconds": 60}},
        ),
        (
            {
                "type": OperationType.CALLBACK,
                "action": Action.START,
                "timeout_seconds": 5,
                "heartbeat_timeout_seconds": 0,
            },
            {"CallbackOptions": {"TimeoutSeconds": 5, "HeartbeatTimeoutSeconds": 0}},
        ),
        (
            {
                "type": OperationType.CHAINED_INVOKE,
                "action": Action.START,
                "function_name": "f:live",
                "tenant_id": "t",
            },
            {"ChainedInvokeOptions": {"FunctionName": "f:live", "TenantId": "t"}},
        ),
    ],
)
def test_updates(fields: dict[str, Any], wire: dict[str, Any]) -> None:
    common = {"Id": "a", "Type": fields["type"].value, "Action": fields["action"].value}
    assert update_to_wire(Update(id="a", **fields)) == {**common, **wire}


def test_the_times_of_a_body_are_not_sent() -> None:
    plain = Update(id="a", type=OperationType.STEP, action=Action.SUCCEED)
    timed = replace(plain, begin_ms=1, end_ms=2)
    assert update_to_wire(timed) == update_to_wire(plain)


@pytest.mark.parametrize(
    ("kind", "status", "attempt"),
    [("STEP", "STARTED", 3), ("STEP", "READY", 3), ("STEP", "PENDING", 2), ("STEP", "FAILED", 2)],
)
def test_lambda_counts_ended_attempts(kind: str, status: str, attempt: int) -> None:
    sent = {"Id": "a", "Type": kind, "Status": status, "StartTimestamp": 1}
    (found,) = operations_from_event([{**sent, "StepDetails": {"Attempt": 2}}])
    assert found.attempt == attempt


def test_errors() -> None:
    assert error_to_wire(ERROR) == ERROR_OBJECT
    assert error_to_wire(ErrorRecord()) == {"ErrorMessage": "", "ErrorType": ""}


# -- reading -------------------------------------------------------------------------------------


def test_an_event_counts_milliseconds_and_an_answer_seconds() -> None:
    details = {"Attempt": 2, "NextAttemptTimestamp": 5500}
    (from_event,) = operations_from_event(
        [{**STEP, "StartTimestamp": 1000, "EndTimestamp": 4321, "StepDetails": details}]
    )
    details = {"Attempt": 2, "NextAttemptTimestamp": 5.5}  # type: ignore[dict-item]
    (from_answer,) = page_from_response(
        to_json(
            {
                "Operations": [
                    {**STEP, "StartTimestamp": 1, "EndTimestamp": 4.321, "StepDetails": details}
                ]
            }
        )
    ).operations
    assert from_event == from_answer
    assert (from_event.start_ms, from_event.end_ms, from_event.next_attempt_ms) == (
        1000,
        4321,
        5500,
    )
    assert from_event.sequence is None
    assert (from_event.ended_attempts, from_event.attempt) == (2, 3)


def test_fractions_of_seconds_are_rounded_not_cut() -> None:
    answer = {"Operations": [{**STEP, "StartTimestamp": 1_767_225_600.289}]}
    assert page_from_response(to_json(answer)).operations[0].start_ms == 1_767_225_600_289


@pytest.mark.parametrize(
    ("details", "fields"),
    [
        ({"StepDetails": {"Result": "1"}}, {"payload": "1"}),
        ({"ContextDetails": {"Result": "1"}}, {"payload": "1"}),
        (
            {"CallbackDetails": {"Result": "1", "CallbackId": "c"}},
            {"payload": "1", "callback_id": "c"},
        ),
        ({"ChainedInvokeDetails": {"Result": "1"}}, {"payload": "1"}),
        ({"ExecutionDetails": {"InputPayload": "1"}}, {"payload": "1"}),
        ({"ContextDetails": {"ReplayChildren": True}}, {"replay_children": True}),
        ({"WaitDetails": {"ScheduledEndTimestamp": 9}}, {"scheduled_end_ms": 9}),
        ({"StepDetails": {"Error": ERROR_OBJECT}}, {"error": ERROR}),
        ({"StepDetails": {"Error": {}}}, {"error": ErrorRecord()}),
        (
            {"StepDetails": {"Error": {**ERROR_OBJECT, "StackTrace": ["outer", "inner"]}}},
            {"error": ERROR},
        ),
        ({"StepDetails": None, "Name": None, "EndTimestamp": None}, {}),
        ({"StepDetails": {}}, {}),
        ({"SomethingNew": [1], "StepDetails": {"Newer": {}}}, {}),
        (
            {"ParentId": "p", "Name": "n", "SubType": "New"},
            {"parent_id": "p", "name": "n", "subtype": "New"},
        ),
    ],
)
def test_operations(details: dict[str, Any], fields: dict[str, Any]) -> None:
    (found,) = operations_from_event([{**STEP, "StartTimestamp": 1000, **details}])
    assert found == Operation(
        id="a", type=OperationType.STEP, status=Status.STARTED, start_ms=1000, **fields
    )


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ({}, r"Operations\[1\] without Id, Type, Status, StartTimestamp"),
        ({**STEP}, r"without StartTimestamp"),
        ({**STEP, "Id": None, "StartTimestamp": 1}, r"without Id"),
        ({**STEP, "Id": 7}, r"Operations\[1\]\.Id: expected a string"),
        ({**STEP, "Type": "NAP"}, r"Type: expected one of CALLBACK, .*WAIT"),
        ({**STEP, "Status": 4}, r"Status: expected one of CANCELLED"),
        ({**STEP, "StartTimestamp": "2026"}, r"StartTimestamp: expected a number"),
        ({**STEP, "StepDetails": "x"}, r"Operations\[1\]\.StepDetails: expected an object"),
        ({**STEP, "StepDetails": {"Attempt": 1.5}}, r"StepDetails\.Attempt: expected a whole"),
        ({**STEP, "ContextDetails": {"ReplayChildren": 1}}, r"ReplayChildren: expected true or"),
        ({**STEP, "StepDetails": {"Error": []}}, r"StepDetails\.Error: expected an object"),
        (
            {**STEP, "StepDetails": {"Error": {"StackTrace": "x"}}},
            r"StepDetails\.Error\.StackTrace: expected a list",
        ),
        ("STEP", r"Operations\[1\]: expected an object"),
    ],
)
def test_what_does_not_fit_is_named(operation: Any, said: str) -> None:
    good = {**STEP, "StartTimestamp": 1000}
    with pytest.raises(ServiceError, match=said):
        operations_from_event([good, operation])


@pytest.mark.parametrize("key", ["Id", "Type", "Status", "StartTimestamp", "EndTimestamp"])
def test_no_value_of_any_key_is_shown(key: str) -> None:
    """In an answer of the API as in an event, and of none of our own fields."""
    operation = {**STEP, "StartTimestamp": 1, key: ["4111"]}
    for read in (
        lambda: operations_from_event([operation]),
        lambda: page_from_response(to_json({"Operations": [operation]})),
    ):
        with pytest.raises(MisfitError, match=rf"Operations\[0\]\.{key}: expected") as caught:
            read()
        assert "4111" not in str(caught.value)


def test_a_time_beyond_all_dates_is_refused() -> None:
    for time in (-1, 1e300):
        with pytest.raises(MisfitError, match="StartTimestamp: expected a number"):
            operations_from_event([{**STEP, "StartTimestamp": time}])


def test_a_value_is_not_shown() -> None:
    operation = {**STEP, "StepDetails": {"Result": {"card": "4111"}}}
    with pytest.raises(ServiceError) as caught:
        operations_from_event([operation])
    assert "Result: expected a string" in str(caught.value)
    assert "4111" not in str(caught.value)


# -- answers -------------------------------------------------------------------------------------

OPERATIONS = [{**STEP, "StartTimestamp": 1.0}]


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        ({"Operations": []}, Page(())),
        ({"Operations": OPERATIONS, "NextMarker": "m"}, Page((RECORD,), "m")),
        ({"Operations": OPERATIONS, "NextMarker": ""}, Page((RECORD,))),
        ({"Operations": OPERATIONS, "NextMarker": None}, Page((RECORD,))),
    ],
)
def test_pages(answer: Any, page: Page) -> None:
    assert page_from_response(to_json(answer)) == page


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "a page of the state without Operations"),
        ([], "expected an object"),
        ({"Operations": {}}, "Operations: expected a list"),
    ],
)
def test_an_answer_that_is_no_page(answer: Any, said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        page_from_response(to_json(answer))


@pytest.mark.parametrize(
    ("answer", "committed"),
    [
        (
            {"CheckpointToken": "t", "NewExecutionState": {"Operations": OPERATIONS}},
            Committed("t", (RECORD,)),
        ),
        (
            {"CheckpointToken": "t", "NewExecutionState": {"NextMarker": "m"}},
            Committed("t", (), "m"),
        ),
        ({"NewExecutionState": {"Operations": OPERATIONS}}, Committed(None, (RECORD,))),
        ({"CheckpointToken": "", "NewExecutionState": {}}, Committed(None, ())),
        ({"CheckpointToken": None}, Committed(None, ())),
    ],
)
def test_answers_to_a_checkpoint(answer: Any, committed: Committed) -> None:
    assert committed_from_response(to_json(answer)) == committed


def test_an_answer_that_is_none_to_a_checkpoint() -> None:
    with pytest.raises(ServiceError, match="the response to a checkpoint: expected an object"):
        committed_from_response(b'"token"')


# -- both ends: what one writes the other reads ---------------------------------------------------

TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=9)
NUMBERS = st.integers(0, 10**6)
TIMES = st.none() | st.integers(0, LAST_MS)
ERRORS = st.none() | st.builds(
    ErrorRecord, st.text("aé"), st.text("aé"), TEXTS, st.tuples() | st.tuples(st.text("aé"))
)
DETAILS: dict[OperationType, dict[str, Any]] = {
    OperationType.EXECUTION: {"payload": TEXTS},
    OperationType.CONTEXT: {"payload": TEXTS, "error": ERRORS, "replay_children": st.booleans()},
    OperationType.STEP: {
        "payload": TEXTS,
        "error": ERRORS,
        "ended_attempts": NUMBERS,
        "next_attempt_ms": TIMES,
    },
    OperationType.WAIT: {"scheduled_end_ms": TIMES},
    OperationType.CALLBACK: {"payload": TEXTS, "error": ERRORS, "callback_id": TEXTS},
    OperationType.CHAINED_INVOKE: {"payload": TEXTS, "error": ERRORS},
}
OPTIONS: dict[OperationType, dict[str, Any]] = {
    OperationType.EXECUTION: {},
    OperationType.CONTEXT: {"replay_children": st.booleans()},
    OperationType.STEP: {"delay_seconds": st.none() | NUMBERS},
    OperationType.WAIT: {"wait_seconds": st.none() | NUMBERS},
    OperationType.CALLBACK: {
        "timeout_seconds": st.none() | NUMBERS,
        "heartbeat_timeout_seconds": st.none() | NUMBERS,
    },
    OperationType.CHAINED_INVOKE: {"function_name": TEXTS, "tenant_id": TEXTS},
}
COMMON: dict[str, Any] = {"id": st.text(), "parent_id": TEXTS, "name": TEXTS, "subtype": TEXTS}


@st.composite
def drawn(draw: st.DrawFn, kind: Callable[..., T], parts: Any, fields: dict[str, Any]) -> T:
    """Return a record of any type, with what only that type has."""
    operation = draw(st.sampled_from(OperationType))
    every = {**COMMON, **fields, **parts[operation]}
    return kind(type=operation, **{name: draw(each) for name, each in every.items()})


OPERATIONS_OF_ALL_TYPES = drawn(
    Operation,
    DETAILS,
    {
        "status": st.sampled_from(Status),
        "start_ms": st.integers(0, LAST_MS),
        "end_ms": TIMES,
    },
)
UPDATES_OF_ALL_TYPES = drawn(
    Update, OPTIONS, {"action": st.sampled_from(Action), "payload": TEXTS, "error": ERRORS}
)


@given(OPERATIONS_OF_ALL_TYPES)
def test_an_operation_comes_back_from_an_event(operation: Operation) -> None:
    sent = to_json(wire.shape_of(operation, wire.Operation, wire.MILLISECONDS))
    assert operations_from_event([msgspec.json.decode(sent)]) == (operation,)


@given(OPERATIONS_OF_ALL_TYPES)
def test_an_operation_comes_back_from_an_answer(operation: Operation) -> None:
    shape = wire.shape_of(operation, wire.Operation, wire.SECONDS)
    answer = wire.StateResponse((shape,), "m")
    assert page_from_response(wire.encoded(answer)) == Page((operation,), "m")
    checkpoint = wire.CheckpointResponse("t", wire.ExecutionState((shape,)))
    assert committed_from_response(wire.encoded(checkpoint)) == Committed("t", (operation,))


@given(st.lists(UPDATES_OF_ALL_TYPES, max_size=3))
def test_updates_come_back_from_a_request(updates: list[Update]) -> None:
    shapes = tuple(wire.shape_of(update, wire.OperationUpdate) for update in updates)
    sent = wire.encoded(wire.CheckpointRequest("t", shapes, "c"))
    found = wire.decoded(sent, wire.CheckpointRequest, "The client sent a checkpoint")
    assert (found.token, found.client_token) == ("t", "c")
    assert [wire.update_of(shape) for shape in found.updates or ()] == updates


def test_a_request_that_does_not_fit_is_named() -> None:
    sent = to_json({"CheckpointToken": "t", "Updates": [{"Id": "a", "Type": "STEP"}]})
    with pytest.raises(MisfitError, match=r"The client sent it\.Updates\[0\] without Action"):
        wire.decoded(sent, wire.CheckpointRequest, "The client sent it")


def test_an_invocation_comes_back_from_an_event() -> None:
    execution = wire.shape_of(
        Operation(id="6f9b", type=OperationType.EXECUTION, status=Status.STARTED, start_ms=1000),
        wire.Operation,
    )
    event = wire.InvocationEvent(ARN, "t", wire.ExecutionState((execution,), "m"))
    found = invocation_from_event(msgspec.to_builtins(event))
    assert (found.execution_id, found.token, found.marker) == (ARN, "t", "m")
    assert [operation.id for operation in found.operations] == ["6f9b"]


@pytest.mark.parametrize(
    "end",
    [
        Succeeded("[1]", [1]),
        Failed(ERROR, ValueError("bad")),
        Suspended(),
    ],
)
def test_an_answer_to_an_invocation_is_read(end: Any) -> None:
    sent = json.dumps(answer(end, 0)).encode()
    found = wire.decoded(sent, wire.InvocationResponse, "The function sent")
    assert found.status in {"SUCCEEDED", "FAILED", "PENDING"}
    assert found.result == getattr(end, "payload", None)
    error = None if found.error is None else wire.error_record(found.error)
    assert error == getattr(end, "record", None)


# -- invocations ---------------------------------------------------------------------------------

EXECUTION = {
    "Id": "6f9b",
    "Type": "EXECUTION",
    "Status": "STARTED",
    "StartTimestamp": 1000,
    "ExecutionDetails": {"InputPayload": '{"order_id": "o-1"}'},
}
EVENT = {
    "DurableExecutionArn": ARN,
    "CheckpointToken": "dG9rZW4=",
    "InitialExecutionState": {"Operations": [EXECUTION], "NextMarker": ""},
    "UpdatedOperationIds": [],
}


def test_an_event_is_an_invocation() -> None:
    found = invocation_from_event(EVENT)
    assert found.execution_id == ARN
    assert found.execution_name == "o-1"
    assert found.workflow_name == "order"
    assert found.token == "dG9rZW4="
    assert found.marker is None
    assert found.max_operations == 3000
    (execution,) = found.operations
    assert execution.type is OperationType.EXECUTION
    assert execution.id == ARN.rpartition("/")[2]
    assert execution.payload == '{"order_id": "o-1"}'


@pytest.mark.parametrize("state", [{"Operations": [], "NextMarker": "m"}, {"NextMarker": "m"}])
def test_the_first_page_may_be_empty(state: Any) -> None:
    found = invocation_from_event({**EVENT, "InitialExecutionState": state})
    assert (found.operations, found.marker) == ((), "m")


def test_an_id_that_is_no_arn_is_its_own_name() -> None:
    found = invocation_from_event({**EVENT, "DurableExecutionArn": "1b3c"})
    assert (found.execution_id, found.execution_name) == ("1b3c", "1b3c")
    assert found.workflow_name == ""


@pytest.mark.parametrize("key", ["DurableExecutionArn", "CheckpointToken", "InitialExecutionState"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_plain_event_says_how_to_invoke(key: str, is_there: bool) -> None:
    event: dict[str, Any] = {**EVENT, key: None}
    if not is_there:
        del event[key]
    with pytest.raises(ServiceError, match=rf"found no {key}\. .*version, alias or \$LATEST"):
        invocation_from_event(event)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DurableExecutionArn": 7}, "the event.DurableExecutionArn: expected a string"),
        ({"InitialExecutionState": []}, r"the event\.InitialExecutionState: expected an object"),
        (
            {"InitialExecutionState": {"Operations": 1}},
            r"the event\.InitialExecutionState\.Operations: expected a list",
        ),
        ({"InitialExecutionState": {}}, "expected its EXECUTION operation"),
    ],
)
def test_an_event_that_does_not_fit(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        invocation_from_event({**EVENT, **change})
