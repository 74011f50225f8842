"""The physical limit: what a durable step can't do without, and nothing else.

A live step has to call a coroutine, encode its result and decode it again; a replayed one has to be
awaited and decoded. No id, no history, no check. For a gather, live or replayed, it is a bare
`asyncio.gather` of the steps' own coroutines. What has to survive a power cut has to be appended to
a file and synced before anything stands on it.
"""

from __future__ import annotations

import asyncio
import os

import msgspec
from disk import STEPS_OF_BURST, WARM_UP, Measurement, Watch, check_result, new_folder
from measure import Execution, run_worker

ENCODE = msgspec.json.Encoder().encode
DECODE = msgspec.json.Decoder(int).decode


async def add(i: int) -> int:
    return i + 1


async def count(n: int) -> int:
    total = 0
    for i in range(n):
        total = DECODE(ENCODE(await add(i)))
    return total


async def recall(recorded: bytes) -> int:
    return DECODE(recorded)


async def recount(history: list[bytes]) -> int:
    total = 0
    for recorded in history:
        total = await recall(recorded)
    return total


async def fetch(i: int) -> dict[str, object]:
    await asyncio.sleep(0)
    return {"id": i, "name": "item", "ok": True}


async def gather(n: int) -> int:
    return len(await asyncio.gather(*(fetch(i) for i in range(n))))


def bare_gather(n: int) -> Execution:
    return lambda: asyncio.run(gather(n))


def live(n: int) -> Execution:
    return lambda: asyncio.run(count(n))


def replay(n: int) -> Execution:
    history = [ENCODE(i + 1) for i in range(n)]
    return lambda: asyncio.run(recount(history))


RECORD_BYTES = 256
"""About what the record of a step takes."""


def append_and_sync(file: int, records: int) -> None:
    os.write(file, b"x" * RECORD_BYTES * records)
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(file)


def sync_steps(n: int) -> Measurement:
    """Call, encode, append, sync and decode, ``n`` times."""
    return run_synced(n, 1, n)


def sync_burst(n: int) -> Measurement:
    """Do what ``n`` executions ask for in one sync a step, and one for all their starts."""
    return run_synced(STEPS_OF_BURST + 1, n, n)


def sync_starts(n: int) -> Measurement:
    """Sync a start before it is acknowledged, and that it was taken before it runs."""
    return run_synced(2 * n, 1, n)


def run_synced(syncs: int, executions: int, units: int) -> Measurement:
    async def run(file: int, rounds: int) -> int:
        total = 0
        for i in range(rounds):
            encoded = [ENCODE(await add(i)) for _ in range(executions)]
            append_and_sync(file, executions)
            total = [DECODE(each) for each in encoded][-1]
        return total

    with new_folder() as folder:
        file = os.open(folder / "records", os.O_RDWR | os.O_CREAT)
        asyncio.run(run(file, WARM_UP))
        watch = Watch(None)
        result = asyncio.run(run(file, syncs))
        found = watch.read(units)
        os.close(file)
    check_result("syncs", result, syncs)
    return found


if __name__ == "__main__":
    works = {"live": live, "replay": replay}
    gathers = dict.fromkeys(("live gather", "replay gather"), bare_gather)
    synced = {"sqlite step": sync_steps, "sqlite burst": sync_burst, "sqlite start": sync_starts}
    run_worker(works | gathers, ["msgspec"], synced)
