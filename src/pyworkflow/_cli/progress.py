"""The progress of the execution that `run` follows, on stderr.

Each change of an operation is a line that stays. On a terminal, what is open stands below them with
the time that it has left.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from pyworkflow._cli import wording
from pyworkflow._cli.console import print_lines, stderr, without_a_reader
from pyworkflow._cli.times import time_and_date, time_of_day, until
from pyworkflow._local.completion import is_over
from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._protocol.records import OperationType, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow._protocol.records import Operation
    from pyworkflow._runtime.clock import Clock

OPEN_LINES = 10


class Progress:
    """Prints the changes between one look at the operations and the next.

    ``completing`` returns the command line that completes the callback of an id. ``with_dates``
    writes the date before each time of day: where time is skipped, a line may be a month away.
    """

    def __init__(
        self, clock: Clock, completing: Callable[[str], str], *, with_dates: bool = False
    ) -> None:
        self._clock = clock
        self._written = time_and_date if with_dates else time_of_day
        self._completing = completing
        self._console = stderr()
        self._seen: dict[str, tuple[Status, int]] = {}
        self._depths: dict[str | None, int] = {}
        self._open: list[Operation] = []
        self._failed_invocations = 0
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.open_ones,
                transient=True,
                refresh_per_second=2,
            )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = []
        if self._live is not None:
            self._live.stop()
        with without_a_reader():
            sys.stderr.flush()

    def say(self, *lines: str | Text) -> None:
        """Print lines that stay."""
        with without_a_reader():
            print_lines(
                self._console, (Text(line) if isinstance(line, str) else line for line in lines)
            )

    def begin(self, operations: Sequence[Operation]) -> None:
        """Take note of what has ended before; it is shown by its number alone."""
        ended = [each for each in operations if each.ended and each.type is not _ROOT]
        for operation in ended:
            self._depths[operation.id] = self._depth(operation)
            self._seen[operation.id] = operation.status, operation.attempt
        if ended:
            self.say(f"{wording.count(len(ended), 'operation')} recorded: not run again")
        if any(is_running(operation) for operation in operations):
            seconds = LEASE_MS // 1000
            self.say(f"a step was running: if its process died, that shows within {seconds}s")

    def update(self, operations: Sequence[Operation], summary: ExecutionSummary) -> None:
        """Print the changes since the last look."""
        now_ms = self._clock.now_ms()
        over = is_over(summary)
        shown = [each for each in operations if each.type is not _ROOT and (each.ended or not over)]
        self._open = [operation for operation in shown if not operation.ended]
        for operation in shown:
            as_seen = operation.status, operation.attempt
            if self._seen.get(operation.id) != as_seen:
                self._seen[operation.id] = as_seen
                self._tell(operation, now_ms)
        if summary.problem is not None and summary.failed_invocations > self._failed_invocations:
            self._tell_problem(summary, now_ms)
        self._failed_invocations = summary.failed_invocations

    def _tell_problem(self, summary: ExecutionSummary, now_ms: int) -> None:
        assert summary.problem is not None
        row = f", {summary.failed_invocations} in a row" if summary.failed_invocations > 1 else ""
        again = "" if summary.wake_ms is None else f", the next is {until(summary.wake_ms, now_ms)}"
        self.say(
            Text(f"an invocation ended in a problem{row}{again}:", style="yellow"),
            *(Text("  ").append_text(line) for line in wording.error_lines(summary.problem)),
        )

    def _tell(self, operation: Operation, now_ms: int) -> None:
        depth = self._depths[operation.id] = self._depth(operation)
        began_ms = operation.attempt_start_ms or operation.start_ms
        when_ms = now_ms if operation.status is Status.PENDING else began_ms
        self.say(
            Text.assemble(
                (self._written(operation.end_ms or when_ms), "dim"),
                "  " * (depth + 1),
                wording.title(operation),
                " ",
                wording.state(operation, now_ms),
            )
        )
        if operation.callback_id is not None and not operation.ended:
            self.say(f"  complete it with: {self._completing(operation.callback_id)}")

    def _depth(self, operation: Operation) -> int:
        return self._depths.get(operation.parent_id, -1) + 1

    def open_ones(self) -> Text:
        """Return what is open, the first of it."""
        now_ms, lines = self._clock.now_ms(), []
        for operation in self._open[:OPEN_LINES]:
            lines.append(
                Text.assemble("… ", wording.title(operation), " ", wording.state(operation, now_ms))
            )
        if len(self._open) > OPEN_LINES:
            lines.append(Text(f"… and {len(self._open) - OPEN_LINES:,} more"))
        return Text("\n", overflow="ellipsis", no_wrap=True).join(lines)


_ROOT = OperationType.EXECUTION


def is_running(operation: Operation) -> bool:
    """Return whether a process works, or worked, on it."""
    return operation.type is OperationType.STEP and operation.status is Status.STARTED
