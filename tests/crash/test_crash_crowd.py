"""Several worker processes on one file, under load: nothing twice, nothing forgotten.

Their hearts are still (but where some are killed), so a wake-up that was lost is not made good by
the next beat: the execution would hang, and the test with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.corpus.counting import count
from tests.crash.crash_batch import PATIENCE, Batch, Nursery
from tests.crash.crash_worker import Plan
from tests.crash.test_crash_matrix import IS_LONG

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked and killed")

LOAD = (
    "asks_and_blocks",
    "asks_several",
    "careful_in_threads",
    "invokes",
    "long_line",
    "many_at_once",
    "sequence",
    "try_finally",
)
"""They wait for a few seconds at most, in real time."""

EACH = 100 if IS_LONG else 25
KILLS = 60 if IS_LONG else 8


async def _load(batch: Batch) -> None:
    """Start executions, and answer their callbacks until all are over."""
    await batch.start((name, f"{name}-{copy}") for copy in range(EACH) for name in LOAD)
    async with batch.answering():
        await asyncio.gather(*map(batch.over, batch.started))


async def _crowd(folder: Path, workers: int) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        batch = await stack.enter_async_context(Batch.opened(folder))
        plan = batch.plan(skip_time=False, until_over=False, has_heart=False, max_concurrent=50)
        crowd = [await stack.enter_async_context(Nursery.opened()) for _ in range(workers)]
        for nursery in crowd:
            await nursery.begin(plan)
        await _load(batch)
        for nursery in crowd:
            nursery.stop()
        assert [await nursery.end() for nursery in crowd] == [0] * workers
        await batch.read()
        laws = await batch.check()
        assert laws.warnings == []
        assert set(laws.runs.values()) == {1}
        assert len({line.pid for line in laws.began}) == workers
        _count(batch, f"{workers} workers on one file")


def _count(batch: Batch, what: str) -> None:
    for label, found in batch.counts.items():
        count(f"{what}, {label}", found)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_a_file_under_load(tmp_path: Path, workers: int) -> None:
    asyncio.run(_crowd(tmp_path, workers))


async def _kill_now_and_then(nursery: Nursery, plan: Plan, load: asyncio.Task[None]) -> int:
    """Run workers one after the other; all but the last are killed, after some bodies.

    A worker that the other one leaves too few bodies is killed once the load is over.
    """
    kills = 0
    load.add_done_callback(lambda _: nursery.kill())
    while kills < KILLS and not load.done():
        await nursery.begin(plan)
        if load.done():
            nursery.kill()
        assert await nursery.end(kill_after_bodies=5 + 10 * kills % 40) == -signal.SIGKILL
        kills += 1
    await load
    await nursery.begin(plan)
    return kills


async def _dying_crowd(folder: Path) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        batch = await stack.enter_async_context(Batch.opened(folder))
        plan = batch.plan(skip_time=False, until_over=False, max_concurrent=20)
        steady, dying = [await stack.enter_async_context(Nursery.opened()) for _ in range(2)]
        await steady.begin(plan)
        kills = await _kill_now_and_then(dying, plan, asyncio.create_task(_load(batch)))
        assert kills
        for nursery in (steady, dying):
            nursery.stop()
            assert await nursery.end() == 0
        batch.counts["kills"] += kills
        await batch.read()
        laws = await batch.check()
        assert laws.warnings == []
        _count(batch, "2 workers on one file, one is killed")


def test_one_worker_goes_on_while_the_other_is_killed(tmp_path: Path) -> None:
    asyncio.run(_dying_crowd(tmp_path))
