"""Steps that wait for executions of their own worker: nothing deadlocks in silence."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import AsyncClient, Client, DeadlockError, step, workflow
from pyworkflow._api.body_threads import BodyThreads
from pyworkflow._local import waits, worker
from pyworkflow._runtime import host_loop, steps
from pyworkflow.aws.testing import create_test_handler
from pyworkflow.errors import ExecutionStoppedError
from tests.runtime.local import PATIENCE, on_a_loop


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> BodyThreads:
    """Two threads, and two more while as many are lent."""
    pool = BodyThreads(2, 2)
    monkeypatch.setattr(steps, "_threads", pool)
    monkeypatch.setattr(waits, "body_threads", pool)
    return pool


@step
def leaf(x: int) -> int:
    return x + 1


@workflow
async def child(x: int) -> int:
    return leaf(x)


def parent_of(client: Client, met: threading.Barrier) -> Any:
    @step(retry=False)
    def call_child(x: int) -> int:
        met.wait(PATIENCE)
        return client.start(child, {"x": x}).result()

    @workflow
    async def parent(x: int) -> int:
        return call_child(x)

    return parent


def test_as_many_steps_as_there_are_threads_may_wait_for_executions(pool: BodyThreads) -> None:
    with Client.memory(workflows=[child]) as client:
        parent = parent_of(client, threading.Barrier(2))
        handles = [client.start(parent, {"x": x}) for x in range(2)]
        assert [handle.result(PATIENCE) for handle in handles] == [1, 2]


def test_as_many_as_a_worker_has_slots_may_wait() -> None:
    with Client.memory(workflows=[child], max_concurrent=2) as client:
        parent = parent_of(client, threading.Barrier(2))
        handles = [client.start(parent, {"x": x}) for x in range(2)]
        assert [handle.result(PATIENCE) for handle in handles] == [1, 2]


@on_a_loop
async def test_async_bodies_that_wait_lend_their_slots() -> None:
    met = asyncio.Barrier(2)

    @step(retry=False)
    async def call_child(x: int) -> int:
        await met.wait()
        return await (await client.start(child, {"x": x})).result()

    @workflow
    async def parent(x: int) -> int:
        return await call_child(x)

    async with AsyncClient.memory(workflows=[child], max_concurrent=2) as client:
        handles = [await client.start(parent, {"x": x}) for x in range(2)]
        assert [await handle.result(PATIENCE) for handle in handles] == [1, 2]


def recursive(client: Client) -> Any:
    @step
    def deeper(x: int) -> int:
        return client.start(recurse, {"x": x + 1}).result()

    @workflow
    async def recurse(x: int) -> int:
        return deeper(x)

    return recurse


def test_beyond_the_limit_of_threads_a_wait_is_refused(pool: BodyThreads) -> None:
    with Client.memory() as client, pytest.raises(DeadlockError) as caught:
        client.start(recursive(client), {"x": 0}).result(PATIENCE)
    text = str(caught.value)
    assert "step 'deeper' of execution" in text
    assert text.count("of 'recurse'") == 3  # the one that it would wait for, and two others
    assert "threads of this process are lent" in text
    assert "ctx.invoke('recurse', ...)" in text


def test_beyond_the_limit_of_slots_a_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LENT_SLOTS", 2)
    with (
        Client.memory(max_concurrent=1) as client,
        pytest.raises(DeadlockError, match="the slots of"),
    ):
        client.start(recursive(client), {"x": 0}).result(PATIENCE)


def test_a_wait_for_what_only_others_run_is_not_refused(pool: BodyThreads, tmp_path: Path) -> None:
    started = threading.Semaphore(0)
    names = [f"of-another-{x}" for x in range(4)]

    @workflow
    async def elsewhere() -> None:
        """What no worker of this process runs."""

    @step(retry=False)
    def wait_for_another(name: str) -> str:
        handle = away.start(elsewhere, execution_name=name)
        started.release()
        try:
            handle.result()
        except ExecutionStoppedError:
            return name
        return "it ended"

    @workflow
    async def main() -> list[str]:
        return list(await asyncio.gather(*map(wait_for_another.submit, names)))

    with Client.local(tmp_path / "a.db", worker=False) as away, Client.memory() as client:
        handle = client.start(main)
        # Of the four, two lend their threads, and two have the threads that were added for them.
        assert all(started.acquire(timeout=PATIENCE) for _ in names)
        for name in names:
            away.get(name).stop()
        assert handle.result(PATIENCE) == names


def test_a_body_that_runs_a_mock_lends_its_thread(
    pool: BodyThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_loop, "body_threads", pool)
    met = threading.Barrier(2)

    @step(retry=False)
    def nested(x: int) -> int:
        met.wait(PATIENCE)
        return int(create_test_handler(child)({"x": x}))

    @workflow
    async def main() -> list[int]:
        return list(await asyncio.gather(nested.submit(1), nested.submit(2)))

    assert create_test_handler(main)({}) == [2, 3]
