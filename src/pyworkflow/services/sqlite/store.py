"""Every SQL statement of the service, as methods of a connection. Nothing here decides anything."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from pyworkflow.services.sqlite.rows import PLACES, ExecutionRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LAST_PLACE = (1 << PLACES) - 1
_WITH_ROOT = (
    "SELECT e.*, o.record FROM executions e JOIN operations o ON o.key = e.number << 32 WHERE "
)


def json_list(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


class Store:
    """One connection to the file, in words of the service."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the write lock; others are waited for."""
        self._execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """See one state of the file until the next `commit`."""
        self._execute("BEGIN")

    def commit(self) -> None:
        self._execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was not committed; SQLite may have done so by itself."""
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        (version,) = self._execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Move what the WAL holds into the file, as far as nobody else reads it, and let go."""
        try:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # it stays in the WAL, as durable as it was
        finally:
            self._connection.close()

    # -- reading ---------------------------------------------------------------------------------

    def find(self, execution_id: str) -> ExecutionRow | None:
        row = self._execute("SELECT * FROM executions WHERE id = ?", (execution_id,)).fetchone()
        return None if row is None else ExecutionRow._make(row)

    def version(self, number: int) -> int | None:
        row = self._execute("SELECT version FROM executions WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def named(self, workflow: str, name: str) -> tuple[str, bytes] | None:
        """Return the id and the EXECUTION operation of the execution with that name."""
        row: tuple[str, bytes] | None = self._execute(
            "SELECT e.id, o.record FROM executions e JOIN operations o ON o.key = e.number << 32"
            " WHERE e.name = ? AND e.workflow = ?",
            (name, workflow),
        ).fetchone()
        return row

    def operations(self, number: int) -> list[tuple[bytes, bytes | None]]:
        """Return the records and deadlines of an execution's operations, in order of start."""
        first = number << PLACES
        return self._execute(
            "SELECT record, deadlines FROM operations WHERE key BETWEEN ? AND ? ORDER BY key",
            (first, first | _LAST_PLACE),
        ).fetchall()

    def history(self, number: int) -> list[tuple[bytes]]:
        first = number << PLACES
        return self._execute(
            "SELECT lines FROM history WHERE key BETWEEN ? AND ? ORDER BY key",
            (first, first | _LAST_PLACE),
        ).fetchall()

    def executions(
        self, workflow: str | None, status: str | None, name: str | None, limit: int | None
    ) -> list[tuple[ExecutionRow, bytes]]:
        """Return executions with their EXECUTION operations, the newest first."""
        wanted = {"e.workflow = ?": workflow, "e.status = ?": status, "e.name = ?": name}
        given = {clause: value for clause, value in wanted.items() if value is not None}
        sql = _WITH_ROOT + " AND ".join(given or ["true"]) + " ORDER BY e.number DESC LIMIT ?"
        rows = self._execute(sql, (*given.values(), -1 if limit is None else limit))
        return [(ExecutionRow._make(row[:-1]), row[-1]) for row in rows]

    def execution(self, execution_id: str) -> tuple[ExecutionRow, bytes] | None:
        """Return one execution with its EXECUTION operation."""
        row = self._execute(_WITH_ROOT + "e.id = ?", (execution_id,)).fetchone()
        return None if row is None else (ExecutionRow._make(row[:-1]), row[-1])

    # -- what is due -----------------------------------------------------------------------------

    def due(self, workflow: str, now_ms: int, limit: int) -> list[tuple[int, int, str]]:
        """Return (time, number, id) of executions that are due, the longest due first."""
        return self._execute(
            "SELECT wake_ms, number, id FROM executions"
            " WHERE workflow = ? AND wake_ms <= ? ORDER BY wake_ms, number LIMIT ?",
            (workflow, now_ms, limit),
        ).fetchall()

    def next_wake(self, workflow: str | None) -> int | None:
        if workflow is None:
            sql, values = "SELECT min(wake_ms) FROM executions WHERE wake_ms IS NOT NULL", ()
        else:
            sql = "SELECT min(wake_ms) FROM executions WHERE workflow = ? AND wake_ms IS NOT NULL"
            values = (workflow,)  # type: ignore[assignment]
        (wake_ms,) = self._execute(sql, values).fetchone()
        return wake_ms  # type: ignore[no-any-return]

    def overdue(self, now_ms: int, limit: int) -> list[tuple[str]]:
        """Return the ids of executions whose timeout is over."""
        return self._execute(
            "SELECT id FROM executions WHERE deadline_ms <= ? ORDER BY deadline_ms LIMIT ?",
            (now_ms, limit),
        ).fetchall()

    def next_deadline(self) -> int | None:
        (deadline_ms,) = self._execute(
            "SELECT min(deadline_ms) FROM executions WHERE deadline_ms IS NOT NULL"
        ).fetchone()
        return deadline_ms  # type: ignore[no-any-return]

    def to_look_at(self, owner: str, execution_ids: Sequence[str]) -> list[tuple[str]]:
        """Return those that changed from outside, are over, or are no longer this owner's."""
        return self._execute(
            "SELECT id FROM executions WHERE id IN (SELECT value FROM json_each(?))"
            " AND (owner IS NOT ? OR unread IS NOT NULL)",
            (json_list(execution_ids), owner),
        ).fetchall()

    # -- leases ----------------------------------------------------------------------------------

    def ran_out(self, now_ms: int, limit: int) -> list[tuple[str, str]]:
        """Return (id, owner) of executions whose lease is over."""
        return self._execute(
            "SELECT id, owner FROM executions WHERE lease_ms <= ? ORDER BY lease_ms LIMIT ?",
            (now_ms, limit),
        ).fetchall()

    def leased(self, owner: str, limit: int) -> list[tuple[str, str]]:
        """Return (id, owner) of executions that ``owner`` holds."""
        return self._execute(
            "SELECT id, owner FROM executions WHERE lease_ms IS NOT NULL AND owner = ? LIMIT ?",
            (owner, limit),
        ).fetchall()

    def owners(self) -> list[tuple[str, str, int]]:
        """Return (owner, host, process id) of all who have leased."""
        return self._execute("SELECT owner, host, pid FROM owners").fetchall()

    def add_owner(self, owner: str, host: str, pid: int) -> None:
        self._execute("INSERT OR IGNORE INTO owners VALUES (?, ?, ?)", (owner, host, pid))

    def drop_owner(self, owner: str) -> None:
        self._execute("DELETE FROM owners WHERE owner = ?", (owner,))

    def lease(self, number: int, lease_ms: int) -> None:
        self._execute("UPDATE executions SET lease_ms = ? WHERE number = ?", (lease_ms, number))

    def renew(self, owner: str, execution_ids: Iterable[str], lease_ms: int) -> None:
        self._execute(
            "UPDATE executions SET lease_ms = ?"
            " WHERE owner = ? AND id IN (SELECT value FROM json_each(?))",
            (lease_ms, owner, json_list(execution_ids)),
        )

    # -- writing ---------------------------------------------------------------------------------

    def add(self, values: Sequence[object]) -> int:
        """Insert an execution; ``values`` are its columns but for the number, which is returned."""
        cursor = self._execute(
            "INSERT INTO executions VALUES"
            " (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def put_operations(self, rows: Iterable[tuple[int, bytes, bytes | None]]) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO operations VALUES (?, ?, ?)", rows)

    def put_lines(self, rows: Iterable[tuple[int, bytes]]) -> None:
        self._connection.executemany("INSERT INTO history VALUES (?, ?)", rows)

    def put_progress(self, rows: Iterable[Sequence[object]]) -> None:
        """Write what each checkpoint changes, and no indexed column."""
        self._connection.executemany(
            "UPDATE executions SET version = ?, tokens = ?, lines = ?, unread = ? WHERE number = ?",
            rows,
        )

    def put_standing(self, rows: Iterable[Sequence[object]]) -> None:
        """Write how executions stand: who has them, and when they are due."""
        self._connection.executemany(
            "UPDATE executions SET status = ?, owner = ?, lease_ms = CASE WHEN ? THEN lease_ms END,"
            " wake_ms = ?, not_before_ms = ?, deadline_ms = ?, troubles = ?, problem = ?,"
            " result = ? WHERE number = ?",
            rows,
        )
