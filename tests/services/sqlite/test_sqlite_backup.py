"""Copies of a file while everything runs, and what lies beside one that is put back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pyworkflow import AsyncClient, Client
from pyworkflow.errors import ServiceError, StorageError, UsageError
from pyworkflow.services.sqlite import SqliteService
from pyworkflow.testing._updates import SUCCEED, step
from tests.services.sqlite.sqlite_world import Holder, Place, begin, lease, play, python, spawn

PAYLOAD = '"' + "x" * 3000 + '"'
STEPS = 200


async def filled(service: SqliteService) -> Holder:
    holder = await begin(service)
    for number in range(STEPS):
        await holder.commit(step(f"s{number}", SUCCEED, payload=PAYLOAD))
    return holder


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("copy"))


def test_a_copy_has_one_state_while_others_commit_and_is_done_although_they_go_on(
    tmp_path: Path,
) -> None:
    async def scene(here: Place) -> None:
        service, loop = here.open(), asyncio.get_running_loop()
        holder = await filled(service)
        seen: list[tuple[int, int]] = []

        async def write() -> None:
            for _ in range(3):
                await holder.commit(step(f"late{len(seen)}", SUCCEED, payload=PAYLOAD))
                await holder.commit(step(f"later{len(seen)}", SUCCEED, payload=PAYLOAD))
                assert await service.claim_due("me", ["greet"], 1) == ()
                seen.append((0, 0))

        def on_progress(done: int, whole: int) -> None:
            # The copy waits until these commits are answered, so they do not wait for it.
            asyncio.run_coroutine_threadsafe(write(), loop).result(60)
            seen.append((done, whole))

        await service.backup(str(tmp_path / "copy.db"), on_progress)
        reports = [report for report in seen if report[1]]
        assert len(reports) > 3
        size = len((tmp_path / "copy.db").read_bytes())
        assert {whole for _, whole in reports} == {size}
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)
        assert reports[-1][0] == reports[-1][1]
        assert len(await service.operations(holder.id)) > STEPS + 10
        assert left_in(tmp_path) == ["copy.db"]

        copy = Place(tmp_path / "copy.db").open()
        assert len(await copy.operations(holder.id)) == STEPS + 1
        assert len(await copy.history(holder.id)) == STEPS + 1
        await copy.close()
        with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("name", ["copy.db", "copy.db-wal", "copy.db-shm", "copy.db-journal"])
def test_nothing_is_replaced(tmp_path: Path, name: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        (tmp_path / name).write_text("precious")
        with pytest.raises(UsageError, match=rf"{name}'.*remove it, or choose another name"):
            await service.backup(str(tmp_path / "copy.db"))
        assert (tmp_path / name).read_text() == "precious"
        assert left_in(tmp_path) == [name]
        with pytest.raises(UsageError, match=r"nowhere.*create it"):
            await service.backup(str(tmp_path / "nowhere" / "copy.db"))
        with pytest.raises(UsageError, match="expected nothing at"):
            await service.backup(str(here.path))

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("name", ["a\0b.db", "\ud800.db"])
def test_a_destination_that_names_no_file_is_refused(tmp_path: Path, name: str) -> None:
    async def scene(here: Place) -> None:
        with pytest.raises(UsageError, match="Expected the path of a file as UTF-8"):
            await here.open().backup(str(tmp_path / name))
        assert left_in(tmp_path) == []

    play(tmp_path / "x.db", scene)


def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()

        def on_progress(*_: int) -> None:
            (tmp_path / "copy.db").write_text("precious")

        with pytest.raises(UsageError, match="found a file"):
            await service.backup(str(tmp_path / "copy.db"), on_progress)
        assert (tmp_path / "copy.db").read_text() == "precious"
        assert left_in(tmp_path) == ["copy.db"]

    play(tmp_path / "x.db", scene)


def test_without_hard_links_it_gets_its_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError("no links here")

    async def scene(here: Place) -> None:
        await here.open().backup(str(tmp_path / "copy.db"))
        assert left_in(tmp_path) == ["copy.db"]

    monkeypatch.setattr(os, "link", link)
    play(tmp_path / "x.db", scene)


def test_a_copy_that_nobody_waits_for_leaves_nothing(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service, loop = here.open(), asyncio.get_running_loop()
        await filled(service)
        begun = asyncio.Event()

        def on_progress(*_: int) -> None:
            loop.call_soon_threadsafe(begun.set)

        copying = asyncio.ensure_future(service.backup(str(tmp_path / "copy.db"), on_progress))
        await begun.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert left_in(tmp_path) in ([], ["copy.db"])

    play(tmp_path / "x.db", scene)


def test_an_error_of_the_callback_ends_it(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        def on_progress(*_: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await here.open().backup(str(tmp_path / "copy.db"), on_progress)
        assert left_in(tmp_path) == []

    play(tmp_path / "x.db", scene)


_LIMITED = """
import asyncio, resource
from tests.services.sqlite.sqlite_world import Place
from tests.services.sqlite.test_sqlite_backup import filled
from pyworkflow.errors import ServiceError
from pyworkflow.testing._updates import step

async def main(path):
    here = Place(path)
    holder = await filled(service := here.open())
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        await service.backup(path + ".copy")
    except ServiceError as error:
        assert ".copy" in str(error), error
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert list(await holder.commit(step("on"))) == ["on"]
    await here.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_disk_without_room_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    done = python(_LIMITED, tmp_path / "x.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.db"]


def test_a_backup_of_a_closed_file_is_refused(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.close()
        with pytest.raises(ServiceError, match="closed"):
            await service.backup(str(tmp_path / "copy.db"))

    play(tmp_path / "x.db", scene)


def test_executions_in_memory_have_none(tmp_path: Path) -> None:
    with Client.memory() as client, pytest.raises(UsageError, match="in memory have no backup"):
        client.backup(tmp_path / "copy.db")


WORKER = """
import asyncio
from pyworkflow import AsyncClient, WorkflowContext, step, workflow

@step
async def wait_for_a_line(number: int) -> str:
    print("running", number, flush=True)
    return (await asyncio.to_thread(sys.stdin.readline)).strip()

@workflow
async def main(ctx: WorkflowContext) -> list[str]:
    return [await wait_for_a_line(number) for number in range(3)]

async def work() -> None:
    async with AsyncClient.local(sys.argv[1], workflows=[main]) as client:
        handle = await client.start(main, execution_name="one")
        print(await handle.result(), flush=True)

asyncio.run(work())
"""


def test_a_copy_made_beside_a_worker_of_another_process_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "x.db", tmp_path / "copy.db"

    def answer(process: object, *lines: str) -> list[str]:
        output, errors = process.communicate("".join(f"{line}\n" for line in lines), timeout=60)  # type: ignore[attr-defined]
        assert errors == ""
        return str(output).splitlines()

    worker = spawn(WORKER, path)
    assert worker.stdout is not None
    assert worker.stdin is not None
    assert worker.stdout.readline() == "running 0\n"
    worker.stdin.write("first\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "running 1\n"

    async def scene() -> None:
        async with AsyncClient.local(path, worker=False) as client:
            await client.backup(copy)

    asyncio.run(scene())
    assert answer(worker, "second", "third") == ["running 2", "['first', 'second', 'third']"]
    resumed = answer(spawn(WORKER, copy), "again", "more")
    assert resumed == ["running 1", "running 2", "['first', 'again', 'more']"]


KILLED = """
import asyncio, os, signal
from tests.services.sqlite.sqlite_world import Place, begin
from pyworkflow.testing._updates import step

async def main():
    service = Place(sys.argv[1]).open()
    for number in range(20):
        await (await begin(service)).commit(step("s"))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def by_us(source: Path, copy: Path) -> None:
    with Client.local(source, worker=False) as client:
        client.backup(copy)


def by_vacuum(source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])


@pytest.mark.skipif(os.name != "posix", reason="processes are killed as POSIX does")
@pytest.mark.parametrize("make", [by_us, by_vacuum])
def test_a_wal_of_the_former_file_beside_a_backup_that_was_put_back_is_told(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    path, copy = tmp_path / "x.db", tmp_path / "copy.db"

    async def first(here: Place) -> None:
        await here.open().start("greet", "1", execution_name="kept")

    async def refused(here: Place) -> None:
        for _ in range(2):
            with pytest.raises(StorageError, match=r"Expected no .*x\.db-wal' beside .*a backup"):
                here.open()

    async def whole(here: Place) -> None:
        service = here.open()
        (found,) = await service.list()
        assert found.name == "kept"
        assert len(await lease(service, "me")) == 1

    play(path, first)
    make(path, copy)
    assert python(KILLED, path).returncode == -9
    before = path.with_name("before.db")
    path.rename(before)
    shutil.copy(copy, path)
    wal = (tmp_path / "x.db-wal").read_bytes()
    play(path, refused)
    assert (tmp_path / "x.db-wal").read_bytes() == wal
    assert path.read_bytes() == copy.read_bytes()
    # Both ways out that the message names.
    path.unlink()
    before.rename(path)

    async def former(here: Place) -> None:
        assert len(await here.open().list()) == 21

    play(path, former)
    shutil.copy(copy, path)
    play(path, whole)


STAYS = """
from pyworkflow import Client

with Client.local(sys.argv[1], worker=False) as client:
    client.start("greet", 1)
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(os.name != "posix", reason="locks belong to a process under POSIX")
def test_to_look_for_such_a_wal_lets_go_of_no_lock_of_a_connection_that_is_not_ours(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    other = spawn(STAYS, path)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with closing(sqlite3.connect(path)) as own:
        own.execute("SELECT count(*) FROM executions").fetchone()
        with Client.local(path, worker=False) as client:
            client.start("greet", 2)
            other.communicate("\n", timeout=120)  # the last that has it open takes the WAL away
            client.start("greet", 3)
            assert len(client.list()) == 3
    with Client.local(path, worker=False) as client:
        assert len(client.list()) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
def test_files_that_are_gone_leave_no_descriptor(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.db"
        assert python(KILLED, path).returncode == -9
        with Client.local(path, worker=False) as client:
            assert len(client.list()) == 20
        path.unlink()
    places = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    left = [os.readlink(place) for place in places if os.path.lexists(place)]
    assert len([name for name in left if str(tmp_path) in name]) <= 1
