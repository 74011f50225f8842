"""Tables, trees, timelines and documents of records made by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

from pyworkflow._cli import documents, views, wording
from pyworkflow._cli.times import moment, time_of_day
from pyworkflow._cli.views import TIMELINE_WIDTH, timeline
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._protocol.records import ErrorRecord, Operation, OperationType, Status, SubType
from pyworkflow.services.history import HistoryEvent

if TYPE_CHECKING:
    from rich.console import RenderableType

EVIL = "\x1b[31m[bold]x[/bold]\n\u202e"
TAME = r"\x1b[31m[bold]x[/bold]\n\u202e"
START_MS = 1_800_000_000_000

STEP = Operation(
    id="s", type=OperationType.STEP, status=Status.STARTED, start_ms=START_MS, name="charge"
)
WAIT = Operation(
    id="w",
    type=OperationType.WAIT,
    status=Status.STARTED,
    start_ms=START_MS,
    scheduled_end_ms=START_MS + 300_000,
)
CALLBACK = Operation(
    id="c",
    type=OperationType.CALLBACK,
    status=Status.STARTED,
    start_ms=START_MS,
    name="approval",
    callback_id="x.c",
)
SUMMARY = ExecutionSummary(
    id="e1",
    name="first",
    workflow_name="order",
    status=ExecutionStatus.RUNNING,
    start_ms=START_MS,
    input_payload='{"order_id":"A"}',
)


def changed(record: Any, **changes: object) -> Any:
    return msgspec.structs.replace(record, **changes)


def fan_out(reason: str, succeeded: int, failed: int) -> Operation:
    return msgspec.structs.replace(
        STEP,
        type=OperationType.CONTEXT,
        subtype=SubType.MAP,
        status=Status.SUCCEEDED,
        end_ms=START_MS,
        payload=json.dumps(
            {"completionReason": reason, "successCount": succeeded, "failureCount": failed}
        ),
    )


def render(*renderables: RenderableType, width: int = 500) -> str:
    console = Console(width=width, markup=False, emoji=False, highlight=False, color_system=None)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


# -- one operation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "title", "state"),
    [
        (STEP, "charge", "running"),
        (changed(STEP, status=Status.READY, ended_attempts=1), "charge", "running, attempt 2"),
        (
            changed(STEP, status=Status.SUCCEEDED, end_ms=START_MS + 12, ended_attempts=1),
            "charge",
            "succeeded after 12ms",
        ),
        (
            changed(
                STEP,
                status=Status.FAILED,
                end_ms=START_MS + 61_000,
                ended_attempts=3,
                error=ErrorRecord("busy", "RetryableError"),
            ),
            "charge",
            "failed after 1m1s, attempt 3: RetryableError: busy",
        ),
        (changed(WAIT, status=Status.SUCCEEDED, end_ms=START_MS), "wait 5m", "over after 0ms"),
        (changed(WAIT, status=Status.CANCELLED, end_ms=START_MS), "wait 5m", "cancelled after 0ms"),
        (CALLBACK, "callback approval", "open, id x.c"),
        (
            changed(CALLBACK, status=Status.TIMED_OUT, end_ms=START_MS, error=ErrorRecord()),
            "callback approval",
            "timed out after 0ms: no message",
        ),
        (changed(STEP, type=OperationType.CONTEXT), "child context charge", "running"),
        (
            fan_out("FAILURE_TOLERANCE_EXCEEDED", 1, 2),
            "child context charge",
            "failed after 0ms, 1 succeeded, 2 failed",
        ),
        (
            fan_out("ALL_COMPLETED", 3, 0),
            "child context charge",
            "succeeded after 0ms, 3 succeeded, 0 failed",
        ),
        (
            changed(fan_out("x", 0, 0), payload="somebody else's"),
            "child context charge",
            "succeeded after 0ms",
        ),
        (changed(STEP, type=OperationType.CHAINED_INVOKE, name=None), "invoke", "running"),
    ],
)
def test_an_operation_in_words(operation: Operation, title: str, state: str) -> None:
    assert wording.title(operation).plain == title
    assert wording.state(operation, START_MS).plain == state


def test_a_wait_says_how_much_is_left() -> None:
    assert wording.state(WAIT, START_MS + 60_000).plain.endswith("(in 4m)")
    assert wording.state(WAIT, START_MS + 300_000).plain == "until now"


def test_what_an_execution_left_is_not_awaited() -> None:
    assert wording.state(WAIT, None).plain == "left unfinished"
    assert wording.state(changed(STEP, status=Status.PENDING), None).plain == "left unfinished"


def test_our_own_errors_are_named_briefly() -> None:
    error = ErrorRecord("no", "pyworkflow.errors.FatalError")
    assert wording.error_line(error).plain == "FatalError: no"
    assert wording.error_line(ErrorRecord("no", "shop.Declined")).plain == "shop.Declined: no"


def test_a_retry_says_why_and_when() -> None:
    pending = changed(
        STEP,
        status=Status.PENDING,
        ended_attempts=1,
        next_attempt_ms=START_MS + 30_000,
        error=ErrorRecord("busy", "RetryableError"),
    )
    said = wording.state(pending, START_MS).plain
    assert said.startswith("attempt 1 failed: RetryableError: busy; attempt 2 ")
    assert said.endswith("(in 30s)")


def test_a_poll_says_how_often() -> None:
    pending = changed(
        STEP,
        status=Status.PENDING,
        ended_attempts=2,
        next_attempt_ms=START_MS + 30_000,
        payload='"no"',
    )
    assert wording.state(pending, START_MS).plain.startswith("polled 2 times, again ")
    assert wording.result(pending).plain == ' state "no"'


# -- show ----------------------------------------------------------------------------------------


def ended(record: Operation, payload: str | None = None, **changes: object) -> Any:
    return changed(
        record, status=Status.SUCCEEDED, end_ms=record.start_ms, payload=payload, **changes
    )


def test_operations_stand_below_their_parents() -> None:
    context = changed(STEP, id="p", type=OperationType.CONTEXT, name="child")
    operations = [
        changed(STEP, id="e1", type=OperationType.EXECUTION),
        ended(STEP, id="a", name="a", payload="1"),
        context,
        ended(STEP, id="b", name="b", parent_id="p"),
        ended(STEP, id="d", name="d", parent_id="missing"),
        ended(STEP, id="c", name="c", parent_id="p"),
    ]
    time = time_of_day(START_MS)
    assert render(*views.operation_lines(operations, START_MS)).split("\n") == [
        f"├─ {time} a succeeded after 0ms = 1",
        f"├─ {time} child context child running",
        f"│  ├─ {time} b succeeded after 0ms",
        f"│  └─ {time} c succeeded after 0ms",
        f"└─ {time} d succeeded after 0ms",
    ]


def test_what_is_of_several_days_has_dates() -> None:
    later_ms = START_MS + 7 * 86_400_000
    operations = [ended(STEP, id="a", name="a"), changed(STEP, id="b", name="b", start_ms=later_ms)]
    first, second = render(*views.operation_lines(operations, None)).split("\n")
    assert first.startswith(f"├─ {moment(START_MS)}.")
    assert second.startswith(f"└─ {moment(later_ms)}.")


def test_a_parent_that_is_its_own_child_is_no_endless_tree() -> None:
    assert list(views.operation_lines([changed(STEP, parent_id="s")], START_MS)) == []


def test_a_deep_tree_is_shown() -> None:
    operations = [
        ended(STEP, id=str(depth), parent_id=str(depth - 1) if depth else None)
        for depth in range(3_000)
    ]
    assert sum(1 for _ in views.operation_lines(operations, START_MS)) == 3_000


def test_an_execution_in_words() -> None:
    summary = changed(
        SUMMARY,
        status=ExecutionStatus.FAILED,
        end_ms=START_MS + 90_000,
        error=ErrorRecord("no", "ValueError", None, ("  File a.py\n    f()\n", "  File b.py\n")),
    )
    assert render(*views.execution_lines(summary, START_MS)).split("\n") == [
        "first  FAILED",
        "  workflow  order",
        "  id        e1",
        f"  started   {moment(START_MS)}",
        f"  ended     {moment(START_MS + 90_000)}, after 1m30s",
        "  input     {",
        '    "order_id": "A"',
        "  }",
        "  error     ValueError: no",
        "      File a.py",
        "        f()",
        "      File b.py",
    ]


def test_a_running_execution_says_when_it_wakes_and_what_is_wrong() -> None:
    summary = changed(
        SUMMARY,
        wake_ms=START_MS + 60_000,
        failed_invocations=3,
        problem=ErrorRecord("its process died", "Interrupted"),
    )
    shown = render(*views.execution_lines(summary, START_MS))
    assert "(in 1m)" in shown
    assert "3 times: Interrupted: its process died" in shown
    listed = render(views.executions_table([summary], START_MS))
    assert "(in 1m)" in listed
    assert "3 times: Interrupted: its process died" in listed


def test_huge_values_are_cut_for_people() -> None:
    summary = changed(SUMMARY, input_payload='"' + "a" * 100_000 + '"')
    shown = render(*views.execution_lines(summary, START_MS))
    assert len(shown) < 2 * views.VALUE_LENGTH
    assert "100,002 characters; --json shows all" in shown
    assert len(wording.result(ended(STEP, payload=summary.input_payload)).plain) < 300


# -- nothing is interpreted ----------------------------------------------------------------------


def test_what_a_history_says_is_not_interpreted() -> None:
    error = ErrorRecord(EVIL, EVIL, None, (EVIL,))
    summary = changed(
        SUMMARY,
        id=EVIL,
        name=EVIL,
        workflow_name=EVIL,
        input_payload=EVIL,
        result=EVIL,
        error=error,
        problem=error,
    )
    operations = [
        changed(STEP, name=EVIL, error=error, status=Status.FAILED, payload=EVIL),
        changed(CALLBACK, name=EVIL, callback_id=EVIL),
    ]
    event = HistoryEvent(
        id=1,
        type="StepFailed",
        time_ms=START_MS,
        operation_id=EVIL,
        operation_type=OperationType.STEP,
        name=EVIL,
        payload=EVIL,
        error=error,
        callback_id=EVIL,
        function_name=EVIL,
    )
    shown = render(
        *views.execution_lines(summary, START_MS),
        *views.operation_lines(operations, START_MS),
        views.executions_table([summary], START_MS),
        *views.event_lines([event]),
        timeline(operations, START_MS),
        width=2_000,
    )
    assert shown.replace("\n", "").isprintable()
    assert shown.count(TAME) >= 15


# -- list, history, timeline ---------------------------------------------------------------------


def test_the_list_has_a_line_for_each_execution() -> None:
    other = changed(SUMMARY, name="second", status=ExecutionStatus.SUCCEEDED, end_ms=START_MS + 5)
    head, first, second = render(views.executions_table([SUMMARY, other], START_MS + 2_000)).split(
        "\n"
    )
    assert head.split() == "name workflow status started duration next wake problem".split()
    assert first.split() == ["first", "order", "RUNNING", *moment(START_MS).split(), "2s"]
    assert second.split() == ["second", "order", "SUCCEEDED", *moment(START_MS).split(), "5ms"]


def test_events_say_what_matters() -> None:
    base = HistoryEvent(
        id=7,
        type="StepFailed",
        time_ms=START_MS,
        operation_id="a",
        operation_type="STEP",  # type: ignore[arg-type]
    )
    lines = render(
        *views.event_lines(
            [
                changed(
                    base,
                    name="charge",
                    current_attempt=1,
                    delay_seconds=90,
                    error=ErrorRecord("busy", "E"),
                ),
                changed(base, wait_seconds=300),
                changed(base, timeout_seconds=3600, heartbeat_timeout_seconds=60, callback_id="x"),
                changed(base, function_name="f", payload="[1]"),
            ]
        )
    ).split("\n")
    assert lines[0].startswith(f"7  {time_of_day(START_MS)}  StepFailed")
    days = views.event_lines([base, changed(base, time_ms=START_MS + 86_400_000)])
    assert [line.plain[3:13] for line in days] == [
        moment(START_MS)[:10],
        moment(START_MS + 86_400_000)[:10],
    ]
    assert [line.partition("StepFailed")[2].split(maxsplit=0)[0].rstrip() for line in lines] == [
        "charge  attempt 1, again in 1m30s, E: busy",
        "wait 5m",
        "timeout 1h, heartbeat timeout 1m, id x",
        "function f = [1]",
    ]


def test_bars_are_to_scale() -> None:
    operations = [
        ended(STEP, id="a", name="a"),
        changed(WAIT, status=Status.SUCCEEDED, end_ms=START_MS + 1_000),
        changed(STEP, id="b", name="b", start_ms=START_MS + 500),
    ]
    first, wait, last = render(timeline(operations, START_MS + 1_000)).split("\n")
    assert first.split() == ["a", "━", "0ms"]
    assert wait.split() == ["wait", "5m", "─" * TIMELINE_WIDTH, "1s"]
    assert last.split() == ["b", "━" * (TIMELINE_WIDTH // 2), "500ms"]


def test_a_long_timeline_ends_with_how_many_more() -> None:
    operations = [ended(STEP, id=str(number), name="a") for number in range(3_000)]
    lines = render(timeline(operations, START_MS)).split("\n")
    assert len(lines) < 100
    assert lines[-1] == "and 2,960 more"


def test_no_operations_make_no_timeline() -> None:
    assert render(timeline([changed(STEP, type=OperationType.EXECUTION)], START_MS)) == ""


# -- documents -----------------------------------------------------------------------------------


def test_the_fields_of_documents() -> None:
    execution = documents.execution_document(changed(SUMMARY, problem=ErrorRecord("m", "T")))
    assert execution == {
        "id": "e1",
        "name": "first",
        "workflow_name": "order",
        "status": "RUNNING",
        "start_ms": START_MS,
        "end_ms": None,
        "wake_ms": None,
        "failed_invocations": 0,
        "problem": {"type": "T", "message": "m", "data": None, "stack_trace": []},
        "input": {"order_id": "A"},
        "result": None,
        "error": None,
    }
    (operation,) = documents.operations_document(
        [changed(STEP, type=OperationType.EXECUTION), ended(STEP, payload="[1]")]
    )
    assert operation == {
        "id": "s",
        "type": "STEP",
        "subtype": None,
        "status": "SUCCEEDED",
        "name": "charge",
        "parent_id": None,
        "start_ms": START_MS,
        "end_ms": START_MS,
        "attempt": 0,
        "attempt_start_ms": None,
        "next_attempt_ms": None,
        "scheduled_end_ms": None,
        "callback_id": None,
        "result": [1],
        "state": None,
        "error": None,
    }


def test_a_listed_execution_shows_no_payloads() -> None:
    listed = documents.listed_document(changed(SUMMARY, result='"secret"'))
    assert {"input", "result", "error"}.isdisjoint(listed)


def test_an_event_has_all_its_fields() -> None:
    event = HistoryEvent(
        id=1,
        type="StepSucceeded",
        time_ms=START_MS,
        operation_id="a",
        operation_type=OperationType.STEP,
        payload='{"a":1}',
    )
    document = documents.event_document(event)
    assert set(document) == set(HistoryEvent.__struct_fields__)
    assert document["payload"] == {"a": 1}


def test_a_long_stack_shows_what_led_to_the_error_and_where_it_was_raised() -> None:
    stack = tuple(f'  File "a.py", line {number}' for number in range(30))
    lines = [line.plain.strip() for line in wording.stack_lines(ErrorRecord("m", "T", None, stack))]
    assert lines[0] == 'File "a.py", line 0'
    assert lines[5] == "… [20 entries left out]"
    assert lines[-1] == 'File "a.py", line 29'
    short = ErrorRecord("m", "T", None, stack[:10])
    assert len(list(wording.stack_lines(short))) == 10
