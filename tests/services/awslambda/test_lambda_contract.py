"""Against the Lambda API's own service model, as botocore has it.

Each request that we send is one that the model allows, and the one that its generated client would
send; each answer that the model allows is understood, and loses nothing.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import boto3
import botocore.loaders
import botocore.parsers
import msgspec
import pytest
from botocore.awsrequest import AWSResponse
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from pyworkflow._protocol import wire
from pyworkflow._protocol.executions import Page
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow.services.awslambda import LambdaService
from tests.services.awslambda.lambda_api import ARN, KEYS, Answer, FakeLambda

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKPOINT, STATE = "CheckpointDurableExecution", "GetDurableExecutionState"


@cache
def model() -> Any:
    return ServiceModel(botocore.loaders.Loader().load_service_model("lambda", "service-2"))


def shape(name: str) -> Any:
    return model().shape_for(name)


# -- requests ------------------------------------------------------------------------------------

ERROR = ErrorRecord("bad", "ValueError", '{"code": 3}', ("outer", "inner"))
COMMON: dict[str, Any] = {"id": "a" * 64, "name": "charge card", "parent_id": "p_-1"}
UPDATES = {
    "step-start": Update(**COMMON, type=OperationType.STEP, action=Action.START, subtype="Step"),
    "step-succeed": Update(
        **COMMON, type=OperationType.STEP, action=Action.SUCCEED, payload='"é\u2028\U0001f600"'
    ),
    "step-fail": Update(**COMMON, type=OperationType.STEP, action=Action.FAIL, error=ERROR),
    "step-retry": Update(
        **COMMON, type=OperationType.STEP, action=Action.RETRY, error=ERROR, delay_seconds=1
    ),
    "condition-retry": Update(
        id="a",
        type=OperationType.STEP,
        action=Action.RETRY,
        subtype="WaitForCondition",
        payload="{}",
        delay_seconds=31_622_400,
    ),
    "wait": Update(id="a", type=OperationType.WAIT, action=Action.START, wait_seconds=1),
    "callback": Update(
        id="a",
        type=OperationType.CALLBACK,
        action=Action.START,
        timeout_seconds=99_999_999,
        heartbeat_timeout_seconds=0,
    ),
    "invoke": Update(
        id="a",
        type=OperationType.CHAINED_INVOKE,
        action=Action.START,
        function_name="ship:live",
        tenant_id="t 1",
        payload="{}",
    ),
    "context": Update(
        id="a", type=OperationType.CONTEXT, action=Action.SUCCEED, replay_children=True
    ),
    "execution": Update(id="a", type=OperationType.EXECUTION, action=Action.FAIL, error=ERROR),
}


def complaints(value: Any, found: Any, path: str = "$") -> Iterator[str]:
    """Yield what the model's patterns, lengths, ranges and enumerations have against ``value``."""
    if found.type_name == "structure":
        for key, content in value.items():
            yield from complaints(content, found.members[key], f"{path}.{key}")
    elif found.type_name == "list":
        for index, content in enumerate(value):
            yield from complaints(content, found.member, f"{path}[{index}]")
    else:
        rules = found.metadata
        size = len(value) if isinstance(value, str) else value
        if not rules.get("min", size) <= size <= rules.get("max", size):
            yield f"{path}: {size} is out of range"
        # The service's patterns are Java's, where a hyphen may stand after a range.
        pattern = re.sub(r"9-_([^]]*)\]", r"9_\1-]", rules.get("pattern", ""))
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} is not {pattern}"
        if found.type_name == "string" and found.enum and value not in found.enum:
            yield f"{path}: {value!r} is none of {found.enum}"


def assert_valid(params: dict[str, Any], operation: str) -> None:
    input_shape = model().operation_model(operation).input_shape
    report = ParamValidator().validate(params, input_shape)
    assert not report.has_errors(), report.generate_report()
    assert list(complaints(params, input_shape)) == []


def sent_by_generated_client(operation: str, params: dict[str, Any]) -> Any:
    """Return the request that botocore's own client makes of ``params``, unsent."""
    client = boto3.client(
        "lambda",
        "eu-west-1",
        aws_access_key_id=KEYS.access_key,
        aws_secret_access_key=KEYS.secret_key,
        aws_session_token=KEYS.token,
    )
    requests = []

    def keep(request: Any, **_: Any) -> AWSResponse:
        requests.append(request)
        answer = AWSResponse(request.url, 200, {}, None)
        answer._content = b"{}"
        return answer

    client.meta.events.register("before-send", keep)
    getattr(client, botocore.xform_name(operation))(**params)
    client.close()
    (request,) = requests
    return request


def test_the_model_would_object() -> None:
    """The checks themselves see what is wrong."""
    good = wire.update_to_wire(UPDATES["step-start"])
    for bad in ({"Id": "a b"}, {"Type": "NAP"}, {"Name": "x" * 257}):
        assert list(complaints({**good, **bad}, shape("OperationUpdate")))
    report = ParamValidator().validate({**good, "Nmae": "x"}, shape("OperationUpdate"))
    assert report.has_errors()


@pytest.mark.parametrize("kind", UPDATES)
def test_checkpoints_are_as_the_model_has_them(api: FakeLambda, kind: str) -> None:
    api.answers.append(Answer({"NewExecutionState": {}}))
    api.run(lambda client: LambdaService(client).commit(ARN, "b25l", [UPDATES[kind]]))
    (request,) = api.requests
    params = {"DurableExecutionArn": request.path[2], **request.content}
    assert_valid(params, CHECKPOINT)
    expected = sent_by_generated_client(CHECKPOINT, params)
    assert expected.method == request.method
    assert expected.url.endswith(f".amazonaws.com{request.target}")
    assert json.loads(expected.body) == request.content
    assert expected.headers["Content-Type"].decode() == request.headers["Content-Type"]


def test_all_types_and_actions_are_tried() -> None:
    assert {update.type for update in UPDATES.values()} == set(OperationType)
    assert {update.action for update in UPDATES.values()} == set(Action) - {Action.CANCEL}


def test_reads_are_as_the_model_has_them(api: FakeLambda) -> None:
    api.answers.append(Answer({"Operations": []}))
    api.run(lambda client: LambdaService(client).load(ARN, "b25l+/==", "a marker/+"))
    (request,) = api.requests
    query = {**request.query, "MaxItems": int(request.query["MaxItems"])}
    params = {"DurableExecutionArn": request.path[2], **query}
    assert_valid(params, STATE)
    expected = sent_by_generated_client(STATE, params)
    path, _, sent = expected.url.partition(".amazonaws.com")[2].partition("?")
    assert expected.method == request.method
    assert path == request.target.partition("?")[0]
    assert sorted(sent.split("&")) == sorted(request.target.partition("?")[2].split("&"))


# -- the shapes ----------------------------------------------------------------------------------


def keys_of_model(found: Any, prefix: str = "") -> Iterator[str]:
    for key, member in found.members.items():
        yield prefix + key
        inner = member.member if member.type_name == "list" else member
        if inner.type_name == "structure":
            yield from keys_of_model(inner, f"{prefix}{key}.")


def keys_of_shape(kind: type[wire.Shape], prefix: str = "") -> Iterator[str]:
    for found in msgspec.structs.fields(kind):
        yield prefix + found.encode_name
        for part in shapes_in(found.type):
            yield from keys_of_shape(part, f"{prefix}{found.encode_name}.")


def shapes_in(kind: Any) -> Iterator[type[wire.Shape]]:
    if isinstance(kind, type) and issubclass(kind, wire.Shape):
        yield kind
    for part in get_args(kind):
        yield from shapes_in(part)


@pytest.mark.parametrize(
    ("name", "kind", "unused"),
    [
        ("OperationUpdate", wire.OperationUpdate, {"ChainedInvokeOptions.XAmznTraceId"}),
        ("Operation", wire.Operation, set()),
        ("ErrorObject", wire.ErrorObject, set()),
        ("GetDurableExecutionStateResponse", wire.StateResponse, set()),
        ("CheckpointUpdatedExecutionState", wire.ExecutionState, set()),
        (
            "CheckpointDurableExecutionRequest",
            wire.CheckpointRequest,
            {"DurableExecutionArn", "Updates.ChainedInvokeOptions.XAmznTraceId"},
        ),
        ("CheckpointDurableExecutionResponse", wire.CheckpointResponse, set()),
    ],
)
def test_each_member_of_the_model_is_in_its_shape(
    name: str, kind: type[wire.Shape], unused: set[str]
) -> None:
    assert set(keys_of_shape(kind)) == set(keys_of_model(shape(name))) - unused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("OperationType", OperationType),
        ("OperationAction", Action),
        ("OperationStatus", Status),
    ],
)
def test_the_words_are_the_model_s(name: str, words: Any) -> None:
    assert sorted(shape(name).enum) == sorted(words)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Operation", wire.Operation),
        ("OperationUpdate", wire.OperationUpdate),
        ("GetDurableExecutionStateResponse", wire.StateResponse),
        ("CheckpointDurableExecutionRequest", wire.CheckpointRequest),
    ],
)
def test_what_the_model_requires_we_require(name: str, kind: type[wire.Shape]) -> None:
    fields = msgspec.structs.fields(kind)
    required = {field.encode_name for field in fields if field.required}
    assert required == set(shape(name).required_members) - {"DurableExecutionArn"}


# -- answers -------------------------------------------------------------------------------------

ONLY_REQUIRED, ALL = "only required", "all"


def sample(found: Any, members: str, path: str = "") -> Any:
    """Return a value of a shape, as it stands in an answer; each string says where it stands."""
    match found.type_name:
        case "structure":
            keys = found.members if members == ALL else found.required_members
            return {key: sample(found.members[key], members, f"{path}.{key}") for key in keys}
        case "list":
            return [sample(found.member, members, f"{path}[{n}]") for n in range(2)]
        case "string":
            return found.enum[0] if found.enum else f"text of {path}"
        case "timestamp":
            return 1_767_225_600.25 + len(path)
        case "boolean":
            return True
        case "integer":
            return len(path)
        case other:
            raise AssertionError(other)


DETAILS = [key for key in shape("Operation").members if key.endswith("Details")]


def operations() -> Iterator[dict[str, Any]]:
    """Yield operations of all types and statuses; an operation has one kind of details."""
    bare = sample(shape("Operation"), ONLY_REQUIRED)
    yield bare
    whole = sample(shape("Operation"), ALL)
    for details in DETAILS:
        others = set(DETAILS) - {details}
        yield {key: value for key, value in whole.items() if key not in others}
        yield {**bare, details: {}}
        for key, value in whole[details].items():
            yield {**bare, details: {key: value}}
            if key == "Error":
                for part in value:
                    yield {**bare, details: {key: {part: value[part]}}}
    for kind in shape("OperationType").enum:
        for status in shape("OperationStatus").enum:
            yield {**bare, "Type": kind, "Status": status}


def expected_of(parsed: dict[str, Any]) -> Operation:
    """Return the record of an operation as botocore itself has read it."""
    details: dict[str, Any] = next((parsed[key] for key in DETAILS if key in parsed), {})

    def moment(value: Any) -> int | None:
        return None if value is None else round(value.timestamp() * 1000)

    error = details.get("Error")
    return Operation(
        id=parsed["Id"],
        type=OperationType(parsed["Type"]),
        status=Status(parsed["Status"]),
        start_ms=round(parsed["StartTimestamp"].timestamp() * 1000),
        end_ms=moment(parsed.get("EndTimestamp")),
        parent_id=parsed.get("ParentId"),
        name=parsed.get("Name"),
        subtype=parsed.get("SubType"),
        ended_attempts=details.get("Attempt", 0),
        next_attempt_ms=moment(details.get("NextAttemptTimestamp")),
        scheduled_end_ms=moment(details.get("ScheduledEndTimestamp")),
        payload=details.get("Result", details.get("InputPayload")),
        error=None
        if error is None
        else ErrorRecord(
            error.get("ErrorMessage", ""),
            error.get("ErrorType", ""),
            error.get("ErrorData"),
            tuple(error.get("StackTrace", ())),
        ),
        replay_children=details.get("ReplayChildren", False),
        callback_id=details.get("CallbackId"),
    )


def parse(operation: str, content: Any) -> dict[str, Any]:
    parser = botocore.parsers.create_parser("rest-json")
    response = {"status_code": 200, "headers": {}, "body": json.dumps(content).encode()}
    parsed: dict[str, Any] = parser.parse(response, model().operation_model(operation).output_shape)
    return parsed


@pytest.mark.parametrize("operation", list(operations()), ids="-".join)
def test_each_operation_is_read_as_botocore_reads_it(operation: dict[str, Any]) -> None:
    content = {"Operations": [operation], "NextMarker": "m"}
    (parsed,) = parse(STATE, content)["Operations"]
    page = wire.page_from_response(json.dumps(content).encode())
    assert page.operations == (expected_of(parsed),)
    assert page.marker == "m"
    # An event has whole milliseconds where an answer has seconds.
    in_milliseconds = json.loads(
        json.dumps(operation),
        parse_float=lambda seconds: round(float(seconds) * 1000),
    )
    assert wire.operations_from_event([in_milliseconds]) == page.operations


@pytest.mark.parametrize("members", [ONLY_REQUIRED, ALL])
@pytest.mark.parametrize("operation", [CHECKPOINT, STATE])
def test_whole_answers_are_understood(operation: str, members: str) -> None:
    content = sample(model().operation_model(operation).output_shape, members)
    parsed = parse(operation, content)
    if operation == STATE:
        page = wire.page_from_response(json.dumps(content).encode())
        operations = parsed["Operations"]
        marker = parsed.get("NextMarker")
    else:
        committed = wire.committed_from_response(json.dumps(content).encode())
        assert committed.token == parsed.get("CheckpointToken")
        page = Page(committed.operations, committed.marker)
        operations = parsed["NewExecutionState"].get("Operations", [])
        marker = parsed["NewExecutionState"].get("NextMarker")
    assert [found.id for found in page.operations] == [found["Id"] for found in operations]
    assert page.marker == marker
