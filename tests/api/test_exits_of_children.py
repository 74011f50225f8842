"""A child context that raises what is no `Exception` by itself has failed, and is recorded so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import WorkflowContext, sleep, workflow
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow.errors import BatchError, ChildContextError
from tests.api.world import World, crashes


class Odd(BaseException):
    """An exit of a library's own."""


ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


EXITS = [Odd("odd"), SystemExit(2), KeyboardInterrupt("stop"), asyncio.CancelledError("mine")]


def children(error: BaseException) -> dict[str, Callable[[WorkflowContext], Any]]:
    """Return ways to run code that raises ``error`` as a child, by its kind."""

    @workflow
    async def child() -> None:
        ran.append("child")
        await sleep("1s")
        raise error

    @workflow
    def blocking_child(ctx: Any) -> None:
        ran.append("child")
        ctx.sleep("1s")
        raise error

    async def code() -> None:
        ran.append("child")
        raise error

    async def within_a_task(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    return {
        "workflow": lambda _: child(),
        "blocking workflow": lambda ctx: _awaitable(blocking_child, ctx),
        "child": lambda ctx: ctx.child(code),
        "coroutine": lambda ctx: ctx.child(code()),
        "in a task": within_a_task,
        "in a gather": lambda _: asyncio.gather(child()),
        "branch": lambda ctx: ctx.parallel([code]),
        "item": lambda ctx: ctx.map(lambda _: code(), [1]),
    }


async def _awaitable(call: Callable[..., Any], *args: Any) -> Any:
    return call(*args)


def seen(error: BaseException) -> str:
    """Return what workflow code sees of a child's failure."""
    while isinstance(error, (BaseExceptionGroup, BatchError)):
        inner = error.__cause__ if isinstance(error, BatchError) else error.exceptions[0]
        assert inner is not None
        error = inner
    assert isinstance(error, ChildContextError), repr(error)
    return f"{error.error_type}"


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", children(Odd()))
def test_it_is_the_childs_failure_live_and_replayed(kind: str, error: BaseException) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            await children(error)[kind](ctx)
        except Exception as caught:
            found = seen(caught)
            await sleep("1m")  # what follows is reached by a replay
            return found
        raise AssertionError("the child ended")

    world = World()
    assert world.finish(main).rpartition(".")[2] == type(error).__name__
    ends = [op.status for op in world.operations() if op.type is OperationType.CONTEXT]
    assert ends[-1] is Status.FAILED
    assert Status.STARTED not in ends
    runs = ran.count("child")
    ran.clear()
    assert len(set(crashes(main, {}))) == 1
    assert runs <= 2  # once, and again over its own sleep: never once its end is recorded


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("is_async", [True, False])
def test_nobody_handles_it_so_the_execution_fails(is_async: bool, error: BaseException) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await children(error)["workflow"](ctx)

    @workflow
    def blocking(ctx: Any) -> None:
        @workflow
        def child() -> None:
            raise error

        child()

    with pytest.raises(ChildContextError, match=type(error).__name__):
        World().finish(main if is_async else blocking)


def test_the_awaited_task_of_a_child_was_cancelled_by_the_child() -> None:
    @workflow
    async def child() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    @workflow
    async def main() -> str:
        with pytest.raises(ChildContextError) as caught:
            await child()
        await sleep("1m")
        return seen(caught.value)

    assert World().finish(main).endswith("CancelledError")
    assert len(set(crashes(main, {}))) == 1


@pytest.mark.parametrize("by", ["timeout", "task", "itself"])
def test_a_cancellation_from_around_is_no_failure_of_the_child(by: str) -> None:
    @workflow
    async def child() -> None:
        if by == "itself":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await sleep("1h")

    @workflow
    async def main() -> str:
        if by == "timeout":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await child()
        else:
            task = asyncio.create_task(child())
            await sleep("1s")
            if by == "task":
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
        await sleep("1m")
        return "cancelled"

    world = World()
    assert world.finish(main) == "cancelled"
    assert len(set(crashes(main, {}))) == 1
    [context] = [op for op in world.operations() if op.type is OperationType.CONTEXT]
    assert context.status is Status.STARTED
