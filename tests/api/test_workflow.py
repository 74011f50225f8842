from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    SerializationError,
    SyncWorkflowContext,
    UsageError,
    Workflow,
    WorkflowContext,
    current_context,
    sleep,
    step,
    workflow,
)
from pyworkflow._engine.messages import Broken
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import ChildContextError
from tests.api.world import World, crashes, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

bodies: list[str] = []


@pytest.fixture(autouse=True)
def _no_bodies() -> None:
    bodies.clear()


@step
async def work(name: str = "work") -> str:
    bodies.append(name)
    return name


class DeclinedError(Exception):
    """An error of the application's own."""


@dataclass
class Receipt:
    amount: int


@workflow
async def child(ctx: WorkflowContext, name: str, *, pause: int = 60) -> str:
    """Work, sleep, work."""
    first = await work(f"{name} 1")
    await ctx.sleep(pause)
    return first + " " + await work(f"{name} 2")


@workflow
def sync_child(ctx: SyncWorkflowContext, name: str) -> str:
    first = work.submit(f"{name} 1").result()
    ctx.sleep(60)
    return first


# -- the object is the function --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.asyncio.iscoroutinefunction:DeprecationWarning")  # 3.14
def test_a_workflow_looks_like_its_function() -> None:
    assert inspect.iscoroutinefunction(child)
    assert asyncio.iscoroutinefunction(child)
    assert not inspect.iscoroutinefunction(sync_child)
    assert list(inspect.signature(child).parameters) == ["ctx", "name", "pause"]
    assert (child.__name__, child.__doc__) == ("child", "Work, sleep, work.")  # type: ignore[attr-defined]
    assert (child.name, repr(child)) == ("child", "<workflow 'child'>")
    other = child.options(name="other", key="k")
    assert (other.name, inspect.iscoroutinefunction(other)) == ("other", True)


def test_outside_of_an_execution_a_workflow_is_the_plain_function() -> None:
    @workflow
    async def plain(ctx: Any, n: int) -> int:
        return n + 1

    @workflow(name="other")
    def plain_sync(n: int) -> int:
        return n + 2

    assert asyncio.run(plain(None, 1)) == 2
    assert plain_sync(1) == 3
    assert plain_sync.name == "other"


def _numbers() -> Iterator[int]:
    yield 1


async def _stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("thing", "fault"),
    [
        (functools.partial(print, 1), "@workflow takes a function"),
        (print, "@workflow takes a function"),
        (work, "@workflow takes a function"),
        (child, "@workflow takes a function"),
        (_numbers, "generator"),
        (_stream, "generator"),
        (lambda: 1, r'a lambda has no name.*workflow\(name="..."\)'),
    ],
)
def test_what_can_not_be_a_workflow(thing: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        workflow(thing)


def test_bad_names_and_keys() -> None:
    with pytest.raises(UsageError, match="the name of workflow"):
        workflow(name="")(lambda: 1)
    with pytest.raises(UsageError, match="the name of workflow 'child'"):
        child.options(name="")
    with pytest.raises(UsageError, match="the key of workflow 'child'"):
        child.options(key="")


def test_a_decorated_async_function_is_async() -> None:
    def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    @workflow
    @passing_on
    async def decorated(ctx: WorkflowContext, n: int) -> int:
        assert isinstance(ctx, WorkflowContext)
        return n

    @workflow
    async def parent(ctx: WorkflowContext) -> int:
        return int(await decorated(ctx, 5))

    assert inspect.iscoroutinefunction(decorated)
    assert (run(decorated, 5), run(parent)) == (5, 5)


# -- a run -----------------------------------------------------------------------------------------


def test_a_workflow_needs_no_ctx() -> None:
    @workflow
    async def bare(n: int) -> int:
        await work()
        return n

    assert run(bare, {"n": 1}) == 1


def test_the_result_is_converted_to_its_annotation() -> None:
    @workflow
    async def paying(ctx: WorkflowContext) -> Receipt:
        return Receipt(5)

    assert run(paying) == Receipt(5)


def test_a_return_annotation_that_is_unknown_fails_before_the_code_runs() -> None:
    @workflow
    async def haunted(ctx: WorkflowContext) -> Ghost:  # type: ignore[name-defined] # noqa: F821
        bodies.append("workflow")

    world = World()
    with pytest.raises(UsageError, match="'Ghost' in the return annotation"):
        world.finish(haunted)
    assert world.service.get(world.id).status.value == "FAILED"
    assert bodies == []


# -- child contexts --------------------------------------------------------------------------------


def test_async_in_async() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> str:
        return await child(ctx, "a") + await child(ctx=ctx, name="b", pause=5)

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == "a 1 a 2b 1 b 2"
    kinds = [(op.type.value, op.name) for op in mock_ctx.operations]
    once = [("CONTEXT", "child"), ("STEP", "work"), ("WAIT", None), ("STEP", "work")]
    assert kinds == once * 2
    contexts = [op for op in mock_ctx.operations if op.type is OperationType.CONTEXT]
    assert [op.parent_id for op in contexts] == [None, None]
    assert {op.parent_id for op in mock_ctx.operations} == {None, *(op.id for op in contexts)}
    results = crashes(parent)
    assert results == ["a 1 a 2b 1 b 2"] * len(results)


def test_sync_in_sync() -> None:
    @workflow
    def parent(ctx: SyncWorkflowContext) -> str:
        return sync_child(ctx, "a") + sync_child(ctx, "b")

    results = crashes(parent)
    assert results == ["a 1b 1"] * len(results)


def test_sync_in_async_blocks_its_task_alone() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []

        async def blocking() -> None:
            order.append(sync_child(current_sync(), "sync"))

        async def awaiting() -> None:
            order.append(await child(ctx, "async", pause=30))

        await asyncio.gather(blocking(), awaiting())
        return order

    def current_sync() -> Any:
        return current_context()

    results = crashes(parent)
    assert results == [["async 1 async 2", "sync 1"]] * len(results)


def test_children_in_parallel() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        return await asyncio.gather(*(child(ctx, name, pause=9) for name in "abc"))

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == ["a 1 a 2", "b 1 b 2", "c 1 c 2"]
    assert mock_ctx.invocations == 2
    results = crashes(parent)
    assert all(each == results[0] for each in results)


def test_nested_children() -> None:
    @workflow
    async def middle(ctx: WorkflowContext) -> str:
        inner = await child(ctx, "inner")
        return f"{inner} / {await work('middle')}"

    @workflow
    async def parent(ctx: WorkflowContext) -> str:
        return f"{await middle(ctx)} / {await work('outer')}"

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == "inner 1 inner 2 / middle / outer"
    by_name = {op.name: op for op in mock_ctx.operations if op.type is OperationType.CONTEXT}
    assert by_name["child"].parent_id == by_name["middle"].id
    assert by_name["middle"].parent_id is None
    results = crashes(parent)
    assert all(each == results[0] for each in results)


def test_a_completed_child_never_runs_again() -> None:
    runs: list[str] = []

    @workflow
    async def counted(ctx: WorkflowContext) -> str:
        runs.append("child")
        return await work("once")

    @workflow
    async def parent(ctx: WorkflowContext) -> str:
        found = await counted(ctx)
        ctx.sleep(60)
        return found + await work("after")

    world = World()
    assert world.finish(parent) == "onceafter"
    assert runs == ["child"]
    assert bodies == ["once", "after"]


def test_a_crash_in_a_child_replays_what_it_recorded() -> None:
    world = World(crash_after=range(1, 20))

    @workflow
    async def parent(ctx: WorkflowContext) -> str:
        return await child(ctx, "a")

    world.finish(parent)
    assert bodies == ["a 1", "a 2"]
    assert world.service.get(world.id).result == '"a 1 a 2"'


@pytest.mark.parametrize("one", [child, sync_child])
def test_a_child_in_the_place_of_a_recorded_step_does_not_run(one: Any) -> None:
    @workflow
    async def before(ctx: WorkflowContext) -> None:
        await work("recorded")
        ctx.sleep(60)

    @workflow
    async def after(ctx: WorkflowContext) -> None:
        result = one(ctx, "new")
        await result

    world = World()
    world.suspend(before)
    end = world.invoke(after)
    assert isinstance(end, Broken)
    assert "STEP (Step) 'work'" in str(end.error)
    assert f"CONTEXT (RunInChildContext) '{one.name}'" in str(end.error)
    assert bodies == ["recorded"]


def test_the_childs_result_is_converted() -> None:
    @workflow
    async def paying(ctx: WorkflowContext, amount: int) -> Receipt:
        return Receipt(amount)

    @workflow
    def paying_sync(amount: int) -> Receipt:
        return Receipt(amount)

    @workflow
    async def parent(ctx: WorkflowContext) -> list[int]:
        receipts = [await paying(ctx, 1), paying_sync(2)]
        ctx.sleep(5)
        assert all(isinstance(each, Receipt) for each in receipts)
        return [each.amount for each in receipts]

    results = crashes(parent)
    assert results == [[1, 2]] * len(results)


def test_a_childs_result_that_can_not_be_stored_is_its_failure() -> None:
    @workflow
    async def opaque(ctx: WorkflowContext) -> Any:
        return object()

    @workflow
    def opaque_sync(ctx: WorkflowContext) -> Any:
        return object()

    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        found = []
        for call in (opaque.options(name="lost"), opaque_sync):
            try:
                await call(ctx)
            except SerializationError as error:
                found.append(str(error).partition(" can't")[0])
        return found

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == ["The result of 'lost'", "The result of 'opaque_sync'"]
    assert {op.status for op in mock_ctx.operations} == {Status.FAILED}


def test_a_failing_child_raises_its_own_exception() -> None:
    @workflow
    async def failing(ctx: WorkflowContext, by: str) -> None:
        await work()
        raise DeclinedError(f"declined by {by}")

    @workflow
    def failing_sync(ctx: Any, by: str) -> None:
        work.submit().result()
        raise DeclinedError(f"declined by {by}")

    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        found = []
        try:
            await failing(ctx, "bank")
        except DeclinedError as error:
            found.append(str(error))
        ctx.sleep(60)
        try:
            failing_sync(ctx, "shop")
        except DeclinedError as error:
            found.append(str(error))
        ctx.sleep(60)
        return found

    results = crashes(parent)
    assert results == [["declined by bank", "declined by shop"]] * len(results)


def test_a_failing_child_of_an_unknown_class() -> None:
    class LocalError(Exception):
        pass

    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        raise LocalError("nobody finds me")

    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        try:
            await failing(ctx)
        except ChildContextError as error:
            return [error.error_type.rpartition(".")[2], error.message]
        return []

    assert run(parent) == ["LocalError", "nobody finds me"]


def test_an_uncaught_failure_of_a_child_fails_the_workflow() -> None:
    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        raise DeclinedError("no")

    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        await failing(ctx)

    with pytest.raises(DeclinedError, match="no"):
        run(parent)


def test_a_child_that_takes_ctx_must_get_it() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> str:
        return await child("a")  # type: ignore[arg-type,call-arg]

    @workflow
    def sync_parent(ctx: SyncWorkflowContext) -> str:
        return sync_child(name="a")  # type: ignore[call-arg]

    with pytest.raises(UsageError, match=r"'child' takes ctx as its first.*child\(ctx, \.\.\.\)"):
        run(parent)
    with pytest.raises(UsageError, match="'sync_child' takes ctx as its first parameter"):
        run(sync_parent)


def test_a_child_that_nobody_awaits_is_an_error() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        child(ctx, "a")  # type: ignore[unused-coroutine]

    with pytest.raises(UsageError, match="child: called but never awaited"):
        run(parent)


# -- keys ------------------------------------------------------------------------------------------


def test_a_keyed_child_survives_reordering() -> None:
    def version(*names: str) -> Any:
        @workflow
        async def parent(ctx: WorkflowContext) -> str:
            found = [await child.options(key=name)(ctx, name, pause=0) for name in names]
            await sleep(60, key="pause")
            return " ".join(sorted(found))

        return parent

    world = World()
    world.suspend(version("a", "b"))
    assert world.finish(version("b", "a")) == "a 1 a 2 b 1 b 2"
    assert bodies == ["a 1", "a 2", "b 1", "b 2"]


def test_keys_count_within_their_child_context() -> None:
    @workflow
    async def keyed(ctx: WorkflowContext) -> str:
        return await work.options(key="k")("x")

    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        return [await keyed(ctx), await keyed(ctx), await work.options(key="k")("y")]

    assert run(parent) == ["x", "x", "y"]

    @workflow
    async def twice(ctx: WorkflowContext) -> None:
        await keyed.options(key="k")(ctx)
        await keyed.options(key="k")(ctx)

    with pytest.raises(UsageError, match="the key 'k' is used twice in this workflow"):
        run(twice)


def test_options_keep_a_key() -> None:
    other = child.options(key="k").options(name="other")
    assert (other._key, other.name) == ("k", "other")
    assert child.options(key="k").options(key="l")._key == "l"


# -- tasks that a child leaves behind --------------------------------------------------------------


async def _background() -> None:
    try:
        while True:
            await work("background")
            await sleep(10)
    finally:
        if not current_context().is_closing:
            bodies.append("cleaned")


@pytest.mark.parametrize("fails", [True, False])
def test_tasks_left_behind_are_cancelled_when_the_child_ends(fails: bool) -> None:
    def ending() -> str:
        if fails:
            raise DeclinedError("over")
        return "over"

    @workflow
    async def leaving(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(_background())
        await sleep(15)
        assert not task.done()
        return ending()

    @workflow
    def leaving_sync(ctx: Any) -> str:
        asyncio.get_running_loop().create_task(_background())
        ctx.sleep(15)
        return ending()

    def parent(one: Any) -> Any:
        @workflow
        async def caller(ctx: WorkflowContext) -> str:
            try:
                found = one(ctx)
                found = await found if inspect.isawaitable(found) else found
            except DeclinedError as error:
                found = str(error)
            await sleep(100)
            return str(found)

        return caller

    for one in (leaving, leaving_sync):
        bodies.clear()
        world = World()
        assert world.finish(parent(one)) == "over"
        assert bodies == ["background", "background", "cleaned"]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_tasks_left_behind_are_cancelled_when_the_child_is(kind: str) -> None:
    @workflow
    async def leaving(ctx: WorkflowContext) -> None:
        asyncio.create_task(_background())  # noqa: RUF006
        await sleep("1h")

    @workflow
    def leaving_sync(ctx: Any) -> None:
        asyncio.get_running_loop().create_task(_background())
        ctx.sleep("1h")

    @workflow
    async def caller(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(15):
                if kind == "async":
                    await leaving(ctx)
                else:
                    leaving_sync(ctx)
        except TimeoutError:
            await sleep(100)
            return await work("timed out")
        return "never"

    world = World()
    assert world.finish(caller) == "timed out"
    # Nothing is recorded about the end of a cancelled child: each replay cleans up again.
    assert bodies[:3] == ["background", "background", "cleaned"]
    assert set(bodies[3:-1]) == {"cleaned"}
    assert bodies[-1] == "timed out"
    (context,) = [op for op in world.operations() if op.type is OperationType.CONTEXT]
    assert context.status is Status.STARTED


def test_a_child_that_is_cancelled_while_its_end_is_recorded() -> None:
    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        return await work("quick")

    @workflow
    async def caller(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(quick(ctx))
        await work("first")
        await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled"

    results = crashes(caller)
    assert len(set(results)) == 1


# -- methods and handlers --------------------------------------------------------------------------


class Shop:
    """Workflows as methods."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @workflow
    async def order(self, ctx: WorkflowContext, item: str) -> str:
        """Order one."""
        return await work(f"{self.prefix} {item}")

    @staticmethod
    @workflow
    def tax(amount: int) -> int:
        return amount // 5

    @classmethod
    @workflow
    async def kind(cls, ctx: WorkflowContext) -> str:
        return cls.__name__


def test_methods_are_workflows() -> None:
    shop = Shop("tea")
    assert isinstance(Shop.order, Workflow)
    assert list(inspect.signature(shop.order).parameters) == ["ctx", "item"]
    assert run(shop.order, {"item": "green"}) == "tea green"

    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        return [
            await shop.order(ctx, "black"),
            await shop.order.options(name="other")(ctx, "white"),
            Shop.tax(10),
        ]

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == ["tea black", "tea white", 2]
    contexts = [op.name for op in mock_ctx.operations if op.type is OperationType.CONTEXT]
    assert contexts == ["order", "other", "tax"]
    kind: Any = Shop.kind
    assert asyncio.run(kind(None)) == "Shop"


def test_a_lambda_handler_called_inside_an_execution_is_a_child_context() -> None:
    handler = aws_workflow_handler(child)

    @aws_workflow_handler
    @workflow
    async def parent(ctx: WorkflowContext) -> Any:
        return await handler(ctx, "a")

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == "a 1 a 2"
    assert [op.name for op in mock_ctx.operations if op.type is OperationType.CONTEXT] == ["child"]
    with pytest.raises(UsageError, match="put @workflow between them"):
        aws_workflow_handler(work)


def test_inside_a_step_a_workflow_is_the_plain_function() -> None:
    @workflow
    def plain(n: int) -> int:
        return n + 1

    @step
    def calling(n: int) -> int:
        return plain(n)

    @workflow
    def parent(ctx: SyncWorkflowContext) -> int:
        return calling(1)

    mock_ctx = MockDurableContext()
    assert run(parent, None, mock_ctx) == 2
    assert [op.name for op in mock_ctx.operations] == ["calling"]
