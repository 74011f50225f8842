"""`current_context`: of the kind that suits the running code; and a ctx that is used elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from pyworkflow import (
    FatalError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_context,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext, create_test_handler


@step
async def work(n: int = 0) -> int:
    return n


@step
def plain_work(n: int = 0) -> int:
    return n


def kind() -> str:
    """Return the kind, as a library's function deep in the code sees it."""
    return type(current_context()).__name__


SYNC, ASYNC = SyncWorkflowContext.__name__, WorkflowContext.__name__


def test_in_a_def_workflow_it_blocks() -> None:
    def waits() -> Any:
        return current_context(SyncWorkflowContext).wait_for_condition(lambda: True, every=1)

    @workflow
    def main() -> list[Any]:
        ctx = current_context(SyncWorkflowContext)
        return [kind(), ctx.child(lambda: 1), waits(), kind(), ctx.map(work, [3]).results]

    assert create_test_handler(main)({}) == [SYNC, 1, True, SYNC, [3]]


def test_in_children_branches_and_sagas_of_a_def_workflow() -> None:
    seen: list[str] = []

    @workflow
    def child() -> str:
        return kind()

    @workflow
    def main(ctx: SyncWorkflowContext) -> list[Any]:
        with ctx.saga() as saga:
            saga.add(lambda: seen.append("undone"))
            seen.append(kind())
        batch = ctx.parallel([kind, lambda: str(kind())])
        mapped = ctx.map(lambda _: [kind(), plain_work(1), kind()], [0])
        return [child(), ctx.child(kind), *batch.results, *mapped.results, kind()]

    results = create_test_handler(main)({})
    assert results == [SYNC, SYNC, SYNC, SYNC, [SYNC, 1, SYNC], SYNC]
    assert set(seen) == {SYNC}


def test_async_code_below_a_def_workflow_awaits() -> None:
    @workflow
    async def child() -> list[Any]:
        return [kind(), await current_context().child(work, 1), kind()]

    async def branch() -> str:
        return kind()

    def deferred(function: Callable[[], Any]) -> Any:
        return function()

    @workflow
    def main(ctx: SyncWorkflowContext) -> list[Any]:
        found = [ctx.child(child), *ctx.parallel([branch, branch()]).results]
        return [*found, *ctx.parallel([lambda: deferred(branch)]).results, kind()]

    assert create_test_handler(main)({}) == [[ASYNC, 1, ASYNC], ASYNC, ASYNC, ASYNC, SYNC]


def test_in_an_async_workflow_and_the_plain_functions_that_it_calls() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        async def task() -> str:
            ctx.sleep(1)
            return kind()

        found = [kind(), await task(), *await asyncio.gather(task(), task())]
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(lambda: found.append(kind()))
        await asyncio.sleep(0)
        return [*found, kind()]

    assert create_test_handler(main)({}) == [ASYNC] * 6


def test_def_children_and_branches_of_an_async_workflow_block() -> None:
    @workflow
    def child() -> list[Any]:
        return [kind(), current_context(SyncWorkflowContext).child(work, 1)]

    @workflow
    async def fails() -> None:
        raise FatalError

    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        def branch() -> str:
            ctx.sleep(1)
            return kind()

        found = [child(), await ctx.child(branch), *(await ctx.parallel([branch])).results]
        with pytest.raises(FatalError):
            await fails()
        return [*found, kind()]

    assert create_test_handler(main)({}) == [[SYNC, 1], SYNC, SYNC, ASYNC]


def test_the_kind_that_was_asked_for_is_the_one_that_there_is() -> None:
    @workflow
    async def main() -> str:
        current_context(WorkflowContext)
        with pytest.raises(UsageError, match=r"current_context\(SyncWorkflowContext\).*`def`"):
            current_context(SyncWorkflowContext)
        return "refused"

    assert create_test_handler(main)({}) == "refused"


# -- used elsewhere --------------------------------------------------------------------------------


def use(ctx: WorkflowContext) -> None:
    ctx.sleep(1)


def test_a_ctx_that_is_used_after_its_run_says_so() -> None:
    kept: list[WorkflowContext] = []

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        kept.append(ctx)

    create_test_handler(main)({})
    with pytest.raises(UsageError, match=r"ctx\.sleep\(\) was called .* that is over"):
        use(kept[0])
    with pytest.raises(UsageError, match=r"ctx\.now\(\) was called .* that is over"):
        kept[0].now()


def test_a_ctx_that_a_body_uses_says_so() -> None:
    kept: list[WorkflowContext] = []

    @step(retry=False)
    async def body() -> None:
        use(kept[0])

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        kept.append(ctx)
        await body()

    with pytest.raises(UsageError, match=r"ctx\.sleep\(\) was called inside step 'body'"):
        create_test_handler(main)({})


@pytest.mark.parametrize("where", ["task", "thread", "callback"])
def test_a_ctx_in_a_task_or_thread_of_another_says_so(where: str) -> None:
    """The workflow waits for a step meanwhile, whose body has started it."""
    kept: list[WorkflowContext] = []
    errors: list[UsageError] = []

    def misuse() -> None:
        try:
            use(kept[0])
        except UsageError as error:
            errors.append(error)

    async def misuse_later() -> None:
        misuse()

    def in_nobody_s_context(call: Callable[[], None]) -> None:
        thread = threading.Thread(target=call, name="another thread")
        thread.start()
        thread.join()

    @step
    async def body() -> None:
        empty = Context()
        if where == "task":
            loop = asyncio.get_running_loop()
            await loop.create_task(misuse_later(), name="another task", context=empty)
        elif where == "thread":
            in_nobody_s_context(misuse)
        else:
            asyncio.get_running_loop().call_soon(misuse, context=empty)
            await asyncio.sleep(0)

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        kept.append(ctx)
        await body()

    create_test_handler(main)({})
    (error,) = errors
    found = {"task": "the task 'another task'", "thread": "the thread 'another thread'"}
    assert found.get(where, "a callback of another loop") in str(error)
    assert "which the workflow does not run" in str(error)


# -- greenlets of others ---------------------------------------------------------------------------


@workflow
def charged_child() -> None:
    """Do nothing."""


CALLS: list[Callable[[], Any]] = [
    lambda: plain_work(2),
    lambda: work(2),
    lambda: work.submit(2),
    charged_child,
    current_context,
]


@pytest.mark.parametrize("parent", ["the workflow's", "the host's"])
@pytest.mark.parametrize("call", CALLS, ids=["step", "async", "submit", "child", "ctx"])
def test_a_durable_call_in_a_foreign_greenlet_is_refused(
    call: Callable[[], Any], parent: str
) -> None:
    """Its body would run as a plain function, recorded nowhere, and again on each replay."""

    @workflow
    def main() -> int:
        own = getcurrent()
        errors: list[UsageError] = []

        def foreign() -> None:
            try:
                call()
            except UsageError as error:
                errors.append(error)
            own.switch()

        host = own.parent if parent == "the host's" else own
        greenlet(foreign, host).switch()
        assert "greenlet that the workflow's code" in str(errors[0])
        return plain_work(1)

    mock = MockDurableContext()
    assert create_test_handler(main, mock)({}) == 1
    assert [operation.name for operation in mock.operations] == ["plain_work"]


def test_a_ctx_in_a_foreign_greenlet_is_refused() -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> None:
        greenlet(lambda: ctx.sleep(1)).switch()

    with pytest.raises(UsageError, match="greenlet that the workflow's code"):
        create_test_handler(main)({})


def test_greenlets_in_a_body_are_its_own_affair() -> None:
    @step
    def sync_body() -> int:
        return int(greenlet(lambda: plain_work(1)).switch())

    @step
    async def async_body() -> int:
        return int(greenlet(lambda: plain_work(2)).switch())

    @workflow
    async def main() -> list[int]:
        return [sync_body(), await async_body()]

    assert create_test_handler(main)({}) == [1, 2]
