from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from pyworkflow import (
    FatalError,
    Retry,
    SerializationError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import CallbackError, CallbackTimeoutError, DurationError
from tests.api.world import crashes, run


@dataclass
class Approval:
    approved: bool
    by: str = ""


def completing(name: str, result: Any = None, **options: Any) -> MockDurableContext:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback(name, result, **options)
    return mock_ctx


# -- ctx.callback --------------------------------------------------------------------------------


def test_the_senders_json_becomes_the_result_type() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        callback = ctx.callback("approval", timeout="7d", result_type=Approval)
        found = await callback.result()
        return [found.approved, found.by, repr(callback), callback.id.startswith(ctx.execution_id)]

    mock_ctx = completing("approval", Approval(True, "ada"), after="2d")
    assert run(asks, {}, mock_ctx) == [True, "ada", "<callback 'approval'>", True]
    (operation,) = mock_ctx.operations
    assert (operation.end_ms or 0) - operation.start_ms == 2 * 86_400_000


def test_in_a_def_workflow_it_blocks() -> None:
    @workflow
    def asks(ctx: SyncWorkflowContext) -> list[Any]:
        callback = ctx.callback("approval", result_type=Approval)
        unnamed = ctx.callback()
        approved = callback.result().approved
        return [approved, repr(callback), repr(unnamed) == f"<callback {unnamed.id!r}>"]

    mock_ctx = completing("approval", {"approved": True})
    assert run(asks, {}, mock_ctx) == [True, "<callback 'approval'>", True]


def test_a_timeout_may_be_escalated_and_the_callback_still_be_answered() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        callback = ctx.callback("approval", timeout="7d")
        try:
            return [await asyncio.wait_for(callback.result(), 3600)]
        except TimeoutError:
            return ["escalated", await callback.result()]

    assert run(asks, {}, completing("approval", "yes", after="30m")) == ["yes"]
    assert run(asks, {}, completing("approval", "yes", after="2h")) == ["escalated", "yes"]
    mock_ctx = MockDurableContext()
    with pytest.raises(CallbackTimeoutError, match="Callback.Timeout") as caught:
        run(asks, {}, mock_ctx)
    assert not caught.value.is_heartbeat


def test_several_are_awaited_at_once() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        callbacks = [ctx.callback(name) for name in ("a", "b")]
        return await asyncio.gather(*(callback.result() for callback in callbacks))

    mock_ctx = completing("a", 1, after="2h")
    mock_ctx.complete_callback("b", 2, after="1h")
    assert run(asks, {}, mock_ctx) == [1, 2]


def test_it_survives_crashes() -> None:
    @step
    async def work() -> str:
        return "worked"

    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        callback = ctx.callback("approval", timeout="1m")
        worked = await work()
        try:
            await callback.result()
        except CallbackTimeoutError as error:
            return [worked, error.error_type]
        raise AssertionError

    results = crashes(asks)
    assert all(result == ["worked", "Callback.Timeout"] for result in results)


def test_a_key_is_an_identity_of_its_own() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        callback = ctx.callback("approval", key="the-one", timeout=5)
        with pytest.raises(UsageError, match="used twice"):
            ctx.callback("other", key="the-one")
        with pytest.raises(UsageError, match="key of callback 'x'"):
            ctx.callback("x", key="")
        return await callback.result()

    assert run(asks, {}, completing("approval", 3)) == 3


def test_a_result_that_nobody_awaited_is_an_error() -> None:
    @workflow
    async def forgets(ctx: WorkflowContext) -> None:
        callback = ctx.callback("approval")
        callback.result()  # type: ignore[unused-coroutine]

    with pytest.raises(UsageError, match="the result of <callback 'approval'>: called but never"):
        run(forgets)


def test_the_log_is_silent_about_what_was_logged_before(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        callback = ctx.callback("approval")
        ctx.logger.warning("asked")
        return await callback.result()

    with caplog.at_level(logging.WARNING, "pyworkflow.workflow"):
        run(asks, {}, completing("approval"))
    assert caplog.messages == ["asked"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"timeout": "5"}, DurationError, "no unit"),
        ({"timeout": 0}, UsageError, "timeout of callback 'x' must be longer than 0; leave it out"),
        ({"heartbeat_timeout": 0}, UsageError, "heartbeat_timeout of callback 'x' must be longer"),
        ({"timeout": 60, "heartbeat_timeout": 61}, UsageError, "61 s, longer than its timeout of"),
        ({"timeout": "367d"}, DurationError, "longer than 366 days"),
        ({"result_type": object()}, SerializationError, "the result of callback 'x'"),
    ],
)
def test_options_that_cannot_be_are_told_before_anything_is_recorded(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> None:
        ctx.callback("x", **options)

    mock_ctx = MockDurableContext()
    with pytest.raises(error, match=f"(?i){says}"):
        run(asks, {}, mock_ctx)
    assert mock_ctx.operations == ()


def test_fractions_of_a_second_round_up() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        try:
            await ctx.callback("x", timeout=1.2).result()
        except CallbackTimeoutError:
            return None

    mock_ctx = MockDurableContext()
    run(asks, {}, mock_ctx)
    (operation,) = mock_ctx.operations
    assert (operation.end_ms or 0) - operation.start_ms == 2000


def test_names_are_checked() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> None:
        ctx.callback("naïve")

    with pytest.raises(UsageError, match="printable ASCII"):
        run(asks)


# -- ctx.wait_for_callback -----------------------------------------------------------------------


def shapes(mock_ctx: MockDurableContext) -> list[tuple[str, str | None, str | None, str]]:
    return [(op.type, op.subtype, op.name, op.status) for op in mock_ctx.operations]


def test_it_is_a_context_with_a_callback_and_a_step() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        async def send(callback_id: str) -> str:
            mock_ctx.complete_callback(callback_id, {"approved": True}, after="1h")
            return "dropped"

        found = await ctx.wait_for_callback(send, "ask", timeout="1d", result_type=Approval)
        return [found.approved]

    mock_ctx = MockDurableContext()
    assert run(asks, {}, mock_ctx) == [True]
    assert shapes(mock_ctx) == [
        ("CONTEXT", "WaitForCallback", "ask", "SUCCEEDED"),
        ("CALLBACK", "Callback", "ask create callback id", "SUCCEEDED"),
        ("STEP", "Step", "ask submitter", "SUCCEEDED"),
    ]
    context, callback, submitter = mock_ctx.operations
    assert callback.parent_id == submitter.parent_id == context.id
    assert mock_ctx.checkpoints == {"ask submitter": None}


def test_without_a_name_its_parts_have_no_leading_one() -> None:
    @workflow
    def asks(ctx: SyncWorkflowContext) -> Any:
        return ctx.wait_for_callback(lambda i: mock_ctx.complete_callback(i, 5), result_type=int)

    mock_ctx = MockDurableContext()
    assert run(asks, {}, mock_ctx) == 5
    assert [name for _, _, name, _ in shapes(mock_ctx)] == [None, "create callback id", "submitter"]


def sync_submit(mock_ctx: MockDurableContext) -> Any:
    def submit(callback_id: str) -> None:
        assert current_step().name == "ask submitter"
        mock_ctx.complete_callback(callback_id, "sync")

    return submit


def async_submit(mock_ctx: MockDurableContext) -> Any:
    async def submit(callback_id: str) -> None:
        assert current_step().name == "ask submitter"
        mock_ctx.complete_callback(callback_id, "async")

    return submit


def lambda_submit(mock_ctx: MockDurableContext) -> Any:
    submit = async_submit(mock_ctx)
    return lambda callback_id: submit(f"{callback_id}")


def step_submit(mock_ctx: MockDurableContext) -> Any:
    return step(async_submit(mock_ctx))


def object_submit(mock_ctx: MockDurableContext) -> Any:
    class Submit:
        async def __call__(self, callback_id: str) -> None:
            mock_ctx.complete_callback(callback_id, "object")

    return Submit()


@pytest.mark.parametrize(
    "make", [sync_submit, async_submit, lambda_submit, step_submit, object_submit]
)
def test_submit_is_any_function_of_the_id(make: Any) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_callback(submit, "ask")

    mock_ctx = MockDurableContext()
    submit = make(mock_ctx)
    assert run(asks, {}, mock_ctx) in {"sync", "async", "object"}


def test_submit_is_tried_again_by_its_own_policy_and_its_error_is_its_own() -> None:
    attempts: list[int] = []

    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        async def send(callback_id: str) -> None:
            attempts.append(current_step().attempt)
            raise ConnectionError("down")

        try:
            return await ctx.wait_for_callback(send, "ask", retry=Retry(max_attempts=2, delay=1))
        except ConnectionError as error:
            return str(error)

    mock_ctx = MockDurableContext()
    assert run(asks, {}, mock_ctx) == "down"
    assert attempts == [1, 2]
    assert [status for *_, status in shapes(mock_ctx)] == ["FAILED", "STARTED", "FAILED"]


def test_a_fatal_error_of_submit_is_not_tried_again() -> None:
    @workflow
    def asks(ctx: SyncWorkflowContext) -> Any:
        def send(callback_id: str) -> None:
            raise FatalError("no such user")

        return ctx.wait_for_callback(send, "ask")

    with pytest.raises(FatalError, match="no such user"):
        run(asks)


@pytest.mark.parametrize("kind", ["failure", "timeout", "heartbeat"])
def test_its_errors_are_those_of_the_callback(kind: str) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[Any]:
        try:
            await ctx.wait_for_callback(
                lambda callback_id: None, "ask", timeout="1d", heartbeat_timeout="1h"
            )
        except CallbackError as error:
            return [type(error).__name__, error.error_type, error.message]
        raise AssertionError

    mock_ctx = MockDurableContext()
    if kind == "failure":
        mock_ctx.fail_callback("ask", ValueError("no"))
        expected = ["CallbackError", "ValueError", "no"]
    elif kind == "timeout":
        for minutes in range(0, 24 * 60, 50):
            mock_ctx.heartbeat_callback("ask", after=minutes * 60)
        expected = ["CallbackTimeoutError", "Callback.Timeout", "Callback timed out"]
    else:
        mock_ctx.heartbeat_callback("ask", after="30m")
        message = "Callback timed out on heartbeat"
        expected = ["CallbackTimeoutError", "Callback.Heartbeat", message]
    assert run(asks, {}, mock_ctx) == expected


def test_it_is_lazy_and_may_be_gathered() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        waits = [ctx.wait_for_callback(lambda i: None, name) for name in ("a", "b")]
        return await asyncio.gather(*waits)

    mock_ctx = completing("a", 1, after="2h")
    mock_ctx.complete_callback("b", 2, after="2h")
    assert run(asks, {}, mock_ctx) == [1, 2]
    callbacks = [op for op in mock_ctx.operations if op.type == "CALLBACK"]
    assert callbacks[0].end_ms == callbacks[1].end_ms, "they were waited for at the same time"


def test_one_that_nobody_awaited_is_an_error() -> None:
    @workflow
    async def forgets(ctx: WorkflowContext) -> None:
        ctx.wait_for_callback(lambda i: None, "ask")  # type: ignore[unused-coroutine]

    with pytest.raises(UsageError, match="wait_for_callback of callback 'ask': called but never"):
        run(forgets)


def test_a_key_is_its_context_s() -> None:
    @workflow
    def asks(ctx: SyncWorkflowContext) -> Any:
        with pytest.raises(UsageError, match="key of callback 'x'"):
            ctx.wait_for_callback(lambda i: None, "x", key="")
        return ctx.wait_for_callback(lambda i: None, "ask", key="the-one")

    assert run(asks, {}, completing("ask", 1)) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("no function",), {}, "takes a function of the callback's id, not 'no function'"),
        ((print, "n" * 250), {}, "must have 1 to 256 characters, not 269"),
        ((print,), {"retry": 0}, "retry"),
        ((print,), {"timeout": 0}, "the timeout of a callback must be longer than 0"),
    ],
)
def test_arguments_that_cannot_be_are_told(
    arguments: tuple[Any, ...], options: dict[str, Any], says: str
) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> None:
        await ctx.wait_for_callback(*arguments, **options)

    with pytest.raises(UsageError, match=says):
        run(asks)


def test_it_survives_crashes_and_hands_out_one_id() -> None:
    ids: list[str] = []

    @workflow
    async def asks(ctx: WorkflowContext) -> str:
        async def send(callback_id: str) -> None:
            ids.append(callback_id.partition(".")[2])

        try:
            await ctx.wait_for_callback(send, "ask", timeout=5)
        except CallbackTimeoutError:
            return "late"
        raise AssertionError

    assert set(crashes(asks)) == {"late"}
    assert len(set(ids)) == 1


# -- where it can't be used ----------------------------------------------------------------------


def test_a_result_is_awaited_in_the_run_that_created_the_callback() -> None:
    kept: dict[str, Any] = {}

    @workflow
    async def leaves(ctx: WorkflowContext) -> None:
        kept["async"] = ctx.callback("approval")

    @workflow
    def leaves_blocking(ctx: SyncWorkflowContext) -> None:
        kept["sync"] = ctx.callback("approval")

    @workflow
    async def other(ctx: WorkflowContext) -> str:
        with pytest.raises(UsageError, match="outside the run that created it"):
            await kept["async"].result()
        with pytest.raises(UsageError, match="outside the run that created it"):
            kept["sync"].result()
        return "told"

    run(leaves)
    run(leaves_blocking)
    message = (
        "the result of <callback 'approval'> was requested outside the run that created it, "
        "that of execution 'execution-1'"
    )
    with pytest.raises(UsageError, match=message):
        asyncio.run(kept["async"].result())
    with pytest.raises(UsageError, match=message):
        kept["sync"].result()
    assert run(other) == "told"


def test_inside_a_step_there_are_none() -> None:
    @step
    async def body(ctx: Any) -> None:
        ctx.callback("x")

    kept: list[Any] = []

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        kept.append(ctx)
        await asking()

    @step(retry=False)
    async def asking() -> None:
        kept[0].callback("x")

    with pytest.raises(UsageError, match=r"ctx.callback\(\) was called inside step 'asking'"):
        run(main)
