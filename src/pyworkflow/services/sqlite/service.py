"""The embedded service: what the port asks for, over one SQLite file.

Writes go to the writer's thread and return when they are on the disk, reads to the reader's; a
database in memory has one connection, and they go the writer's way. Nothing touches the disk on the
loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from pyworkflow._engine.limits import check_size
from pyworkflow._engine.records import ErrorRecord, Operation, Status, Update
from pyworkflow.errors import UsageError
from pyworkflow.services._refusals import not_found
from pyworkflow.services.base import Committed, ExecutionStatus, ExecutionSummary, Invocation, Page
from pyworkflow.services.sqlite import cells, rows
from pyworkflow.services.sqlite.backup import back_up
from pyworkflow.services.sqlite.book import Book, ids
from pyworkflow.services.sqlite.faults import fault_of
from pyworkflow.services.sqlite.forks import Section, check_usable
from pyworkflow.services.sqlite.leases import Leases
from pyworkflow.services.sqlite.ledger import Ledger
from pyworkflow.services.sqlite.reader import Reader, decoded
from pyworkflow.services.sqlite.schema import MEMORY, check_wal, largest_payload, open_file
from pyworkflow.services.sqlite.store import ANY, UNSUSPECTED, Store
from pyworkflow.services.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pyworkflow.services.events import HistoryEvent
    from pyworkflow.services.sqlite.backup import OnProgress

T = TypeVar("T")

Durability: TypeAlias = Literal["full", "normal"]
"""``full``: on the disk when it returns. ``normal``: a power cut may take the last moments."""

_SYNCHRONOUS: dict[str, str] = {"full": "FULL", "normal": "NORMAL"}


class SqliteService:
    """Keep executions in one file; `open` it, `close` it."""

    def __init__(
        self,
        path: str,
        connections: tuple[sqlite3.Connection, sqlite3.Connection | None],
        now_ms: Callable[[], int],
        machine_ms: Callable[[], int],
        page_size: int,
        max_payload_bytes: int | None = None,
    ) -> None:
        writing, reading = connections
        book = Book(Store(writing), path, now_ms)
        most = largest_payload(writing)
        if max_payload_bytes is not None:
            most = min(most, max_payload_bytes)
        self._max_payload_bytes = most
        self._path = path
        self._now_ms = now_ms
        self._ledger = Ledger(book, now_ms, page_size, self._max_payload_bytes)
        self._leases = Leases(book, self._ledger, now_ms, machine_ms)
        self._book = book
        self._reader = None if reading is None else Reader(Store(reading), path)
        self._writer = Writer(book, path, machine_ms, is_shared=reading is not None)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        now_ms: Callable[[], int],
        *,
        machine_ms: Callable[[], int] | None = None,
        durability: Durability = "full",
        page_size: int = 1000,
        busy_timeout_ms: int = 30_000,
        max_payload_bytes: int | None = None,
    ) -> SqliteService:
        """Open the file at ``path``, which is created if it is not there; ``:memory:`` is none.

        ``now_ms`` returns the time of the executions and ``machine_ms`` that of leases (the same by
        default), both in milliseconds since the epoch, on any thread. ``busy_timeout_ms`` is how
        long other processes on the file are waited for. No input, result or answer may have more
        than ``max_payload_bytes``, at most and by default what SQLite takes (1 GB).

        Blocks while it reads the disk. Raises `StorageError` when the file can't be used,
        `ServiceUnavailableError` when it is locked.
        """
        path = os.fspath(path)
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
                for connection in filter(None, connections):
                    connection.close()
                if isinstance(error, sqlite3.Error):
                    raise fault_of(error, path) from error
                raise

    def _read(self, read: Callable[[Store], T]) -> asyncio.Future[T]:
        """Have ``read`` done on one state of the file."""
        if self._reader is not None:
            return self._reader.read(read)
        return self._writer.do(partial(self._read_saved, read))

    def _read_saved(self, read: Callable[[Store], T]) -> T:
        self._book.save()
        return decoded(partial(read, self._book.store), self._path)

    # -- what a runner needs ---------------------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page that ``marker`` names, of the answer that issued ``token``.

        Raises `StaleTokenError`, `ServiceError` for a marker that this token did not come with.
        """
        return await self._writer.do(partial(self._ledger.load, execution_id, token, marker))

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> asyncio.Future[Committed]:
        """Apply ``updates`` as a whole and return the next token and what changed.

        Raises `StaleTokenError` and `InvalidUpdateError`; the token stays good after the latter.
        """
        return self._writer.do(partial(self._ledger.commit, execution_id, token, updates))

    # -- executions ------------------------------------------------------------------------------

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution and return its id; one that has this name and input is returned.

        Names are per workflow. ``timeout_seconds`` from now it ends as TIMED_OUT. Raises
        `ExecutionAlreadyStartedError` when the name is taken by another input, `ServiceError` when
        it is malformed, `SerializationError` when the input is too large.
        """
        check_size(input_payload, self._max_payload_bytes, f"the input of {workflow_name!r}")
        start = partial(
            self._ledger.start, workflow_name, input_payload, execution_name, timeout_seconds
        )
        return await self._writer.do(start)

    async def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation without a lease, for a caller that sees to it by itself.

        Raises `ExecutionNotFoundError`, `StaleTokenError` when the execution is over.
        """
        return await self._writer.do(partial(self._ledger.claim, execution_id))

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution from outside as STOPPED; one that is over already stays as it is."""
        await self._writer.do(partial(self._ledger.stop, execution_id, error))
        return await self.get(execution_id)

    # -- for workers -----------------------------------------------------------------------------

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

        Leases that are lost are taken back first, and executions whose timeout is over end. Of
        executions that lost their process ``suspects`` are taken at most. With ``keep``, leases of
        ``owner`` end when its process does.
        """

        def look(store: Store) -> bool:
            return self._leases.has_work(store, workflow_names, suspects)

        # Looking costs no write lock, and mostly there is nothing.
        if not await self._read(look):
            return ()
        claim = partial(self._leases.claim_due, owner, workflow_names, limit, suspects, keep=keep)
        return await self._writer.do(claim)

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Prolong the leases of ``owner`` on these executions."""
        await self._writer.do(partial(self._leases.renew, owner, execution_ids))

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
        await self._writer.do(release)

    async def held_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return what ``owner`` has leased: ids, each with the number of tokens issued by now."""
        return await self._read(lambda store: self._leases.held_by(store, owner, late=late))

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Let others go on at once with these of what `held_by` returned."""
        await self._writer.do(partial(self._leases.hand_back, owner, leased))

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Say why ``owner`` does not go on; it is the problem of what it has leased."""
        await self._writer.do(partial(self._leases.report, owner, report))

    async def retire(self, owner: str) -> None:
        """Forget an owner, which claims nothing more; leases that it still has run out by time."""
        await self._writer.do(partial(self._leases.retire, owner))

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, for others to go on with at once, and return it."""
        await self._writer.do(partial(self._leases.revoke, execution_id))
        return await self.get(execution_id)

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows has to look next; `None`: after a change.

        Without ``workflow_names`` every execution that sleeps is looked at.
        """
        which = ANY if suspects else UNSUSPECTED

        def read(store: Store) -> int | None:
            names = (None,) if workflow_names is None else workflow_names
            times = [store.next_deadline(), *(store.next_wake(name, which) for name in names)]
            return min((time for time in times if time is not None), default=None)

        return await self._read(read)

    async def next_deadline(self) -> int | None:
        """Return when the first running execution is over its time."""
        return await self._read(lambda store: store.next_deadline())

    async def left_due(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return, of each workflow but these, the execution that has been due the longest."""
        now_ms = self._now_ms()

        def read(store: Store) -> Sequence[ExecutionSummary]:
            others = [name for name in store.sleeping_workflows() if name not in workflow_names]
            due = [found for name in others for found in store.due(name, now_ms, 1)]
            found = [store.execution(execution_id) for *_, execution_id in due]
            return tuple(cells.summary_for_list(*one) for one in found if one is not None)

        return await self._read(read)

    async def news(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return those of the executions, held by ``owner``, whose holder has to look.

        Whoever asks holds them still: of leases that ran out, those that nobody took go on.
        """
        wanted = tuple(execution_ids)
        now_ms = self._now_ms()
        overdue, has_slept, found = await self._read(
            lambda store: (
                ids(store.overdue(now_ms, -1)),
                self._leases.have_run_out(store, owner, wanted),
                ids(store.to_look_at(owner, wanted)),
            )
        )
        if has_slept:
            await self.renew(owner, wanted)
        if overdue:
            await self._writer.do(partial(self._ledger.expire, overdue))
        if has_slept or overdue:
            found = await self._read(lambda store: ids(store.to_look_at(owner, wanted)))
        return found

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from the writer's thread, when there may be work, news or an end."""
        return self._writer.subscribe(on_change)

    # -- outside events --------------------------------------------------------------------------

    async def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Let a callback succeed with the raw text ``payload`` and return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        check_size(payload, self._max_payload_bytes, "the answer of a callback")
        end = partial(self._ledger.end_callback, callback_id, Status.SUCCEEDED, payload, None)
        return await self._writer.do(end)

    async def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Let a callback fail with ``error`` and return the execution's id; raises as above."""
        end = partial(self._ledger.end_callback, callback_id, Status.FAILED, None, error)
        return await self._writer.do(end)

    async def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout and return the execution's id; raises as above."""
        return await self._writer.do(partial(self._ledger.heartbeat_callback, callback_id))

    async def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str:
        """End a chained invoke as ``status`` says, sooner than the invoked execution does."""
        end = partial(self._ledger.end_invoke, execution_id, operation_id, status, payload, error)
        return await self._writer.do(end)

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, execution_id: str) -> ExecutionSummary:
        """Return how an execution stands. Raises `ExecutionNotFoundError`."""
        finished = self._book.finished.find(execution_id)
        if finished is not None:
            self._writer.check_open()
            return finished

        def read(store: Store) -> ExecutionSummary:
            found = store.execution(execution_id)
            if found is None:
                raise not_found(execution_id)
            return self._leases.explain(store, found[0], cells.summary_of(*found))

        return await self._read(read)

    async def list(
        self,
        *,
        workflow_name: str | None = None,
        status: ExecutionStatus | None = None,
        execution_name: str | None = None,
        limit: int | None = None,
    ) -> Sequence[ExecutionSummary]:
        """Return the executions, the newest first."""

        def read(store: Store) -> Sequence[ExecutionSummary]:
            stored_status = Status.STARTED if status is ExecutionStatus.RUNNING else status
            found = store.executions(workflow_name, stored_status, execution_name, limit)
            return tuple(
                self._leases.explain(store, one[0], cells.summary_for_list(*one)) for one in found
            )

        return await self._read(read)

    async def operations(self, execution_id: str) -> Sequence[Operation]:
        """Return every operation in the order of its start, the EXECUTION operation first."""
        return await self._read(lambda store: _operations(store, _row(store, execution_id)))

    async def history(self, execution_id: str) -> Sequence[HistoryEvent]:
        """Return what happened, in order of change."""

        def read(store: Store) -> Sequence[HistoryEvent]:
            row = _row(store, execution_id)
            return cells.events_of(row, store.history(row.number), _operations(store, row))

        return await self._read(read)

    async def backup(self, destination: str, on_progress: OnProgress | None = None) -> None:
        """Copy the file, of one state, while everything goes on; ``destination`` must be free.

        ``on_progress`` is called on another thread. Raises `UsageError` if something is there,
        and for a database in memory.
        """
        self._writer.check_open()
        if self._reader is None:
            raise UsageError(
                "executions in memory have no backup: keep them in a file, with Client.local"
            )
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
        """Finish what is being written, and let go of the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        if self._reader is not None:
            self._reader.close()


def _row(store: Store, execution_id: str) -> rows.ExecutionRow:
    found = store.find(execution_id)
    if found is None:
        raise not_found(execution_id)
    return cells.row_of(found)


def _operations(store: Store, row: rows.ExecutionRow) -> tuple[Operation, ...]:
    operations, _ = cells.operations_of(row, store.operations(row.number))
    return tuple(operations)


def _connect(
    path: str, synchronous: str, busy_timeout_ms: int
) -> tuple[sqlite3.Connection, sqlite3.Connection | None]:
    """Return a connection to write by, and another to read by: memory has one alone."""
    check_wal(path)
    if path == MEMORY:
        return open_file(path, synchronous, busy_timeout_ms), None
    check_usable(path)
    writing = open_file(path, synchronous, busy_timeout_ms)
    try:
        return writing, open_file(path, synchronous, busy_timeout_ms)
    except BaseException:
        writing.close()
        raise
