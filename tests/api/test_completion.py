from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyworkflow import UsageError
from pyworkflow._api.completion import Completion, CompletionReason

ALL = CompletionReason.ALL_COMPLETED
ENOUGH = CompletionReason.MIN_SUCCESSFUL_REACHED
TOO_MANY = CompletionReason.FAILURE_TOLERANCE_EXCEEDED


def judge(
    outcomes: list[bool], least: int | None, count: int | None, tenths: int | None
) -> tuple[CompletionReason, int, bool]:
    """Look at whole prefixes of the outcomes: where it ends, why, and whether that is a success."""
    total = len(outcomes)
    for seen in range(total + 1):
        failures = outcomes[:seen].count(False)
        successes = outcomes[:seen].count(True)
        limits = [Fraction(limit) for limit in (count,) if limit is not None]
        limits += [Fraction(tenths, 1000) * total] if tenths is not None else []
        if not limits and least is None:
            limits = [Fraction(0)]
        if any(failures > limit for limit in limits):
            return TOO_MANY, seen, False
        if seen == total:
            return ALL, seen, least is None or successes >= least
        if least is not None and successes >= least:
            return ENOUGH, seen, True
    raise AssertionError


@given(
    st.lists(st.booleans(), max_size=40),
    st.none() | st.integers(1, 40),
    st.none() | st.integers(0, 40),
    st.none() | st.integers(0, 1000),
)
@example([False] * 7 + [True] * 93, None, None, 70)
@example([True, False, True], 3, None, None)
def test_the_policy_is_that_of_the_oracle(
    outcomes: list[bool], least: int | None, count: int | None, tenths: int | None
) -> None:
    if least is not None:
        least = min(least, len(outcomes)) or None
    completion = Completion(least, count, None if tenths is None else tenths / 10)
    completion.check(len(outcomes), "it")
    succeeded = failed = 0
    reason = completion.reason(len(outcomes), 0, 0)
    for ended in outcomes:
        if reason is not None:
            break
        succeeded, failed = succeeded + ended, failed + (not ended)
        reason = completion.reason(len(outcomes), succeeded, failed)
    assert reason is not None
    met = completion.is_met(reason, succeeded)
    assert (reason, succeeded + failed, met) == judge(outcomes, least, count, tenths)


@pytest.mark.parametrize(
    ("options", "total", "message"),
    [
        ({"min_successful": 0}, 3, "min_successful of it must be a whole number from 1, not 0"),
        ({"min_successful": True}, 3, "not True"),
        ({"min_successful": 4}, 3, "min_successful is 4, but there are only 3 branches"),
        ({"min_successful": 1}, 0, "only 0 branches"),
        ({"tolerated_failure_count": -1}, 3, "a whole number from 0, not -1"),
        ({"tolerated_failure_count": 1.5}, 3, "not 1.5"),
        ({"tolerated_failure_percentage": 101}, 3, "a number from 0 to 100, not 101"),
        ({"tolerated_failure_percentage": -0.1}, 3, "not -0.1"),
        ({"tolerated_failure_percentage": float("nan")}, 3, "not nan"),
        ({"tolerated_failure_percentage": "5"}, 3, "not '5'"),
        ({"tolerated_failure_percentage": True}, 3, "not True"),
    ],
)
def test_impossible_options_are_told(options: dict[str, Any], total: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Completion(**options).check(total, "it")
