"""Commands that look at executions, or reach them from outside; other processes run them."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.text import Text

from pyworkflow._cli import documents, views, wording
from pyworkflow._cli.console import (
    end_when_nobody_reads,
    plain,
    print_document,
    print_lines,
    stderr,
    stdout,
)
from pyworkflow._cli.times import moment
from pyworkflow._local.client import Client
from pyworkflow._local.completion import is_over
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary, InvokedNames, Paged
from pyworkflow._protocol.records import OperationType
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.errors import (
    DamagedExecutionError,
    ExecutionEndedError,
    ExecutionNotFoundError,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from pyworkflow._local.handle import Handle
    from pyworkflow._protocol.records import Operation

_INVOKE = OperationType.CHAINED_INVOKE

PREFIX_LENGTH = 4
"""How much of an id must be given, at least."""
SHOWN_IDS = 10


@contextmanager
def existing(db: Path) -> Iterator[Client]:
    """Open a database for talking. It is not made: an empty one is seldom what was meant."""
    end_when_nobody_reads()
    if not db.is_file():
        raise StorageError(
            f"there is no database at {db.absolute()}: go to its folder or name it with --db; "
            "pyworkflow run and pyworkflow worker make one"
        )
    with Client.local(db, worker=False) as client:
        yield client


def _find(client: Client, wanted: str) -> Handle[Any]:
    """Return the only execution that has this name or id, or whose id begins so."""
    named = client.list(execution_name=wanted)
    if len(named) > 1:
        raise UsageError(
            f"{len(named)} executions have the name {wanted!r}: give an id\n{_ids(named)}"
        )
    try:
        return client.get(wanted)
    except ExecutionNotFoundError:
        begun = Paged[ExecutionSummary]()
        if len(wanted) >= PREFIX_LENGTH:
            begun = client.list(id_prefix=wanted, limit=SHOWN_IDS + 1)
    if len(begun) > 1:
        count = f"more than {SHOWN_IDS}" if len(begun) > SHOWN_IDS else len(begun)
        raise UsageError(f"{count} ids begin with {wanted!r}: give more\n{_ids(begun)}")
    if not begun:
        raise ExecutionNotFoundError(
            f"no execution has the name or id {wanted!r}, nor an id that begins so; "
            "pyworkflow list shows those that there are"
        )
    return client.get(begun[0].id)


def _ids(found: Sequence[ExecutionSummary]) -> str:
    shown = [f"  {each.id}  {each.workflow_name}" for each in found[:SHOWN_IDS]]
    return "\n".join(shown + ["  …"] * (len(found) > SHOWN_IDS))


# -- looking -------------------------------------------------------------------------------------


def list_executions(db: Path, filters: dict[str, Any], limit: int, *, as_json: bool) -> None:
    """Print executions, the newest first."""
    with existing(db) as client:
        found = client.list(limit=limit, **filters)
    if as_json:
        executions = [documents.listed_document(summary) for summary in found]
        more = found.marker is not None
        print_document({"executions": executions, "more": more, "after": found.marker})
        return
    if not found:
        stderr().print("no executions")
        return
    stdout().print(views.executions_table(found, SystemClock().now_ms()))
    if found.marker is not None:
        stderr().print(
            f"the newest {limit:,} of more; --limit shows others, --after {found.marker} the next"
            if filters["after"] is None
            else f"--after {found.marker} shows the next"
        )


def show_execution(db: Path, wanted: str, *, as_json: bool) -> None:
    """Print an execution with all its operations; for a damaged one, the readable columns."""
    with existing(db) as client:
        try:
            handle = _find(client, wanted)
            summary, operations = handle.summary(), handle.operations()
        except DamagedExecutionError:
            _show_damaged(client, wanted, as_json=as_json)
            raise
        now_ms, over = SystemClock().now_ms(), is_over(summary)
        awaited = {} if as_json or over else _awaited(client, handle, operations, now_ms)
    if as_json:
        execution = documents.execution_document(summary)
        print_document(execution | {"operations": documents.operations_document(operations)})
        return
    tree = views.operation_lines(operations, None if over else now_ms, awaited)
    print_lines(stdout(), [*views.execution_lines(summary, now_ms), Text(), *tree])


def _show_damaged(client: Client, wanted: str, *, as_json: bool) -> None:
    found = client.list(execution_name=wanted, payloads=True)
    for summary in found or client.list(id_prefix=wanted, limit=1, payloads=True):
        if as_json:
            print_document(documents.listed_document(summary))
        else:
            print_lines(stdout(), views.execution_lines(summary, SystemClock().now_ms()))


def _awaited(
    client: Client, handle: Handle[Any], operations: Sequence[Operation], now_ms: int
) -> dict[str, Text]:
    """Return what each open invoke waits for."""
    calls = {each.id for each in operations if each.type is _INVOKE and not each.ended}
    awaited = {}
    names = InvokedNames(handle.name)
    for event in handle.history() if calls else ():
        if event.function_name is None:
            continue
        name = names.take(event.operation_id, event.name)
        if event.operation_id in calls:
            found = client.list(workflow=event.function_name, execution_name=name)
            awaited[event.operation_id] = wording.awaited(event.function_name, found, now_ms)
    return awaited


def show_history(db: Path, wanted: str, *, as_json: bool) -> None:
    """Print the events of an execution."""
    with existing(db) as client:
        handle = _find(client, wanted)
        events = handle.history()
    if as_json:
        told = [documents.event_document(event) for event in events]
        print_document({"id": handle.id, "name": handle.name, "events": told})
        return
    print_lines(stdout(), views.event_lines(events))


# -- reaching ------------------------------------------------------------------------------------


def stop_execution(db: Path, wanted: str, reason: str, *, as_json: bool) -> None:
    """End an execution and print how it stands then.

    Raises `ExecutionEndedError` for one that was over already.
    """
    with existing(db) as client:
        handle = _find(client, wanted)
        was_over = is_over(handle.summary())
        summary = handle.stop(reason)
    if was_over or summary.status is not ExecutionStatus.STOPPED:
        at = "" if summary.end_ms is None else f" since {moment(summary.end_ms)}"
        raise ExecutionEndedError(
            f"expected a running execution, found {summary.name!r}, which is {summary.status}{at}; "
            "nothing was changed"
        )
    if as_json:
        print_document(documents.execution_document(summary))
        return
    stderr().print(plain(f"{summary.name} is {summary.status}"))


def release_execution(db: Path, wanted: str, *, as_json: bool) -> None:
    """Take an execution from its worker and print how it stands then."""
    with existing(db) as client:
        handle = _find(client, wanted)
        summary = client.release(handle)
    if as_json:
        print_document(documents.execution_document(summary))
        return
    # The log has the steps whose outcomes are lost.
    stderr().print(plain(f"{summary.name} is released"))


def complete_callback(db: Path, callback_id: str, result: object, *, as_json: bool) -> None:
    """Complete a callback."""
    with existing(db) as client:
        client.complete_callback(callback_id, result)
    _say_sent("the result", callback_id, as_json=as_json)


def fail_callback(db: Path, callback_id: str, message: str, *, as_json: bool) -> None:
    """Fail a callback."""
    with existing(db) as client:
        client.fail_callback(callback_id, message)
    _say_sent("the failure", callback_id, as_json=as_json)


def beat_callback(db: Path, callback_id: str, *, as_json: bool) -> None:
    """Restart a callback's heartbeat timeout."""
    with existing(db) as client:
        client.heartbeat_callback(callback_id)
    _say_sent("the heartbeat", callback_id, as_json=as_json)


def _say_sent(what: str, callback_id: str, *, as_json: bool) -> None:
    if as_json:
        print_document({"callback_id": callback_id})
    else:
        stderr().print(plain(f"{what} is recorded for {callback_id}"))


# -- backup ----------------------------------------------------------------------------------------


def back_up(db: Path, destination: Path, *, as_json: bool) -> None:
    """Copy the database and print where to; a terminal sees how far it is."""
    console = stderr()
    columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    # Even a disabled one ends with an empty line in some releases of rich.
    shown = bar if console.is_terminal else nullcontext()
    with existing(db) as client, shown:
        task = bar.add_task("")
        client.backup(
            destination, on_progress=lambda done, all_: bar.update(task, completed=done, total=all_)
        )
    size = destination.stat().st_size
    if as_json:
        print_document({"path": str(destination.absolute()), "bytes": size})
    else:
        stdout().print(plain(f"{destination} is a backup of {db}: {size:,} bytes"))
