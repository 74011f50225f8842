"""Workflow code that acts on the world past its loop is refused in a strict test, steps are not."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pyworkflow import UsageError, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from collections.abc import Callable

charged: list[str] = []


@step
def charge(order: str) -> str:
    charged.append(order)
    return order


def use_a_pool() -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(charge, ["a", "b"]))


def use_a_thread() -> None:
    thread = threading.Thread(target=charge, args=("a",))
    thread.start()
    thread.join()


def run_a_program() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def run_a_shell() -> None:
    assert os.system("exit 0") == 0


def look_up() -> None:
    assert socket.getaddrinfo("127.0.0.1", 9)


def connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())


DEEDS = [
    (use_a_pool, "starts a thread"),
    (use_a_thread, "starts a thread"),
    (run_a_program, "starts a process"),
    (run_a_shell, "starts a process"),
    (look_up, "asks the network"),
    (connect, "connects to the network"),
]


@pytest.mark.parametrize(("deed", "reason"), DEEDS)
def test_workflow_code_is_refused(deed: Callable[[], None], reason: str) -> None:
    @workflow
    def blocking() -> None:
        deed()

    @workflow
    async def waiting() -> None:
        deed()

    charged.clear()
    for each in (blocking, waiting):
        with pytest.raises(UsageError, match=f"workflow code {reason}"):
            create_test_handler(each)({})
    assert charged == []


@pytest.mark.parametrize("deed", [deed for deed, _ in DEEDS])
def test_steps_are_not(deed: Callable[[], None]) -> None:
    @workflow
    def steps() -> str:
        step(name="thread")(deed)()
        step(name="inline", inline=True)(deed)()
        return "done"

    assert create_test_handler(steps)({}) == "done"


@pytest.mark.parametrize("deed", [deed for deed, _ in DEEDS])
def test_without_strictness_nothing_is(deed: Callable[[], None]) -> None:
    @workflow
    def lenient() -> str:
        deed()
        return "done"

    assert create_test_handler(lenient, MockDurableContext(strict=False))({}) == "done"


def test_a_logging_handler_may_do_what_it_does() -> None:
    class ThreadedHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            use_a_thread()

    @workflow
    def logs() -> str:
        logger.warning("said")
        return "done"

    logger, handler = logging.getLogger(__name__), ThreadedHandler()
    logger.addHandler(handler)
    try:
        assert create_test_handler(logs)({}) == "done"
    finally:
        logger.removeHandler(handler)
