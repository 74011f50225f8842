"""`run`: start or resume one execution, follow it to its end, and say how to go on if cut short.

The worker of this process also serves the other executions of the file's workflows in the database:
those that the one followed invokes, and those that a dead process left.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyworkflow._cli import wording
from pyworkflow._cli.console import (
    end_when_nobody_reads,
    escape,
    plain,
    print_document,
    print_lines,
    stderr,
)
from pyworkflow._cli.documents import execution_document
from pyworkflow._cli.exits import Exit
from pyworkflow._cli.progress import Progress
from pyworkflow._cli.signals import asked_to_stop, end_now, say_that_it_stops
from pyworkflow._cli.times import moment
from pyworkflow._cli.values import indented
from pyworkflow._cli.views import timeline
from pyworkflow._local.async_client import DEFAULT_PATH, AsyncClient
from pyworkflow._local.client import Client
from pyworkflow._local.completion import is_over
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._runtime.host_loop import run_to_end
from pyworkflow._values import codec
from pyworkflow.errors import ExecutionNotFoundError, UsageError
from pyworkflow.services.errors import check_execution_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType
    from typing import Any

    from pyworkflow._api.workflow import Workflow
    from pyworkflow._local.async_handle import AsyncHandle
    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow._protocol.records import Operation

LOOKS_A_SECOND = 5
PACE = 20
"""At most one part in this many of the time between two looks is spent looking."""

NO_INPUT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `run`; ``target`` as it was written."""

    target: str
    module: ModuleType
    workflow: Workflow[..., Any]
    given: object
    name: str | None
    db: Path | None
    skip_time: bool

    def resuming(self, name: str) -> str:
        """Return the command that goes on with the execution."""
        words = ["pyworkflow", "run", self.target, "--name", name]
        words += ["--db", str(self.db)] if self.db is not None else []
        words += ["--skip-time"] if self.skip_time else []
        return shlex.join(words)


DEFAULT_DB = Path(DEFAULT_PATH)


def run_and_show(options: RunOptions, *, as_json: bool) -> Exit:
    """Run and print what came of it; return the exit code."""
    # Output of the user's code is not the result.
    with _database(options) as db, contextlib.redirect_stdout(sys.stderr):
        if not db.exists():
            _check_that_it_can_start(options)
        if options.skip_time:
            _check_that_no_other_time_is_skipped(options, db)
        summary, operations, signal_number = run_to_end(partial(_follow, options, db))
    if signal_number is not None and not is_over(summary):
        _say_how_to_go_on(options, summary)
        end_now(128 + signal_number)  # threads of steps that run on must not delay it
    end_when_nobody_reads()
    _show(summary, operations, as_json=as_json)
    return Exit.OK if summary.status is ExecutionStatus.SUCCEEDED else Exit.FAILED


@contextlib.contextmanager
def _database(options: RunOptions) -> Iterator[Path]:
    """Provide the file: with skipped time and no name for it, one for the length of this run."""
    if options.db is not None or not options.skip_time:
        yield options.db or DEFAULT_DB
        return
    with tempfile.TemporaryDirectory(prefix="pyworkflow-") as folder:
        yield Path(folder) / DEFAULT_DB


async def _follow(
    options: RunOptions, db: Path
) -> tuple[ExecutionSummary, Sequence[Operation], int | None]:
    with asked_to_stop() as asked:
        async with AsyncClient.local(
            db, workflows=[options.module], skip_time=options.skip_time
        ) as client:
            with Progress(
                client.clock, partial(_completing, db), with_dates=options.skip_time
            ) as progress:
                handle = await _begin(options, client, progress)
                await _watch(handle, progress, asked)
            if asked.done():
                say_that_it_stops()
            summary, operations = await handle.summary(), await handle.operations()
    return summary, operations, asked.result() if asked.done() else None


def _check_that_it_can_start(options: RunOptions) -> None:
    """Refuse what the service would refuse, before there is a file that has nothing in it."""
    if options.name is not None:
        check_execution_name(options.name)
    given = None if options.given is NO_INPUT else options.given
    options.workflow.binder.bind(
        codec.encode(given, what=f"the input of {options.workflow.name!r}")
    )


def _check_that_no_other_time_is_skipped(options: RunOptions, db: Path) -> None:
    """Refuse to let the waits of other executions end early."""
    if not db.exists():
        return
    with Client.local(db, worker=False) as client:
        running = client.list(status=ExecutionStatus.RUNNING)
    others = [each for each in running if options.name not in {each.id, each.name}]
    if others:
        raise UsageError(
            f"--skip-time would also end the waits of {wording.count(len(others), 'execution')} "
            f"running in {db}, such as {others[0].name!r}: leave out --db, or name another file"
        )


async def _begin(options: RunOptions, client: AsyncClient, progress: Progress) -> AsyncHandle[Any]:
    """Start the execution, or find the one that has the name already."""
    given = None if options.given is NO_INPUT else options.given
    known = await _known(options, client)
    if known is None:
        handle = await client.start(options.workflow, given, execution_name=options.name)
        progress.say(plain(f"{options.workflow.name}: started {handle.name}"))
        return handle
    if options.given is not NO_INPUT:
        # Refused, if it is another input than the one of that name.
        await client.start(options.workflow, given, execution_name=known.name)
    summary = await known.summary()
    started, over = moment(summary.start_ms), moment(summary.end_ms or summary.start_ms)
    progress.say(
        plain(
            f"{options.workflow.name}: {known.name} was over at {over}; nothing is run"
            if is_over(summary)
            else f"{options.workflow.name}: going on with {known.name}, started at {started}"
        )
    )
    progress.begin(await known.operations())
    return known


async def _known(options: RunOptions, client: AsyncClient) -> AsyncHandle[Any] | None:
    if options.name is None:
        return None
    try:
        return await client.get(options.name, options.workflow)
    except ExecutionNotFoundError:
        return None


def _completing(db: Path, callback_id: str) -> str:
    words = ["pyworkflow", "callback", "succeed", callback_id, "--result", "JSON"]
    words += ["--db", str(db)] if db != DEFAULT_DB else []
    return escape(shlex.join(words))


async def _watch(handle: AsyncHandle[Any], progress: Progress, asked: asyncio.Future[int]) -> None:
    """Print the progress until the execution is over or a signal comes."""
    ending = asyncio.ensure_future(_wait_for_end(handle))
    waiting: set[asyncio.Future[Any]] = {ending, asked}
    try:
        done: set[asyncio.Future[Any]] = set()
        while not done:
            took = await _look(handle, progress)
            pause = max(1 / LOOKS_A_SECOND, PACE * took)
            done, _ = await asyncio.wait(
                waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
        if ending in done:
            ending.result()
            await _look(handle, progress)
    finally:
        ending.cancel()


async def _look(handle: AsyncHandle[Any], progress: Progress) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    progress.update(await handle.operations(), await handle.summary())
    return loop.time() - began


async def _wait_for_end(handle: AsyncHandle[Any]) -> None:
    try:
        await handle.result()
    except Exception:
        # The workflow's own error is printed from its record; any other ended the waiting.
        if not is_over(await handle.summary()):
            raise


# -- what came of it -----------------------------------------------------------------------------


def _show(summary: ExecutionSummary, operations: Sequence[Operation], *, as_json: bool) -> None:
    if as_json:
        print_document(execution_document(summary))
        return
    console = stderr()
    if summary.status is ExecutionStatus.SUCCEEDED:
        sys.stdout.write(indented(summary.result) + "\n")
    else:
        _show_failure(summary)
    console.print(timeline(operations, summary.end_ms or summary.start_ms))


def _show_failure(summary: ExecutionSummary) -> None:
    lines = [plain(f"{summary.workflow_name}: {summary.status}", "bold red")]
    if summary.error is not None:
        lines += [*wording.error_lines(summary.error), *wording.stack_lines(summary.error)]
    print_lines(stderr(), lines)


def _say_how_to_go_on(options: RunOptions, summary: ExecutionSummary) -> None:
    said = ["what is recorded is kept; go on with:", f"  {options.resuming(summary.name)}"]
    if options.skip_time and options.db is None:
        said = ["nothing is kept of this trial run; name a file with --db to keep it"]
    print_lines(stderr(), map(plain, said))
