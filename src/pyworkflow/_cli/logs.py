"""Log records on stderr: what workflows and steps say, and what the worker does."""

from __future__ import annotations

import logging
import sys

from pyworkflow._cli.console import escape


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at that moment, so that progress and log share a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(escape, super().format(record).split("\n")))


def _is_not_progress(record: logging.LogRecord) -> bool:
    return record.name != "pyworkflow.worker" or record.levelno == logging.WARNING


def show_logs(*, worker: bool) -> None:
    """Show warnings, and all that workflows and steps log.

    With ``worker``, the log also shows how executions end; without it, the progress display does.
    """
    handler = _StderrHandler()
    handler.setFormatter(_EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
    if not worker:
        handler.addFilter(_is_not_progress)
    logging.basicConfig(handlers=[handler])
    logging.getLogger("pyworkflow").setLevel(logging.INFO)
