"""The names of operations and of their states, in words that all commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from pyworkflow._api.completion import CompletionReason
from pyworkflow._cli.console import cut, escape, plain
from pyworkflow._cli.times import moment, span, until
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import OperationType, Status, SubType
from pyworkflow.duration import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow._protocol.records import ErrorRecord, Operation

_TOO_MANY_FAILURES = CompletionReason.FAILURE_TOLERANCE_EXCEEDED

PAYLOAD_LENGTH = 120
MESSAGE_LENGTH = 200
WHOLE_MESSAGE_LENGTH = 5_000
STACK_FRAMES = 10

KINDS = {
    OperationType.STEP: "step",
    OperationType.WAIT: "wait",
    OperationType.CALLBACK: "callback",
    OperationType.CHAINED_INVOKE: "invoke",
    OperationType.CONTEXT: "child context",
    OperationType.EXECUTION: "execution",
}

STYLES = {
    ExecutionStatus.RUNNING: "cyan",
    ExecutionStatus.SUCCEEDED: "green",
    ExecutionStatus.FAILED: "red",
    ExecutionStatus.TIMED_OUT: "red",
    ExecutionStatus.STOPPED: "yellow",
}
_VERBS = {
    Status.SUCCEEDED: ("succeeded", "green"),
    Status.FAILED: ("failed", "red"),
    Status.CANCELLED: ("cancelled", "yellow"),
    Status.TIMED_OUT: ("timed out", "red"),
    Status.STOPPED: ("stopped", "yellow"),
}


def title(operation: Operation) -> Text:
    """Return what an operation is called: its kind, unless it is a step, and its name."""
    kind = KINDS[operation.type]
    name = escape(operation.name or "")
    if operation.type is OperationType.WAIT and operation.scheduled_end_ms is not None:
        seconds = (operation.scheduled_end_ms - operation.start_ms) // 1000
        name = f"{format_duration(seconds)} {name}".rstrip()
    if operation.type is OperationType.STEP and name:
        return Text(name, style="bold")
    return Text.assemble((kind, "dim"), " ", (name, "bold")) if name else Text(kind, style="bold")


def state(operation: Operation, now_ms: int | None) -> Text:
    """Return how an operation stands, without what it returned; no time: its execution is over."""
    if operation.ended:
        return _ended(operation)
    if now_ms is None:
        return Text("left unfinished", style="yellow")
    match operation.type, operation.status:
        case OperationType.STEP, Status.PENDING:
            return _between_attempts(operation, now_ms)
        case OperationType.STEP, _:
            number = operation.attempt
            return Text("running" if number == 1 else f"running, attempt {number}", style="cyan")
        case OperationType.WAIT, _:
            return Text(f"until {until(operation.scheduled_end_ms or 0, now_ms)}", style="cyan")
        case OperationType.CALLBACK, _:
            return Text.assemble(("open, id ", "cyan"), plain(operation.callback_id or ""))
        case _:
            return Text("running", style="cyan")


def awaited(workflow_name: str, invoked: Sequence[ExecutionSummary], now_ms: int) -> Text:
    """Return what an open invoke waits for: a workflow, and whether a worker has taken it."""
    said = plain(f" workflow {workflow_name}", "cyan")
    due = [each.wake_ms for each in invoked if each.wake_ms is not None and each.wake_ms <= now_ms]
    if due:
        since = moment(min(due))
        said.append(f", due since {since} and taken by no worker; is one running that has it?")
    return said


def _between_attempts(operation: Operation, now_ms: int) -> Text:
    due = until(operation.next_attempt_ms or 0, now_ms)
    if operation.error is None:
        return Text(f"polled {times(operation.attempt)}, again {due}", style="cyan")
    return Text.assemble(
        (f"attempt {operation.attempt} failed: ", "yellow"),
        error_line(operation.error),
        (f"; attempt {operation.attempt + 1} {due}", "yellow"),
    )


class _Branches(msgspec.Struct, rename="camel"):
    """The part of a fan-out's recorded decision that is shown."""

    completion_reason: str
    success_count: int
    failure_count: int


def _branches(operation: Operation) -> _Branches | None:
    """Return how many branches of a fan-out succeeded and failed, `None` for other operations."""
    if operation.subtype not in {SubType.PARALLEL, SubType.MAP} or operation.payload is None:
        return None
    try:
        return msgspec.json.decode(operation.payload, type=_Branches)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None  # other programs may have recorded it


def status_of(operation: Operation) -> Status:
    """Return how an operation stands for its caller.

    A fan-out over its tolerance is recorded as a success that contains the decision; the code
    around it gets an error.
    """
    branches = _branches(operation)
    if branches is None or branches.completion_reason != _TOO_MANY_FAILURES:
        return operation.status
    return Status.FAILED


def _ended(operation: Operation) -> Text:
    verb, style = _VERBS[status_of(operation)]
    branches = _branches(operation)
    if operation.type is OperationType.WAIT and operation.status is Status.SUCCEEDED:
        verb = "over"
    took = span((operation.end_ms or operation.start_ms) - operation.start_ms)
    attempts = f", attempt {operation.attempt}" if operation.attempt > 1 else ""
    said = Text(f"{verb} after {took}{attempts}", style=style)
    if branches is not None:
        said.append(f", {branches.success_count} succeeded, {branches.failure_count} failed")
    if operation.error is not None:
        said.append(": ").append_text(error_line(operation.error))
    return said


def result(operation: Operation) -> Text:
    """Return what an operation returned so far, on one line; empty when that is nothing."""
    if operation.payload is None or operation.type is OperationType.WAIT:
        return Text()
    word = "=" if operation.ended else "state"
    return Text(f" {word} {escape(cut(operation.payload, PAYLOAD_LENGTH))}")


def error_line(error: ErrorRecord) -> Text:
    """Return an error on one line."""
    return plain(cut(_said(error), MESSAGE_LENGTH), "red")


def error_lines(error: ErrorRecord) -> Iterator[Text]:
    """Yield an error as a whole; messages of ours are worth reading to their end."""
    for line in cut(_said(error), WHOLE_MESSAGE_LENGTH).split("\n"):
        yield plain(line, "red")


def stack_lines(error: ErrorRecord) -> Iterator[Text]:
    """Yield both ends of a recorded stack: what led to the error, and where it was raised."""
    frames, half = error.stack_trace, STACK_FRAMES // 2
    if len(frames) > STACK_FRAMES:
        left_out = f"  … [{len(frames) - 2 * half} entries left out]"
        frames = (*frames[:half], left_out, *frames[-half:])
    for frame in frames:
        for line in frame.rstrip("\n").split("\n"):
            yield Text(f"    {escape(line)}", style="dim")


def _said(error: ErrorRecord) -> str:
    kind = error.type.removeprefix("pyworkflow.errors.")
    return ": ".join(filter(None, (kind, error.message))) or "no message"


def times(count: int) -> str:
    """Return how often."""
    return "once" if count == 1 else f"{count:,} times"


def count(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
