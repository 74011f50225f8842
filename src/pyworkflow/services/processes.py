"""Which process something belongs to. A fork copies memory, and neither threads nor their locks.

So what lives on threads is of no use in a child process: asking it would wait forever, and what
would end it touches what both processes share. There it is refused, and left as it is.
"""

from __future__ import annotations

import os

from pyworkflow.errors import UsageError

here = os.getpid()
"""The id of this process, kept: each request wants it."""


def check_process(opened_by: int, what: str) -> None:
    """Raise `UsageError` in another process than ``opened_by``, which opened ``what``."""
    if here != opened_by:
        raise UsageError(
            f"{what} was opened by process {opened_by}, and this is process {here}, which was "
            "forked from it: threads do not survive a fork, so nobody would answer. Open another "
            "one in this process, after the fork"
        )


def _look_again() -> None:
    global here  # noqa: PLW0603 - a process has one id
    here = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_look_again)
