"""Leases that are kept past their time, suspects, and the rows of those who lease."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow.errors import ExecutionNotFoundError, ServiceError, StaleTokenError
from pyworkflow.services.sqlite import _leases, _schema
from pyworkflow.services.sqlite._liveness import start_of
from pyworkflow.testing._updates import ERROR, SUCCEED, callback, context, end, step, wait
from tests.services.sqlite.sqlite_world import Holder, Place, begin, lease, play

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pyworkflow.services.sqlite import SqliteService

knows_processes = pytest.mark.skipif(
    start_of(os.getpid()) is None, reason="nobody can say whether a process lives without /proc"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


async def keep(service: SqliteService, owner: str, limit: int = 100) -> list[Holder]:
    """Claim what is due, as a worker does."""
    claimed = await service.claim_due(owner, ["greet"], limit, keep=True)
    return [Holder(service, invocation) for invocation in claimed]


def owners_of(service: SqliteService) -> set[str]:
    return {owner for owner, *_ in service._unit.sql.owners()}


def lose_process(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """Let this process be one with that id."""
    monkeypatch.setattr(os, "getpid", lambda: pid)


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# -- while its process lives -----------------------------------------------------------------------


@knows_processes
def test_a_lease_is_kept_while_its_process_lives(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await keep(service, "me")
        assert (await service.get(holder.id)).problem is None
        here.clock.advance(100 * LEASE_MS)
        assert await lease(service, "you") == []
        (listed,) = await service.list(payloads=True)
        assert listed == await service.get(holder.id)
        assert listed.problem is not None
        assert listed.problem.type == "LeaseKept"
        assert str(os.getpid()) in listed.problem.message
        assert f"pyworkflow release {holder.id}" in listed.problem.message
        # Whoever held it goes on as if nothing had been.
        await holder.commit(step("a", SUCCEED))
        await service.renew("me", [holder.id])
        assert (await service.get(holder.id)).problem is None

    play(path, scene)


@knows_processes
def test_a_kept_lease_keeps_no_other_from_being_taken(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for n in range(3):
            await service.start("greet", str(n))
        assert len(await keep(service, "me", limit=2)) == 2
        (lost,) = await lease(service, "you")
        here.clock.advance(LEASE_MS)
        assert [one.id for one in await lease(service, "heir", limit=1)] == [lost.id]

    play(path, scene)


@knows_processes
@pytest.mark.parametrize("what", ["host", "start", "unknown"])
def test_the_lease_alone_decides_where_nobody_can_say_that_the_process_lives(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        with monkeypatch.context() as patch:
            if what == "host":  # another machine, or another container
                patch.setattr(_leases, "this_host", lambda: "elsewhere")
            else:  # its id was given to this process later; or there is no /proc
                begun = 1 if what == "start" else None
                patch.setattr(_leases, "start_of", lambda _: begun)
            await keep(service, "me")
        here.clock.advance(LEASE_MS - 1)
        assert await lease(service, "you") == []
        here.clock.advance(1)
        assert len(await lease(service, "you")) == 1

    play(path, scene)


@knows_processes
def test_a_zombie_does_not_live(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def kill() -> None:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped

    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        with monkeypatch.context() as patch:
            lose_process(patch, process.pid)
            await keep(service, "me")
        here.clock.advance(LEASE_MS)
        assert await lease(service, "you") == []
        kill()
        assert len(await lease(service, "you")) == 1

    play(path, scene)
    process.communicate()


def test_an_owner_that_retires_lets_its_leases_run_out(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        await keep(service, "me")
        await service.retire("me")
        assert owners_of(service) == {"me"}
        here.clock.advance(LEASE_MS)
        assert len(await lease(service, "you")) == 1

    play(path, scene)


# -- handing back ----------------------------------------------------------------------------------


def test_what_is_handed_back_is_due_at_once(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for n in range(2):
            await service.start("greet", str(n))
        idle, busy = await keep(service, "me")
        leased = await service.leased_by("me")
        assert [execution_id for execution_id, _ in leased] == [idle.id, busy.id]
        assert await service.leased_by("me", late=True) == []
        await busy.commit(step("a"))  # it goes on, and has another token
        await service.hand_back("me", leased)
        (found,) = await lease(service, "you")
        assert found.id == idle.id
        assert found.invocation.losses == 0
        with pytest.raises(StaleTokenError):
            await idle.commit(step("a"))
        await busy.commit(step("a", SUCCEED))
        here.clock.advance(LEASE_MS)
        assert [each for each, _ in await service.leased_by("me", late=True)] == [busy.id]
        await service.hand_back("somebody else", await service.leased_by("me"))
        await busy.commit(step("b"))

    play(path, scene)


def test_what_an_owner_reports_is_the_problem_of_what_it_holds(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for n in range(2):
            await service.start("greet", str(n))
        (holder,) = await keep(service, "me", limit=1)
        report = ErrorRecord("frozen", "WorkerFrozen", stack_trace=("line 1\n",))
        await service.report("me", report)
        problems = {each.id: each.problem for each in await service.list()}
        assert problems.pop(holder.id) == report
        assert list(problems.values()) == [None]
        vandal = sqlite3.connect(path)
        vandal.execute("UPDATE owners SET report = x'c1'")
        vandal.commit()
        vandal.close()
        assert (await service.get(holder.id)).problem is None
        await service.report("me", None)
        assert (await service.get(holder.id)).problem is None

    play(path, scene)


# -- released by hand ------------------------------------------------------------------------------


@knows_processes
def test_a_release_by_hand_ends_a_kept_lease(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await keep(service, "me")
        await holder.commit(step("a", name="charge"), step("b", SUCCEED, name="pack"))
        caplog.clear()
        released = await service.revoke(holder.id)
        assert released.problem is not None
        assert "'me'" in released.problem.message
        assert (released.problem.type, released.wake_ms) == ("LeaseReleased", here.clock.ms)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "charge" in record.getMessage()
        assert "pack" not in record.getMessage()
        with pytest.raises(StaleTokenError):
            await holder.commit(step("a", SUCCEED))
        assert list(await service.changed("me", [holder.id])) == [holder.id]
        (found,) = await lease(service, "you")
        await found.commit(step("a", SUCCEED, name="charge"))
        assert (await service.get(holder.id)).failed_invocations == 0

    play(path, scene)


def test_nothing_is_released_where_no_worker_has_it(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1")
        with pytest.raises(ServiceError, match=r"is RUNNING, and no worker has it"):
            await service.revoke(execution_id)
        (holder,) = await lease(service, "me")
        await holder.commit(end(holder.id))
        with pytest.raises(ServiceError, match="SUCCEEDED"):
            await service.revoke(execution_id)
        with pytest.raises(ExecutionNotFoundError):
            await service.revoke("unknown")

    play(path, scene)


# -- suspects --------------------------------------------------------------------------------------


async def _lost(service: SqliteService, here: Place, count: int) -> list[str]:
    """Have so many executions lose their process; they are due now."""
    ids = [await service.start("greet", str(n)) for n in range(count)]
    assert len(await lease(service, "first")) == count
    here.clock.advance(LEASE_MS)
    return ids


async def claimed(service: SqliteService, owner: str, suspects: int | None) -> Sequence[str]:
    found = await service.claim_due(owner, ["greet", "bill"], 100, suspects=suspects)
    return [each.execution_id for each in found]


def test_suspects_are_claimed_as_many_as_are_asked_for(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        lost = await _lost(service, here, 3)
        fresh = [await service.start("bill", "1"), await service.start("greet", "9")]
        found = await claimed(service, "none", 0)
        assert found == fresh
        # With nothing else to do, nobody takes the write lock for them, nor wakes for them.
        assert not service._leases.has_work(service._unit.sql, ["greet"], 0)
        assert await service.next_due(["greet", "bill"], suspects=False) is None
        assert await service.next_due(["greet", "bill"]) == here.clock.ms
        assert await claimed(service, "one", 1) == lost[:1]
        assert await claimed(service, "all", None) == lost[1:]

    play(path, scene)


def test_a_suspect_says_how_often_it_lost_its_process(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await _lost(service, here, 1)
        for losses in (1, 2, 3):
            (found,) = await lease(service, "next")
            assert found.invocation.losses == losses
            # It goes on, and may yet be what ends its process.
            await found.commit(step(f"a{losses}", SUCCEED))
            here.clock.advance(LEASE_MS)
            assert await lease(service, "next") == [] or losses == 3
            here.clock.advance(2000 << losses)

    play(path, scene)


@pytest.mark.parametrize("problem", [None, ERROR])
def test_an_invocation_that_ends_in_good_order_clears_it(
    path: Path, problem: ErrorRecord | None
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await _lost(service, here, 1)
        (found,) = await lease(service, "heir")
        assert found.invocation.losses == 1
        opened = await found.commit(callback("k"))
        await found.release(problem=problem)
        await service.complete_callback(opened["k"].callback_id or "", None)
        here.clock.advance(1000)
        assert len(await claimed(service, "none", 0)) == 1

    play(path, scene)


def test_that_a_step_began_is_no_progress(path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await _lost(service, here, 1)
        (found,) = await lease(service, "heir")
        await found.commit(context("c"), step("a", parent_id="c"))
        assert (await service.get(found.id)).failed_invocations == 1
        await found.commit(wait("w", wait_seconds=1))
        assert (await service.get(found.id)).failed_invocations == 0

    play(path, scene)


# -- the rows of owners ----------------------------------------------------------------------------


def test_whoever_has_leased_nothing_has_no_row(
    path: Path, monkeypatch: pytest.MonkeyPatch, dead_pid: int
) -> None:
    async def scene(here: Place) -> None:
        service, other = here.open(), here.open()
        for n in range(4):
            await service.start("greet", str(n))
        done, crashed, far = [(await lease(service, name, limit=1))[0] for name in "abc"]
        await done.commit(end(done.id))
        await crashed.release()
        await far.release()
        assert owners_of(service) == {"a", "b", "c"}
        # Whoever claims for the first time sweeps, wherever the others lived.
        monkeypatch.setattr(_leases, "this_host", lambda: "elsewhere")
        (mine,) = await lease(other, "d", limit=1)
        assert owners_of(service) == {"d"}
        # One that was swept, for it had nothing, is back with its next claim.
        await service.start("greet", "9")
        await lease(service, "a", limit=1)
        assert owners_of(service) == {"a", "d"}
        await mine.commit(end(mine.id))
        await other.retire("d")
        assert owners_of(service) == {"a"}
        here.clock.advance(LEASE_MS)
        await lease(other, "e")
        assert owners_of(service) == {"e"}

    play(path, scene)


# -- older files -----------------------------------------------------------------------------------


def test_a_file_of_the_first_version_opens(path: Path) -> None:
    async def fill(here: Place) -> None:
        service = here.open()
        await lease(service, "me") if await service.start("greet", "1") else None
        await (await begin(service)).commit(step("a", SUCCEED))

    play(path, fill)
    old = sqlite3.connect(path)
    for index in ("suspected", "listed", "troubled"):
        old.execute(f"DROP INDEX {index}")
    old.execute("CREATE INDEX standing ON executions (status)")
    old.execute("ALTER TABLE executions DROP COLUMN losses")
    old.execute("ALTER TABLE executions ADD COLUMN by_hand TEXT")
    old.execute("ALTER TABLE owners DROP COLUMN started")
    old.execute("ALTER TABLE owners DROP COLUMN report")
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()

    async def scene(here: Place) -> None:
        service = here.open()
        assert len(await service.list()) == 2
        here.clock.advance(LEASE_MS)
        (found,) = await lease(service, "heir")
        await found.commit(end(found.id))
        (version,) = service._unit.sql._connection.execute("PRAGMA user_version").fetchone()
        assert version == _schema.SCHEMA_VERSION

    play(path, scene)
