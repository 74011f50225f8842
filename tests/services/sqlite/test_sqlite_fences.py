from __future__ import annotations

import sqlite3
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pyworkflow._protocol.records import Status
from pyworkflow.errors import (
    CallbackAlreadyCompletedError,
    ServiceError,
    StaleTokenError,
)
from pyworkflow.testing._updates import ERROR, FAIL, RETRY, SUCCEED, callback, end, step, wait
from tests.services.sqlite.sqlite_world import Holder, Place, begin, lease, play, python, spawn

if TYPE_CHECKING:
    from pathlib import Path


def test_a_claim_by_another_service_object_voids_the_token(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        first, second = here.open(), here.open()
        old = await begin(first)
        await old.commit(step("a"))
        new = type(old)(second, await second.claim(old.id))
        assert [one.id for one in new.invocation.operations] == [old.id, "a"]
        with pytest.raises(StaleTokenError):
            await old.commit(step("a", SUCCEED, payload="1"))
        await new.commit(step("a", SUCCEED, payload="2"))
        with pytest.raises(StaleTokenError):
            await old.commit(step("b"))
        _, a = await first.operations(old.id)
        assert (a.payload, a.sequence) == ("2", 1)

    play(tmp_path / "x.db", scene)


def test_the_holder_reads_what_another_service_object_changed(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        first, second = here.open(page_size=2), here.open()
        holder = await begin(first)
        opened = await holder.commit(callback("k"), callback("l"), wait("w", wait_seconds=9))
        await second.complete_callback(opened["k"].callback_id or "", "raw")
        await second.fail_callback(opened["l"].callback_id or "", ERROR)
        changes = await holder.commit(step("a"))
        assert [(one.id, one.status) for one in changes.values()] == [
            ("k", Status.SUCCEEDED),
            ("l", Status.FAILED),
        ]
        assert (changes["k"].sequence, changes["l"].sequence) == (1, 2)
        with pytest.raises(CallbackAlreadyCompletedError, match="SUCCEEDED"):
            await second.complete_callback(opened["k"].callback_id or "", "again")

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("method", ["version", "operations"])
def test_a_token_stays_void_when_the_disk_failed_as_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def scene(here: Place) -> None:
        first, second = here.open(), here.open()
        old = await begin(first)
        await old.commit(step("a"))
        new = Holder(second, await second.claim(old.id))

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(first._unit.sql, method, fail)
            with pytest.raises(ServiceError, match="disk I/O error"):
                await old.commit(step("a", SUCCEED, payload='"old"'))
        with pytest.raises(StaleTokenError):
            await old.commit(step("a", SUCCEED, payload='"old"'))
        await new.commit(step("a", SUCCEED, payload='"new"'))
        assert [each.payload for each in await first.operations(old.id)] == ["1", '"new"']

    play(tmp_path / "x.db", scene)


def test_pages_of_an_answer_outlive_a_change_by_another(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        first, second = here.open(page_size=2), here.open()
        holder = await begin(first)
        opened = await holder.commit(callback("k"))
        await holder.commit(*(step(f"s{n}") for n in range(3)))
        claimed = await first.claim(holder.id)
        await second.complete_callback(opened["k"].callback_id or "", "raw")
        page = await first.load(holder.id, claimed.token, claimed.marker or "")
        assert [one.id for one in page.operations] == ["s0", "s1"]
        committed = await first.commit(holder.id, claimed.token, [])
        assert [one.id for one in committed.operations] == ["k"]

    play(tmp_path / "x.db", scene)


def test_what_was_saved_is_what_was_held(tmp_path: Path) -> None:
    """Timers, attempts, deadlines, numbers and tokens go on where another process left them."""

    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        opened = await holder.commit(
            wait("w", wait_seconds=2),
            callback("k", timeout_seconds=60, heartbeat_timeout_seconds=5),
            step("r", RETRY, delay_seconds=3, error=ERROR),
            step("f", FAIL, error=ERROR),
        )
        here.clock.advance(1000)
        callback_id = opened["k"].callback_id or ""
        await service.heartbeat_callback(callback_id)
        told = await service.history(holder.id)
        await service.close()

        again = here.open()
        assert await again.history(holder.id) == told
        assert await again.next_due() == opened["w"].scheduled_end_ms
        here.clock.advance(5000)
        holder.service = again
        changes = await holder.commit(step("n", SUCCEED))
        assert [(one.id, one.status, one.sequence) for one in changes.values()] == [
            ("w", Status.SUCCEEDED, 2),
            ("r", Status.READY, None),
            ("k", Status.TIMED_OUT, 3),
            ("n", Status.SUCCEEDED, 4),
        ]
        assert changes["k"].end_ms == (opened["k"].start_ms or 0) + 6000
        await holder.commit(step("r"), step("r", SUCCEED, payload="1"), end(holder.id))
        _, *records = await again.operations(holder.id)
        assert [one.id for one in records] == ["w", "k", "r", "f", "n"]
        assert records[2].attempt == 2

    play(tmp_path / "x.db", scene)


_OTHER = dedent(
    """
    import asyncio
    from tests.services.sqlite.sqlite_world import Holder, Place
    from pyworkflow.testing._updates import SUCCEED, step

    async def main(path, execution_id):
        here = Place(path)
        service = here.open()
        holder = Holder(service, await service.claim(execution_id))
        await holder.commit(step("a", SUCCEED, payload='"theirs"'))
        await here.close()

    asyncio.run(main(*sys.argv[1:]))
    """
)


def test_a_claim_by_another_process_voids_the_token(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await holder.commit(step("a"))
        done = python(_OTHER, here.path, holder.id)
        assert done.returncode == 0, done.stderr
        with pytest.raises(StaleTokenError):
            await holder.commit(step("a", SUCCEED, payload='"ours"'))
        (_, a) = await service.operations(holder.id)
        assert a.payload == '"theirs"'

    play(tmp_path / "x.db", scene)


_CROWD = dedent(
    """
    import asyncio
    from tests.services.sqlite.sqlite_world import Place, lease
    from pyworkflow.errors import StaleTokenError
    from pyworkflow.testing._updates import SUCCEED, end, step

    async def work(service, owner):
        done = 0
        while True:
            holders = await lease(service, owner, limit=3)
            if not holders and await service.next_due() is None:
                return done
            for holder in holders:
                for n in range(5):
                    await holder.commit(step(f"s{n}"), step(f"s{n}", SUCCEED, payload="1"))
                await holder.commit(end(holder.id, payload="2"))
                done += 1

    async def main(path, owner):
        here = Place(path)
        service = here.open()
        print(await work(service, owner))
        await here.close()

    asyncio.run(main(*sys.argv[1:]))
    """
)


def test_four_processes_share_a_file(tmp_path: Path) -> None:
    """Each execution is run by one of them, and nobody is told that the file is locked."""

    async def scene(here: Place) -> None:
        service = here.open()
        for n in range(40):
            await service.start("greet", str(n))
        crowd = [spawn(_CROWD, here.path, f"owner-{n}") for n in range(4)]
        counts = []
        for process in crowd:
            output, errors = process.communicate(timeout=120)
            assert (process.returncode, errors) == (0, "")
            counts.append(int(output))
        assert sum(counts) == 40
        assert {one.status.value for one in await service.list()} == {"SUCCEEDED"}
        assert await lease(service, "last") == []

    play(tmp_path / "x.db", scene)


_OPEN = dedent(
    """
    import asyncio
    from tests.services.sqlite.sqlite_world import Place

    async def main(path):
        here = Place(path)
        sys.stdin.readline()
        await here.open(durability="full").start("greet", "1")
        await here.close()

    asyncio.run(main(*sys.argv[1:]))
    """
)


def test_four_processes_create_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    crowd = [spawn(_OPEN, path) for _ in range(4)]
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in crowd:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")

    async def scene(here: Place) -> None:
        assert len(await here.open().list()) == 4

    play(path, scene)
