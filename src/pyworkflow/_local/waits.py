"""Steps that wait for executions lend their thread and slot meanwhile.

A body that waits for another execution occupies a thread, and its own execution a slot of its
worker. Otherwise waiting bodies could occupy all threads and slots, while the executions that they
wait for are queued behind them. So each lends both while it waits. Both have a limit; beyond it a
wait is refused at once, so that one thread and one slot always remain.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol

from pyworkflow._api.body_threads import LENT, body_threads
from pyworkflow._api.current_step import CurrentStep
from pyworkflow._engine.current import running_step
from pyworkflow.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Iterator

LENT_SLOTS = 500
"""Maximum number of slots that a worker adds for executions that wait."""


class Awaited(Protocol):
    """An execution that a step waits for."""

    @property
    def id(self) -> str: ...
    @property
    def workflow_name(self) -> str: ...


class Lender(Protocol):
    """A worker of this process."""

    def serves(self, workflow_name: str) -> bool:
        """Return whether it runs executions of that workflow."""
        ...

    def lend(self, execution_id: str) -> bool | None:
        """Lend an execution's slot; False if too many are lent, `None` if it does not run here."""
        ...

    def take_back(self, execution_id: str) -> None:
        """Take back the slot that `lend` lent."""
        ...


lenders: weakref.WeakSet[Lender] = weakref.WeakSet()
"""The workers of this process."""

_waiting: dict[object, tuple[str, Awaited]] = {}
"""Which step waits for which execution."""


@contextmanager
def waiting_for(awaited: Awaited) -> Iterator[None]:
    """Lend the current step's thread and slot while it waits; raises `DeadlockError` at the limit.

    Both kinds of client use it: the synchronous one in the body's thread, the async one on a loop.
    Outside a step it does nothing.
    """
    step = running_step.get()
    if not isinstance(step, CurrentStep):
        yield
        return
    with ExitStack() as stack:
        has_room = stack.enter_context(body_threads.lending())
        if not has_room and _is_served_here(awaited):
            _refuse(step, awaited, f"{LENT} threads")
        if not stack.enter_context(_lent_slot(step.execution_id)) and _is_served_here(awaited):
            _refuse(step, awaited, f"the slots of {LENT_SLOTS} executions and more")
        key = object()
        _waiting[key] = (step.name, awaited)
        stack.callback(_waiting.pop, key)
        yield


@contextmanager
def _lent_slot(execution_id: str) -> Iterator[bool]:
    for lender in list(lenders):
        answer = lender.lend(execution_id)
        if answer is None:
            continue
        try:
            yield answer
        finally:
            if answer:
                lender.take_back(execution_id)
        return
    yield True


def _is_served_here(awaited: Awaited) -> bool:
    """Return whether this process may have to run it; if not, nothing here can block it."""
    return any(lender.serves(awaited.workflow_name) for lender in list(lenders))


def _refuse(step: CurrentStep, awaited: Awaited, lent: str) -> NoReturn:
    others = list(_waiting.values())
    shown = [
        f"step {name!r} for {each.id!r} of {each.workflow_name!r}" for name, each in others[:5]
    ]
    more = f" and {len(others) - 5} others" if len(others) > 5 else ""
    raise DeadlockError(
        f"step {step.name!r} of execution {step.execution_id!r} can't wait for execution "
        f"{awaited.id!r} of {awaited.workflow_name!r}: {lent} of this process are lent by steps "
        f"that wait for executions ({', '.join(shown)}{more}), and with one more, the "
        "executions that they wait for might never run. Let the workflow wait instead of a step: "
        f"ctx.invoke({awaited.workflow_name!r}, ...) takes neither a thread nor a slot"
    )
