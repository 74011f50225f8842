"""Callbacks and invokes on AWS's own test runner, written for AWS's SDK and for PyWorkflow.

Compared are the outcome as the caller sees it, and id, parent, type, subtype, name and status of
each operation.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    Duration,
    InvokeConfig,
    WaitForCallbackConfig,
)
from aws_durable_execution_sdk_python.exceptions import CallbackError as SdkCallbackError
from aws_durable_execution_sdk_python.exceptions import CallbackTimeoutError as SdkTimeoutError
from aws_durable_execution_sdk_python.exceptions import InvokeError as SdkInvokeError
from aws_durable_execution_sdk_python.exceptions import StepError as SdkStepError
from aws_durable_execution_sdk_python.lambda_service import ErrorObject
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow import SyncWorkflowContext, WorkflowContext, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.errors import CallbackError, CallbackTimeoutError, InvokeError

if TYPE_CHECKING:
    from collections.abc import Callable

    Send = Callable[[DurableFunctionTestRunner, str], None]

PATIENCE_SECONDS = 60
# The runner skips waits, but lets timeouts of callbacks pass for real: they are one second here.


def run(handler: Callable[..., Any], name: str | None = None, send: Send | None = None) -> Any:
    """Run a handler to its end, with what a sender does; return its result and its operations."""
    runner = DurableFunctionTestRunner(handler, poll_interval=0.01)
    runner.register_function("double", lambda event, context: 2 * event)
    runner.register_function("broken", _broken)
    with contextlib.closing(runner._scheduler._loop), runner:
        arn = runner.run_async(input="{}", function_name="asks", execution_name="run-1")
        if send is not None:
            send(runner, runner.wait_for_callback(arn, name, timeout=PATIENCE_SECONDS))
        result = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
    assert result.result is not None, result.error
    rows: set[Any] = set()
    _collect(result.operations, rows)
    return json.loads(result.result), rows


def _broken(event: Any, context: Any) -> Any:
    raise LookupError("there is none")


def _collect(operations: list[Any], rows: set[Any]) -> None:
    for one in operations:
        kind = (one.operation_type.value, one.sub_type)
        rows.add((one.operation_id, one.parent_id, *kind, one.name or None, one.status.value))
        _collect(getattr(one, "child_operations", None) or [], rows)


def succeed(runner: DurableFunctionTestRunner, callback_id: str) -> None:
    runner.send_callback_success(callback_id, b"as it was sent")


def fail(runner: DurableFunctionTestRunner, callback_id: str) -> None:
    error = ErrorObject(message="refused", type="Refused", data=None, stack_trace=None)
    runner.send_callback_failure(callback_id, error)


# -- create_callback -----------------------------------------------------------------------------


@durable_execution
def theirs_ask(event: Any, context: Any) -> Any:
    callback = context.create_callback("approval")
    try:
        return callback.result()
    except SdkCallbackError as error:
        return ["failed", error.message]


@aws_workflow_handler
@workflow
async def ours_ask(ctx: WorkflowContext) -> Any:
    callback = ctx.callback("approval")
    try:
        return await callback.result()
    except CallbackError as error:
        return ["failed", error.message]


@aws_workflow_handler
@workflow
def ours_ask_blocking(ctx: SyncWorkflowContext) -> Any:
    callback = ctx.callback("approval")
    try:
        return callback.result()
    except CallbackError as error:
        return ["failed", error.message]


@pytest.mark.parametrize("ours", [ours_ask, ours_ask_blocking], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("send", "outcome"),
    [(succeed, "as it was sent"), (fail, ["failed", "refused"])],
    ids=["success", "failure"],
)
def test_a_callback(ours: Any, send: Send, outcome: Any) -> None:
    found, rows = run(ours, "approval", send)
    assert (found, rows) == run(theirs_ask, "approval", send)
    assert found == outcome


@durable_execution
def theirs_late(event: Any, context: Any) -> Any:
    seconds = Duration.from_seconds(1)
    whole = context.create_callback("whole", CallbackConfig(timeout=seconds))
    outcome = []
    for callback in (
        whole,
        context.create_callback("beat", CallbackConfig(heartbeat_timeout=seconds)),
    ):
        try:
            callback.result()
        except SdkTimeoutError:
            outcome.append("timeout")
    return outcome


@aws_workflow_handler
@workflow
async def ours_late(ctx: WorkflowContext) -> list[Any]:
    whole = ctx.callback("whole", timeout=1)
    outcome = []
    for callback in (whole, ctx.callback("beat", heartbeat_timeout=1)):
        try:
            await callback.result()
        except CallbackTimeoutError:
            outcome.append("timeout")
    return outcome


def test_timeouts() -> None:
    found, rows = run(ours_late)
    assert (found, rows) == run(theirs_late)
    assert found == ["timeout", "timeout"]


# -- wait_for_callback ---------------------------------------------------------------------------


@durable_execution
def theirs_wait(event: Any, context: Any) -> Any:
    try:
        return context.wait_for_callback(lambda callback_id, _: None, name="ask")
    except SdkCallbackError as error:
        return ["failed", error.message]


@aws_workflow_handler
@workflow
async def ours_wait(ctx: WorkflowContext) -> Any:
    try:
        return await ctx.wait_for_callback(lambda callback_id: None, "ask")
    except CallbackError as error:
        return ["failed", error.message]


@aws_workflow_handler
@workflow
def ours_wait_blocking(ctx: SyncWorkflowContext) -> Any:
    try:
        return ctx.wait_for_callback(lambda callback_id: None, "ask")
    except CallbackError as error:
        return ["failed", error.message]


@pytest.mark.parametrize("ours", [ours_wait, ours_wait_blocking], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("send", "outcome"),
    [(succeed, "as it was sent"), (fail, ["failed", "refused"])],
    ids=["success", "failure"],
)
def test_wait_for_callback(ours: Any, send: Send, outcome: Any) -> None:
    found, rows = run(ours, "ask create callback id", send)
    assert (found, rows) == run(theirs_wait, "ask create callback id", send)
    assert found == outcome


@durable_execution
def theirs_unnamed(event: Any, context: Any) -> Any:
    config = WaitForCallbackConfig(timeout=Duration.from_seconds(1))
    try:
        context.wait_for_callback(lambda callback_id, _: None, config=config)
    except SdkTimeoutError:
        return "timeout"


@aws_workflow_handler
@workflow
async def ours_unnamed(ctx: WorkflowContext) -> Any:
    try:
        await ctx.wait_for_callback(lambda callback_id: None, timeout=1)
    except CallbackTimeoutError:
        return "timeout"


def test_wait_for_callback_without_a_name_and_in_vain() -> None:
    found, rows = run(ours_unnamed)
    assert (found, rows) == run(theirs_unnamed)
    assert found == "timeout"


@durable_execution
def theirs_unsent(event: Any, context: Any) -> Any:
    def submit(callback_id: str, _: Any) -> None:
        raise ValueError("no address")

    config = WaitForCallbackConfig(retry_strategy=RetryPresets.none())
    try:
        context.wait_for_callback(submit, name="ask", config=config)
    except (SdkCallbackError, SdkStepError):
        return "unsent"


@aws_workflow_handler
@workflow
async def ours_unsent(ctx: WorkflowContext) -> Any:
    def submit(callback_id: str) -> None:
        raise ValueError("no address")

    try:
        await ctx.wait_for_callback(submit, "ask", retry=False)
    except ValueError:
        return "unsent"


def test_an_id_that_could_not_be_handed_out() -> None:
    found, rows = run(ours_unsent)
    assert (found, rows) == run(theirs_unsent)
    assert found == "unsent"


# -- invoke --------------------------------------------------------------------------------------


@durable_execution
def theirs_invoke(event: Any, context: Any) -> Any:
    config: InvokeConfig[Any, Any] = InvokeConfig()
    doubled = context.invoke("double", 21, name="doubling", config=config)
    try:
        context.invoke("broken", None, name="breaking")
    except SdkInvokeError as error:
        return [doubled, error.message]


@aws_workflow_handler
@workflow
async def ours_invoke(ctx: WorkflowContext) -> Any:
    doubled = await ctx.invoke("double", 21, name="doubling")
    try:
        await ctx.invoke("broken", name="breaking")
    except InvokeError as error:
        return [doubled, error.message]


@aws_workflow_handler
@workflow
def ours_invoke_blocking(ctx: SyncWorkflowContext) -> Any:
    doubled = ctx.invoke("double", 21, name="doubling")
    try:
        ctx.invoke("broken", name="breaking")
    except InvokeError as error:
        return [doubled, error.message]


@pytest.mark.parametrize("ours", [ours_invoke, ours_invoke_blocking], ids=["async", "sync"])
def test_invokes(ours: Any) -> None:
    found, rows = run(ours)
    assert (found, rows) == run(theirs_invoke)
    assert found[0] == 42
    assert "there is none" in found[1]
