"""Pairs of functions, one for AWS's SDK and one for PyWorkflow, on AWS's own test runner.

Compared are how an execution ends, every operation as the service keeps it, and the events of each
operation in their order: ids, parents, types, subtypes, names, statuses, attempts, delays, decoded
payloads, errors. What may differ is told in `Dialect`, with the reason, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.lambda_service import ErrorObject
from aws_durable_execution_sdk_python.serdes import ExtendedTypeSerDes
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow import Workflow
from pyworkflow._engine.ids import hash_path
from pyworkflow.aws import aws_workflow_handler

_envelopes: Any = ExtendedTypeSerDes()  # type: ignore[no-untyped-call]

Send = Callable[[DurableFunctionTestRunner, str], None]

PATIENCE_SECONDS = 60
FROM_OUTSIDE = {
    f"pyworkflow.errors.{name}" for name in ("CallbackError", "CallbackTimeoutError", "InvokeError")
}
SDK_ERRORS = "aws_durable_execution_sdk_python."
ORDER_NAME = "pyworkflow delivery order"
FAN_OUTS = ("Map", "Parallel")
LEFT_OUT = {
    *("StartTimestamp", "EndTimestamp", "ScheduledEndTimestamp", "NextAttemptTimestamp"),
    *("EventTimestamp", "EventId", "CallbackId", "ExecutionArn", "DurableExecutionArn"),
}
"""Times, and what the service draws."""


@dataclass(frozen=True)
class Around:
    """What happens around an execution: its input, its senders by callback, whom it may invoke."""

    event: Any = None
    sends: Mapping[str, Send] = field(default_factory=dict)
    invokes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


NOTHING = Around()


class Seen(NamedTuple):
    """What AWS's runner saw of one execution."""

    status: str
    result: Any
    error: Any
    operations: list[dict[str, Any]]
    events: list[Any]
    """Those of each operation, in the order of the operations."""
    timeline: list[str]
    """The order of all events, for code that does one thing at a time."""


def of_sdk(function: Callable[[Any, Any], Any], around: Around) -> Seen:
    """Run a function of AWS's SDK."""
    return _seen(durable_execution(function), around, SdkDialect())


def of_ours(workflow: Workflow[..., Any], around: Around) -> Seen:
    """Run a workflow."""
    return _seen(aws_workflow_handler(workflow), around, OurDialect())


def check_pair(
    theirs: Callable[[Any, Any], Any], *ours: Workflow[..., Any], around: Around = NOTHING
) -> Seen:
    """Assert that each of ``ours`` does the same as ``theirs``; return what that is."""
    expected = of_sdk(theirs, around)
    for each in ours:
        found = of_ours(each, around)
        assert found.operations == expected.operations
        assert found.events == expected.events
        assert found.timeline == expected.timeline
        assert found == expected
    return expected


def _seen(handler: Callable[..., Any], around: Around, dialect: Dialect) -> Seen:
    runner = DurableFunctionTestRunner(handler, poll_interval=0.01)
    for name, function in around.invokes.items():
        runner.register_function(name, function)
    with contextlib.closing(runner._scheduler._loop), runner:
        arn = runner.run_async(
            input=json.dumps(around.event), function_name="pair", execution_name="run-1"
        )
        for name, send in around.sends.items():
            send(runner, runner.wait_for_callback(arn, name, timeout=PATIENCE_SECONDS))
        result = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
        recorded = runner._store.load(arn).operations
        events = runner.get_execution_history(arn, include_execution_data=True).events
    for one in recorded:
        dialect.learn(one.to_json_dict())
    operations = _in_order(
        [dict(one.to_json_dict()) for one in recorded[1:] if one.name != ORDER_NAME]
    )
    kinds = {one["Id"]: one["SubType"] for one in operations}
    by_operation: dict[str, list[Any]] = defaultdict(list)
    timeline: list[str] = []
    for event in events:
        if event.operation_id is not None and event.operation_id in kinds:
            by_operation[event.operation_id].append(
                dialect.plain(event.to_dict(), kinds[event.operation_id])
            )
            timeline.append(f"{event.event_type} {event.name or event.operation_id}")
    is_concurrent = any(kind in FAN_OUTS for kind in kinds.values())
    return Seen(
        result.status.value,
        None if result.result is None else json.loads(result.result),
        None if result.error is None else dialect.error(result.error.to_dict()),
        [dialect.plain(one, one["SubType"]) for one in operations],
        [by_operation[one["Id"]] for one in operations],
        [] if is_concurrent else timeline,
    )


def _in_order(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return operations in the order of their start, but branches in the order of their index.

    The SDK starts branches on threads, which write in any order.
    """
    below: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for one in operations:
        below[one.get("ParentId")].append(one)

    def walk(parent_id: str | None, subtype: str | None) -> list[dict[str, Any]]:
        children = below[parent_id]
        if subtype in FAN_OUTS:
            places = {hash_path(f"{parent_id}-{index}"): index for index in range(1000)}
            children = sorted(children, key=lambda one: places[one["Id"]])
        return [each for one in children for each in [one, *walk(one["Id"], one["SubType"])]]

    return walk(None, None)


# -- what differs on purpose -----------------------------------------------------------------------


class Dialect:
    """How payloads and errors are written."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def value(self, payload: str) -> Any:
        """Return what a payload stands for."""
        raise NotImplementedError

    def decision(self, payload: str) -> Any:
        """Return what the payload of a fan-out says of the branches that were started."""
        raise NotImplementedError

    def learn(self, record: Mapping[str, Any]) -> None:
        """Note the types of the errors in ``record``, by their messages."""

    def error(self, error: Mapping[str, Any]) -> dict[str, Any]:
        """Return an error without its stack and data.

        A stack names places in the code, and data is each library's own.
        """
        kept = ("ErrorType", "ErrorMessage")
        return {key: error[key] for key in kept if error.get(key) is not None}

    def plain(self, record: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Return an operation or event without what is drawn, its payload and error decoded."""
        plain = {}
        for key, value in record.items():
            found: Any = value
            if key in LEFT_OUT:
                continue
            if isinstance(value, dict):
                found = self.error(value) if is_error(value) else self.plain(value, kind)
            elif key in ("Input", "Result", "Payload") and value:
                found = self._decoded(value, kind)
            if found not in (None, {}, ""):
                plain[key] = found
        return plain

    def _decoded(self, payload: str, kind: str) -> Any:
        match kind:
            case "Callback":  # what the sender sent, as text
                return payload
            case "ChainedInvoke":  # what both send to any function, and what it returns
                return json.loads(payload)
            case "Map" | "Parallel":
                return self.decision(payload)
        return self.value(payload)


class SdkDialect(Dialect):
    """AWS's SDK.

    Values of other types than JSON's are in an envelope that names them. The failure of an
    operation is raised around it, and recorded there, as an error of the SDK's own with the same
    message: PyWorkflow raises the operation's own error again.
    """

    def value(self, payload: str) -> Any:
        return json.loads(json.dumps(_envelopes.deserialize(payload)))

    def decision(self, payload: str) -> Any:
        said = json.loads(payload)
        if said.get("t") != "br":
            counts = [said[f"{each}Count"] for each in ("success", "failure", "started")]
            return {"reason": said["completionReason"], "counts": counts}
        said = json.loads(json.dumps(_envelopes.deserialize(payload).to_dict()))
        items = [
            [one["index"], one["status"], one["result"], (one["error"] or {}).get("ErrorMessage")]
            for one in said["all"]
        ]
        return {"reason": said["completionReason"], "items": items}

    def learn(self, record: Mapping[str, Any]) -> None:
        for value in record.values():
            if isinstance(value, dict) and is_error(value):
                kind = str(value.get("ErrorType"))
                if not kind.startswith(SDK_ERRORS):
                    self._kinds[value["ErrorMessage"]] = kind
            elif isinstance(value, dict):
                self.learn(value)

    def error(self, error: Mapping[str, Any]) -> dict[str, Any]:
        plain = super().error(error)
        if str(plain.get("ErrorType")).startswith(SDK_ERRORS):
            own = self._kinds.get(str(plain.get("ErrorMessage")))
            plain["ErrorType"] = own or plain["ErrorType"]
        return plain


class OurDialect(Dialect):
    """PyWorkflow: plain JSON. Of a fan-out one letter a branch, and values and errors beside.

    The failure of a callback or an invoke, raised through a child context or the workflow, is
    recorded there as the class that was raised, and its sender's name for it in the message: names
    that somebody outside chose are never looked for among classes.
    """

    def value(self, payload: str) -> Any:
        return json.loads(payload)

    def decision(self, payload: str) -> Any:
        said = json.loads(payload)
        letters = said["statuses"]
        if "results" not in said:
            counts = [said["successCount"], said["failureCount"], letters.count("R")]
            return {"reason": said["completionReason"], "counts": counts}
        results, errors = iter(said["results"]), iter(said["errors"])
        items = [
            [
                index,
                {"S": "SUCCEEDED", "F": "FAILED", "R": "STARTED"}[letter],
                next(results) if letter == "S" else None,
                next(errors)["message"] if letter == "F" else None,
            ]
            for index, letter in enumerate(letters)
            if letter != "N"  # the SDK tells nothing of branches that were not started
        ]
        return {"reason": said["completionReason"], "items": items}

    def error(self, error: Mapping[str, Any]) -> dict[str, Any]:
        plain = super().error(error)
        if plain.get("ErrorType") in FROM_OUTSIDE:
            kind, _, message = plain["ErrorMessage"].partition(": ")
            return {"ErrorType": kind, "ErrorMessage": message}
        return plain


def is_error(value: Mapping[str, Any]) -> bool:
    return "ErrorType" in value or "ErrorMessage" in value


def succeed(payload: bytes | None) -> Send:
    """Return a sender that completes its callback."""
    return lambda runner, callback_id: runner.send_callback_success(callback_id, payload)


def fail(message: str, kind: str) -> Send:
    """Return a sender that fails its callback."""
    error = ErrorObject(message=message, type=kind, data=None, stack_trace=None)
    return lambda runner, callback_id: runner.send_callback_failure(callback_id, error)
