"""What type checkers see of callbacks, invokes and contexts: mypy and pyright, both strict."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from pyworkflow import SyncWorkflowContext, WorkflowContext, current_context, workflow
from pyworkflow.types import Callback, SyncCallback


class Approval:
    approved: bool = True


@workflow
async def priced(ctx: WorkflowContext, item: str) -> int:
    return len(item)


@workflow
def priced_blocking(item: str) -> int:
    return len(item)


async def awaits(ctx: WorkflowContext) -> None:
    callback = ctx.callback("a", timeout="1d", result_type=Approval)
    assert_type(callback, Callback[Approval])
    assert_type(callback.id, str)
    pending: Coroutine[Any, Any, Approval] = callback.result()
    assert_type(await pending, Approval)
    assert_type(await ctx.callback(result_type=list[int]).result(), list[int])
    assert_type(ctx.callback("a", heartbeat_timeout=5, key="k"), Callback[Any])

    def submit(callback_id: str) -> None: ...

    assert_type(await ctx.wait_for_callback(submit, "a", result_type=Approval), Approval)
    assert_type(await ctx.wait_for_callback(submit, retry=3, timeout=5), Any)

    assert_type(await ctx.invoke(priced, "a"), int)
    assert_type(await ctx.invoke(priced_blocking, "a", name="n"), int)
    assert_type(await ctx.invoke("f", tenant_id="t", result_type=str), str)
    assert_type(await ctx.invoke("f", {"a": 1}), Any)


def blocks(ctx: SyncWorkflowContext) -> None:
    callback = ctx.callback("a", result_type=Approval)
    assert_type(callback, SyncCallback[Approval])
    assert_type(callback.result(), Approval)
    assert_type(ctx.callback().result(), Any)

    async def submit(callback_id: str) -> None: ...

    assert_type(ctx.wait_for_callback(submit, result_type=int), int)
    assert_type(ctx.invoke(priced, "a"), int)
    assert_type(ctx.invoke(priced_blocking, "a"), int)
    assert_type(ctx.invoke("f", result_type=str, key="k"), str)


def mistakes(ctx: WorkflowContext, blocking: SyncWorkflowContext) -> None:
    ctx.callback("a", timeuot=5)  # type: ignore[call-overload]
    ctx.wait_for_callback("no function")  # type: ignore[call-overload]
    blocking.invoke("f", tennant_id="t")  # type: ignore[call-overload]


def asks_for_the_context() -> None:
    assert_type(current_context(), WorkflowContext)
    assert_type(current_context(WorkflowContext), WorkflowContext)
    assert_type(current_context(SyncWorkflowContext), SyncWorkflowContext)
