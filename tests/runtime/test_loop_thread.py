from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyworkflow._local.loop_thread import LoopThread
from pyworkflow.errors import UsageError
from tests.runtime.local import PATIENCE


class Resource:
    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.events.append("open")
        try:
            yield
        finally:
            await asyncio.sleep(0)
            self.events.append("closed")


def started(resource: Resource) -> LoopThread:
    thread = LoopThread("test", resource.open())
    thread.start()
    return thread


async def number() -> int:
    return 1


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_it_opens_calls_and_closes() -> None:
    resource = Resource()
    thread = started(resource)
    assert thread.call(number) == 1
    assert resource.events == ["open"]
    thread.stop()
    assert resource.events == ["open", "closed"]
    with pytest.raises(UsageError, match="has ended"):
        thread.call(number)
    thread.stop()  # a second time does nothing


def test_what_a_call_raises_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("no")

    thread = started(Resource())
    with pytest.raises(LookupError, match="no"):
        thread.call(fails)
    thread.stop()


def test_what_opening_raises_is_raised() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise LookupError("no such file")
        yield

    with pytest.raises(LookupError, match="no such file"):
        LoopThread("test", broken()).start()


def test_on_its_own_thread_it_would_wait_for_itself() -> None:
    thread = started(Resource())

    async def inner() -> Any:
        return thread.call(number)

    with pytest.raises(UsageError, match="would wait for the loop on which it was made"):
        thread.call(inner)
    thread.stop()


def test_whoever_waits_when_it_ends_is_told() -> None:
    resource = Resource()
    thread = started(resource)
    told: list[BaseException] = []
    begun = threading.Event()

    async def waits() -> None:
        begun.set()
        await for_ever()

    def call() -> None:
        try:
            thread.call(waits)
        except UsageError as error:
            told.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(PATIENCE)
    thread.stop()
    caller.join(PATIENCE)
    assert len(told) == 1
    assert resource.events == ["open", "closed"]


def test_an_exit_on_the_loop_does_not_end_it() -> None:
    resource = Resource()
    thread = started(resource)

    async def exits() -> str:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        task = asyncio.create_task(leaves())
        try:
            await task
        except SystemExit as error:
            return f"the task left with {error.code}"
        return "nothing was raised"

    async def leaves() -> None:
        await asyncio.sleep(0)
        sys.exit(4)

    assert thread.call(exits) == "the task left with 4"
    assert thread.call(number) == 1
    thread.stop()
    assert resource.events == ["open", "closed"]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_start_that_is_interrupted_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    resource = Resource()
    thread = LoopThread("interrupted", resource.open())
    real = thread._is_ready.wait

    def interrupt(_: float) -> None:
        if has_begun:
            real()
        raise KeyboardInterrupt

    monkeypatch.setattr(thread._is_ready, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
    assert thread._host.thread is None, "nobody uses the loop any more"
    assert resource.events in ([], ["open", "closed"])
    assert resource.events or not has_begun
