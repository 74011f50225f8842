from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    Retry,
    Step,
    StepInterruptedError,
    StepTimeoutError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    sleep,
    step,
    workflow,
)
from pyworkflow._protocol.records import OperationType
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import DurationError
from tests.api.world import World, crashes, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@step
def double(n: int) -> int:
    """Double it."""
    return 2 * n


@step
async def triple(n: int, *, plus: int = 0) -> int:
    """Triple it."""
    return 3 * n + plus


@step(inline=True)
def thread_name() -> str:
    return threading.current_thread().name


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


# -- the object is the function --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.asyncio.iscoroutinefunction:DeprecationWarning")  # 3.14
def test_a_sync_step_looks_like_its_function() -> None:
    assert isinstance(double, Step)
    assert not inspect.iscoroutinefunction(double)
    assert not asyncio.iscoroutinefunction(double)
    assert str(inspect.signature(double)) == "(n: 'int') -> 'int'"
    assert (double.__name__, double.__doc__) == ("double", "Double it.")  # type: ignore[attr-defined]
    assert (double.name, repr(double)) == ("double", "<step 'double'>")


@pytest.mark.filterwarnings("ignore:.asyncio.iscoroutinefunction:DeprecationWarning")  # 3.14
def test_an_async_step_looks_like_its_function() -> None:
    assert inspect.iscoroutinefunction(triple)
    assert asyncio.iscoroutinefunction(triple)
    assert str(inspect.signature(triple)) == "(n: 'int', *, plus: 'int' = 0) -> 'int'"
    assert (triple.__name__, triple.__doc__) == ("triple", "Triple it.")  # type: ignore[attr-defined]
    assert triple.__module__ == __name__


def test_options_keep_what_the_step_looks_like() -> None:
    other = triple.options(name="thrice")
    assert inspect.iscoroutinefunction(other)
    assert inspect.signature(other) == inspect.signature(triple)
    assert other.name == "thrice"
    assert triple.name == "triple"


def test_outside_of_an_execution_a_step_is_the_plain_function() -> None:
    assert double(4) == 8
    assert asyncio.run(triple(4, plus=1)) == 13
    assert double.options(key="k")(1) == 2


def test_outside_of_an_execution_submit_is_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"double\.submit\(\) was called outside of a running work"
    ):
        double.submit(1)


# -- what can't be a step --------------------------------------------------------------------------


def _numbers() -> Iterator[int]:
    yield 1


async def _stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("thing", "fault"),
    [
        (functools.partial(print, 1), "takes a function"),
        (len, "takes a function"),
        (double, "takes a function"),
        (_numbers, "generator.*return a list"),
        (_stream, "generator.*return a list"),
        (lambda: 1, "a lambda has no name"),
    ],
)
def test_what_is_no_function_with_one_result_is_refused(thing: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        step(thing)
    with pytest.raises(UsageError, match=fault):
        step(retry=2)(thing)


def test_a_lambda_with_a_name_is_a_step() -> None:
    square: Step[[int], int] = step(name="square")(lambda n: n * n)

    @workflow
    def lambdas(ctx: SyncWorkflowContext) -> int:
        return square(3)

    assert run(lambdas) == 9


def test_bad_options_are_told_at_once() -> None:
    async def body() -> None: ...

    with pytest.raises(UsageError, match="step 'body': inline=True is for sync functions"):
        step(inline=True)(body)
    with pytest.raises(UsageError, match=r"the name of step .*body"):
        step(name="")(body)
    with pytest.raises(UsageError, match="the timeout of step 'body' must be longer than 0"):
        step(timeout=0)(body)
    with pytest.raises(DurationError, match="has no unit"):
        step(timeout="5")(body)
    with pytest.raises(UsageError, match="number of attempts"):
        step(retry=0)(body)


def test_bad_settings_are_told_at_once() -> None:
    with pytest.raises(UsageError, match="the name of step 'double' must be printable ASCII"):
        double.options(name="größe")
    with pytest.raises(UsageError, match="the key of double must be a non-empty str"):
        double.options(key="")
    with pytest.raises(UsageError, match="must be longer than 0"):
        double.options(timeout=0)
    with pytest.raises(UsageError, match="number of attempts"):
        double.options(retry=-1)


# -- calls in a workflow ---------------------------------------------------------------------------


def test_sync_and_async_steps_in_an_async_workflow() -> None:
    @workflow
    async def both(ctx: WorkflowContext) -> list[int]:
        return [double(1), await triple(1), *await asyncio.gather(triple(2), triple(3, plus=1))]

    mock_ctx = MockDurableContext()
    assert run(both, None, mock_ctx) == [2, 3, 6, 10]
    assert mock_ctx.checkpoints == {"double": 2, "triple": 3, "triple#2": 6, "triple#3": 10}
    assert {op.type for op in mock_ctx.operations} == {OperationType.STEP}


def test_an_async_step_in_a_sync_workflow() -> None:
    @workflow
    def blocking(ctx: SyncWorkflowContext) -> list[int]:
        first = triple.submit(1)
        return [double(1), triple.submit(2).result(), first.result()]

    results = crashes(blocking)
    assert results == [[2, 6, 3]] * len(results)


def test_a_lazy_coroutine_starts_when_it_is_awaited() -> None:
    @workflow
    async def lazy(ctx: WorkflowContext) -> int:
        later = triple(1)
        now = await triple(2)
        return await later - now

    mock_ctx = MockDurableContext()
    assert run(lazy, None, mock_ctx) == -3
    assert list(mock_ctx.checkpoints.values()) == [6, 3]


def test_a_never_awaited_step_is_an_error_that_names_it() -> None:
    @workflow
    async def forgetful(ctx: WorkflowContext) -> int:
        triple(1)  # type: ignore[unused-coroutine]
        triple.options(name="thrice")(1)  # type: ignore[unused-coroutine]
        return double(1)

    with pytest.raises(
        UsageError, match=r"triple, thrice: called but never awaited.*Await the call"
    ):
        run(forgetful)


def test_a_step_called_in_a_sync_workflow_without_submit_is_an_error() -> None:
    @workflow
    def wrong(ctx: SyncWorkflowContext) -> None:
        triple(1)  # type: ignore[unused-coroutine]

    with pytest.raises(UsageError, match=r"triple: .* step\.submit\(\.\.\.\)\.result\(\)"):
        run(wrong)


def test_a_step_within_a_step_is_a_plain_call() -> None:
    @step
    def outer_sync(n: int) -> int:
        return double(n) + 1

    @step
    async def outer_async(n: int) -> int:
        return await triple(n) + double(n)

    @step(inline=True)
    def outer_inline(n: int) -> int:
        return double(n) - 1

    @workflow
    async def nested(ctx: WorkflowContext) -> list[int]:
        return [outer_sync(1), await outer_async(1), outer_inline(1)]

    mock_ctx = MockDurableContext()
    assert run(nested, None, mock_ctx) == [3, 5, 1]
    assert list(mock_ctx.checkpoints) == ["outer_sync", "outer_async", "outer_inline"]


def test_a_submit_within_a_step_names_the_step() -> None:
    @step(retry=False)
    async def outer() -> int:
        return await triple.submit(1)

    @workflow
    async def nested(ctx: WorkflowContext) -> int:
        return await outer()

    with pytest.raises(UsageError, match=r"triple\.submit\(\) was called inside step 'outer'"):
        run(nested)


def test_a_sync_step_blocks_its_task_alone() -> None:
    entered = threading.Event()

    @step
    def slow() -> str:
        assert entered.wait(10)
        return "slow"

    @step
    async def fast() -> str:
        entered.set()
        return "fast"

    @workflow
    async def two_tasks(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []

        async def blocking() -> None:
            order.append(slow())

        async def awaiting() -> None:
            order.append(await fast())

        await asyncio.gather(blocking(), awaiting())
        return order

    assert run(two_tasks) == ["fast", "slow"]


def test_inline_steps_run_on_the_hosts_thread_and_others_not() -> None:
    threaded = step(name="threaded")(lambda: threading.current_thread().name)

    @workflow
    def where(ctx: SyncWorkflowContext) -> list[str]:
        return [thread_name(), threaded()]

    here, there = run(where)
    assert here == threading.current_thread().name
    assert there.startswith("pyworkflow-step")


def test_a_cancelled_step_is_abandoned() -> None:
    @step
    async def endless() -> None:
        await asyncio.Event().wait()

    @workflow
    async def impatient(ctx: WorkflowContext) -> str:
        call = asyncio.create_task(endless())
        await triple(1)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    assert run(impatient) == "cancelled"


# -- methods ---------------------------------------------------------------------------------------


class Shop:
    """Steps of every kind of method."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @step
    async def order(self, item: str) -> str:
        return f"{self.prefix} {item}"

    @step(name="pay")
    def charge(self, amount: int) -> str:
        return f"{self.prefix} {amount}"

    @classmethod
    @step
    def kind(cls, n: int) -> str:
        return f"{cls.__name__} {n}"

    @staticmethod
    @step
    def tax(amount: int) -> int:
        return amount // 5


def test_methods_are_steps() -> None:
    shop = Shop("tea")
    on_instance: Any = shop

    @workflow
    async def shopping(ctx: WorkflowContext) -> list[Any]:
        return [
            await shop.order("green"),
            shop.charge(7),
            shop.charge.options(name="later")(8),
            await shop.order.submit("black"),
            await Shop.order(shop, "white"),
            Shop.kind(1),
            Shop.kind(2),
            Shop.tax(10),
            on_instance.tax(20),
            on_instance.kind(3),
        ]

    mock_ctx = MockDurableContext()
    expected = [
        "tea green",
        "tea 7",
        "tea 8",
        "tea black",
        "tea white",
        "Shop 1",
        "Shop 2",
        2,
        4,
        "Shop 3",
    ]
    assert run(shopping, None, mock_ctx) == expected
    assert list(mock_ctx.checkpoints) == (
        ["order", "pay", "later", "order#2", "order#3", "kind", "kind#2", "tax", "tax#2", "kind#3"]
    )


def test_methods_keep_what_they_look_like() -> None:
    shop = Shop("tea")
    assert inspect.iscoroutinefunction(shop.order)
    assert not inspect.iscoroutinefunction(shop.charge)
    assert list(inspect.signature(shop.order).parameters) == ["item"]
    assert list(inspect.signature(Shop.order).parameters) == ["self", "item"]
    assert asyncio.run(shop.order("x")) == "tea x"
    assert Shop.kind(1) == "Shop 1"
    assert Shop.tax(10) == 2


def test_step_above_classmethod_says_where_it_belongs() -> None:
    function: Any = classmethod(lambda cls: 1)
    with pytest.raises(UsageError, match="put @classmethod or @staticmethod above @step"):
        step(function)


# -- decorators below @step ------------------------------------------------------------------------


def test_a_decorator_below_step_is_part_of_the_body() -> None:
    @step
    @passing_on
    def sync_body(n: int) -> int:
        return n + 1

    @step
    @passing_on
    async def async_body(n: int) -> int:
        return n + 2

    @workflow
    async def decorated(ctx: WorkflowContext) -> list[int]:
        return [sync_body(1), await async_body(1)]

    assert (sync_body.name, async_body.name) == ("sync_body", "async_body")
    assert inspect.iscoroutinefunction(async_body)
    assert run(decorated) == [2, 3]


# -- keys ------------------------------------------------------------------------------------------


def test_the_same_key_twice_is_an_error() -> None:
    @workflow
    async def twice(ctx: WorkflowContext) -> None:
        double.options(key="k")(1)
        await triple.options(key="k")(1)

    with pytest.raises(UsageError, match="the key 'k' is used twice in this workflow"):
        run(twice)


def test_keyed_steps_survive_insertion_and_reordering() -> None:
    bodies: list[str] = []

    @step
    async def work(name: str) -> str:
        bodies.append(name)
        return name.upper()

    @workflow
    async def before(ctx: WorkflowContext) -> str:
        a = await work.options(key="a")("a")
        b = await work.options(key="b")("b")
        await sleep("1h", key="pause")
        return a + b

    @workflow
    async def after(ctx: WorkflowContext) -> str:
        b = await work.options(key="b")("b")
        a = await work.options(key="a")("a")
        await sleep("1h", key="pause")
        return a + b + await work.options(key="new")("new")

    world = World()
    world.suspend(before)
    assert bodies == ["a", "b"]
    assert world.finish(after) == "ABNEW"
    assert bodies == ["a", "b", "new"]


def test_options_may_take_a_key_back() -> None:
    keyed = double.options(key="k")

    @workflow
    def unkeyed(ctx: SyncWorkflowContext) -> list[int]:
        return [keyed(1), keyed.options(key=None)(2), keyed.options(key="other")(3)]

    assert run(unkeyed) == [2, 4, 6]


# -- settings --------------------------------------------------------------------------------------


def _settings(one: Step[..., Any]) -> tuple[int, float | None, bool]:
    settings = one._settings
    return settings.retry.max_attempts, settings.timeout_seconds, settings.at_most_once


def test_settings_and_their_defaults() -> None:
    def body() -> None: ...

    assert _settings(step(body)) == (3, None, False)
    assert _settings(step()(body)) == (3, None, False)
    assert _settings(step(retry=5, timeout="2m")(body)) == (5, 120.0, False)
    assert _settings(step(retry=False)(body)) == (1, None, False)
    assert _settings(step(retry=None)(body)) == (3, None, False)
    assert _settings(step(at_most_once=True)(body)) == (1, None, True)
    assert _settings(step(at_most_once=True, retry=4)(body)) == (4, None, True)


def test_options_change_only_what_they_are_given() -> None:
    base = step(name="base", retry=5, timeout=10)(lambda: 1)
    assert _settings(base.options()) == (5, 10.0, False)
    assert _settings(base.options(name="x")) == (5, 10.0, False)
    assert _settings(base.options(retry=Retry(max_attempts=2))) == (2, 10.0, False)
    assert _settings(base.options(timeout=None)) == (5, None, False)
    assert _settings(base.options(timeout="1m")) == (5, 60.0, False)
    assert _settings(base.options(at_most_once=True)) == (1, 10.0, True)
    assert _settings(base.options(at_most_once=True, retry=2)) == (2, 10.0, True)
    assert _settings(base.options(at_most_once=False)) == (5, 10.0, False)


def test_a_timeout_ends_an_attempt() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("double", result=0, takes="10m")

    @workflow
    def slow(ctx: SyncWorkflowContext) -> int:
        return double.options(timeout="5m", retry=1)(1)

    with pytest.raises(StepTimeoutError, match="step 'double' took longer than its timeout of 5m"):
        run(slow, None, mock_ctx)


def test_an_at_most_once_step_is_not_run_again() -> None:
    bodies: list[int] = []

    @step(at_most_once=True)
    async def once() -> None:
        bodies.append(1)

    @workflow
    async def careful(ctx: WorkflowContext) -> None:
        await once()

    mock_ctx = MockDurableContext()
    mock_ctx.crash_after(1)
    with pytest.raises(StepInterruptedError, match="step 'once' was found started"):
        run(careful, None, mock_ctx)
    assert bodies == []


def test_a_result_type_that_is_no_use_fails_the_step_before_its_body() -> None:
    bodies: list[int] = []

    @step(retry=1)
    async def unknown() -> Nowhere:  # type: ignore[name-defined] # noqa: F821
        bodies.append(1)

    @workflow
    async def caller(ctx: WorkflowContext) -> None:
        await unknown()

    with pytest.raises(UsageError, match=r"'Nowhere' in the return annotation of .*unknown"):
        run(caller)
    assert bodies == []


def test_other_options_do_not_look_at_the_function_again() -> None:
    class Shop:
        @step
        async def charge(self, amount: int) -> int:
            """Take the money."""
            return amount

    plain: Any = Shop.charge
    made: Any
    for made in (plain.options(name="pay"), Shop().charge, Shop().charge.options(key="k")):
        assert made._settings.returned is plain._settings.returned
        assert made._settings.result_type is int
        assert made.__wrapped__ is made._function
        for name in ("__name__", "__qualname__", "__doc__", "__module__", "__code__"):
            assert getattr(made, name) == getattr(plain, name)
        assert inspect.iscoroutinefunction(made)
    assert vars(plain)["__wrapped__"] is plain._function
