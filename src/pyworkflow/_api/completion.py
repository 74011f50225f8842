"""When a fan-out is over, and whether it succeeded: AWS's rules, as pure functions of counts.

The rules are applied in this order each time a branch ends. Too many failures end a fan-out at
once. Otherwise it is over when all branches have ended, or when enough have succeeded. Without any
option, the first failure is one too many; with ``min_successful`` alone, any number is tolerated.

Source: the completion policy of AWS's SDK for Lambda durable functions.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from pyworkflow.errors import UsageError


class CompletionReason(StrEnum):
    """Why a fan-out ended."""

    ALL_COMPLETED = "ALL_COMPLETED"
    MIN_SUCCESSFUL_REACHED = "MIN_SUCCESSFUL_REACHED"
    FAILURE_TOLERANCE_EXCEEDED = "FAILURE_TOLERANCE_EXCEEDED"


class Completion(msgspec.Struct, frozen=True):
    """The options of one fan-out; ``tolerated_failure_percentage`` is of all its branches."""

    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None

    def check(self, total: int, what: str) -> None:
        """Raise `UsageError` unless the options are valid for ``total`` branches."""
        least = check_count(self.min_successful, "min_successful", 1, what)
        check_count(self.tolerated_failure_count, "tolerated_failure_count", 0, what)
        percentage = self.tolerated_failure_percentage
        if percentage is not None and not (
            isinstance(percentage, (int, float))
            and not isinstance(percentage, bool)
            and 0 <= percentage <= 100
        ):
            raise UsageError(
                f"tolerated_failure_percentage of {what} must be a number from 0 to 100, not "
                f"{percentage!r}"
            )
        if least is not None and least > total:
            raise UsageError(
                f"{what} can't succeed: min_successful is {least}, but there are only "
                f"{total} branches. Lower min_successful or leave it out"
            )

    def reason(self, total: int, succeeded: int, failed: int) -> CompletionReason | None:
        """Return why a fan-out of ``total`` branches is over, `None` while it goes on."""
        if self._tolerance_is_exceeded(total, failed):
            return CompletionReason.FAILURE_TOLERANCE_EXCEEDED
        if succeeded + failed >= total:
            return CompletionReason.ALL_COMPLETED
        if self.min_successful is not None and succeeded >= self.min_successful:
            return CompletionReason.MIN_SUCCESSFUL_REACHED
        return None

    def is_met(self, reason: CompletionReason, succeeded: int) -> bool:
        """Whether a fan-out that ended for ``reason`` met its options."""
        if reason is CompletionReason.ALL_COMPLETED:
            return self.min_successful is None or succeeded >= self.min_successful
        return reason is CompletionReason.MIN_SUCCESSFUL_REACHED

    def _tolerance_is_exceeded(self, total: int, failed: int) -> bool:
        count, percentage = self.tolerated_failure_count, self.tolerated_failure_percentage
        if count is None and percentage is None:
            return self.min_successful is None and failed > 0
        if count is not None and failed > count:
            return True
        # Decimal, as the number was written: with floats, 7 of 100 would be more than 7 %.
        return percentage is not None and failed * 100 > Decimal(str(percentage)) * total


def check_count(value: object, option: str, least: int, what: str) -> int | None:
    """Return ``value``: `None` or a whole number from ``least``. Raise `UsageError` for others."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{option} of {what} must be a whole number from {least}, not {value!r}")
    return value
