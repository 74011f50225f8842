"""The port: what a commit sends, and that its answer holds every update of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._protocol.executions import Committed, Page
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Status, Update
from pyworkflow.errors import (
    InvalidUpdateError,
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)
from pyworkflow.services.awslambda import LambdaService
from tests.services.awslambda.lambda_api import (
    ARN,
    Answer,
    FakeLambda,
    cut_after,
    cut_before,
    fail,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN = "b25l"
STEP = OperationType.STEP
START = Update(id="a", type=STEP, action=Action.START, name="charge", subtype="Step")
SUCCEED = Update(
    id="a", type=STEP, action=Action.SUCCEED, name="charge", subtype="Step", payload='"é"'
)


def wire(name: str = "a", status: str = "SUCCEEDED", **more: Any) -> dict[str, Any]:
    return {"Id": name, "Type": "STEP", "Status": status, "StartTimestamp": 1.0, **more}


def checkpoint(*operations: dict[str, Any], **more: Any) -> Answer:
    state = {"Operations": list(operations), **more}
    return Answer({"CheckpointToken": "dHdv", "NewExecutionState": state})


def page(*operations: dict[str, Any], **more: Any) -> Answer:
    return Answer({"Operations": list(operations), **more})


def commit(api: FakeLambda, updates: Sequence[Update]) -> Committed:
    return api.run(lambda client: LambdaService(client).commit(ARN, TOKEN, updates))


# -- commit --------------------------------------------------------------------------------------


def test_what_a_commit_sends(api: FakeLambda) -> None:
    api.answers.append(checkpoint(wire()))
    commit(api, [START, SUCCEED])
    (request,) = api.requests
    assert request.method == "POST"
    assert request.path == ["2025-12-01", "durable-executions", ARN, "checkpoint"]
    content = request.content
    assert 1 <= len(content.pop("ClientToken")) <= 64
    common = {"Id": "a", "Type": "STEP", "Name": "charge", "SubType": "Step"}
    assert content == {
        "CheckpointToken": TOKEN,
        "Updates": [
            {**common, "Action": "START"},
            {**common, "Action": "SUCCEED", "Payload": '"é"'},
        ],
    }


def test_what_a_commit_returns(api: FakeLambda) -> None:
    api.answers.append(checkpoint(wire(), wire("due", "READY"), NextMarker="more"))
    found = commit(api, [START, SUCCEED])
    assert (found.token, found.marker) == ("dHdv", "more")
    assert [(op.id, op.status) for op in found.operations] == [("a", "SUCCEEDED"), ("due", "READY")]
    assert len(api.requests) == 1


def test_an_empty_commit_refreshes(api: FakeLambda) -> None:
    assert commit(api, []) == Committed("bmV4dA==", ())
    assert api.requests[0].content["Updates"] == []


def test_no_token_is_the_end(api: FakeLambda) -> None:
    api.answers.append(Answer({"NewExecutionState": {"Operations": []}}))
    assert commit(api, [SUCCEED]) == Committed(None, ())
    assert len(api.requests) == 1


def test_each_commit_has_a_client_token_of_its_own(api: FakeLambda) -> None:
    async def twice(client: Any) -> None:
        for _ in range(2):
            await LambdaService(client).commit(ARN, TOKEN, [])

    api.run(twice)
    first, second = (request.content["ClientToken"] for request in api.requests)
    assert first != second


@pytest.mark.parametrize("fault", [cut_before, cut_after, fail(500), fail(429)])
def test_a_commit_is_applied_once_though_it_is_sent_again(api: FakeLambda, fault: Any) -> None:
    api.faults.append(fault)
    api.answers.append(checkpoint(wire()))
    assert commit(api, [SUCCEED]).token == "dHdv"
    first, second = (request.content["ClientToken"] for request in api.requests)
    assert first == second
    assert list(api.applied) == [first]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (
            fail(400, "InvalidParameterValueException", "Invalid checkpoint token"),
            StaleTokenError,
        ),
        (fail(502, "KMSNotFoundException"), RequestRefusedError),
    ],
)
def test_a_refused_commit_raises(api: FakeLambda, fault: Any, error: type[Exception]) -> None:
    api.faults.append(fault)
    with pytest.raises(error):
        commit(api, [SUCCEED])
    assert len(api.requests) == 1


def test_a_lasting_outage_raises(api: FakeLambda) -> None:
    api.faults += [cut_after] * 20
    with pytest.raises(ServiceUnavailableError):
        commit(api, [SUCCEED])
    assert len(api.applied) == 1


def test_what_is_beyond_the_limits_is_not_sent(api: FakeLambda) -> None:
    with pytest.raises(InvalidUpdateError):
        commit(api, [Update(id="a", type=STEP, action=Action.SUCCEED, payload="x" * 300_000)])
    with pytest.raises(InvalidUpdateError, match="251 updates"):
        commit(api, [SUCCEED] * 251)
    assert api.requests == []


def test_a_stack_trace_is_cut_to_its_limit(api: FakeLambda) -> None:
    error = ErrorRecord("bad", "ValueError", None, tuple("frame" * 20 for _ in range(1000)))
    api.answers.append(checkpoint(wire()))
    commit(api, [Update(id="a", type=STEP, action=Action.FAIL, error=error)])
    (sent,) = api.requests[0].content["Updates"]
    assert 0 < len(sent["Error"]["StackTrace"]) < 1000


# -- an answer that leaves our updates out --------------------------------------------------------


def test_our_updates_may_be_on_a_later_page(api: FakeLambda) -> None:
    api.answers += [
        checkpoint(wire("due"), NextMarker="2"),
        page(wire("other"), NextMarker="3"),
        page(wire("a"), NextMarker="4"),
    ]
    found = commit(api, [SUCCEED])
    assert [op.id for op in found.operations] == ["due", "other", "a"]
    assert (found.token, found.marker) == ("dHdv", "4")
    assert [request.query for request in api.requests[1:]] == [
        {"CheckpointToken": "dHdv", "MaxItems": "1000", "Marker": marker} for marker in "23"
    ]


@pytest.mark.parametrize("pages", [["2"], [None, "3", "3"]])
def test_a_marker_that_comes_again_is_an_error(api: FakeLambda, pages: list[str | None]) -> None:
    following = [page(wire("other"), NextMarker=each) if each else page() for each in pages]
    api.answers += [checkpoint(wire("due"), NextMarker="2"), *following]
    with pytest.raises(ServiceError, match="again"):
        commit(api, [SUCCEED])


def test_what_the_answer_leaves_out_is_read_from_the_state(api: FakeLambda) -> None:
    api.answers += [
        checkpoint(wire("due"), NextMarker="2"),
        page(wire("other")),
        page(wire("unchanged"), NextMarker="2"),
        page(wire("a", EndTimestamp=5.0)),
    ]
    found = commit(api, [SUCCEED])
    assert [(op.id, op.end_ms) for op in found.operations] == [
        ("due", None),
        ("other", None),
        ("a", 5000),
    ]
    assert found.marker is None
    assert [request.query.get("Marker") for request in api.requests[1:]] == ["2", None, "2"]


def test_what_the_state_leaves_out_is_worked_out(api: FakeLambda) -> None:
    api.answers += [
        checkpoint(wire("b")),
        page(wire("b", EndTimestamp=7.5), wire("c")),
    ]
    updates = [
        START,
        Update(id="b", type=STEP, action=Action.SUCCEED),
        SUCCEED,
    ]
    found = commit(api, updates)
    known, made = found.operations
    assert known.id == "b"
    assert (made.id, made.status, made.payload) == ("a", Status.SUCCEEDED, '"é"')
    assert (made.start_ms, made.end_ms, made.name) == (7500, 7500, "charge")


def test_even_an_empty_state_is_borne(api: FakeLambda) -> None:
    api.answers += [checkpoint(), page()]
    (made,) = commit(api, [START]).operations
    assert (made.id, made.status, made.start_ms) == ("a", Status.STARTED, 0)


def test_the_end_of_the_execution_is_not_looked_for(api: FakeLambda) -> None:
    api.answers.append(checkpoint())
    end = Update(id="e", type=OperationType.EXECUTION, action=Action.SUCCEED, payload="1")
    assert commit(api, [end]) == Committed("dHdv", ())
    assert len(api.requests) == 1


# -- load ----------------------------------------------------------------------------------------


def test_a_page_of_the_state(api: FakeLambda) -> None:
    api.answers.append(page(wire(), NextMarker="m2"))
    found = api.run(lambda client: LambdaService(client).load(ARN, "t+/=", "m1+/= &"))
    assert isinstance(found, Page)
    assert [op.id for op in found.operations] == ["a"]
    assert found.marker == "m2"
    (request,) = api.requests
    assert request.method == "GET"
    assert request.path == ["2025-12-01", "durable-executions", ARN, "state"]
    assert request.query == {"CheckpointToken": "t+/=", "MaxItems": "1000", "Marker": "m1+/= &"}
