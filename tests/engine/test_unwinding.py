"""When a run is disposed of, its frames unwind in the context in which they ran."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from typing import Any

import pytest

from pyworkflow import SyncWorkflowContext, WorkflowContext, sleep, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Spans:
    """What a tracing library does: it sets a variable, and resets it when the block is left."""

    def __init__(self) -> None:
        self.failures: list[ValueError] = []
        self.left: list[str] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        token: Token[str] = tenant.set(name)
        try:
            yield
        finally:
            self.left.append(tenant.get())
            try:
                tenant.reset(token)
            except ValueError as error:  # it was made in another context
                self.failures.append(error)


spans = Spans()


@pytest.fixture(autouse=True)
def anew() -> None:
    spans.__init__()  # type: ignore[misc]


async def in_a_task(ctx: WorkflowContext) -> str:
    with spans.span("acme"):
        await sleep("1h")
        return tenant.get()


async def blocked(ctx: WorkflowContext) -> str:
    with spans.span("acme"):
        ctx.sleep("1h")
        return tenant.get()


async def in_several_tasks(ctx: WorkflowContext) -> str:
    async def one(name: str) -> str:
        with spans.span(name):
            await sleep("1h")
            return tenant.get()

    async def blocks(name: str) -> str:
        with spans.span(name):
            ctx.sleep("1h")
            return tenant.get()

    with spans.span("acme"):
        await asyncio.gather(one("a"), blocks("b"), asyncio.create_task(one("c")))
        return tenant.get()


async def in_branches(ctx: WorkflowContext) -> str:
    async def branch(name: str) -> str:
        with spans.span(name):
            await sleep("1h")
            return tenant.get()

    with spans.span("acme"):
        await ctx.map(branch, ["a", "b"])
        return tenant.get()


async def in_one_context(ctx: WorkflowContext) -> str:
    """Two tasks that share a context: one of them is blocked in it."""
    shared = copy_context()

    async def waits() -> str:
        with spans.span("waits"):
            await sleep("1h")
            return tenant.get()

    async def blocks() -> None:
        with spans.span("acme"):
            ctx.sleep("2h")

    waiting = asyncio.create_task(waits(), context=shared)
    await asyncio.sleep(0)
    await asyncio.create_task(blocks(), context=shared.copy())
    await waiting
    return "acme"


async def items() -> AsyncIterator[int]:
    with spans.span("acme"):
        yield 1
        await sleep("1h")
        yield 2


async def in_a_generator_that_waits(ctx: WorkflowContext) -> str:
    return " ".join([tenant.get() async for _ in items()])


async def in_a_generator_whose_user_waits(ctx: WorkflowContext) -> str:
    found = ""
    async for _ in items():
        await sleep("1h")
        found = tenant.get()
    return found


async def in_a_generator_that_is_kept(ctx: WorkflowContext) -> str:
    kept = items()
    await anext(kept)
    await sleep("1h")
    async for _ in kept:
        pass
    return "acme"


@pytest.mark.parametrize(
    "code",
    [
        in_a_task,
        blocked,
        in_several_tasks,
        in_branches,
        in_one_context,
        in_a_generator_that_waits,
        in_a_generator_whose_user_waits,
        in_a_generator_that_is_kept,
    ],
)
def test_a_token_is_reset_where_it_was_made(code: Callable[..., Any]) -> None:
    mock = MockDurableContext()
    result = create_test_handler(workflow(code), mock)({})
    assert mock.invocations > 1
    assert "nobody" not in spans.left
    assert spans.failures == []
    assert result is not None


def test_so_it_is_in_a_def_workflow() -> None:
    @step
    def charge() -> str:
        return tenant.get()

    @workflow
    def main(ctx: SyncWorkflowContext) -> list[str]:
        def branch(name: str) -> str:
            with spans.span(name):
                ctx.sleep("1h")
                return charge()

        with spans.span("acme"):
            ctx.sleep("1h")
            return [charge(), *ctx.map(branch, ["a", "b"]).results]

    assert create_test_handler(main)({}) == ["acme", "a", "b"]
    assert "nobody" not in spans.left
    assert spans.failures == []


def test_a_task_that_can_not_go_on_unwinds_in_its_context() -> None:
    """It was to go on in a context in which another task is blocked, which Python refuses."""

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        shared = copy_context()

        async def waits() -> None:
            with spans.span("waits"):
                await asyncio.sleep(0)

        async def blocks() -> None:
            ctx.sleep("1h")

        waiting = asyncio.create_task(waits(), context=shared)
        blocking = asyncio.create_task(blocks(), context=shared)
        results = await asyncio.gather(waiting, blocking, return_exceptions=True)
        return type(results[0]).__name__

    assert create_test_handler(main)({}) == "UsageError"
    assert set(spans.left) == {"waits"}
    assert spans.failures == []
