"""A body runs in a copy of the context of the code that called it; what it sets ends with it."""

from __future__ import annotations

import asyncio
import decimal
import gc
import sys
import types
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from pyworkflow import (
    Client,
    FatalError,
    RetryableError,
    SyncWorkflowContext,
    WorkflowContext,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

trace: ContextVar[str] = ContextVar("trace", default="none")


def look() -> str:
    """Return what the code around sees, and set something else."""
    seen = trace.get()
    trace.set(f"{seen} and a body")
    return seen


@step
async def at_once() -> str:
    return look()


@step
async def that_waits() -> str:
    await asyncio.sleep(0)
    seen = look()
    await asyncio.sleep(0)
    assert trace.get() == f"{seen} and a body"
    return seen


@step
def in_a_thread() -> str:
    return look()


@step(timeout="1m")
def in_a_thread_with_a_timeout() -> str:
    return look()


@step(timeout="1m")
async def with_a_timeout() -> str:
    return look()


@step(inline=True)
def inline() -> str:
    return look()


@step(at_most_once=True)
def careful() -> str:
    return look()


STEPS: list[Any] = [
    at_once,
    that_waits,
    in_a_thread,
    in_a_thread_with_a_timeout,
    with_a_timeout,
    inline,
    careful,
]


async def call(body: Any) -> Any:
    result = body()
    return await result if asyncio.iscoroutine(result) else result


def run_in_the_mock(code: Callable[..., Any]) -> Any:
    return create_test_handler(workflow(name="main")(code))({})


def run_locally(code: Callable[..., Any]) -> Any:
    made = workflow(name="main")(code)
    with Client.memory(workflows=[made]) as client:
        return client.start(made).result()


@pytest.fixture(params=[run_in_the_mock, run_locally])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[..., Any]], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("body", STEPS, ids=lambda body: body.name)
def test_a_body_sees_what_its_caller_has_set(run: Callable[[Any], Any], body: Any) -> None:
    async def main() -> list[str]:
        before = await call(body)
        trace.set("the workflow")
        return [before, await call(body), await call(body), trace.get()]

    assert run(main) == ["none", "the workflow", "the workflow", "the workflow"]


@pytest.mark.parametrize("body", STEPS, ids=lambda body: body.name)
def test_so_does_one_called_in_a_task_of_its_own(run: Callable[[Any], Any], body: Any) -> None:
    async def main() -> list[str]:
        async def task(name: str) -> str:
            trace.set(name)
            return str(await call(body))

        trace.set("the workflow")
        found = await asyncio.gather(task("a"), task("b"), call(body))
        return [*found, trace.get()]

    assert run(main) == ["a", "b", "the workflow", "the workflow"]


def test_a_submitted_step_sees_what_was_set_then(run: Callable[[Any], Any]) -> None:
    def main(ctx: SyncWorkflowContext) -> list[str]:
        trace.set("before")
        futures = [body.submit() for body in STEPS]
        trace.set("after")
        return sorted({future.result() for future in futures})

    assert run(main) == ["before"]


def test_each_attempt_has_a_fresh_copy() -> None:
    seen: list[str] = []

    @step(retry=3)
    async def fails() -> None:
        seen.append(look())
        raise RetryableError

    @step(retry=3)
    def fails_in_a_thread() -> None:
        seen.append(look())
        raise RetryableError

    async def main() -> None:
        trace.set("the workflow")
        for body in (fails, fails_in_a_thread):
            with pytest.raises(RetryableError):
                await call(body)

    run_in_the_mock(main)
    assert seen == ["the workflow"] * 6


@pytest.mark.parametrize("is_async", [False, True])
def test_checks_of_conditions_see_it(is_async: bool) -> None:
    judged: list[str] = []

    def check() -> str:
        return look()

    async def check_async() -> str:
        return look()

    def until(state: str) -> bool:
        judged.append(look())
        return len(judged) > 1

    async def main(ctx: WorkflowContext) -> list[str]:
        trace.set("the workflow")
        condition = check_async if is_async else check
        found = await ctx.wait_for_condition(condition, every=1, until=until)
        return [found, trace.get()]

    assert run_in_the_mock(main) == ["the workflow"] * 2
    assert judged == ["the workflow"] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_submitters_see_it(is_async: bool) -> None:
    seen: list[str] = []
    mock = MockDurableContext()
    mock.complete_callback("answer", 1)

    def submit(callback_id: str) -> None:
        seen.append(look())

    async def submit_async(callback_id: str) -> None:
        seen.append(look())

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        trace.set("the workflow")
        await ctx.wait_for_callback(submit_async if is_async else submit, "answer")
        return trace.get()

    assert create_test_handler(main, mock)({}) == "the workflow"
    assert seen == ["the workflow"]


def test_compensations_see_what_the_code_around_the_block_does() -> None:
    seen: list[str] = []

    def undo() -> None:
        seen.append(look())

    async def undo_async() -> None:
        seen.append(look())

    async def main(ctx: WorkflowContext) -> str:
        trace.set("the workflow")

        async def fails() -> None:
            async with ctx.saga() as saga:
                saga.add(undo)
                saga.add(undo_async)
                raise FatalError

        with pytest.raises(FatalError):
            await fails()
        return trace.get()

    assert run_in_the_mock(main) == "the workflow"
    assert seen == ["the workflow"] * 2


@pytest.mark.parametrize("body", [inline, in_a_thread, at_once, that_waits], ids=lambda b: b.name)
def test_a_body_has_a_decimal_context_of_its_own(body: Any) -> None:
    """It is a mutable value: a copy of the context alone would share it."""
    settings = body._settings

    def divide() -> str:
        decimal.getcontext().prec += 2
        return str(decimal.Decimal(1) / 3)

    async def divide_async() -> str:
        await asyncio.sleep(0)
        return divide()

    @step(name=settings.name, inline=settings.inline)
    def plain() -> str:
        return divide()

    @step(name=settings.name)
    async def asynchronous() -> str:
        return await divide_async()

    async def main() -> list[str]:
        decimal.getcontext().prec = 3
        chosen: Any = asynchronous if settings.is_async else plain
        return [await call(chosen), await call(chosen), str(decimal.Decimal(1) / 3)]

    assert run_in_the_mock(main) == ["0.33333", "0.33333", "0.333"]


def test_a_workflow_leaves_the_decimal_context_of_its_host_alone() -> None:
    async def main() -> str:
        decimal.getcontext().prec = 3
        return str(decimal.Decimal(1) / 3)

    before = decimal.getcontext().prec  # there is one now
    assert run_in_the_mock(main) == "0.333"
    assert decimal.getcontext().prec == before


def test_threads_see_no_async_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `anyio.run` would refuse to run there, whatever the workflow's code runs on."""
    library: ContextVar[str | None] = ContextVar("library", default=None)
    sniffio = types.SimpleNamespace(current_async_library_cvar=library)
    monkeypatch.setitem(sys.modules, "sniffio", sniffio)
    seen: list[str | None] = []

    @step
    def in_thread() -> None:
        seen.append(library.get())

    @step(timeout=60)
    def in_thread_for_a_while() -> None:
        seen.append(library.get())

    def check() -> bool:
        seen.append(library.get())
        return True

    async def main(ctx: WorkflowContext) -> str | None:
        library.set("asyncio")
        in_thread()
        in_thread_for_a_while()
        await ctx.wait_for_condition(check, every=1)
        return library.get()

    assert run_in_the_mock(main) == "asyncio"
    assert seen == [None, None, None]


def test_a_fake_sees_it_as_the_body_does() -> None:
    mock = MockDurableContext()
    mock.mock_step("at_once", side_effect=look)
    mock.mock_step("in_a_thread", takes="1m")

    @workflow
    async def main() -> list[str]:
        trace.set("the workflow")
        return [await at_once(), in_a_thread(), trace.get()]

    assert create_test_handler(main, mock)({}) == ["the workflow"] * 3


def test_a_run_in_a_body_has_its_own_tasks() -> None:
    """Nothing of the workflow around, whose context its code sees, is taken for its own."""

    @workflow
    async def inner() -> list[str]:
        made: list[asyncio.Task[str]] = []

        async def task() -> str:
            return await at_once()

        asyncio.get_running_loop().call_soon(lambda: made.append(asyncio.create_task(task())))
        await asyncio.sleep(0)
        return [await made[0], trace.get()]

    @step
    def runs_another() -> list[str]:
        return create_test_handler(inner)({})  # type: ignore[no-any-return]

    async def main() -> list[str]:
        trace.set("the workflow")
        return runs_another()

    assert run_in_the_mock(main) == ["the workflow", "the workflow"]


def test_a_context_that_a_body_keeps_does_not_keep_the_execution() -> None:
    kept: list[Context] = []
    runs: list[weakref.ref[Any]] = []

    @step
    async def opens_a_connection() -> None:
        kept.append(copy_context())

    async def main(ctx: WorkflowContext) -> None:
        runs.append(weakref.ref(ctx._execution))
        opened = [opens_a_connection(), ctx.child(opens_a_connection)]
        await asyncio.gather(*opened)
        ctx.sleep(5)

    run_in_the_mock(main)
    gc.collect()
    assert len(kept) == 2
    assert {run() for run in runs} == {None}
