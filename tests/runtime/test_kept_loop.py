from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from pyworkflow._runtime import host_loop
from pyworkflow._runtime.host_loop import HostLoop, run_on_kept_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def loop_of() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def on_a_thread(run: Callable[[], object]) -> None:
    """Run it where no loop is kept yet."""
    errors: list[BaseException] = []

    def target() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(60)
    if errors:
        raise errors[0]


def test_a_thread_keeps_its_loop_and_closes_it_in_the_end() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def run() -> None:
        loops.extend(run_on_kept_loop(loop_of) for _ in range(3))
        assert not loops[0].is_closed()

    on_a_thread(run)
    on_a_thread(lambda: loops.append(run_on_kept_loop(loop_of)))
    assert len(set(loops[:3])) == 1
    assert loops[3] is not loops[0]
    gc.collect()
    assert all(loop.is_closed() for loop in loops)


def test_each_run_sees_the_context_of_its_call() -> None:
    async def see() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    variable.set("first")
    assert run_on_kept_loop(see) == "first"
    variable.set("second")
    assert run_on_kept_loop(see) == "second"


def test_inside_a_running_loop_it_is_another_loop() -> None:
    async def main() -> None:
        assert run_on_kept_loop(loop_of) is not asyncio.get_running_loop()

    asyncio.run(main())


def test_tasks_that_were_left_over_are_cancelled() -> None:
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

    run_on_kept_loop(leave)
    assert ends == ["cancelled"]


class Turn:
    """What gives others on the loop their turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Stubborn:
    """Tasks that take longer to clean up than there is time."""

    def __init__(self, *, closings: int) -> None:
        self.closings = closings
        self.is_endless = False
        self.seen: list[str] = []

    async def clean_up(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            for _ in range(self.closings):
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(3600)
            while self.is_endless:
                with contextlib.suppress(BaseException):
                    await Turn()
            self.seen.append("closed")
            raise
        finally:
            self.seen.append("unwound")

    async def leave(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.clean_up())
        await asyncio.sleep(0)
        return task


@pytest.mark.parametrize("closings", [0, 1, 3])
def test_what_does_not_end_in_time_does_not_go_on_in_the_next_run(
    closings: int, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = Stubborn(closings=closings)

    def run() -> None:
        before = run_on_kept_loop(loop_of)
        task = run_on_kept_loop(stubborn.leave, lambda: 0.01)
        assert task.done()
        seen = list(stubborn.seen)
        assert seen[-1] == "unwound"
        assert run_on_kept_loop(loop_of) is before
        assert stubborn.seen == seen

    on_a_thread(run)
    assert ("1 tasks were still cleaning up" in caplog.text) == (closings > 0)


def test_a_loop_with_a_task_that_never_ends_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    stubborn = Stubborn(closings=0)
    stubborn.is_endless = True

    def run() -> None:
        before = run_on_kept_loop(loop_of)
        task = run_on_kept_loop(stubborn.leave, lambda: 0.01)
        assert before.is_closed()
        assert run_on_kept_loop(loop_of) is not before
        stubborn.is_endless = False
        with contextlib.suppress(asyncio.CancelledError):
            task.get_coro().close()

    on_a_thread(run)
    assert "1 tasks were still cleaning up" in caplog.text


async def fail() -> None:
    raise ValueError("mine")


async def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("main", "is_kept"), [(fail, True), (interrupt, False)])
def test_after_an_error_the_loop_stays_after_an_interrupt_it_is_a_new_one(
    main: Callable[[], Coroutine[object, object, None]], is_kept: bool
) -> None:
    def run() -> None:
        before = run_on_kept_loop(loop_of)
        with pytest.raises((ValueError, KeyboardInterrupt)):
            run_on_kept_loop(main)
        assert (run_on_kept_loop(loop_of) is before) == is_kept
        assert before.is_closed() != is_kept

    on_a_thread(run)


def test_a_loop_behind_with_a_task_that_never_ends_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_loop, "LEAVING_SECONDS", 0.01)
    stubborn = Stubborn(closings=0)
    stubborn.is_endless = True
    kept = HostLoop()
    loop = kept.begin_use()
    task = asyncio.run_coroutine_threadsafe(stubborn.leave(), loop).result(60)
    kept.end_use(60)
    assert not kept.is_usable
    assert loop.is_closed()
    stubborn.is_endless = False
    with contextlib.suppress(asyncio.CancelledError):
        task.get_coro().close()
    assert "1 tasks were still cleaning up" in caplog.text


def test_an_exit_at_the_very_end_leaves_no_task_without_its_cleanup() -> None:
    kept = HostLoop()
    began, cleaned = threading.Event(), threading.Event()

    async def stay() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    def stop_and_exit() -> None:
        loop.call_soon(sys.exit, 3)
        kept._stop()

    loop = kept.begin_use()
    task = asyncio.run_coroutine_threadsafe(stay(), loop)
    assert began.wait(60)
    loop.call_soon_threadsafe(stop_and_exit)
    kept.end_use(60)
    assert cleaned.is_set()
    assert task.cancelled()
    kept.close()
