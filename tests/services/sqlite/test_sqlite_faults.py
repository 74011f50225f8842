from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pyworkflow.errors import ServiceError, ServiceUnavailableError, StorageError, UsageError
from pyworkflow.services.sqlite import _schema
from pyworkflow.services.sqlite import _service as service_module
from pyworkflow.testing._updates import SUCCEED, end, step
from tests.services.sqlite.sqlite_world import Holder, Place, begin, play, python, sqlite_error
from tests.services.sqlite.test_sqlite_groups import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyworkflow._protocol.records import Update


def _fill(path: Path, executions: int = 30) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for _ in range(executions):
            holder = await begin(service, payload=f'"{"x" * 2000}"')
            await holder.commit(step("a", SUCCEED, payload='"done"'))

    play(path, scene)


# -- others on the file ----------------------------------------------------------------------------


def test_a_lock_that_is_not_let_go_is_told(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open(busy_timeout_ms=1)
        holder = await begin(service)
        other = sqlite3.connect(here.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ServiceUnavailableError, match=r"SQLITE_BUSY.*try again"):
            await holder.commit(step("a"))
        with pytest.raises(ServiceUnavailableError, match="SQLITE_BUSY"):
            here.open(busy_timeout_ms=1)
        assert len(await service.operations(holder.id)) == 1
        other.execute("ROLLBACK")
        other.close()
        assert list(await holder.commit(step("a"))) == ["a"]

    play(tmp_path / "x.db", scene)


def test_a_writer_waits_for_a_lock(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        other = sqlite3.connect(here.path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        # The writer's own thread lets go of the other's lock, right before it asks for its own.
        real = service._unit.sql.begin

        def begin_after_a_while() -> None:
            other.execute("COMMIT")
            real()

        service._unit.sql.begin = begin_after_a_while  # type: ignore[method-assign]
        assert list(await holder.commit(step("a"))) == ["a"]
        service._unit.sql.begin = real  # type: ignore[method-assign]
        other.close()

    play(tmp_path / "x.db", scene)


# -- no room ---------------------------------------------------------------------------------------


def _large(number: int) -> Update:
    return step(f"s{number}", SUCCEED, payload='"' + "x" * 3000 + '"')


async def _write_on(holder: Holder) -> None:
    for number in count():
        await holder.commit(_large(number))


def test_a_full_file_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open(durability="full")
        holder = await begin(service)
        connection = service._unit.sql._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 8}")
        with pytest.raises(ServiceUnavailableError, match=r"x\.db.*full.*make room"):
            await _write_on(holder)
        done = len(await service.operations(holder.id)) - 1
        assert done > 2
        with pytest.raises(ServiceUnavailableError):
            await holder.commit(_large(done))
        assert len(await service.operations(holder.id)) == done + 1
        connection.execute("PRAGMA max_page_count=100000")
        changes = await holder.commit(_large(done))
        assert changes[f"s{done}"].sequence == done + 1
        await holder.commit(end(holder.id, payload='"out"'))
        assert len(await service.history(holder.id)) == done + 3

    play(tmp_path / "x.db", scene)


_LIMITED = dedent(
    """
    import asyncio, resource
    from tests.services.sqlite.sqlite_world import Place, begin
    from pyworkflow.errors import ServiceUnavailableError
    from pyworkflow.testing._updates import SUCCEED, end, step

    async def main(path):
        here = Place(path)
        service = here.open(durability="full")
        holder = await begin(service)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        done = 0
        try:
            while True:
                await holder.commit(step(f"s{done}", SUCCEED, payload='"' + "x" * 3000 + '"'))
                done += 1
        except ServiceUnavailableError as error:
            assert "x.db" in str(error) and "try again" in str(error), error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        changes = await holder.commit(step(f"s{done}", SUCCEED, payload="1"))
        assert changes[f"s{done}"].sequence == done + 1
        await holder.commit(end(holder.id, payload="2"))
        assert len(await service.operations(holder.id)) == done + 2
        assert len(await service.history(holder.id)) == done + 3
        await here.close()
        print(done)

    asyncio.run(main(*sys.argv[1:]))
    """
)


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_limit_of_the_file_size_loses_nothing(tmp_path: Path) -> None:
    done = python(_LIMITED, tmp_path / "x.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 2


# -- files that can't be used ----------------------------------------------------------------------


@contextmanager
def _no_longer_root() -> Iterator[None]:
    """Root may write to whatever it likes."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("folder_mode", [0o755, 0o777])
def test_a_read_only_file_is_told(folder_mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "x.db"
        _fill(path, 1)
        path.chmod(0o444)
        folder.chmod(folder_mode)
        place = Place(path)
        with _no_longer_root(), pytest.raises(ServiceError, match=r"x\.db.*writ"):
            place.open()
        assert place.opened == []
        folder.chmod(0o755)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"folder.*nowhere.*create it"):
        Place(tmp_path / "nowhere" / "x.db").open()
    assert not (tmp_path / "nowhere").exists()


def test_a_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="not a folder"):
        Place(tmp_path).open()


@pytest.mark.parametrize("size", [100, 4096, 5000, 40_000])
def test_a_truncated_file_is_told(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.db"
    _fill(path)
    assert path.stat().st_size > 40_000
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(StorageError, match="restore a backup"):
        Place(path).open()


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at\n" * 40)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"notes\.txt.*not a SQLite file"):
        Place(path).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize("application_id", [0, 0x42])
def test_a_file_of_another_program_is_left_alone(tmp_path: Path, application_id: int) -> None:
    path = tmp_path / "x.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.execute(f"PRAGMA application_id={application_id}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        Place(path).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (1, "newer PyWorkflow; upgrade"),
        (-_schema.SCHEMA_VERSION, "older PyWorkflow; use that"),
    ],
)
def test_a_file_of_another_version_is_left_alone(
    tmp_path: Path, difference: int, told: str
) -> None:
    path, version = tmp_path / "x.db", _schema.SCHEMA_VERSION + difference
    _fill(path, 1)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={version}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(
        StorageError, match=rf"version {_schema.SCHEMA_VERSION}, found .*version {version}.*{told}"
    ):
        Place(path).open()
    assert path.read_bytes() == before


def test_a_file_that_can_be_opened_only_once_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []

    def open_file(path: str, synchronous: str, busy_timeout_ms: int) -> sqlite3.Connection:
        if opened:
            raise ServiceUnavailableError("no second one")
        opened.append(_schema.open_file(path, synchronous, busy_timeout_ms))
        return opened[0]

    monkeypatch.setattr(service_module, "open_file", open_file)
    with pytest.raises(ServiceUnavailableError, match="no second one"):
        Place(tmp_path / "x.db").open()
    with pytest.raises(sqlite3.ProgrammingError):
        opened[0].execute("SELECT 1")


def test_a_durability_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'full' or 'normal', not 'none'"):
        Place(tmp_path / "x.db").open(durability="none")


class FakeConnection:
    """Answers a change of the journal mode as it is told to."""

    def __init__(self, *modes: str | None) -> None:
        self._modes = list(modes)
        self.ran: list[str] = []

    def execute(self, sql: str) -> FakeConnection:
        self.ran.append(sql)
        if sql.startswith("PRAGMA") and self._modes[0] is None:
            del self._modes[0]
            raise sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
        return self

    def fetchone(self) -> tuple[str | None]:
        return (self._modes[0],)


def test_the_journal_mode_is_changed_when_others_let_go() -> None:
    connection = FakeConnection(None, "wal")
    _schema._use_wal(connection, "x.db")  # type: ignore[arg-type]
    change = "PRAGMA journal_mode=WAL"
    assert connection.ran == [change, "BEGIN IMMEDIATE", "ROLLBACK", change]


def test_a_file_system_without_shared_memory_is_told() -> None:
    with pytest.raises(StorageError, match=r"x\.db.*local disk"):
        _schema._use_wal(FakeConnection("delete"), "x.db")  # type: ignore[arg-type]


def test_an_empty_file_becomes_ours(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    _fill(tmp_path / "x.db", 1)


@pytest.mark.parametrize(
    ("table", "column"), [("operations", "record"), ("history", "lines"), ("executions", "unread")]
)
def test_a_damaged_record_is_told_and_stays_alone(tmp_path: Path, table: str, column: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        vandal = sqlite3.connect(here.path)
        key = "number = 1" if table == "executions" else "key >> 32 = 1"
        vandal.execute(f"UPDATE {table} SET {column} = x'c1' WHERE {key}")
        vandal.execute("UPDATE executions SET version = 99 WHERE number = 1")
        vandal.commit()
        vandal.close()
        if table == "history":
            with pytest.raises(StorageError, match=r"x\.db.*damaged"):
                await service.history(bad.id)
        else:
            with pytest.raises(StorageError, match=rf"{bad.id}.*damaged"):
                await bad.commit(step("a"))
        assert list(await good.commit(step("a"))) == ["a"]

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("record", ["x'c1'", "cast(record || x'ff' AS BLOB)"])
def test_a_start_under_the_name_of_a_damaged_record_disturbs_no_other(
    tmp_path: Path, record: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await service.start("greet", "1", execution_name="bad")
        vandal = sqlite3.connect(here.path)
        vandal.execute(f"UPDATE operations SET record = {record}")
        vandal.commit()
        vandal.close()
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(service.start("greet", "1", execution_name=name))
            for name in ("bad", "good")
        ]
        await gate.open()
        told, started = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(told, StorageError)
        assert f"{bad!r} can't be read" in str(told)
        assert isinstance(started, str)

    play(tmp_path / "x.db", scene)


def test_a_page_that_is_damaged_later_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    _fill(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))

    async def scene(here: Place) -> None:
        with pytest.raises(StorageError, match="restore a backup"):
            await here.open().list()

    play(path, scene)


def _remove(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("y.db"))


def _replace(path: Path) -> None:
    path.unlink()
    _fill(path, 1)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file in use stays where it is")
@pytest.mark.parametrize("change", [_remove, _move, _replace])
def test_nothing_is_acknowledged_in_a_file_that_is_not_there_any_more(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await asyncio.to_thread(change, tmp_path / "x.db")
        for request in (
            service.start("greet", "1"),
            holder.commit(step("a")),
            service.list(),
            service.claim_due("me", ["greet"], 1),
        ):
            with pytest.raises(StorageError, match=r"x\.db.*moved, removed or replaced"):
                await request

    play(tmp_path / "x.db", scene)


@contextmanager
def _closed(folder: Path) -> Iterator[None]:
    folder.chmod(0o600)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_folder_that_may_not_be_looked_at_is_no_reason_to_end() -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        with _closed(folder), _no_longer_root():
            assert list(await holder.commit(step("a"))) == ["a"]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        play(folder / "x.db", scene)


# -- durability ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_the_settings_of_a_connection(tmp_path: Path, durability: str, level: int) -> None:
    async def scene(here: Place) -> None:
        service = here.open(durability=durability)
        connection = service._unit.sql._connection

        def pragma(name: str) -> object:
            return connection.execute(f"PRAGMA {name}").fetchone()[0]

        assert pragma("synchronous") == level
        assert pragma("fullfsync") == level - 1
        assert pragma("journal_mode") == "wal"
        assert pragma("busy_timeout") == 30_000
        assert pragma("trusted_schema") == 0

    play(tmp_path / "x.db", scene)


_KILLED = dedent(
    """
    import asyncio, os, signal
    from tests.services.sqlite.sqlite_world import Place, begin
    from pyworkflow.testing._updates import SUCCEED, step

    async def main(path):
        holder = await begin(Place(path).open())
        await holder.commit(step("a", SUCCEED, payload="1"))
        print(holder.id, holder.token, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(*sys.argv[1:]))
    """
)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_was_acknowledged_outlives_a_killed_process(tmp_path: Path) -> None:
    done = python(_KILLED, tmp_path / "x.db")
    execution_id, token = done.stdout.split()

    async def scene(here: Place) -> None:
        service = here.open()
        _, a = await service.operations(execution_id)
        assert (a.id, a.payload) == ("a", "1")
        assert list((await service.commit(execution_id, token, [step("b")])).operations)

    play(tmp_path / "x.db", scene)
