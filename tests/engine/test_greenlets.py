from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from greenlet import greenlet

from pyworkflow import UsageError, WorkflowContext, sleep, step, workflow
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.loop import greenlets
from pyworkflow._engine.loop.greenlets import REFUSALS, Closing
from pyworkflow._engine.messages import Turn
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import ExecutionFailedError
from tests.engine.loops import World

KNOWN = KnownErrors.snapshot()

variable: ContextVar[int] = ContextVar("variable", default=0)


@step
async def charge(amount: int) -> int:
    return amount


@step
def look_up(amount: int) -> int:
    return amount


@step(inline=True)
def note(amount: int) -> int:
    return amount


@step(retry=False)
def bad() -> None:
    raise ValueError("bad")


def parked() -> int:
    return len(greenlets._parked)


class Run:
    """A run of workflow code that is driven by hand: until idle, then disposed of."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.execution = Execution("execution", "name", KNOWN)
        is_async = inspect.iscoroutinefunction(function)
        context = (WorkflowContext if is_async else SyncWorkflowContext)(self.execution)
        self.execution.start(partial(function, context), Any, ())
        self.turn: Turn = self.execution.advance()

    def close(self) -> None:
        self.execution.close()


# -- blocking ------------------------------------------------------------------------------------


def test_blocked_code_goes_on_with_the_result() -> None:
    world = World()
    future = world.loop.create_future()

    async def main() -> Any:
        return world.greenlets.wait(future)

    task = world.start(main())
    assert not task.done()
    assert task.blocked_on is future
    world.run(lambda: future.set_result("value"))
    assert task.result() == "value"
    assert task.blocked_on is None


def test_what_is_done_does_not_block() -> None:
    world = World()
    log: list[Any] = []
    done = world.loop.create_future()
    done.set_result(1)

    async def main() -> None:
        world.loop.call_soon(log.append, "later")
        log.append(world.greenlets.wait(done))

    world.start(main())
    assert log == [1, "later"]


def test_errors_come_through_with_the_lines_of_the_caller() -> None:
    world = World()
    future = world.loop.create_future()

    def inner() -> None:
        world.greenlets.wait(future)

    async def main() -> None:
        inner()

    task = world.start(main())
    world.run(lambda: future.set_exception(ValueError("bad")))
    error = task.exception()
    assert isinstance(error, ValueError)
    names, traceback = [], error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[:2] == ["main", "inner"]


def test_other_tasks_go_on_while_one_is_blocked() -> None:
    world = World()
    log: list[str] = []
    first, second = world.loop.create_future(), world.loop.create_future()

    async def blocked(name: str, future: Any) -> None:
        log.append(f"{name} blocks")
        log.append(f"{name} has {world.greenlets.wait(future)}")
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        log.append(f"{name} ends")

    async def free() -> None:
        for number in range(2):
            log.append(f"free {number}")
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(blocked("a", first), free(), blocked("b", second))

    task = world.start(main())
    assert log == ["a blocks", "free 0", "b blocks", "free 1"]
    del log[:]
    world.run(lambda: first.set_result(1), lambda: second.set_result(2))
    assert log == ["a has 1", "a ends", "b has 2", "b ends"]
    assert task.done()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_blocked_tasks_go_on_in_the_order_of_their_facts(order: tuple[int, ...]) -> None:
    """Whatever lies deeper in which stack."""
    world = World()
    log: list[int] = []
    futures = [[world.loop.create_future() for _ in range(3)] for _ in range(3)]

    async def work(number: int) -> None:
        for future in futures[number]:
            world.greenlets.wait(future)
            log.append(number)

    async def main() -> None:
        await asyncio.gather(*(work(i) for i in range(3)))

    task = world.start(main())
    for turn in range(3):
        for number in order:
            world.run(partial(futures[number][turn].set_result, None))
    assert log == list(order) * 3
    assert task.done()


def test_two_tasks_may_wait_for_one_future() -> None:
    world = World()
    future = world.loop.create_future()

    async def work() -> Any:
        return world.greenlets.wait(future)

    async def main() -> Any:
        return await asyncio.gather(work(), work())

    task = world.start(main())
    world.run(lambda: future.set_result(1))
    assert task.result() == [1, 1]


def test_the_running_task_and_its_variables_are_its_own_again() -> None:
    world = World()
    futures = [world.loop.create_future() for _ in range(2)]

    async def work(number: int) -> list[Any]:
        me = asyncio.current_task()
        variable.set(number)
        world.greenlets.wait(futures[number])
        return [asyncio.current_task() is me, variable.get()]

    async def main() -> Any:
        return await asyncio.gather(work(0), work(1))

    task = world.start(main())
    world.run(lambda: futures[1].set_result(None), lambda: futures[0].set_result(None))
    assert task.result() == [[True, 0], [True, 1]]


def test_a_task_that_is_cancelled_does_not_block() -> None:
    world = World()
    future = world.loop.create_future()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        world.greenlets.wait(future)

    assert world.start(main()).cancelled()
    assert future.cancelled()


@pytest.mark.parametrize("is_over", [True, False])
def test_cancellation_is_thrown_into_blocked_code(*, is_over: bool) -> None:
    world = World()
    future = world.loop.create_future()
    log: list[str] = []

    async def main() -> None:
        try:
            world.greenlets.wait(future)
        except asyncio.CancelledError:
            log.append("cancelled")

    def cancel() -> None:
        if is_over:
            future.set_result(None)
        task.cancel()

    task = world.start(main())
    world.run(cancel)
    assert log == ["cancelled"]
    assert future.cancelled() is not is_over


def test_a_bare_callback_can_not_block() -> None:
    world = World()
    future = world.loop.create_future()
    world.loop.call_soon(world.greenlets.wait, future)
    world.run()
    (error,) = world.errors()
    assert isinstance(error, UsageError)
    assert "Start a task in the callback" in str(error)
    assert future.cancelled()


@pytest.mark.parametrize("call", [lambda ctx: note(1), lambda ctx: ctx.sleep(5)])
def test_blocking_in_a_bare_callback_does_nothing_durable(
    call: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def order(ctx: Any) -> int:
        asyncio.get_running_loop().call_soon(call, ctx)
        await asyncio.sleep(0)
        return await charge(1)

    mock = MockDurableContext()
    assert create_test_handler(order, mock)({}) == 1
    assert [op.name for op in mock.operations] == ["charge"]
    assert "blocking code was called from a bare callback" in caplog.text


def test_hundreds_of_blocked_tasks() -> None:
    @workflow
    async def order(ctx: Any) -> int:
        async def work(number: int) -> int:
            ctx.sleep(1)
            note(number)
            ctx.sleep(1)
            return number

        return sum(await asyncio.gather(*(work(i) for i in range(500))))

    mock = MockDurableContext()
    assert create_test_handler(order, mock)({}) == sum(range(500))
    assert mock.wait_count == 1000


def test_blocked_tasks_do_not_add_to_each_others_depth() -> None:
    world = World()

    def depth() -> int:
        frame, count = sys._getframe(), 0
        while frame.f_back is not None:
            frame, count = frame.f_back, count + 1
        return count

    def nested(levels: int) -> int:
        return nested(levels - 1) if levels else depth()

    async def work(future: Any) -> int:
        world.greenlets.wait(future)
        return nested(100)

    async def main() -> Any:
        return await asyncio.gather(*(work(future) for future in futures))

    futures = [world.loop.create_future() for _ in range(sys.getrecursionlimit() // 5)]
    task = world.start(main())
    world.run(*(partial(future.set_result, None) for future in futures))
    assert len(set(task.result())) == 1


# -- workflows -----------------------------------------------------------------------------------


def test_a_sync_workflow_calls_steps_of_each_kind() -> None:
    @workflow
    def order(ctx: Any) -> list[int]:
        first = look_up(1)
        ctx.sleep("5m")
        futures = [charge.submit(2), look_up.submit(3)]
        return [first, note(4), *(future.result() for future in futures)]

    mock = MockDurableContext()
    assert create_test_handler(order, mock)({}) == [1, 4, 2, 3]
    assert [op.name for op in mock.operations] == ["look_up", None, "charge", "look_up", "note"]


def test_the_error_of_a_step_reaches_sync_code() -> None:
    @workflow
    def order(ctx: Any) -> str:
        try:
            bad()
        except ValueError as error:
            ctx.sleep(1)
            return str(error)
        return "no error"

    assert create_test_handler(order)({}) == "bad"


def test_sync_code_in_an_async_generator() -> None:
    @workflow
    async def order(ctx: Any) -> list[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(3):
                ctx.sleep(1)
                yield note(number)

        return [number async for number in numbers()]

    assert create_test_handler(order)({}) == [0, 1, 2]


@pytest.mark.parametrize("signal", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["blocked", "awaiting", "sync"])
def test_exits_fail_the_workflow(signal: type[BaseException], where: str) -> None:
    cleaned: list[str] = []

    async def other(ctx: Any) -> None:
        try:
            ctx.sleep(60)
        finally:
            cleaned.append("other")

    async def asynchronous(ctx: Any) -> None:
        asyncio.create_task(other(ctx))  # noqa: RUF006 - the loop holds it
        if where == "blocked":
            ctx.sleep(1)
        else:
            await sleep(1)
        raise signal

    def synchronous(ctx: Any) -> None:
        ctx.sleep(1)
        raise signal

    order = workflow(synchronous if where == "sync" else asynchronous)
    with pytest.raises(ExecutionFailedError, match=signal.__name__):
        create_test_handler(order)({})
    # Once for each invocation, and for the replay.
    assert cleaned == ([] if where == "sync" else ["other", "other", "other"])


# -- disposal ------------------------------------------------------------------------------------


def sync_code(ctx: Any, log: list[Any]) -> None:
    try:
        ctx.sleep(60)
    except Exception:
        log.append("an Exception passed")
    finally:
        log.append(ctx.is_closing)


async def blocked_code(ctx: Any, log: list[Any]) -> None:
    sync_code(ctx, log)


async def awaiting_code(ctx: Any, log: list[Any]) -> None:
    try:
        await sleep(60)
    except Exception:
        log.append("an Exception passed")
    finally:
        log.append(ctx.is_closing)


async def code_of_a_group(ctx: Any, log: list[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(blocked_code(ctx, log))
        group.create_task(awaiting_code(ctx, log))
        await awaiting_code(ctx, log)


async def blocked_code_of_a_group(ctx: Any, log: list[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(blocked_code(ctx, log))
        ctx.sleep(60)


async def code_of_a_gather(ctx: Any, log: list[Any]) -> None:
    await asyncio.gather(blocked_code(ctx, log), awaiting_code(ctx, log))


async def code_under_a_limit(ctx: Any, log: list[Any]) -> None:
    async with asyncio.timeout(10):
        await asyncio.wait_for(awaiting_code(ctx, log), 5)


@pytest.mark.parametrize(
    ("code", "times"),
    [
        (sync_code, 1),
        (blocked_code, 1),
        (awaiting_code, 1),
        (code_of_a_group, 3),
        (blocked_code_of_a_group, 1),
        (code_of_a_gather, 2),
        (code_under_a_limit, 1),
    ],
)
def test_cleanup_runs_once_and_sees_no_exception(
    code: Callable[..., Any], times: int, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []
    is_async = code is not sync_code

    async def main(ctx: Any) -> None:
        await code(ctx, log)

    def sync_main(ctx: Any) -> None:
        code(ctx, log)

    run = Run(main if is_async else sync_main)
    assert log == []
    run.close()
    run.close()
    gc.collect()
    assert log == [True] * times
    assert caplog.records == []


DURABLE: dict[str, Callable[[Any], Any]] = {
    "a sleep": lambda ctx: ctx.sleep(5),
    "a step": lambda ctx: note(1),
    "a submitted step": lambda ctx: note.submit(1),
    "a key": lambda ctx: note.options(key="k")(1),
    "a patch": lambda ctx: ctx.patched("p"),
    "a task": lambda ctx: asyncio.ensure_future(sleep(1)),
    "a timer": lambda ctx: asyncio.get_running_loop().call_later(1, print),
}


@pytest.mark.parametrize("what", DURABLE)
@pytest.mark.parametrize("blocks", [True, False], ids=["blocked", "awaiting"])
def test_the_gate_refuses_what_is_durable_during_disposal(what: str, *, blocks: bool) -> None:
    log: list[Any] = []

    async def main(ctx: Any) -> None:
        try:
            if blocks:
                ctx.sleep(60)
            else:
                await sleep(60)
        finally:
            try:
                DURABLE[what](ctx)
            except BaseException as error:
                log.append(type(error))
                raise

    run = Run(main)
    before = run.turn
    run.close()
    assert log == [Closing]
    assert before.end is None
    assert not run.execution.outbox.is_waiting


@pytest.mark.parametrize("blocks", [True, False], ids=["blocked", "awaiting"])
def test_a_result_that_is_not_there_is_not_waited_for(*, blocks: bool) -> None:
    log: list[str] = []

    async def main(ctx: Any) -> None:
        future = charge.submit(1)
        try:
            if blocks:
                ctx.sleep(60)
            else:
                await sleep(60)
        finally:
            log.append("cleanup")
            future.result()
            log.append("went on")

    Run(main).close()
    gc.collect()
    assert log == ["cleanup"]


def test_cleanup_that_awaits_is_ended_at_each_wait() -> None:
    log: list[str] = []

    async def main(ctx: Any) -> None:
        try:
            ctx.sleep(60)
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("inner")

    Run(main).close()
    assert log == ["inner"]


@pytest.mark.parametrize("blocks", [True, False], ids=["blocked", "awaiting"])
def test_cleanup_that_exits_does_not_keep_others_from_theirs(
    *, blocks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    log: list[str] = []

    async def work(ctx: Any, name: str) -> None:
        try:
            if blocks:
                ctx.sleep(60)
            else:
                await sleep(60)
        finally:
            log.append(name)
            sys.exit(3)

    async def main(ctx: Any) -> None:
        await asyncio.gather(work(ctx, "first"), work(ctx, "second"))

    Run(main).close()
    assert log == ["first", "second"]
    assert caplog.text.count("SystemExit(3) while ") >= 1


def test_a_task_that_never_started_is_just_dropped() -> None:
    world = World()

    async def never() -> None:
        raise AssertionError

    async def main() -> None:
        world.loop.create_task(never())
        world.loop.stopped = True
        await asyncio.sleep(0)

    world.start(main())
    world.close()
    gc.collect()
    assert world.reports == []


def swallow_sync(ctx: Any) -> None:
    while True:
        try:
            ctx.sleep(1)
        except BaseException:
            pass


async def swallow_blocked(ctx: Any) -> None:
    swallow_sync(ctx)


async def swallow_awaiting(ctx: Any) -> None:
    while True:
        try:
            await sleep(1)
        except BaseException:
            pass


async def swallow_in_a_loop_of_yields(ctx: Any) -> None:
    try:
        ctx.sleep(1)
    finally:
        while True:
            try:
                await asyncio.sleep(0)
            except BaseException:
                pass


async def swallow_in_a_step(ctx: Any) -> None:
    while True:
        try:
            note(1)
        except BaseException:
            pass


async def swallow_results(ctx: Any) -> None:
    future = charge.submit(1)
    while True:
        try:
            future.result()
        except BaseException:
            pass


SWALLOWING = [
    swallow_sync,
    swallow_blocked,
    swallow_awaiting,
    swallow_in_a_loop_of_yields,
    swallow_in_a_step,
    swallow_results,
]


@pytest.mark.parametrize("code", SWALLOWING, ids=lambda code: code.__name__)
def test_code_that_swallows_its_end_is_parked_with_a_warning(
    code: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = parked()
    Run(code).close()
    gc.collect()
    assert parked() == before + 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"caught the shutdown exception {REFUSALS} times" in record.getMessage()


def test_parked_code_keeps_nobody_from_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []

    async def main(ctx: Any) -> None:
        await asyncio.gather(
            swallow_blocked(ctx),
            blocked_code(ctx, log),
            swallow_awaiting(ctx),
            awaiting_code(ctx, log),
            swallow_in_a_loop_of_yields(ctx),
        )

    before = parked()
    Run(main).close()
    assert log == [True, True]
    assert parked() == before + 3
    assert len(caplog.records) == 3


def test_a_generator_that_swallows_its_end_is_parked_too(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def swallowing() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            while True:
                try:
                    note(1)
                except BaseException:
                    pass

    async def well_behaved() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            log.append("closed")
            note(1)

    async def main(ctx: Any) -> None:
        for numbers in (swallowing(), well_behaved()):
            kept.append(numbers)
            await anext(numbers)
        ctx.sleep(60)

    kept: list[Any] = []
    before = parked()
    Run(main).close()
    assert log == ["closed"]
    assert parked() == before + 1
    assert len(caplog.records) == 1


def test_an_error_of_a_callback_during_disposal_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(ctx: Any) -> None:
        task = asyncio.create_task(sleep(60))
        task.add_done_callback(lambda _: 1 // 0)
        try:
            await task
        finally:
            task.cancel()

    Run(main).close()
    gc.collect()
    assert caplog.records == []


def test_disposed_runs_keep_no_memory() -> None:
    def dispose() -> None:
        async def main(ctx: Any) -> None:
            log: list[Any] = []
            await asyncio.gather(
                blocked_code(ctx, log), awaiting_code(ctx, log), blocked_code(ctx, log)
            )

        Run(main).close()

    def alive() -> tuple[int, int]:
        gc.collect()
        objects = gc.get_objects()
        return sum(isinstance(one, greenlet) for one in objects), len(objects)

    dispose()
    greenlets, objects = alive()
    for _ in range(300):
        dispose()
    greenlets_now, objects_now = alive()
    assert greenlets_now == greenlets
    assert objects_now - objects < 100


def test_finished_runs_keep_no_greenlets() -> None:
    @workflow
    async def order(ctx: Any) -> None:
        log: list[Any] = []
        await asyncio.gather(*(blocked_code(ctx, log) for _ in range(5)))

    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, greenlet) for one in gc.get_objects())

    create_test_handler(order)({})
    before = alive()
    for _ in range(20):
        create_test_handler(order)({})
    assert alive() == before
