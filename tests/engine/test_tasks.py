from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pyworkflow import Workflow, sleep, step, workflow
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.loop import tasks
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import UsageError
from tests.engine.loops import World

PRIVATE = {
    "asyncio.tasks._enter_task": "a blocked task could not be left and entered again",
    "asyncio.tasks._leave_task": "a blocked task could not be left and entered again",
    "asyncio.tasks.as_completed": "bare coroutines in as_completed would get ids by chance",
    "asyncio.events._get_running_loop": "nobody would know where workflow code runs",
    "asyncio.events._set_running_loop": "workflow code could not run inside the host's loop",
}


@pytest.mark.parametrize("path", PRIVATE)
def test_private_names_of_asyncio_are_there(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(sys.modules[module], name), f"{path} is gone: {PRIVATE[path]}"


def test_private_parts_of_tasks_are_there() -> None:
    world = World()

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    task: Any = world.start(main())
    assert task._fut_waiter is not None, "deadlock reports could not say what a task awaits"
    assert task._log_destroy_pending is True, "a disposed task would complain at its end"
    world.close()
    assert task._log_destroy_pending is False


def test_the_current_task_is_that_of_the_loop() -> None:
    world = World()
    seen: list[Any] = []

    async def main() -> None:
        seen.extend((tasks.current_task(world.loop), asyncio.current_task()))

    task = world.start(main())
    assert seen == [task, task]
    assert tasks.current_task(world.loop) is None


# -- as_completed --------------------------------------------------------------------------------


async def one() -> int:
    return 1


async def two() -> int:
    return 2


def bare() -> Any:
    return asyncio.as_completed([one()])


def bare_with_limit() -> Any:
    return asyncio.as_completed([one()], timeout=3)


def bare_beside_a_task() -> Any:
    return asyncio.as_completed([asyncio.create_task(one()), two()])


@pytest.mark.parametrize("call", [bare, bare_with_limit, bare_beside_a_task])
def test_as_completed_refuses_bare_coroutines(call: Callable[[], Any]) -> None:
    @workflow
    async def order() -> list[int]:
        return [await result for result in call()]

    with pytest.raises(UsageError, match="as_completed got a bare coroutine.*Pass tasks"):
        create_test_handler(order)({})
    gc.collect()  # a coroutine that nobody awaited would say so now


def test_as_completed_takes_tasks_and_futures() -> None:
    @workflow
    async def order() -> list[int]:
        both = asyncio.gather(one(), two())
        futures: list[asyncio.Future[Any]] = [asyncio.create_task(one()), both]
        done = asyncio.as_completed(futures)
        found = [await result for result in done]
        return [found[0], sum(found[1])]

    assert create_test_handler(order)({}) == [1, 3]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="as_completed became an async iterator then")
def test_as_completed_as_an_async_iterator() -> None:
    @workflow
    async def order() -> list[int]:
        made = [asyncio.create_task(one()), asyncio.create_task(two())]
        found = []
        completed: Any = asyncio.as_completed(made)
        async for task in completed:
            found.append(made.index(task))
        return found

    assert create_test_handler(order)({}) == [0, 1]


# -- hashes --------------------------------------------------------------------------------------


def test_tasks_of_different_executions_hash_apart() -> None:
    def hash_of_main(execution_id: str) -> int:
        execution = Execution(execution_id, "name", KnownErrors.snapshot())
        execution.start(lambda: None, Any, ())
        (task,) = execution.loop.root.tasks
        found = hash(task)
        execution.close()
        return found

    found = {hash_of_main(f"execution-{number}") for number in range(1000)}
    assert len(found) == 1000
    assert found == {hash_of_main(f"execution-{number}") for number in range(1000)}
    assert {each % 2**28 for each in found} == {0}, "the number alone orders a small set"


def test_tasks_and_futures_hash_by_their_number() -> None:
    def hashes() -> list[int]:
        world = World()
        found: list[int] = []

        async def inner() -> None:
            futures = [world.loop.create_future() for _ in range(2)]
            found.extend(hash(future) for future in reversed(futures))
            found.append(hash(futures[0]))

        async def main() -> None:
            made = [asyncio.create_task(inner()) for _ in range(3)]
            found.extend(hash(task) for task in made)
            future = world.loop.create_future()
            world.loop.call_soon(lambda: found.append(hash(future)))
            await asyncio.gather(*made)

        task = world.start(main())
        assert task.exception() is None
        return found

    first = hashes()
    assert first[:3] == [1, 2, 3]
    assert first == hashes()


def test_sets_of_tasks_have_one_order() -> None:
    orders: list[list[str]] = []

    @workflow
    async def order() -> None:
        made = {asyncio.create_task(sleep(i % 3 + 1), name=f"{i}") for i in range(20)}
        orders.append([task.get_name() for task in made])
        done, _ = await asyncio.wait(made)
        orders[-1] += [task.get_name() for task in done]

    create_test_handler(order)({})
    complete = [order for order in orders if len(order) == 40]
    assert len(orders) >= 4
    assert all(order[:20] == orders[0][:20] for order in orders)
    assert len(complete) == 2
    assert complete[0] == complete[1]


# -- names ---------------------------------------------------------------------------------------


def test_tasks_are_named_by_their_place() -> None:
    world = World()
    names: list[str] = []

    async def main() -> None:
        made = [asyncio.create_task(one()), asyncio.create_task(one(), name="mine")]
        names.extend(task.get_name() for task in made)

    assert world.start(main()).get_name() == "task main"
    assert names == ["task 1", "mine"]


def test_steps_of_tasks_are_told_from_other_callbacks() -> None:
    world = World()
    found: list[Any] = []

    async def other() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        for _ in range(2):  # its first step, and a later one
            found.append(tasks.task_of_step(world.loop.ready[-1].callback) is task)  # type: ignore[arg-type]
            await asyncio.sleep(0)

    world.start(main())
    assert found == [True, True]
    assert tasks.task_of_step(one) is None
    assert tasks.task_of_step([].append) is None


# -- cancellation, as asyncio's own ----------------------------------------------------------------

Case = Callable[[Any], Coroutine[Any, Any, Any]]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


async def native(_: Any) -> None:
    await asyncio.get_running_loop().create_future()


@case
async def self_cancel(block: Any) -> Any:
    task = current()
    task.cancel()
    log: list[Any] = [task.cancelling()]
    try:
        await block()
    except asyncio.CancelledError:
        log.append("cancelled")
    return [*log, task.cancelling(), task.uncancel(), task.cancelling()]


@case
async def self_cancel_then_yield(block: Any) -> Any:
    current().cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return ["cancelled", current().cancelling()]


@case
async def self_cancel_twice(block: Any) -> Any:
    task, log = current(), list[Any]()
    for _ in range(2):
        task.cancel()
        try:
            await block()
        except asyncio.CancelledError:
            log.append(task.cancelling())
    await asyncio.sleep(0)
    return [*log, task.uncancel(), task.uncancel(), task.uncancel(), task.cancelling()]


@case
async def self_cancel_withdrawn(block: Any) -> Any:
    task = current()
    task.cancel()
    log: list[Any] = [task.uncancel()]
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.append("cancelled")
    return [*log, task.cancelling(), task.uncancel(), task.cancelling()]


@case
async def withdrawn_while_it_waits(block: Any) -> Any:
    log: list[Any] = []

    async def work() -> None:
        try:
            await block()
        except asyncio.CancelledError:
            log.append(["cancelled", current().cancelling()])

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    log.extend((task.cancel(), task.cancelling(), task.uncancel()))
    await task
    return log


@case
async def cancelled_by_another(block: Any) -> Any:
    log: list[Any] = []

    async def work() -> None:
        try:
            await block()
        except asyncio.CancelledError as error:
            log.append(["cancelled", current().cancelling(), error.args])
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    log.append([task.cancel("why"), task.cancelling(), task.done()])
    try:
        await task
    except asyncio.CancelledError:
        log.append(["seen", current().cancelling()])
    return [*log, task.cancelled(), task.cancel(), task.cancelling()]


@case
async def cancelled_twice_by_another(block: Any) -> Any:
    log: list[Any] = []

    async def work() -> None:
        try:
            await block()
        except asyncio.CancelledError:
            log.append(current().cancelling())
        await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    await task
    return log


@case
async def cancelled_when_its_wait_is_over(block: Any) -> Any:
    log: list[Any] = []

    async def work(wait: Any) -> None:
        try:
            await block(wait)
            log.append("went on")
        except asyncio.CancelledError:
            log.append("cancelled")

    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work(future))
    await asyncio.sleep(0)
    future.set_result(None)
    log.append(task.cancel())
    await task
    return [*log, task.cancelled(), task.cancelling()]


@case
async def cancelled_before_it_starts(block: Any) -> Any:
    task = asyncio.create_task(block())
    log: list[Any] = [task.cancel(), task.cancelling()]
    await asyncio.wait([task])
    return [*log, task.cancelled()]


@case
async def caught_and_gone_on(block: Any) -> Any:
    async def work() -> str:
        try:
            await block()
        except asyncio.CancelledError:
            return "went on"
        return "not cancelled"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    return [await task, task.cancelled(), task.cancelling()]


@case
async def a_group_fails(block: Any) -> Any:
    log: list[Any] = []

    async def bad() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def work(name: str) -> None:
        try:
            await block()
        except asyncio.CancelledError:
            log.append(name)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work("first"))
            group.create_task(bad())
            group.create_task(work("second"))
            await work("body")
    except* ValueError as failures:
        log.append(len(failures.exceptions))
    return [*sorted(map(str, log)), current().cancelling()]  # asyncio's own order is by address


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def outcome_in_asyncio(function: Case) -> Any:
    async def block(future: Any = None) -> None:
        await (future or asyncio.get_running_loop().create_future())

    return asyncio.run(function(block))


def outcome_here(function: Case, *, blocking: bool) -> Any:
    world = World()

    async def block(future: Any = None) -> None:
        future = future or world.loop.create_future()
        if blocking:
            world.greenlets.wait(future)
        else:
            await future

    task = world.start(function(block))
    assert world.reports == []
    return task.result()


@pytest.mark.parametrize("blocking", [True, False], ids=["blocked", "awaiting"])
@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_cancellation_does_what_asyncio_does(function: Case, *, blocking: bool) -> None:
    assert outcome_here(function, blocking=blocking) == outcome_in_asyncio(function)


def test_a_withdrawn_self_cancellation_is_forgotten_as_asyncio_does() -> None:
    async def main() -> list[Any]:
        task = current()
        task.cancel()
        log: list[Any] = [task.uncancel()]
        try:
            world.greenlets.wait(done)
            log.append("went on")
        except asyncio.CancelledError:
            log.append("cancelled")
        return log

    world = World()
    done = world.loop.create_future()
    done.set_result(None)
    expected = "went on" if sys.version_info >= (3, 13) else "cancelled"
    assert world.start(main()).result() == [0, expected]


# -- ends ----------------------------------------------------------------------------------------


def test_a_failed_task_runs_no_further() -> None:
    world = World()
    log: list[str] = []

    async def main() -> None:
        try:
            await world.loop.create_future()
        finally:
            log.append("closed")
            raise KeyError

    task = world.start(main())
    task.fail(error := ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        task.result()
    assert log == ["closed"]
    assert isinstance(error.__context__, KeyError)


def test_what_a_task_waits_for() -> None:
    world = World()
    futures = [world.loop.create_future() for _ in range(2)]

    async def awaiting() -> None:
        await futures[0]

    async def blocked() -> None:
        world.greenlets.wait(futures[1])

    made = [world.start(awaiting()), world.start(blocked()), world.start(one())]
    assert [task.awaited() for task in made] == [*futures, None]
    world.close()


def test_a_forgotten_task_says_nothing() -> None:
    world = World()

    async def bad() -> None:
        raise ValueError

    async def cancelled() -> None:
        raise asyncio.CancelledError

    made = [world.start(bad()), world.start(cancelled()), world.start(native(None))]
    world.close()
    gone = [weakref.ref(task) for task in made]
    world.loop.root.tasks.clear()
    made.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert world.reports == []


def test_a_task_that_nobody_asked_for_its_error_is_reported() -> None:
    world = World()

    async def bad() -> None:
        raise ValueError("lost")

    world.start(bad())
    world.loop.root.tasks.clear()
    gc.collect()
    assert [str(error) for error in world.errors()] == ["lost"]


# -- the whole -----------------------------------------------------------------------------------


@step
async def charge(amount: int) -> int:
    return amount


@step(inline=True)
def note(amount: int) -> int:
    return amount


def operations(order: Workflow[..., Any]) -> tuple[Any, list[str]]:
    mock = MockDurableContext(max_invocations=50)
    result = create_test_handler(order, mock)({})
    return result, [f"{op.name or op.type} {op.status}" for op in mock.operations]


def test_a_task_blocked_in_a_sleep_is_cancelled() -> None:
    @workflow
    async def order(ctx: Any) -> list[str]:
        log: list[str] = []

        async def work() -> None:
            try:
                ctx.sleep("1h")
            except asyncio.CancelledError:
                log.append("cancelled")
                ctx.sleep(5)
                log.append("cleaned up")
                raise

        task = asyncio.create_task(work())
        await sleep(10)
        task.cancel()
        await asyncio.wait([task])
        return log

    result, found = operations(order)
    assert result == ["cancelled", "cleaned up"]
    assert found == ["WAIT SUCCEEDED", "WAIT STARTED", "WAIT SUCCEEDED"]


def test_a_cancelled_sync_step_is_recorded_as_such() -> None:
    @workflow
    async def order() -> int:
        async def work() -> None:
            note(1)

        async def bad() -> None:
            raise ValueError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
                group.create_task(bad())
        except* ValueError:
            pass
        return await charge(2)

    assert operations(order) == (2, ["charge SUCCEEDED"])  # its start was never sent


def test_a_task_that_cancelled_itself_takes_no_step() -> None:
    @workflow
    async def order() -> str:
        current().cancel()
        try:
            note(1)
        except asyncio.CancelledError:
            return "cancelled"
        return "went on"

    assert operations(order) == ("cancelled", [])
