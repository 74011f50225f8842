"""Callbacks and invokes: pairs of functions on AWS's test runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
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
from aws_durable_execution_sdk_python.retries import RetryPresets

from pyworkflow import SyncWorkflowContext, WorkflowContext, step, workflow
from pyworkflow.errors import CallbackError, CallbackTimeoutError, InvokeError
from tests.aws.differential.pairs import Around, check_pair, fail, succeed

if TYPE_CHECKING:
    from tests.aws.differential.pairs import Send

# The runner skips waits, but lets timeouts of callbacks pass for real: they are one second here.
SECOND = Duration.from_seconds(1)

ANSWERS = pytest.mark.parametrize(
    ("send", "outcome"),
    [
        (succeed(b"as it was sent"), "as it was sent"),
        (fail("not today", "Refused"), ["failed", "not today"]),
    ],
    ids=["success", "failure"],
)


@step
async def nothing() -> None:
    return None


# -- create_callback -----------------------------------------------------------------------------


def theirs_ask(event: Any, context: Any) -> Any:
    callback = context.create_callback("approval", CallbackConfig(timeout=Duration.from_hours(1)))
    context.step(lambda _: None, name="nothing")
    try:
        return callback.result()
    except SdkCallbackError as error:
        return ["failed", error.message]


@workflow
async def ours_ask(ctx: WorkflowContext) -> Any:
    callback = ctx.callback("approval", timeout="1h")
    await nothing()
    try:
        return await callback.result()
    except CallbackError as error:
        return ["failed", error.message]


@workflow
def ours_ask_blocking(ctx: SyncWorkflowContext) -> Any:
    callback = ctx.callback("approval", timeout="1h")
    nothing.submit().result()
    try:
        return callback.result()
    except CallbackError as error:
        return ["failed", error.message]


@ANSWERS
def test_a_callback(send: Send, outcome: Any) -> None:
    around = Around(sends={"approval": send})
    assert check_pair(theirs_ask, ours_ask, ours_ask_blocking, around=around).result == outcome


def theirs_late(event: Any, context: Any) -> Any:
    whole = context.create_callback("whole", CallbackConfig(timeout=SECOND))
    outcome = []
    for callback in (
        whole,
        context.create_callback("beat", CallbackConfig(heartbeat_timeout=SECOND)),
    ):
        try:
            callback.result()
        except SdkTimeoutError:
            outcome.append("timeout")
    return outcome


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
    seen = check_pair(theirs_late, ours_late)
    assert seen.result == ["timeout", "timeout"]
    kinds = [one["CallbackDetails"]["Error"]["ErrorType"] for one in seen.operations]
    assert kinds == ["Callback.Timeout", "Callback.Heartbeat"]


def theirs_unhandled(event: Any, context: Any) -> Any:
    return context.create_callback("approval").result()


@workflow
async def ours_unhandled(ctx: WorkflowContext) -> Any:
    return await ctx.callback("approval").result()


def test_a_failure_that_nobody_handles() -> None:
    around = Around(sends={"approval": fail("not today", "Refused")})
    seen = check_pair(theirs_unhandled, ours_unhandled, around=around)
    assert seen.error == {"ErrorType": "Refused", "ErrorMessage": "not today"}


# -- wait_for_callback ---------------------------------------------------------------------------


def theirs_wait(event: Any, context: Any) -> Any:
    try:
        return context.wait_for_callback(lambda callback_id, _: None, name="ask")
    except SdkCallbackError as error:
        return ["failed", error.message]


@workflow
async def ours_wait(ctx: WorkflowContext) -> Any:
    try:
        return await ctx.wait_for_callback(lambda callback_id: None, "ask", result_type=str)
    except CallbackError as error:
        return ["failed", error.message]


@workflow
def ours_wait_blocking(ctx: SyncWorkflowContext) -> Any:
    try:
        return ctx.wait_for_callback(lambda callback_id: None, "ask", result_type=str)
    except CallbackError as error:
        return ["failed", error.message]


@ANSWERS
def test_wait_for_callback(send: Send, outcome: Any) -> None:
    around = Around(sends={"ask create callback id": send})
    assert check_pair(theirs_wait, ours_wait, ours_wait_blocking, around=around).result == outcome


def theirs_unnamed(event: Any, context: Any) -> Any:
    config = WaitForCallbackConfig(timeout=SECOND)
    try:
        context.wait_for_callback(lambda callback_id, _: None, config=config)
    except SdkTimeoutError:
        return "timeout"


@workflow
async def ours_unnamed(ctx: WorkflowContext) -> Any:
    try:
        await ctx.wait_for_callback(lambda callback_id: None, timeout=1)
    except CallbackTimeoutError:
        return "timeout"


def test_wait_for_callback_without_a_name_and_in_vain() -> None:
    assert check_pair(theirs_unnamed, ours_unnamed).result == "timeout"


def unsent(callback_id: str, _: Any = None) -> None:
    raise ValueError("no address")


def theirs_unsent(event: Any, context: Any) -> Any:
    config = WaitForCallbackConfig(retry_strategy=RetryPresets.none())
    try:
        context.wait_for_callback(unsent, name="ask", config=config)
    except (SdkCallbackError, SdkStepError):
        return "unsent"


@workflow
async def ours_unsent(ctx: WorkflowContext) -> Any:
    try:
        await ctx.wait_for_callback(unsent, "ask", retry=False)
    except ValueError:
        return "unsent"


def test_an_id_that_could_not_be_handed_out() -> None:
    assert check_pair(theirs_unsent, ours_unsent).result == "unsent"


# -- invoke --------------------------------------------------------------------------------------


def broken(event: Any, context: Any) -> Any:
    raise LookupError("there is none")


def theirs_invoke(event: Any, context: Any) -> Any:
    config: InvokeConfig[Any, Any] = InvokeConfig()
    doubled = context.invoke("double", {"n": 21}, name="doubling", config=config)
    try:
        context.invoke("broken", None, name="breaking")
    except SdkInvokeError as error:
        return [doubled, error.message]


@workflow
async def ours_invoke(ctx: WorkflowContext) -> Any:
    doubled = await ctx.invoke("double", {"n": 21}, name="doubling")
    try:
        await ctx.invoke("broken", name="breaking")
    except InvokeError as error:
        return [doubled, error.message]


@workflow
def ours_invoke_blocking(ctx: SyncWorkflowContext) -> Any:
    doubled = ctx.invoke("double", {"n": 21}, name="doubling")
    try:
        ctx.invoke("broken", name="breaking")
    except InvokeError as error:
        return [doubled, error.message]


def test_invokes() -> None:
    functions = {"double": lambda event, context: {"n": 2 * event["n"]}, "broken": broken}
    around = Around(invokes=functions)
    seen = check_pair(theirs_invoke, ours_invoke, ours_invoke_blocking, around=around)
    assert seen.result[0] == {"n": 42}
    assert "there is none" in seen.result[1]
