from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow import step, workflow
from pyworkflow._engine.messages import Broken, Failed, Succeeded, Suspended
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._protocol.records import ErrorRecord, OperationType, Status
from pyworkflow.errors import ChildContextError, FatalError, SerializationError, UsageError
from tests.engine.harness import Run, actions


@step
async def a() -> Any: ...


@step
async def b() -> Any: ...


@workflow
async def leaf(name: str) -> Any:
    return await a.options(name=name)()


@workflow
async def tree() -> Any:
    return [await leaf("x"), await leaf("y")]


async def main() -> Any:
    result = await tree()
    return [result, await b()]


# -- outcomes ------------------------------------------------------------------------------------


def test_its_start_rides_along_and_its_outcome_is_durable_before_the_parent_sees_it() -> None:
    async def one() -> Any:
        return await leaf("x")

    run = Run(one)
    assert run.launched == [("x", 1)]
    assert run.in_flight is None
    run.ok("x", 1)
    assert actions(run.in_flight) == ["START leaf", "START x", "SUCCEED x"]
    run.commit()
    assert actions(run.in_flight) == ["SUCCEED leaf"]
    assert run.end is None
    run.commit()
    assert run.value == 1
    child, inner = run.service.named("leaf")[0], run.service.named("x")[0]
    assert inner.parent_id == child.id


def test_a_recorded_end_skips_the_code_and_all_below() -> None:
    run = Run(main)
    run.done("x", 1)
    run.done("y", 2)
    assert [o.status for o in run.service.named("leaf")] == [Status.SUCCEEDED] * 2
    run = run.crash(main)
    assert [op.name for op in run.trace.issued] == ["tree", "b"]
    assert run.launched == [("b", 1)]
    run.done("b", 3)
    assert run.value == [[1, 2], 3]


def test_found_started_its_code_runs_over_what_is_recorded_below() -> None:
    run = Run(main)
    run.done("x", 1)
    run = run.crash(main)
    assert [op.name for op in run.trace.issued] == ["tree", "leaf", "leaf", "y"]
    assert run.launched == [("y", 1)]
    run.done("y", 2)
    run.done("b", 3)
    assert run.value == [[1, 2], 3]


@pytest.mark.parametrize("is_replay", [False, True])
def test_a_failure_is_rebuilt_from_its_record(is_replay: bool) -> None:
    error = FatalError("no")

    @workflow
    async def failing() -> Any:
        raise error

    async def outer() -> Any:
        try:
            await failing()
        except FatalError as caught:
            return [caught is error, str(caught)]

    run = Run(outer)
    assert actions(run.in_flight) == ["START failing", "FAIL failing"]
    run.commit()
    if is_replay:
        run = run.crash(outer)
    assert run.value == [False, "no"]


def test_an_unknown_failure_is_a_child_context_error() -> None:
    async def one() -> Any:
        return await leaf("x")

    run = Run(one)
    run.done("x")
    child = run.service.named("leaf")[0]
    failed = replace(child, status=Status.FAILED, error=ErrorRecord("no", "gone.Error"))
    run.service.operations[child.id] = failed
    run = run.crash(one)
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, ChildContextError)


def test_a_result_that_cannot_be_stored_is_its_failure() -> None:
    @workflow
    async def bad() -> Any:
        return object()

    async def outer() -> Any:
        try:
            await bad()
        except SerializationError as error:
            return str(error)

    run = Run(outer)
    assert actions(run.in_flight) == ["START bad", "FAIL bad"]
    run.commit()
    assert "the result of 'bad'" in run.value.lower()


def test_a_recorded_result_that_no_longer_fits_is_told() -> None:
    @workflow
    async def typed() -> int:
        return 1

    async def outer() -> Any:
        return await typed()

    run = Run(outer)
    run.commit()
    child = run.service.named("typed")[0]
    run.service.operations[child.id] = replace(child, payload='"text"')
    run = run.crash(outer)
    assert isinstance(run.end, Broken)
    assert "RunInChildContext 'typed'" in str(run.end.error)


def test_it_blocks_in_sync_code() -> None:
    @workflow
    def inner(ctx: Any) -> Any:
        ctx.sleep(1)
        return a.options(name="x").submit().result()

    @workflow
    def bad() -> Any:
        raise FatalError("no")

    def outer(ctx: Any) -> Any:
        value = inner(ctx)
        try:
            bad()
        except FatalError as error:
            return [value, str(error)]

    run = Run(outer)
    run.settle()
    run = run.wake(outer)
    run.done("x", 4)
    assert run.value == [4, "no"]
    run = run.crash(outer)
    assert run.value == [4, "no"]


# -- what is left behind -------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_tasks_and_steps_left_inside_are_settled_before_its_end(
    is_async: bool, fails: bool
) -> None:
    def leave_behind() -> None:
        tasks.append(asyncio.create_task(lost()))
        a.options(name="submitted").submit().add_done_callback(print)

    tasks: list[asyncio.Task[Any]] = []

    async def lost() -> None:
        try:
            await a.options(name="lost")()
        finally:
            await a.options(name="clean")()

    def end() -> None:
        if fails:
            raise FatalError("no")

    @workflow
    async def in_async() -> None:
        leave_behind()
        await b()
        end()

    @workflow
    def in_sync() -> None:
        leave_behind()
        b.submit().result()
        end()

    async def outer() -> Any:
        with contextlib.suppress(FatalError):
            await in_async() if is_async else in_sync()
        await asyncio.sleep(5)

    run = Run(outer)
    run.ok("b")
    run.commit()
    assert run.cancelled == ["lost"]
    assert run.launched[-1] == ("clean", 1)
    assert not any("in_" in each for each in actions(run.in_flight))
    run.settle()
    run.done("clean")
    updates = [each for batch in run.service.batches for each in actions(batch)]
    ends = [each for each in updates if "in_" in each and "START" not in each]
    assert len(ends) == 1
    assert run.service.named("submitted")[0].status is Status.FAILED
    assert updates.index("FAIL submitted") < updates.index(ends[0])
    assert isinstance(run.end, Suspended)


def test_tasks_that_a_cleanup_makes_are_settled_too() -> None:
    async def late() -> None:
        for _ in range(9):
            await asyncio.sleep(0)
        await a.options(name="too late")()

    tasks: list[asyncio.Task[Any]] = []

    @workflow
    async def child() -> None:
        async def lost() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                tasks.append(asyncio.create_task(late()))

        tasks.append(asyncio.create_task(lost()))
        await b()

    async def outer() -> Any:
        await child()
        return await a()

    run = Run(outer)
    run.done("b")
    assert run.service.named("child")[0].status is Status.SUCCEEDED
    run.done("a", 1)
    assert run.value == 1
    assert run.service.named("too late") == []


@pytest.mark.parametrize("is_async", [True, False])
def test_nothing_durable_happens_below_it_once_it_is_over(is_async: bool) -> None:
    seen: list[BaseException] = []

    def attempt(_: object) -> None:
        for act in (lambda: asyncio.create_task(a()), a.submit):
            with pytest.raises(UsageError, match="below a child context that is over") as caught:
                act()
            seen.append(caught.value)

    @workflow
    async def child(future: Any) -> None:
        future.add_done_callback(attempt)
        await b()

    @workflow
    def sync_child(future: Any) -> None:
        future.add_done_callback(attempt)
        b.submit().result()

    async def outer() -> Any:
        future = asyncio.get_running_loop().create_future()
        await child(future) if is_async else sync_child(future)
        future.set_result(1)
        return await a()

    run = Run(outer)
    run.done("b")
    assert len(seen) == 2
    run.done("a", 1)
    assert run.value == 1


def test_a_callback_made_inside_takes_its_numbers_inside() -> None:
    async def background() -> None:
        await a.options(name="inside")()

    tasks: list[asyncio.Task[Any]] = []

    @workflow
    async def child() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: tasks.append(asyncio.create_task(background())))
        await b()
        await tasks[-1]

    async def outer() -> Any:
        await child()
        return await a()

    run = Run(outer)
    child_op = run.trace.issued[0]
    assert [op.scope.operation_id for op in run.trace.issued] == [None, child_op.id, child_op.id]
    run.done("b")
    run.done("inside")
    run = run.crash(outer)
    assert run.launched == [("a", 1)]
    run.done("a", 1)
    assert run.value == 1
    assert isinstance(run.crash(outer).end, Succeeded)


# -- cancelled from outside ----------------------------------------------------------------------


def test_cancelled_from_outside_it_stays_open_and_what_it_left_ends() -> None:
    unwound: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    async def lost() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append(await a.options(name="clean")())

    @workflow
    async def child() -> None:
        tasks.append(asyncio.create_task(lost()))
        await a()

    async def outer() -> Any:
        task = asyncio.create_task(child())
        await b()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    run = Run(outer)
    run.ok("b")
    run.commit()
    assert run.cancelled == ["a"]
    run.done("clean", "yes")
    assert unwound == ["yes"]
    assert run.value is True
    assert run.service.named("child")[0].status is Status.STARTED
    again = run.crash(outer)
    assert again.value is True
    assert again.launched == []


def test_cancelled_once_more_it_still_waits_for_what_it_left() -> None:
    log: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await a.options(name="clean")()
            except asyncio.CancelledError:
                log.append("cancelled again")
                await asyncio.Event().wait()

    @workflow
    async def child() -> None:
        tasks.append(asyncio.create_task(stubborn()))
        await a()

    async def outer() -> Any:
        task = asyncio.create_task(child())
        await b()
        task.cancel()
        await b.options(name="c")()
        task.cancel()
        return "done"

    run = Run(outer)
    run.done("b")
    assert ("clean", 1) in run.launched
    run.done("c")
    assert log == ["cancelled again"]
    assert run.value == "done"
    run.close()
    assert tasks[0].get_coro().cr_frame is None  # type: ignore[union-attr]


def test_cancelled_while_its_outcome_is_on_its_way() -> None:
    async def outer() -> Any:
        task = asyncio.create_task(leaf("x"))
        await b()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    run = Run(outer)
    run.ok("b")
    run.ok("x")
    run.commit()
    # b's end came first, so x's is passed by.
    assert run.service.named("leaf")[0].status is Status.STARTED
    run.settle()
    assert run.value is True
    assert run.crash(outer).value is True

    run = Run(outer)
    run.ok("x")
    run.ok("b")
    run.commit()
    assert actions(run.in_flight) == ["SUCCEED leaf", "SUCCEED b"] or actions(run.in_flight) == [
        "SUCCEED b",
        "SUCCEED leaf",
    ]
    run.commit()
    cancelled = run.value
    assert run.crash(outer).value is cancelled


def test_a_sync_child_is_cancelled_and_settles() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def lost() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await a.options(name="clean")()

    @workflow
    def child() -> None:
        tasks.append(asyncio.create_task(lost()))
        a.submit().result()

    async def in_task() -> None:
        child()

    async def outer() -> Any:
        task = asyncio.create_task(in_task())
        await b()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    run = Run(outer)
    run.done("b")
    run.done("clean")
    assert run.value is True


def test_it_knows_its_type() -> None:
    run = Run(main)
    op = run.trace.issued[0]
    assert isinstance(op, ChildOp)
    assert op.type is OperationType.CONTEXT
    assert op.namespace.prefix == op.id
