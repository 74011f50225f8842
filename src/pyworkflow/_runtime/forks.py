"""State that the runtime keeps across calls, in a forked process.

A child has none of the parent's threads, so whatever lives on them is made anew (`PerProcess`).
Loops are copied, but what they listen to is shared by the kernel: closing a copy, which asyncio
also does when it is collected, would make the parent deaf (`disown`, in the engine's `tasks`).
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
    """A value of each process's own: ``make()`` is called now, and in each forked child."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.value = make()
        _all.append(self)

    def renew(self) -> None:
        """Replace the value, in a child. The parent's is kept: a child must not clean it up."""
        _inherited.append(self.value)
        self.value = self._make()


_all: list[PerProcess[Any]] = []
_inherited: list[object] = []


def _renew_all() -> None:
    for each in _all:
        each.renew()
    # Before 3.12 a cached property has a lock, which a thread of the parent may have taken.
    for owner in (InputBinder, StepOptions, Workflow, *EntryPoint.__subclasses__()):
        for member in vars(owner).values():
            if isinstance(member, functools.cached_property) and hasattr(member, "lock"):
                member.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
