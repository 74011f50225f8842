from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow.duration import MAX_SECONDS, format_duration, parse_duration, whole_seconds
from pyworkflow.errors import DurationError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (5, 5),
        (1.5, 1.5),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        ("7d", 604_800),
        ("1d2h3m4.5s", 93_784.5),
        ("0s", 0),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        ("366d", MAX_SECONDS),
    ],
)
def test_reads_seconds(value: Any, seconds: float) -> None:
    parsed = parse_duration(value)
    assert parsed == seconds
    assert type(parsed) is float


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (True, "True is a bool"),
        (None, "None is of type NoneType"),
        (-1, "-1 is negative"),
        (timedelta(seconds=-1), "is negative"),
        (math.nan, "nan is not a number"),
        (math.inf, "longer than 366 days"),
        (-math.inf, "is negative"),
        pytest.param(10**5_000, "a huge integer is longer than 366 days", id="huge"),
        (MAX_SECONDS + 1, "longer than 366 days"),
        ("366d1s", "longer than 366 days"),
        ("9" * 400 + "s", "longer than 366 days"),
        ("5", "'5' has no unit"),
        ("-1.5", "has no unit"),
        ("", "'' can't be read"),
        ("5 m", "can't be read"),
        ("250ms", "can't be read"),
        ("5x", "can't be read"),
        ("-5s", "can't be read"),
        ("30m1h", "can't be read"),
        ("5m5m", "can't be read"),
        ("٥m", "can't be read"),
        ("5m\n", "can't be read"),
        ("x" * 500, "…"),
    ],
)
def test_refuses_with_what_was_found_and_what_is_accepted(value: Any, fault: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(value)
    assert fault in str(caught.value)
    assert '"1h30m"' in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (0.0, 0),
        (0.001, 1),
        (0.1 + 0.2, 1),
        (1, 1),
        (3 * 1.1 - 0.3, 3),
        (1.001, 2),
        ("1.5s", 2),
    ],
)
def test_rounds_up_to_whole_seconds_but_not_for_noise(value: Any, seconds: int) -> None:
    assert whole_seconds(value) == seconds


@given(st.integers(min_value=0, max_value=MAX_SECONDS * 1000))
def test_what_is_formatted_is_read_again(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5, "5s"),
        (300, "5m"),
        (5_400, "1h30m"),
        (604_800, "7d"),
        (1.5, "1.5s"),
        (70.25, "1m10.25s"),
    ],
)
def test_formats_the_short_way(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
