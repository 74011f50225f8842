"""What sleeps costs nothing: nothing is held for it, and only what is due is read."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow.services.sqlite import _sql
from pyworkflow.testing._updates import wait
from tests.services.sqlite.sqlite_world import Place, lease, play

if TYPE_CHECKING:
    from pathlib import Path

    from pyworkflow.services.sqlite import SqliteService

SLEEPING, DUE = 20_000, 500


async def _put_to_sleep(here: Place, service: SqliteService) -> None:
    """Make copies of one sleeping execution; the first five hundred are due earlier."""
    await service.start("greet", "1")
    (holder,) = await lease(service, "me")
    await holder.commit(wait("w", wait_seconds=60))
    await holder.release()
    file = sqlite3.connect(here.path)
    file.execute("PRAGMA synchronous=OFF")
    row = file.execute("SELECT * FROM executions").fetchone()
    records = [record for (record,) in file.execute("SELECT record FROM operations ORDER BY key")]
    wake_at = row.index(await service.next_due())
    executions, operations = [], []
    for number in range(2, SLEEPING + 1):
        execution_id = f"{number:032x}"
        copy = [*row]
        copy[:2] = [number, execution_id]
        copy[wake_at] += 1_000_000 if number > DUE else 0
        executions.append(copy)
        own, old = execution_id.encode(), holder.id.encode()
        operations += [
            ((number << 32) + place, record.replace(old, own))
            for place, record in enumerate(records)
        ]
    file.executemany(f"INSERT INTO executions VALUES ({', '.join('?' * len(row))})", executions)
    file.executemany("INSERT INTO operations VALUES (?, ?, NULL)", operations)
    file.commit()
    file.close()


def test_those_that_sleep_are_not_held(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await _put_to_sleep(here, service)
        here.clock.advance(30_000)
        assert await lease(service, "me") == []
        assert service._unit._cached == {}
        wake_ms = await service.next_due(["greet"])
        assert wake_ms == here.clock.ms + 30_000
        here.clock.advance(30_000)
        read: list[str] = []
        service._unit.sql._connection.set_trace_callback(read.append)
        claimed = await service.claim_due("me", ["greet"], 50)
        assert len(claimed) == 50
        # What it costs depends on how many are claimed, not on how many there are.
        finds = [sql for sql in read if " FROM executions e WHERE id = " in sql]
        assert len(finds) == 50
        assert len(read) < 50 * 8
        assert len(service._unit._cached) == 50
        found = [*claimed]
        while claimed := await service.claim_due("me", ["greet"], 50):
            found += claimed
        assert len({one.execution_id for one in found}) == DUE
        for one in found:
            await service.release(one.execution_id, one.token)
        assert service._unit._cached == {}

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "SELECT wake_ms, number, id FROM executions WHERE workflow = 'w' AND wake_ms <= 9"
            " ORDER BY wake_ms, number LIMIT 9",
            "INDEX due (workflow=? AND wake_ms<?)",
        ),
        (
            "SELECT min(wake_ms) FROM executions WHERE workflow = 'w' AND wake_ms IS NOT NULL",
            "INDEX due (workflow=? AND wake_ms>?)",
        ),
        (
            "SELECT min(workflow) FROM executions WHERE workflow > '' AND wake_ms IS NOT NULL",
            "INDEX due (workflow>?)",
        ),
        (
            "SELECT id FROM executions WHERE deadline_ms <= 9 ORDER BY deadline_ms LIMIT 9",
            "INDEX limited (deadline_ms<?)",
        ),
        (
            "SELECT id, owner FROM executions WHERE lease_ms <= 9 ORDER BY lease_ms LIMIT 9",
            "INDEX leased (lease_ms<?)",
        ),
        (
            "SELECT id, owner FROM executions WHERE lease_ms IS NOT NULL AND owner = 'o' LIMIT 9",
            "INDEX leased (lease_ms>?)",
        ),
        (
            "SELECT id FROM executions WHERE id IN (SELECT value FROM json_each('[]'))"
            " AND (owner IS NOT 'o' OR unread IS NOT NULL)",
            "INDEX sqlite_autoindex_executions_1 (id=?)",
        ),
        (
            "SELECT record, deadlines FROM operations WHERE key BETWEEN 1 AND 2 ORDER BY key",
            "INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
        (
            "SELECT number FROM executions INDEXED BY listed WHERE status = 'FAILED'"
            " AND workflow = 'w' AND number <= 9 ORDER BY number DESC LIMIT 9",
            "INDEX listed (status=? AND workflow=? AND rowid<?)",
        ),
        (
            "SELECT workflow, typeof(workflow) FROM executions WHERE status = 'FAILED'"
            " AND workflow > 'w' ORDER BY workflow LIMIT 1",
            "INDEX listed (status=? AND workflow>?)",
        ),
        (
            "SELECT status, typeof(status) FROM executions WHERE status > 'FAILED'"
            " ORDER BY status LIMIT 1",
            "INDEX listed (status>?)",
        ),
        (
            "SELECT workflow, typeof(workflow) FROM executions WHERE wake_ms IS NOT NULL"
            " AND workflow > 'w' ORDER BY workflow LIMIT 1",
            "INDEX due (workflow>?)",
        ),
    ],
)
def test_each_question_walks_an_index(tmp_path: Path, sql: str, index: str) -> None:
    async def scene(here: Place) -> None:
        connection = here.open()._unit.sql._connection
        plan = "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
        assert index in plan, plan
        assert "TEMP B-TREE" not in plan

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"workflow_name": "none"},
        {"status": ExecutionStatus.FAILED},
        {"workflow_name": "none", "status": ExecutionStatus.FAILED},
        {"workflow_name": "none", "started_from_ms": 5},
        {"execution_name": "one"},
        {"name_prefix": "o", "workflow_name": "w"},
        {"id_prefix": "0"},
        {"id_prefix": "0123456789abcdef"},
        {"started_from_ms": 5, "started_before_ms": 9},
        {"has_problem": True},
        {"has_problem": True, "workflow_name": "w"},
        {"has_problem": False},
    ],
    ids="-".join,
)
def test_no_list_scans_the_file(tmp_path: Path, filters: Any) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        assert service._long_reader is not None
        connection = service._long_reader._sql._connection
        told: list[str] = []
        connection.set_trace_callback(told.append)
        await service.list(**filters)
        connection.set_trace_callback(None)
        reads = [sql for sql in told if sql.startswith("SELECT")]
        assert reads
        other = sqlite3.connect(here.path)
        for sql in reads:
            plan = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {sql}")]
            # The index of problems has nothing but those.
            scans = [line for line in plan if line.startswith(("SCAN executions", "SCAN e"))]
            assert not [line for line in scans if "INDEX troubled" not in line], plan
        other.close()

    play(tmp_path / "x.db", scene)


def test_a_long_list_delays_nobody(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        assert service._long_reader is not None
        entered, go_on = threading.Event(), threading.Event()

        def read_long(_: object) -> None:
            entered.set()
            go_on.wait(60)

        listing = service._long_reader.read(read_long)
        await asyncio.to_thread(entered.wait)
        listed = asyncio.ensure_future(service.list())
        (holder,) = await lease(service, "me")
        await holder.commit(wait("w", wait_seconds=60))
        assert (await service.get(holder.id)).id == holder.id
        assert await service.changed("me", [holder.id]) == []
        await holder.release()
        await service.start("greet", "2")
        assert await service.next_due() == here.clock.ms
        assert not listing.done()
        go_on.set()
        assert len(await listed) == 2

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("probe", [2, 5, 99])
def test_a_list_by_prefix_has_the_newest_wherever_they_are_found(
    tmp_path: Path, probe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sql, "_PROBE", 1)
    monkeypatch.setattr(_sql, "_DEEP_PROBE", probe)
    monkeypatch.setattr(_sql, "_MANY_NAMES", 4)

    async def scene(here: Place) -> None:
        service = here.open()
        names = ["o-5", "o-1", "o-3", "x-1", "o-2", "x-2", "x-3"]
        for name in names:
            await service.start("greet", "1", execution_name=name)
        found: list[str] = []
        page = await service.list(name_prefix="o-", limit=2)
        found += [each.name for each in page]
        page = await service.list(name_prefix="o-", limit=2, after=page.marker)
        found += [each.name for each in page]
        assert (found, page.marker) == (["o-2", "o-3", "o-1", "o-5"], None)
        assert [each.name for each in await service.list(name_prefix="x-", limit=2)] == [
            "x-3",
            "x-2",
        ]

    play(tmp_path / "x.db", scene)
