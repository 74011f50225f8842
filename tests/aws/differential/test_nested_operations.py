"""Fan-outs in fan-outs, and all that may stand in a branch: pairs on AWS's test runner."""

from __future__ import annotations

from typing import Any

from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    CompletionConfig,
    Duration,
    JitterStrategy,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
)
from aws_durable_execution_sdk_python.exceptions import CallbackTimeoutError as TheirTimeoutError
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python.waits import (
    WaitForConditionConfig,
    WaitStrategyConfig,
    create_wait_strategy,
)

from pyworkflow import (
    BatchError,
    Retry,
    SyncWorkflowContext,
    WorkflowContext,
    current_step,
    sleep,
    step,
    workflow,
)
from pyworkflow.errors import CallbackTimeoutError
from tests.aws.differential.pairs import Around, check_pair, succeed

SECOND = Duration.from_seconds(1)
AGAIN = StepConfig(retry_strategy=RetryPresets.fixed(SECOND))


class SoldOutError(Exception):
    """An error of the application's own."""


def attempt_of(failures: int, attempt: int) -> int:
    if attempt <= failures:
        raise SoldOutError(f"{failures - attempt} to come")
    return attempt


@step(inline=True)
def work(value: Any) -> Any:
    return value


@step(retry=Retry(max_attempts=5, delay="1s", backoff=1, jitter=False))
async def flaky(failures: int) -> int:
    return attempt_of(failures, current_step().attempt)


@step(retry=Retry(max_attempts=5, delay="1s", backoff=1, jitter=False), inline=True)
def blocking_flaky(failures: int) -> int:
    return attempt_of(failures, current_step().attempt)


def told(batch: Any) -> Any:
    """Tell of their batch what `our_told` tells of ours."""
    return [batch.get_results(), [error.message for error in batch.get_errors()]]


def our_told(batch: Any) -> Any:
    return [batch.results, [str(error) for error in batch.errors]]


# -- a map in a parallel, a child in its branches --------------------------------------------------


def theirs_map_in_parallel(event: Any, context: Any) -> Any:
    def order(child: Any, item: int, index: int, items: Any) -> Any:
        child.wait(SECOND)
        return child.run_in_child_context(
            lambda inner: inner.step(lambda _: item * 10, name="work"), name="price"
        )

    def mapped(child: Any) -> Any:
        return child.map([1, 2], order, name="orders").get_results()

    branches: Any = [
        ParallelBranch(mapped, "mapped"),
        ParallelBranch(lambda child: child.step(lambda _: 5, name="work"), "single"),
    ]
    first = context.parallel(branches, name="both")
    context.wait(SECOND)
    return first.get_results()


@workflow
async def ours_map_in_parallel(ctx: WorkflowContext) -> Any:
    async def order(item: int) -> Any:
        async def price() -> Any:
            return work(item * 10)

        await sleep(1)
        return await ctx.child(price)

    async def mapped() -> Any:
        return (await ctx.map(order, [1, 2], name="orders")).results

    batch = await ctx.parallel({"mapped": mapped, "single": lambda: work(5)}, name="both")
    ctx.sleep(1)
    return batch.results


@workflow
def ours_map_in_parallel_blocking(ctx: SyncWorkflowContext) -> Any:
    def order(item: int) -> Any:
        ctx.sleep(1)
        return ctx.child(lambda: work(item * 10), name="price")

    batch = ctx.parallel(
        {
            "mapped": lambda: ctx.map(order, [1, 2], name="orders").results,
            "single": lambda: work(5),
        },
        name="both",
    )
    ctx.sleep(1)
    return batch.results


def test_a_map_in_a_parallel() -> None:
    seen = check_pair(theirs_map_in_parallel, ours_map_in_parallel, ours_map_in_parallel_blocking)
    assert seen.result == [[10, 20], 5]
    assert len(seen.operations) == 14


# -- a parallel in a map, failing inside -----------------------------------------------------------


def theirs_parallel_in_map(event: Any, context: Any) -> Any:
    def check(child: Any, item: int, index: int, items: Any) -> Any:
        def stock(branch: Any) -> str:
            branch.step(lambda _: item, name="work")
            if item == 2:
                raise SoldOutError(f"no {item}")
            return "stock"

        config = ParallelConfig(max_concurrency=1)
        batch = child.parallel([stock, lambda _: "price"], name="checks", config=config)
        if batch.failure_count:
            raise SoldOutError(f"item {item}: {batch.get_errors()[0].message}")
        return batch.get_results()

    completion = CompletionConfig(tolerated_failure_count=1)
    config: Any = MapConfig(max_concurrency=1, completion_config=completion)
    batch = context.map([1, 2, 3], check, name="items", config=config)
    context.wait(SECOND)
    return told(batch)


@workflow
async def ours_parallel_in_map(ctx: WorkflowContext) -> Any:
    async def check(item: int) -> Any:
        def stock() -> str:
            work(item)
            if item == 2:
                raise SoldOutError(f"no {item}")
            return "stock"

        try:
            batch = await ctx.parallel([stock, lambda: "price"], name="checks", max_concurrency=1)
        except BatchError as error:
            raise SoldOutError(f"item {item}: {error.result.errors[0]}") from None
        return batch.results

    batch = await ctx.map(
        check, [1, 2, 3], name="items", max_concurrency=1, tolerated_failure_count=1
    )
    ctx.sleep(1)
    return our_told(batch)


def test_a_parallel_in_a_map_that_fails_inside() -> None:
    seen = check_pair(theirs_parallel_in_map, ours_parallel_in_map)
    assert seen.result == [[["stock", "price"]] * 2, ["item 2: no 2"]]


# -- retries in branches ---------------------------------------------------------------------------


def theirs_retries(event: Any, context: Any) -> Any:
    def branch(child: Any, failures: int, index: int, items: Any) -> Any:
        return child.step(lambda s: attempt_of(failures, s.attempt), name="flaky", config=AGAIN)

    completion = CompletionConfig(tolerated_failure_percentage=100)
    config: Any = MapConfig(completion_config=completion)
    return told(context.map([0, 2, 9, 1], branch, name="retries", config=config))


@workflow
async def ours_retries(ctx: WorkflowContext) -> Any:
    options: Any = {"name": "retries", "tolerated_failure_percentage": 100}
    return our_told(await ctx.map(flaky, [0, 2, 9, 1], **options))


@workflow
def ours_retries_blocking(ctx: SyncWorkflowContext) -> Any:
    call = blocking_flaky.options(name="flaky")
    options: Any = {"name": "retries", "tolerated_failure_percentage": 100}
    return our_told(ctx.map(call, [0, 2, 9, 1], **options))


def test_steps_that_are_tried_again_in_branches() -> None:
    seen = check_pair(theirs_retries, ours_retries, ours_retries_blocking)
    assert seen.result == [[1, 3, 2], ["4 to come"]]
    attempts = [one["StepDetails"]["Attempt"] for one in seen.operations if one["Type"] == "STEP"]
    assert attempts == [1, 3, 5, 2]


# -- callbacks in branches, one at a time ----------------------------------------------------------


def theirs_callbacks(event: Any, context: Any) -> Any:
    def ask(child: Any, name: str, index: int, items: Any) -> Any:
        answer = child.create_callback(name=name).result()
        child.wait(SECOND)
        return child.step(lambda _: [name, answer], name="note")

    config: Any = MapConfig(max_concurrency=1)
    return told(context.map(["one", "two", "three"], ask, name="asks", config=config))


@workflow
async def ours_callbacks(ctx: WorkflowContext) -> Any:
    async def ask(name: str) -> Any:
        answer = await ctx.callback(name, result_type=str).result()
        await sleep(1)
        return work.options(name="note")([name, answer])

    return our_told(await ctx.map(ask, ["one", "two", "three"], name="asks", max_concurrency=1))


@workflow
def ours_callbacks_blocking(ctx: SyncWorkflowContext) -> Any:
    def ask(name: str) -> Any:
        answer = ctx.callback(name, result_type=str).result()
        ctx.sleep(1)
        return work.options(name="note")([name, answer])

    return our_told(ctx.map(ask, ["one", "two", "three"], name="asks", max_concurrency=1))


def test_callbacks_in_branches() -> None:
    names = ["one", "two", "three"]
    around = Around(sends={name: succeed(name.upper().encode()) for name in names})
    seen = check_pair(theirs_callbacks, ours_callbacks, ours_callbacks_blocking, around=around)
    assert seen.result == [[[name, name.upper()] for name in names], []]


# -- one of each kind, side by side ----------------------------------------------------------------


def theirs_mixed(event: Any, context: Any) -> Any:
    def asks(child: Any) -> Any:
        return child.wait_for_callback(lambda callback_id, _: None, name="ask")

    def in_vain(child: Any) -> Any:
        callback = child.create_callback(name="late", config=CallbackConfig(timeout=SECOND))
        try:
            callback.result()
        except TheirTimeoutError:
            return child.step(lambda _: "in vain", name="work")

    def retries(child: Any) -> Any:
        return child.step(lambda s: attempt_of(2, s.attempt), name="flaky", config=AGAIN)

    def sleeps(child: Any) -> Any:
        child.wait(Duration.from_hours(1), name="nap")
        child.wait(SECOND)
        return child.step(lambda _: "awake", name="work")

    def calls(child: Any) -> Any:
        return child.invoke("double", 21, name="doubled")

    branches = [asks, in_vain, retries, sleeps, calls]
    named: Any = [ParallelBranch(each, each.__name__) for each in branches]
    batch = context.parallel(named, name="mixed")
    context.wait(SECOND)
    return told(batch)


@workflow
async def ours_mixed(ctx: WorkflowContext) -> Any:
    async def asks() -> Any:
        return await ctx.wait_for_callback(lambda _: None, "ask", result_type=str)

    async def in_vain() -> Any:
        try:
            await ctx.callback("late", timeout=1).result()
        except CallbackTimeoutError:
            return work("in vain")

    async def retries() -> Any:
        return await flaky(2)

    async def sleeps() -> Any:
        await sleep("1h", name="nap")
        ctx.sleep(1)
        return work("awake")

    async def calls() -> Any:
        return await ctx.invoke("double", 21, name="doubled")

    branches = [asks, in_vain, retries, sleeps, calls]
    batch = await ctx.parallel({each.__name__: each for each in branches}, name="mixed")
    ctx.sleep(1)
    return our_told(batch)


@workflow
def ours_mixed_blocking(ctx: SyncWorkflowContext) -> Any:
    def in_vain() -> Any:
        try:
            ctx.callback("late", timeout=1).result()
        except CallbackTimeoutError:
            return work("in vain")

    def sleeps() -> Any:
        ctx.sleep("1h", name="nap")
        ctx.sleep(1)
        return work("awake")

    branches: Any = {
        "asks": lambda: ctx.wait_for_callback(lambda _: None, "ask", result_type=str),
        "in_vain": in_vain,
        "retries": lambda: blocking_flaky.options(name="flaky")(2),
        "sleeps": sleeps,
        "calls": lambda: ctx.invoke("double", 21, name="doubled"),
    }
    batch = ctx.parallel(branches, name="mixed")
    ctx.sleep(1)
    return our_told(batch)


def test_one_of_each_kind_side_by_side() -> None:
    around = Around(
        sends={"ask create callback id": succeed(b"yes")},
        invokes={"double": lambda event, context: 2 * event},
    )
    seen = check_pair(theirs_mixed, ours_mixed, ours_mixed_blocking, around=around)
    assert seen.result == [["yes", "in vain", 3, "awake", 42], []]


# -- conditions in branches ------------------------------------------------------------------------
# Without waits beside them: AWS's runner forgets the state of a condition when its next poll is
# begun, so a poll that is begun in one invocation and run in the next starts from the first state.


def theirs_polls(event: Any, context: Any) -> Any:
    def polls(child: Any, most: int, index: int, items: Any) -> Any:
        strategy: Any = create_wait_strategy(
            WaitStrategyConfig(
                lambda count: count < most,
                initial_delay=SECOND,
                backoff_rate=1,
                jitter_strategy=JitterStrategy.NONE,
            )
        )
        config = WaitForConditionConfig(strategy, 0)
        return child.wait_for_condition(lambda count, _: count + 1, config, name="poll")

    return told(context.map([3, 1, 2], polls, name="polls"))


@workflow
async def ours_polls(ctx: WorkflowContext) -> Any:
    async def polls(most: int) -> Any:
        return await ctx.wait_for_condition(
            lambda count: count + 1, 0, until=lambda count: count >= most, every=1, name="poll"
        )

    return our_told(await ctx.map(polls, [3, 1, 2], name="polls"))


@workflow
def ours_polls_blocking(ctx: SyncWorkflowContext) -> Any:
    def polls(most: int) -> Any:
        return ctx.wait_for_condition(
            lambda count: count + 1, 0, until=lambda count: count >= most, every=1, name="poll"
        )

    return our_told(ctx.map(polls, [3, 1, 2], name="polls"))


def test_conditions_in_branches() -> None:
    assert check_pair(theirs_polls, ours_polls, ours_polls_blocking).result == [[3, 1, 2], []]


# -- results too large for one payload -------------------------------------------------------------


def theirs_large(event: Any, context: Any) -> Any:
    def large(child: Any, item: int, index: int, items: Any) -> Any:
        child.step(lambda _: item, name="work")
        if item == 2:
            child.create_callback(name="never").result()
        return "x" * (100_000 + item)

    completion = CompletionConfig(min_successful=3)
    config: Any = MapConfig(max_concurrency=2, completion_config=completion)
    batch = context.map([1, 2, 3, 4, 5], large, name="large", config=config)
    context.wait(SECOND)
    return [len(each) for each in batch.get_results()]


@workflow
async def ours_large(ctx: WorkflowContext) -> Any:
    async def large(item: int) -> str:
        work(item)
        if item == 2:
            await ctx.callback("never").result()
        return "x" * (100_000 + item)

    options: Any = {"name": "large", "max_concurrency": 2, "min_successful": 3}
    batch = await ctx.map(large, [1, 2, 3, 4, 5], **options)
    ctx.sleep(1)
    return [len(each) for each in batch.results]


def test_results_that_stay_with_their_branches() -> None:
    seen = check_pair(theirs_large, ours_large)
    assert seen.result == [100_001, 100_003, 100_004]
    assert seen.operations[0]["ContextDetails"]["ReplayChildren"] is True
