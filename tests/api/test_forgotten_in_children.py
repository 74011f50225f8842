"""What the code of a child context called and did not await is a part of that child's outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import (
    Step,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    sleep,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext, create_test_handler


@step
async def work(what: str) -> str:
    return what


@step(retry=False)
async def fail(what: str) -> None:
    raise ValueError(what)


async def submits_and_fails() -> str:
    first = work.submit("first")
    await fail("in between")
    return await first


async def calls_and_fails() -> str:
    first = work("first")
    await fail("in between")
    return await first


async def submits_and_forgets() -> str:
    work.submit("first")
    return await work("second")


async def calls_and_forgets() -> str:
    work("first")  # type: ignore[unused-coroutine] # that is the point
    return await work("second")


def blocks_and_forgets() -> str:
    work.submit("first")
    return work.submit("second").result()


async def forgets_in_a_task() -> str:
    return await asyncio.create_task(submits_and_forgets())


def every_outcome(function: Callable[[WorkflowContext], Any]) -> set[str]:
    """Return the outcomes of a calm run and of one with each crash; each is replayed besides."""

    def outcome(mock_ctx: MockDurableContext) -> str:
        try:
            return str(create_test_handler(made, mock_ctx)({}))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    made = workflow(name="main")(function)
    found = {outcome(MockDurableContext())}
    for checkpoint in range(1, 10):
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        found.add(outcome(mock_ctx))
    return found


@pytest.mark.parametrize("code", [submits_and_fails, calls_and_fails])
def test_code_that_fails_has_forgotten_nothing(code: Callable[[], Any]) -> None:
    """The workflow goes on, whether it saw the failure or a record of it."""

    async def main(ctx: WorkflowContext) -> str:
        with pytest.raises(ValueError, match="in between"):
            await ctx.child(code)
        return await work("done")

    assert every_outcome(main) == {"done"}


def test_nor_has_code_that_is_cancelled() -> None:
    """It had no time to await its calls."""

    async def child() -> str:
        first = work.submit("first")
        second = work("second")
        await sleep("1h")
        return await first + await second

    async def main(ctx: WorkflowContext) -> str:
        batch = await ctx.parallel([child, lambda: work("fast")], min_successful=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ctx.child(child)
        return await work(f"{batch.results}")

    assert every_outcome(main) == {"['fast']"}


@pytest.mark.parametrize(
    "code", [submits_and_forgets, calls_and_forgets, blocks_and_forgets, forgets_in_a_task]
)
def test_code_that_forgets_has_failed(code: Callable[[], Any]) -> None:
    """That is recorded, and the code around sees it in each run, also after a suspension."""

    async def main(ctx: WorkflowContext) -> str:
        with pytest.raises(
            UsageError, match=r"work.*never awaited when the child context returned"
        ):
            await ctx.child(code)
        await sleep(5)
        return "done"

    assert every_outcome(main) == {"done"}


def test_so_has_a_blocking_workflow() -> None:
    """Called as a child."""

    @workflow
    def child() -> str:
        return blocks_and_forgets()

    @workflow
    def main(ctx: SyncWorkflowContext) -> str:
        with pytest.raises(UsageError, match=r"work \(submitted\): called but never awaited"):
            child()
        ctx.sleep(5)
        return "done"

    assert create_test_handler(main)({}) == "done"


def test_what_the_code_around_called_is_its_own_matter() -> None:
    """Children may begin and end before it is awaited, or forgotten."""

    async def main(ctx: WorkflowContext) -> str:
        first, second = work("first"), work.submit("second")
        await asyncio.gather(*(ctx.child(lambda: work("inside")) for _ in range(3)))
        return await first + await second

    assert every_outcome(main) == {"firstsecond"}

    async def forgets(ctx: WorkflowContext) -> str:
        work("first")  # type: ignore[unused-coroutine] # that is the point
        return await ctx.child(lambda: work("inside"))

    (outcome,) = every_outcome(forgets)
    assert outcome.startswith("UsageError: work: called but never awaited when the workflow")


@pytest.mark.parametrize("started", [work, fail])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_step_may_be_started_outside_of_the_code_that_awaits_it(
    started: Step[[str], Any], depth: int
) -> None:
    """Also where that code does not run again, for it is over."""

    async def main(ctx: WorkflowContext) -> str:
        outcome = started.submit("outside")

        async def child() -> str:
            try:
                return f"got {await outcome}"
            except ValueError as error:
                return f"got {error}"

        async def parent() -> str:
            return await ctx.child(child) if depth == 2 else await child()

        (found,) = (await ctx.parallel([parent])).results
        await sleep(5)
        return found

    assert every_outcome(main) == {"got outside"}


def test_what_is_not_over_was_not_awaited_there() -> None:
    async def main(ctx: WorkflowContext) -> str:
        await ctx.child(lambda: work("inside"))
        await sleep(5)
        work.submit("forgotten")
        return "done"

    (outcome,) = every_outcome(main)
    assert outcome.startswith("UsageError: work (submitted): called but never awaited")


def test_a_call_made_outside_of_the_code_that_awaits_it_is_refused_after_a_suspension() -> None:
    """It does not begin in a run that skips that code, as one that is forgotten does not."""

    async def main(ctx: WorkflowContext) -> str:
        call = work("outside")

        async def child() -> str:
            return await call

        found = await ctx.child(child)
        await sleep(5)
        return found

    (outcome,) = every_outcome(main)
    assert outcome.endswith("it has to call itself: a replay skips it")


def test_what_never_ran_is_closed_with_a_run_that_ends_in_a_child() -> None:
    """A crash leaves no coroutine that nobody awaited: that would be a warning, an error here."""

    async def child() -> str:
        first = work("first")
        await sleep(5)
        return await first

    async def main(ctx: WorkflowContext) -> str:
        return await ctx.child(child)

    assert every_outcome(main) == {"first"}
