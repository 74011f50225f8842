"""Workers and clients on a file that can't be used, from the start or from some moment on."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import pyworkflow
from pyworkflow import AsyncClient, Client, step, workflow
from pyworkflow._local import heartbeat
from pyworkflow.errors import ServiceUnavailableError, StorageError
from pyworkflow.services.sqlite import _schema
from tests.runtime.local import PATIENCE, on_a_loop


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@workflow
async def echo(value: Any) -> Any:
    return value


# -- no room -------------------------------------------------------------------------------------


class Told(logging.Handler):
    """Sees what the worker tells, and says so to the loop."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.loop = asyncio.get_running_loop()
        self.errors: list[str] = []
        self.told = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.errors.append(f"{record.getMessage()}: {cause}")
        self.loop.call_soon_threadsafe(self.told.set)


@on_a_loop
async def test_work_goes_on_when_there_is_room_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What can't even be handed back waits for its lease to run out.
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr("pyworkflow.services.sqlite._leases.LEASE_MS", 300)
    bodies: Counter[int] = Counter()

    @step
    async def chunk(number: int) -> str:
        bodies[number] += 1
        if number == 4 and bodies[number] == 1:
            limit(1)  # as small as it is
        return str(number) * 20_000

    @workflow
    async def fills() -> list[int]:
        return [len(await chunk(number)) for number in range(8)]

    def limit(pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    worker_log, told = logging.getLogger("pyworkflow.worker"), Told()
    worker_log.addHandler(told)
    try:
        async with AsyncClient.local(file, skip_time=True) as client:
            connection = client._opened.service._unit.sql._connection  # type: ignore[attr-defined]
            handle = await client.start(fills)
            await told.told.wait()
            with pytest.raises(ServiceUnavailableError, match=r"shop\.db.*full.*make room"):
                await client.start(echo, "x" * 20_000)
            seen = [each for each in await handle.operations() if each.ended]
            limit(1_000_000)
            assert await handle.result() == [20_000] * 8
            assert set(seen) < set(await handle.operations())
    finally:
        worker_log.removeHandler(told)
    assert "make room and try again" in told.errors[0]
    assert [bodies[number] for number in (0, 1, 2, 3, 5, 6, 7)] == [1] * 7
    assert bodies[4] > 1


LIMITED = """
import logging, os, resource, sys
from pyworkflow import Client, step, workflow

@step
async def chunk(number: int) -> str:
    with open("bodies", "a") as file:
        file.write(f"{number}\\n")
    return str(number) * 20_000

@workflow
async def fills() -> int:
    return sum([len(await chunk(number)) for number in range(30)])

class EndsAtOnce(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), record.exc_info and record.exc_info[1], flush=True)
        os._exit(3)

if __name__ == "__main__":
    limit = int(sys.argv[1])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        logging.getLogger("pyworkflow.worker").addHandler(EndsAtOnce(logging.WARNING))
    with Client.local("shop.db") as client:
        print(client.start(fills, execution_name="one").result())
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_limit_of_the_file_size_is_told_and_another_process_goes_on(tmp_path: Path) -> None:
    (tmp_path / "fills.py").write_text(LIMITED, "utf-8")
    path = os.environ | {"PYTHONPATH": str(Path(pyworkflow.__file__).parents[1])}

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "fills.py", str(limit)],
            cwd=tmp_path,
            env=path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    full = run(250_000)
    assert (full.returncode, full.stderr) == (3, "")
    assert "nothing recorded is lost" in full.stdout
    assert "shop.db" in full.stdout
    assert "try again" in full.stdout
    with Client.local(tmp_path / "shop.db", worker=False) as client:
        recorded = [each for each in client.get("one").operations() if each.ended]
    assert recorded
    assert run(0).stdout == f"{30 * 20_000 + 20 * 20_000}\n"
    bodies = Counter((tmp_path / "bodies").read_text("utf-8").split())
    assert bodies.keys() == set(map(str, range(30)))
    assert sum(bodies.values()) <= 31
    assert all(bodies[str(number)] == 1 for number in range(len(recorded)))


# -- damage --------------------------------------------------------------------------------------


def overwrite(file: Path) -> None:
    with file.open("r+b") as raw:
        raw.seek(8192)
        raw.write(b"\xff" * (file.stat().st_size - 8192))


@on_a_loop
async def test_a_damaged_file_ends_the_worker_and_is_told_to_whoever_waits(file: Path) -> None:
    async with AsyncClient.local(file, worker=False) as client:
        for number in range(60):
            handle = await client.start("echo", "x" * 2_000, execution_name=f"e{number}")
    overwrite(file)
    async with AsyncClient.local(file, workflows=[echo]) as client:
        with pytest.raises(StorageError, match=r"shop\.db.*restore a backup"):
            await client.join()
        with pytest.raises(StorageError, match="restore a backup"):
            await client.get(handle.id)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file in use stays where it is")
@on_a_loop
async def test_a_file_that_was_replaced_ends_the_worker(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    async with AsyncClient.local(file, workflows=[echo]) as client:
        assert await (await client.start(echo, 1)).result() == 1
        await asyncio.to_thread(file.unlink)
        async with AsyncClient.local(file, worker=False) as other:
            await other.start("echo", 2)
            with pytest.raises(StorageError, match=r"shop\.db.*moved, removed or replaced"):
                await client.join()


@on_a_loop
async def test_a_damaged_record_is_named_and_the_worker_goes_on(file: Path) -> None:
    async with AsyncClient.local(file, worker=False) as client:
        bad = await client.start("echo", 1)
        with sqlite3.connect(file) as vandal:
            vandal.execute("UPDATE operations SET record = x'c1'")
        vandal.close()
        async with AsyncClient.local(file, workflows=[echo]) as working:
            assert await (await working.start(echo, 2)).result() == 2
            with pytest.raises(StorageError, match=rf"{bad.id}.*restore a backup"):
                await bad.result()


def of_a_newer_version(file: Path) -> None:
    with Client.local(file, worker=False) as client:
        client.start("echo", 1)
    with sqlite3.connect(file) as newer:
        newer.execute(f"PRAGMA user_version={_schema.SCHEMA_VERSION + 1}")
    newer.close()


def cut_short(file: Path) -> None:
    of_a_newer_version(file)
    with file.open("r+b") as raw:
        raw.truncate(5000)


@pytest.mark.parametrize(
    ("make", "message"), [(of_a_newer_version, "upgrade"), (cut_short, "restore a backup")]
)
def test_a_file_that_can_not_be_used_is_told_at_once(file: Path, make: Any, message: str) -> None:
    make(file)
    before, threads = file.read_bytes(), threading.active_count()
    with (
        pytest.raises(StorageError, match=rf"shop\.db.*{message}"),
        Client.local(file, workflows=[echo]),
    ):
        pass
    with pytest.raises(StorageError, match=rf"shop\.db.*{message}"):
        pyworkflow.run(echo, 1, db=file)
    assert file.read_bytes() == before
    assert threading.active_count() == threads
