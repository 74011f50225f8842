"""The time that an invocation has.

Two moments: from the first no further attempt of a step begins, at the second the invocation ends,
whatever runs. In between, attempts that run may end, and their outcomes are recorded.
"""

from __future__ import annotations

from typing import NamedTuple


class Deadline(NamedTuple):
    """When the last step may begin, and when the invocation ends, in ms since the epoch."""

    last_call_ms: int
    end_ms: int

    @classmethod
    def after(cls, now_ms: int, remaining_ms: int) -> Deadline:
        """Return the deadline of a process that will be stopped ``remaining_ms`` from now.

        A tenth of the time, at most 10 s, is left to the steps that run; a twentieth, at most 1 s,
        to the last checkpoint and the answer.
        """
        stop_ms = now_ms + remaining_ms
        return cls(
            stop_ms - min(10_000, remaining_ms // 10), stop_ms - min(1_000, remaining_ms // 20)
        )
