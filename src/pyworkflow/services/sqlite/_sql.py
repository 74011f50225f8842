"""Every SQL statement of the service, as methods of a connection. No decisions are made here.

Values that are written are only int, exact str and bytearray, with `NULL` for an absent value: for
all other types, including None and bytes, sqlite3 looks for an adapter each time, which takes
longer than writing the row.
"""

from __future__ import annotations

import os
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import LAST_COUNT, LAST_MS
from pyworkflow.services._listing import end_of_prefix
from pyworkflow.services.sqlite._encoding import LAST_NUMBER, PLACES, ExecutionRow
from pyworkflow.services.sqlite._schema import check_form, form_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    from pyworkflow.services._listing import Wanted

    Blob: TypeAlias = bytearray | str
    """The result of `_encoding.encode`, or `NULL`."""
    Values: TypeAlias = tuple[Any, ...]
    """The values of the question marks in a condition."""
    RawRow: TypeAlias = tuple[Any, ...]
    """A row of ``executions`` before validation."""

NULL = ""
"""An absent time, owner, parent or blob: none of these is ever an empty text."""

_TOGETHER = 8
"""Number of rows per INSERT, if there are as many: that halves the work per row."""

_LAST_PLACE = (1 << PLACES) - 1
_FILES = {"the file": "", "the -wal file beside it": "-wal"}
# By name: a user or a later version may have added columns anywhere.
_COLUMNS = ", ".join(f"e.{column}" for column in ExecutionRow._fields)
_WITH_ROOT = (
    f"SELECT {_COLUMNS}, o.record FROM executions e"
    " LEFT JOIN operations o ON o.key = e.number << 32 WHERE "
)
_WITHOUT_RESULT = _WITH_ROOT.replace("e.result", "NULL")
_PROBE = 500
"""Number of the newest executions that are checked before an index is used."""
_DEEP_PROBE, _MANY_NAMES = 4_000, 16_000
"""That number if very many names, at least the second one, begin with the prefix."""
_BY_ID = "sqlite_autoindex_executions_1"
_PROBLEMS = {"troubled": "problem IS NOT NULL", "leased": "lease_ms IS NOT NULL"}
"""Conditions of a problem, by index; a lease that outlasts its time is also a problem."""
_WHOLE_TIME = 12
"""Length of the prefix of an id that encodes the start, to the millisecond."""
ANY, UNSUSPECTED, SUSPECTED = "", " AND losses IS NULL", " AND losses IS NOT NULL"
"""Conditions that select executions; suspected are those that lost their process."""
_LAST_NUMBER = f"""
    SELECT max(
        coalesce((SELECT max(number) FROM executions WHERE number BETWEEN 0 AND {LAST_NUMBER}), 0),
        coalesce((SELECT max(key) FROM operations WHERE key >= 0), 0) >> {PLACES},
        coalesce((SELECT max(key) FROM history WHERE key >= 0), 0) >> {PLACES}
    )
"""
_PUT_PROGRESS = "UPDATE executions SET version = ?, tokens = ?, lines = ?, unread = nullif(?, '')"


_IS_EITHER = (
    "id IN (WITH given(id) AS (SELECT ?)"
    " SELECT id FROM given UNION ALL SELECT CAST(id AS TEXT) FROM given)"
)


def _is(execution_id: object) -> str:
    """Return the condition for an id; bytes are a stored text that can't be decoded."""
    # Some releases of Python 3.12 take a numbered placeholder for a named one.
    return _IS_EITHER if isinstance(execution_id, bytes) else "id = ?"


def json_list(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _identity(place: str, known: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return device and number of the file at ``place``, `None` if there is no file."""
    try:
        found = os.stat(place)
    except FileNotFoundError:
        return None
    except OSError:  # it may exist, but we lack the permission
        return known
    return found.st_dev, found.st_ino


def _stored(status: ExecutionStatus) -> str:
    return "STARTED" if status is ExecutionStatus.RUNNING else str(status)


def _filters(wanted: Wanted) -> dict[str, Values]:
    """Return conditions on rows of ``executions``, each with its values."""
    filters: dict[str, Values] = {}
    for column, value in (
        ("workflow", wanted.workflow_name),
        ("status", wanted.status and _stored(wanted.status)),
        ("name", wanted.execution_name),
    ):
        if value is not None:
            filters[f"{column} = ?"] = (value,)
    for column, prefix in (("name", wanted.name_prefix), ("id", wanted.id_prefix)):
        if prefix:
            filters[f"{column} >= ?"] = (prefix,)
            end = end_of_prefix(prefix)
            if end is not None:
                filters[f"{column} < ?"] = (end,)
    # An id begins with the time of the start. In brackets, so the keys differ from a prefix's.
    if wanted.started_from_ms is not None:
        filters["(id >= ?)"] = (_time_of_id(wanted.started_from_ms),)
    if wanted.started_before_ms is not None:
        filters["(id < ?)"] = (_time_of_id(wanted.started_before_ms),)
    if wanted.has_problem is not None:
        has_problem = f"({' OR '.join(_PROBLEMS.values())})"
        filters[has_problem if wanted.has_problem else "problem IS NULL"] = ()
    return filters


def _time_of_id(time_ms: int) -> str:
    return f"{min(max(time_ms, 0), LAST_MS):012x}"


def _all_of(filters: Iterable[str]) -> str:
    return " AND ".join(filters) or "true"


class SqlConnection:
    """A connection to the file, with the service's statements as methods."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = self._connection = connection
        self._execute = connection.execute
        (_, _, file) = self._execute("PRAGMA database_list").fetchone()
        # An absolute path; empty for a database in memory.
        self._files = {name: file + end for name, end in _FILES.items()} if file else {}
        self._identities = {name: _identity(place, None) for name, place in self._files.items()}
        self._path = file or ":memory:"
        self._form: tuple[int, int] | None = None

    # -- the file itself -------------------------------------------------------------------------

    def _check_place(self) -> None:
        """Raise SQLite's own error if the file is no longer where it was opened.

        In WAL mode SQLite checks neither the file nor the WAL, and would write to a file that
        nobody can open.
        """
        for name, place in self._files.items():
            known = self._identities[name]
            if _identity(place, known) != known:
                error = sqlite3.OperationalError(f"{name} was moved, removed or replaced")
                error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
                error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
                raise error

    def check_form(self) -> None:
        """Raise `StorageError` if another process has changed the version or the tables."""
        form = form_of(self._connection)
        if form != self._form:
            check_form(self._connection, self._path)
            self._form = form

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction with the write lock, waiting for other processes."""
        self._check_place()
        self._execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """See one state of the file until `end_reading`."""
        self._check_place()
        self._execute("BEGIN")
        self.check_form()

    def end_reading(self) -> None:
        """End the transaction of `begin_reading`, unless SQLite did after a failed read."""
        if self._connection.in_transaction:
            self.commit()

    def commit(self) -> None:
        self._execute("COMMIT")

    def rollback(self) -> None:
        """Roll back the transaction, unless SQLite already did."""
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def data_version(self) -> int:
        """Return a number that changes when another connection has changed the file."""
        (version,) = self._execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Move the WAL's contents into the file, unless others still read it, and close."""
        try:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # it stays in the WAL, as durable as it was
        finally:
            self._connection.close()

    # -- reading ---------------------------------------------------------------------------------

    def find(self, execution_id: str) -> RawRow | None:
        row: RawRow | None = self._execute(
            f"SELECT {_COLUMNS} FROM executions e WHERE {_is(execution_id)}", (execution_id,)
        ).fetchone()
        return row

    def has_lines_from(self, number: int, line: int) -> bool:
        """Return whether an execution's history has a row at that line or beyond."""
        first = number << PLACES
        return bool(
            self._execute(
                "SELECT 1 FROM history WHERE key BETWEEN ? AND ?",
                (first | line, first | _LAST_PLACE),
            ).fetchone()
        )

    def version(self, number: int) -> int | None:
        row = self._execute("SELECT version FROM executions WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def named(self, workflow: str, name: str) -> tuple[RawRow, object] | None:
        """Return the execution with that name, with its EXECUTION operation."""
        return self._one("e.name = ? AND e.workflow = ?", (name, workflow))

    def operations(
        self, number: int, first: int = 0, limit: int = -1
    ) -> list[tuple[int, object, object]]:
        """Return (key, record, deadlines) of an execution's operations, in order of start."""
        base = number << PLACES
        return self._execute(
            "SELECT key, record, deadlines FROM operations WHERE key BETWEEN ? AND ? ORDER BY key"
            " LIMIT ?",
            (base | first, base | _LAST_PLACE, limit),
        ).fetchall()

    def operations_at(self, keys: Iterable[int]) -> list[tuple[int, object]]:
        """Return (key, record) of single operations."""
        return self._execute(
            "SELECT key, record FROM operations WHERE key IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(keys)).decode(),),
        ).fetchall()

    def history(self, number: int, line: int, limit: int) -> list[tuple[int, object]]:
        """Return (key, lines) of an execution's history, from the row that has the line on."""
        base = number << PLACES
        return self._execute(
            "SELECT key, lines FROM history WHERE key BETWEEN ifnull("
            " (SELECT max(key) FROM history WHERE key BETWEEN ? AND ?), ?) AND ?"
            " ORDER BY key LIMIT ?",
            (base, base | line, base, base | _LAST_PLACE, limit),
        ).fetchall()

    # -- lists -----------------------------------------------------------------------------------

    def listed(self, wanted: Wanted, last: int, limit: int) -> list[int]:
        """Return the numbers of the newest executions that match, up to number ``last``.

        With a filter for problems too many may be found: the caller checks each lease.
        """
        filters = _filters(wanted)
        if len(wanted.id_prefix or "") < _WHOLE_TIME and wanted.execution_name is None:
            # The newest executions usually suffice, and need no index.
            found = self._newest(filters, last, limit)
            if not filters or len(found) == limit:
                return found
        up_to_it: dict[str, Values] = {"+number <= ?": (last,)}
        if wanted.execution_name is not None:
            return self._numbers("executions INDEXED BY named", filters | up_to_it, limit)
        if wanted.name_prefix:
            return self._by_prefix(filters, last, limit)
        if wanted.has_problem:
            numbers: set[int] = set()
            for index, clause in _PROBLEMS.items():
                where = {**filters, clause: (), **up_to_it}
                numbers.update(self._numbers(f"executions INDEXED BY {index}", where, limit))
            return sorted(numbers, reverse=True)[:limit]
        if wanted.workflow_name is not None or wanted.status is not None:
            return self._in_groups(wanted, filters, last, limit)
        if any("id" in clause for clause in filters):
            return self._numbers(f"executions INDEXED BY {_BY_ID}", filters | up_to_it, limit)
        return self._numbers("executions NOT INDEXED", {**filters, "number <= ?": (last,)}, limit)

    def _newest(
        self, filters: dict[str, Values], last: int, limit: int, probe: int = _PROBE
    ) -> list[int]:
        """Return the matches among the newest executions."""
        source = (
            "(SELECT number, id, workflow, name, status, problem, lease_ms FROM executions"
            " NOT INDEXED WHERE number <= ? ORDER BY number DESC LIMIT ?)"
        )
        return self._numbers(source, filters, limit, last, probe if filters else limit)

    def _by_prefix(self, filters: dict[str, Values], last: int, limit: int) -> list[int]:
        """Search the names with the prefix, whose order is not that of the numbers."""
        names = {clause: filters[clause] for clause in filters if clause.startswith("name ")}
        values = [*chain.from_iterable(names.values())]
        count = (
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY named"
            f" WHERE {_all_of(names)} LIMIT ?)"
        )
        # Sorting many names takes longer than checking more of the newest, which may suffice.
        if self._execute(count, (*values, _MANY_NAMES)).fetchone()[0] == _MANY_NAMES:
            found = self._newest(filters, last, limit, _DEEP_PROBE)
            if len(found) == limit:
                return found
        return self._numbers(
            "executions INDEXED BY named", {**filters, "+number <= ?": (last,)}, limit
        )

    def _in_groups(
        self, wanted: Wanted, filters: dict[str, Values], last: int, limit: int
    ) -> list[int]:
        """Search each pair of status and workflow: an index has each pair, newest first."""
        found: list[int] = []
        statuses = [("?", _stored(wanted.status))] if wanted.status else self._values("status", {})
        for in_place, status in statuses:
            in_status: dict[str, Values] = {f"status = {in_place}": (status,)}
            names: list[tuple[str, Any]] = [("?", wanted.workflow_name)]
            if wanted.workflow_name is None:
                names = self._values("workflow", in_status)
            for place, name in names:
                of_workflow = {f"workflow = {place}": (name,), "number <= ?": (last,)}
                group = {**filters, **in_status, **of_workflow}
                found += self._numbers("executions INDEXED BY listed", group, limit)
        return sorted(found, reverse=True)[:limit]

    def _values(self, column: str, where: dict[str, Values]) -> list[tuple[str, Any]]:
        """Return the distinct values of an indexed column, with one index lookup each.

        Each comes with its placeholder: a text that can't be decoded is returned as bytes.
        """
        values: list[tuple[str, Any]] = []
        clauses = {**where, f"{column} >= ''": ()}
        while True:
            sql = (
                f"SELECT {column}, typeof({column}) FROM executions WHERE {_all_of(clauses)}"
                f" ORDER BY {column} LIMIT 1"
            )
            found = self._execute(sql, [*chain.from_iterable(clauses.values())]).fetchone()
            if found is None:
                return values
            value, kind = found
            is_broken = kind == "text" and isinstance(value, bytes)
            place = "CAST(? AS TEXT)" if is_broken else "?"
            values.append((place, value))
            clauses = {**where, f"{column} > {place}": (value,)}

    def _numbers(
        self, source: str, filters: dict[str, Values], limit: int, *values: int
    ) -> list[int]:
        # The plus keeps SQLite from choosing an index by the order of the numbers.
        by = "+number" if "+number <= ?" in filters else "number"
        sql = f"SELECT number FROM {source} WHERE {_all_of(filters)} ORDER BY {by} DESC LIMIT ?"
        found = self._execute(sql, (*values, *chain.from_iterable(filters.values()), limit))
        return [number for (number,) in found]

    def executions(
        self, numbers: Iterable[int], *, payloads: bool = True
    ) -> list[tuple[RawRow, object]]:
        """Return executions with their EXECUTION operations, the newest first."""
        sql = _WITH_ROOT if payloads else _WITHOUT_RESULT
        sql += "e.number IN (SELECT value FROM json_each(?)) ORDER BY e.number DESC"
        rows = self._execute(sql, (msgspec.json.encode(list(numbers)).decode(),))
        return [(row[:-1], row[-1]) for row in rows]

    def execution(self, execution_id: str) -> tuple[RawRow, object] | None:
        """Return one execution with its EXECUTION operation."""
        return self._one(f"e.{_is(execution_id)}", (execution_id,))

    def _one(self, where: str, values: tuple[str, ...]) -> tuple[RawRow, object] | None:
        row = self._execute(_WITH_ROOT + where, values).fetchone()
        return None if row is None else (row[:-1], row[-1])

    # -- what is due -----------------------------------------------------------------------------

    def due(
        self, workflow: str, now_ms: int, limit: int, which: str = ANY
    ) -> list[tuple[int, int, str]]:
        """Return (time, number, id) of executions that are due, the longest due first."""
        return self._execute(
            "SELECT wake_ms, number, id FROM executions"
            f" WHERE workflow = ? AND wake_ms <= ?{which} ORDER BY wake_ms, number LIMIT ?",
            (workflow, now_ms, limit),
        ).fetchall()

    def next_wake(self, workflow: str | None, which: str = ANY) -> int | None:
        sql = f"SELECT min(wake_ms) FROM executions WHERE wake_ms <= ?{which}"
        values: list[object] = [LAST_MS]
        if workflow is not None:
            sql, values = sql + " AND workflow = ?", [LAST_MS, workflow]
        (wake_ms,) = self._execute(sql, values).fetchone()
        return wake_ms  # type: ignore[no-any-return]

    def sleeping_workflows(self) -> list[str]:
        """Return the workflows with an execution that has a due time and no owner."""
        found = self._values("workflow", {"wake_ms IS NOT NULL": ()})
        return [name for _, name in found]

    def overdue(self, now_ms: int, limit: int) -> list[tuple[str]]:
        """Return the ids of executions whose timeout has passed."""
        return self._execute(
            "SELECT id FROM executions WHERE deadline_ms BETWEEN 0 AND ?"
            " ORDER BY deadline_ms LIMIT ?",
            (now_ms, limit),
        ).fetchall()

    def next_deadline(self) -> int | None:
        (deadline_ms,) = self._execute(
            "SELECT min(deadline_ms) FROM executions WHERE deadline_ms BETWEEN 0 AND ?", (LAST_MS,)
        ).fetchone()
        return deadline_ms  # type: ignore[no-any-return]

    def to_look_at(self, owner: str, execution_ids: Sequence[str]) -> list[tuple[str]]:
        """Return the executions that changed from outside, ended, or have another owner."""
        return self._execute(
            "SELECT id FROM executions WHERE id IN (SELECT value FROM json_each(?))"
            " AND (owner IS NOT ? OR unread IS NOT NULL)",
            (json_list(execution_ids), owner),
        ).fetchall()

    def never_due(self, workflow: str, limit: int) -> list[tuple[str]]:
        """Return the ids of executions whose due time is invalid: too large, or not a number."""
        return self._execute(
            "SELECT id FROM executions WHERE workflow = ? AND wake_ms > ? LIMIT ?",
            (workflow, LAST_MS, limit),
        ).fetchall()

    # -- leases ----------------------------------------------------------------------------------

    def ran_out(self, now_ms: int, limit: int, kept: Iterable[str] = ()) -> list[tuple[str, str]]:
        """Return (id, owner) of executions whose lease has run out, except for owners ``kept``."""
        return self._execute(
            "SELECT id, owner FROM executions WHERE lease_ms <= ?"
            " AND ifnull(owner, '') NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY lease_ms LIMIT ?",
            (now_ms, json_list(kept), limit),
        ).fetchall()

    def never_out(self, limit: int) -> list[tuple[str]]:
        """Return the ids of executions whose lease end is invalid: too large, or not a number."""
        return self._execute(
            "SELECT id FROM executions WHERE lease_ms > ? LIMIT ?", (LAST_MS, limit)
        ).fetchall()

    def leased(self, owner: str, limit: int) -> list[tuple[str, str]]:
        """Return (id, owner) of executions that ``owner`` has leased."""
        return self._execute(
            "SELECT id, owner FROM executions WHERE lease_ms IS NOT NULL AND owner = ? LIMIT ?",
            (owner, limit),
        ).fetchall()

    def leased_by(self, owner: str, until_ms: int) -> list[tuple[str, int]]:
        """Return (id, tokens) of the leases of ``owner`` that end by ``until_ms``."""
        return self._execute(
            "SELECT id, tokens FROM executions WHERE lease_ms <= ? AND owner = ?",
            (until_ms, owner),
        ).fetchall()

    def owners(self) -> list[tuple[str, str, int, object]]:
        """Return (owner, host, process id, start) of all owners."""
        return self._execute(
            "SELECT owner, host, pid, started FROM owners WHERE pid BETWEEN 1 AND 2147483647"
        ).fetchall()

    def owner(self, owner: object) -> tuple[str, int, object, object] | None:
        """Return (host, process id, start, report) of an owner, or `None`."""
        row: tuple[str, int, object, object] | None = self._execute(
            "SELECT host, pid, started, report FROM owners"
            " WHERE owner = ? AND pid BETWEEN 1 AND 2147483647",
            (owner,),
        ).fetchone()
        return row

    def add_owner(self, owner: str, host: str, pid: int, started: int | str) -> None:
        self._execute(
            "INSERT OR IGNORE INTO owners (owner, host, pid, started)"
            " VALUES (?, ?, ?, nullif(?, ''))",
            (owner, host, pid, started),
        )

    def put_report(self, owner: str, report: Blob) -> None:
        """Write an owner's report."""
        self._execute("UPDATE owners SET report = nullif(?, '') WHERE owner = ?", (report, owner))

    def forget_process(self, owner: str) -> None:
        """Allow the leases of ``owner`` to run out, even while its process is alive."""
        self._execute("UPDATE owners SET started = NULL WHERE owner = ?", (owner,))

    def drop_idle_owners(self) -> None:
        """Delete owners without a lease; an owner that claims again is added again."""
        self._execute(
            "DELETE FROM owners WHERE owner NOT IN"
            " (SELECT owner FROM executions WHERE lease_ms IS NOT NULL AND owner IS NOT NULL)"
        )

    def put_off(self, execution_id: str, due_ms: int, problem: Blob) -> None:
        """Take an execution from its owner, to be due at ``due_ms``; its row may be damaged."""
        self._execute(
            "UPDATE executions SET owner = NULL, lease_ms = NULL,"
            " wake_ms = ?, not_before_ms = ?, problem = ?,"
            " version = CASE WHEN version BETWEEN 0 AND ? THEN version + 1 ELSE 1 END,"
            " troubles = CASE WHEN troubles BETWEEN 0 AND ? THEN troubles + 1 ELSE 1 END,"
            " deadline_ms = CASE WHEN deadline_ms BETWEEN 0 AND ? THEN ? ELSE deadline_ms END"
            f" WHERE {_is(execution_id)}",
            (due_ms, due_ms, problem, LAST_COUNT, LAST_COUNT, due_ms, due_ms, execution_id),
        )

    def lease(self, numbers: Iterable[int], lease_ms: int) -> None:
        sql = "UPDATE executions SET lease_ms = ? WHERE number = ?"
        self._execute_all(sql, [(lease_ms, number) for number in numbers])

    def renew(self, owner: str, execution_ids: Iterable[str], lease_ms: int) -> None:
        self._execute(
            "UPDATE executions SET lease_ms = ?"
            " WHERE owner = ? AND id IN (SELECT value FROM json_each(?))",
            (lease_ms, owner, json_list(execution_ids)),
        )

    # -- writing ---------------------------------------------------------------------------------

    def next_number(self) -> int:
        """Return an unused number for an execution; call it under the write lock."""
        # Numbers of orphaned rows stay reserved: their execution may be restored by hand.
        (last,) = self._execute(_LAST_NUMBER).fetchone()
        return last + 1 if last < LAST_NUMBER else self._free_number()

    def _free_number(self) -> int:
        """Return the first unused number in the highest gap between executions."""
        beyond = LAST_NUMBER + 1
        while beyond > 1:
            (last,) = self._execute(
                "SELECT max(number, 0) FROM executions e WHERE number < ? AND NOT EXISTS"
                " (SELECT 1 FROM executions WHERE number = e.number + 1)"
                " ORDER BY number DESC LIMIT 1",
                (beyond,),
            ).fetchone() or (0,)
            for number in range(last + 1, beyond):
                if not self._has_number(number):
                    return number
            beyond = last
        raise sqlite3.DataError("no execution has a number that another one could follow")

    def _has_number(self, number: int) -> bool:
        first = number << PLACES
        keys = (first, first | _LAST_PLACE)
        return bool(
            self._execute("SELECT 1 FROM executions WHERE number = ?", (number,)).fetchone()
            or self._execute("SELECT 1 FROM operations WHERE key BETWEEN ? AND ?", keys).fetchone()
            or self._execute("SELECT 1 FROM history WHERE key BETWEEN ? AND ?", keys).fetchone()
        )

    def put_starts(self, rows: Sequence[Sequence[int | str]]) -> None:
        """Insert new executions, which have no owner."""
        self._execute_all(
            "INSERT INTO executions (number, id, workflow, name, status, version, tokens, lines,"
            " wake_ms, not_before_ms, deadline_ms, troubles, parent_id, parent_operation) VALUES"
            " (?, ?, ?, ?, 'STARTED', 1, 0, ?, ?, ?, nullif(?, ''), 0, nullif(?, ''),"
            " nullif(?, ''))",
            rows,
        )

    def put_operations(self, rows: Sequence[tuple[int, Blob, Blob]]) -> None:
        """Write (key, record, deadlines) of operations."""
        self._insert(
            "INSERT OR REPLACE INTO operations (key, record, deadlines) VALUES ",
            "(?, ?, nullif(?, ''))",
            rows,
        )

    def put_lines(self, rows: Sequence[tuple[int, Blob]]) -> None:
        self._insert("INSERT INTO history (key, lines) VALUES ", "(?, ?)", rows)

    def _insert(self, insert: str, values: str, rows: Sequence[tuple[object, ...]]) -> None:
        whole = len(rows) - len(rows) % _TOGETHER
        starts = range(0, whole, _TOGETHER)
        together = [[*chain.from_iterable(rows[i : i + _TOGETHER])] for i in starts]
        self._execute_all(insert + ", ".join([values] * _TOGETHER), together)
        self._execute_all(insert + values, rows[whole:])

    def _execute_all(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        if rows:
            self._connection.executemany(sql, rows)

    def put_progress(self, rows: Sequence[Sequence[int | Blob]]) -> None:
        """Write the columns that each checkpoint changes; none of them is indexed."""
        self._execute_all(_PUT_PROGRESS + " WHERE number = ?", rows)

    def put_schedules(self, rows: Sequence[Sequence[int | Blob]]) -> None:
        """Write the progress, the owner and the due times of running executions."""
        self._execute_all(
            _PUT_PROGRESS + ", owner = nullif(?, ''), lease_ms = CASE WHEN ? THEN lease_ms END,"
            " wake_ms = nullif(?, ''), not_before_ms = nullif(?, ''), deadline_ms = nullif(?, ''),"
            " troubles = ?, losses = nullif(?, 0), problem = nullif(?, '') WHERE number = ?",
            rows,
        )

    def put_ends(self, rows: Sequence[Sequence[int | Blob | None]]) -> None:
        """Write the progress and the end of executions, and clear owner and due times."""
        self._execute_all(
            _PUT_PROGRESS + ", owner = NULL, lease_ms = NULL, wake_ms = NULL,"
            " not_before_ms = NULL, deadline_ms = NULL, status = ?, troubles = ?,"
            " problem = nullif(?, ''), result = ? WHERE number = ?",
            rows,
        )
