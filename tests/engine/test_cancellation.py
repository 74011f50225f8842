"""`Task.cancel` does in workflows what it does on asyncio's own loop; blocked tasks alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pyworkflow import SyncWorkflowContext, WorkflowContext, workflow
from pyworkflow.aws.testing import create_test_handler
from pyworkflow.errors import ExecutionFailedError


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def end_of(coroutine: Coroutine[Any, Any, Any], *, cancel: str = "") -> list[Any]:
    """Return how a task with this coroutine ends: its result, or the arguments of its error."""
    task = asyncio.create_task(coroutine)
    if cancel:
        await asyncio.sleep(0)
        task.cancel(cancel)
    try:
        result = await task
    except asyncio.CancelledError as error:
        return [task.cancelled(), task.cancelling(), *error.args]
    except Exception as error:
        return [repr(error), task.cancelling()]
    return [result, task.cancelling()]


async def returns() -> int:
    me().cancel("enough")
    return 12


async def returns_after_two() -> int:
    me().cancel("first")
    me().cancel("second")
    return 12


async def raises() -> int:
    me().cancel("enough")
    raise ValueError("own")


async def waits() -> None:
    me().cancel("enough")
    await asyncio.sleep(0)


async def waits_for_a_future() -> None:
    me().cancel("enough")
    await asyncio.get_running_loop().create_future()


async def waits_for_what_is_done() -> str:
    done = asyncio.create_task(asyncio.sleep(0, "done"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    me().cancel("enough")
    value = await done
    await asyncio.sleep(0)
    return value


async def catches() -> list[Any]:
    me().cancel("enough")
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        return [*error.args, me().cancelling(), me().uncancel(), me().cancelling()]
    return []


async def catches_two() -> list[Any]:
    me().cancel("first")
    me().cancel("second")
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        await asyncio.sleep(0)
        return [*error.args, me().cancelling()]
    return []


async def withdraws() -> int:
    """Since 3.13 the last `uncancel` withdraws what was not delivered."""
    me().cancel("enough")
    me().uncancel()
    await asyncio.sleep(0)
    return me().cancelling()


async def withdraws_and_returns() -> int:
    me().cancel("enough")
    me().uncancel()
    return 12


async def is_cancelled() -> None:
    await asyncio.get_running_loop().create_future()


async def is_cancelled_and_waits_for_another() -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        me().cancel("again")


async def in_a_timeout() -> str:
    try:
        async with asyncio.timeout(10):
            me().cancel("enough")
            await asyncio.sleep(5)
    except asyncio.CancelledError as error:
        return f"cancelled {error.args}"
    return "not cancelled"


async def in_a_group() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(is_cancelled())
            me().cancel("enough")
    except asyncio.CancelledError:
        return f"cancelled {me().cancelling()}"
    return "not cancelled"


PROGRAMS: list[Callable[[], Coroutine[Any, Any, Any]]] = [
    returns,
    returns_after_two,
    raises,
    waits,
    waits_for_a_future,
    waits_for_what_is_done,
    catches,
    catches_two,
    withdraws,
    withdraws_and_returns,
    in_a_timeout,
    in_a_group,
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_task_that_cancels_itself(program: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    @workflow
    async def main() -> list[Any]:
        return await end_of(program())

    assert create_test_handler(main)({}) == asyncio.run(end_of(program()))


@pytest.mark.parametrize("program", [is_cancelled, is_cancelled_and_waits_for_another])
def test_a_task_that_another_one_cancels(program: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    @workflow
    async def main() -> list[Any]:
        return await end_of(program(), cancel="enough")

    expected = asyncio.run(end_of(program(), cancel="enough"))
    assert create_test_handler(main)({}) == expected


def test_nobody_sees_the_result_of_a_task_that_cancelled_itself_and_returned() -> None:
    """Callbacks and those that wait are called after it is known to be cancelled."""

    async def look() -> list[Any]:
        seen: list[Any] = []
        task = asyncio.create_task(returns())
        task.add_done_callback(lambda task: seen.append(task.cancelled()))
        asyncio.get_running_loop().call_soon(lambda: seen.append(task.cancelled()))
        results = await asyncio.gather(task, return_exceptions=True)
        return [*seen, repr(results[0])]

    @workflow
    async def main() -> list[Any]:
        return await look()

    assert create_test_handler(main)({}) == asyncio.run(look())


def test_blocking_code_is_told_the_message() -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> list[Any]:
        found: list[Any] = []
        me().cancel("enough")
        try:
            ctx.sleep(5)
        except asyncio.CancelledError as error:
            found += error.args
        ctx.sleep(5)
        return [*found, me().cancelling()]

    assert create_test_handler(main)({}) == ["enough", 1]


def test_a_blocked_task_is_told_the_message_of_the_last_that_cancels_it() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        async def blocks() -> list[Any]:
            try:
                ctx.sleep(5)
            except asyncio.CancelledError as error:
                return [*error.args, me().cancelling()]
            return []

        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        task.cancel("first")
        task.cancel("second")
        return await task

    assert create_test_handler(main)({}) == ["second", 2]


def test_a_workflow_that_cancels_itself_and_returns_is_cancelled() -> None:
    @workflow
    async def main() -> int:
        return await returns()

    with pytest.raises(ExecutionFailedError, match="enough") as caught:
        create_test_handler(main)({})
    assert type(caught.value.__cause__) is asyncio.CancelledError
