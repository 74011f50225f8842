from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import (
    SerializationError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    workflow,
)
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import InvokeError
from tests.api.world import crashes, run


@workflow
async def priced(ctx: WorkflowContext, item: str) -> tuple[str, int]:
    ctx.sleep("1h")
    if item == "gone":
        raise LookupError("there is none")
    return item, len(item)


@workflow
def priced_blocking(item: str) -> int:
    return len(item)


handler = aws_workflow_handler(priced)


def test_a_workflow_gives_its_name_and_the_type_of_its_result() -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.invoke(priced, "pen")
        second = await ctx.invoke(handler, "ink", name="second")
        third = await ctx.invoke(priced, "nib", result_type=list[Any])
        return [isinstance(first, tuple), second, isinstance(third, list)]

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(priced)
    assert run(buys, {}, mock_ctx) == [True, ["ink", 3], True]
    assert [(op.type, op.subtype, op.name) for op in mock_ctx.operations] == [
        ("CHAINED_INVOKE", "ChainedInvoke", "priced"),
        ("CHAINED_INVOKE", "ChainedInvoke", "second"),
        ("CHAINED_INVOKE", "ChainedInvoke", "priced"),
    ]


def test_a_function_goes_by_its_name_and_the_operation_by_another_or_none() -> None:
    @workflow
    def buys(ctx: SyncWorkflowContext) -> list[int]:
        return [
            ctx.invoke("price:live", {"item": "pen"}, result_type=int),
            ctx.invoke("price:live", {"item": "pen"}, name="again", tenant_id="t"),
        ]

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke("price:live", side_effect=lambda given: len(given["item"]))
    assert run(buys, {}, mock_ctx) == [3, 3]
    assert [op.name for op in mock_ctx.operations] == [None, "again"]


def test_they_run_at_once() -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> list[int]:
        calls = [ctx.invoke("price", item, result_type=int) for item in ("a", "bb")]
        return await asyncio.gather(*calls)

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke("price", side_effect=len, takes="5m")
    assert run(buys, {}, mock_ctx) == [1, 2]
    first, second = mock_ctx.operations
    assert first.end_ms == second.end_ms


def test_a_timeout_leaves_the_function_to_itself() -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> str:
        try:
            await asyncio.wait_for(ctx.invoke("price"), 60)
        except TimeoutError:
            return "late"
        raise AssertionError

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke("price", result=1, takes="5m")
    assert run(buys, {}, mock_ctx) == "late"


def test_the_callees_failure_is_told_never_raised_as_its_class() -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> list[str]:
        try:
            await ctx.invoke(priced, "gone")
        except InvokeError as error:
            return [error.error_type, error.message]
        raise AssertionError

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(priced)
    assert run(buys, {}, mock_ctx) == ["LookupError", "there is none"]


def test_it_survives_crashes() -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> Any:
        try:
            return await asyncio.wait_for(ctx.invoke("price"), 1)
        except TimeoutError:
            return "late"

    assert set(crashes(buys)) == {"late"}


def test_a_key_is_an_identity_of_its_own() -> None:
    @workflow
    def buys(ctx: SyncWorkflowContext) -> Any:
        with pytest.raises(UsageError, match="key of the invoke of 'price'"):
            ctx.invoke("price", key="")
        return ctx.invoke("price", key="the-one")

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke("price", result=1)
    assert run(buys, {}, mock_ctx) == 1


def test_one_that_nobody_awaited_is_an_error() -> None:
    @workflow
    async def forgets(ctx: WorkflowContext) -> None:
        ctx.invoke("price")  # type: ignore[unused-coroutine]

    with pytest.raises(UsageError, match="the invoke of 'price': called but never awaited"):
        run(forgets)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        (("",), {}, UsageError, "takes a function's name, .* not ''"),
        ((len,), {}, UsageError, "or a function with @workflow, not <built-in function len>"),
        (("f", {1, object()}), {}, SerializationError, "the input of the invoke of 'f'"),
        (("f",), {"name": ""}, UsageError, "the name of the invoke of 'f' must have 1 to 256"),
        (("f",), {"tenant_id": ""}, UsageError, "tenant_id of the invoke of 'f' must be a non-em"),
        (("f",), {"tenant_id": 5}, UsageError, "tenant_id of the invoke of 'f' must be a non-em"),
        (("f",), {"result_type": object()}, SerializationError, "the result of the invoke of 'f'"),
    ],
)
def test_arguments_that_cannot_be_are_told_before_anything_is_recorded(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    @workflow
    async def buys(ctx: WorkflowContext) -> None:
        await ctx.invoke(*arguments, **options)

    mock_ctx = MockDurableContext()
    with pytest.raises(error, match=f"(?i){says}"):
        run(buys, {}, mock_ctx)
    assert mock_ctx.operations == ()
