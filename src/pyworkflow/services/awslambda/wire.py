"""Records to Lambda's JSON and back, by one table of fields for each shape.

A field is a key on the wire and the name of the record's attribute; ``StepDetails.Result`` is the
key ``Result`` of a nested object. Records are flat, so several keys may stand for one attribute: an
operation has the details of its own type only. Unknown keys are passed by, for the service may say
more tomorrow; a required key that is missing, or a value of another kind, is an error that shows
the key and never the value, which may be a user's payload.

Times are whole milliseconds in an invocation's event and seconds in the answers of the API.

Sources: the service model of the Lambda API (`OperationUpdate`, `Operation`, `ErrorObject`) and the
developer guide's description of a durable invocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import asdict

from pyworkflow._engine.records import (
    ErrorRecord,
    Operation,
    OperationType,
    Status,
    Update,
)
from pyworkflow._engine.transitions import MAX_PAYLOAD_BYTES, MAX_RESULT_BYTES
from pyworkflow.errors import ServiceError
from pyworkflow.services.base import Committed, Invocation, Page

Reader = Callable[[Any], Any]

MAX_OPERATIONS = 3000
"""How many operations an execution may have: a quota of Lambda."""

# -- values --------------------------------------------------------------------------------------


def _expect(kind: type | tuple[type, ...], what: str) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _MisfitError(what)
        return value

    return read


_text = _expect(str, "a string")
_flag = _expect(bool, "true or false")
_count = _expect(int, "a whole number")
_number = _expect((int, float), "a number")
_list = _expect((list, tuple), "a list")
_object = _expect(Mapping, "an object")


def _member(words: type[StrEnum]) -> Reader:
    members: dict[Any, StrEnum] = {word.value: word for word in words}

    def read(value: Any) -> StrEnum:
        found = members.get(_text(value))
        if found is None:
            raise _MisfitError(f"one of {', '.join(sorted(members))}, not {value[:32]!r}")
        return found

    return read


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _milliseconds(value: Any) -> int:
    milliseconds: float = _number(value)
    return round(milliseconds)


def _seconds(value: Any) -> int:
    seconds: float = _number(value)
    return round(seconds * 1000)


def _error(value: Any) -> ErrorRecord:
    found: dict[str, Any] = {}
    _take(_ERROR_READERS, value, found)
    return ErrorRecord(**found)


# -- the tables ----------------------------------------------------------------------------------


class Field(NamedTuple):
    """A key on the wire, and what it is in the record."""

    key: str
    name: str
    read: Reader | None = None
    """`None` for a moment, whose form depends on where it came from."""
    is_required: bool = False


ERROR = (
    Field("ErrorMessage", "message", _text),
    Field("ErrorType", "type", _text),
    Field("ErrorData", "data", _text),
    Field("StackTrace", "stack_trace", _texts),
)

UPDATE = (
    Field("Id", "id"),
    Field("Type", "type"),
    Field("Action", "action"),
    Field("ParentId", "parent_id"),
    Field("Name", "name"),
    Field("SubType", "subtype"),
    Field("Payload", "payload"),
    Field("Error", "error"),
    Field("ContextOptions.ReplayChildren", "replay_children"),
    Field("StepOptions.NextAttemptDelaySeconds", "delay_seconds"),
    Field("WaitOptions.WaitSeconds", "wait_seconds"),
    Field("CallbackOptions.TimeoutSeconds", "timeout_seconds"),
    Field("CallbackOptions.HeartbeatTimeoutSeconds", "heartbeat_timeout_seconds"),
    Field("ChainedInvokeOptions.FunctionName", "function_name"),
    Field("ChainedInvokeOptions.TenantId", "tenant_id"),
)

OPERATION = (
    Field("Id", "id", _text, is_required=True),
    Field("Type", "type", _member(OperationType), is_required=True),
    Field("Status", "status", _member(Status), is_required=True),
    Field("StartTimestamp", "start_ms", is_required=True),
    Field("EndTimestamp", "end_ms"),
    Field("ParentId", "parent_id", _text),
    Field("Name", "name", _text),
    Field("SubType", "subtype", _text),
    Field("ExecutionDetails.InputPayload", "payload", _text),
    Field("ContextDetails.ReplayChildren", "replay_children", _flag),
    Field("ContextDetails.Result", "payload", _text),
    Field("ContextDetails.Error", "error", _error),
    Field("StepDetails.Attempt", "ended_attempts", _count),
    Field("StepDetails.NextAttemptTimestamp", "next_attempt_ms"),
    Field("StepDetails.Result", "payload", _text),
    Field("StepDetails.Error", "error", _error),
    Field("WaitDetails.ScheduledEndTimestamp", "scheduled_end_ms"),
    Field("CallbackDetails.CallbackId", "callback_id", _text),
    Field("CallbackDetails.Result", "payload", _text),
    Field("CallbackDetails.Error", "error", _error),
    Field("ChainedInvokeDetails.Result", "payload", _text),
    Field("ChainedInvokeDetails.Error", "error", _error),
)

PAGE = (
    Field("Operations", "operations", _list, is_required=True),
    Field("NextMarker", "marker", _text),
)

CHECKPOINT = (
    Field("CheckpointToken", "token", _text),
    Field("NewExecutionState", "state", _object),
)

# -- reading -------------------------------------------------------------------------------------


class _Readers(NamedTuple):
    """A table as it is looked up: attribute and reader by key, tables of nested objects by key."""

    fields: dict[str, tuple[str, Reader]]
    nested: dict[str, _Readers]
    required: dict[str, str]


def _readers(table: Iterable[Field], moment: Reader = _milliseconds) -> _Readers:
    found = _Readers({}, {}, {})
    for field in table:
        group, _, key = field.key.rpartition(".")
        into = found.nested.setdefault(group, _Readers({}, {}, {})) if group else found
        into.fields[key] = field.name, field.read or moment
        if field.is_required:
            into.required[field.name] = key
    return found


_ERROR_READERS = _readers(ERROR)
_PAGE_READERS = _readers(PAGE)
_CHECKPOINT_READERS = _readers(CHECKPOINT)
_EVENT_OPERATION = _readers(OPERATION, _milliseconds)
_ANSWERED_OPERATION = _readers(OPERATION, _seconds)


class _MisfitError(Exception):
    """What a value was expected to be, and the path to it, innermost key first."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.path: list[str] = []


def _take(readers: _Readers, value: Any, found: dict[str, Any]) -> None:
    """Add to ``found`` the attributes that ``value`` holds; those of nested objects among them."""
    fields, nested, _ = readers
    key = ""
    try:
        for key, content in (value if type(value) is dict else _object(value)).items():
            if content is None:
                continue
            field = fields.get(key)
            if field is not None:
                name, read = field
                found[name] = read(content)
            elif key in nested:
                _take(nested[key], content, found)
    except _MisfitError as error:
        if key:
            error.path.append(key)
        raise


def _read(readers: _Readers, value: Any, where: str) -> dict[str, Any]:
    """Return the attributes that ``value`` holds; ``where`` it stands is for the errors."""
    found: dict[str, Any] = {}
    try:
        _take(readers, value, found)
    except _MisfitError as error:
        path = ".".join([where, *reversed(error.path)])
        raise ServiceError(
            f"Lambda sent {path}: expected {error}; if the service has changed, a newer version of "
            "this library may know its new form"
        ) from None
    if not readers.required.keys() <= found.keys():
        missing = ", ".join(key for name, key in readers.required.items() if name not in found)
        raise ServiceError(f"Lambda sent {where} without {missing}, which each one has")
    return found


def _operations(readers: _Readers, values: Iterable[Any]) -> tuple[Operation, ...]:
    return tuple([Operation(**_read(readers, value, "an operation")) for value in values])


def operations_from_event(values: Iterable[Any]) -> tuple[Operation, ...]:
    """Return the operations of an invocation's event; times there are milliseconds.

    Raises `ServiceError` for what is no operation.
    """
    return _operations(_EVENT_OPERATION, values)


def page_from_answer(answer: Any) -> Page:
    """Return the page that an answer of the API holds; times there are seconds.

    Raises `ServiceError` for what does not fit the protocol.
    """
    found = _read(_PAGE_READERS, answer, "a page of the state")
    return Page(
        _operations(_ANSWERED_OPERATION, found["operations"]),
        found.get("marker") or None,
    )


def committed_from_answer(answer: Any) -> Committed:
    """Return what an answer to a checkpoint says; without a token there may be no new state.

    Raises `ServiceError` for what does not fit the protocol.
    """
    found = _read(_CHECKPOINT_READERS, answer, "the answer to a checkpoint")
    page = page_from_answer({"Operations": [], **found.get("state", {})})
    return Committed(found.get("token") or None, page.operations, page.marker)


# -- writing -------------------------------------------------------------------------------------


_Keys = Mapping[str, tuple[str, str]]
"""By attribute: the key of the nested object, "" if it is none, and the key in it."""


def _keys(table: Iterable[Field]) -> _Keys:
    parts = {field.name: field.key.rpartition(".") for field in table}
    return {name: (group, key) for name, (group, _, key) in parts.items()}


_ERROR_KEYS = _keys(ERROR)
_UPDATE_KEYS = _keys(UPDATE)


_NOT_SENT = frozenset({"begin_ms", "end_ms"})
"""Lambda stamps times by itself."""


def _write(keys: _Keys, record: msgspec.Struct) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, value in asdict(record).items():
        if value is None or value is False or value == ():
            continue
        if name in _NOT_SENT:
            continue
        group, key = keys[name]
        into = written.setdefault(group, {}) if group else written
        into[key] = _write(_ERROR_KEYS, value) if isinstance(value, ErrorRecord) else value
    return written


def update_to_wire(update: Update) -> dict[str, Any]:
    """Return ``update`` as an OperationUpdate."""
    return _write(_UPDATE_KEYS, update)


def error_to_wire(record: ErrorRecord) -> dict[str, Any]:
    """Return ``record`` as an ErrorObject."""
    return _write(_ERROR_KEYS, record)


# -- invocations ---------------------------------------------------------------------------------

EVENT = (
    Field("DurableExecutionArn", "arn", _text, is_required=True),
    Field("CheckpointToken", "token", _text, is_required=True),
    Field("InitialExecutionState", "state", _object, is_required=True),
)
_EVENT_READERS = _readers(EVENT)


def invocation_from_event(event: Mapping[str, Any]) -> Invocation:
    """Return the invocation that Lambda's ``event`` describes.

    The execution's id is its whole ARN. Raises `ServiceError` for an event that is none of a
    durable function, and for one that does not fit the protocol.
    """
    missing = [key for key in _EVENT_READERS.required.values() if event.get(key) is None]
    if missing:
        raise ServiceError(
            "The event is no invocation of a durable function: expected "
            f"{', '.join(_EVENT_READERS.required.values())}, found no {', '.join(missing)}. Create "
            "the function with a durable configuration (one that exists can't be made durable), "
            "and invoke it by version, alias or $LATEST: --function-name NAME:live"
        )
    found = _read(_EVENT_READERS, event, "the event")
    arn, state = found["arn"], found["state"]
    page = _read(_PAGE_READERS, {"Operations": (), **state}, "InitialExecutionState")
    operations = operations_from_event(page["operations"])
    marker = page.get("marker") or None
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
        token=found["token"],
        operations=operations,
        marker=marker,
        max_operations=MAX_OPERATIONS,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        max_result_bytes=MAX_RESULT_BYTES,
    )


def _function_name(arn: str) -> str:
    """Return NAME of ``arn:aws:lambda:REGION:ACCOUNT:function:NAME:VERSION``, "" if it is none."""
    return arn.split(":")[6] if arn.count(":") >= 6 else ""
