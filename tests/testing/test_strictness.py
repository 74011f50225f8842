from __future__ import annotations

import asyncio
import contextlib
import copy
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import Retry, SyncWorkflowContext, WorkflowContext, sleep, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import CallbackTimeoutError, ReplayHazardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow import Workflow


@dataclass
class Order:
    id: str
    lines: int = 1


def hazard_of(flow: Workflow[..., Any]) -> str:
    """The complaint about a workflow that is fine without strictness."""
    create_test_handler(flow, MockDurableContext(strict=False))({})
    with pytest.raises(ReplayHazardError) as caught:
        create_test_handler(flow)({})
    return str(caught.value)


# -- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (Order("a"), r"$: Order came back as dict"),
        ({1: "a"}, r"$: 1 came back as another value or type"),
        ({"at": [(1, 2)]}, r"$.at[0]: tuple came back as list"),
        ({3}, r"$: set came back as list"),
        ({"a": [{"b": {3}}]}, r"$.a[0].b: set came back as list"),
        ([{"by": {"a": Order("a")}}], r"$[0].by.a: Order came back as dict"),
        ({"a": [{"b": {1: 2}}]}, r"$.a[0].b: 1 came back as another value or type"),
        ([(1, [b"x"])], r"$[0]: tuple came back as list"),
        ([{"at": b"x"}], r"$[0].at: bytes came back as str"),
    ],
    ids=[
        *("dataclass", "int key", "tuple", "set"),
        *("nested set", "nested dataclass", "nested int key", "nested tuple", "nested bytes"),
    ],
)
def test_a_result_without_annotation_that_comes_back_otherwise(value: Any, complaint: str) -> None:
    @step
    def make():  # type: ignore[no-untyped-def] # noqa: ANN202
        return value

    @workflow
    async def main() -> None:
        await make.submit()

    text = hazard_of(main)
    assert text.startswith("the result of step 'make' does not come back as it was: " + complaint)
    assert "annotate the return type" in text


def test_annotated_results_are_fine() -> None:
    @step
    async def order() -> Order:
        return Order("a")

    @step
    async def counts() -> dict[int, tuple[int, ...]]:
        return {1: (1, 2)}

    @workflow
    async def main() -> str:
        return f"{await order()} {await counts()}"

    assert create_test_handler(main)({}) == "Order(id='a', lines=1) {1: (1, 2)}"


def test_the_result_of_a_fake_is_looked_at_too() -> None:
    @step
    async def make() -> Any:
        return None

    @workflow
    async def main() -> None:
        await make()

    mock = MockDurableContext()
    mock.mock_step("make", result=(1, 2))
    with pytest.raises(ReplayHazardError, match="'make'.*tuple came back as list"):
        create_test_handler(main, mock)({})


# -- arguments -----------------------------------------------------------------------------------


def _sync_append(items: list[int]) -> None:
    items.append(3)


async def _async_append(items: list[int]) -> None:
    items.append(3)


@pytest.mark.parametrize("body", [_sync_append, _async_append])
def test_a_body_that_changes_its_arguments(body: Callable[..., Any]) -> None:
    append = step(name="append")(body)

    @workflow
    async def main() -> None:
        await append.submit([1, 2])

    assert hazard_of(main) == (
        "step 'append' changed its arguments.\n"
        "  before: [[[1,2]],{}]\n  after:  [[[1,2,3]],{}]\n"
        "On a replay the body does not run, so the workflow would see the old value. Copy the "
        "argument, and return what changed."
    )


@dataclass
class Cart:
    orders: list[Order]
    tags: set[str]
    by_id: dict[str, dict[str, int]]


def _add_a_line(cart: Cart) -> None:
    cart.orders[0].lines += 1


def _add_a_tag(cart: Cart) -> None:
    cart.tags.add("c")


def _set_deep(cart: Cart) -> None:
    cart.by_id["a"]["b"] = 2


def _swap_a_list(cart: Cart) -> None:
    cart.orders.reverse()


@pytest.mark.parametrize("change", [_add_a_line, _add_a_tag, _set_deep, _swap_a_list])
@pytest.mark.parametrize("way", ["position", "name", "deep", "beside what is no value"])
def test_a_body_that_changes_something_deep_in_an_argument(
    change: Callable[[Cart], None], way: str
) -> None:
    @step
    async def touch(*args: Any, **kwargs: Any) -> None:
        match way:
            case "position":
                change(args[0])
            case "name":
                change(kwargs["cart"])
            case "deep":
                change(args[0]["carts"][0])
            case _:
                change(kwargs["cart"])

    @workflow
    async def main() -> None:
        cart = Cart([Order("a"), Order("b")], {"a", "b"}, {"a": {"b": 1}})
        match way:
            case "position":
                await touch(cart)
            case "name":
                await touch(1, cart=cart)
            case "deep":
                await touch({"carts": (cart,)})
            case _:
                await touch(object(), cart=cart)

    text = hazard_of(main)
    assert text.startswith("step 'touch' changed its arguments.\n")
    assert ("<no JSON value>" in text) == (way == "beside what is no value")


def test_a_copy_may_be_changed() -> None:
    @step
    async def touch(cart: Cart) -> Cart:
        changed = copy.deepcopy(cart)
        _add_a_line(changed)
        return changed

    @workflow
    async def main() -> int:
        cart = Cart([Order("a")], set(), {})
        return (await touch(cart)).orders[0].lines + cart.orders[0].lines

    assert create_test_handler(main)({}) == 3


def test_a_body_that_changes_its_arguments_and_fails() -> None:
    @step(retry=False)
    def pop(items: list[int]) -> None:
        items.pop()
        raise ValueError

    @workflow
    async def main() -> None:
        try:
            await pop.submit([1])
        except ValueError:
            return

    assert hazard_of(main).startswith("step 'pop' changed its arguments.")


def test_a_body_that_takes_time_is_watched_too() -> None:
    @step
    def append(items: list[int]) -> None:
        items.append(3)

    @workflow
    async def main() -> None:
        await append.submit([1, 2])

    mock = MockDurableContext()
    mock.mock_step("append", takes="1h")
    with pytest.raises(ReplayHazardError, match="changed its arguments"):
        create_test_handler(main, mock)({})


def test_arguments_that_are_no_values_are_not_compared() -> None:
    class Client:
        def __init__(self) -> None:
            self.calls = 0

        def __repr__(self) -> str:
            raise AssertionError("nobody looks")

    @step
    async def call(client: Any) -> int:
        client.calls += 1
        return 1

    @workflow
    async def main() -> int:
        return await call(Client())

    assert create_test_handler(main)({}) == 1


def test_the_order_of_a_set_argument_does_not_count() -> None:
    @step
    async def count(names: set[str]) -> int:
        return len(names)

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        names = {str(number) for number in range(50)}
        ctx.sleep(1)
        return await count(names)

    assert create_test_handler(main)({}) == 50


# -- code ----------------------------------------------------------------------------------------


@step
async def note(value: Any) -> None:
    """Do nothing."""


def test_state_that_a_child_changes_in_its_closure() -> None:
    @workflow
    async def main() -> None:
        seen: list[int] = []

        @workflow
        async def child() -> None:
            seen.append(1)

        await child()
        await note(len(seen))

    text = hazard_of(main)
    assert "step 'note' " in text
    assert "was called with other arguments on a replay." in text
    assert "first:    [[1],{}]\n  replayed: [[0],{}]" in text


@pytest.mark.parametrize("kind", ["deep", "nested child", "failing child", "in gather", "a set"])
def test_state_that_a_child_changes_wherever_it_lies(kind: str) -> None:
    state: dict[str, Any] = {}

    @workflow
    async def inner() -> None:
        state["items"][0]["seen"].append(1)
        state["names"].add("b")
        if kind == "failing child":
            raise ValueError

    @workflow
    async def outer() -> None:
        await inner()

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        state.update(items=[{"seen": []}], names={"a"})
        ctx.sleep(1)
        match kind:
            case "nested child":
                await outer()
            case "in gather":
                await asyncio.gather(inner(), note("other"))
            case "failing child":
                with contextlib.suppress(ValueError):
                    await inner()
            case _:
                await inner()
        await note(state["names"] if kind == "a set" else state["items"])

    text = hazard_of(main)
    assert "step 'note' was called with other arguments on a replay." in text
    assert ('["b"]' in text or '"b"' in text) == (kind == "a set")


def test_state_that_a_child_changes_and_that_decides_what_is_done() -> None:
    @workflow
    async def main() -> None:
        seen: set[str] = set()

        @workflow
        async def child() -> None:
            seen.add("b")

        await child()
        for name in sorted(seen):
            await note(name)

    create_test_handler(main, MockDurableContext(strict=False))({})
    with pytest.raises(ReplayHazardError, match="did something else"):
        create_test_handler(main)({})


def test_what_a_child_returns_is_no_hazard() -> None:
    @workflow
    async def child() -> list[int]:
        return [1]

    @workflow
    async def main() -> None:
        seen = await child()
        seen.append(2)
        await note(seen)

    create_test_handler(main)({})


def test_time_and_chance_in_arguments() -> None:
    @workflow
    async def timed() -> None:
        await note(time.perf_counter_ns())  # noqa: TID251

    @workflow
    async def thrown() -> None:
        await note(random.random())

    for flow in (timed, thrown):
        assert "other arguments on a replay" in hazard_of(flow)


class Unsteady:
    """A set whose order is another one each time, as that of objects is by their addresses."""

    def __init__(self) -> None:
        self.runs = 0

    def order(self) -> list[str]:
        self.runs += 1
        return ["a", "b"] if self.runs % 2 else ["b", "a"]


def test_the_order_of_a_set() -> None:
    unsteady = Unsteady()

    @workflow
    async def main() -> None:
        for name in unsteady.order():
            await note(name)

    with pytest.raises(ReplayHazardError, match="the order of a set") as caught:
        create_test_handler(main)({})
    assert 'first:    [["a"],{}]' in str(caught.value)


def test_the_order_of_a_set_in_an_argument_that_is_a_list() -> None:
    unsteady = Unsteady()

    @workflow
    async def main() -> None:
        await note({"names": [unsteady.order()]})

    with pytest.raises(ReplayHazardError, match="the order of a set"):
        create_test_handler(main)({})


def test_what_was_seen_first_is_told() -> None:
    unsteady = Unsteady()

    @step
    async def pair() -> Any:
        return (1, 2)

    @workflow
    async def main() -> None:
        await pair()
        for name in unsteady.order():
            await note(name)

    with pytest.raises(ReplayHazardError, match="'pair' does not come back"):
        create_test_handler(main)({})


def test_a_hazard_of_a_failed_workflow_has_its_error_as_the_cause() -> None:
    @step
    async def pair() -> Any:
        return (1, 2)

    @workflow
    async def main() -> None:
        raise ValueError(await pair())

    with pytest.raises(ReplayHazardError, match="'pair' does not come back") as caught:
        create_test_handler(main)({})
    assert isinstance(caught.value.__cause__, ValueError)


# -- what is asked of operations -----------------------------------------------------------------


class Chance:
    """Another number at each call: what time and chance are to workflow code."""

    number = 60

    @classmethod
    def next(cls) -> int:
        cls.number += 1
        return cls.number


@workflow
async def sleeps(ctx: WorkflowContext) -> None:
    ctx.sleep(Chance.next())


@workflow
async def sleeps_a_fraction_more(ctx: WorkflowContext) -> None:
    ctx.sleep(5 + Chance.next() / 1000)


@workflow
def sleeps_blocking(ctx: SyncWorkflowContext) -> None:
    ctx.sleep(Chance.next())


@workflow
async def sleeps_until(ctx: WorkflowContext) -> None:
    ctx.sleep_until(ctx.now() + timedelta(days=1, microseconds=Chance.next()))


@workflow
async def sleeps_lazily() -> None:
    await asyncio.gather(sleep("5s"), sleep(Chance.next()))


@workflow
async def sleeps_as_asyncio_does() -> None:
    await asyncio.sleep(Chance.next())


@workflow
async def has_a_timer() -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(Chance.next(), done.set_result, None)
    await done


@workflow
async def has_a_limit_that_is_kept() -> None:
    async with asyncio.timeout(Chance.next()):
        await sleep(5)


@workflow
async def has_a_limit_that_is_not_kept() -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(sleep(600), Chance.next())


@step
async def work(number: int = 0) -> int:
    return number


@workflow
async def has_a_step_with_a_timeout(ctx: WorkflowContext) -> None:
    await work.options(timeout=Chance.next())()
    ctx.sleep(5)


@workflow
async def has_a_step_with_a_retry(ctx: WorkflowContext) -> None:
    await work.options(retry=Retry(delay=Chance.next()))()


@workflow
async def has_a_step_with_attempts() -> None:
    await work.options(retry=Chance.next())()


@workflow
async def maps(ctx: WorkflowContext) -> None:
    await ctx.map(work, [1, Chance.next()])


@workflow
async def maps_at_most_so_many(ctx: WorkflowContext) -> None:
    await ctx.map(work, [1, 2], max_concurrency=Chance.next())


@workflow
async def works(number: int) -> None:
    await work(1)


@workflow
async def calls() -> None:
    await works(Chance.next())


@workflow
async def has_a_callback(ctx: WorkflowContext) -> None:
    callback = ctx.callback("answer", timeout=Chance.next())
    with contextlib.suppress(CallbackTimeoutError):
        await callback.result()


@workflow
async def has_a_callback_with_a_heartbeat(ctx: WorkflowContext) -> None:
    with contextlib.suppress(CallbackTimeoutError):
        await ctx.wait_for_callback(
            lambda _: None, "answer", timeout="1h", heartbeat_timeout=Chance.next()
        )


@workflow
async def polls(ctx: WorkflowContext) -> None:
    await ctx.wait_for_condition(
        lambda n: n + 1, 0, until=lambda n: n == 3, name="look", every=Chance.next()
    )


@workflow
async def polls_within(ctx: WorkflowContext) -> None:
    await ctx.wait_for_condition(
        lambda n: n + 1, 0, until=lambda n: n == 3, name="look", every=5, timeout=Chance.next()
    )


@workflow
async def polls_so_often(ctx: WorkflowContext) -> None:
    await ctx.wait_for_condition(
        lambda n: n + 1, 0, until=lambda n: n == 3, name="look", every=5, max_attempts=Chance.next()
    )


@pytest.mark.parametrize(
    ("flow", "option"),
    [
        (sleeps, "seconds"),
        (sleeps_a_fraction_more, "seconds"),
        (sleeps_blocking, "seconds"),
        (sleeps_until, "seconds"),
        (sleeps_lazily, "seconds"),
        (sleeps_as_asyncio_does, "seconds"),
        (has_a_timer, "seconds"),
        (has_a_limit_that_is_kept, "seconds"),
        (has_a_limit_that_is_not_kept, "seconds"),
        (has_a_step_with_a_timeout, "timeout"),
        (has_a_step_with_a_retry, "delay"),
        (has_a_step_with_attempts, "max_attempts"),
        (maps, "items"),
        (maps_at_most_so_many, "max_concurrency"),
        (calls, "arguments"),
        (has_a_callback, "timeout"),
        (has_a_callback_with_a_heartbeat, "heartbeat_timeout"),
        (polls, "delay"),
        (polls_within, "limit"),
        (polls_so_often, "max_attempts"),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_what_depends_on_chance_is_seen(flow: Workflow[..., Any], option: str) -> None:
    text = hazard_of(flow)
    assert f"was asked for with another value of '{option}' on a replay.\n" in text
    assert "use ctx.now()" in text


def test_what_is_left_of_a_time_is_no_hazard() -> None:
    @step(timeout="1h")
    async def long() -> None: ...

    @workflow
    async def main(ctx: WorkflowContext) -> float:
        loop = asyncio.get_running_loop()
        end = ctx.now() + timedelta(minutes=1, milliseconds=7)
        by = loop.time() + 90.5
        await long()
        ctx.sleep((end - ctx.now()) / 3)
        await asyncio.gather(long(), sleep((end - ctx.now()).total_seconds() / 7))
        ctx.sleep_until(end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(by):
                await long.options(timeout=end - ctx.now() + timedelta(hours=1))()
                await ctx.callback("never", timeout=by - loop.time() + 1000).result()
        await asyncio.sleep(ctx.random.random() * 10)
        return loop.time()

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("long", takes=7.123)
    mock_ctx.crash_after(3)
    assert create_test_handler(main, mock_ctx)({}) > 90
