"""Functions of AWS's SDK on AWS's test runner: under its engine, PyWorkflow's, or both in turn.

What is compared are whole operations as the service keeps them, but for times and the ids that the
service draws: id, parent, type, subtype, name, status, attempts, payload, error.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.execution import durable_execution as sdk_durable_execution
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow.aws.sdk import durable_execution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE_SECONDS = 60
ENGINES: dict[str, Any] = {"sdk": sdk_durable_execution, "ours": durable_execution}
DRAWN = (
    *("StartTimestamp", "EndTimestamp", "ScheduledEndTimestamp", "NextAttemptTimestamp"),
    *("EventId", "EventTimestamp", "CallbackId"),
)

Function = Any
Send = Any


@dataclass
class Case:
    """A function, what is sent to its callbacks by name, and what it may invoke by name.

    One that is not handed over differs from others in a batch alone, which is the same for both.
    ``draws`` names what chance decides in its events.
    """

    function: Function
    event: Any = None
    sends: Mapping[str | None, Send] = field(default_factory=dict)
    invokes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    suspends: bool = True
    is_handed_over: bool = True
    draws: tuple[str, ...] = ()


@dataclass
class Run:
    """How an execution went; ``invocations`` names the engine of each."""

    status: str
    result: Any
    error: Any
    operations: dict[str, dict[str, Any]]
    invocations: list[str]
    arn: str = ""

    @property
    def outcome(self) -> tuple[Any, ...]:
        return self.status, self.result, self.error


class Switching:
    """A handler that runs each invocation with the engine that is next."""

    def __init__(self, function: Function, engines: list[str]) -> None:
        self._handlers = {name: ENGINES[name](function) for name in set(engines)}
        self._engines = itertools.cycle(engines)
        self.invocations: list[str] = []
        self.has_suspended = threading.Event()

    def __call__(self, event: Any, context: Any) -> Any:
        name = next(self._engines)
        self.invocations.append(name)
        answer = self._handlers[name](event, context)
        if answer["Status"] == "PENDING":
            self.has_suspended.set()
        return answer


def run(case: Case, *engines: str, within: Callable[[Switching], Any] = lambda it: it) -> Run:
    """Run a case to its end; the engines take turns, an invocation each.

    ``within`` puts something around the handler.
    """
    handler = Switching(case.function, list(engines))
    runner = DurableFunctionTestRunner(within(handler), poll_interval=0.01)
    for name, function in case.invokes.items():
        runner.register_function(name, function)
    with contextlib.closing(runner._scheduler._loop), runner:
        arn: str = runner.run_async(
            input=json.dumps(case.event), function_name="fn", execution_name="run-1"
        )
        for callback, send in case.sends.items():
            callback_id = runner.wait_for_callback(arn, callback, timeout=PATIENCE_SECONDS)
            handler.has_suspended.wait(PATIENCE_SECONDS)
            send(runner, callback_id)
        result: Any = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
        operations = runner._store.load(arn).operations
    return Run(
        result.status.value,
        None if result.result is None else json.loads(result.result),
        None if result.error is None else result.error.to_dict(),
        {one.operation_id: bare(one.to_json_dict()) for one in operations[1:]},
        handler.invocations,
        arn,
    )


def bare(told: Any, drawn: tuple[str, ...] = DRAWN) -> dict[str, Any]:
    """Return an operation, or an event, without what is drawn anew in each run."""
    lasting = {}
    for key, value in told.items():
        if isinstance(value, dict):
            value = bare(value, drawn)  # noqa: PLW2901 - it is the value that is kept
        if key not in drawn:
            lasting[key] = value
    plain: dict[str, Any] = json.loads(json.dumps(lasting))
    return plain


def differences(theirs: Run, ours: Run) -> list[str]:
    """Say how the operations of two runs differ."""
    found = []
    for key in theirs.operations.keys() | ours.operations.keys():
        one, other = theirs.operations.get(key), ours.operations.get(key)
        if one != other and (other or {}).get("Name") != "pyworkflow delivery order":
            found.append(f"\n  theirs: {one}\n  ours:   {other}")
    return found
