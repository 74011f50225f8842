"""Forks of this process. A fork copies memory, but no threads, and locks as they were.

An object that relies on threads is useless in a child process: a call would wait forever, and
closing it would touch what both processes share. So the child refuses to use it and leaves it
alone. (Whether *another* process is alive is the concern of `sqlite._liveness`.)
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

here = os.getpid()
"""The id of this process, cached since each request checks it."""


def check_process(opened_by: int, what: str) -> None:
    """Raise `UsageError` in a process other than ``opened_by``, which opened ``what``."""
    if here != opened_by:
        raise UsageError(
            f"{what} was opened by process {opened_by}, and this is process {here}, which was "
            "forked from it: threads do not survive a fork, so no call would return. Open another "
            "one in this process, after the fork"
        )


loading = threading.Lock()
"""Locked while a thread imports a part of this package: a fork in between would copy half of it.

The imported module may add to ``at_fork``; a fork that waited for the lock calls the addition.
"""


class AtFork(NamedTuple):
    """Functions to call at each fork, on the thread that forks."""

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
