"""Tables, trees and the timeline of what is recorded: `list`, `show`, `history`, `run`."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pyworkflow._cli import wording
from pyworkflow._cli.console import cut, escape, plain
from pyworkflow._cli.times import moment, span, until, within
from pyworkflow._cli.values import indented
from pyworkflow._protocol.records import OperationType, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow._protocol.records import Operation
    from pyworkflow.services.history import HistoryEvent

VALUE_LENGTH = 10_000
NAME_WIDTH = 40
TIMELINE_WIDTH = 40
TIMELINE_LINES = 40


# -- list ----------------------------------------------------------------------------------------


def executions_table(summaries: Iterable[ExecutionSummary], now_ms: int) -> Table:
    """Return a line for each execution."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "workflow", "status", "started", "duration", "next wake", "problem"):
        # The others are of no use when they are folded.
        may_fold = heading in {"name", "workflow", "next wake", "problem"}
        table.add_column(heading, overflow="fold", no_wrap=not may_fold)
    for summary in summaries:
        end_ms = now_ms if summary.end_ms is None else summary.end_ms
        wakes = summary.end_ms is None and summary.wake_ms is not None
        table.add_row(
            plain(summary.name),
            plain(summary.workflow_name),
            Text(summary.status, style=wording.STYLES[summary.status]),
            moment(summary.start_ms),
            span(end_ms - summary.start_ms),
            until(summary.wake_ms or 0, now_ms) if wakes else "",
            _problem(summary),
        )
    return table


def _problem(summary: ExecutionSummary) -> Text:
    if summary.problem is None:
        return Text()
    return Text.assemble((_how_often(summary), "red"), wording.error_line(summary.problem))


def _how_often(summary: ExecutionSummary) -> str:
    return f"{wording.times(summary.failed_invocations)}: " if summary.failed_invocations else ""


# -- show ----------------------------------------------------------------------------------------


def execution_lines(summary: ExecutionSummary, now_ms: int) -> Iterator[Text]:
    """Yield what there is to say of an execution as a whole."""
    status = Text(summary.status, style=wording.STYLES[summary.status])
    yield Text.assemble(plain(summary.name, "bold"), "  ", status)
    yield _field("workflow", plain(summary.workflow_name))
    yield _field("id", plain(summary.id))
    yield _field("started", Text(moment(summary.start_ms)))
    if summary.end_ms is not None:
        took = span(summary.end_ms - summary.start_ms)
        yield _field("ended", Text(f"{moment(summary.end_ms)}, after {took}"))
    elif summary.wake_ms is not None:
        yield _field("next wake", Text(until(summary.wake_ms, now_ms)))
    if summary.problem is not None:
        said = Text("\n    ").join(wording.error_lines(summary.problem))
        yield _field("problem", Text.assemble(_how_often(summary), said))
        if summary.problem.type == "WorkerFrozen":  # with the stack of what keeps the worker
            yield from wording.stack_lines(summary.problem)
    yield _field("input", value_text(summary.input_payload))
    if summary.result is not None:
        yield _field("result", value_text(summary.result))
    if summary.error is not None:
        yield _field("error", Text("\n    ").join(wording.error_lines(summary.error)))
        yield from wording.stack_lines(summary.error)


def _field(name: str, value: Text) -> Text:
    return Text.assemble((f"  {name:<10}", "dim"), value)


def value_text(payload: str | None) -> Text:
    """Return a payload over several lines, those after the first indented."""
    return Text(cut(indented(payload), VALUE_LENGTH).replace("\n", "\n  "))


def operation_lines(
    operations: Sequence[Operation],
    now_ms: int | None,
    awaited: Mapping[str, Text] = MappingProxyType({}),
) -> Iterator[Text]:
    """Yield the tree of the operations, children below their parents, in the order of start.

    No time: the execution is over. ``awaited`` says of operations what they wait for.
    """
    children: dict[str | None, list[Operation]] = defaultdict(list)
    known = {operation.id for operation in operations if operation.type is not _ROOT}
    for operation in operations:
        if operation.type is not _ROOT:
            parent = operation.parent_id if operation.parent_id in known else None
            children[parent].append(operation)
    # A stack, not recursion: histories nest deeper than Python does.
    written = within(operation.start_ms for operation in operations)
    stack = [(operation, "", last) for operation, last in _with_last(children[None])]
    while stack:
        operation, indent, last = stack.pop()
        at = written(operation.start_ms)
        line = _operation_line(operation, indent + ("└─ " if last else "├─ "), at, now_ms)
        yield line.append_text(awaited.get(operation.id, Text()))
        below = indent + ("   " if last else "│  ")
        stack += [(child, below, end) for child, end in _with_last(children[operation.id])]


_ROOT = OperationType.EXECUTION


def _with_last(operations: Sequence[Operation]) -> list[tuple[Operation, bool]]:
    """Return the operations, the last first, and whether each is the last of its parent."""
    return [(operation, index == 0) for index, operation in enumerate(reversed(operations))]


def _operation_line(operation: Operation, branch: str, at: str, now_ms: int | None) -> Text:
    return Text.assemble(
        (branch, "dim"),
        (at, "dim"),
        " ",
        wording.title(operation),
        " ",
        wording.state(operation, now_ms),
        wording.result(operation),
    )


# -- history -------------------------------------------------------------------------------------


def event_lines(events: Sequence[HistoryEvent]) -> Iterator[Text]:
    """Yield a line for each event: its number, when, what, of which operation, and details."""
    number_width = len(str(len(events)))
    written = within(event.time_ms for event in events)
    names = [escape(event.name or "") for event in events]
    name_width = min(NAME_WIDTH, max(map(len, names), default=0))
    type_width = max((len(event.type) for event in events), default=0)
    for event, name in zip(events, names, strict=True):
        yield Text.assemble(
            (f"{event.id:>{number_width}}  {written(event.time_ms)}  ", "dim"),
            f"{event.type:<{type_width}}  ",
            (f"{name:<{name_width}}", "bold"),
            "  ",
            _details(event),
        )


def _details(event: HistoryEvent) -> Text:
    said = []
    if event.current_attempt is not None:
        said.append(Text(f"attempt {event.current_attempt}"))
    if event.delay_seconds is not None:
        said.append(Text(f"again in {span(event.delay_seconds * 1000)}"))
    if event.wait_seconds is not None:
        said.append(Text(f"wait {span(event.wait_seconds * 1000)}"))
    if event.timeout_seconds:
        said.append(Text(f"timeout {span(event.timeout_seconds * 1000)}"))
    if event.heartbeat_timeout_seconds:
        said.append(Text(f"heartbeat timeout {span(event.heartbeat_timeout_seconds * 1000)}"))
    if event.callback_id is not None:
        said.append(plain(f"id {event.callback_id}"))
    if event.function_name is not None:
        said.append(plain(f"function {event.function_name}"))
    if event.error is not None:
        said.append(wording.error_line(event.error))
    details = Text(", ").join(said)
    if event.payload is not None:
        value = escape(cut(event.payload, wording.PAYLOAD_LENGTH))
        details.append(f" = {value}" if said else f"= {value}")
    return details


# -- after run -----------------------------------------------------------------------------------

_FINE = {Status.SUCCEEDED: "green", Status.STARTED: "cyan"}


def timeline(operations: Sequence[Operation], now_ms: int) -> Table:
    """Return a bar for each of the first operations, from the first start to the last end."""
    shown = [operation for operation in operations if operation.type is not _ROOT]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    if not shown:
        return table
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    begin_ms = min(operation.start_ms for operation in shown)
    end_ms = max(_end(operation, now_ms) for operation in shown)
    for operation in shown[:TIMELINE_LINES]:
        ended_ms = _end(operation, now_ms)
        table.add_row(
            wording.title(operation),
            _bar(operation, begin_ms, max(1, end_ms - begin_ms), ended_ms),
            span(ended_ms - operation.start_ms),
        )
    if len(shown) > TIMELINE_LINES:
        table.add_row(Text(f"and {len(shown) - TIMELINE_LINES:,} more", style="dim"))
    return table


def _end(operation: Operation, now_ms: int) -> int:
    return max(operation.start_ms, now_ms if operation.end_ms is None else operation.end_ms)


def _bar(operation: Operation, begin_ms: int, whole_ms: int, end_ms: int) -> Text:
    """Return the bar; what took next to nothing still gets a place of its own."""
    first = min(TIMELINE_WIDTH - 1, (operation.start_ms - begin_ms) * TIMELINE_WIDTH // whole_ms)
    after = max(first + 1, -(-(end_ms - begin_ms) * TIMELINE_WIDTH // whole_ms))
    letter = "━" if operation.type is not OperationType.WAIT else "─"
    style = _FINE.get(wording.status_of(operation), "red")
    return Text(
        " " * first + letter * (after - first) + " " * (TIMELINE_WIDTH - after), style=style
    )
