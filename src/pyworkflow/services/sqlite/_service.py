"""The embedded service: all three ports over one SQLite file.

Writes run on the writer's thread and return when they are on the disk. Reads that workers wait for
run on a reader's thread. Lists, operations and histories, which may be long, run on another one, so
they delay neither a claim nor a commit. A database in memory has one connection, and everything
runs on the writer's thread. Nothing touches the disk on the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from pyworkflow._protocol.executions import Committed, ExecutionSummary, Invocation, Page, Paged
from pyworkflow._protocol.limits import PAGE_OPERATIONS, check_size
from pyworkflow._protocol.records import ErrorRecord, Operation, Status, Update
from pyworkflow.errors import UsageError
from pyworkflow.services._listing import Wanted, number_of
from pyworkflow.services.errors import no_backup, not_found
from pyworkflow.services.port import LIST_LIMIT, PAGE_LIMIT, Capability
from pyworkflow.services.sqlite import _encoding, _validation
from pyworkflow.services.sqlite._backup import back_up
from pyworkflow.services.sqlite._commands import Commands
from pyworkflow.services.sqlite._errors import check_path, error_of
from pyworkflow.services.sqlite._forks import Section, check_usable
from pyworkflow.services.sqlite._leases import Leases
from pyworkflow.services.sqlite._reader import Reader, decoded
from pyworkflow.services.sqlite._schema import MEMORY, check_wal, largest_payload, open_file
from pyworkflow.services.sqlite._sql import ANY, UNSUSPECTED, SqlConnection
from pyworkflow.services.sqlite._unit_of_work import UnitOfWork, ids
from pyworkflow.services.sqlite._writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Unpack

    from pyworkflow._protocol.executions import Filters
    from pyworkflow.services.history import HistoryEvent
    from pyworkflow.services.port import Durability
    from pyworkflow.services.sqlite._backup import OnProgress

T = TypeVar("T")

_LEAST_ROW, _LAST_ROW = -(1 << 63), (1 << 63) - 1
_ROW_BITS = (1 << 64) - 1
_LAST_PLACE = (1 << _encoding.PLACES) - 1
_SYNCHRONOUS: dict[str, str] = {"full": "FULL", "normal": "NORMAL"}


class SqliteService:
    """Keep executions in one file. Make it with `open`, end it with `close`."""

    def __init__(
        self,
        path: str,
        connections: Sequence[sqlite3.Connection],
        now_ms: Callable[[], int],
        machine_ms: Callable[[], int],
        page_size: int,
        max_payload_bytes: int | None = None,
    ) -> None:
        writing, *reading = connections
        unit = UnitOfWork(SqlConnection(writing), path, now_ms)
        most = largest_payload(writing)
        if max_payload_bytes is not None:
            most = min(most, max_payload_bytes)
        self._max_payload_bytes = most
        self._path = path
        self._now_ms = now_ms
        self._commands = Commands(unit, now_ms, page_size, self._max_payload_bytes)
        self._leases = Leases(unit, self._commands, now_ms, machine_ms)
        self._unit = unit
        self._readers = [Reader(SqlConnection(connection), path) for connection in reading]
        self._reader: Reader | None = None
        self._long_reader: Reader | None = None
        if self._readers:
            self._reader, self._long_reader = self._readers
        self._writer = Writer(unit, path, machine_ms, is_shared=bool(reading))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        now_ms: Callable[[], int],
        *,
        machine_ms: Callable[[], int] | None = None,
        durability: Durability = "full",
        page_size: int = PAGE_OPERATIONS,
        busy_timeout_ms: int = 30_000,
        max_payload_bytes: int | None = None,
    ) -> SqliteService:
        """Open the file at ``path``, creating it if necessary; ``:memory:`` uses no file.

        ``now_ms`` returns the time of the executions and ``machine_ms`` that of leases (the same by
        default), both in milliseconds since the epoch, on any thread. ``busy_timeout_ms`` limits
        the wait for other processes that use the file. ``max_payload_bytes`` limits inputs, results
        and callback results; the default and maximum is SQLite's limit (1 GB).

        Blocks while it reads the disk. Raises `UsageError` when ``path`` names no file,
        `StorageError` when the file can't be used, `ServiceUnavailableError` when it is locked.
        """
        path = os.fspath(path)
        check_path(path)
        synchronous = _SYNCHRONOUS.get(durability)
        if synchronous is None:
            raise UsageError(f"durability must be 'full' or 'normal', not {durability!r}")
        section = Section(path)
        with section.lock:
            connections = _connect(path, synchronous, busy_timeout_ms)
            try:
                machine_ms = machine_ms or now_ms
                return cls(path, connections, now_ms, machine_ms, page_size, max_payload_bytes)
            except BaseException as error:
                for connection in connections:
                    connection.close()
                if isinstance(error, sqlite3.Error):
                    raise error_of(error, path) from error
                raise

    def __repr__(self) -> str:
        return f"<executions in the file {self._path!r}>"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All capabilities, except for the backup of a database in memory."""
        return frozenset(Capability) - ({Capability.BACKUP} if self._reader is None else set())

    def _read(self, read: Callable[[SqlConnection], T]) -> asyncio.Future[T]:
        """Run a short ``read`` on one state of the file."""
        if self._reader is not None:
            return self._reader.read(read)
        return self._writer.submit(partial(self._read_saved, read))

    def _read_long(self, read: Callable[[SqlConnection], T]) -> asyncio.Future[T]:
        """Run a ``read`` that may be long, where only other long reads wait for it."""
        if self._long_reader is not None:
            return self._long_reader.read(read)
        return self._writer.submit(partial(self._read_saved, read))

    def _read_saved(self, read: Callable[[SqlConnection], T]) -> T:
        self._unit.save()
        return decoded(partial(read, self._unit.sql), self._path)

    # -- History ---------------------------------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names.

        Raises `StaleTokenError`; `ServiceError` for a marker that was not issued with ``token``.
        """
        return await self._writer.submit(partial(self._commands.load, execution_id, token, marker))

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> asyncio.Future[Committed]:
        """Apply ``updates`` atomically and durably; return the next token and what changed.

        Raises `StaleTokenError` and `InvalidUpdateError`; the token stays valid after the latter.
        """
        return self._writer.submit(partial(self._commands.commit, execution_id, token, updates))

    # -- executions ------------------------------------------------------------------------------

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution, or find the one with this name and input, and return its id.

        Names are unique per workflow. The execution ends as TIMED_OUT ``timeout_seconds`` from now.
        Raises `ExecutionAlreadyStartedError` when the name is taken by another input,
        `ExecutionNameError` for a malformed name, `SerializationError` when the input is too large.
        """
        check_size(input_payload, self._max_payload_bytes, f"the input of {workflow_name!r}")
        start = partial(
            self._commands.start, workflow_name, input_payload, execution_name, timeout_seconds
        )
        return await self._writer.submit(start)

    async def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation without a lease, for a caller that keeps other workers away.

        Raises `ExecutionNotFoundError`, `StaleTokenError` when the execution is over.
        """
        return await self._writer.submit(partial(self._commands.claim, execution_id))

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution as STOPPED, unless it is already over, and return it."""
        await self._writer.submit(partial(self._commands.stop, execution_id, error))
        return await self.get(execution_id)

    # -- Queue -----------------------------------------------------------------------------------

    async def claim_due(
        self,
        owner: str,
        workflow_names: Collection[str],
        limit: int,
        *,
        suspects: int | None = None,
        keep: bool = False,
    ) -> Sequence[Invocation]:
        """Lease up to ``limit`` due executions of those workflows and begin their invocations.

        First, lost leases are taken back, and executions whose timeout has passed end. At most
        ``suspects`` executions that lost their process are leased. With ``keep``, leases of
        ``owner`` last until its process ends.
        """

        def look(sql: SqlConnection) -> bool:
            return self._leases.has_work(sql, workflow_names, suspects)

        # A read needs no write lock, and usually there is nothing to claim.
        if not await self._read(look):
            return ()
        claim = partial(self._leases.claim_due, owner, workflow_names, limit, suspects, keep=keep)
        return await self._writer.submit(claim)

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Extend the leases of ``owner`` on these executions."""
        await self._writer.submit(partial(self._leases.renew, owner, execution_ids))

    async def release(
        self,
        execution_id: str,
        token: str,
        *,
        problem: ErrorRecord | None = None,
        is_unfinished: bool = False,
    ) -> None:
        """Give up the lease; a stale ``token`` is ignored."""
        release = partial(
            self._leases.release, execution_id, token, problem, is_unfinished=is_unfinished
        )
        await self._writer.submit(release)

    async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return the executions that ``owner`` has leased: ids with the number of their tokens."""
        return await self._read(lambda sql: self._leases.leased_by(sql, owner, late=late))

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Give up these leases, as `leased_by` returned them, so that others may claim now."""
        await self._writer.submit(partial(self._leases.hand_back, owner, leased))

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Record why ``owner`` makes no progress: the problem of its leased executions."""
        await self._writer.submit(partial(self._leases.report, owner, report))

    async def retire(self, owner: str) -> None:
        """Forget an owner that stops claiming; its remaining leases run out."""
        await self._writer.submit(partial(self._leases.retire, owner))

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, so that others may claim it now, and return it."""
        await self._writer.submit(partial(self._leases.revoke, execution_id))
        return await self.get(execution_id)

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows has to claim next; `None`: after a change.

        Without ``workflow_names`` all workflows count.
        """
        which = ANY if suspects else UNSUSPECTED

        def read(sql: SqlConnection) -> int | None:
            names = (None,) if workflow_names is None else workflow_names
            times = [sql.next_deadline(), *(sql.next_wake(name, which) for name in names)]
            return min((time for time in times if time is not None), default=None)

        return await self._read(read)

    async def next_deadline(self) -> int | None:
        """Return when the first running execution exceeds its timeout."""
        return await self._read(lambda sql: sql.next_deadline())

    async def unserved(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return the execution that has been due the longest, for each workflow except these."""
        now_ms = self._now_ms()

        def read(sql: SqlConnection) -> Sequence[ExecutionSummary]:
            others = [name for name in sql.sleeping_workflows() if name not in workflow_names]
            due = [found for name in others for found in sql.due(name, now_ms, 1)]
            found = [sql.execution(execution_id) for *_, execution_id in due]
            return tuple(_validation.summary_for_list(*one) for one in found if one is not None)

        return await self._read(read)

    async def changed(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return the ids, among those leased by ``owner``, of executions that changed.

        Leases that ran out and that no other owner took are renewed.
        """
        wanted = tuple(execution_ids)
        now_ms = self._now_ms()
        overdue, has_slept, found = await self._read(
            lambda sql: (
                ids(sql.overdue(now_ms, -1)),
                self._leases.have_run_out(sql, owner, wanted),
                ids(sql.to_look_at(owner, wanted)),
            )
        )
        if has_slept:
            await self.renew(owner, wanted)
        if overdue:
            await self._writer.submit(partial(self._commands.expire, overdue))
        if has_slept or overdue:
            found = await self._read(lambda sql: ids(sql.to_look_at(owner, wanted)))
        return found

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, on the writer's thread, when an execution may be due or changed."""
        return self._writer.subscribe(on_change)

    # -- external events -------------------------------------------------------------------------

    async def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Complete a callback with the raw text ``payload`` and return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        check_size(payload, self._max_payload_bytes, "the answer of a callback")
        end = partial(self._commands.end_callback, callback_id, Status.SUCCEEDED, payload, None)
        return await self._writer.submit(end)

    async def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Fail a callback with ``error`` and return the execution's id; raises as above."""
        end = partial(self._commands.end_callback, callback_id, Status.FAILED, None, error)
        return await self._writer.submit(end)

    async def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout and return the execution's id; raises as above."""
        return await self._writer.submit(partial(self._commands.heartbeat_callback, callback_id))

    async def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str:
        """End a chained invoke with ``status``, before the invoked execution ends."""
        end = partial(self._commands.end_invoke, execution_id, operation_id, status, payload, error)
        return await self._writer.submit(end)

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, execution_id: str) -> ExecutionSummary:
        """Return an execution's status, times and payloads. Raises `ExecutionNotFoundError`."""
        finished = self._unit.finished.find(execution_id)
        if finished is not None:
            self._writer.check_open()
            return finished

        def read(sql: SqlConnection) -> ExecutionSummary:
            found = sql.execution(execution_id)
            if found is None:
                raise not_found(execution_id)
            return self._leases.explain(sql, found[0], _validation.summary_of(*found))

        return await self._read(read)

    async def list(
        self,
        *,
        limit: int = LIST_LIMIT,
        after: str | None = None,
        payloads: bool = False,
        **filters: Unpack[Filters],
    ) -> Paged[ExecutionSummary]:
        """Return the executions that match every filter, the newest first."""
        wanted, before = Wanted(**filters), _row_of_marker(after)
        last = _LAST_ROW if before is None else before - 1

        def read(sql: SqlConnection) -> Paged[ExecutionSummary]:
            found: list[tuple[int, ExecutionSummary]] = []
            up_to = last
            while len(found) <= limit and up_to >= _LEAST_ROW:
                most = limit + 1 - len(found)
                numbers = sql.listed(wanted, up_to, most)
                kept = sql.executions(numbers, payloads=payloads)
                _check_rows([row[0] for row, _ in kept], numbers, up_to)
                for cells_found, record in kept:
                    summary = _validation.summary_for_list(cells_found, record)
                    summary = self._leases.explain(sql, cells_found, summary)
                    if wanted.has_problem in {None, summary.problem is not None}:
                        found.append((cells_found[0], summary))
                if len(numbers) < most:
                    break
                up_to = numbers[-1] - 1
            marker = None
            if 0 < limit < len(found):
                marker = str(found[limit - 1][0] & _ROW_BITS)
            shown = [summary for _, summary in found[:limit]]
            if not payloads:
                shown = [replace(summary, input_payload="") for summary in shown]
            return Paged(shown, marker)

        return await self._read_long(read)

    async def operations(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[Operation]:
        """Return operations in the order of their start, the EXECUTION operation first."""
        first = number_of(after, _LAST_PLACE) or 0

        def read(sql: SqlConnection) -> Paged[Operation]:
            row = _row(sql, execution_id)
            found = sql.operations(row.number, first, limit + 1)
            operations = _validation.page_of_operations(row, first, found)
            return _page(operations, first, limit)

        return await self._read_long(read)

    async def history(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[HistoryEvent]:
        """Return what happened, in order of change."""
        first = number_of(after, _LAST_PLACE) or 0

        def read(sql: SqlConnection) -> Paged[HistoryEvent]:
            row = _row(sql, execution_id)
            kept = sql.history(row.number, first, limit + 1)
            lines = _validation.lines_of(row, kept, first, limit + 1)
            keys = {(row.number << _encoding.PLACES) + line.place for _, line in lines}
            events = _validation.events_of(row, first, lines, sql.operations_at(keys))
            return _page(events, first, limit)

        return await self._read_long(read)

    async def backup(self, destination: str, on_progress: OnProgress | None = None) -> None:
        """Copy one state of the file to ``destination``, without stopping any execution.

        ``on_progress`` is called on another thread. Raises `UsageError` if ``destination`` exists,
        and for a database in memory.
        """
        self._writer.check_open()
        if self._reader is None:
            raise no_backup()
        stop = threading.Event()
        copy = asyncio.ensure_future(
            asyncio.to_thread(back_up, self._path, destination, on_progress, stop)
        )
        try:
            await asyncio.shield(copy)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([copy])
            copy.exception()  # that it was stopped
            raise

    async def close(self) -> None:
        """Finish pending writes and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        for reader in self._readers:
            reader.close()


def _row(sql: SqlConnection, execution_id: str) -> _encoding.ExecutionRow:
    found = sql.find(execution_id)
    if found is None:
        raise not_found(execution_id)
    return _validation.row_of(found)


def _row_of_marker(after: str | None) -> int | None:
    """Return the number of an execution from a marker of a list.

    A damaged file may have negative numbers: a marker has their 64 bits as an unsigned number.
    """
    row = number_of(after, _ROW_BITS)
    return row if row is None or row <= _LAST_ROW else row - _ROW_BITS - 1


def _check_rows(found: Sequence[int], numbers: Sequence[int], last: int) -> None:
    """Raise SQLite's error for damage unless the rows are those of ``numbers``, at most ``last``.

    Otherwise a list would omit some rows, or read the same rows again and again.
    """
    if found != numbers or (numbers and numbers[0] > last):
        error = sqlite3.DatabaseError("rows of executions are missing or out of order")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise error


def _page(found: Sequence[T], first: int, limit: int) -> Paged[T]:
    """Return a page that begins at ``first``; ``found`` has one item more if another follows."""
    marker = str(first + limit) if 0 < limit < len(found) else None
    return Paged(found[:limit], marker)


def _connect(path: str, synchronous: str, busy_timeout_ms: int) -> list[sqlite3.Connection]:
    """Return connections for writes, for reads, and for long reads.

    A database in memory has only one.
    """
    check_wal(path)
    if path == MEMORY:
        return [open_file(path, synchronous, busy_timeout_ms)]
    check_usable(path)
    connections: list[sqlite3.Connection] = []
    try:
        for _ in range(3):
            connections.append(open_file(path, synchronous, busy_timeout_ms))
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return connections
