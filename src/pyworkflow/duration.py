"""The parser of durations for the whole library.

A duration is a number of seconds, a `timedelta`, or text in which each number carries its unit,
from days down to seconds. Text without a unit is refused: ``"5"`` means minutes to one reader and
seconds to another. Services count whole seconds, so durations sent to them are rounded up: a wait
is never shorter than what was asked for.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from pyworkflow.errors import DurationError

__all__ = ["Duration", "format_duration", "parse_duration"]

Duration = int | float | str | timedelta
"""Seconds as a number, text such as ``"90s"``, ``"1h30m"``, ``"7d"``, or a `timedelta`."""

MAX_SECONDS = 366 * 86_400
"""The longest duration, and so the longest wait and the longest delay before a retry."""

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_TEXT = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in _SECONDS))
_ACCEPTED = (
    'give seconds (90, 1.5), text with units d, h, m, s in that order ("90s", "5m", "1h30m", "7d") '
    "or a timedelta, from 0 to 366 days"
)


def parse_duration(value: Duration) -> float:
    """Return the seconds of a duration.

    Raises `DurationError` for anything that is malformed, negative or longer than 366 days.
    """
    match value:
        case bool():
            raise _refusal(value, "is a bool")
        case int() | float():
            seconds = value
        case timedelta():
            seconds = value.total_seconds()
        case str():
            seconds = _parse_text(value)
        case _:
            raise _refusal(value, f"is of type {type(value).__name__}")
    if not seconds >= 0:
        raise _refusal(value, "is not a number" if math.isnan(seconds) else "is negative")
    if seconds > MAX_SECONDS:
        raise _refusal(value, "is longer than 366 days")
    return float(seconds)


def whole_seconds(value: Duration) -> int:
    """Return a duration in whole seconds, rounded up; 0 stays 0.

    Fractions below half a millisecond are arithmetic noise and dropped first, unless they are all.

    Raises `DurationError` as `parse_duration` does.
    """
    seconds = parse_duration(value)
    milliseconds = round(seconds * 1000) or (seconds > 0)
    return -(-milliseconds // 1000)


def format_duration(seconds: float) -> str:
    """Return ``seconds`` (0 or more) as text that `parse_duration` reads: ``"1h30m"``, ``"0s"``.

    It is exact to the millisecond.
    """
    rest = round(seconds * 1000)
    parts = []
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _SECONDS[unit] * 1000)
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        parts.append(f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def _parse_text(text: str) -> float:
    found = _TEXT.fullmatch(text)
    if found is None or not text:
        bare = re.fullmatch(r"\s*-?[0-9.]+\s*", text)
        raise _refusal(text, "has no unit" if bare else "can't be read")
    numbers = zip(found.groups(), _SECONDS.values(), strict=True)
    return math.fsum(float(number) * unit for number, unit in numbers if number)


def _refusal(value: object, fault: str) -> DurationError:
    # Python refuses to print integers of thousands of digits.
    shown = "a huge integer" if isinstance(value, int) and abs(value) > 10**20 else repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return DurationError(f"The duration {shown} {fault}: {_ACCEPTED}.")
