"""The timeline after a run: when each operation was under way, to scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pyworkflow._cli import wording
from pyworkflow._cli.times import span
from pyworkflow._protocol.records import OperationType, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._protocol.records import Operation

WIDTH = 40
LINES = 40

_FINE = {Status.SUCCEEDED: "green", Status.STARTED: "cyan"}


def timeline(operations: Sequence[Operation], now_ms: int) -> Table:
    """Return a bar for each of the first operations, from the first start to the last end."""
    shown = [operation for operation in operations if operation.type is not OperationType.EXECUTION]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    if not shown:
        return table
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    begin_ms = min(operation.start_ms for operation in shown)
    end_ms = max(_end(operation, now_ms) for operation in shown)
    for operation in shown[:LINES]:
        ended_ms = _end(operation, now_ms)
        table.add_row(
            wording.title(operation),
            _bar(operation, begin_ms, max(1, end_ms - begin_ms), ended_ms),
            span(ended_ms - operation.start_ms),
        )
    if len(shown) > LINES:
        table.add_row(Text(f"and {len(shown) - LINES:,} more", style="dim"))
    return table


def _end(operation: Operation, now_ms: int) -> int:
    return max(operation.start_ms, now_ms if operation.end_ms is None else operation.end_ms)


def _bar(operation: Operation, begin_ms: int, whole_ms: int, end_ms: int) -> Text:
    """Return the bar; what took next to nothing still gets a place of its own."""
    first = min(WIDTH - 1, (operation.start_ms - begin_ms) * WIDTH // whole_ms)
    after = max(first + 1, -(-(end_ms - begin_ms) * WIDTH // whole_ms))
    letter = "━" if operation.type is not OperationType.WAIT else "─"
    style = _FINE.get(wording.status_of(operation), "red")
    return Text(" " * first + letter * (after - first) + " " * (WIDTH - after), style=style)
