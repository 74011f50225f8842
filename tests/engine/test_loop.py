from __future__ import annotations

import asyncio
import gc
import math
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from pyworkflow import UsageError, sleep, step, workflow
from pyworkflow._engine.ids import Namespace
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import DurationError
from tests.engine.loops import World

variable: ContextVar[int] = ContextVar("variable", default=0)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# -- handles -------------------------------------------------------------------------------------


def test_handles_run_in_the_order_in_which_they_were_queued() -> None:
    world = World()
    log: list[int] = []
    for number in range(5):
        world.loop.call_soon(log.append, number)
    world.loop.call_soon(lambda: world.loop.call_soon(log.append, 9))
    assert world.loop.ready
    world.run()
    assert log == [0, 1, 2, 3, 4, 9]
    assert not world.loop.ready


def test_a_cancelled_handle_does_not_run() -> None:
    world = World()
    log: list[int] = []
    first, second = (world.loop.call_soon(log.append, number) for number in (1, 2))
    first.cancel()
    assert (first.cancelled(), second.cancelled()) == (True, False)
    world.run()
    assert log == [2]


def test_what_is_outside_comes_one_at_a_time_when_nothing_is_ready() -> None:
    world = World()
    log: list[str] = []

    def bring(name: str) -> None:
        log.append(name)
        world.loop.call_soon(log.append, f"{name} handled")

    world.run(lambda: bring("first"), lambda: bring("second"))
    assert log == ["first", "first handled", "second", "second handled"]


def test_a_stopped_loop_runs_nothing_more() -> None:
    world = World()
    log: list[int] = []

    def stop() -> None:
        world.loop.stopped = True

    world.loop.call_soon(stop)
    world.loop.call_soon(log.append, 1)
    world.run(lambda: log.append(2))
    assert log == []
    assert world.loop.ready


def test_a_failing_callback_is_reported_and_stops_nothing() -> None:
    world = World()
    log: list[int] = []
    world.loop.call_soon(lambda: 1 // 0)
    world.loop.call_soon(log.append, 1)
    world.run()
    assert log == [1]
    (report,) = world.reports
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["message"].startswith("Exception in callback <function")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_out_of_a_callback_is_reported(kind: type[BaseException]) -> None:
    world = World()

    def leave() -> None:
        raise kind

    world.loop.call_soon(leave)
    world.run()
    assert [type(error) for error in world.errors()] == [kind]


def test_what_a_signal_raises_passes() -> None:
    world = World()
    world.loop.call_soon(signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert world.reports == []


def test_a_cancellation_out_of_a_callback_is_reported() -> None:
    world = World()

    def cancelled() -> None:
        raise asyncio.CancelledError

    world.loop.call_soon(cancelled)
    world.run()
    assert [type(error) for error in world.errors()] == [asyncio.CancelledError]


def test_both_ways_to_report_reach_the_owner() -> None:
    world = World()
    world.loop.call_exception_handler({"message": "a"})
    world.loop.default_exception_handler({"message": "b"})
    assert world.reports == [{"message": "a"}, {"message": "b"}]


def test_the_loop_says_what_it_is() -> None:
    loop = World().loop
    assert (loop.is_running(), loop.is_closed(), loop.get_debug()) == (True, False, False)


def test_the_host_gets_its_loop_and_hooks_back() -> None:
    async def host() -> None:
        before, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        world = World()
        inside: list[Any] = []

        def fail() -> None:
            inside.append(asyncio.get_running_loop())
            inside.append(sys.get_asyncgen_hooks() == hooks)
            raise KeyError

        with pytest.raises(KeyError):
            world.loop.inside(fail)
        assert inside == [world.loop, False]
        assert asyncio.get_running_loop() is before
        assert sys.get_asyncgen_hooks() == hooks

    asyncio.run(host())


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(0.0001, 1), (0.1, 1), (1, 1), (1.0004, 1), (1.001, 2), (59.9, 60), (300, 300)],
)
def test_timers_are_of_whole_seconds(delay: float, seconds: int) -> None:
    world = World()
    world.loop.call_later(delay, print)
    assert [timer[0] for timer in world.timers] == [seconds]


@pytest.mark.parametrize("delay", [0, -1, -math.inf])
def test_no_delay_is_no_timer(delay: float) -> None:
    world = World()
    log: list[int] = []
    world.loop.call_later(delay, log.append, 1)
    world.run()
    assert log == [1]
    assert world.timers == []


@pytest.mark.parametrize("ask", ["call_later", "call_at"])
def test_an_infinite_delay_is_accepted_and_records_nothing(ask: str) -> None:
    world = World()

    async def main() -> str:
        handle = getattr(world.loop, ask)(math.inf, pytest.fail)
        assert handle.when() == math.inf
        handle.cancel()
        async with asyncio.timeout(math.inf):
            return "done"

    assert world.start(main()).result() == "done"
    assert world.timers == []


@pytest.mark.parametrize("delay", [math.nan, 367 * 86400])
def test_impossible_delays_are_told(delay: float) -> None:
    with pytest.raises(DurationError, match="366 days"):
        World().loop.call_later(delay, print)


def test_the_clock_stands_until_a_timer_is_over() -> None:
    world = World()
    log: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log.append(loop.time())
        await asyncio.sleep(2.5)
        log.append(loop.time())
        loop.call_at(10, lambda: log.append(loop.time()))
        loop.call_at(1, lambda: log.append(-1))

    world.start(main())
    assert log == [0]
    world.ring()
    assert log == [0, 3, -1]
    assert world.timers[0][1].when() == 10
    world.ring()
    assert log == [0, 3, -1, 10]


def test_a_cancelled_timer_is_abandoned_once() -> None:
    world = World()
    log: list[int] = []
    timer = world.loop.call_later(5, log.append, 1)
    timer.cancel()
    timer.cancel()
    assert world.abandoned == [timer]
    assert timer.cancelled()
    world.loop.ring(world.timers[0][1])
    assert not world.loop.ready
    world.run()
    assert log == []


def test_sleeps_of_a_fraction_are_waits_of_a_second() -> None:
    @workflow
    async def order(ctx: Any) -> list[float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        await asyncio.sleep(0)
        return [loop.time() - start]

    mock = MockDurableContext()
    assert create_test_handler(order, mock)({}) == [3.0]
    assert mock.waits == [1, 2]


# -- contexts ------------------------------------------------------------------------------------


def test_a_callback_has_the_context_it_was_given() -> None:
    world = World()
    given, log = copy_context(), list[int]()
    given.run(variable.set, 7)
    world.loop.call_soon(lambda: log.append(variable.get()), context=given)
    world.loop.call_later(1, lambda: log.append(variable.get()), context=given)
    world.loop.call_soon(lambda: log.append(variable.get()))
    world.run()
    world.ring()
    assert log == [7, 0, 7]


def test_a_callback_has_a_copy_of_its_makers_context() -> None:
    world = World()
    log: list[int] = []

    def change() -> None:
        variable.set(6)
        log.append(variable.get())

    async def main() -> None:
        variable.set(5)
        world.loop.call_soon(change)
        await asyncio.sleep(0)
        log.append(variable.get())

    world.start(main())
    assert log == [6, 5]


def test_an_empty_context_is_a_context() -> None:
    world = World()
    given = Context()

    async def work() -> int:
        variable.set(5)
        await asyncio.sleep(0)
        return variable.get()

    async def main() -> int:
        return await asyncio.create_task(work(), context=given)

    assert world.start(main()).result() == 5
    assert given[variable] == 5


def test_a_callback_in_an_empty_context_sees_nothing() -> None:
    world = World()
    log: list[int] = []

    def maker() -> None:
        variable.set(7)
        for given in (None, Context()):
            world.loop.call_soon(lambda: log.append(variable.get()), context=given)
            world.loop.call_later(1, lambda: log.append(variable.get()), context=given)

    world.loop.call_soon(maker)
    world.run()
    world.ring()
    world.ring()
    assert log == [7, 0, 7, 0]


def test_a_task_in_an_empty_context_owns_its_callbacks() -> None:
    world = World()
    paths: list[str] = []

    async def work() -> None:
        world.loop.call_soon(lambda: paths.append(world.loop.namespace().take_path()))
        paths.append(world.loop.namespace().take_path())

    async def main() -> None:
        await asyncio.create_task(work(), context=Context())

    world.start(main())
    assert paths == ["1-1", "1-2"]


def test_a_callback_in_an_empty_context_belongs_to_nobody() -> None:
    world = World()
    world.loop.call_soon(world.loop.namespace, context=Context())
    world.run()
    (error,) = world.errors()
    assert isinstance(error, UsageError)
    assert "empty context" in str(error)


def test_a_context_in_which_another_task_is_blocked() -> None:
    @workflow
    async def order(ctx: Any) -> list[Any]:
        async def blocked() -> int:
            ctx.sleep(5)
            return 1

        async def other() -> int:
            return 2

        shared = copy_context()
        made = [asyncio.create_task(one(), context=shared) for one in (blocked, other)]
        found = await asyncio.gather(*made, return_exceptions=True)
        return [str(one) for one in found]

    done, refused = create_test_handler(order)({})
    assert done == "1"
    assert "Give each a copy: create_task(..., context=context.copy())" in refused


def test_a_callback_in_a_context_in_which_a_task_is_blocked() -> None:
    world = World()
    shared = copy_context()

    async def blocked() -> None:
        world.greenlets.wait(world.loop.create_future())

    async def main() -> None:
        asyncio.create_task(blocked(), context=shared)  # noqa: RUF006 - the loop holds it
        await asyncio.sleep(0)
        world.loop.call_soon(print, context=shared)

    world.start(main())
    (error,) = world.errors()
    assert isinstance(error, UsageError)
    assert "in which another task is blocked" in str(error)
    world.close()


# -- tasks and namespaces ------------------------------------------------------------------------


def test_a_task_takes_one_number_of_its_maker() -> None:
    world = World()
    paths: list[str] = []

    async def leaf() -> None:
        paths.append(world.loop.namespace().take_path())

    async def branch() -> None:
        await asyncio.create_task(leaf())

    async def main() -> None:
        world.namespace.take_path()
        await asyncio.gather(branch(), leaf())

    world.start(main())
    assert paths == ["3-1", "2-1-1"]
    assert world.namespace.take_path() == "4"


def test_the_engines_own_tasks_take_no_number() -> None:
    world = World()
    task = world.loop.make_task(forever(), world.namespace, name="own")
    assert world.namespace.take_path() == "1"
    assert (hash(task), task.get_name()) == (0, "own")
    world.close()


def test_callbacks_belong_to_the_task_that_made_them() -> None:
    world = World()
    prefixes: list[str] = []

    def note(*_: object) -> None:
        prefixes.append(world.loop.namespace().prefix)

    async def work() -> None:
        world.loop.call_soon(note)
        world.loop.call_later(1, note)
        future = world.loop.create_future()
        future.add_done_callback(note)
        future.set_result(None)

    async def main() -> None:
        task = asyncio.create_task(work())
        task.add_done_callback(note)
        await task

    world.start(main())
    world.ring()
    assert prefixes == ["1", "1", "", "1"]


def test_callbacks_may_be_moved_to_a_namespace() -> None:
    world = World()
    prefixes: list[str] = []

    def note() -> None:
        prefixes.append(world.loop.namespace().prefix)

    async def main() -> None:
        world.loop.make_callbacks_in(Namespace("child", world.loop.root))
        world.loop.call_soon(note)

    world.start(main())
    assert prefixes == ["child"]


def test_a_refused_task_closes_its_coroutine() -> None:
    world = World()
    task = world.start(forever())
    world.close()
    assert not task.done()

    def refuse(what: str) -> None:
        raise UsageError(what)

    world.admit = refuse  # type: ignore[method-assign]
    coroutine: Any = forever()
    with pytest.raises(UsageError, match="creating a task"):
        world.loop.create_task(coroutine)
    assert coroutine.cr_frame is None


def test_a_bare_coroutine_in_as_completed_is_refused() -> None:
    world = World()

    async def main() -> None:
        asyncio.as_completed([asyncio.create_task(forever())])
        for _ in asyncio.as_completed([forever()]):
            pass

    task = world.start(main())
    assert "Pass tasks" in str(task.exception())
    world.close()


def test_options_of_later_pythons_change_nothing() -> None:
    world = World()
    log: list[str] = []

    async def work() -> None:
        log.append("work")

    async def main() -> None:
        task: Any = world.loop.create_task(work(), name="n", eager_start=True)
        log.append(task.get_name())
        await task

    world.start(main())
    assert log == ["n", "work"]


# -- async generators ----------------------------------------------------------------------------


def generator(log: list[Any]) -> AsyncGenerator[int, None]:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            log.append("closed")
            await asyncio.sleep(0)
            log.append("awaited")

    return numbers()


def test_a_dropped_generator_is_closed_without_a_number() -> None:
    world = World()
    log: list[Any] = []

    async def main() -> None:
        async for number in generator(log):
            log.append(number)
            break
        gc.collect()
        log.append("dropped")
        await forever()

    world.start(main())
    assert log == [1, "dropped", "closed", "awaited"]
    assert world.namespace.take_path() == "1"
    world.close()


def test_a_generator_that_is_dropped_may_do_nothing_durable() -> None:
    found: list[str] = []

    @step
    async def charge() -> None: ...

    @workflow
    async def order() -> None:
        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                for durable in (charge, lambda: asyncio.create_task(forever()), lambda: sleep(1)):
                    try:
                        await durable()
                    except UsageError as error:
                        found.append(str(error))

        async for _ in numbers():
            break
        await asyncio.sleep(0)

    mock = MockDurableContext()
    create_test_handler(order, mock)({})
    assert mock.operations == ()
    assert len(found) == 6  # the run, and the mock's replay
    assert all("aclosing" in message for message in found)


def test_generators_may_be_shut_down() -> None:
    world = World()
    log: list[Any] = []

    async def main() -> None:
        kept = generator(log)
        log.append(await anext(kept))
        await asyncio.get_running_loop().shutdown_asyncgens()

    world.start(main())
    assert log == [1, "closed", "awaited"]


def test_a_generator_in_a_disposed_frame_is_unwound_up_to_its_first_wait() -> None:
    world = World()
    log: list[Any] = []

    async def main() -> None:
        async for number in generator(log):
            log.append(number)
            await forever()

    world.start(main())
    world.close()
    gc.collect()
    assert log == [1, "closed"]
    assert world.reports == []


def test_a_generator_whose_cleanup_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world = World()

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise KeyError

    kept = numbers()

    async def main() -> None:
        await anext(kept)

    world.start(main())
    world.close()
    assert "KeyError() while <async_generator" in caplog.text


def test_a_generator_that_is_still_held_is_unwound_with_the_run() -> None:
    world = World()
    log: list[Any] = []
    kept = generator(log)

    async def main() -> None:
        log.append(await anext(kept))

    world.start(main())
    world.close()
    assert log == [1, "closed"]
