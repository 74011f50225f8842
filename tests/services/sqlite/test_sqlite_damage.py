"""An execution that can't be read, its cells damaged or edited: it is told, and put off, alone."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import Status
from pyworkflow.errors import DamagedExecutionError, ServiceError, StorageError
from pyworkflow.services.sqlite import _encoding
from pyworkflow.services.sqlite._encoding import encode
from pyworkflow.services.sqlite._unit_of_work import PUT_OFF_MS
from pyworkflow.testing._updates import callback, end, invoke, step, wait
from tests.services.sqlite.sqlite_world import Place, begin, lease, play
from tests.services.sqlite.test_sqlite_groups import Gate

ROW_CELLS = {
    "workflow": ["x'00'"],
    "name": ["x'00'"],
    "version": ["'many'", "x'00'"],
    "tokens": ["'many'", "x'00'", "1.5"],
    "lines": ["'many'"],
    "unread": ["'text'", "x'c1'", "x'91a178'"],
    "owner": ["x'00'"],
    "lease_ms": ["'soon'"],
    "wake_ms": ["'soon'"],
    "not_before_ms": ["'soon'"],
    "deadline_ms": ["'soon'"],
    "troubles": ["'many'"],
    "problem": ["'text'", "x'c1'"],
    "result": ["x'00'"],
    "parent_id": ["x'00'"],
    "parent_operation": ["x'00'"],
}
LARGEST, BROKEN_TEXT = str((1 << 63) - 1), "cast(x'ff' AS TEXT)"
for _column, _values in ROW_CELLS.items():
    if _column in {"version", "tokens", "lines", "troubles"} or _column.endswith("_ms"):
        _values += ["-1", LARGEST, str(-(1 << 63)), "1e300"]
    elif _column not in {"unread", "problem"}:
        _values.append(BROKEN_TEXT)
OPERATION_CELLS = {"record": ["'text'", "7", "x'c1'"], "deadlines": ["'text'", "x'c1'", "NULL"]}
CELLS = [
    (table, column, value)
    for table, columns in (("executions", ROW_CELLS), ("operations", OPERATION_CELLS))
    for column, values in columns.items()
    for value in values
]


def by_hand(here: Place, *statements: str) -> None:
    """Do with the file what nobody should."""
    vandal = sqlite3.connect(here.path)
    for statement in statements:
        vandal.execute(statement)
    vandal.commit()
    vandal.close()


def edit(here: Place, table: str, column: str, value: str) -> None:
    """Edit the newest row of the first execution, as a change by another process."""
    newest = "(SELECT max(key) FROM operations WHERE key >> 32 = 1)"
    where = "number = 1" if table == "executions" else f"key = {newest}"
    by_hand(
        here,
        "UPDATE executions SET version = 99 WHERE number = 1",
        f"UPDATE {table} SET {column} = {value} WHERE {where}",
    )


@pytest.mark.parametrize(("table", "column", "value"), CELLS)
def test_a_cell_of_another_type_is_told_with_its_execution_and_row(
    tmp_path: Path, table: str, column: str, value: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        await bad.commit(callback("c", timeout_seconds=9))
        edit(here, table, column, value)
        row = 1 if table == "executions" else (1 << 32) + 1
        with pytest.raises(DamagedExecutionError) as told:
            await bad.commit(step("a"))
        assert f"{bad.id!r} can't be read: row {row} of {table}, {column}: " in str(told.value)
        assert list(await good.commit(step("a"))) == ["a"]

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize(("table", "column", "value"), CELLS)
def test_an_execution_that_can_not_be_read_is_put_off_and_others_are_claimed(
    tmp_path: Path, table: str, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        for holder in (bad, good):
            await holder.commit(callback("c", timeout_seconds=9))
            await holder.release(is_unfinished=True)
        edit(here, table, column, value)
        (claimed,) = await lease(service, "me")
        assert claimed.id == good.id
        (shown,) = [each for each in await service.list() if each.id == bad.id]
        assert shown.status is ExecutionStatus.RUNNING
        assert shown.problem is not None
        assert f"row {1 if table == 'executions' else (1 << 32) + 1} of {table}, {column}: " in (
            shown.problem.message
        )
        await service.next_due()
        for _ in range(2):  # what is written anew as it is put off can be read then
            here.clock.advance(PUT_OFF_MS)
            await lease(service, "me")
        assert len([record for record in caplog.records if bad.id in record.getMessage()]) <= 1

    with caplog.at_level(logging.ERROR, "pyworkflow.sqlite"):
        play(tmp_path / "x.db", scene)


def test_what_is_put_off_says_why_and_goes_on_once_it_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await begin(service)
        await bad.commit(step("a"))
        await bad.release(is_unfinished=True)
        by_hand(here, "CREATE TABLE kept AS SELECT * FROM operations")
        edit(here, "operations", "record", "x'c1'")
        for failures in (1, 2):
            assert await lease(service, "me") == []
            shown = await service.get(bad.id)
            assert shown.problem is not None
            assert f"row {(1 << 32) + 1} of operations, record: " in shown.problem.message
            assert shown.failed_invocations == failures
            assert shown.wake_ms == await service.next_due() == here.clock.ms + PUT_OFF_MS
            here.clock.advance(PUT_OFF_MS)
        assert len(caplog.records) == 1
        by_hand(here, "INSERT OR REPLACE INTO operations SELECT * FROM kept")
        (again,) = await lease(service, "me")
        assert [operation.id for operation in again.invocation.operations] == [bad.id, "a"]
        await again.commit(step("b"))
        assert (await service.get(bad.id)).problem is None

    with caplog.at_level(logging.ERROR, "pyworkflow.sqlite"):
        play(tmp_path / "x.db", scene)


def test_a_lost_lease_and_a_timeout_of_what_can_not_be_read_concern_it_alone(
    tmp_path: Path,
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1", timeout_seconds=60)
        await service.start("greet", "2", timeout_seconds=60)
        bad, good = await lease(service, "lost")
        edit(here, "operations", "record", "x'c1'")
        here.clock.advance(20_000)
        (again,) = await lease(service, "me")
        assert again.id == good.id
        here.clock.advance(60_000)
        await lease(service, "me")
        assert (await service.get(good.id)).status is ExecutionStatus.TIMED_OUT
        (_, shown) = await service.list()
        assert (shown.id, shown.status) == (bad.id, ExecutionStatus.RUNNING)
        assert await service.next_due() == here.clock.ms + PUT_OFF_MS - 60_000

    play(tmp_path / "x.db", scene)


def test_a_child_whose_parent_can_not_be_read_times_out_when_it_can(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        parent = await begin(service, "parent")
        await parent.commit(invoke("i", function_name="child", payload="1"))
        await parent.release()
        by_hand(
            here,
            "UPDATE executions SET deadline_ms = 1 WHERE number = 2",
            "CREATE TABLE kept AS SELECT * FROM operations",
        )
        edit(here, "operations", "record", "x'c1'")
        await service.start("greet", "1")
        assert len(await lease(service, "me", "child", "greet")) == 1
        (child,) = await service.list(workflow_name="child")
        assert child.status is ExecutionStatus.RUNNING
        assert parent.id in (child.problem.message if child.problem else "")
        by_hand(here, "INSERT OR REPLACE INTO operations SELECT * FROM kept")
        here.clock.advance(PUT_OFF_MS)
        (again,) = await lease(service, "me", "parent")
        assert again.invocation.operations[1].status == "TIMED_OUT"

    play(tmp_path / "x.db", scene)


def test_the_end_of_a_child_without_its_parent_s_operation_fails_no_other(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        parent = await begin(service, "parent")
        await parent.commit(invoke("i", function_name="child", payload="1"))
        await parent.release()
        (child,) = await lease(service, "me", "child")
        good = await begin(service)
        by_hand(here, "DELETE FROM operations WHERE key = (1 << 32) + 1")
        edit(here, "executions", "troubles", "0")
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(one)
            for one in (child.commit(end(child.id, payload="1")), good.commit(step("a")))
        ]
        await gate.open()
        told, committed = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(told, DamagedExecutionError)
        assert f"{parent.id!r} can't be read: it has no operation 'i'" in str(told)
        assert isinstance(committed, dict)

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM operations WHERE key = (1 << 32) + 1", f"row {(1 << 32) + 1} of operations"),
        ("DELETE FROM operations WHERE key = 1 << 32", f"row {1 << 32} of operations: it is"),
        ("DELETE FROM operations WHERE key >> 32 = 1", f"row {1 << 32} of operations: it is"),
        (
            "UPDATE operations SET record = (SELECT record FROM operations WHERE key = 2 << 32)"
            " WHERE key = 1 << 32",
            "expected the EXECUTION operation",
        ),
    ],
)
def test_a_row_that_is_missing_or_another_s_is_told(
    tmp_path: Path, statement: str, told: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, _ = await begin(service), await begin(service)
        await bad.commit(step("a"), wait("w", wait_seconds=9))
        edit(here, "executions", "troubles", "0")
        by_hand(here, statement)
        with pytest.raises(DamagedExecutionError, match=f"{bad.id}.*{told}".replace("(", r"\(")):
            await bad.commit(step("b"))
        assert len(await service.list()) == 2

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("lines", ["'text'", "x'c1'", "x'91930900a753544152544544'"])
def test_a_history_that_can_not_be_read_is_told_with_its_row(tmp_path: Path, lines: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await begin(service)
        by_hand(here, f"UPDATE history SET lines = {lines}")
        with pytest.raises(
            DamagedExecutionError, match=rf"{bad.id}.*row {1 << 32} of history, lines"
        ):
            await service.history(bad.id)

    play(tmp_path / "x.db", scene)


def test_a_line_number_that_is_taken_is_told_to_its_execution_alone(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        await bad.commit(step("a"))
        edit(here, "executions", "lines", "0")
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(one) for one in (bad.commit(step("b")), good.commit(step("a")))
        ]
        await gate.open()
        told, committed = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(told, StorageError)
        assert isinstance(committed, dict)

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize(
    ("cell", "shown_id"),
    [("cast(id AS BLOB)", "b'{}'"), ("cast(cast(id AS BLOB) || x'ff' AS TEXT)", r"b'{}\xff'")],
)
def test_an_id_of_another_type_is_shown(tmp_path: Path, cell: str, shown_id: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await service.start("greet", "1"), await service.start("greet", "2")
        edit(here, "executions", "id", cell)
        assert [holder.id for holder in await lease(service, "me")] == [good]
        shown = (await service.list())[1]
        assert shown.id == shown_id.format(bad)
        assert shown.failed_invocations == 1
        assert "expected str, found bytes" in (shown.problem.message if shown.problem else "")
        assert "row 1 of executions, id" in (shown.problem.message if shown.problem else "")

    play(tmp_path / "x.db", scene)


def test_a_column_that_was_added_by_hand_is_passed_over(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        by_hand(here, "ALTER TABLE executions ADD COLUMN note")
        service = here.open()
        (holder,) = await lease(service, "me")
        await holder.commit(step("a"))
        assert (await service.get(holder.id)).problem is None
        assert len(await service.list()) == 1

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("pid", ["'none'", "x'00'", "-1", "1 << 60"])
def test_a_process_id_that_is_none_stands_in_nobody_s_way(tmp_path: Path, pid: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        await lease(service, "lost")
        by_hand(here, f"UPDATE owners SET pid = {pid}")
        assert await lease(service, "me") == []
        here.clock.advance(20_000)
        assert len(await lease(service, "me")) == 1

    play(tmp_path / "x.db", scene)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [LARGEST, str(1 << 31), str((1 << 31) - 1), "-7", "0"])
def test_a_number_that_nobody_has_stands_in_nobody_s_way(tmp_path: Path, number: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await begin(service)
        await bad.commit(step("a"))
        await bad.release(is_unfinished=True)
        by_hand(here, f"UPDATE executions SET number = {number}, version = 99")
        started = [await service.start("greet", str(each)) for each in range(3)]
        started.append(await here.open().start("greet", "9"))
        assert {holder.id for holder in await lease(service, "me")} == set(started)
        (shown,) = [each for each in await service.list() if each.id == bad.id]
        assert "can't be read: row " in (shown.problem.message if shown.problem else "")
        # Nothing took the place of what it had.
        by_hand(here, f"UPDATE executions SET number = 1 WHERE number = {number}")
        here.clock.advance(PUT_OFF_MS)
        again = {holder.id: holder for holder in await lease(service, "you")}[bad.id]
        assert [operation.id for operation in again.invocation.operations] == [bad.id, "a"]

    play(tmp_path / "x.db", scene)


def test_the_number_after_the_last_one_is_looked_for(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1")
        last = (1 << 31) - 1
        by_hand(
            here,
            f"UPDATE executions SET number = {last}",
            f"INSERT INTO history VALUES ({last - 1} << 32, x'90')",
            f"INSERT INTO operations VALUES ({last - 2} << 32 | 5, x'90', NULL)",
        )
        for value in range(3):
            await service.start("greet", str(value))
        assert len(await lease(service, "me")) == 3

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("value", [LARGEST, "'soon'", "x'00'"])
@pytest.mark.parametrize("column", ["wake_ms", "lease_ms"])
def test_what_would_never_be_due_is_put_off_and_goes_on(
    tmp_path: Path, column: str, value: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await service.start("greet", "1")
        if column == "lease_ms":
            await lease(service, "gone for good")
        by_hand(here, f"UPDATE executions SET {column} = {value}")
        other = here.open()
        assert await lease(other, "me") == []
        shown = await other.get(bad)
        assert f"row 1 of executions, {column}: " in (
            shown.problem.message if shown.problem else ""
        )
        assert shown.wake_ms == await other.next_due(["greet"]) == here.clock.ms + PUT_OFF_MS
        here.clock.advance(PUT_OFF_MS)
        assert [holder.id for holder in await lease(other, "me")] == [bad]

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("deadline", ["-1", LARGEST, "'soon'"])
def test_a_timeout_that_is_none_ends_nothing_and_wakes_nobody(
    tmp_path: Path, deadline: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1", timeout_seconds=60)
        by_hand(here, f"UPDATE executions SET deadline_ms = {deadline}")
        for _ in range(3):
            assert await lease(service, "me") == []
            assert await service.next_due(["greet"]) == here.clock.ms + PUT_OFF_MS
            (shown,) = await service.list()
            assert shown.status is ExecutionStatus.RUNNING
            here.clock.advance(PUT_OFF_MS)

    play(tmp_path / "x.db", scene)


NUMBERS = [
    "start_ms",
    "end_ms",
    "sequence",
    "ended_attempts",
    "next_attempt_ms",
    "scheduled_end_ms",
]


@pytest.mark.parametrize("number", [-1, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_in_a_record_is_told_and_stays_alone(
    tmp_path: Path, field: str, number: int
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        for holder in (bad, good):
            await holder.commit(step("a"))
            await holder.release(is_unfinished=True)
        (_, operation) = await service.operations(bad.id)
        damaged = encode(replace(operation, **{field: number})).hex()
        edit(here, "operations", "record", f"x'{damaged}'")
        assert [holder.id for holder in await lease(service, "me")] == [good.id]
        shown = await service.get(bad.id)
        assert f"row {(1 << 32) + 1} of operations, record: " in (
            shown.problem.message if shown.problem else ""
        )
        assert len(await service.list()) == 2

    play(tmp_path / "x.db", scene)


def test_a_line_with_a_time_that_is_none_is_told(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad = await begin(service)
        lines = encode([_encoding.Line(0, 1 << 60, Status.STARTED)]).hex()
        by_hand(here, f"UPDATE history SET lines = x'{lines}'")
        with pytest.raises(DamagedExecutionError, match=rf"row {1 << 32} of history, lines"):
            await service.history(bad.id)

    play(tmp_path / "x.db", scene)


def test_a_line_number_that_is_taken_ends_no_claim(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        bad, good = await begin(service), await begin(service)
        for holder in (bad, good):
            await holder.commit(wait("w", wait_seconds=5))
            await holder.release()
        edit(here, "executions", "lines", "0")
        here.clock.advance(10_000)
        assert [holder.id for holder in await lease(service, "me")] == [good.id]
        shown = await service.get(bad.id)
        assert "row 1 of executions, lines: " in (shown.problem.message if shown.problem else "")

    play(tmp_path / "x.db", scene)


# -- pages -----------------------------------------------------------------------------------------


LEAST = str(-(1 << 63))
PAGED: list[dict[str, Any]] = [
    {},
    {"workflow_name": "greet"},
    {"status": ExecutionStatus.RUNNING},
    {"name_prefix": "n-"},
    {"id_prefix": "0"},
    {"started_from_ms": 0},
]


@pytest.mark.parametrize("filters", PAGED, ids=str)
@pytest.mark.parametrize("number", [LARGEST, LEAST, "-7", "0", str((1 << 31) - 1)])
def test_pages_go_on_past_any_number(tmp_path: Path, number: str, filters: Any) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for each in range(6):
            await service.start("greet", "1", execution_name=f"n-{each}")
        by_hand(
            here,
            f"UPDATE executions SET number = {number} WHERE number = 3",
            "UPDATE executions SET number = -9 WHERE number = 5",
        )
        whole = [each.name for each in await service.list(**filters)]
        assert sorted(whole) == [f"n-{each}" for each in range(6)]
        for limit in (1, 2, 5):
            found: list[str] = []
            after = None
            for _ in whole:
                page = await service.list(limit=limit, after=after, **filters)
                found += [each.name for each in page]
                after = page.marker
                if after is None:
                    break
            assert (found, after) == (whole, None)
        page = await service.list(has_problem=False, limit=5)  # it reads on past the damaged ones
        assert (len(page), page.marker) == (4, None)

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("limit", [2, 50])
def test_rows_that_are_out_of_order_are_told(tmp_path: Path, limit: int) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        for each in range(4):
            await service.start("greet", "1", execution_name=f"row-{each}")
        await service.close()
        give_number_in_place(here, "row-1", 9)
        with pytest.raises(StorageError, match="out of order"):
            await here.open().list(limit=limit)

    play(tmp_path / "x.db", scene)


def give_number_in_place(here: Place, name: str, number: int) -> None:
    """Change the key of a row where it lies, which leaves the rows of its page out of order."""
    # A leaf of a table: https://www.sqlite.org/fileformat.html#b_tree_pages
    by_hand(here, "PRAGMA wal_checkpoint(TRUNCATE)")
    file = Path(here.path)
    content = bytearray(file.read_bytes())
    size = int.from_bytes(content[16:18])
    for page in range(size, len(content), size):
        if content[page] != 0x0D:
            continue
        for cell in range(int.from_bytes(content[page + 3 : page + 5])):
            pointer = page + 8 + 2 * cell
            start = page + int.from_bytes(content[pointer : pointer + 2])
            if name.encode() in content[start : start + 100] and content[start + 1] == 2:
                content[start + 1] = number
    file.write_bytes(content)


@pytest.mark.parametrize("column", ["workflow", "status"])
def test_a_list_goes_on_past_a_text_that_can_not_be_decoded(
    tmp_path: Path, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the newest executions were others.
    monkeypatch.setattr("pyworkflow.services.sqlite._sql._PROBE", 0)

    async def scene(here: Place) -> None:
        service = here.open()
        for name in ("a", "b", "c"):
            await service.start(name, "1", execution_name=name)
        by_hand(
            here,
            f"UPDATE executions SET {column} = cast(x'41ff' AS TEXT), version = 99"
            " WHERE name = 'b'",
        )
        if column == "workflow":
            listed = await service.list(status=ExecutionStatus.RUNNING)
            assert [each.name for each in listed] == ["c", "b", "a"]
        if column == "status":
            assert [each.name for each in await service.list(workflow_name="c")] == ["c"]
            assert [each.name for each in await service.list(workflow_name="b")] == ["b"]

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("marker", [str(1 << 32), str(1 << 63)])
def test_a_marker_beyond_the_last_place_is_refused(tmp_path: Path, marker: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        for read in (service.operations, service.history):
            with pytest.raises(ServiceError, match="marker"):
                await read(holder.id, after=marker)

    play(tmp_path / "x.db", scene)
