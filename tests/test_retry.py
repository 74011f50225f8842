from __future__ import annotations

import dataclasses
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow.errors import (
    DurationError,
    FatalError,
    RetryableError,
    SerializationError,
    StepInterruptedError,
    StepTimeoutError,
    UsageError,
)
from pyworkflow.retry import Retry

STEADY = Retry(max_attempts=10, jitter=False)


def delay(policy: Retry, error: BaseException, attempt: int = 1) -> int | None:
    return policy.delay_after(error, attempt, Random(1))


def test_delay_grows_up_to_the_longest() -> None:
    policy = Retry(max_attempts=9, delay="10s", backoff=3, max_delay="2m", jitter=False)
    assert [delay(policy, ValueError(), n) for n in range(1, 6)] == [10, 30, 90, 120, 120]


def test_a_delay_is_a_whole_second_at_least() -> None:
    assert delay(Retry(delay=0, jitter=False), ValueError()) == 1
    assert delay(Retry(delay=0.25), ValueError()) == 1
    assert delay(Retry(delay=1.25, jitter=False), ValueError()) == 2


def test_an_overflowing_delay_is_the_longest() -> None:
    policy = Retry(max_attempts=10**6, backoff=10, max_delay="1h", jitter=False)
    assert delay(policy, ValueError(), 100_000) == 3_600


@given(st.integers(min_value=1, max_value=30), st.randoms(use_true_random=False))
def test_jitter_is_between_half_and_whole(attempt: int, random: Random) -> None:
    policy = Retry(max_attempts=99, delay="10s", max_delay="10m")
    full = min(600, 10 * 2 ** (attempt - 1))
    found = policy.delay_after(ValueError(), attempt, random)
    assert found is not None
    assert full / 2 <= found <= full


def test_jitter_spreads() -> None:
    random = Random(7)
    policy = Retry(max_attempts=99, delay="100s")
    found = {policy.delay_after(ValueError(), 1, random) for _ in range(50)}
    assert len(found) > 10


def test_no_attempt_beyond_the_last() -> None:
    policy = Retry(max_attempts=2)
    assert delay(policy, ValueError(), 1) is not None
    assert delay(policy, ValueError(), 2) is None
    assert delay(policy, RetryableError(), 2) is None


@pytest.mark.parametrize("error", [FatalError(), SerializationError(""), KeyboardInterrupt()])
def test_never_retried(error: BaseException) -> None:
    assert delay(STEADY, error) is None


@pytest.mark.parametrize("error", [RetryableError(), StepTimeoutError(), StepInterruptedError()])
def test_retried_whatever_on_says_unless_given_up(error: Exception) -> None:
    assert delay(Retry(on=(OSError,)), error) == 1
    assert delay(Retry(on=(OSError,), give_up_on=(type(error),)), error) is None


def test_on_and_give_up_on_are_classes_with_their_subclasses() -> None:
    policy = Retry(on=(OSError,), give_up_on=(FileNotFoundError,))
    assert delay(policy, ConnectionError()) == 1
    assert delay(policy, FileNotFoundError()) is None
    assert delay(policy, ValueError()) is None


@pytest.mark.parametrize(("own", "seconds"), [(0, 1), ("30s", 30), (1.5, 2), ("2h", 7_200)])
def test_retry_after_replaces_the_delay(own: float | str, seconds: int) -> None:
    assert delay(Retry(), RetryableError("busy", retry_after=own)) == seconds


@pytest.mark.parametrize("own", ["5", -1, "soon"])
def test_a_malformed_retry_after_is_noted_and_ignored(own: float | str) -> None:
    error = RetryableError("busy", retry_after=own)
    assert delay(STEADY, error, 3) == 4
    (note,) = error.__notes__
    assert "retry_after was ignored" in note
    assert repr(own) in note


def test_an_error_that_takes_no_note_is_retried_all_the_same() -> None:
    class SealedError(RetryableError):
        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith("__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    assert delay(STEADY, SealedError("x", retry_after="soon")) == 1


@pytest.mark.parametrize(
    ("value", "attempts"), [(None, 3), (True, 3), (False, 1), (1, 1), (7, 7), (STEADY, 10)]
)
def test_of(value: Any, attempts: int) -> None:
    assert Retry.of(value).max_attempts == attempts


def test_of_keeps_a_policy() -> None:
    assert Retry.of(STEADY) is STEADY


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", [3]])
def test_of_refuses(value: Any) -> None:
    with pytest.raises(UsageError, match="expects the number of attempts"):
        Retry.of(value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_attempts": 0}, "max_attempts.*found 0"),
        ({"max_attempts": True}, "found True"),
        ({"backoff": 0.5}, "backoff.*found 0.5"),
        ({"backoff": math.nan}, "backoff"),
        ({"backoff": math.inf}, "backoff"),
        ({"backoff": "2"}, "backoff"),
        ({"backoff": True}, "backoff"),
        ({"delay": "10m"}, "longer than max_delay='5m'"),
        ({"jitter": 1}, "jitter"),
        ({"on": ValueError}, r"on=\(ConnectionError,\)"),
        ({"on": (3,)}, "found \\(3,\\)"),
        ({"give_up_on": (int,)}, "give_up_on"),
    ],
)
def test_a_policy_is_checked_when_made(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Retry(**option)


def test_durations_are_checked_when_the_policy_is_made() -> None:
    with pytest.raises(DurationError, match="'5' has no unit"):
        Retry(delay="5")
    with pytest.raises(DurationError, match="is negative"):
        Retry(max_delay=-1)


def test_a_policy_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STEADY.max_attempts = 4  # type: ignore[misc]
