"""Lambda's messages as structs, and their conversion to and from the engine's flat records.

Each struct is a shape of the service model. Its fields have the names of the records' attributes;
the keys follow by rule or are given. On the wire an operation's details and an update's options are
an object for the operation's type; records are flat. `operation_of` and `update_of` flatten, and
`shape_of` converts back, so the module serves a function and an endpoint alike.

Unknown keys are ignored, since a later service may add some. A missing required key, or a value of
the wrong type, raises `MisfitError`, which names the key and never shows the value.

Times are whole milliseconds in records and in an invocation's event, and seconds in the API. No
other number on the wire has a fraction.

Sources: the service model of the Lambda API (`OperationUpdate`, `Operation`, `ErrorObject`) and the
developer guide's description of a durable invocation.
"""

# Annotations are objects here and not text: evaluating text took longer than a cold start may.
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import field

from pyworkflow._protocol import limits, records
from pyworkflow._protocol.executions import Committed, Invocation, Page
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Status
from pyworkflow._protocol.wire_misfits import misfit_error
from pyworkflow.errors import ServiceError

S = TypeVar("S", bound="Shape")

Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=records.LAST_MS)]
MILLISECONDS, SECONDS = 1, 1000
"""The unit of times: in an event, and in the API."""

# -- shapes --------------------------------------------------------------------------------------


class Shape(msgspec.Struct, rename="pascal", omit_defaults=True, gc=False):
    """A message or a part of one. `None` stands for a key that is absent or null."""


class ErrorObject(Shape):
    message: str | None = field(default=None, name="ErrorMessage")
    type: str | None = field(default=None, name="ErrorType")
    data: str | None = field(default=None, name="ErrorData")
    stack_trace: tuple[str, ...] | None = None


class Outcome(Shape):
    payload: str | None = field(default=None, name="Result")
    error: ErrorObject | None = None


class ContextOptions(Shape):
    replay_children: bool | None = None


class StepOptions(Shape):
    delay_seconds: int | None = field(default=None, name="NextAttemptDelaySeconds")


class WaitOptions(Shape):
    wait_seconds: int | None = None


class CallbackOptions(Shape):
    timeout_seconds: int | None = None
    heartbeat_timeout_seconds: int | None = None


class ChainedInvokeOptions(Shape):
    function_name: str | None = None
    tenant_id: str | None = None


class OperationUpdate(Shape):
    id: str
    type: OperationType
    action: Action
    parent_id: str | None = None
    name: str | None = None
    subtype: str | None = field(default=None, name="SubType")
    payload: str | None = None
    error: ErrorObject | None = None
    context_options: ContextOptions | None = None
    step_options: StepOptions | None = None
    wait_options: WaitOptions | None = None
    callback_options: CallbackOptions | None = None
    chained_invoke_options: ChainedInvokeOptions | None = None


class ExecutionDetails(Shape):
    payload: str | None = field(default=None, name="InputPayload")


class ContextDetails(Outcome):
    replay_children: bool | None = None


class StepDetails(Outcome):
    ended_attempts: int | None = field(default=None, name="Attempt")
    next_attempt_ms: Time | None = field(default=None, name="NextAttemptTimestamp")


class WaitDetails(Shape):
    scheduled_end_ms: Time | None = field(default=None, name="ScheduledEndTimestamp")


class CallbackDetails(Outcome):
    callback_id: str | None = None


class Operation(Shape):
    id: str
    type: OperationType
    status: Status
    start_ms: Time = field(name="StartTimestamp")
    end_ms: Time | None = field(default=None, name="EndTimestamp")
    parent_id: str | None = None
    name: str | None = None
    subtype: str | None = field(default=None, name="SubType")
    execution_details: ExecutionDetails | None = None
    context_details: ContextDetails | None = None
    step_details: StepDetails | None = None
    wait_details: WaitDetails | None = None
    callback_details: CallbackDetails | None = None
    chained_invoke_details: Outcome | None = None


class ExecutionState(Shape):
    operations: tuple[Operation, ...] | None = None
    marker: str | None = field(default=None, name="NextMarker")


class StateResponse(Shape):
    operations: tuple[Operation, ...]
    marker: str | None = field(default=None, name="NextMarker")


class CheckpointRequest(Shape):
    token: str = field(name="CheckpointToken")
    updates: tuple[OperationUpdate, ...] | None = None
    client_token: str | None = None


class CheckpointResponse(Shape):
    token: str | None = field(default=None, name="CheckpointToken")
    state: ExecutionState | None = field(default=None, name="NewExecutionState")


class InvocationEvent(Shape):
    arn: str = field(name="DurableExecutionArn")
    token: str = field(name="CheckpointToken")
    state: ExecutionState = field(name="InitialExecutionState")


class InvocationResponse(Shape):
    status: str
    result: str | None = None
    error: ErrorObject | None = None


# -- records -------------------------------------------------------------------------------------


def operation_of(shape: Operation, unit: int) -> records.Operation:
    """Return the record of ``shape``, whose times are in ``unit``.

    Written out for speed: it runs for each operation of a replayed history.
    """
    step, context, callback = shape.step_details, shape.context_details, shape.callback_details
    execution, wait = shape.execution_details, shape.wait_details
    outcome = step or context or callback or shape.chained_invoke_details
    payload = error = None
    if outcome is not None:
        payload = outcome.payload
        error = None if outcome.error is None else error_record(outcome.error)
    elif execution is not None:
        payload = execution.payload
    next_attempt = None if step is None else step.next_attempt_ms
    scheduled_end = None if wait is None else wait.scheduled_end_ms
    return records.Operation(
        id=shape.id,
        type=shape.type,
        status=shape.status,
        start_ms=round(shape.start_ms * unit),
        end_ms=None if shape.end_ms is None else round(shape.end_ms * unit),
        parent_id=shape.parent_id,
        name=shape.name,
        subtype=shape.subtype,
        ended_attempts=0 if step is None else step.ended_attempts or 0,
        next_attempt_ms=None if next_attempt is None else round(next_attempt * unit),
        scheduled_end_ms=None if scheduled_end is None else round(scheduled_end * unit),
        payload=payload,
        error=error,
        replay_children=context is not None and context.replay_children is True,
        callback_id=None if callback is None else callback.callback_id,
    )


def update_of(shape: OperationUpdate) -> records.Update:
    """Return the record of ``shape``."""
    own, parts = _fields_of(OperationUpdate)
    found = {name: getattr(shape, name) for name in own}
    found["error"] = None if shape.error is None else error_record(shape.error)
    for options in (getattr(shape, name) for name in parts):
        if options is not None:
            given = ((name, getattr(options, name)) for name in options.__struct_fields__)
            found |= {name: value for name, value in given if value is not None}
    return records.Update(**found)


def shape_of(
    record: records.Operation | records.Update, kind: type[S], unit: int = MILLISECONDS
) -> S:
    """Return the shape of ``kind`` for ``record``, with times in ``unit``."""
    own, parts = _fields_of(kind)
    found = _given(record, own, unit)
    for name, part in parts.items():
        if name.startswith(record.type.lower()):
            if content := _given(record, part.__struct_fields__, unit):
                found[name] = part(**content)
            break
    return kind(**found)


@cache
def _fields_of(kind: type[Shape]) -> tuple[tuple[str, ...], dict[str, type[Shape]]]:
    """Return the plain fields of ``kind``, and those with an object for an operation type."""
    types = {each.name: each.type for each in msgspec.structs.fields(kind)}
    ends = ("_details", "_options")
    parts = {name: types.pop(name).__args__[0] for name in [*types] if name.endswith(ends)}
    return tuple(types), parts


def _given(record: msgspec.Struct, names: Iterable[str], unit: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(record, name)
        if value is None or value is False:
            continue
        if type(value) is ErrorRecord:
            value = error_object(value)
        elif unit != MILLISECONDS and name.endswith("_ms"):
            value /= unit
        found[name] = value
    return found


def update_to_wire(update: records.Update) -> dict[str, Any]:
    """Return ``update`` as an OperationUpdate of plain values."""
    return msgspec.to_builtins(shape_of(update, OperationUpdate))  # type: ignore[no-any-return]


def error_to_wire(record: ErrorRecord) -> dict[str, Any]:
    """Return ``record`` as an ErrorObject of plain values."""
    return msgspec.to_builtins(error_object(record))  # type: ignore[no-any-return]


def error_record(error: ErrorObject) -> ErrorRecord:
    """Return the record of ``error``."""
    stack = error.stack_trace or ()
    return ErrorRecord(error.message or "", error.type or "", error.data, stack)


def error_object(record: ErrorRecord) -> ErrorObject:
    """Return the shape of ``record``."""
    return ErrorObject(record.message, record.type, record.data, record.stack_trace or None)


# -- messages ------------------------------------------------------------------------------------

encoded = msgspec.json.Encoder().encode
_decoder = cache(msgspec.json.Decoder)


def decoded(content: bytes, kind: type[S], what: str) -> S:
    """Return ``content`` read as a ``kind``.

    Raises `MisfitError`, which begins with ``what``, and `msgspec.DecodeError` for invalid JSON.
    """
    try:
        return _decoder(kind).decode(content)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        raise misfit_error(msgspec.json.decode(content), kind, what) from None


def _converted(value: Any, kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise misfit_error(value, kind, what) from None


def operations_from_event(values: Iterable[Any]) -> tuple[records.Operation, ...]:
    """Return the records of an event's operations.

    Raises `MisfitError` for a value that does not fit the protocol.
    """
    what = "Lambda sent Operations"
    return _operations(_converted(tuple(values), tuple[Operation, ...], what), MILLISECONDS)


def page_from_response(content: bytes) -> Page:
    """Return the page of the state in a response of the API. Raises as `decoded`."""
    response = decoded(content, StateResponse, "Lambda sent a page of the state")
    return Page(_operations(response.operations, SECONDS), response.marker or None)


def committed_from_response(content: bytes) -> Committed:
    """Return what a response to a checkpoint says; without a token there may be no new state.

    Raises as `decoded`.
    """
    response = decoded(content, CheckpointResponse, "Lambda sent the response to a checkpoint")
    state = response.state or ExecutionState()
    operations = _operations(state.operations or (), SECONDS)
    return Committed(response.token or None, operations, state.marker or None)


def _operations(shapes: Iterable[Operation], unit: int) -> tuple[records.Operation, ...]:
    return tuple([operation_of(shape, unit) for shape in shapes])


INVOCATION_KEYS = InvocationEvent.__struct_encode_fields__
"""The keys that the event of each invocation has."""


def invocation_from_event(event: Mapping[str, Any]) -> Invocation:
    """Return the invocation that Lambda's ``event`` describes.

    The execution's id is its whole ARN. Raises `ServiceError` for an event that is not a durable
    function's, and for one that does not fit the protocol.
    """
    missing = [key for key in INVOCATION_KEYS if event.get(key) is None]
    if missing:
        raise ServiceError(
            "The event is not an invocation of a durable function: expected "
            f"{', '.join(INVOCATION_KEYS)}, found no {', '.join(missing)}. Create the function "
            "with a durable configuration (one that exists can't be made durable), and invoke it "
            "by version, alias or $LATEST: --function-name NAME:live"
        )
    found: InvocationEvent = _converted(event, InvocationEvent, "Lambda sent the event")
    arn, marker = found.arn, found.state.marker or None
    operations = _operations(found.state.operations or (), MILLISECONDS)
    if not operations and marker is None:
        raise ServiceError(
            f"Execution {arn!r}: expected its EXECUTION operation in InitialExecutionState, found "
            "neither an operation nor a marker of further ones"
        )
    function, _, name = arn.rpartition("/")[0].partition("/durable-execution/")
    return Invocation(
        execution_id=arn,
        execution_name=name or arn,
        workflow_name=_function_name(function),
        token=found.token,
        operations=operations,
        marker=marker,
        max_operations=limits.MAX_OPERATIONS,
        max_payload_bytes=limits.MAX_PAYLOAD_BYTES,
        max_result_bytes=limits.MAX_RESULT_BYTES,
    )


def _function_name(arn: str) -> str:
    """Return NAME of ``arn:aws:lambda:REGION:ACCOUNT:function:NAME:VERSION``, "" if it is none."""
    return arn.split(":")[6] if arn.count(":") >= 6 else ""
