"""Stopping by signal: the first asks, the second does not wait.

What is recorded is durable at every moment, so ending the process at once loses nothing but the
steps that were under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from pyworkflow._cli.console import stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[asyncio.Future[int]]:
    """Provide a future of the first signal's number; a second signal ends the process.

    The handlers are Python's, not the loop's: they run though a step blocks the loop.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()
    seen: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if seen:
            end_now(128 + number)
        seen.append(number)
        loop.call_soon_threadsafe(asked.set_result, number)

    former = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def say_that_it_stops() -> None:
    """Say what happens between the first signal and the end."""
    stderr().print("stopping: steps in flight may finish; once more ends at once")


def end_now(code: int) -> NoReturn:
    """End the process, waiting for no thread: a sync step can't be made to end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a signal may come in the midst of a write
            stream.flush()
    os._exit(code)
