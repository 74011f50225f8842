"""What the runtime keeps across calls, in a process that was forked.

Threads are gone there: what lives on them is made anew (`PerProcess`). Loops were copied, while the
kernel's part of them, what they listen to, is shared: closing such a copy, which asyncio also does
when it is collected, would make the parent deaf (`disown`, in the engine's `tasks`).
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyworkflow._api.input_binding import InputBinder
from pyworkflow._api.step import StepOptions
from pyworkflow._api.workflow import EntryPoint, Workflow

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What each process has of its own: ``make()`` is called now, and in each forked child."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.value = make()
        _all.append(self)

    def renew(self) -> None:
        """Make it anew, in a child. The parent's is kept: nothing of it may be cleaned up here."""
        _inherited.append(self.value)
        self.value = self._make()


_all: list[PerProcess[Any]] = []
_inherited: list[object] = []


def _renew_all() -> None:
    for each in _all:
        each.renew()
    # Before 3.12 a cached property has a lock, which a thread of the parent may have held.
    for owner in (InputBinder, StepOptions, Workflow, *EntryPoint.__subclasses__()):
        for member in vars(owner).values():
            if isinstance(member, functools.cached_property) and hasattr(member, "lock"):
                member.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
