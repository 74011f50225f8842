from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._protocol.records import Status
from pyworkflow.errors import StaleTokenError
from pyworkflow.services.sqlite import _leases, _liveness
from pyworkflow.testing._updates import ERROR, RETRY, SUCCEED, callback, end, step, wait
from tests.services.sqlite.sqlite_world import Holder, Place, begin, lease, play

if TYPE_CHECKING:
    from pathlib import Path

    from pyworkflow.services.sqlite import SqliteService


@pytest.fixture(params=[":memory:", "x.db"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param if request.param == ":memory:" else str(tmp_path / request.param)


# -- claims ----------------------------------------------------------------------------------------


def test_what_was_started_is_due_at_once_and_claimed_once(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        first = await service.start("greet", "1")
        assert await service.next_due(["greet"]) == here.clock.ms
        here.clock.advance(5)
        second = await service.start("greet", "2")
        await service.start("bill", "3")
        claimed = await lease(service, "me")
        assert [holder.id for holder in claimed] == [first, second]
        assert await lease(service, "you") == []
        assert await service.next_due(["greet"]) is None
        assert await service.next_due() == await service.next_due(["greet", "bill"])
        assert [one.invocation.workflow_name for one in await lease(service, "you", "bill")] == [
            "bill"
        ]

    play(path, scene)


def test_a_claim_takes_the_longest_due_up_to_a_limit(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        ids = []
        for n in range(6):
            ids.append(await service.start(f"w{n % 2}", str(n)))
            here.clock.advance(1)
        found = []
        while claimed := await lease(service, "me", "w0", "w1", limit=4):
            found.append([holder.id for holder in claimed])
        assert found == [ids[:4], ids[4:]]

    play(path, scene)


def test_a_sleeping_execution_is_due_when_its_timer_is(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await lease(service, "me")
        started = await holder.commit(wait("w", wait_seconds=5))
        assert await service.next_due() is None
        await holder.release()
        assert await service.next_due() == started["w"].scheduled_end_ms
        assert await lease(service, "me") == []
        here.clock.advance(5000)
        (again,) = await lease(service, "me")
        assert again.invocation.operations[1].status is Status.SUCCEEDED

    play(path, scene)


def test_a_release_voids_the_token_and_a_stale_one_is_ignored(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await lease(service, "me")
        await holder.release(is_unfinished=True)
        with pytest.raises(StaleTokenError):
            await holder.commit(step("a"))
        (again,) = await lease(service, "you")
        await holder.release(problem=ERROR)
        assert list(await again.commit(step("a"))) == ["a"]
        assert (await service.get(holder.id)).failed_invocations == 0

    play(path, scene)


def test_what_nobody_has_read_makes_it_due_at_its_release(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await lease(service, "me")
        opened = await holder.commit(callback("k"))
        await service.complete_callback(opened["k"].callback_id or "", "raw")
        assert await lease(service, "you") == []
        assert await service.next_due() is None
        await holder.release()
        (again,) = await lease(service, "you")
        assert again.invocation.operations[1].payload == "raw"

    play(path, scene)


def test_an_outside_event_makes_a_sleeping_execution_due(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await lease(service, "me")
        opened = await holder.commit(callback("k"))
        await holder.release()
        assert (await service.next_due(), await lease(service, "me")) == (None, [])
        assert (await service.get(holder.id)).wake_ms is None
        here.clock.advance(7)
        await service.complete_callback(opened["k"].callback_id or "", None)
        assert (await service.get(holder.id)).wake_ms == here.clock.ms
        assert len(await lease(service, "me")) == 1

    play(path, scene)


def test_a_heartbeat_moves_when_it_is_due(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (holder,) = await lease(service, "me")
        opened = await holder.commit(callback("k", heartbeat_timeout_seconds=10))
        await holder.release()
        here.clock.advance(6000)
        await service.heartbeat_callback(opened["k"].callback_id or "")
        assert await service.next_due() == here.clock.ms + 10_000

    play(path, scene)


# -- leases that are lost --------------------------------------------------------------------------


def test_a_lease_runs_out_unless_it_is_renewed(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        kept, lost = await service.start("greet", "1"), await service.start("greet", "2")
        old = {holder.id: holder for holder in await lease(service, "me")}
        await old[lost].commit(step("a"))
        here.clock.advance(LEASE_MS - 1)
        await service.renew("me", [kept])
        await service.renew("you", [lost])
        assert await lease(service, "you") == []
        here.clock.advance(1)
        (found,) = await lease(service, "you")
        assert found.id == lost
        with pytest.raises(StaleTokenError):
            await old[lost].commit(step("a", SUCCEED))
        assert list(await old[kept].commit(step("a"))) == ["a"]
        assert list(await service.changed("me", [kept, lost])) == [lost]
        summary = await service.get(lost)
        assert summary.problem is not None
        assert "'me'" in summary.problem.message
        assert (summary.failed_invocations, summary.problem.type) == (1, "WorkerLost")
        await found.commit(step("a", SUCCEED))
        again = await service.get(lost)
        assert (again.failed_invocations, again.problem) == (0, None)

    play(path, scene)


def test_leases_run_by_the_time_of_the_machine(path: str) -> None:
    async def scene(here: Place) -> None:
        machine_ms = 0
        service = here.open(machine_ms=lambda: machine_ms)
        await service.start("greet", "1")
        await lease(service, "me")
        here.clock.advance(1_000_000)
        assert await lease(service, "you") == []
        machine_ms = LEASE_MS
        assert len(await lease(service, "you")) == 1

    play(path, scene)


def _pid_of_the_dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can ask after a process")
def test_the_leases_of_a_dead_process_are_void_at_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for n in range(3):
            await service.start("greet", str(n))
        assert len(await lease(service, "alive", limit=1)) == 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", _pid_of_the_dead)
            assert len(await lease(service, "dead", limit=1)) == 1
            patch.setattr(_leases, "this_host", lambda: "elsewhere")
            assert len(await lease(service, "elsewhere", limit=1)) == 1
        (found,) = await lease(service, "heir")
        summary = await service.get(found.id)
        assert summary.problem is not None
        assert "'dead'" in summary.problem.message
        assert "is gone" in summary.problem.message
        here.clock.advance(LEASE_MS)
        # The two whose leases ran out; the third is backed off, for it is its second time.
        assert len(await lease(service, "heir")) == 2
        # Nobody else has leased anything now.
        assert [owner for owner, *_ in service._unit.sql.owners()] == ["heir"]

    play(path, scene)


def test_a_process_of_somebody_else_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not _liveness.is_gone(1)
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", None)
    assert not _liveness.is_gone(1)


def test_a_host_without_namespaces_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_path: str) -> str:
        raise FileNotFoundError

    here = _liveness.this_host()
    monkeypatch.setattr(os, "readlink", missing)
    assert _liveness.this_host() == here.split()[0] + " "


async def _delays(here: Place, service: SqliteService, failures: int) -> list[int]:
    """How long after each trouble it is due again."""
    found = []
    for _ in range(failures):
        here.clock.advance(LEASE_MS)
        if not await lease(service, "next"):
            wake_ms = await service.next_due()
            assert wake_ms is not None
            found.append(wake_ms - here.clock.ms)
            here.clock.advance(found[-1] - 1)
            assert await lease(service, "next") == []
            here.clock.advance(1)
            assert len(await lease(service, "next")) == 1
        else:
            found.append(0)
    return found


def test_one_whose_process_dies_again_and_again_is_backed_off(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        (first,) = await lease(service, "first")
        delays = await _delays(here, service, 12)
        longest = [0, *(1000 * 2**n for n in range(9)), 300_000, 300_000]
        # Those that died together come back at different times.
        assert all(most // 2 <= delay <= most for delay, most in zip(delays, longest, strict=True))
        assert delays != longest
        summary = await service.get(first.id)
        assert summary.failed_invocations == 12
        assert summary.problem is not None
        assert "did not renew" in summary.problem.message

    play(path, scene)


def test_a_release_with_a_problem_is_backed_off(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        delays = []
        for _ in range(3):
            (holder,) = await lease(service, "me")
            opened = holder.invocation.operations
            await holder.release(problem=ERROR)
            summary = await service.get(holder.id)
            assert summary.wake_ms is not None
            assert summary.problem == ERROR
            delays.append(summary.wake_ms - here.clock.ms)
            here.clock.advance(delays[-1])
        assert delays == [1000, 2000, 4000]
        assert len(opened) == 1
        # What happens meanwhile makes it due no sooner, and an end of the run forgets it all.
        (holder,) = await lease(service, "me")
        opened_now = await holder.commit(callback("k"))
        assert (await service.get(holder.id)).failed_invocations == 0
        await holder.release(problem=ERROR)
        await service.complete_callback(opened_now["k"].callback_id or "", None)
        assert await service.next_due() == here.clock.ms + 1000
        here.clock.advance(1000)
        (holder,) = await lease(service, "me")
        await holder.release()
        assert (await service.get(holder.id)).failed_invocations == 0

    play(path, scene)


# -- news ------------------------------------------------------------------------------------------


def test_news_is_what_the_holder_has_not_read(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        ids = [await service.start("greet", str(n)) for n in range(4)]
        quiet, called, stopped, late = await lease(service, "me")
        assert [one.id for one in (quiet, called, stopped, late)] == ids
        assert await service.changed("me", ids) == []
        opened = await called.commit(callback("k"))
        await service.complete_callback(opened["k"].callback_id or "", "raw")
        await service.stop(stopped.id, ERROR)
        assert sorted(await service.changed("me", ids)) == sorted([called.id, stopped.id])
        assert await service.changed("me", [quiet.id]) == []
        assert list(await called.commit()) == ["k"]
        assert list(await service.changed("me", ids)) == [stopped.id]
        await service.release(stopped.id, stopped.token)

    play(path, scene)


def test_subscribers_hear_of_work_of_news_and_of_ends(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        told = 0

        def on_change() -> None:
            nonlocal told
            told += 1

        def broken() -> None:
            raise ValueError

        end_broken = service.subscribe(broken)
        unsubscribe = service.subscribe(on_change)

        async def heard() -> bool:
            """Whether there was a call; the writer calls before it begins the next group."""
            nonlocal told
            await service._writer.submit(lambda: None)
            found, told = told > 0, 0
            return found

        await heard()
        await service.start("greet", "1")
        assert await heard()
        end_broken()
        (holder,) = await lease(service, "me")
        await heard()
        opened = await holder.commit(callback("k"), step("a"))
        await holder.commit(step("a", RETRY, delay_seconds=5, error=ERROR))
        await service.renew("me", [holder.id])
        assert not await heard()
        await service.complete_callback(opened["k"].callback_id or "", None)
        assert await heard()
        await holder.commit()
        assert not await heard()
        await holder.release()
        assert await heard()
        holder = Holder(service, await service.claim(holder.id))
        await heard()
        await holder.commit(end(holder.id))
        assert await heard()
        unsubscribe()
        await service.start("greet", "2")
        assert not await heard()

    play(path, scene)


def test_subscribers_hear_of_changes_by_others(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service, other = here.open(), here.open()
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        await service.start("greet", "0")

        def on_change() -> None:
            loop.call_soon_threadsafe(changed.set)

        unsubscribe = service.subscribe(on_change)
        execution_id = await other.start("greet", "1")
        async with asyncio.timeout(60):
            await changed.wait()
        assert (await service.get(execution_id)).status.value == "RUNNING"
        unsubscribe()

    play(tmp_path / "x.db", scene)


def test_a_direct_claim_needs_no_lease(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        here.clock.advance(10 * LEASE_MS)
        assert await lease(service, "me") == []
        await holder.commit(wait("w", wait_seconds=1))
        here.clock.advance(1000)
        assert len(await lease(service, "me")) == 1

    play(path, scene)
