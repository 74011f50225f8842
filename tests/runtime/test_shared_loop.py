"""Mock calls, runs and synchronous clients of a thread share one loop for step bodies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

import pyworkflow
from pyworkflow import AsyncClient, Client, UsageError, step, workflow
from pyworkflow._runtime.host_loop import run_on_kept_loop
from pyworkflow.aws.testing import create_test_handler
from tests.runtime.local import PATIENCE

loops: list[asyncio.AbstractEventLoop] = []


@step
async def note_loop() -> None:
    loops.append(asyncio.get_running_loop())


@workflow
async def main() -> None:
    await note_loop()


def call_all() -> None:
    handler = create_test_handler(main)
    handler({})
    pyworkflow.run(main)
    with Client.memory() as client:
        client.start(main).result()
        handler({})
        with Client.memory() as other:
            other.start(main).result()
            pyworkflow.run(main)
        client.start(main).result()
    handler({})


def loops_of(run: Any) -> set[asyncio.AbstractEventLoop]:
    loops.clear()
    run()
    return set(loops)


def test_one_loop_for_all_calls_of_a_thread() -> None:
    (first,) = loops_of(call_all)
    assert len(loops) == 8
    assert not first.is_closed()
    assert loops_of(call_all) == {first}


def test_inside_a_running_loop_it_is_the_same() -> None:
    async def test() -> None:
        call_all()

    (first,) = loops_of(call_all)
    assert loops_of(lambda: asyncio.run(test())) == {first}


def test_each_thread_has_its_own_which_is_closed_with_it() -> None:
    mine = loops_of(call_all)

    def on_a_thread() -> None:
        thread = threading.Thread(target=call_all)
        thread.start()
        thread.join(PATIENCE)

    (its,) = loops_of(on_a_thread)
    assert its not in mine
    assert its.is_closed()


def test_an_async_client_keeps_to_its_callers_loop() -> None:
    async def test() -> asyncio.AbstractEventLoop:
        async with AsyncClient.memory() as client:
            await (await client.start(main)).result()
        return asyncio.get_running_loop()

    loops.clear()
    assert asyncio.run(test()) is loops[0]


def test_what_is_bound_to_a_loop_lives_on() -> None:
    lock = asyncio.Lock()

    @step(retry=False)
    async def locked() -> str:
        async with lock:
            await asyncio.sleep(0.001)
            return "ok"

    @workflow
    async def both() -> list[str]:
        return list(await asyncio.gather(locked(), locked()))

    handler = create_test_handler(both)
    assert handler({}) == handler({}) == pyworkflow.run(both) == ["ok", "ok"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_body_may_run_workflows_of_its_own(is_async: bool) -> None:
    def nested() -> int:
        create_test_handler(main)({})
        pyworkflow.run(main)
        with Client.memory() as client:
            client.start(main).result()
        return 3

    async def nested_async() -> int:
        return nested()

    body: Any = step(retry=False, name="body")(nested_async if is_async else nested)

    @workflow
    async def outer() -> int:
        return int(await body.submit())

    assert create_test_handler(outer)({}) == 3
    assert pyworkflow.run(outer) == 3
    with Client.memory() as client:
        assert client.start(outer).result() == 3
        assert create_test_handler(outer)({}) == 3


def test_on_its_own_loop_a_client_is_refused_as_before() -> None:
    @step(retry=False)
    async def asks() -> str:
        return client.start(main).id

    @workflow
    async def outer() -> str:
        return await asks()

    with Client.memory() as client, pytest.raises(UsageError, match="AsyncClient"):
        create_test_handler(outer)({})


SCRIPT = """
import asyncio, pyworkflow
from pyworkflow import Client, step, workflow
from pyworkflow.aws.testing import create_test_handler

@step
async def one() -> int:
    return 1

@workflow
async def main() -> int:
    return await one()

create_test_handler(main)({})
pyworkflow.run(main)
client = Client.memory().__enter__()
client.start(main).result()
print("done")
"""


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_process_closes_it_at_its_exit_without_a_warning(is_closed: bool) -> None:
    source = SCRIPT + ("client.__exit__(None, None, None)\n" if is_closed else "")
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", source]
    end = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (end.returncode, end.stdout, end.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_process_has_another_and_leaves_that_of_its_parent_alone() -> None:
    async def wake_from_a_thread() -> None:
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        threading.Timer(0, loop.call_soon_threadsafe, (woken.set_result, None)).start()
        await woken

    run_on_kept_loop(wake_from_a_thread)
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        try:
            create_test_handler(main)({})
            run_on_kept_loop(wake_from_a_thread)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    run_on_kept_loop(wake_from_a_thread)
