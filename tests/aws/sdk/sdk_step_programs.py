"""Steps, serdes, and how functions end."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from aws_durable_execution_sdk_python import SerDesError, StepError, durable_step
from aws_durable_execution_sdk_python.config import ChildConfig, Duration, StepConfig, StepSemantics
from aws_durable_execution_sdk_python.exceptions import ExecutionError
from aws_durable_execution_sdk_python.retries import RetryDecision, RetryPresets

from tests.aws.sdk.sdk_programs import (
    QUICK,
    SECOND,
    Nothing,
    Reversed,
    ShopError,
    Unreadable,
    attempts,
    case,
    described,
)

# -- steps ----------------------------------------------------------------------------------------


@case(event={"n": 1})
def steps(event: Any, context: Any) -> Any:
    first = context.step(lambda _: event["n"] + 1, name="first")
    context.wait(SECOND, name="pause")
    second = context.step(lambda step: [first, step.attempt])
    context.wait(SECOND)
    return [first, second, context.step(lambda _: None, name="nothing")]


@durable_step
def add(step: Any, one: int, other: int) -> int:
    return one + other


@case()
def decorated_steps(event: Any, context: Any) -> Any:
    total = context.step(add(1, 2))
    context.wait(SECOND)
    return context.step(add(total, 10), name="named otherwise")


@case()
def values(event: Any, context: Any) -> Any:
    everything = [
        None,
        True,
        1,
        1.5,
        "text ü",
        b"bytes",
        (1, "two"),
        {"key": [1, (2,)], "t": "t", "v": 1},
        datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        date(2024, 1, 2),
        Decimal("1.10"),
        UUID(int=7),
        [1, [2, "three"]],
        [],
        {},
        float("inf"),
    ]
    first = [repr(context.step(lambda _, v=value: v)) for value in everything]
    context.wait(SECOND)
    again = [repr(context.step(lambda _, v=value: v)) for value in everything]
    return [first, again]


@case()
def retried(event: Any, context: Any) -> Any:
    config = StepConfig(retry_strategy=QUICK)
    found = context.step(attempts(2, ValueError("not yet")), name="retried", config=config)
    return [found, context.step(attempts(1, ShopError("own")), name="again", config=config)]


@case(draws=("NextAttemptDelaySeconds",))
def default_retries(event: Any, context: Any) -> Any:
    return context.step(attempts(1, ValueError("not yet")), name="retried")


@case()
def retries_used_up(event: Any, context: Any) -> Any:
    config = StepConfig(retry_strategy=QUICK)
    try:
        context.step(attempts(99, ShopError("never")), name="never", config=config)
    except StepError as error:
        first = described(error)
    context.wait(SECOND)
    try:
        context.step(attempts(99, ValueError("no")), config=StepConfig(RetryPresets.none()))
    except StepError as error:
        return [first, described(error)]


def own_strategy(error: Exception, attempt: int) -> RetryDecision:
    if isinstance(error, KeyError) or attempt >= 3:
        return RetryDecision.no_retry()
    return RetryDecision.retry(Duration.from_seconds(0))


@case()
def own_retry_strategy(event: Any, context: Any) -> Any:
    config = StepConfig(retry_strategy=own_strategy)
    found: list[Any] = [context.step(attempts(2, ValueError("v")), name="v", config=config)]
    try:
        context.step(attempts(9, KeyError("k")), name="k", config=config)
    except StepError as error:
        found.append(described(error))
    return found


@case(suspends=False)
def strategy_that_raises(event: Any, context: Any) -> Any:
    def broken(error: Exception, attempt: int) -> RetryDecision:
        raise RuntimeError("the strategy is broken")

    try:
        context.step(attempts(9, ValueError("v")), name="v", config=StepConfig(broken))
    except RuntimeError as error:
        return str(error)


@case()
def at_most_once(event: Any, context: Any) -> Any:
    careful = StepConfig(QUICK, StepSemantics.AT_MOST_ONCE_PER_RETRY)
    first = context.step(lambda _: "once", name="careful", config=careful)
    return [first, context.step(attempts(1, ValueError("v")), name="twice", config=careful)]


@case()
def labelled(event: Any, context: Any) -> Any:
    first = context.step(lambda _: 1, name="s", config=StepConfig(sub_type="Payment"))
    child = ChildConfig[Any](sub_type="Order")
    second = context.run_in_child_context(lambda _: first + 1, name="c", config=child)
    context.wait(SECOND)
    third = context.step(lambda _: second + 1, name="s", config=StepConfig(sub_type="Payment"))
    return [first, second, third]


@case(suspends=False)
def escapes_a_step(event: Any, context: Any) -> Any:
    def body(step: Any) -> None:
        raise ExecutionError("all is lost")

    context.step(body, name="fatal")


# -- serdes ---------------------------------------------------------------------------------------


@case()
def own_serdes(event: Any, context: Any) -> Any:
    first = context.step(lambda _: {"a": 1}, name="r", config=StepConfig(serdes=Reversed()))
    context.wait(SECOND)
    child = ChildConfig[Any](serdes=Reversed())
    second = context.run_in_child_context(lambda _: [first], name="rc", config=child)
    nothing = context.step(lambda _: "lost", name="n", config=StepConfig(serdes=Nothing()))
    none = context.run_in_child_context(
        lambda _: "lost", name="nc", config=ChildConfig[Any](serdes=Nothing())
    )
    context.wait(SECOND)
    return [first, second, nothing, none]


@case()
def serdes_that_fail(event: Any, context: Any) -> Any:
    found = []
    failing: list[Any] = [
        lambda: context.step(lambda _: object(), name="object"),
        lambda: context.step(lambda _: 1, name="u", config=StepConfig(serdes=Unreadable())),
        lambda: context.run_in_child_context(lambda _: object(), name="child"),
        lambda: context.step(lambda _: {(1, 2): 3}, name="tuple keys"),
    ]
    for what in failing:
        try:
            what()
        except SerDesError as error:
            told = described(error)
            found.append([part if "0x" not in str(part) else "…" for part in told])
    context.wait(SECOND)
    return found


# -- ends -----------------------------------------------------------------------------------------


@case(suspends=False)
def fails(event: Any, context: Any) -> Any:
    context.step(lambda _: 1)
    raise ShopError("the end")


@case(suspends=False)
def fails_without_words(event: Any, context: Any) -> Any:
    raise ValueError


@case(suspends=False)
def fails_with_a_step(event: Any, context: Any) -> Any:
    context.step(attempts(9, ShopError("s")), name="s", config=StepConfig(RetryPresets.none()))


@case(suspends=False)
def result_that_is_no_json(event: Any, context: Any) -> Any:
    return {1, 2}


@case(suspends=False)
def no_input(event: Any, context: Any) -> Any:
    return event


@case()
def large_result(event: Any, context: Any) -> Any:
    context.wait(SECOND)
    return "x" * (6 * 1024 * 1024 - 2)  # the most that the service takes; no answer holds it


@case(suspends=False)
def what_a_context_tells(event: Any, context: Any) -> Any:
    first = context.is_replaying()
    context.step(lambda _: 1)
    return [
        first,
        context.is_replaying(),
        context.execution_context.durable_execution_arn.rpartition("/")[2],
        type(context.lambda_context).__name__,
    ]
