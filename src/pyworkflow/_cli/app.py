"""The commands and their options. The other modules carry them out."""

from __future__ import annotations

import sys
import traceback
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from pyworkflow._cli import executions, logs
from pyworkflow._cli.console import (
    escape_what_cannot_be_encoded,
    flush_stdout,
    is_refused_write,
    open_closed_streams,
)
from pyworkflow._cli.exits import Exit, tell, tell_lost_output
from pyworkflow._cli.loading import load_all, load_target
from pyworkflow._cli.run import DEFAULT_DB, NO_INPUT, RunOptions, run_and_show
from pyworkflow._cli.values import read_value
from pyworkflow._cli.worker import serve
from pyworkflow._local.worker import MAX_CONCURRENT
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._runtime.host_loop import run_to_end
from pyworkflow.errors import PyWorkflowError

if TYPE_CHECKING:
    from typing import Any

EXIT_CODES = (
    "Exit codes: 0 done; 1 the workflow failed, timed out or was stopped; 2 the command or the "
    "workflow file is wrong; 3 the database, or what it was asked for; 70 a defect of PyWorkflow; "
    "74 stdout can't be written to; 130 interrupted by Ctrl-C, 143 by SIGTERM."
)


class _TellingGroup(TyperGroup):
    """Turns the errors that have something to say into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PyWorkflowError as error:
            raise typer.Exit(tell(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None


app = typer.Typer(
    cls=_TellingGroup,
    help="Run durable workflows on this machine, and look at them.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
callbacks = typer.Typer(
    help="Answer a callback that a workflow waits for.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(callbacks, name="callback")

DbOption = Annotated[Path, typer.Option("--db", help="The database file.", show_default=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ExecutionArgument = Annotated[
    str, typer.Argument(metavar="EXECUTION", help="Its name, its id, or the beginning of its id.")
]
CallbackArgument = Annotated[str, typer.Argument(metavar="CALLBACK_ID")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"pyworkflow {metadata.version('pyworkflow')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def run() -> None:
    """Run the command that the process's arguments name, and end the process."""
    open_closed_streams()
    escape_what_cannot_be_encoded()
    try:
        app(prog_name="pyworkflow")
    except SystemExit as end:
        lost = flush_stdout()
        if lost is None:
            raise
        sys.exit(end.code or tell_lost_output(lost))
    except Exception as error:
        refused = flush_stdout() or error
        if is_refused_write(refused):
            sys.exit(tell_lost_output(refused))
        traceback.print_exc()
        sys.exit(Exit.DEFECT)


@app.command("run")
def run_command(
    target: Annotated[
        str, typer.Argument(metavar="FILE[:WORKFLOW]", help="Or a module: shop.orders:order.")
    ],
    given: Annotated[
        str | None, typer.Option("--input", help="The input: JSON, @FILE, or - for stdin.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The execution's name. One that exists goes on.")
    ] = None,
    db: Annotated[
        Path | None, typer.Option("--db", help="The database file; default: pyworkflow.db.")
    ] = None,
    skip_time: Annotated[
        bool,
        typer.Option(
            "--skip-time",
            help="Run waits, delays and timeouts at once; without --db, keep nothing.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start or resume an execution and follow it.

    Progress goes to stderr, the result to stdout. Interrupted, it can be resumed.
    """
    value = NO_INPUT if given is None else read_value(given, option="--input")
    module, workflow = load_target(target)
    logs.show_logs(worker=False)
    options = RunOptions(
        target=target,
        module=module,
        workflow=workflow,
        given=value,
        name=name,
        db=db,
        skip_time=skip_time,
    )
    raise typer.Exit(run_and_show(options, as_json=as_json))


@app.command()
def worker(
    sources: Annotated[list[str], typer.Argument(metavar="FILE_OR_MODULE...")],
    db: DbOption = DEFAULT_DB,
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many executions run at once.")
    ] = MAX_CONCURRENT,
) -> None:
    """Run executions until a signal comes.

    It runs those of the workflows in the files and modules that are named. The first SIGINT or
    SIGTERM lets steps in flight finish, the second ends it at once.
    """
    modules = load_all(sources)
    logs.show_logs(worker=True)
    run_to_end(partial(serve, modules, db, concurrency))


@app.command("list")
def list_command(
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.")] = None,
    status: Annotated[
        ExecutionStatus | None, typer.Option(case_sensitive=False, help="Only those in it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only names that begin so.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only started then or later.")] = None,
    before: Annotated[datetime | None, typer.Option(help="Only started before then.")] = None,
    problem: Annotated[
        bool | None, typer.Option("--problem/--no-problem", help="Only with one, or without.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on there; the page before says it.")] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """List executions, the newest first."""
    filters = {
        "workflow": workflow,
        "status": status,
        "name_prefix": name,
        "started_from": since and since.astimezone(),
        "started_before": before and before.astimezone(),
        "has_problem": problem,
        "after": after,
    }
    executions.list_executions(db, filters, limit, as_json=as_json)


@app.command()
def show(
    execution: ExecutionArgument, db: DbOption = DEFAULT_DB, as_json: JsonOption = False
) -> None:
    """Show an execution and its operations."""
    executions.show_execution(db, execution, as_json=as_json)


@app.command()
def history(
    execution: ExecutionArgument, db: DbOption = DEFAULT_DB, as_json: JsonOption = False
) -> None:
    """Show an execution's events."""
    executions.show_history(db, execution, as_json=as_json)


@app.command()
def stop(
    execution: ExecutionArgument,
    reason: Annotated[str, typer.Option(help="Recorded as the error.")] = "stopped by hand",
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """End an execution from outside.

    Nothing of it runs any more, no clean-up either.
    """
    executions.stop_execution(db, execution, reason, as_json=as_json)


@app.command()
def release(
    execution: ExecutionArgument, db: DbOption = DEFAULT_DB, as_json: JsonOption = False
) -> None:
    """Take an execution from the worker that has it.

    For one that is frozen: others go on at once, and what that worker has not recorded is lost.
    """
    executions.release_execution(db, execution, as_json=as_json)


@app.command()
def backup(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Where to; a new file.")],
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """Copy the database to a new file, while everything runs.

    The copy has one state of it. A file that is there already is not replaced.
    """
    executions.back_up(db, destination, as_json=as_json)


@callbacks.command()
def succeed(
    callback_id: CallbackArgument,
    result: Annotated[str, typer.Option(help="JSON, @FILE, or - for stdin.")] = "null",
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """Complete a callback with a result."""
    value = read_value(result, option="--result")
    executions.complete_callback(db, callback_id, value, as_json=as_json)


@callbacks.command()
def fail(
    callback_id: CallbackArgument,
    error: Annotated[
        str, typer.Option(help="Message that the workflow receives.")
    ] = "failed by hand",
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """Fail a callback: the workflow gets a CallbackError."""
    executions.fail_callback(db, callback_id, error, as_json=as_json)


@callbacks.command()
def heartbeat(
    callback_id: CallbackArgument, db: DbOption = DEFAULT_DB, as_json: JsonOption = False
) -> None:
    """Say that whoever answers a callback is still at work."""
    executions.beat_callback(db, callback_id, as_json=as_json)
