"""Filters and pages of lists, for memory and SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyworkflow._protocol.executions import ExecutionStatus, Paged
from pyworkflow.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from pyworkflow._protocol.executions import ExecutionSummary

    T = TypeVar("T")

_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a list, as `Filters` documents them."""

    workflow_name: str | None = None
    status: ExecutionStatus | None = None
    execution_name: str | None = None
    name_prefix: str | None = None
    id_prefix: str | None = None
    started_from_ms: int | None = None
    started_before_ms: int | None = None
    has_problem: bool | None = None

    def matches(self, summary: ExecutionSummary) -> bool:
        """Return whether an execution matches every filter."""
        return (
            self.workflow_name in {None, summary.workflow_name}
            and self.status in {None, summary.status}
            and self.execution_name in {None, summary.name}
            and (self.name_prefix is None or summary.name.startswith(self.name_prefix))
            and (self.id_prefix is None or summary.id.startswith(self.id_prefix))
            and (self.started_from_ms is None or summary.start_ms >= self.started_from_ms)
            and (self.started_before_ms is None or summary.start_ms < self.started_before_ms)
            and self.has_problem in {None, summary.problem is not None}
        )


def end_of_prefix(prefix: str) -> str | None:
    """Return the first string after all those that begin with ``prefix``, `None` if none is."""
    while prefix:
        following = ord(prefix[-1]) + 1
        if following in _SURROGATES:
            following = _SURROGATES.stop
        if following <= _LAST_CHARACTER:
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return None


def number_of(after: str | None, most: int = (1 << 63) - 1) -> int | None:
    """Return the number in a marker. Raises `ServiceError` for an invalid marker.

    ``most`` is the greatest number that a marker can have.
    """
    if after is None:
        return None
    # Digits of other scripts are not accepted.
    is_number = isinstance(after, str) and after.isascii() and after.isdigit() and len(after) <= 20
    if not is_number or int(after) > most:
        raise ServiceError(
            f"Expected the marker of a page as after=, found {after!r}; pass page.marker unchanged"
        )
    return int(after)


def page_of(items: Sequence[T], limit: int, after: str | None) -> Paged[T]:
    """Return a page of ``items``; its marker is the index of the next page's first item."""
    first = number_of(after) or 0
    end = first + limit
    return Paged(items[first:end], str(end) if limit and len(items) > end else None)
