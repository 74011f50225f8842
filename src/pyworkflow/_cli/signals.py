"""Stopping by signal: the first asks, the second does not wait.

What is recorded is durable at every moment, so ending the process at once loses nothing but the
steps that were under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from pyworkflow._cli.console import stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[asyncio.Future[int]]:
    """Provide a future of the first signal's number; a second signal ends the process.

    A thread receives them, not the loop, which a step may block. Python's own handlers do not help
    either: they run on the main thread alone, and the system may hand the second signal to
    another one, which does not wake it.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()
    told, tells = socket.socketpair()
    tells.setblocking(False)

    def watch() -> None:
        seen: list[int] = []
        for number in _signals_from(told):
            seen.append(number)
            if len(seen) > 1:
                # Of two that come together the system may deliver the second first.
                end_now(128 + max(seen))
            loop.call_soon_threadsafe(asked.set_result, number)

    watcher = threading.Thread(target=watch, name="pyworkflow-signals", daemon=True)
    watcher.start()
    former_fd = signal.set_wakeup_fd(tells.fileno())
    former = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_fd)
        tells.close()
        watcher.join()
        told.close()


def _signals_from(told: socket.socket) -> Iterator[int]:
    """Yield the numbers of our signals as they come, until the other end is closed."""
    while read := told.recv(1):
        if read[0] in SIGNALS:
            yield read[0]


def say_that_it_stops() -> None:
    """Say what happens between the first signal and the end."""
    stderr().print("stopping: steps in flight may finish; once more ends at once")


def end_now(code: int) -> NoReturn:
    """End the process, waiting for no thread: a sync step can't be made to end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a signal may come in the midst of a write
            stream.flush()
    os._exit(code)
