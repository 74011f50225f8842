"""The ``-wal`` file, taken away by hand: nothing acknowledged is lost without a word."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pyworkflow.errors import StorageError
from pyworkflow.testing._updates import step
from tests.services.sqlite.sqlite_world import Place, begin, play, python

KILLED = """
import asyncio, os, signal
from pyworkflow.services.sqlite import SqliteService

async def main():
    service = SqliteService.open(sys.argv[1], lambda: 1)
    for number in range(3):
        await service.start("greet", str(number))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are killed as POSIX does")
def test_a_wal_that_was_removed_after_a_crash_is_told(tmp_path: Path) -> None:
    path, wal = tmp_path / "x.db", tmp_path / "x.db-wal"
    assert python(KILLED, path).returncode == -9
    wal.rename(tmp_path / "kept")

    async def refused(here: Place) -> None:
        for _ in range(2):
            with pytest.raises(StorageError, match=r"x\.db-wal.*gone.*put it back"):
                here.open()

    async def whole(here: Place) -> None:
        assert len(await here.open().list()) == 3

    play(path, refused)
    (tmp_path / "kept").rename(wal)
    play(path, whole)
    assert not wal.exists()
    play(path, whole)


def _remove(wal: Path) -> None:
    wal.unlink()


def _replace(wal: Path) -> None:
    wal.unlink()
    wal.touch()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file in use stays where it is")
@pytest.mark.parametrize("change", [_remove, _replace])
def test_a_wal_that_is_removed_meanwhile_is_told_and_what_it_held_is_kept(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path, wal = tmp_path / "x.db", tmp_path / "x.db-wal"

    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await holder.commit(step("a"))
        change(wal)
        for request in (
            service.start("greet", "1"),
            holder.commit(step("b")),
            service.list(),
            service.claim_due("me", ["greet"], 1),
        ):
            with pytest.raises(
                StorageError, match=r"x\.db.*-wal file beside it was moved, removed or replaced"
            ):
                await request

    async def whole(here: Place) -> None:
        service = here.open()
        (found,) = await service.list()
        assert [each.name for each in await service.operations(found.id)][1:] == ["the step"]

    play(path, scene)
    for left in ("x.db-wal", "x.db-shm"):
        (tmp_path / left).unlink(missing_ok=True)
    play(path, whole)


def test_a_file_that_others_open_and_close_meanwhile_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def scene(here: Place) -> None:
        here.open()
        other = sqlite3.connect(path)
        assert other.execute("SELECT count(*) FROM executions").fetchone() == (0,)
        other.close()
        await here.open().start("greet", "1")

    play(path, scene)
