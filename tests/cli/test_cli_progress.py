"""What `run` tells between one look and the next, with operations made by hand."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from pyworkflow._cli.progress import Progress
from pyworkflow._cli.times import time_of_day
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._protocol.records import ErrorRecord, Operation, OperationType, Status
from pyworkflow._runtime.clock import VirtualClock

START_MS = 1_800_000_000_000
AT = time_of_day(START_MS)
STEP = Operation(
    id="s", type=OperationType.STEP, status=Status.STARTED, start_ms=START_MS, name="charge"
)
DONE: Operation = msgspec.structs.replace(STEP, status=Status.SUCCEEDED, end_ms=START_MS)
SUMMARY = ExecutionSummary(
    id="e1",
    name="first",
    workflow_name="order",
    status=ExecutionStatus.RUNNING,
    start_ms=START_MS,
    input_payload="{}",
)


def changed(record: Any, **changes: object) -> Any:
    return msgspec.structs.replace(record, **changes)


def progress() -> Progress:
    return Progress(VirtualClock(START_MS), "complete {}".format)


def test_each_change_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as told:
        told.update([STEP], SUMMARY)
        told.update([STEP], SUMMARY)
        told.update([DONE, changed(STEP, id="c", name="child", parent_id="s")], SUMMARY)
        told.update([DONE, changed(DONE, id="c", name="child", parent_id="s")], SUMMARY)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{AT}  charge running",
        f"{AT}  charge succeeded after 0ms",
        f"{AT}    child running",
        f"{AT}    child succeeded after 0ms",
    ]


def test_what_had_ended_before_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    root = changed(DONE, id="e1", type=OperationType.EXECUTION)
    told = progress()
    told.begin([root, DONE, changed(STEP, id="t")])
    told.update([root, DONE, changed(DONE, id="t")], SUMMARY)
    assert capsys.readouterr().err.splitlines() == [
        "1 operation recorded: not run again",
        "a step was running: if its process died, that shows within 10s",
        f"{AT}  charge succeeded after 0ms",
    ]


def test_a_callback_is_told_with_the_command_that_completes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    callback = changed(STEP, type=OperationType.CALLBACK, callback_id="e1.c", name=None)
    progress().update([callback], SUMMARY)
    assert capsys.readouterr().err.splitlines() == [
        f"{AT}  callback open, id e1.c",
        "  complete it with: complete e1.c",
    ]


def test_what_is_left_when_all_is_over_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    progress().update([STEP], changed(SUMMARY, status=ExecutionStatus.STOPPED))
    assert capsys.readouterr().err == ""


def test_each_problem_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = progress()
    troubled = changed(
        SUMMARY, failed_invocations=1, problem=ErrorRecord("one\ntwo\x1b", "Mismatch")
    )
    told.update([], troubled)
    told.update([], troubled)
    told.update([], changed(troubled, failed_invocations=2, wake_ms=START_MS + 2_000))
    told.update([], SUMMARY)
    told.update([], troubled)
    first, one, two, second, *_, last, _, _ = capsys.readouterr().err.splitlines()
    assert [first, one, two] == [
        "an invocation ended in a problem:",
        "  Mismatch: one",
        r"  two\x1b",
    ]
    assert second.startswith("an invocation ended in a problem, 2 in a row, the next is ")
    assert last == first


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    open_ones = [changed(STEP, id=str(number), name=f"step{number}") for number in range(12)]
    with progress() as told:
        told.update(open_ones, SUMMARY)
        shown = told.open_ones().plain
    assert shown.splitlines()[0] == "… step0 running"
    assert shown.splitlines()[-1] == "… and 2 more"
    assert "\x1b[?25l" in terminal.getvalue()  # the cursor is hidden
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_no_colour_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stderr", terminal)
    with progress() as told:
        told.update([STEP], SUMMARY)
    assert "\x1b" not in terminal.getvalue()
