from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow.errors import (
    CallbackNotFoundError,
    InvalidUpdateError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)
from pyworkflow.services.sqlite import _group_thread
from pyworkflow.testing._updates import SUCCEED, callback, end, step
from tests.services.sqlite.sqlite_world import Holder, Place, begin, play, sqlite_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyworkflow.services.sqlite import SqliteService

PLACES = [":memory:", "x.db"]


@pytest.fixture(params=PLACES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param if request.param == ":memory:" else str(tmp_path / request.param)


class Gate:
    """A job that keeps the writer busy until it is opened, so that others gather behind it."""

    def __init__(self, service: SqliteService) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()
        self._job = service._writer.submit(self._wait)

    def _wait(self) -> None:
        self._entered.set()
        self._opened.wait()

    @classmethod
    async def shut(cls, service: SqliteService) -> Gate:
        gate = cls(service)
        await asyncio.to_thread(gate._entered.wait)
        return gate

    async def open(self) -> None:
        await asyncio.sleep(0)  # what was asked for in this tick is in the queue by then
        self._opened.set()
        await self._job


def statements(service: SqliteService) -> list[str]:
    """The statements that the writer runs from now on."""
    told: list[str] = []
    service._unit.sql._connection.set_trace_callback(told.append)
    return told


def test_commits_that_gather_share_a_transaction(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open(durability="full")
        holders = [await begin(service) for _ in range(50)]
        told = statements(service)
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(holder.commit(step("a"), step("a", SUCCEED)))
            for holder in holders
        ]
        await gate.open()
        answers = await asyncio.gather(*pending)
        assert told.count("COMMIT") == told.count("BEGIN IMMEDIATE") == 2
        assert {answer["a"].status.value for answer in answers} == {"SUCCEEDED"}

    play(path, scene)


def test_a_group_has_a_limit_and_the_next_takes_the_rest(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_group_thread, "MAX_JOBS", 4)

    async def scene(here: Place) -> None:
        service = here.open()
        gate = await Gate.shut(service)
        told = statements(service)
        starts = [asyncio.ensure_future(service.start("greet", str(n))) for n in range(10)]
        await gate.open()
        async with asyncio.timeout(60):
            assert len(set(await asyncio.gather(*starts))) == 10
        assert told.count("BEGIN IMMEDIATE") == 3

    play(path, scene)


def test_a_refused_job_disturbs_no_other(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        good, bad, stale = [await begin(service) for _ in range(3)]
        await service.claim(stale.id)
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(job)
            for job in (
                bad.commit(step("b"), step("b")),
                stale.commit(step("s")),
                good.commit(step("g", SUCCEED)),
                bad.commit(step("c")),
            )
        ]
        await gate.open()
        refused, late, done, after = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(refused, InvalidUpdateError)
        assert isinstance(late, StaleTokenError)
        assert list(done) == ["g"]  # type: ignore[arg-type]
        assert list(after) == ["c"]  # type: ignore[arg-type]
        assert len(await service.operations(stale.id)) == 1

    play(path, scene)


@pytest.mark.parametrize("is_held", [False, True])
def test_an_answer_in_the_group_of_a_heartbeat_is_kept(path: str, is_held: bool) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        opened = await holder.commit(callback("k", heartbeat_timeout_seconds=10))
        if not is_held:
            await holder.release()
        callback_id = opened["k"].callback_id or ""
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(job)
            for job in (
                service.heartbeat_callback(callback_id),
                service.complete_callback(callback_id, "raw"),
            )
        ]
        await gate.open()
        await asyncio.gather(*pending)
        _, found = await service.operations(holder.id)
        assert (found.status.value, found.payload, found.sequence) == ("SUCCEEDED", "raw", 1)

    play(path, scene)


class Failing:
    """Lets one call of a method of `SqlConnection` fail, after a number that succeed."""

    def __init__(
        self, service: SqliteService, method: str, error: Exception, *, after: int = 0
    ) -> None:
        self._sql = service._unit.sql
        self._method = method
        self._error = error
        self._after = after
        self._real: Callable[..., Any] = getattr(self._sql, method)
        setattr(self._sql, method, self._fail)

    def _fail(self, *args: Any) -> None:
        if self._after:
            self._after -= 1
            self._real(*args)
            return
        setattr(self._sql, self._method, self._real)
        raise self._error


@pytest.mark.parametrize("method", ["begin", "put_operations", "put_progress", "commit"])
def test_an_error_of_the_file_undoes_the_group_and_is_told_to_each(path: str, method: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        one, two = await begin(service), await begin(service)
        opened = await one.commit(callback("k"), step("a"))
        stored = await service.operations(one.id)
        told = await service.history(one.id)
        gate = await Gate.shut(service)
        full = sqlite3.OperationalError("database or disk is full")
        Failing(service, method, full, after=int(method == "commit"))
        pending = [
            asyncio.ensure_future(job)
            for job in (
                one.commit(step("a", SUCCEED)),
                two.commit(step("b")),
                service.start("greet", "9"),
                service.complete_callback(opened["k"].callback_id or "", "raw"),
            )
        ]
        await gate.open()
        answers = await asyncio.gather(*pending, return_exceptions=True)
        assert all(isinstance(answer, ServiceError) for answer in answers)
        assert len({id(answer) for answer in answers}) == 4
        assert await service.operations(one.id) == stored
        assert await service.history(one.id) == told
        # The tokens are good still, and everything goes on.
        changes = await one.commit(step("a", SUCCEED))
        assert list(changes) == ["a"]
        assert changes["a"].sequence == 1
        assert list(await two.commit(step("b"))) == ["b"]
        assert len(await service.list()) == 2

    play(path, scene)


def test_an_undoing_that_fails_is_told_by_the_next_transaction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        Failing(service, "put_lines", sqlite3.OperationalError("disk I/O error"))
        Failing(service, "rollback", sqlite3.OperationalError("disk I/O error"))
        with pytest.raises(ServiceError, match="disk I/O error"):
            await holder.commit(step("a"))
        assert "undoing a transaction failed" in caplog.text
        with pytest.raises(ServiceError) as caught:
            await holder.commit(step("a"))
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert list(await holder.commit(step("a"))) == ["a"]

    play(tmp_path / "x.db", scene)


def test_a_look_that_fails_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        Failing(service, "data_version", sqlite3.OperationalError("disk I/O error"))
        service._writer._detect_other_writes()
        assert "looking at it failed" in caplog.text
        await begin(service)

    play(tmp_path / "x.db", scene)


def test_a_fault_of_our_own_undoes_the_group_too(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        Failing(service, "put_lines", KeyError("a bug"))
        with pytest.raises(KeyError, match="a bug"):
            await holder.commit(step("a"))
        assert list(await holder.commit(step("a"))) == ["a"]

    play(path, scene)


LONE_SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("bring", "told"),
    [
        (lambda _, bad: bad.commit(step("b", SUCCEED, payload=LONE_SURROGATE)), UnicodeEncodeError),
        (lambda service, _: service.complete_callback(LONE_SURROGATE, "1"), CallbackNotFoundError),
        (lambda service, _: service.start("f", "1", timeout_seconds=1 << 70), OverflowError),
        (lambda _, bad: bad.commit(step("b", SUCCEED, payload="x" * 200_000)), ServiceError),
    ],
    ids=["a lone surrogate", "an id with one", "a large number", "a large text"],
)
def test_a_value_that_can_not_be_written_disturbs_no_other(
    path: str, bring: Callable[[SqliteService, Holder], Any], told: type[Exception]
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        connection = service._unit.sql._connection
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        good, bad = await begin(service), await begin(service)
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(job)
            for job in (
                service.start("greet", "1"),
                bring(service, bad),
                good.commit(step("g", SUCCEED)),
            )
        ]
        await gate.open()
        started, refused, done = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(refused, told)
        assert not getattr(refused, "is_final", False)
        assert list(done) == ["g"]  # type: ignore[arg-type]
        assert {each.id for each in await service.list()} == {good.id, bad.id, started}
        assert list(await bad.commit(step("b"))) == ["b"]

    play(path, scene)


def test_an_answer_that_nobody_awaits_any_more_is_dropped(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        gate = await Gate.shut(service)
        pending = asyncio.ensure_future(holder.commit(step("a")))
        await asyncio.sleep(0)
        pending.cancel()
        await gate.open()
        await service._writer.submit(lambda: None)
        assert len(await service.operations(holder.id)) == 2

    play(path, scene)


def test_a_loop_that_was_closed_disturbs_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path / "x.db")
    service = place.open()
    opened = threading.Event()

    async def leave() -> None:
        service._writer.submit(opened.wait)
        service._writer.submit(lambda: None)

    asyncio.run(leave())
    opened.set()

    async def stay() -> None:
        assert await service.start("greet", "1")
        await place.close()

    asyncio.run(stay())


def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        gate = await Gate.shut(service)
        pending = asyncio.ensure_future(holder.commit(end(holder.id, payload='"out"')))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(service.close())
        await gate.open()
        await closing
        assert (await pending).keys() == {holder.id}
        for late in (service.start("greet", "1"), service.list(), holder.commit()):
            with pytest.raises(ServiceError, match="closed"):
                await late
        assert not (tmp_path / "x.db-wal").exists()
        (one,) = await here.open().list(payloads=True)
        assert one.result == '"out"'

    play(tmp_path / "x.db", scene)


def test_a_checkpoint_reads_nothing_and_writes_three_rows(tmp_path: Path) -> None:
    """However long the history is."""

    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        for n in range(20):
            await holder.commit(step(f"s{n}", SUCCEED))
        told = statements(service)
        await holder.commit(step("a"), step("a", SUCCEED))
        verbs = [statement.split()[0] for statement in told]
        assert verbs == ["BEGIN", "PRAGMA", "INSERT", "INSERT", "UPDATE", "COMMIT"]

    play(tmp_path / "x.db", scene)


def test_what_was_started_here_is_not_read_when_it_begins(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1", execution_name="one")
        told = statements(service)
        (invocation,) = await service.claim_due("me", ["greet"], 5)
        assert not [statement for statement in told if "SELECT * FROM" in statement]
        assert invocation.execution_id == execution_id
        assert invocation.execution_name == "one"
        holder = Holder(service, invocation)
        await holder.commit(step("a", SUCCEED))
        found = await service.operations(execution_id)
        assert [operation.id for operation in found] == [execution_id, "a"]
        assert len(await service.history(execution_id)) == 2

    play(path, scene)


def test_what_others_began_meanwhile_is_read(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service, other = here.open(), here.open()
        execution_id = await service.start("greet", "1")
        (theirs,) = await other.claim_due("them", ["greet"], 5)
        assert await service.claim_due("me", ["greet"], 5) == ()
        mine = await service.claim(execution_id)
        assert mine.token != theirs.token
        with pytest.raises(StaleTokenError):
            await other.commit(execution_id, theirs.token, ())

    play(tmp_path / "x.db", scene)


def test_a_start_that_was_undone_is_not_kept(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(here: Place) -> None:
        service = here.open()

        def fail() -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(service._unit.sql, "commit", fail)
            with pytest.raises(ServiceError):
                await service.start("greet", "1", execution_name="one")
        assert await service.list() == ()
        execution_id = await service.start("greet", "2", execution_name="one")
        assert (await service.get(execution_id)).input_payload == "2"

    play(path, scene)


def test_unavailable_is_what_a_full_disk_is(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        Failing(service, "commit", sqlite_error("database or disk is full", sqlite3.SQLITE_FULL))
        with pytest.raises(ServiceUnavailableError, match=r"x\.db.*full.*make room"):
            await service.start("greet", "1")

    play(tmp_path / "x.db", scene)
