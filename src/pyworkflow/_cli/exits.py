"""Exit codes, and how an error becomes one that says who can do something about it.

An error of a foreign class is a defect of this program. It keeps its traceback, and has a code of
its own, or a script would take it for a workflow that failed.
"""

from __future__ import annotations

from enum import IntEnum

from pyworkflow._cli.console import plain, print_lines, stderr
from pyworkflow.errors import PyWorkflowError, UsageError


class Exit(IntEnum):
    """The exit codes of the command line."""

    OK = 0
    FAILED = 1
    """The workflow failed, timed out or was stopped."""
    USAGE = 2
    """The command can't be meant so: its options, its input, the workflow file."""
    SERVICE = 3
    """The database, or what it was asked for: not there, not usable, not allowed."""
    DEFECT = 70
    """An error in PyWorkflow itself; the number is EX_SOFTWARE of sysexits.h."""
    OUTPUT = 74
    """Stdout can't be written to, a full disk for instance; the number is EX_IOERR."""
    INTERRUPTED = 130
    """By Ctrl-C, SIGINT."""


def tell_lost_output(error: OSError) -> Exit:
    """Say that stdout can't be written to and return the exit code."""
    why = error.strerror or type(error).__name__
    said = (
        f"pyworkflow: can't write to stdout: {why}. The output is incomplete, but what the command "
        "did is recorded; make room and look at it again with pyworkflow show or list"
    )
    print_lines(stderr(), [plain(said)])
    return Exit.OUTPUT


def tell(error: PyWorkflowError) -> Exit:
    """Print an error of ours without a traceback and return the exit code."""
    said = f"pyworkflow: {str(error) or type(error).__name__}"
    print_lines(stderr(), map(plain, said.split("\n")))
    return Exit.USAGE if isinstance(error, UsageError) else Exit.SERVICE
