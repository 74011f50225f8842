"""The laws find what breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.crash_log import Began, Laws, Line, Log, Recorded, Started


def began(attempt: int = 1, *, pid: int = 1, most: int = 0) -> Began:
    return Began("e", "o", "charge", attempt, most, pid)


def recorded(attempts: int = 1, *, is_over: bool = True) -> Recorded:
    return Recorded("e", "o", attempts, is_over)


@pytest.mark.parametrize(
    "lines",
    [
        [began(), recorded()],
        [began(pid=1), began(pid=2), recorded()],
        [began(1), recorded(1, is_over=False), began(2, pid=2), recorded(2)],
        [began(most=2), began(2, most=2), recorded(2)],
        [began(), recorded(), Recorded("e", "p", 1, is_over=True), Started("e", "w", "n")],
    ],
)
def test_what_may_be(lines: list[Line]) -> None:
    assert Laws(iter(lines)).broken == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([began(), recorded(), began(pid=2)], "although its outcome was recorded"),
        ([recorded(1, is_over=False), began(1)], "although its outcome was recorded"),
        ([began(most=1), began(most=1, pid=2)], "may run once"),
        ([began(most=1), began(2, most=1)], "may run once"),
        ([began(), began()], "twice in one process"),
    ],
)
def test_what_must_never_be(lines: list[Line], message: str) -> None:
    (found,) = Laws(iter(lines)).broken
    assert message in found


def test_lines_are_read_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    first, second = Log(tmp_path / "log"), Log(tmp_path / "log")
    first.write(began())
    second.write(began(2), recorded(2))
    first.write(Started("e", "w", "n"))
    assert list(second.read()) == [began(), began(2), recorded(2), Started("e", "w", "n")]
    first.close()
    second.close()
