from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from pyworkflow import (
    NonDeterminismError,
    SerializationError,
    StepFuture,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_context,
    sleep,
    step,
    workflow,
)
from pyworkflow._engine.ids import hash_path
from pyworkflow._protocol.records import SubType
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import ChildContextError
from tests.api.world import World, crashes, run


@dataclass
class Receipt:
    order: str
    text: str = ""


@step
async def charge(order: str) -> Receipt:
    return Receipt(order)


@step
def sync_charge(order: str) -> Receipt:
    return Receipt(order)


async def charge_twice(order: str) -> list[Receipt]:
    return [await charge(order), await charge(order)]


def sync_charge_twice(order: str) -> list[Receipt]:
    return [sync_charge(order), sync_charge(order)]


def will_charge(order: str) -> Coroutine[Any, Any, Receipt]:
    return charge(order)


def begins_to_charge(order: str) -> StepFuture[Receipt]:
    return charge.submit(order)


@workflow
async def inner(order: str) -> Receipt:
    return await charge(order)


TWO = [Receipt("a"), Receipt("a")]
CODES: list[tuple[Any, tuple[str, ...], str | None, Any]] = [
    (lambda: charge_twice, ("a",), "charge_twice", TWO),
    (lambda: charge_twice("a"), (), "charge_twice", TWO),
    (lambda: sync_charge_twice, ("a",), "sync_charge_twice", TWO),
    (lambda: charge, ("a",), "charge", TWO[0]),
    (lambda: charge("a"), (), "charge", TWO[0]),
    (lambda: sync_charge, ("a",), "sync_charge", TWO[0]),
    (lambda: will_charge, ("a",), "will_charge", TWO[0]),
    (lambda: begins_to_charge, ("a",), "begins_to_charge", TWO[0]),
    (lambda: inner("a"), (), "inner", TWO[0]),
    (lambda: partial(charge_twice, "a"), (), None, TWO),
    (lambda: lambda order: {"order": order}, ("a",), None, {"order": "a"}),
    (lambda: str, ("a",), "str", "a"),
]


@pytest.mark.parametrize(("code", "args", "name", "value"), CODES)
def test_code_of_any_kind(code: Any, args: tuple[str, ...], name: str | None, value: Any) -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> bool:
        child = await ctx.child(code(), *args)
        await sleep(1)
        return bool(child == value)

    @workflow
    def sync_outer(ctx: SyncWorkflowContext) -> bool:
        child = ctx.child(code(), *args)
        ctx.sleep(1)
        return bool(child == value)

    for each in (outer, sync_outer):
        mock_ctx = MockDurableContext()
        assert run(each, None, mock_ctx) is True
        assert mock_ctx.invocations == 2
        child = mock_ctx.operations[0]
        assert (child.id, child.name, child.subtype) == (
            hash_path("1"),
            name,
            SubType.RUN_IN_CHILD_CONTEXT,
        )
        assert all(o.parent_id in (child.id, None) or name == "inner" for o in mock_ctx.operations)


def test_a_namespace_of_its_own_and_a_key() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        await ctx.child(charge_twice, "a", name="both", key="k")
        await charge("b")

    mock_ctx = MockDurableContext()
    run(outer, None, mock_ctx)
    child, first, second, after = mock_ctx.operations
    assert (child.id, child.name) == (hash_path("key-k"), "both")
    assert [first.id, second.id] == [hash_path(f"{child.id}-{n}") for n in (1, 2)]
    assert after.id == hash_path("1")


def test_it_is_lazy_and_concurrent_in_async_code() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> tuple[str, str]:
        async def slow(name: str) -> str:
            await sleep(5)
            return name

        return await asyncio.gather(ctx.child(slow, "a"), ctx.child(slow, "b"))

    mock_ctx = MockDurableContext()
    assert list(run(outer, None, mock_ctx)) == ["a", "b"]
    assert mock_ctx.invocations == 2, "both slept at once"


def test_blocking_code_awaits_whatever_async_code_awaits() -> None:
    async def asynchronous() -> list[Any]:
        async with asyncio.timeout(50):
            pair = await asyncio.gather(charge("a"), charge("b"))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(1):
                await sleep(10)
        except TimeoutError:
            return [each.order for each in pair]
        return []

    @workflow
    def outer(ctx: SyncWorkflowContext) -> Any:
        return ctx.child(asynchronous)

    assert crashes(outer)[0] == ["a", "b"]


def test_blocking_code_is_cancelled_with_its_child() -> None:
    ends = []

    async def asynchronous() -> None:
        try:
            await sleep(100)
        except asyncio.CancelledError:
            ends.append("cancelled")
            await charge("cleanup")
            raise

    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        def blocking() -> None:
            SyncWorkflowContext(ctx._execution).child(asynchronous)

        task = asyncio.create_task(ctx.child(blocking))
        await sleep(1)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "over"
        return "not over"

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == "over"
    assert set(ends) == {"cancelled"}
    assert "charge" in mock_ctx.checkpoints


def test_its_error_is_raised_again() -> None:
    async def failing() -> None:
        raise KeyError("gone")

    @workflow
    async def outer(ctx: WorkflowContext) -> list[str]:
        found = []
        for code in (lambda: failing, failing):
            try:
                await ctx.child(code())  # a function, then a coroutine
            except KeyError as error:
                found.append(str(error))
        await sleep(1)
        return found

    assert crashes(outer)[0] == ["'gone'"] * 2


def test_a_result_that_is_no_value_fails_the_child() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        with pytest.raises(SerializationError, match="the result of 'named'|a RunInChildContext"):
            await ctx.child(lambda: {object()})
        with pytest.raises(SerializationError, match="(?i)the result of 'named'"):
            await ctx.child(object, name="named")
        return "told"

    assert run(outer) == "told"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ctx: ctx.child(5), "takes a function, or a coroutine .* it got 5"),
        (lambda ctx: ctx.child(charge("a"), "a"), "a coroutine and arguments"),
        (lambda ctx: ctx.child(charge_twice("a"), name="ü"), "printable ASCII"),
        (lambda ctx: ctx.child(charge_twice, "a", key=""), "non-empty str"),
        (lambda ctx: ctx.child(ctx.sleep(1)), "takes a function, or a coroutine"),
    ],
)
def test_bad_use_is_told_where_it_is_made(call: Any, message: str) -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        with pytest.raises(UsageError, match=message):
            call(ctx)
        return "told"

    @workflow
    def sync_outer(ctx: SyncWorkflowContext) -> str:
        with pytest.raises(UsageError, match=message):
            call(ctx)
        return "told"

    assert run(outer) == run(sync_outer) == "told"


@workflow
def sync_inner(order: str) -> Receipt:
    return sync_charge(order)


@pytest.mark.parametrize(
    "call",
    [
        lambda ctx: sync_inner("a"),
        lambda ctx: ctx.child(sync_charge_twice, "a"),
        lambda ctx: ctx.parallel([lambda: sync_charge("a")]),
        lambda ctx: ctx.map(sync_charge, ["a"]),
        lambda ctx: ctx.wait_for_callback(print, "ask"),
    ],
    ids=["workflow", "child", "parallel", "map", "wait_for_callback"],
)
def test_blocking_in_a_bare_callback_of_the_loop_does_nothing(call: Any) -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def bare() -> None:
            try:
                call(SyncWorkflowContext(ctx._execution))
            except UsageError as error:
                told.set_result(str(error))

        asyncio.get_running_loop().call_soon(bare)
        return await told

    mock_ctx = MockDurableContext()
    assert "blocking code was called from a bare callback" in run(outer, None, mock_ctx)
    assert mock_ctx.operations == ()


def test_a_coroutine_runs_once() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        coroutine = charge("a")
        await coroutine
        with pytest.raises(UsageError, match="was awaited already"):
            _ = ctx.child(coroutine)
        return "told"

    assert run(outer) == "told"


def test_one_that_nobody_awaits_is_told() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        _ = ctx.child(lambda: 5)

    with pytest.raises(UsageError, match="ctx.child.. of code without a name: called but never"):
        run(outer)


def test_outside_of_a_workflow_there_is_none() -> None:
    seen: list[WorkflowContext] = []

    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        seen.append(ctx)

    run(outer)
    with pytest.raises(UsageError, match="ctx.child.. was called outside"):
        _ = seen[0].child(charge, "a")


# -- large results ---------------------------------------------------------------------------------


@step
async def page(n: int) -> Receipt:
    return Receipt(str(n), "x" * 150_000)


async def two_pages() -> list[Receipt]:
    return [await page(1), await page(2)]


@workflow
async def large(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.child(two_pages)
    await sleep(1)
    nested = await ctx.child(lambda: ctx.child(two_pages))
    return [[each.order for each in first], len(nested), type(first[0]).__name__]


def test_a_large_result_comes_from_running_again() -> None:
    mock_ctx = MockDurableContext()
    assert run(large, None, mock_ctx) == [["1", "2"], 2, "Receipt"]
    child = mock_ctx.operations[0]
    assert child.replay_children
    assert not child.payload
    assert list(mock_ctx.checkpoints) == ["page", "page#2", "page#3", "page#4"]
    assert len({str(each) for each in crashes(large)}) == 1


def test_characters_count_as_bytes() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[int]:
        return [
            len(await ctx.child(lambda each=each: each)) for each in ("é" * 131_071, "é" * 131_072)
        ]

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == [131_071, 131_072]
    assert [each.replay_children for each in mock_ctx.operations] == [False, True]


def test_it_logs_once(caplog: pytest.LogCaptureFixture) -> None:
    async def talking() -> str:
        await page(1)
        current_context().logger.warning("half")
        await page(2)
        current_context().logger.warning("done")
        return "x" * 300_000

    @workflow
    async def outer(ctx: WorkflowContext) -> int:
        text = await ctx.child(talking)
        await sleep(1)
        return len(text)

    assert run(outer) == 300_000
    assert [each.message for each in caplog.records] == ["half", "done"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda: charge("new"), "came to something that is not recorded"),
        (lambda: int("x"), "raised ValueError"),
    ],
)
def test_code_that_changed_since_is_told(changed: Any, message: str) -> None:
    codes: list[Any] = [lambda: None]

    @workflow
    async def outer(ctx: WorkflowContext) -> int:
        async def code() -> str:
            await page(1)
            extra = codes[0]()
            if extra is not None:
                await extra
            return "x" * 300_000

        text = await ctx.child(code)
        await sleep(1)
        return len(text)

    world = World()
    world.suspend(outer)
    codes[0] = changed
    with pytest.raises(NonDeterminismError, match=message):
        world.finish(outer)
    codes[0] = lambda: None
    assert world.finish(outer) == 300_000, "nothing was written"


def test_a_large_child_that_is_cancelled_while_it_ends() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        async def code() -> str:
            try:
                await sleep(100)
            except asyncio.CancelledError:
                return "x" * 300_000
            return ""

        async with asyncio.TaskGroup() as group:
            task = group.create_task(ctx.child(code))
            await sleep(1)
            task.cancel()
        await sleep(1)
        return str(len(await task))

    assert set(crashes(outer)) == {"300000"}


def test_the_fallback_class_of_an_unknown_error() -> None:
    class LocalError(Exception):
        pass

    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        async def failing() -> None:
            raise LocalError("here")

        try:
            await ctx.child(failing)
        except ChildContextError as error:
            return error.error_type.rpartition(".")[2]
        return ""

    assert run(outer) == "LocalError"
