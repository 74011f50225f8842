from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._runtime.eager import Starter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


class Begun:
    """What became of coroutines that were begun in one plain callback of a loop."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.ends: list[Any] = []

    def begin(self, coroutines: list[Coroutine[Any, Any, Any]]) -> None:
        loop = asyncio.get_running_loop()
        for coroutine in coroutines:
            try:
                begun = Starter.of(loop).begin(loop, coroutine, self.ends.append)
            except BaseException as error:
                self.results.append(error)
                continue
            if isinstance(begun, asyncio.Task):
                self.tasks.append(begun)
            self.results.append(begun)


def begin(
    *coroutines: Coroutine[Any, Any, Any], then: Callable[[Begun], None] = lambda _: None
) -> Begun:
    """Begin ``coroutines``, call ``then`` in the same tick, and see their tasks to the end."""
    begun = Begun()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def begin_all() -> None:
            begun.begin(list(coroutines))
            then(begun)
            done.set_result(None)

        loop.call_soon(begin_all)
        await done
        if begun.tasks:
            await asyncio.wait(begun.tasks)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    return begun


async def value(of: Any) -> Any:
    return of


async def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def test_one_that_does_not_wait_gives_its_value_at_once() -> None:
    assert begin(value(1), value(2)).results == [1, 2]


def test_one_that_does_not_wait_raises_its_error_at_once() -> None:
    async def failing() -> None:
        raise ValueError("no")

    assert repr(begin(failing()).results) == "[ValueError('no')]"


def test_one_that_waits_goes_on_in_the_task_in_whose_name_it_began() -> None:
    seen: list[asyncio.Task[Any] | None] = []

    async def waiting() -> str:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await asyncio.sleep(0.001)
        seen.append(asyncio.current_task())
        return "done"

    begun = begin(waiting())
    (task,) = begun.tasks
    assert seen == [task, task, task]
    assert begun.ends == ["done"]


def test_each_has_a_context_of_its_own_which_it_keeps() -> None:
    async def setting(text: str, turns: int) -> str:
        before = variable.get()
        variable.set(text)
        for _ in range(turns):
            await asyncio.sleep(0)
            assert variable.get() == text
        later = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: later.set_result(variable.get()))
        return f"{before}, {variable.get()}, {await later if turns else ''}"

    begun = begin(setting("a", 0), setting("b", 2), setting("c", 1))
    assert begun.results[0] == ", a, "
    assert begun.ends == [", c, c", ", b, b"]
    assert variable.get() == ""


def test_the_error_of_one_that_waited_is_told() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("late")

    assert repr(begin(failing()).ends) == "[ValueError('late')]"


@pytest.mark.parametrize("turns", [0, 1])
def test_what_ends_the_process_is_raised(turns: int) -> None:
    async def leaving() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise SystemExit("leave")

    ends: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: Starter.of(loop).begin(loop, leaving(), ends.append))
        await asyncio.sleep(1)

    with pytest.raises(SystemExit, match="leave"):
        asyncio.run(main())
    assert ends == []


def test_an_awaited_error_is_raised_where_it_is_awaited() -> None:
    async def waiting(future: asyncio.Future[None]) -> str:
        try:
            await future
        except ValueError as error:
            return f"caught {error}"
        return "nothing"

    async def made() -> str:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, ValueError("late"))
        return await waiting(future)

    assert begin(made()).ends == ["caught late"]


def test_one_future_can_be_awaited_by_many() -> None:
    connecting: list[asyncio.Task[str]] = []

    async def connect() -> str:
        await asyncio.sleep(0)
        return "connected"

    async def connected() -> str:
        if not connecting:
            connecting.append(asyncio.create_task(connect()))
        return await connecting[0]

    assert begin(connected(), connected(), connected()).ends == ["connected"] * 3


class Yielding:
    """An awaitable that yields what no task takes."""

    def __await__(self) -> Generator[Any, None, None]:
        yield "what no task takes"


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_one_that_awaits_what_no_task_takes_is_told(is_cancelled: bool) -> None:
    async def confused() -> None:
        await Yielding()

    def cancel(begun: Begun) -> None:
        if is_cancelled:
            begun.tasks[0].cancel()

    (error,) = begin(confused(), then=cancel).ends
    assert type(error) is (asyncio.CancelledError if is_cancelled else RuntimeError)


# -- stand-ins -----------------------------------------------------------------------------------


def test_those_that_do_not_wait_share_a_stand_in() -> None:
    names: list[str] = []

    async def named() -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    begin(named(), named(), named())
    assert len(set(names)) == 1


def test_a_task_is_shown_with_what_it_runs() -> None:
    async def shown() -> str:
        before = repr(asyncio.current_task())
        await asyncio.sleep(0)
        return f"{before} {asyncio.current_task()!r}"

    (text,) = begin(shown()).ends
    before, _, after = text.partition("> ")
    assert "coro=<stand_in()" in before
    assert "coro=<test_a_task_is_shown_with_what_it_runs.<locals>.shown()" in after


def test_a_task_that_somebody_keeps_stands_in_for_no_other() -> None:
    first, second, third = begin(current(), current(), current()).results
    assert len({first, second, third}) == 3


def test_a_task_to_which_somebody_ties_something_stands_in_for_no_other() -> None:
    tied: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    async def found() -> str:
        return tied.setdefault(asyncio.current_task(), f"made by {len(tied)}")

    async def plain() -> None:
        pass

    # One whose stand-in was not tied to anything leaves it to the next.
    begun = begin(found(), found(), plain(), found())
    assert begun.results == ["made by 0", "made by 1", None, "made by 2"]


def test_what_one_calls_at_its_tasks_end_does_not_wait_for_another() -> None:
    seen: list[str] = []

    async def calling() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: seen.append("called"))

    async def long() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        seen.append("went on")

    begin(calling(), long())
    assert seen == ["called", "went on"]


def test_a_task_that_was_cancelled_meanwhile_stands_in_for_no_other() -> None:
    results: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def begin_one() -> None:
            results.append(Starter.of(loop).begin(loop, value(len(results)), print))

        def cancel_others() -> None:
            for task in asyncio.all_tasks() - {own}:
                task.cancel()

        own = asyncio.current_task()
        loop.call_soon(begin_one)
        loop.call_soon(cancel_others)
        loop.call_soon(begin_one)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert results == [0, 1]


def test_a_stand_in_is_gone_with_its_tick() -> None:
    names: list[str] = []

    async def named() -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            loop.call_soon(lambda: Starter.of(loop).begin(loop, named(), print))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert len(set(names)) == 2


def test_no_loop_is_kept() -> None:
    async def main() -> weakref.ref[Any]:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: Starter.of(loop).begin(loop, value(1), print))
        await asyncio.sleep(0)
        return weakref.ref(loop)

    reference = asyncio.run(main())
    gc.collect()
    assert reference() is None


def test_within_a_task_it_is_a_plain_task() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        ends: list[Any] = []
        task: Any = Starter.of(loop).begin(loop, current(), ends.append)
        await task
        return [*ends, task, asyncio.current_task()]

    inner, task, outer = asyncio.run(main())
    assert inner is task
    assert inner is not outer


# -- cancellation --------------------------------------------------------------------------------


async def cancel_oneself(turns: int) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    del task
    for _ in range(turns):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "told"
    return "not told"


def test_one_that_cancels_itself_and_returns_is_cancelled() -> None:
    first, second = begin(cancel_oneself(0), value(2)).results
    assert type(first) is asyncio.CancelledError
    assert second == 2


def test_one_that_waited_then_cancels_itself_and_returns_is_cancelled() -> None:
    async def waiting() -> str:
        await asyncio.sleep(0)
        return await cancel_oneself(0)

    assert repr(begin(waiting()).ends) == "[CancelledError()]"


def test_one_that_cancels_itself_and_waits_is_told_there() -> None:
    assert begin(cancel_oneself(1)).ends == ["told"]


@pytest.mark.parametrize("later", [False, True])
def test_a_cancellation_reaches_what_is_awaited(later: bool) -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    async def outer() -> None:
        try:
            await asyncio.create_task(inner())
        except asyncio.CancelledError:
            seen.append("outer")
            raise

    def cancel(begun: Begun) -> None:
        (task,) = begun.tasks
        if later:  # when the inner one waits
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_soon(task.cancel))
        else:
            task.cancel()

    assert repr(begin(outer(), then=cancel).ends) == "[CancelledError()]"
    assert seen == (["inner", "outer"] if later else ["outer"])


def test_the_message_of_a_cancellation_is_handed_on() -> None:
    def cancel(begun: Begun) -> None:
        begun.tasks[0].cancel("no more")

    (error,) = begin(asyncio.Event().wait(), then=cancel).ends
    assert error.args == ("no more",)


def test_one_that_does_not_let_itself_be_cancelled_goes_on() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "went on"

    def cancel(begun: Begun) -> None:
        begun.tasks[0].cancel()

    assert begin(stubborn(), then=cancel).ends == ["went on"]


def test_timeouts_work_before_and_after_it_waits() -> None:
    async def patient() -> str:
        async with asyncio.timeout(60):
            return "in time"

    async def late() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "never"

    begun = begin(patient(), late(), patient())
    assert begun.results[0] == begun.results[2] == "in time"
    assert begun.ends == ["too late"]


def test_a_task_group_works() -> None:
    async def group() -> list[int]:
        async with asyncio.TaskGroup() as tasks:
            one, two = tasks.create_task(value(1)), tasks.create_task(value(2))
        return [one.result(), two.result()]

    assert begin(group()).ends == [[1, 2]]
