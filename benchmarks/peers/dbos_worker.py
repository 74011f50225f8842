"""DBOS over its SQLite system database, with its defaults.

One workflow's steps are sync, many workflows are async: each way is DBOS's faster one there. All
that runs in this process: no queue, no other executor, no administration server, no log.

DBOS's file has a rollback journal (``journal_mode=DELETE``) and ``synchronous=FULL``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from dbos import DBOS
from disk import (
    STEPS_OF_BURST,
    WARM_UP,
    YEAR_SECONDS,
    Measurement,
    Watch,
    check_result,
    leave,
    measure_starts,
    new_folder,
    resident_bytes,
)
from fsyncs import count_fsyncs
from measure import run_worker

NAP_SECONDS = 1
LEAD_SECONDS = 0.1
"""How long before the sleepers are due the watch begins; it is taken off the wall time."""
TRIAL = 100
"""How many fall asleep first, to tell how long the others will take to."""
PREPARE = "--prepare"
Run = Callable[[], Coroutine[object, object, Measurement]]


@DBOS.step()
def add(i: int) -> int:
    return i + 1


@DBOS.workflow()
def count(n: int) -> int:
    total = 0
    for i in range(n):
        total = add(i)
    return total


@DBOS.step()
async def add_async(i: int) -> int:
    return i + 1


@DBOS.workflow()
async def count_async(n: int) -> int:
    total = 0
    for i in range(n):
        total = await add_async(i)
    return total


entered: list[float] = []
woken: list[float] = []


@DBOS.workflow()
async def nap(until: float) -> int:
    entered.append(time.perf_counter())
    await DBOS.sleep_async(until - time.time())
    woken.append(time.perf_counter())
    return 1


begun: list[float] = []


@DBOS.workflow()
def begin() -> int:
    begun.append(time.perf_counter())
    return 1


held: list[asyncio.Event] = []


@DBOS.step()
async def hold() -> int:
    gate = asyncio.Event()
    held.append(gate)
    await gate.wait()
    return 1


@DBOS.workflow()
async def keep() -> int:
    await hold()
    return 1


def launch(folder: Path) -> None:
    DBOS(
        config={
            "name": "benchmark",
            "application_version": "1",
            "system_database_url": f"sqlite:///{folder / 'a.db'}",
            "run_admin_server": False,
            "log_level": "CRITICAL",
            "console_log_level": "CRITICAL",
        }
    )
    DBOS.launch()


def steps(n: int) -> Measurement:
    fsyncs = count_fsyncs()
    with new_folder() as folder:
        launch(folder)
        count(WARM_UP)
        watch = Watch(fsyncs)
        result = DBOS.start_workflow(count, n).get_result()
        found = watch.read(n)
    check_result("steps", result, n)
    return found


def burst(n: int) -> Measurement:
    fsyncs = count_fsyncs()

    async def run() -> Measurement:
        await count_async(WARM_UP)
        watch = Watch(fsyncs)
        handles = await asyncio.gather(
            *(DBOS.start_workflow_async(count_async, STEPS_OF_BURST) for _ in range(n))
        )
        results = [await handle.get_result() for handle in handles]
        found = watch.read(n)
        check_result("burst", results, [STEPS_OF_BURST] * n)
        return found

    return run_launched(run)


def wake(n: int) -> Measurement:
    """Let ``n`` workflows sleep in this process until one moment: from then until all ended."""
    fsyncs = count_fsyncs()

    async def run() -> Measurement:
        await (await DBOS.start_workflow_async(nap, time.time() + 0.1)).get_result()
        woken.clear()
        tried_at = time.time()
        await fall_asleep(TRIAL, YEAR_SECONDS + tried_at)
        seconds_each = (time.time() - tried_at) / TRIAL
        due = time.time() + 5 + 1.5 * n * seconds_each
        handles = await fall_asleep(n, due)
        if woken or time.time() > due - 1:
            raise SystemExit("the first sleepers were due before the last fell asleep")
        await asyncio.sleep(due - time.time() - LEAD_SECONDS)
        watch = Watch(fsyncs)
        lead = due - time.time()
        results = [await handle.get_result() for handle in handles]
        found = watch.read(n)
        check_result("wake", results, [1] * n)
        return Measurement(found.wall_s - lead, found.cpu_s, found.details)

    return run_launched(run)


async def fall_asleep(number: int, until: float) -> list[Any]:
    """Start workflows and return their handles when all have begun to sleep."""
    handles = await asyncio.gather(*(DBOS.start_workflow_async(nap, until) for _ in range(number)))
    await wait_until_asleep()
    return handles


async def wait_until_asleep() -> None:
    """Wait until this process does next to nothing: every sleep is recorded by then."""
    while True:
        cpu = time.process_time()
        await asyncio.sleep(0.5)
        if time.process_time() - cpu < 0.1:
            return


def open_file(n: int) -> Measurement:
    """Launch over a file with ``n`` sleeping workflows and one that is due, until it goes on.

    Another process made the file and died.
    """
    with new_folder() as folder:
        subprocess.run([sys.executable, __file__, PREPARE, str(folder)], check=True)
        multiply_sleeper(folder / "a.db", n)
        time.sleep(NAP_SECONDS)
        before = resident_bytes()
        watch, start = Watch(None), time.perf_counter()
        launch(folder)
        while not woken:
            time.sleep(0.001)
        found = watch.read()
        while len(entered) < n + 1:
            time.sleep(0.1)
        all_read_s = time.perf_counter() - start
        bytes_each = (resident_bytes() - before) / n
    details = {"sleeper_bytes": bytes_each, "all_taken_up_s": all_read_s}
    return Measurement(woken[0] - start, found.cpu_s, details)


def prepare(folder: Path) -> None:
    """Leave a file with one workflow that sleeps for a year and one that sleeps for a moment."""

    async def run() -> None:
        now = time.time()
        for until in (now + YEAR_SECONDS, now + NAP_SECONDS):
            await DBOS.start_workflow_async(nap, until)
        await wait_until_asleep()

    launch(folder)
    asyncio.run(run())


def multiply_sleeper(path: Path, number: int) -> None:
    """Make the file's oldest workflow ``number``."""
    file = sqlite3.connect(path)
    with file:
        (model,) = file.execute(
            "SELECT workflow_uuid FROM workflow_status ORDER BY created_at LIMIT 1"
        ).fetchone()
        tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [name for _, name, *_ in file.execute(f"PRAGMA table_info({table})")]
            if "workflow_uuid" not in columns:
                continue
            values = ", ".join(
                "workflow_uuid || '-' || i" if column == "workflow_uuid" else column
                for column in columns
            )
            file.execute(
                "WITH RECURSIVE copy(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM copy WHERE i < ?)"
                f" INSERT INTO {table} ({', '.join(columns)})"
                f" SELECT {values} FROM copy, {table} WHERE workflow_uuid = ?",
                (number - 1, model),
            )
    file.close()


def start(n: int) -> Measurement:
    fsyncs = count_fsyncs()
    with new_folder() as folder:
        launch(folder)
        return measure_starts(lambda: DBOS.start_workflow(begin).get_result, begun, n, fsyncs)


def running(n: int) -> Measurement:
    async def hold_all() -> None:
        expected = len(held) + n
        await asyncio.gather(*(DBOS.start_workflow_async(keep) for _ in range(n)))
        while len(held) < expected:
            await asyncio.sleep(0.01)

    return run_launched(lambda: measure_held(hold_all, n))


def suspended(n: int) -> Measurement:
    async def put_to_sleep() -> None:
        await fall_asleep(n, time.time() + YEAR_SECONDS)

    return run_launched(lambda: measure_held(put_to_sleep, n))


async def measure_held(bring: Callable[[], Coroutine[object, object, None]], n: int) -> Measurement:
    """Bring ``n`` executions somewhere twice; the memory is that of the second time."""
    await bring()
    before = resident_bytes()
    watch = Watch(None)
    await bring()
    return watch.read(execution_bytes=(resident_bytes() - before) / n)


def run_launched(run: Run) -> Measurement:
    with new_folder() as folder:
        launch(folder)
        # Not asyncio.run, which would wait for the sleepers.
        return asyncio.new_event_loop().run_until_complete(run())


if __name__ == "__main__":
    if sys.argv[1] == PREPARE:
        prepare(Path(sys.argv[2]))
        os._exit(0)  # with both asleep
    run_worker(
        {},
        ["dbos", "SQLAlchemy"],
        {
            "sqlite step": steps,
            "sqlite burst": burst,
            "sqlite wake": wake,
            "sqlite open": open_file,
            "sqlite start": start,
            "sqlite running": running,
            "sqlite suspended": suspended,
        },
    )
    leave()
