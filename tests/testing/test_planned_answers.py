"""What a test plans for callbacks and invokes, and what happens when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import (
    DeadlockError,
    NonDeterminismError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow._protocol.records import Action, OperationType, Update
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import CallbackError, CallbackTimeoutError, InvokeError, ServiceError
from pyworkflow.testing._outside_world import OutsideWorld
from tests.api.world import run


@workflow
async def asks(ctx: WorkflowContext, names: list[str], timeout: str | None = None) -> list[Any]:
    results: list[Any] = []
    for name in names:
        try:
            results.append(await ctx.callback(name, timeout=timeout).result())
        except CallbackError as error:
            results.append(str(error))
    return results


def test_the_next_of_the_same_name_has_a_number() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x", 1)
    mock_ctx.complete_callback("x#2", 2)
    assert run(asks, {"names": ["x", "x"]}, mock_ctx) == [1, 2]


def test_plans_hold_for_each_later_execution_until_they_are_made_anew() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x", 1)
    assert run(asks, {"names": ["x"]}, mock_ctx) == [1]
    assert run(asks, {"names": ["x"]}, mock_ctx) == [1]
    mock_ctx.fail_callback("x", "no")
    assert run(asks, {"names": ["x"]}, mock_ctx) == ["no"]


def test_a_callback_ends_once() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x", 1)
    mock_ctx.heartbeat_callback("x")
    with pytest.raises(UsageError, match="'x' is to end twice"):
        mock_ctx.fail_callback("x")


def test_within_a_run_it_ends_once_too() -> None:
    @workflow
    def twice(ctx: SyncWorkflowContext) -> list[Any]:
        callback = ctx.callback("x")
        mock_ctx.complete_callback("x", 1, after=5)
        with pytest.raises(UsageError, match="is to end twice"):
            mock_ctx.complete_callback(callback.id, 2)
        mock_ctx.complete_callback("later", 3)
        with pytest.raises(UsageError, match="'later' is to end twice"):
            mock_ctx.complete_callback("later", 3)
        return [callback.result(), ctx.callback("later").result()]

    mock_ctx = MockDurableContext(strict=False)
    with pytest.raises(UsageError, match="is to end twice"):
        # The second invocation runs the code again, and plans again.
        run(twice, {}, mock_ctx)


def test_a_plan_for_a_running_execution_is_for_that_alone() -> None:
    @workflow
    async def sends(ctx: WorkflowContext) -> Any:
        async def submit(callback_id: str) -> None:
            mock_ctx.complete_callback("later", 3)

        await ctx.wait_for_callback(submit, "now")
        return await ctx.callback("later").result()

    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("now")
    assert run(sends, {}, mock_ctx) == 3
    with pytest.raises(DeadlockError):
        run(asks, {"names": ["later"]}, mock_ctx)


def test_an_id_is_good_only_while_its_execution_runs() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x")
    run(asks, {"names": ["x"]}, mock_ctx)
    callback_id = mock_ctx.operations[0].callback_id
    assert callback_id is not None
    with pytest.raises(UsageError, match="whose execution does not run; plan by the callback's"):
        mock_ctx.complete_callback(callback_id)

    @workflow
    def wrong(ctx: SyncWorkflowContext) -> None:
        mock_ctx.complete_callback(f"execution-9.{'0' * 64}")

    with pytest.raises(UsageError, match="whose execution does not run"):
        run(wrong, {}, mock_ctx)


def test_bytes_are_sent_as_they_are() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x", b"plain text")
    mock_ctx.complete_callback("y", "quoted")
    assert run(asks, {"names": ["x", "y"]}, mock_ctx) == ["plain text", "quoted"]
    assert [op.payload for op in mock_ctx.operations] == ["plain text", '"quoted"']


def test_failures_have_the_type_that_the_sender_gives() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.fail_callback("a")
    mock_ctx.fail_callback("b", KeyError("k"))
    mock_ctx.fail_callback("c", "refused", error_type="Refused")
    assert run(asks, {"names": ["a", "b", "c"]}, mock_ctx) == [
        "the sender failed",
        "KeyError: 'k'",
        "Refused: refused",
    ]


def test_one_may_expire_before_its_time() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.expire_callback("x", after="1m")
    found = run(asks, {"names": ["x"], "timeout": "1h"}, mock_ctx)
    assert found == ["Callback.Timeout: Callback timed out"]
    (operation,) = mock_ctx.operations
    assert (operation.end_ms or 0) - operation.start_ms == 60_000


def test_one_with_a_heartbeat_alone_expires_by_that() -> None:
    @workflow
    async def beats(ctx: WorkflowContext) -> bool:
        try:
            await ctx.callback("x", heartbeat_timeout="1h").result()
        except CallbackTimeoutError as error:
            return error.is_heartbeat
        raise AssertionError

    mock_ctx = MockDurableContext()
    mock_ctx.expire_callback("x")
    assert run(beats, {}, mock_ctx)


def test_one_without_a_timeout_never_expires() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.expire_callback("x")
    with pytest.raises(UsageError, match="has no timeout, so it can't expire"):
        run(asks, {"names": ["x"]}, mock_ctx)


def test_who_comes_too_late_changes_nothing() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("x", 1, after="2h")
    mock_ctx.heartbeat_callback("x", after="3h")

    @workflow
    async def late(ctx: WorkflowContext) -> list[Any]:
        results = await asks(ctx, ["x"], "1h")
        ctx.sleep("1d")
        return results

    assert run(late, {}, mock_ctx) == ["Callback.Timeout: Callback timed out"]


def test_what_happens_during_a_step_happens_at_its_own_time() -> None:
    @step
    async def long() -> None: ...

    @workflow
    async def both(ctx: WorkflowContext) -> list[Any]:
        callback = ctx.callback("x", timeout="2h")
        invoked = asyncio.create_task(ctx.invoke("f"))
        await long()
        return [await callback.result(), await invoked]

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("long", takes="5h")
    mock_ctx.complete_callback("x", "in time", after="1h")
    mock_ctx.mock_invoke("f", result="answered", takes="3h")
    assert run(both, {}, mock_ctx) == ["in time", "answered"]
    ends = {op.type: (op.end_ms or 0) - op.start_ms for op in mock_ctx.operations}
    assert ends == {"CALLBACK": 3_600_000, "CHAINED_INVOKE": 3 * 3_600_000, "STEP": 5 * 3_600_000}
    assert mock_ctx.invocations == 1


# -- when nobody answers -------------------------------------------------------------------------


def test_a_callback_that_nobody_completes_ends_in_a_report() -> None:
    @workflow
    async def stuck(ctx: WorkflowContext) -> None:
        calls = [ctx.callback("named"), ctx.callback()]
        await asyncio.gather(
            *(call.result() for call in calls),
            ctx.wait_for_callback(lambda i: None, "asked"),
            ctx.invoke("f"),
            ctx.invoke("g", name="gee"),
        )

    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("nmaed")
    with pytest.raises(DeadlockError) as caught:
        run(stuck, {}, mock_ctx)
    unnamed = mock_ctx.operations[1].callback_id
    assert sorted(str(caught.value).splitlines()[1:]) == sorted(
        [
            "  CALLBACK named: STARTED (mock_ctx.complete_callback('named', ...))",
            f"  CALLBACK : STARTED (mock_ctx.complete_callback({unnamed!r}, ...))",
            "  CONTEXT asked: STARTED",
            "  CALLBACK asked create callback id: STARTED "
            "(mock_ctx.complete_callback('asked', ...))",
            "  CHAINED_INVOKE : STARTED (mock_ctx.mock_invoke('f', ...))",
            "  CHAINED_INVOKE gee: STARTED (mock_ctx.mock_invoke('gee', ...))",
            "Planned, but no callback has that name: nmaed",
        ]
    )


# -- invokes -------------------------------------------------------------------------------------


@workflow
async def calls(ctx: WorkflowContext, number: int) -> Any:
    try:
        return await ctx.invoke("f:live", number, name="f")
    except InvokeError as error:
        return [error.error_type, error.message]


async def adds_later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def fails(_: Any) -> None:
    raise ValueError("broke")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"result": {"a": 1}}, {"a": 1}),
        ({"result": None}, None),
        ({"error": LookupError("none")}, ["LookupError", "none"]),
        ({"side_effect": lambda number: number + 1}, 6),
        ({"side_effect": adds_later}, 6),
        ({"side_effect": fails}, ["ValueError", "broke"]),
    ],
)
@pytest.mark.parametrize("name", ["f", "f:live"])
def test_an_invoke_is_answered(name: str, answer: dict[str, Any], result: Any) -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(name, **answer)
    assert run(calls, {"number": 5}, mock_ctx) == result


@pytest.mark.parametrize(
    ("function", "answer", "says"),
    [
        (5, {}, "takes a function's name or a workflow, not 5"),
        ("f", {}, "takes one of result=, error= and side_effect="),
        ("f", {"result": 1, "side_effect": fails}, "takes one of result="),
        (calls, {"result": 1, "error": ValueError()}, "takes one of result="),
    ],
)
def test_an_answer_that_cannot_be_is_told(function: Any, answer: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        MockDurableContext().mock_invoke(function, **answer)


@workflow
async def callee(ctx: WorkflowContext) -> Any:
    return await asks(ctx, ["inside"])


@workflow
async def caller(ctx: WorkflowContext) -> Any:
    return [await ctx.invoke(callee), (ctx.now().hour, ctx.now().day)]


def test_a_workflow_runs_in_a_world_of_its_own_with_the_same_plans() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(callee)
    mock_ctx.complete_callback("inside", "yes", after="5h")
    assert run(caller, {}, mock_ctx) == [["yes"], [5, 1]]
    assert [op.type for op in mock_ctx.operations] == ["CHAINED_INVOKE"]


def test_a_callback_of_an_invoked_workflow_goes_by_its_id_too() -> None:
    @workflow
    async def inner(ctx: WorkflowContext) -> Any:
        async def submit(callback_id: str) -> None:
            mock_ctx.complete_callback(callback_id, "by id")

        return await ctx.wait_for_callback(submit, "x")

    @workflow
    async def outer(ctx: WorkflowContext) -> Any:
        return await ctx.invoke(inner)

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(inner)
    assert run(outer, {}, mock_ctx) == "by id"


def test_a_workflow_may_have_an_answer_instead() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(callee, result="no run")
    assert run(caller, {}, mock_ctx)[0] == "no run"


def test_a_broken_workflow_breaks_the_test() -> None:
    turns: list[int] = []

    @workflow
    async def changes(ctx: WorkflowContext) -> None:
        turns.append(1)
        if len(turns) == 1:
            ctx.sleep(5)
        else:
            await ctx.callback("x").result()

    @workflow
    async def outer(ctx: WorkflowContext) -> Any:
        return await ctx.invoke(changes)

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(changes)
    with pytest.raises(NonDeterminismError):
        run(outer, {}, mock_ctx)


def test_a_callee_that_nobody_waits_for_is_cancelled_with_the_run() -> None:
    cancelled: list[str] = []

    async def never(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("cancelled")

    @workflow
    async def leaves(ctx: WorkflowContext) -> str:
        @step
        async def short() -> None:
            await asyncio.sleep(0)

        task = asyncio.create_task(ctx.invoke("f"))
        await asyncio.sleep(0)
        await short()
        task.cancel()
        return "done"

    mock_ctx = MockDurableContext(strict=False)
    mock_ctx.mock_invoke("f", side_effect=never)
    assert run(leaves, {}, mock_ctx) == "done"
    assert cancelled == ["cancelled"]


def test_its_world_is_a_service_like_any_other() -> None:
    async def main() -> None:
        world = OutsideWorld(VirtualClock(), {}, {}, None)  # type: ignore[arg-type]
        execution_id = world.service.start("w", "1")
        token = world.service.claim(execution_id).token
        start = Update(id="a", type=OperationType.STEP, action=Action.START, name="a")
        answer = await world.commit(execution_id, token, [start])
        assert [one.id for one in answer.operations] == ["a"]
        assert answer.token is not None
        with pytest.raises(ServiceError, match="a marker that was issued with the token"):
            await world.load(execution_id, answer.token, "1")

    asyncio.run(main())


def test_invoked_workflows_are_executions_of_their_own() -> None:
    """With ids of their own, and so idempotency keys: a fake of a provider tells them apart."""
    keys: list[str] = []

    @step
    async def charge() -> None:
        keys.append(current_step().idempotency_key)

    @workflow
    async def inner(ctx: WorkflowContext) -> list[str]:
        await charge()
        return [ctx.execution_id, ctx.execution_name]

    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        await charge()
        found = [await ctx.invoke(inner), await ctx.invoke(inner)]
        return [ctx.execution_id, *found]

    mock_ctx = MockDurableContext()
    mock_ctx.mock_invoke(inner)
    assert create_test_handler(outer, mock_ctx)({}) == [
        "execution-1",
        ["execution-1.inner", "execution-1.inner"],
        ["execution-1.inner.2", "execution-1.inner.2"],
    ]
    assert len(set(keys)) == len(keys) == 3
