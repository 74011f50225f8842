"""A deadlock names the thread that was started in workflow code and waits to report."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import DeadlockError, WorkflowContext, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import WorkflowLoopError


class Worker(threading.Thread):
    """What a library starts to run a function: it reports to the loop that waits."""

    def __init__(self, may_report: threading.Event) -> None:
        super().__init__(name="a worker of the library")
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self._may_report = may_report
        self.refusal: BaseException | None = None

    def run(self) -> None:
        self._may_report.wait()
        try:
            self.loop.call_soon_threadsafe(self.done.set_result, 1)
        except RuntimeError as error:
            self.refusal = error


def deadlock_of(code: Callable[..., Any]) -> str:
    """Return the text of the deadlock; what the strict mock refuses at once happens here."""
    mock = MockDurableContext(strict=False)
    with pytest.raises(DeadlockError) as told:
        create_test_handler(workflow(name="main")(code), mock)({})
    return str(told.value)


def test_a_thread_that_still_runs_is_named() -> None:
    may_report = threading.Event()
    workers: list[Worker] = []

    async def main(ctx: WorkflowContext) -> None:
        workers.append(Worker(may_report))
        workers[0].start()
        await workers[0].done

    try:
        text = deadlock_of(main)
    finally:
        may_report.set()
        workers[0].join()
    assert "thread 'a worker of the library', which works for this loop" in text
    assert "awaits a future that nobody completes" in text
    assert text.endswith("Move the code that uses the thread into a @step.")
    assert isinstance(workers[0].refusal, WorkflowLoopError)


def test_a_thread_that_has_reported_is_shown_by_its_code() -> None:
    may_report = threading.Event()
    may_report.set()

    async def main(ctx: WorkflowContext) -> None:
        worker = Worker(may_report)
        worker.start()
        worker.join()
        await worker.done

    text = deadlock_of(main)
    assert f"a call from another thread: {__file__}:" in text
    assert "in Worker.run" in text


class Holder:
    """An object whose method is a thread's function."""

    def __init__(self, loop: asyncio.AbstractEventLoop, may_end: threading.Event) -> None:
        self.loop = loop
        self._may_end = may_end

    def wait(self) -> None:
        self._may_end.wait()


@pytest.mark.parametrize("how", ["argument", "closure", "method", "future"])
def test_a_plain_thread_is_known_by_what_it_was_given(how: str) -> None:
    may_end = threading.Event()
    threads: list[threading.Thread] = []

    async def main(ctx: WorkflowContext) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def wait(*_: object) -> None:
            may_end.wait()

        def wait_for_the_loop() -> None:
            may_end.wait()
            assert loop is not None

        given: dict[str, Any] = {
            "argument": {"target": wait, "args": (loop,)},
            "future": {"target": wait, "args": ([done],)},
            "closure": {"target": wait_for_the_loop},
            "method": {"target": Holder(loop, may_end).wait},
        }
        threads.append(threading.Thread(name="a plain one", **given[how]))
        threads[0].start()
        await done

    try:
        text = deadlock_of(main)
    finally:
        may_end.set()
        threads[0].join()
    assert "thread 'a plain one', which works for this loop" in text


def test_threads_of_others_are_not_blamed() -> None:
    may_end = threading.Event()
    other = threading.Thread(target=may_end.wait, name="another's")
    other.start()

    async def main(ctx: WorkflowContext) -> None:
        await asyncio.Event().wait()

    try:
        text = deadlock_of(main)
    finally:
        may_end.set()
        other.join()
    assert "another's" not in text
    assert text.endswith("is the usual cause.")
