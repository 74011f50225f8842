"""The executions that ended of late: what is over never changes, so nobody has to read it again.

Whoever started an execution mostly waits for its end where it ran. It is kept once its end is in
the file, written by this process or found there. Only so many are, and short ones without an error:
it is a help, not a store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyworkflow.services.base import ExecutionSummary

MOST = 1000
"""How many are kept."""
LONGEST = 4000
"""How many characters the input and the result of one may have together."""


class Finished:
    """Summaries of executions that are over, the last that ended; read on any thread."""

    def __init__(self) -> None:
        self._summaries: dict[str, ExecutionSummary] = {}

    def keep(self, summary: ExecutionSummary) -> None:
        """Keep a summary, for as long as there is room; on the writer's thread alone."""
        length = len(summary.input_payload) + len(summary.result or "")
        if summary.error is not None or length > LONGEST:
            return
        self._summaries[summary.id] = summary
        if len(self._summaries) > MOST:
            del self._summaries[next(iter(self._summaries))]

    def find(self, execution_id: str) -> ExecutionSummary | None:
        """Return the summary, if it is kept."""
        return self._summaries.get(execution_id)
