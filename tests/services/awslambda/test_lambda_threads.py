"""Calls that block: made elsewhere, answered on the loop that asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from pyworkflow.services.awslambda.threads import CallThreads


@pytest.fixture
def threads() -> contextlib.closing[CallThreads]:
    return contextlib.closing(CallThreads(2, "calls"))


def test_a_call_runs_in_a_thread_that_stays(threads: contextlib.closing[CallThreads]) -> None:
    async def main(calls: CallThreads) -> None:
        names = [await calls.run(lambda: threading.current_thread().name) for _ in range(3)]
        assert names == ["calls-0"] * 3
        assert await calls.run(divmod, 7, 2) == (3, 1)

    with threads as calls:
        asyncio.run(main(calls))
        asyncio.run(main(calls))  # another loop


def test_what_it_raises_is_raised_to_who_asked(threads: contextlib.closing[CallThreads]) -> None:
    async def main(calls: CallThreads) -> None:
        with pytest.raises(ZeroDivisionError):
            await calls.run(divmod, 1, 0)
        assert await calls.run(len, "ab") == 2  # the thread lives

    with threads as calls:
        asyncio.run(main(calls))


def test_calls_run_beside_each_other_up_to_the_number(
    threads: contextlib.closing[CallThreads],
) -> None:
    meeting = threading.Barrier(2)
    running: set[str] = set()

    def call() -> None:
        running.add(threading.current_thread().name)
        meeting.wait(30)

    async def main(calls: CallThreads) -> None:
        await asyncio.gather(*(calls.run(call) for _ in range(6)))

    with threads as calls:
        asyncio.run(main(calls))
    assert running == {"calls-0", "calls-1"}


def test_nobody_need_wait_for_an_answer(threads: contextlib.closing[CallThreads]) -> None:
    """A call whose future was cancelled, or whose loop is closed, ends quietly."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    complaints: list[object] = []

    def call() -> None:
        begun.set()
        go_on.wait(30)

    async def leave(calls: CallThreads) -> None:
        calls.run(call)
        await asyncio.to_thread(begun.wait, 30)

    async def cancel(calls: CallThreads) -> None:
        begun.clear()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        future = calls.run(call)
        await asyncio.to_thread(begun.wait, 30)
        future.cancel()
        go_on.set()
        await calls.run(ended.set)

    with threads as calls:
        asyncio.run(leave(calls))
        asyncio.run(cancel(calls))
    assert ended.is_set()
    assert complaints == []


def test_closing_lets_calls_end() -> None:
    done: list[int] = []

    async def main(calls: CallThreads) -> None:
        for number in range(5):
            calls.run(done.append, number)

    calls = CallThreads(1, "calls")
    asyncio.run(main(calls))
    calls.close()
    assert done == [0, 1, 2, 3, 4]
