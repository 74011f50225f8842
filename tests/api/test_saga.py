from __future__ import annotations

import asyncio
import functools
import signal
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    FatalError,
    RetryableError,
    StepCancelledError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_context,
    current_step,
    step,
    workflow,
)
from pyworkflow._engine.loop.greenlets import Closing
from pyworkflow._engine.messages import Suspended
from pyworkflow._protocol.records import Status
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import ExecutionFailedError, SagaError
from tests.api.world import World, crashes, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class DeclinedError(Exception):
    pass


@pytest.fixture(autouse=True)
def undone() -> list[str]:
    """What the compensations of this test have undone."""
    _undone.clear()
    return _undone


_undone: list[str] = []


@step
async def do(what: str) -> str:
    return what


@step(retry=False)
async def decline() -> None:
    raise DeclinedError("no money")


@step
async def undo(what: str) -> str:
    _undone.append(what)
    return f"undid {what}"


@step
async def undo_later(what: str) -> None:
    if current_step().attempt == 1:
        raise RetryableError("not now", retry_after="1h")
    _undone.append(what)


@step(name="stuck", retry=False)
async def fail_to_undo(what: str) -> None:
    raise LookupError(f"no {what}")


def names(mock_ctx: MockDurableContext) -> list[str]:
    return [operation.name or operation.type.value for operation in mock_ctx.operations]


# -- a block that fails --------------------------------------------------------------------------


@workflow
async def trip(ctx: WorkflowContext) -> None:
    async with ctx.saga() as saga:
        for what in ("hotel", "flight"):
            saga.add(undo, await do(what))
        await decline()


@workflow
def sync_trip(ctx: SyncWorkflowContext) -> None:
    with ctx.saga() as saga:
        for what in ("hotel", "flight"):
            saga.add(undo, do.submit(what).result())
        decline.submit().result()


@pytest.mark.parametrize("each", [trip, sync_trip])
def test_compensations_run_in_reverse_order(each: Any, undone: list[str]) -> None:
    mock_ctx = MockDurableContext()
    with pytest.raises(DeclinedError, match="no money"):
        run(each, None, mock_ctx)
    assert undone == ["flight", "hotel"]
    assert names(mock_ctx) == ["do", "do", "decline", "undo", "undo"]
    assert mock_ctx.checkpoints["undo"] == "undid flight"


def test_with_works_in_async_code_too(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        with ctx.saga() as saga:
            saga.add(undo, await do("hotel"))
            await decline()

    with pytest.raises(DeclinedError):
        run(main)
    assert undone == ["hotel"]


def test_a_block_that_succeeds_undoes_nothing(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        async with ctx.saga() as saga:
            saga.add(undo, await do("hotel"))
        return "booked"

    assert run(main) == "booked"
    assert undone == []


@pytest.mark.parametrize("each", [trip, sync_trip])
def test_a_crash_at_any_checkpoint_undoes_each_once(each: Any, undone: list[str]) -> None:
    calm = MockDurableContext()
    with pytest.raises(DeclinedError):
        run(each, None, calm)
    for checkpoint in range(1, 12):
        undone.clear()
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        with pytest.raises(DeclinedError):
            run(each, None, mock_ctx)
        assert undone == ["flight", "hotel"]
        assert [(o.id, o.status) for o in mock_ctx.operations] == [
            (o.id, o.status) for o in calm.operations
        ]
        if mock_ctx.invocations == calm.invocations:
            break
    assert checkpoint > 4, "crashes happened"


def test_suspension_undoes_nothing(undone: list[str]) -> None:
    seen: list[list[str]] = []

    @step
    async def retried() -> None:
        seen.append(list(_undone))
        if current_step().attempt == 1:
            raise RetryableError(retry_after="1h")

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        async with ctx.saga() as saga:
            saga.add(undo, await do("hotel"))
            ctx.sleep("1d")
            await retried()
            with ctx.saga() as inner:
                inner.add(undo, "inner")
                await asyncio.sleep(3)
                task = asyncio.create_task(retried())
                await task
        return "booked"

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == "booked"
    assert mock_ctx.invocations == 5
    assert seen == [[]] * 4
    assert "undo" not in names(mock_ctx)


def test_compensations_may_wait_and_be_retried(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            async with ctx.saga() as saga:
                saga.add(undo, "first")
                saga.add(undo_later, "second")
                await decline()
        except DeclinedError:
            return ctx.now().isoformat()
        return ""

    results = crashes(main)
    assert results == ["2026-01-01T01:00:00+00:00"] * len(results)
    assert undone == ["second", "first"] * len(results)


def test_nested_sagas_undo_from_the_inside_out(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            async with ctx.saga() as outer:
                outer.add(undo, "outer 1")
                async with ctx.saga() as kept:
                    kept.add(undo, "kept")
                async with ctx.saga() as inner:
                    inner.add(undo, "inner")
                    outer.add(undo, "outer 2")
                    await decline()
        except DeclinedError as error:
            return str(error)
        return "booked"

    assert run(main) == "no money"
    assert undone == ["inner", "outer 2", "outer 1"]


def test_an_error_that_the_block_handles_is_none(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            try:
                await decline()
            except DeclinedError:
                return "paid otherwise"
        return "paid"

    assert run(main) == "paid otherwise"
    assert undone == []


def test_a_saga_in_a_child_workflow(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        async with ctx.saga() as saga:
            saga.add(undo, "around")
            try:
                await trip(ctx)
            except DeclinedError:
                ctx.sleep("1d")  # the child's outcome is recorded
                return "stays at home"
        return "travels"

    results = crashes(main)
    assert results == ["stays at home"] * len(results)
    assert undone == ["flight", "hotel"] * len(results)


# -- what can be a compensation ------------------------------------------------------------------


def test_plain_functions_run_as_steps(undone: list[str]) -> None:
    def plain(what: str, *, how: str) -> object:
        undone.append(f"{current_step().name} {what} {how}")
        return object()  # nobody receives it, so it need not be stored

    async def plain_async(what: str) -> None:
        undone.append(f"{current_step().name} {what}")

    class Client:
        def release(self, what: str) -> None:
            undone.append(f"{current_step().name} {what}")

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(plain, "a", how="fast")
            saga.add(plain_async, "b")
            saga.add(Client().release, "c")
            saga.add(lambda what: plain_async(what), "d")  # noqa: PLW0108 - its name is the point
            saga.add(functools.partial(plain_async, "e"))
            saga.add(undone.append, "f")
            saga.add(undo.options(name="other"), "g")
            await decline()

    mock_ctx = MockDurableContext()
    with pytest.raises(DeclinedError):
        run(main, None, mock_ctx)
    assert undone == [
        *("g", "f", "plain_async e", "compensation d", "release c", "plain_async b"),
        "plain a fast",
    ]
    assert names(mock_ctx)[1:] == [
        *("other", "append", "plain_async", "compensation", "release", "plain_async", "plain")
    ]
    assert mock_ctx.checkpoints["plain"] is None


def test_what_can_be_no_compensation_is_told() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        said = []
        async with ctx.saga() as saga:
            for wrong in (trip, "undo"):
                with pytest.raises(UsageError) as caught:
                    saga.add(wrong)  # type: ignore[arg-type]
                said.append(str(caught.value))
        return said

    a_workflow, text = run(main)
    assert "takes a step or a plain function, not <workflow 'trip'>" in a_workflow
    assert "Pass the function itself, not its call" in text


def test_add_outside_of_the_block_is_an_error(undone: list[str]) -> None:
    async def block(saga: Any) -> None:
        async with saga:
            saga.add(undo, "y")
            await decline()

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        saga = ctx.saga()
        for _ in range(2):
            with pytest.raises(UsageError, match=r"saga.add\(undo\) was called outside of"):
                saga.add(undo, "x")
            with pytest.raises(DeclinedError):
                await block(saga)

    run(main)
    assert undone == ["y", "y"]


def test_a_saga_needs_a_running_workflow() -> None:
    kept: list[WorkflowContext] = []

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        kept.append(ctx)

    run(main)
    with pytest.raises(UsageError, match=r"ctx.saga\(\) was called outside of a running workflow"):
        kept[0].saga()


# -- compensations that fail ---------------------------------------------------------------------


def test_the_others_run_and_all_errors_are_told(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        try:
            async with ctx.saga() as saga:
                for what in ("1", "2", "3"):
                    saga.add(undo, what)
                    saga.add(fail_to_undo.options(name=f"stuck {what}"), what)
                await decline()
        except SagaError as error:
            found = [error.reason, error.__context__, *error.failures]
            return [error.message, *map(repr, found)]
        return []

    assert run(main) == [
        "the saga's block ended with DeclinedError, and these compensations failed: "
        "stuck 3, stuck 2, stuck 1",
        "DeclinedError('no money')",
        "DeclinedError('no money')",
        "LookupError('no 3')",
        "LookupError('no 2')",
        "LookupError('no 1')",
    ]
    assert undone == ["3", "2", "1"]


def test_the_error_comes_out_of_a_child_as_it_is() -> None:
    @workflow
    async def inner(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(fail_to_undo, "hotel")
            await decline()

    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        found = []
        try:
            await inner(ctx)
        except SagaError as error:
            found += [repr(error.reason), repr(error.failures[0])]
        try:
            await inner(ctx)
        except* DeclinedError as group:
            found.append(repr(group.exceptions[0]))
        except* LookupError:
            found.append("and the other")
        return found

    results = crashes(main)
    expected = ["DeclinedError('no money')", "LookupError('no hotel')"]
    assert results == [[*expected, expected[0], "and the other"]] * len(results)


def test_a_compensation_that_can_not_begin_has_failed(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        try:
            async with ctx.saga() as saga:
                saga.add(undo, "first")
                for _ in range(2):
                    saga.add(undo.options(key="same"), "keyed")
                await decline()
        except SagaError as error:
            return [str(each) for each in error.failures]
        return []

    (said,) = run(main)
    assert "the key 'same' is used twice" in said
    assert undone == ["keyed", "first"]


# -- cancellation --------------------------------------------------------------------------------


async def book(ctx: WorkflowContext, compensation: Any = undo) -> None:
    async with ctx.saga() as saga:
        saga.add(undo, await do("hotel"))
        saga.add(compensation, "flight")
        ctx.sleep("1d")


def test_a_timeout_around_the_block_undoes_it(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        try:
            async with asyncio.timeout(60):
                await book(ctx, undo_later)
        except TimeoutError:
            return [*_undone, ctx.now().isoformat()]
        return []

    assert run(main) == ["flight", "hotel", "2026-01-01T01:01:00+00:00"]


def test_a_cancellation_goes_on_when_all_is_undone(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        task = asyncio.create_task(book(ctx, undo_later))
        ctx.sleep(5)
        task.cancel("enough")
        ctx.sleep(5)
        task.cancel()  # while its compensations run
        await asyncio.wait([task])
        return [task.cancelled(), *_undone]

    mock_ctx = MockDurableContext(strict=False)  # what it returns is not recorded
    assert run(main, None, mock_ctx) == [True, "flight", "hotel"]
    assert [o.status for o in mock_ctx.operations if o.name == "undo_later"] == [Status.SUCCEEDED]


def test_a_cancellation_while_an_error_is_undone(undone: list[str]) -> None:
    async def failing(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            saga.add(undo_later, "flight")
            await decline()

    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        try:
            async with asyncio.timeout(60):
                await failing(ctx)
        except TimeoutError as error:
            cancelled = error.__cause__
            assert isinstance(cancelled, asyncio.CancelledError)
            return [type(cancelled.__context__).__name__, *_undone]
        return []

    mock_ctx = MockDurableContext(strict=False)
    assert run(main, None, mock_ctx) == ["DeclinedError", "flight", "hotel"]


def test_a_cancelled_block_tells_its_failures_in_the_log(
    undone: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(60):
                await book(ctx, fail_to_undo)
        except TimeoutError:
            ctx.sleep("1d")  # on the replay it is not told again
            return "late"
        return "booked"

    assert run(main) == "late"
    assert undone == ["hotel"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "the saga's block ended with CancelledError, and these compensations failed: stuck"
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_tasks_that_are_left_at_the_end_are_undone(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(book(ctx, undo_later))
        ctx.sleep(5)
        return f"{task.done()}"

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == "False"
    assert undone == ["flight", "hotel"]


# -- several at once -----------------------------------------------------------------------------


def test_branches_of_a_group_add_to_one_saga(undone: list[str]) -> None:
    async def one(saga: Any, what: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        saga.add(undo, await do(what))

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        said = "booked"
        try:
            async with ctx.saga() as saga, asyncio.TaskGroup() as group:
                group.create_task(one(saga, "late", 100))
                group.create_task(one(saga, "b", 2))
                group.create_task(one(saga, "a", 1))
                await asyncio.sleep(5)
                await decline()
        except* DeclinedError:
            said = "declined"
        return said

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == "declined"
    assert undone == ["b", "a"]


def test_a_branch_that_outlives_gather_is_undone_as_long_as_the_saga_lasts(
    undone: list[str],
) -> None:
    async def one(saga: Any, what: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        saga.add(undo, await do(what))

    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        tasks: list[asyncio.Task[None]] = []
        try:
            async with ctx.saga() as saga:
                saga.add(undo_later, "first")  # takes an hour
                tasks = [asyncio.create_task(one(saga, w, s)) for w, s in (("a", 60), ("b", 7200))]
                await asyncio.gather(*tasks, decline())
        except DeclinedError:
            await asyncio.wait(tasks)
            return [str(task.exception())[:14] for task in tasks]
        return []

    assert run(main) == ["None", "saga.add(undo)"]
    assert undone == ["first", "a"]


# -- what is no failure --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Closing, ValueError])
def test_a_disposed_run_undoes_nothing(error: type[BaseException], undone: list[str]) -> None:
    passed: list[type[BaseException]] = []

    async def block(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            try:
                ctx.sleep("1d")
            except Closing:
                raise error from None  # whatever the code makes of it

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        try:
            await block(ctx)
        except BaseException as found:
            passed.append(type(found))
            raise

    world = World()
    assert isinstance(world.invoke(main), Suspended)
    assert world.names() == ["WAIT"]
    assert passed == [error]
    assert undone == []


def test_a_generator_that_is_closed_undoes_nothing(undone: list[str]) -> None:
    async def parts() -> AsyncGenerator[str, None]:
        async with current_context().saga() as saga:
            for what in ("a", "b"):
                saga.add(undo, await do(what))
                yield what

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        generator = parts()
        first = await anext(generator)
        await generator.aclose()
        return first

    assert run(main) == "a"
    assert undone == []


def test_a_signal_that_ends_the_process_undoes_nothing(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            signal.raise_signal(signal.SIGINT)

    mock_ctx = MockDurableContext(strict=False)
    with pytest.raises(KeyboardInterrupt):
        run(main, None, mock_ctx)
    assert names(mock_ctx) == []
    assert undone == []


def test_an_exit_of_the_block_undoes_what_was_done(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            raise SystemExit(3)

    with pytest.raises(ExecutionFailedError, match="SystemExit: 3"):
        run(main)
    assert undone == ["hotel"]


def test_a_step_that_was_cancelled_in_the_block_may_be_undone(undone: list[str]) -> None:
    """Its effect may have happened: the compensation was added before."""

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(60), ctx.saga() as saga:
                saga.add(undo, "hotel")
                await do("hotel")
        except TimeoutError:
            return "late"
        return "booked"

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("do", result="hotel", takes="1h")
    assert run(main, None, mock_ctx) == "late"
    assert undone == ["hotel"]
    (booking,) = (o for o in mock_ctx.operations if o.name == "do")
    assert booking.error is not None
    assert booking.error.type.endswith(StepCancelledError.__name__)


def test_a_fatal_error_is_one_like_any_other(undone: list[str]) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(undo, "hotel")
            raise FatalError("sold out")

    with pytest.raises(FatalError, match="sold out"):
        run(main)
    assert undone == ["hotel"]
