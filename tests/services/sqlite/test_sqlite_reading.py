"""What is read: together, each for its caller alone, and what is over not again."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._protocol.records import Action, ErrorRecord
from pyworkflow.errors import (
    ExecutionNotFoundError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
)
from pyworkflow.services.sqlite import _bounded_cache
from pyworkflow.testing._updates import end, step
from tests.services.sqlite.sqlite_world import Place, begin, play, sqlite_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyworkflow.services.sqlite import SqliteService


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def statements(service: SqliteService) -> list[str]:
    """The statements that the reader runs from now on."""
    assert service._reader is not None
    told: list[str] = []
    service._reader._sql._connection.set_trace_callback(told.append)
    return told


async def gathered(service: SqliteService, *reads: Callable[[], Any]) -> list[Any]:
    """What the reads return or raise, asked for while the reader is busy."""
    assert service._reader is not None
    entered, opened = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        entered.set()
        opened.wait()

    gate = service._reader.read(wait)
    await asyncio.to_thread(entered.wait)
    pending = [asyncio.ensure_future(read()) for read in reads]
    await asyncio.sleep(0)  # they are in the queue by then
    opened.set()
    await gate
    return await asyncio.gather(*pending, return_exceptions=True)


def test_reads_that_gather_see_one_state_and_one_that_fails_tells_its_caller_alone(
    path: Path,
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        one, other = await begin(service), await begin(service)
        told = statements(service)
        found = await gathered(
            service,
            lambda: service.get(one.id),
            lambda: service.get("unknown"),
            lambda: service.get(other.id),
        )
        assert [found[0].id, found[2].id] == [one.id, other.id]
        assert isinstance(found[1], ExecutionNotFoundError)
        assert told.count("BEGIN") == 2, "one for the gate"

    play(path, scene)


def test_a_bug_in_a_read_is_told_to_its_caller_alone(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        assert service._reader is not None
        reader = service._reader
        found = await gathered(
            service, lambda: reader.read(lambda _: 1 // 0), lambda: service.get(holder.id)
        )
        assert isinstance(found[0], ZeroDivisionError)
        assert found[1].id == holder.id

    play(path, scene)


@pytest.mark.parametrize(
    "methods",
    [["begin_reading"], ["begin_reading", "rollback"], ["commit"], ["execution"]],
    ids="-".join,
)
def test_an_error_of_the_file_is_told_to_each_who_reads_and_the_next_read_works(
    path: Path, monkeypatch: pytest.MonkeyPatch, methods: list[str]
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        assert service._reader is not None
        sql = service._reader._sql

        def fail(*_: object) -> None:
            raise sqlite_error("database is locked", sqlite3.SQLITE_BUSY)

        with monkeypatch.context() as patch:
            for method in methods:
                patch.setattr(sql, method, fail)
            found = await asyncio.gather(
                service.get(holder.id), service.get(holder.id), return_exceptions=True
            )
        assert [type(error) for error in found] == [ServiceBusyError] * 2
        assert len({id(error) for error in found}) == 2
        assert (await service.get(holder.id)).status is ExecutionStatus.RUNNING

    play(path, scene)


def test_a_read_that_ends_the_transaction_tells_its_own_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        assert service._long_reader is not None
        sql = service._long_reader._sql
        # Both questions are asked of the reader for lists, in one group.
        monkeypatch.setattr(service, "_reader", service._long_reader)

        def fail(_: str) -> None:
            sql.rollback()  # as SQLite does it by itself, at an error of the disk
            raise sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR)

        monkeypatch.setattr(sql, "find", fail)
        failed, found = await gathered(
            service, lambda: service.operations(holder.id), lambda: service.get(holder.id)
        )
        assert isinstance(failed, ServiceUnavailableError)
        assert "disk I/O error" in str(failed)
        assert found.id == holder.id

    play(path, scene)


async def read_anew(here: Place, execution_id: str) -> ExecutionSummary:
    """The summary as a service finds it that did not end the execution."""
    return await here.open().get(execution_id)


def test_what_ended_here_is_not_read_again(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        told = statements(service)
        assert (await service.get(holder.id)).status is ExecutionStatus.RUNNING
        told.clear()
        await holder.commit(end(holder.id, payload='"out"'))
        found = await service.get(holder.id)
        assert not told
        assert found.result == '"out"'
        assert found == await read_anew(here, holder.id)
        await service.close()
        with pytest.raises(ServiceError, match="was closed"):
            await service.get(holder.id)

    play(path, scene)


def test_an_end_that_was_undone_is_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)

        def fail() -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(service._unit.sql, "commit", fail)
            with pytest.raises(ServiceError):
                await holder.commit(end(holder.id, payload='"out"'))
        assert (await service.get(holder.id)).status is ExecutionStatus.RUNNING

    play(path, scene)


@pytest.mark.parametrize(
    "ending",
    [
        {"payload": f'"{"x" * _bounded_cache.MAX_CHARACTERS}"'},
        {"action": Action.FAIL, "error": ErrorRecord("no", "Refused")},
    ],
    ids=["long", "failed"],
)
def test_what_is_long_or_failed_is_read(path: Path, ending: dict[str, Any]) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await holder.commit(end(holder.id, **ending))
        told = statements(service)
        assert await service.get(holder.id) == await read_anew(here, holder.id)
        assert told

    play(path, scene)


def test_only_so_many_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bounded_cache, "MAX_ENTRIES", 2)

    async def scene(here: Place) -> None:
        service = here.open()
        holders = [await begin(service) for _ in range(3)]
        for n, holder in enumerate(holders):
            await holder.commit(end(holder.id, payload=str(n)))
        told = statements(service)
        assert [(await service.get(holder.id)).result for holder in holders[1:]] == ["1", "2"]
        assert not told
        assert (await service.get(holders[0].id)).result == "0"
        assert told

    play(path, scene)


@pytest.mark.parametrize("number", [1, 7, 8, 9, 16, 17])
def test_however_many_rows_a_group_writes_all_are_found(path: Path, number: int) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        names = [f"step-{n}" for n in range(number)]
        await holder.commit(*(step(name) for name in names))
        found = await here.open().operations(holder.id)
        assert [operation.id for operation in found[1:]] == names
        history = await here.open().history(holder.id)
        assert [event.operation_id for event in history[1:]] == names

    play(path, scene)
