"""Which process something belongs to. A fork copies memory, and neither threads nor their locks.

So what lives on threads is of no use in a child process: asking it would wait forever, and what
would end it touches what both processes share. There it is refused, and left as it is.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

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


loading = threading.Lock()
"""Held while a thread loads a part of this package: a child forked meanwhile would have half of it.

What is loaded then may add to ``at_fork``: a fork that waits for it calls that, too.
"""


class AtFork(NamedTuple):
    """What is called at each fork, on the thread that forks."""

    before: Callable[[], None]
    in_parent: Callable[[], None]
    in_child: Callable[[], None]


at_fork: list[AtFork] = []
_called: tuple[AtFork, ...] = ()


def _before() -> None:
    global _called  # noqa: PLW0603 - there is one fork at a time
    loading.acquire()
    _called = tuple(at_fork)
    for each in _called:
        each.before()


def _in_parent() -> None:
    for each in _called:
        each.in_parent()
    loading.release()


def _in_child() -> None:
    global here  # noqa: PLW0603 - a process has one id
    here = os.getpid()
    for each in _called:
        each.in_child()
    loading.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
