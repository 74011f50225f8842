"""Child contexts, waits, callbacks, invokes, conditions."""

from __future__ import annotations

from typing import Any

from aws_durable_execution_sdk_python import (
    CallbackError,
    CallbackExternalError,
    CallbackSubmitterError,
    ChildContextError,
    InvokeError,
    SerDesError,
    ValidationError,
    WaitForConditionError,
    WithRetryConfig,
    durable_wait_for_callback,
    durable_with_child_context,
    with_retry,
)
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    ChildConfig,
    Duration,
    InvokeConfig,
    JitterStrategy,
    StepConfig,
    WaitForCallbackConfig,
)
from aws_durable_execution_sdk_python.lambda_service import ErrorObject
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python.serdes import JsonSerDes
from aws_durable_execution_sdk_python.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
    WaitStrategyConfig,
    create_wait_strategy,
)

from tests.aws.sdk.sdk_programs import (
    LARGE,
    QUICK,
    SECOND,
    Reversed,
    ShopError,
    attempts,
    case,
    described,
)

# -- child contexts -------------------------------------------------------------------------------


@durable_with_child_context
def order(child: Any, item: str) -> Any:
    price = child.step(lambda _: len(item), name="price")
    child.wait(SECOND, name="settle")
    return child.run_in_child_context(lambda inner: inner.step(lambda _: price * 2), name="inner")


@case()
def children(event: Any, context: Any) -> Any:
    first = context.run_in_child_context(order("shoes"))
    context.wait(SECOND)
    return [first, context.run_in_child_context(order("hat"), name="named")]


@case()
def failing_children(event: Any, context: Any) -> Any:
    found = []

    def own(child: Any) -> None:
        child.step(lambda _: 1, name="before")
        raise ShopError("sold out")

    def nested(child: Any) -> None:
        child.run_in_child_context(own, name="own")

    def step_fails(child: Any) -> None:
        child.step(attempts(9, ShopError("s")), name="s", config=StepConfig(RetryPresets.none()))

    for body in (own, nested, step_fails):
        try:
            context.run_in_child_context(body, name=body.__name__)
        except ChildContextError as error:
            found.append(described(error))
        context.wait(SECOND)
    return found


@case()
def large_child(event: Any, context: Any) -> Any:
    def body(child: Any) -> str:
        child.step(lambda _: 1, name="work")
        return LARGE

    first = context.run_in_child_context(body, name="plain")
    config = ChildConfig[str](summary_generator=lambda result: f"{len(result)} letters")
    second = context.run_in_child_context(body, name="summarized", config=config)
    context.wait(SECOND)
    return [len(first), len(second)]


@case(suspends=False)
def summary_that_raises(event: Any, context: Any) -> Any:
    def summarize(result: str) -> str:
        raise ShopError("no summary")

    config: Any = ChildConfig(summary_generator=summarize)
    try:
        context.run_in_child_context(lambda _: LARGE, name="large", config=config)
    except ChildContextError as error:
        return described(error)


@case()
def virtual_children(event: Any, context: Any) -> Any:
    virtual = ChildConfig[Any](is_virtual=True)

    def body(child: Any) -> Any:
        child.step(lambda _: 1, name="a")
        child.wait(SECOND)
        return child.run_in_child_context(lambda c: c.step(lambda _: (2,)), name="real")

    def fails(child: Any) -> None:
        child.step(lambda _: 1, name="before")
        raise ShopError("virtually")

    first = context.run_in_child_context(body, name="virtual", config=virtual)
    context.wait(SECOND)
    try:
        context.run_in_child_context(fails, config=virtual)
    except ChildContextError as error:
        return [first, described(error), context.step(lambda _: 3)]


@case(suspends=False)
def outer_context_in_a_child(event: Any, context: Any) -> Any:
    """A slip that works: the code of a child uses the context around it."""
    return context.run_in_child_context(lambda child: context.step(lambda _: 1), name="child")


@case()
def retried_block(event: Any, context: Any) -> Any:
    def block(ctx: Any, attempt: int) -> Any:
        ctx.step(lambda _: attempt, name=f"try {attempt}")
        if attempt < 3:
            raise ShopError("not yet")
        return attempt

    config = WithRetryConfig[Any](retry_strategy=QUICK)
    first = with_retry(context, block, config, name="block")
    bare = WithRetryConfig[Any](retry_strategy=QUICK, wrap_with_run_in_child_context=False)
    return [first, with_retry(context, block, bare)]


# -- waits, callbacks, invokes --------------------------------------------------------------------


@case(suspends=False)
def too_short_a_wait(event: Any, context: Any) -> Any:
    try:
        context.wait(Duration.from_seconds(0))
    except ValidationError as error:
        return str(error)


def answer(text: bytes | None) -> Any:
    return lambda runner, callback_id: runner.send_callback_success(callback_id, text)


def refuse(runner: Any, callback_id: str) -> None:
    error = ErrorObject(message="refused", type="Refused", data="{}", stack_trace=["a", "b"])
    runner.send_callback_failure(callback_id, error)


@case(sends={"ask": answer(b'{"a": 1}'), "second": answer(b'{"a": 1}')})
def callbacks(event: Any, context: Any) -> Any:
    one = context.create_callback(name="ask", config=CallbackConfig(timeout=Duration(60)))
    context.step(lambda _: isinstance(one.callback_id, str), name="hand out")
    first = one.result()
    config = CallbackConfig(serdes=JsonSerDes(), sub_type="Approval")
    other = context.create_callback(name="second", config=config)
    return [first, other.result(), one.result()]


@case(sends={"ask": answer(None)})
def empty_answer(event: Any, context: Any) -> Any:
    return context.create_callback(name="ask").result()


@case(sends={"ask": refuse})
def refused_callback(event: Any, context: Any) -> Any:
    callback = context.create_callback(name="ask")
    try:
        callback.result()
    except CallbackExternalError as error:
        return described(error)


@case()
def late_callback(event: Any, context: Any) -> Any:
    callback = context.create_callback(name="ask", config=CallbackConfig(timeout=SECOND))
    try:
        callback.result()
    except CallbackError as error:
        return described(error)


@durable_wait_for_callback
def submit(callback_id: str, context: Any, task: str) -> None:
    assert callback_id
    assert task


@case(
    sends={
        "submit create callback id": answer(b"done"),
        "named create callback id": answer(b"[1]"),
        "create callback id": answer(b"x"),
    }
)
def waits_for_callbacks(event: Any, context: Any) -> Any:
    first = context.wait_for_callback(submit("task"))
    config = WaitForCallbackConfig(serdes=JsonSerDes(), timeout=Duration(60))
    second = context.wait_for_callback(lambda callback_id, _: None, name="named", config=config)
    return [first, second, context.wait_for_callback(lambda callback_id, _: None)]


@case(sends={"ask create callback id": refuse})
def refused_wait_for_callback(event: Any, context: Any) -> Any:
    try:
        context.wait_for_callback(lambda callback_id, _: None, name="ask")
    except CallbackError as error:
        return described(error)


@case(suspends=False)
def failing_submitter(event: Any, context: Any) -> Any:
    def broken(callback_id: str, _: Any) -> None:
        raise ShopError("no answer")

    config = WaitForCallbackConfig(retry_strategy=RetryPresets.none())
    try:
        context.wait_for_callback(broken, name="ask", config=config)
    except CallbackSubmitterError as error:
        return described(error)


def broken_callee(event: Any, context: Any) -> Any:
    raise LookupError("there is none")


@case(invokes={"double": lambda event, context: 2 * event["n"], "broken": broken_callee})
def invokes(event: Any, context: Any) -> Any:
    first = context.invoke("double", {"n": 21}, name="doubled")
    config = InvokeConfig[Any, Any](serdes_result=Reversed())
    try:
        context.invoke("broken", None, config=config)
    except InvokeError as error:
        return [first, described(error)]


@case(suspends=False)
def unreadable_input_of_an_invoke(event: Any, context: Any) -> Any:
    try:
        context.invoke("double", object(), name="doubled")
    except SerDesError as error:
        return [part for part in described(error) if " at 0x" not in str(part)]


# -- conditions -----------------------------------------------------------------------------------


def polls(state: Any, check: Any) -> Any:
    return {"polls": state["polls"] + 1, "attempt": check.attempt, "all": (1, 2)}


def until(count: int) -> Any:
    return create_wait_strategy(
        WaitStrategyConfig(
            lambda state: state["polls"] < count,
            max_attempts=5,
            initial_delay=SECOND,
            jitter_strategy=JitterStrategy.NONE,
        )
    )


@case()
def conditions(event: Any, context: Any) -> Any:
    config = WaitForConditionConfig(until(3), {"polls": 0})
    first = context.wait_for_condition(polls, config, name="three")
    context.wait(SECOND)
    again = WaitForConditionConfig(until(2), {"polls": 0}, serdes=JsonSerDes())
    return [first, context.wait_for_condition(polls, again)]


@case()
def failing_conditions(event: Any, context: Any) -> Any:
    found = []

    def broken(state: Any, check: Any) -> Any:
        raise ShopError("can't look")

    def stops(state: Any, attempt: int) -> WaitForConditionDecision:
        return WaitForConditionDecision.stop_polling()

    for check, strategy, initial in (
        (broken, stops, None),
        (polls, until(99), {"polls": 0}),
        (polls, stops, object()),
    ):
        config: Any = WaitForConditionConfig(strategy, initial)
        try:
            context.wait_for_condition(check, config, name="condition")
        except (WaitForConditionError, SerDesError) as error:
            told = described(error)
            found.append([part if "0x" not in str(part) else "…" for part in told])
        context.wait(SECOND)
    return found
