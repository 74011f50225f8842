"""When a failed step is tried again, and after how long.

A policy is data, checked when it is made. It decides from the error and the number of the attempt
that failed; chance comes in as an argument, so the decision can be repeated. The author's choice,
made by raising `FatalError` or `RetryableError`, outranks the policy's ``on``; ``give_up_on``
outranks `RetryableError`; nothing outranks ``max_attempts``.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from pyworkflow.duration import Duration, parse_duration, whole_seconds
from pyworkflow.errors import (
    DurationError,
    FatalError,
    RetryableError,
    StepInterruptedError,
    StepTimeoutError,
    UsageError,
)

__all__ = ["Retry"]

# Running a body again mends no wrong use and makes no result storable: it repeats its side effects.
_NEVER = (FatalError, UsageError)
_ALWAYS = (RetryableError, StepTimeoutError, StepInterruptedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Describe how often, when and after which errors a step is tried again.

    ``max_attempts`` counts all attempts, the first one included. The delay after attempt *n* is
    ``delay * backoff ** (n - 1)``, at most ``max_delay``; ``jitter`` takes it from between one half
    and the whole of that. ``on`` are the exception classes that are retried, ``give_up_on`` those
    among them that are not.

    Raises `UsageError` for a value that makes no sense, `DurationError` for a malformed duration.
    """

    max_attempts: int = 3
    delay: Duration = "1s"
    backoff: float = 2
    max_delay: Duration = "5m"
    jitter: bool = True
    on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts, "Retry(max_attempts=…)")
        factor: object = self.backoff
        is_number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if not is_number or not 1 <= self.backoff < math.inf:
            raise UsageError(
                f"Retry(backoff=…) expects a number from 1 upwards, found {factor!r}: "
                "1 keeps the delay, 2 doubles it after each attempt."
            )
        if parse_duration(self.delay) > parse_duration(self.max_delay):
            raise UsageError(
                f"Retry(delay={self.delay!r}) is longer than max_delay={self.max_delay!r}: "
                "raise max_delay as well."
            )
        if not isinstance(self.jitter, bool):
            raise UsageError(f"Retry(jitter=…) expects True or False, found {self.jitter!r}.")
        _check_classes(self.on, "on")
        _check_classes(self.give_up_on, "give_up_on")

    @classmethod
    def of(cls, value: Retry | int | bool | None) -> Retry:
        """Return the policy that a ``retry=`` option means.

        A number is that many attempts; `False` is a single one; `True` and `None` are the default.

        Raises `UsageError` for anything else.
        """
        match value:
            case Retry():
                return value
            case None | True:
                return cls()
            case False:
                return cls(max_attempts=1)
            case _:
                _check_attempts(value, "retry=…")
                return cls(max_attempts=value)

    def delay_after(self, error: BaseException, attempt: int, random: Random) -> int | None:
        """Return the whole seconds (at least 1) until the next attempt, `None` for no further one.

        ``attempt`` counts from 1 and is the one that has just failed with ``error``. A
        ``retry_after`` that is not a duration is replaced by the policy's own delay, and a note on
        the error says so.
        """
        if attempt >= self.max_attempts or not self._is_retried(error):
            return None
        own = getattr(error, "retry_after", None) if isinstance(error, RetryableError) else None
        if own is not None:
            try:
                return max(1, whole_seconds(own))
            except DurationError as fault:
                with suppress(Exception):  # of a frozen dataclass, say
                    error.add_note(f"retry_after was ignored, the policy's delay applies. {fault}")
        return max(1, whole_seconds(self._own_delay(attempt, random)))

    def _is_retried(self, error: BaseException) -> bool:
        if isinstance(error, (*_NEVER, *self.give_up_on)):
            return False
        return isinstance(error, (*_ALWAYS, *self.on))

    def _own_delay(self, attempt: int, random: Random) -> float:
        longest = parse_duration(self.max_delay)
        try:
            delay = min(longest, parse_duration(self.delay) * float(self.backoff) ** (attempt - 1))
        except OverflowError:
            delay = longest
        return random.uniform(delay / 2, delay) if self.jitter else delay


def _check_attempts(value: object, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(
            f"{where} expects the number of attempts, 1 or more, found {value!r}: "
            "the first attempt counts; for none but that use 1, or retry=False."
        )


def _check_classes(value: object, option: str) -> None:
    # A lone class would work in isinstance(), but then `policy.on` has two shapes.
    if not isinstance(value, tuple) or not all(
        isinstance(each, type) and issubclass(each, BaseException) for each in value
    ):
        raise UsageError(
            f"Retry({option}=…) expects a tuple of exception classes, found {value!r}: "
            f"write {option}=(ConnectionError,)."
        )
