"""The physical limit: what a durable step can't do without, and nothing else.

A live step has to call a coroutine, encode its result and decode it again; a replayed one has to be
awaited and decoded. No id, no history, no check. For a gather, live or replayed, it is a bare
`asyncio.gather` of the steps' own coroutines.
"""

from __future__ import annotations

import asyncio

import msgspec
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


if __name__ == "__main__":
    works = {"live": live, "replay": replay}
    gathers = dict.fromkeys(("live gather", "replay gather"), bare_gather)
    run_worker(works | gathers, ["msgspec"])
