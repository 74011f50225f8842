"""Steps, waits and child contexts: pairs of functions on AWS's test runner."""

from __future__ import annotations

from typing import Any

from aws_durable_execution_sdk_python.config import (
    ChildConfig,
    Duration,
    StepConfig,
    StepSemantics,
)
from aws_durable_execution_sdk_python.exceptions import ChildContextError, StepError
from aws_durable_execution_sdk_python.retries import RetryPresets

from pyworkflow import (
    FatalError,
    Retry,
    SyncWorkflowContext,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from tests.aws.differential.pairs import Around, check_pair

SECOND = Duration.from_seconds(1)
AGAIN = RetryPresets.fixed(SECOND)
NEVER = RetryPresets.none()
EACH_SECOND = Retry(max_attempts=5, delay="1s", backoff=1, jitter=False)


class SoldOutError(Exception):
    """An error of the application's own."""


@step(retry=EACH_SECOND)
async def echo(value: Any) -> Any:
    return value


@step(retry=EACH_SECOND, inline=True)
def blocking_echo(value: Any) -> Any:
    return value


@step(retry=EACH_SECOND)
async def flaky(failures: int) -> int:
    return attempt_of(failures, current_step().attempt)


@step(retry=EACH_SECOND, inline=True)
def blocking_flaky(failures: int) -> int:
    return attempt_of(failures, current_step().attempt)


@step(retry=False)
async def fails(message: str) -> None:
    raise SoldOutError(message)


@step(retry=False, inline=True)
def blocking_fails(message: str) -> None:
    raise SoldOutError(message)


def attempt_of(failures: int, attempt: int) -> int:
    if attempt <= failures:
        raise SoldOutError(f"attempt {attempt}")
    return attempt


def failing(message: str) -> Any:
    def body(_: Any) -> None:
        raise SoldOutError(message)

    return body


# -- steps and waits -------------------------------------------------------------------------------


def theirs_in_turn(event: Any, context: Any) -> Any:
    first = context.step(lambda _: event["n"] + 1, name="first")
    context.wait(SECOND, name="pause")
    second = context.step(lambda _: {"found": [first, None, 1.5, "ü"]}, name="second")
    context.wait(Duration.from_hours(2))
    return [second, context.step(lambda _: None, name="nothing")]


@workflow
async def ours_in_turn(ctx: WorkflowContext, n: int) -> Any:
    first = await echo.options(name="first")(n + 1)
    ctx.sleep(1, name="pause")
    second = await echo.options(name="second")({"found": [first, None, 1.5, "ü"]})
    ctx.sleep("2h")
    return [second, await echo.options(name="nothing")(None)]


@workflow
def ours_in_turn_blocking(ctx: SyncWorkflowContext, n: int) -> Any:
    first = blocking_echo.options(name="first")(n + 1)
    ctx.sleep(1, name="pause")
    second = blocking_echo.options(name="second")({"found": [first, None, 1.5, "ü"]})
    ctx.sleep("2h")
    return [second, blocking_echo.options(name="nothing")(None)]


def test_steps_and_waits_in_turn() -> None:
    seen = check_pair(theirs_in_turn, ours_in_turn, ours_in_turn_blocking, around=Around({"n": 1}))
    assert seen.result == [{"found": [2, None, 1.5, "ü"]}, None]
    assert len(seen.timeline) == 10


# -- attempts --------------------------------------------------------------------------------------


def theirs_retried(event: Any, context: Any) -> Any:
    config = StepConfig(retry_strategy=AGAIN)
    first = context.step(lambda s: attempt_of(2, s.attempt), name="flaky", config=config)
    return [first, context.step(lambda s: attempt_of(1, s.attempt), name="flaky", config=config)]


@workflow
async def ours_retried(ctx: WorkflowContext) -> Any:
    return [await flaky(2), await flaky(1)]


@workflow
def ours_retried_blocking(ctx: SyncWorkflowContext) -> Any:
    call = blocking_flaky.options(name="flaky")
    return [call(2), call(1)]


def test_steps_that_are_tried_again() -> None:
    seen = check_pair(theirs_retried, ours_retried, ours_retried_blocking)
    assert seen.result == [3, 2]
    assert [one["StepDetails"]["Attempt"] for one in seen.operations] == [3, 2]


def theirs_used_up(event: Any, context: Any) -> Any:
    config = StepConfig(retry_strategy=AGAIN)
    try:
        context.step(lambda s: attempt_of(99, s.attempt), name="flaky", config=config)
    except StepError as error:
        context.wait(SECOND)
        return error.message


@workflow
async def ours_used_up(ctx: WorkflowContext) -> Any:
    try:
        await flaky(99)
    except SoldOutError as error:
        ctx.sleep(1)
        return str(error)


def test_attempts_that_are_used_up() -> None:
    assert check_pair(theirs_used_up, ours_used_up).result == "attempt 5"


def theirs_careful(event: Any, context: Any) -> Any:
    config = StepConfig(AGAIN, StepSemantics.AT_MOST_ONCE_PER_RETRY)
    first = context.step(lambda _: "once", name="echo", config=config)
    return [first, context.step(lambda s: attempt_of(1, s.attempt), name="flaky", config=config)]


@workflow
async def ours_careful(ctx: WorkflowContext) -> Any:
    first = await echo.options(at_most_once=True, retry=EACH_SECOND)("once")
    return [first, await flaky.options(at_most_once=True, retry=EACH_SECOND)(1)]


def test_steps_that_run_at_most_once_an_attempt() -> None:
    assert check_pair(theirs_careful, ours_careful).result == ["once", 2]


# -- failures --------------------------------------------------------------------------------------


def theirs_failed(event: Any, context: Any) -> Any:
    context.step(failing("no shoes"), name="fails", config=StepConfig(NEVER))


@workflow
async def ours_failed(ctx: WorkflowContext) -> None:
    await fails("no shoes")


@workflow
def ours_failed_blocking(ctx: SyncWorkflowContext) -> None:
    blocking_fails.options(name="fails")("no shoes")


def test_a_failed_step_fails_the_execution() -> None:
    seen = check_pair(theirs_failed, ours_failed, ours_failed_blocking)
    assert seen.status == "FAILED"
    assert seen.error["ErrorMessage"] == "no shoes"


def theirs_raises(event: Any, context: Any) -> Any:
    context.step(lambda _: 1, name="echo")
    raise SoldOutError("not the step's")


@workflow
async def ours_raises(ctx: WorkflowContext) -> None:
    await echo(1)
    raise SoldOutError("not the step's")


def test_an_error_of_the_workflows_own() -> None:
    assert check_pair(theirs_raises, ours_raises).error == {
        "ErrorType": f"{__name__}.SoldOutError",
        "ErrorMessage": "not the step's",
    }


def theirs_given_up(event: Any, context: Any) -> Any:
    def body(_: Any) -> None:
        raise FatalError("for good")

    try:
        context.step(body, name="fatal", config=StepConfig(NEVER))
    except StepError as error:
        return error.message


@step
async def fatal() -> None:
    raise FatalError("for good")


@workflow
async def ours_given_up(ctx: WorkflowContext) -> Any:
    try:
        await fatal()
    except FatalError as error:
        return str(error)


def test_an_error_that_is_not_tried_again() -> None:
    assert check_pair(theirs_given_up, ours_given_up).result == "for good"


# -- child contexts --------------------------------------------------------------------------------


def theirs_children(event: Any, context: Any) -> Any:
    def order(child: Any) -> Any:
        price = child.step(lambda _: 5, name="price")
        child.wait(SECOND, name="settle")
        return child.run_in_child_context(
            lambda inner: inner.step(lambda _: price * 2, name="twice"), name="inner"
        )

    first = context.run_in_child_context(order, name="order")
    context.wait(SECOND)
    return [first, context.run_in_child_context(order, name="again")]


@workflow
async def ours_children(ctx: WorkflowContext) -> Any:
    async def order() -> Any:
        price = await echo.options(name="price")(5)
        ctx.sleep(1, name="settle")

        async def inner() -> Any:
            return await echo.options(name="twice")(price * 2)

        return await ctx.child(inner)

    first = await ctx.child(order)
    ctx.sleep(1)
    return [first, await ctx.child(order, name="again")]


@workflow
def ours_children_blocking(ctx: SyncWorkflowContext) -> Any:
    def order() -> Any:
        price = blocking_echo.options(name="price")(5)
        ctx.sleep(1, name="settle")
        return ctx.child(lambda: blocking_echo.options(name="twice")(price * 2), name="inner")

    first = ctx.child(order)
    ctx.sleep(1)
    return [first, ctx.child(order, name="again")]


def test_child_contexts_in_child_contexts() -> None:
    assert check_pair(theirs_children, ours_children, ours_children_blocking).result == [10, 10]


def theirs_failed_children(event: Any, context: Any) -> Any:
    def own(child: Any) -> None:
        child.step(lambda _: 1, name="echo")
        raise SoldOutError("the child's own")

    def of_a_step(child: Any) -> None:
        child.step(failing("the step's"), name="fails", config=StepConfig(NEVER))

    found = []
    for body in (own, of_a_step):
        try:
            context.run_in_child_context(
                lambda child, body=body: child.run_in_child_context(body, name=body.__name__),
                name="around",
            )
        except ChildContextError as error:
            found.append(error.message)
        context.wait(SECOND)
    return found


@workflow
async def ours_failed_children(ctx: WorkflowContext) -> Any:
    async def own() -> None:
        await echo(1)
        raise SoldOutError("the child's own")

    async def of_a_step() -> None:
        await fails("the step's")

    found = []
    for body in (own, of_a_step):
        try:
            await ctx.child(lambda body=body: ctx.child(body), name="around")
        except SoldOutError as error:
            found.append(str(error))
        ctx.sleep(1)
    return found


def test_child_contexts_that_fail() -> None:
    seen = check_pair(theirs_failed_children, ours_failed_children)
    assert seen.result == ["the child's own", "the step's"]


def theirs_large(event: Any, context: Any) -> Any:
    def large(child: Any) -> str:
        child.step(lambda _: 1, name="echo")
        return "x" * 300_000

    text = context.run_in_child_context(large, name="large", config=ChildConfig())
    context.wait(SECOND)
    return len(text)


@workflow
async def ours_large(ctx: WorkflowContext) -> int:
    async def large() -> str:
        await echo(1)
        return "x" * 300_000

    text = await ctx.child(large)
    ctx.sleep(1)
    return len(text)


def test_a_result_too_large_to_be_stored() -> None:
    seen = check_pair(theirs_large, ours_large)
    assert seen.result == 300_000
    assert seen.operations[0]["ContextDetails"] == {"ReplayChildren": True}
