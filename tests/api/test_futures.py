from __future__ import annotations

import asyncio

import pytest

from pyworkflow import (
    FatalError,
    StepFuture,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext
from tests.api.world import crashes, run


@step
async def work(n: int) -> int:
    return 10 * n


@step
def sync_work(n: int) -> int:
    return 100 * n


@step(retry=False)
async def fails() -> int:
    raise FatalError("no luck")


@step
async def endless() -> None:
    await asyncio.Event().wait()


def test_submit_starts_at_once_and_await_gives_the_result() -> None:
    @workflow
    async def eager(ctx: WorkflowContext) -> list[int]:
        first, second = work.submit(1), sync_work.submit(2)
        assert isinstance(first, StepFuture)
        assert not first.done()
        third = await work(3)
        return [await second, await first, first.result(), third]

    results = crashes(eager)
    assert results == [[200, 10, 10, 30]] * len(results)
    mock_ctx = MockDurableContext()
    run(eager, None, mock_ctx)
    assert [op.name for op in mock_ctx.operations] == ["work", "sync_work", "work"]


def test_result_blocks_in_sync_code() -> None:
    @workflow
    def blocking(ctx: SyncWorkflowContext) -> list[int]:
        futures = [work.submit(n) for n in range(3)]
        return [future.result() for future in futures]

    assert run(blocking) == [0, 10, 20]


def test_result_blocks_its_task_alone() -> None:
    @workflow
    async def two(ctx: WorkflowContext) -> list[int]:
        async def blocking() -> int:
            return work.submit(1).result()

        return list(await asyncio.gather(blocking(), work(2), blocking()))

    assert run(two) == [10, 20, 10]


def test_futures_in_asyncios_own_tools() -> None:
    @workflow
    async def tools(ctx: WorkflowContext) -> list[int]:
        gathered = await asyncio.gather(work.submit(1), sync_work.submit(1))
        done, pending = await asyncio.wait([work.submit(2), work.submit(3)])
        assert not pending
        shielded = await asyncio.shield(work.submit(4))
        return [*gathered, *sorted(f.result() for f in done), shielded]

    assert run(tools) == [10, 100, 20, 30, 40]


def test_a_failure_is_raised_wherever_it_is_asked_for() -> None:
    @workflow
    async def failing(ctx: WorkflowContext) -> list[str]:
        future = fails.submit()
        seen = []
        for _ in range(2):
            try:
                future.result()
            except FatalError as error:
                seen.append(str(error))
        try:
            await future
        except FatalError as error:
            seen.append(str(error))
        seen.append(str(future.exception()))
        return seen

    assert run(failing) == ["no luck"] * 4


def test_exception_of_a_future_that_is_not_done() -> None:
    @workflow
    async def early(ctx: WorkflowContext) -> int:
        future = work.submit(1)
        with pytest.raises(asyncio.InvalidStateError):
            future.exception()
        value = await future
        assert future.exception() is None
        return value

    assert run(early) == 10


def test_a_forgotten_future_is_an_error_that_names_the_step() -> None:
    @workflow
    async def forgetful(ctx: WorkflowContext) -> int:
        work.submit(1)
        return await work(2)

    with pytest.raises(UsageError, match=r"work \(submitted\): called but never awaited"):
        run(forgetful)


def test_a_forgotten_future_that_is_done_is_an_error_too() -> None:
    @workflow
    def forgetful(ctx: SyncWorkflowContext) -> None:
        forgotten = sync_work.options(name="first").submit(1)
        ctx.sleep(5)
        assert forgotten.done()

    with pytest.raises(UsageError, match=r"first \(submitted\): called but never awaited"):
        run(forgetful)


def test_a_callback_counts_as_awaiting() -> None:
    @workflow
    async def with_callback(ctx: WorkflowContext) -> list[int]:
        seen: list[int] = []
        work.submit(1).add_done_callback(lambda done: seen.append(done.result()))
        await work(2)
        await asyncio.sleep(0)
        return seen

    assert run(with_callback) == [10]


def test_cancel_abandons_the_step() -> None:
    @workflow
    async def cancelling(ctx: WorkflowContext) -> list[bool]:
        future, done = endless.submit(), work.submit(1)
        await done
        answers = [future.cancel(), future.cancelled(), future.cancel(), done.cancel()]
        with pytest.raises(asyncio.CancelledError):
            await future
        with pytest.raises(asyncio.CancelledError):
            future.result()
        return answers

    assert run(cancelling) == [True, True, False, False]


def test_a_timeout_cancels_the_step() -> None:
    @workflow
    async def impatient(ctx: WorkflowContext) -> str:
        future = work.submit(1)
        try:
            await asyncio.wait_for(future, 60)
        except TimeoutError:
            return "cancelled" if future.cancelled() else "goes on"
        return "done"

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("work", result=0, takes="1h")
    assert run(impatient, None, mock_ctx) == "cancelled"


def test_result_outside_of_its_execution_does_not_block() -> None:
    kept: list[StepFuture[int]] = []

    @workflow
    async def first(ctx: WorkflowContext, *, is_over: bool) -> int:
        kept[:] = [work.submit(1)]
        if is_over:
            await kept[0]
        raise FatalError("over")

    @workflow
    async def second(ctx: WorkflowContext) -> int:
        return kept[0].result()

    for is_over in (True, False):
        with pytest.raises(FatalError, match="over"):
            run(first, {"is_over": is_over}, MockDurableContext(strict=False))
        if is_over:
            assert (kept[0].result(), run(second)) == (10, 10)
    with pytest.raises(asyncio.InvalidStateError):
        kept[0].result()
    with pytest.raises(asyncio.InvalidStateError):
        run(second)
