"""`durable_execution` and `install`: what surrounds a function of AWS's SDK."""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws_durable_execution_sdk_python as sdk
import pytest
from aws_durable_execution_sdk_python import execution as sdk_execution
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    ChildConfig,
    Duration,
    StepConfig,
)
from aws_durable_execution_sdk_python.context import DurableContext as OriginalContext
from aws_durable_execution_sdk_python.exceptions import SerDesError, StepError, ValidationError
from aws_durable_execution_sdk_python.serdes import PassThroughSerDes
from aws_durable_execution_sdk_python.waits import WaitForConditionConfig, WaitForConditionDecision

import pyworkflow
from pyworkflow import Client
from pyworkflow._engine.ids import hash_path
from pyworkflow.aws.sdk import DurableContext, durable_execution, install
from pyworkflow.aws.sdk.errors import raised_as
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import ReplayHazardError, UsageError
from tests.architecture import imports_of, load_modules
from tests.aws.sdk.sdk_runs import Case, run

SECOND = Duration.from_seconds(1)
LAMBDA: Any = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)


@durable_execution
def order(event: Any, context: Any) -> Any:
    """Ship what was ordered."""
    price = context.step(lambda _: event["price"] * 2, name="price")
    context.wait(Duration.from_days(30), name="settle")
    return {"price": price}


def test_it_keeps_the_function_s_name_and_words() -> None:
    assert vars(order)["__name__"] == "order"
    assert order.__doc__ == "Ship what was ordered."
    assert repr(order) == "<Lambda handler of <workflow 'order'>>"


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(lambda base, event, context: base + event, 1),
        type("Adder", (), {"__call__": lambda self, event, context: event + 1})(),
    ],
)
def test_anything_that_can_be_called_is_a_function(function: Any) -> None:
    handler = durable_execution()(function)
    assert create_test_handler(handler)(41) == 42


# -- where it runs ---------------------------------------------------------------------------------


def test_the_test_handler_runs_it_in_virtual_time() -> None:
    mock = MockDurableContext()
    mock.mock_step("price", result=7)
    assert create_test_handler(order, mock)({"price": 3}) == {"price": 7}
    assert mock.waits == [30 * 86_400]
    assert mock.checkpoints == {"price": 7}
    assert mock.invocations == 2


def test_the_test_handler_tells_of_what_a_replay_would_not_repeat() -> None:
    @durable_execution
    def hazard(event: Any, context: Any) -> Any:
        seen: list[int] = []
        context.run_in_child_context(lambda child: seen.append(child.step(lambda _: 1)), name="c")
        return len(seen)

    with pytest.raises(ReplayHazardError):
        create_test_handler(hazard)({})


def test_the_test_handler_completes_callbacks() -> None:
    @durable_execution
    def asks(event: Any, context: Any) -> Any:
        return context.create_callback("ask", CallbackConfig(timeout=Duration(60))).result()

    mock = MockDurableContext()
    mock.complete_callback("ask", {"a": 1})
    assert json.loads(create_test_handler(asks, mock)({})) == {"a": 1}


def test_the_error_of_a_step_is_the_sdk_s() -> None:
    @durable_execution
    def fails(event: Any, context: Any) -> Any:
        context.step(lambda _: 1 / 0, name="divide")

    with pytest.raises(StepError) as caught:
        create_test_handler(fails)({})
    assert caught.value.error_type == "ZeroDivisionError"


def test_a_client_of_boto3_is_used() -> None:
    tokens: list[str] = []

    class Boto3:
        def checkpoint_durable_execution(self, **call: Any) -> Any:
            tokens.append(call["CheckpointToken"])
            (update,) = call["Updates"]
            now = datetime(2030, 1, 1, tzinfo=UTC)
            started = {"Status": "STARTED", "StartTimestamp": now}
            wait = {**started, "WaitDetails": {"ScheduledEndTimestamp": now}}
            operation = {**{key: update[key] for key in ("Id", "Type", "SubType")}, **wait}
            return {"CheckpointToken": "next", "NewExecutionState": {"Operations": [operation]}}

    @durable_execution(boto3_client=Boto3())
    def waits(event: Any, context: Any) -> Any:
        context.wait(SECOND)

    assert waits(invocation(), LAMBDA) == {"Status": "PENDING"}
    assert tokens == ["token"]


def test_a_final_error_of_the_service_fails_the_execution() -> None:
    class RefusedError(Exception):
        response = {  # noqa: RUF012 - as boto3's errors have it
            "Error": {"Code": "AccessDeniedException", "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }

    class Boto3:
        def checkpoint_durable_execution(self, **call: Any) -> Any:
            raise RefusedError("no access")

    def waits(event: Any, context: Any) -> Any:
        context.wait(SECOND)

    answers = [
        make(waits, boto3_client=Boto3())(invocation(), LAMBDA)
        for make in (sdk_execution.durable_execution, durable_execution)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["Status"] == "FAILED"


def invocation() -> dict[str, Any]:
    arn = "arn:aws:lambda:us-west-2:1:function:f:1/durable-execution/run-1/inv-1"
    execution = {
        "Id": "inv-1",
        "Type": "EXECUTION",
        "Status": "STARTED",
        "StartTimestamp": 1_700_000_000_000,
        "ExecutionDetails": {"InputPayload": "{}"},
    }
    return {
        "DurableExecutionArn": arn,
        "CheckpointToken": "token",
        "InitialExecutionState": {"Operations": [execution], "NextMarker": ""},
    }


def test_an_event_that_is_no_invocation_is_told() -> None:
    with pytest.raises(UsageError, match="--durable-config"):
        order({"price": 1}, LAMBDA)


def test_plugins_are_left_out_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        handler = durable_execution(lambda event, context: event, plugins=[object()])
    assert "plugins" in caplog.text
    assert create_test_handler(handler)(1) == 1


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_client_s_worker_runs_it(tmp_path: Path, kind: str) -> None:
    @durable_execution
    def shop(event: Any, context: Any) -> Any:
        price = context.step(lambda _: (event["price"] * 2,), name="price")
        context.wait(SECOND)
        items = context.map([1, 2], lambda child, item, i, all_: child.step(lambda _: item))
        return [price, items.get_results()]

    opened = Client.memory(skip_time=True) if kind == "memory" else Client.local(tmp_path / "e.db")
    with opened as client:
        handle = client.start(shop, {"price": 3})
        assert handle.result() == [[6], [1, 2]]
        (step,) = [one for one in handle.operations() if one.name == "price"]
    assert json.loads(step.payload or "") == {"t": "t", "v": [{"t": "i", "v": 6}]}


@pytest.mark.parametrize("place", ["step", "condition", "invoke"])
def test_what_the_service_has_no_room_for_fails_the_operation_at_once(place: str) -> None:
    ran: list[int] = []

    def large(*_: Any) -> str:
        ran.append(1)
        return "x" * 300_000

    def stops(state: Any, attempt: int) -> WaitForConditionDecision:
        return WaitForConditionDecision.stop_polling()

    def function(event: Any, context: Any) -> Any:
        try:
            match place:
                case "step":
                    context.step(large)
                case "condition":
                    context.wait_for_condition(large, WaitForConditionConfig(stops, None))
                case _:
                    context.invoke("other", large())
        except SerDesError as error:
            return str(error)

    found = run(Case(function), "ours")
    assert "300002 bytes" in found.result
    assert len(ran) == 1


def test_a_serdes_that_makes_no_text() -> None:
    def function(event: Any, context: Any) -> Any:
        config = StepConfig(serdes=PassThroughSerDes())
        try:
            context.step(lambda _: 7, config=config)
        except SerDesError as error:
            return str(error)

    assert "found int" in run(Case(function), "ours").result


def test_a_summary_is_made_once() -> None:
    made: list[int] = []

    def summarize(result: str) -> str:
        made.append(len(result))
        return "large"

    def function(event: Any, context: Any) -> Any:
        config = ChildConfig[str](summary_generator=summarize)
        context.run_in_child_context(lambda child: "x" * 300_000, name="large", config=config)
        context.wait(SECOND)

    assert len(run(Case(function), "ours").invocations) == 2
    assert made == [300_000]


def test_a_poll_that_was_cut_off_is_given_the_state_again() -> None:
    """Found started: the process ended in the midst of the second poll."""
    updates: list[Any] = []
    polls: list[Any] = []
    now = datetime(2030, 1, 1, tzinfo=UTC)

    class Boto3:
        def checkpoint_durable_execution(self, **call: Any) -> Any:
            updates.extend(call["Updates"])
            ended = {**began, "Status": "SUCCEEDED", "StartTimestamp": now, "EndTimestamp": now}
            ended["StepDetails"] = {"Attempt": 1, "Result": updates[-1]["Payload"]}
            return {"CheckpointToken": "next", "NewExecutionState": {"Operations": [ended]}}

    def check(state: Any, poll: Any) -> Any:
        polls.append((state, poll.attempt))
        return state + 1

    def stops(state: Any, attempt: int) -> WaitForConditionDecision:
        return WaitForConditionDecision.stop_polling()

    @durable_execution(boto3_client=Boto3())
    def waits(event: Any, context: Any) -> Any:
        return context.wait_for_condition(check, WaitForConditionConfig(stops, 0), name="polls")

    began = {
        "Id": hash_path("1"),
        "Type": "STEP",
        "SubType": "WaitForCondition",
        "Name": "polls",
        "Status": "STARTED",
        "StartTimestamp": 1_700_000_000_000,
        "StepDetails": {"Attempt": 1, "Result": "41"},
    }
    event = invocation()
    event["InitialExecutionState"]["Operations"].append(began)
    assert waits(event, LAMBDA) == {"Status": "SUCCEEDED", "Result": "42"}
    assert polls == [(41, 2)]
    assert [(one["Action"], one["Payload"]) for one in updates] == [("SUCCEED", "42")]


def test_a_failed_operation_without_an_error() -> None:
    error = raised_as(None, StepError)
    assert isinstance(error, StepError)
    assert "No ErrorObject" in str(error)


@pytest.mark.parametrize("missing", ["check", "config"])
def test_a_condition_needs_a_check_and_a_config(missing: str) -> None:
    def function(event: Any, context: Any) -> Any:
        arguments = {"check": 1, "config": 1, missing: None}
        try:
            context.wait_for_condition(**arguments)
        except ValidationError as error:
            return str(error)

    theirs, ours = (run(Case(function), engine) for engine in ("sdk", "ours"))
    assert ours.outcome == theirs.outcome
    assert missing in ours.result


def test_a_large_child_that_fails_when_it_runs_again_is_a_mismatch() -> None:
    runs: list[int] = []

    def large(child: Any) -> str:
        runs.append(1)
        if len(runs) > 1:
            raise ValueError("it depends on what is not recorded")
        return "x" * 300_000

    def function(event: Any, context: Any) -> Any:
        context.run_in_child_context(large, name="large")
        context.wait(SECOND)

    found = run(Case(function), "ours")
    assert found.status == "FAILED"
    assert "history and code disagree" in found.error["ErrorMessage"]


# -- its context -----------------------------------------------------------------------------------


def test_the_context_is_one_of_the_sdk_s() -> None:
    @durable_execution
    def asks(event: Any, context: Any) -> Any:
        return isinstance(context, OriginalContext)

    assert create_test_handler(asks)({}) is True
    assert issubclass(DurableContext, OriginalContext)


def test_the_lambda_context_is_that_of_the_invocation() -> None:
    def asks(event: Any, context: Any) -> Any:
        def deeper(child: Any) -> Any:
            return child.lambda_context is context.lambda_context

        return [
            type(context.lambda_context).__name__,
            context.run_in_child_context(deeper, name="deeper"),
        ]

    assert run(Case(asks), "ours").result == ["LambdaContext", True]


def test_bodies_run_in_threads_and_branches_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=60)

    @durable_execution
    def meets(event: Any, context: Any) -> Any:
        def branch(child: Any, item: int, index: int, items: Any) -> Any:
            return child.step(lambda _: meeting.wait() >= 0, name="meet")

        return context.map([1, 2, 3], branch, name="all").get_results()

    assert create_test_handler(meets)({}) == [True, True, True]


def test_steps_see_the_context_variables_of_the_code_around() -> None:
    tenant = contextvars.ContextVar("tenant", default="none")

    def function(event: Any, context: Any) -> Any:
        def body(step: Any) -> str:
            found = tenant.get()
            tenant.set("changed")
            return found

        tenant.set("acme")
        return [context.step(body), context.step(body)]

    assert run(Case(function), "ours").result == ["acme", "acme"]


def test_steps_of_pyworkflow_work_in_a_function_of_the_sdk() -> None:
    @pyworkflow.step
    def double(number: int) -> int:
        return 2 * number

    @durable_execution
    def mixed(event: Any, context: Any) -> Any:
        first = context.step(lambda _: 1, name="first")
        context.wait(SECOND)
        second = double(first)
        return context.run_in_child_context(lambda child: double(second) + child.step(lambda _: 1))

    mock = MockDurableContext()
    assert create_test_handler(mixed, mock)({}) == 5
    assert len({op.id for op in mock.operations}) == 6


def test_an_async_function_may_call_what_blocks() -> None:
    @pyworkflow.step
    async def double(number: int) -> int:
        return 2 * number

    @durable_execution
    async def modern(event: Any, context: Any) -> Any:
        context.wait(SECOND)
        return await double(context.step(lambda _: 21))

    assert create_test_handler(modern)({}) == 42


def test_a_step_in_a_finally_block_runs_after_what_it_follows() -> None:
    ran: list[str] = []

    def function(event: Any, context: Any) -> Any:
        try:
            context.wait(SECOND)
            context.step(lambda _: ran.append("work"), name="work")
        finally:
            context.step(lambda _: ran.append("clean up"), name="clean up")

    assert run(Case(function), "ours").status == "SUCCEEDED"
    assert ran == ["work", "clean up"]


def test_a_durable_operation_inside_a_step_is_an_error() -> None:
    @durable_execution
    def nests(event: Any, context: Any) -> Any:
        config = sdk.config.StepConfig(sdk.retries.RetryPresets.none())
        return context.step(lambda _: context.step(lambda _: 1), name="outer", config=config)

    with pytest.raises(StepError, match="inside step 'outer'"):
        create_test_handler(nests)({})


def test_another_execution_s_context_is_refused() -> None:
    kept: list[Any] = []

    @durable_execution
    def keeps(event: Any, context: Any) -> Any:
        kept.append(context)
        return kept[0].step(lambda _: len(kept))

    handler = create_test_handler(keeps, MockDurableContext(strict=False))
    assert handler({}) == 1
    with pytest.raises(UsageError, match="code outside its function"):
        handler({})


def test_a_durable_function_is_not_called_by_another() -> None:
    @durable_execution
    def calls(event: Any, context: Any) -> Any:
        return order(event, context)

    with pytest.raises(UsageError, match="context.invoke"):
        create_test_handler(calls)({})


def test_a_virtual_context_where_a_real_one_was_is_told() -> None:
    is_virtual = False

    def function(event: Any, context: Any) -> Any:
        config = ChildConfig[Any](is_virtual=is_virtual)
        context.run_in_child_context(lambda child: child.step(lambda _: 1), config=config)
        context.wait(SECOND)

    def change(event: Any, context: Any) -> Any:
        nonlocal is_virtual
        answer = durable_execution(function)(event, context)
        is_virtual = True
        return answer

    found = run(Case(None), "ours", within=lambda handler: change)
    assert found.status == "FAILED"
    assert "history and code disagree" in found.error["ErrorMessage"] or (
        "no longer performs" in found.error["ErrorMessage"]
    )


# -- install ---------------------------------------------------------------------------------------


def test_install_lets_modules_use_pyworkflow_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "durable_execution", sdk.durable_execution)
    monkeypatch.setattr(sdk_execution, "durable_execution", sdk_execution.durable_execution)
    for _ in range(2):
        install()
        assert sdk.durable_execution is sdk_execution.durable_execution is durable_execution


@pytest.mark.parametrize("first", ["", "import aws_durable_execution_sdk_python\n"])
def test_an_existing_module_runs_without_an_edit(tmp_path: Path, first: str) -> None:
    (tmp_path / "existing.py").write_text(
        "from aws_durable_execution_sdk_python import DurableContext, durable_execution\n"
        "from aws_durable_execution_sdk_python.execution import durable_execution as again\n\n\n"
        "@durable_execution\n"
        "def handler(event: dict, context: DurableContext) -> int:\n"
        "    return context.step(lambda _: event['n'] + 1)\n"
    )
    (tmp_path / "entry.py").write_text(
        f"{first}from pyworkflow.aws.sdk import install\n\n"
        "install()\n\n"
        "from existing import again, handler\n"
        "from pyworkflow.aws.testing import create_test_handler\n\n"
        "print(create_test_handler(handler)({'n': 1}), again.__module__)\n"
    )
    done = subprocess.run(
        [sys.executable, "entry.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2", "pyworkflow.aws.sdk.execution"], done.stderr


def test_nothing_else_imports_the_sdk() -> None:
    (folder,) = pyworkflow.__path__
    importers = {
        module.name
        for module in load_modules(Path(folder)).values()
        for found in imports_of(module, "pyworkflow")
        if found.target.startswith(("aws_durable_execution_sdk_python", "pyworkflow.aws.sdk"))
    }
    assert {name for name in importers if not name.startswith("aws.sdk")} == set()
    assert importers
