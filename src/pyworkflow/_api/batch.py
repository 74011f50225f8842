"""The result of `ctx.parallel` and `ctx.map`: each branch's outcome, in the order of the input."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import msgspec

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pyworkflow._api.completion import CompletionReason

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class BranchStatus(StrEnum):
    """The status of a branch when its fan-out was over."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STARTED = "STARTED"
    """It was still running, and was cancelled."""
    NOT_STARTED = "NOT_STARTED"


class BatchItem(msgspec.Struct, Generic[T_co], frozen=True):
    """A branch. ``result`` is `None` unless it SUCCEEDED, ``error`` unless it FAILED."""

    index: int
    name: str
    status: BranchStatus
    result: T_co | None = None
    error: Exception | None = None


class BatchResult(Generic[T_co]):
    """The outcome of a fan-out.

    ``items`` has one `BatchItem` per branch, in the order of the input; ``completion_reason`` says
    why the fan-out ended. ``batch[2]`` and ``batch["name"]`` are one branch's result.
    """

    # Not a dataclass: with errors in it, it could not be stored; without them it would be a dict.
    __slots__ = ("completion_reason", "items")

    def __init__(
        self, items: tuple[BatchItem[T_co], ...], completion_reason: CompletionReason
    ) -> None:
        self.items = items
        self.completion_reason = completion_reason

    @property
    def succeeded(self) -> tuple[BatchItem[T_co], ...]:
        """The branches that succeeded."""
        return self._with_status(BranchStatus.SUCCEEDED)

    @property
    def failed(self) -> tuple[BatchItem[T_co], ...]:
        """The branches that failed."""
        return self._with_status(BranchStatus.FAILED)

    @property
    def results(self) -> list[T_co]:
        """The results of the branches that succeeded."""
        return [cast("T_co", item.result) for item in self.succeeded]

    @property
    def errors(self) -> list[Exception]:
        """The errors of the branches that failed."""
        return [item.error for item in self.items if item.error is not None]

    @property
    def total_count(self) -> int:
        """The number of branches."""
        return len(self.items)

    @property
    def success_count(self) -> int:
        """The number of branches that succeeded."""
        return len(self.succeeded)

    @property
    def failure_count(self) -> int:
        """The number of branches that failed."""
        return len(self.failed)

    def __getitem__(self, branch: int | str) -> T_co:
        """Return the result of a branch, by its index or name.

        Raises the branch's own error if it failed, `UsageError` if it did not end, `LookupError` if
        the branch does not exist.
        """
        item = self._find(branch)
        if item.error is not None:
            raise item.error
        if item.status is not BranchStatus.SUCCEEDED:
            raise UsageError(
                f"branch {item.name!r} has no result: it is {item.status}, because the fan-out "
                f"ended first ({self.completion_reason}). Use .results, or check an item's .status"
            )
        return cast("T_co", item.result)

    def _find(self, branch: int | str) -> BatchItem[T_co]:
        if isinstance(branch, int):
            return self.items[branch]
        for item in self.items:
            if item.name == branch:
                return item
        raise KeyError(branch)

    def _with_status(self, status: BranchStatus) -> tuple[BatchItem[T_co], ...]:
        return tuple([item for item in self.items if item.status is status])

    def __repr__(self) -> str:
        return (
            f"<BatchResult {self.completion_reason}: {self.success_count} succeeded, "
            f"{self.failure_count} failed, of {self.total_count}>"
        )
