"""Who goes on with which execution: claims, leases, and what happens when a lease is lost.

A lease is a promise for some seconds, renewed while it is kept. It is lost when it runs out, or at
once when its process is on this machine and no longer there. Losing a lease is losing the token:
whoever held it can write nothing more. The execution is due again, the first time at once, then
later and later, until an invocation records something; so one that kills its process each time
does not keep every worker busy with dying.

Leases run by the machine's time, whatever time the executions live in.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from pyworkflow._engine.records import ErrorRecord
from pyworkflow.services.base import LEASE_MS
from pyworkflow.services.sqlite.book import PUT_OFF_MS, ids

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pyworkflow.services.base import Invocation
    from pyworkflow.services.sqlite.book import Book
    from pyworkflow.services.sqlite.held import Held
    from pyworkflow.services.sqlite.ledger import Ledger
    from pyworkflow.services.sqlite.store import Store

_LONGEST_BACKOFF_MS = 300_000


def backoff_ms(troubles: int) -> int:
    """Return how long to wait after that many troubles in a row: 1 s, 2 s, 4 s, ... 5 min."""
    return min(1000 << min(troubles - 1, 20), _LONGEST_BACKOFF_MS) if troubles > 0 else 0


def this_host() -> str:
    """Return what tells this machine, and this container on it, from others."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: one set of process ids a machine
        processes = ""
    return f"{socket.gethostname()} {processes}"


def is_gone(pid: int) -> bool:
    """Return whether no process of this machine has that id."""
    if os.name != "posix":  # elsewhere os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody else's
        return False
    return False


def _dead_owners(store: Store) -> list[str]:
    host = this_host()
    return [owner for owner, where, pid in store.owners() if where == host and is_gone(pid)]


class Leases:
    """The leases on the executions of one file."""

    def __init__(
        self, book: Book, ledger: Ledger, now_ms: Callable[[], int], machine_ms: Callable[[], int]
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._now_ms = now_ms
        self._machine_ms = machine_ms
        self._looked_for_damage_ms: int | None = None

    def has_work(self, store: Store, workflow_names: Collection[str]) -> bool:
        """Return whether a claim would find anything to do."""
        now_ms = self._now_ms()
        return (
            any(store.due(workflow, now_ms, 1) for workflow in workflow_names)
            or bool(store.overdue(now_ms, 1))
            or bool(self._lost(store, 1, _dead_owners(store)))
            or bool(self._never_due(store, workflow_names, 1))
        )

    def _never_due(self, store: Store, workflow_names: Collection[str], limit: int) -> list[str]:
        """Return those that damage keeps from everybody, as far as it is time to look for them.

        Their next time, or the end of their lease, is none.
        """
        now_ms, looked_ms = self._machine_ms(), self._looked_for_damage_ms
        if looked_ms is not None and 0 <= now_ms - looked_ms < PUT_OFF_MS:
            return []
        found = store.never_out(limit)
        for workflow in workflow_names:
            found += store.never_due(workflow, limit)
        if not found:
            self._looked_for_damage_ms = now_ms
        return ids(found)

    def claim_due(
        self, owner: str, workflow_names: Collection[str], limit: int
    ) -> Sequence[Invocation]:
        store, now_ms = self._book.store, self._now_ms()
        self._book.save()
        self._take_from_the_lost(limit, now_ms)
        for execution_id in self._never_due(store, workflow_names, limit):
            with self._book.sparing(execution_id):
                self._book.hold(execution_id)
        self._ledger.expire(ids(store.overdue(now_ms, limit)))
        self._book.save()
        due = [found for workflow in workflow_names for found in store.due(workflow, now_ms, limit)]
        claimed = []
        for *_, execution_id in sorted(due)[:limit]:
            with self._book.sparing(execution_id):
                held = self._book.hold(execution_id)
                held.state.fire(now_ms)
                self._book.settle(held)
                if held.state.is_running:
                    claimed.append(held)
        if claimed:
            store.add_owner(owner, this_host(), os.getpid())
            store.lease([held.number for held in claimed], self._machine_ms() + LEASE_MS)
        return [self._ledger.begin(held, owner) for held in claimed]

    def _take_from_the_lost(self, limit: int, now_ms: int) -> None:
        store = self._book.store
        dead = _dead_owners(store)
        for owner in dead:
            if not store.leased(owner, 1):
                store.drop_owner(owner)
        for execution_id, reason in self._lost(store, limit, dead).items():
            with self._book.sparing(execution_id):
                held = self._book.hold(execution_id)
                problem = ErrorRecord(message=reason, type="WorkerLost")
                held.trouble(problem, now_ms + backoff_ms(held.troubles))

    def _lost(self, store: Store, limit: int, dead: Iterable[str]) -> dict[str, str]:
        """Return the executions that nobody goes on with although somebody promised, and why."""
        late = f"did not renew its lease for {LEASE_MS // 1000} s"
        lost = {
            execution_id: f"The worker {owner!r}, which ran it, {late}"
            for execution_id, owner in store.ran_out(self._machine_ms(), limit)
        }
        for owner in dead:
            for execution_id, _ in store.leased(owner, limit - len(lost)):
                lost[execution_id] = f"The process of the worker {owner!r}, which ran it, is gone"
        return lost

    def have_run_out(self, store: Store, owner: str, execution_ids: Collection[str]) -> bool:
        """Return whether leases of ``owner`` on these executions ran out, and nobody took them."""
        late = store.ran_out(self._machine_ms(), -1)
        return any(who == owner and execution_id in execution_ids for execution_id, who in late)

    def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        self._book.save()
        self._book.store.renew(owner, execution_ids, self._machine_ms() + LEASE_MS)

    def release(
        self, execution_id: str, token: str, problem: ErrorRecord | None, *, is_unfinished: bool
    ) -> None:
        held = self._book.hold(execution_id)
        now_ms = self._now_ms()
        held.state.fire(now_ms)
        if not held.state.is_running or held.state.token != token:
            return
        self._book.has_news = True
        if problem is not None:
            held.trouble(problem, now_ms + backoff_ms(held.troubles + 1))
        else:
            self._let_go(held, now_ms if is_unfinished else None)

    def _let_go(self, held: Held, due_ms: int | None) -> None:
        held.troubles, held.problem = 0, None
        held.free(due_ms)
