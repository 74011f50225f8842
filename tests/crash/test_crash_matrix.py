"""Workers killed with SIGKILL over the shapes of the corpus, at moments that a seed chooses.

Each worker is killed at one of the `KILL_POINTS`, or from outside once so many bodies have begun:
wherever it happens to be by then. What must hold stands in `crash_batch.py` and `crash_log.py`.

``CRASH_KILLS`` says how many kills, ``CRASH_SEED`` repeats a run as far as the machine's own
chance allows; the seed is told with the counts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random

import pytest

from tests.corpus.counting import count
from tests.crash.crash_batch import Batch, Nursery
from tests.crash.crash_shapes import OWN, SHAPES
from tests.crash.crash_worker import (
    AFTER_COMMIT,
    ANSWERED,
    BEFORE_COMMIT,
    BODY_BEGINS,
    KILL_POINTS,
    STARTED,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked and killed")

KILLS = int(os.environ.get("CRASH_KILLS") or 200)
SEED = int(
    os.environ.get("CRASH_SEED") or (0 if os.environ.get("CI") else Random().getrandbits(32))
)
IS_LONG = KILLS > 200

FROM_OUTSIDE = "from outside"
KILLS_PER_BATCH = 60
# The kills are shared out, so that the processes that run the tests kill side by side.
SHARES = 4


async def _killed_at_random(folder: Path, random: Random, nursery: Nursery, kills: int) -> Batch:
    async with Batch.opened(folder) as batch:
        names = [(name, name) for name in SHAPES]
        names += [(shape.name, f"{shape.name}-more-{copy}") for shape in OWN for copy in range(4)]
        random.shuffle(names)
        while batch.counts["kills"] < kills and (names or not batch.is_over):
            taken = [names.pop() for _ in range(min(len(names), random.randrange(12)))]
            own = random.randrange(len(taken) + 1)
            kill_at = random.choice((*KILL_POINTS, FROM_OUTSIDE, FROM_OUTSIDE))
            most = 40 if kill_at in {BODY_BEGINS, FROM_OUTSIDE} else 12
            number = random.randint(1, max(own, 1) if kill_at == STARTED else most)
            await batch.start(taken[own:])
            plan = batch.plan(
                kill_at=kill_at,
                number=number,
                max_concurrent=random.choice((1, 5, 50, 200)),
                starts=tuple(taken[:own]),
            )
            outside = number if kill_at == FROM_OUTSIDE else 0
            if await batch.run(nursery, plan, kill_after_bodies=outside):
                batch.counts[f"kills, {kill_at}"] += 1
            await batch.start(taken[:own])  # again, where the first start was not acknowledged
        await batch.start(names)
        assert await batch.run(nursery, batch.plan()) == 0
        assert batch.is_over
        await batch.check()
        return batch


async def _killed_at_each_commit(folder: Path, workflow: str) -> Batch:
    async with Nursery.opened() as nursery, Batch.opened(folder) as batch:
        for kill_at in (BEFORE_COMMIT, AFTER_COMMIT, ANSWERED):
            code, number = -signal.SIGKILL, 0
            while code:
                number += 1
                await batch.start([(workflow, f"{kill_at.replace(' ', '-')}-{number}")])
                code = await batch.run(nursery, batch.plan(kill_at=kill_at, number=number))
                if code:
                    assert await batch.run(nursery, batch.plan()) == 0
        assert batch.is_over
        await batch.check()
        return batch


@pytest.mark.parametrize("workflow", SHAPES if IS_LONG else ["careful_in_threads", "invokes"])
def test_a_worker_killed_at_each_of_its_commits(tmp_path: Path, workflow: str) -> None:
    batch = asyncio.run(_killed_at_each_commit(tmp_path, workflow))
    assert batch.counts["kills"] >= 6
    _count(batch, "killed at each commit")


def _count(batch: Batch, what: str) -> None:
    for label, found in batch.counts.items():
        count(f"{what}, {label}", found)


@pytest.mark.parametrize("share", range(SHARES))
def test_workers_killed_at_random(tmp_path: Path, share: int) -> None:
    share_of_kills = KILLS // SHARES + (share < KILLS % SHARES)

    async def run() -> None:
        async with Nursery.opened() as nursery:
            killed = number = 0
            while killed < share_of_kills:
                number += 1
                folder = tmp_path / str(number)
                folder.mkdir()
                random = Random(f"{SEED} {share} {number}")
                wanted = min(share_of_kills - killed, KILLS_PER_BATCH)
                try:
                    batch = await _killed_at_random(folder, random, nursery, wanted)
                except Exception as error:
                    error.add_note(f"CRASH_SEED={SEED}, share {share}, batch {number}, {folder}")
                    raise
                killed += batch.counts["kills"]
                _count(batch, "killed at random")
        count(f"killed at random, batches (CRASH_SEED={SEED})", number)

    asyncio.run(run())
