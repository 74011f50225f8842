from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from pyworkflow._runtime.host_loop import run_on_kept_loop, run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def where() -> tuple[threading.Thread, asyncio.AbstractEventLoop, str]:
    await asyncio.sleep(0)
    return threading.current_thread(), asyncio.get_running_loop(), variable.get()


def test_it_runs_on_the_callers_thread() -> None:
    variable.set("here")
    thread, loop, seen = run_to_end(where)
    assert thread is threading.current_thread()
    assert loop.is_closed()
    assert seen == "here"


def test_inside_a_loop_it_runs_on_a_thread_of_its_own() -> None:
    async def main() -> None:
        variable.set("inside")
        thread, loop, seen = run_to_end(where)
        assert thread is not threading.current_thread()
        assert not thread.is_alive()
        assert loop is not asyncio.get_running_loop()
        assert loop.is_closed()
        assert seen == "inside"
        assert asyncio.get_running_loop().is_running()

    asyncio.run(main())


class OddError(BaseException):
    pass


async def fail() -> None:
    raise OddError("odd")


def call_here() -> None:
    run_to_end(fail)


def call_inside() -> None:
    async def main() -> None:
        run_to_end(fail)

    asyncio.run(main())


@pytest.mark.parametrize("call", [call_here, call_inside])
def test_errors_reach_the_caller_alone(call: Callable[[], None]) -> None:
    with pytest.raises(OddError, match="odd") as caught:
        call()
    assert caught.value.__context__ is None


def test_the_threads_own_loop_stays() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        run_to_end(where)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_tasks_that_were_left_are_cancelled() -> None:
    ends: list[str] = []

    async def leave() -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ends.append("cancelled")

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        assert not task.done()

    run_to_end(leave)
    assert ends == ["cancelled"]


def test_generators_that_were_left_are_closed() -> None:
    ends: list[str] = []
    kept: list[AsyncGenerator[int, None]] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            ends.append("closed")

    async def leave() -> int:
        kept.append(numbers())
        return await anext(kept[0])

    assert run_to_end(leave) == 1
    assert ends == ["closed"]


def test_the_loop_is_cleaned_up_after_an_interrupt() -> None:
    ends: list[str] = []

    async def interrupted() -> None:
        async def interrupt() -> None:
            raise KeyboardInterrupt

        try:
            await asyncio.create_task(interrupt())
        finally:
            ends.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_to_end(interrupted)
    assert ends == ["cleaned up"]


def test_threads_have_a_loop_each() -> None:
    barrier = threading.Barrier(4, timeout=60)
    loops: list[asyncio.AbstractEventLoop] = []

    async def meet() -> None:
        barrier.wait()  # all four loops run at this moment
        loops.append(asyncio.get_running_loop())

    threads = [threading.Thread(target=run_to_end, args=(meet,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(loops)) == 4


class UnprintableError(Exception):
    def __repr__(self) -> str:
        raise AttributeError("no such field")


@pytest.mark.parametrize("run", [run_to_end, run_on_kept_loop])
def test_an_error_that_cannot_be_printed_is_raised_as_it_is(run: Callable[..., object]) -> None:
    async def main() -> None:
        raise UnprintableError

    handler = signal.getsignal(signal.SIGINT)
    gc.disable()
    try:
        with pytest.raises(UnprintableError) as caught:
            run(main)
        assert signal.getsignal(signal.SIGINT) is handler
        error = weakref.ref(caught.value)
        del caught
        assert error() is None
    finally:
        gc.enable()
