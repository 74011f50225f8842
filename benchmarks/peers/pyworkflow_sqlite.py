"""PyWorkflow over its SQLite service, with the default durability, through its public clients.

A file with many sleeping executions is one that really fell asleep, multiplied by SQL.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from disk import (
    DUE,
    STEPS_OF_BURST,
    WARM_UP,
    YEAR_SECONDS,
    Measurement,
    Watch,
    check_result,
    measure_starts,
    new_folder,
    resident_bytes,
)
from fsyncs import count_fsyncs

from pyworkflow import AsyncClient, Client, WorkflowContext, step, workflow

NAP_SECONDS = 4


@step()
async def add(i: int) -> int:
    return i + 1


@workflow
async def count(ctx: WorkflowContext, n: int) -> int:
    total = 0
    for i in range(n):
        total = await add(i)
    return total


woken: list[float] = []


@workflow
async def nap(ctx: WorkflowContext, seconds: int) -> int:
    ctx.sleep(seconds)
    woken.append(time.perf_counter())
    return seconds


begun: list[float] = []


@workflow
async def begin(ctx: WorkflowContext) -> int:
    begun.append(time.perf_counter())
    return 1


held: list[asyncio.Event] = []


@step(timeout=YEAR_SECONDS)
async def hold() -> int:
    gate = asyncio.Event()
    held.append(gate)
    await gate.wait()
    return 1


@workflow
async def keep(ctx: WorkflowContext) -> int:
    return await hold()


def steps(n: int) -> Measurement:
    """Run one execution of ``n`` steps, one after another."""
    fsyncs = count_fsyncs()
    with new_folder() as folder, Client.local(folder / "a.db") as client:
        client.start(count, {"n": WARM_UP}).result()
        watch = Watch(fsyncs)
        result = client.start(count, {"n": n}).result()
        found = watch.read(n)
    check_result("steps", result, n)
    return found


def burst(n: int) -> Measurement:
    """Start ``n`` executions of a few steps at once and wait for all."""

    async def run(path: Path) -> Measurement:
        fsyncs = count_fsyncs()
        async with AsyncClient.local(path) as client:
            await (await client.start(count, {"n": WARM_UP})).result()
            watch = Watch(fsyncs)
            handles = await asyncio.gather(
                *(client.start(count, {"n": STEPS_OF_BURST}) for _ in range(n))
            )
            results = [await handle.result() for handle in handles]
            found = watch.read(n)
        check_result("burst", results, [STEPS_OF_BURST] * n)
        return found

    with new_folder() as folder:
        return asyncio.run(run(folder / "a.db"))


def wake(n: int) -> Measurement:
    """Open a file in which ``n`` executions sleep and `DUE` of them are due: until those ended."""

    async def run(path: Path) -> Measurement:
        if n > DUE:
            async with AsyncClient.local(path) as client:
                await fall_asleep(client, 1, YEAR_SECONDS)
            multiply_sleeper(path, n - DUE)
        async with AsyncClient.local(path) as client:
            handles = await fall_asleep(client, DUE, NAP_SECONDS)
        due = time.monotonic() + NAP_SECONDS + 1
        fsyncs = count_fsyncs()
        await asyncio.sleep(due - time.monotonic())
        watch = Watch(fsyncs)
        async with AsyncClient.local(path, workflows=[nap]) as client:
            results = [await (await client.get(one)).result() for one in handles]
            found = watch.read(DUE)
        check_result("wake", results, [NAP_SECONDS] * DUE)
        return found

    with new_folder() as folder:
        return asyncio.run(run(folder / "a.db"))


async def fall_asleep(client: AsyncClient, number: int, seconds: int) -> list[str]:
    """Start executions and return their ids when all have begun to sleep."""
    handles = await asyncio.gather(
        *(client.start(nap, {"seconds": seconds}) for _ in range(number))
    )
    for handle in handles:
        while len(await handle.operations()) < 2:
            await asyncio.sleep(0.01)
    return [handle.id for handle in handles]


def multiply_sleeper(path: Path, number: int) -> None:
    """Make the file's newest execution ``number``, all asleep for as long as it is.

    No worker may have the file open: the copies must not be leased to it.
    """
    file = sqlite3.connect(path)
    with file:
        (model,) = file.execute("SELECT max(number) FROM executions").fetchone()
        columns = [name for _, name, *_ in file.execute("PRAGMA table_info(executions)")]
        changed = {"number": "NULL", "id": "id || '-' || i", "name": "name || '-' || i"}
        values = ", ".join(changed.get(column, column) for column in columns)
        file.execute(
            "WITH RECURSIVE copy(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM copy WHERE i < ?)"
            f" INSERT INTO executions SELECT {values} FROM copy, executions WHERE number = ?",
            (number - 1, model),
        )
        for table in ("operations", "history"):
            columns = [name for _, name, *_ in file.execute(f"PRAGMA table_info({table})")]
            rest = ", ".join(f"o.{column}" for column in columns if column != "key")
            file.execute(
                f"INSERT INTO {table}"
                f" SELECT (e.number << 32) | (o.key & 4294967295), {rest}"
                f" FROM {table} o, executions e WHERE o.key >> 32 = ? AND e.number > ?",
                (model, model),
            )
    file.close()


def open_file(n: int) -> Measurement:
    """Open a file with ``n`` sleeping executions and one that is due, until that one goes on."""

    async def run(folder: Path) -> Measurement:
        async with AsyncClient.local(folder / "a.db") as client:
            await fall_asleep(client, 1, YEAR_SECONDS)
        multiply_sleeper(folder / "a.db", n)
        async with AsyncClient.local(folder / "a.db") as client:
            await fall_asleep(client, 1, 1)
        await asyncio.sleep(2)
        async with AsyncClient.local(folder / "b.db") as client:  # the same, but for the sleepers
            await (await client.start(nap, {"seconds": 1})).result()
            before = resident_bytes()
        woken.clear()
        watch, start = Watch(None), time.perf_counter()
        async with AsyncClient.local(folder / "a.db", workflows=[nap]):
            while not woken:
                await asyncio.sleep(0.001)
            found = watch.read()
            await asyncio.sleep(0.5)
            held = (resident_bytes() - before) / n
        return Measurement(woken[0] - start, found.cpu_s, {"sleeper_bytes": held})

    with new_folder() as folder:
        return asyncio.run(run(folder))


def start(n: int) -> Measurement:
    """Start ``n`` executions one after another: until the first line of each has run."""
    fsyncs = count_fsyncs()
    with new_folder() as folder, Client.local(folder / "a.db") as client:
        return measure_starts(lambda: client.start(begin).result, begun, n, fsyncs)


def running(n: int) -> Measurement:
    """Hold ``n`` executions in a step, once as many others have been there before."""

    async def run(path: Path) -> Measurement:
        async with AsyncClient.local(path, max_concurrent=2 * n + 1) as client:
            await hold_all(client, n)
            before = resident_bytes()
            watch = Watch(None)
            await hold_all(client, n)
            found = watch.read()
            bytes_each = (resident_bytes() - before) / n
            for gate in held:
                gate.set()
        return Measurement(found.wall_s, found.cpu_s, {"execution_bytes": bytes_each})

    async def hold_all(client: AsyncClient, number: int) -> None:
        expected = len(held) + number
        await asyncio.gather(*(client.start(keep) for _ in range(number)))
        while len(held) < expected:
            await asyncio.sleep(0.01)

    with new_folder() as folder:
        return asyncio.run(run(folder / "a.db"))


def suspended(n: int) -> Measurement:
    """Put ``n`` executions to sleep, once as many others sleep already."""

    async def run(path: Path) -> Measurement:
        async with AsyncClient.local(path) as client:
            await fall_asleep(client, n, YEAR_SECONDS)
            before = resident_bytes()
            watch = Watch(None)
            await fall_asleep(client, n, YEAR_SECONDS)
            found = watch.read()
            bytes_each = (resident_bytes() - before) / n
        return Measurement(found.wall_s, found.cpu_s, {"execution_bytes": bytes_each})

    with new_folder() as folder:
        return asyncio.run(run(folder / "a.db"))


WORKS = {
    "sqlite step": steps,
    "sqlite burst": burst,
    "sqlite wake": wake,
    "sqlite open": open_file,
    "sqlite start": start,
    "sqlite running": running,
    "sqlite suspended": suspended,
}
