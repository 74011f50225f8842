"""Claims, leases, and the loss of a lease.

A lease is a promise for some seconds, which its owner renews. It is lost when it runs out, or at
once when its process was on this machine and has ended. With the lease the token becomes void, so
the former owner can't write any more.

An owner that claims with ``keep`` promises more: each execution that it claimed counts as having a
step running, until the owner gives it up, and such a step must not run twice. So these leases
outlast their time while the process is known to be alive, whatever prevents a renewal: code that
blocks the interpreter, a file that another process has locked, a process that was stopped. The
owner hands back executions without a running step while it can. No write is spent on recording
that a step begins. Where the process can't be observed (another machine, another container), the
lease alone decides.

An execution that lost its process may have killed it. It is *suspected* until one of its
invocations ends normally, whatever it records meanwhile, and is due again after growing, random
delays. Workers claim suspects separately, see `pyworkflow._local.worker`, so that one that kills
its process each time does not affect its neighbours.

Leases run by the machine's time, even if the executions have a clock of their own.
"""

from __future__ import annotations

import logging
import os
import random
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow.services._scheduling import backoff_ms, log_lost_lease
from pyworkflow.services.errors import not_leased
from pyworkflow.services.sqlite import _encoding
from pyworkflow.services.sqlite._liveness import is_gone, start_of, this_host
from pyworkflow.services.sqlite._sql import ANY, NULL, SUSPECTED, UNSUSPECTED
from pyworkflow.services.sqlite._unit_of_work import PUT_OFF_MS, ids

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pyworkflow._protocol.executions import ExecutionSummary, Invocation
    from pyworkflow.services.sqlite._cached_execution import CachedExecution
    from pyworkflow.services.sqlite._commands import Commands
    from pyworkflow.services.sqlite._sql import SqlConnection
    from pyworkflow.services.sqlite._unit_of_work import UnitOfWork

logger = logging.getLogger("pyworkflow.sqlite")

_LAST_TIME = (1 << 63) - 1
_OWNER, _LEASE_MS = map(_encoding.ExecutionRow._fields.index, ("owner", "lease_ms"))


def _dead_owners(sql: SqlConnection) -> list[str]:
    host = this_host()
    return [owner for owner, where, pid, _ in sql.owners() if where == host and is_gone(pid)]


def _lives(host: str, pid: int, started: object) -> bool:
    """Return whether a process is known to be alive."""
    return started is not None and host == this_host() and start_of(pid) == started


def _keepers(sql: SqlConnection) -> list[str]:
    """Return the owners whose leases outlast their time."""
    owners = sql.owners()
    return [owner for owner, host, pid, started in owners if _lives(host, pid, started)]


class Leases:
    """The leases on the executions of one file."""

    def __init__(
        self,
        unit: UnitOfWork,
        commands: Commands,
        now_ms: Callable[[], int],
        machine_ms: Callable[[], int],
    ) -> None:
        self._unit = unit
        self._commands = commands
        self._now_ms = now_ms
        self._machine_ms = machine_ms
        # Not the global one, which may have the same seed in every process.
        self._chance = random.Random()  # noqa: S311 - no secret
        self._known: set[str] = set()
        """Owners that have claimed through this service."""
        self._looked_for_damage_ms: int | None = None

    # -- claims ----------------------------------------------------------------------------------

    def has_work(
        self, sql: SqlConnection, workflow_names: Collection[str], suspects: int | None = None
    ) -> bool:
        """Return whether a claim would do anything."""
        now_ms = self._now_ms()
        which = UNSUSPECTED if suspects == 0 else ANY
        return (
            any(sql.due(workflow, now_ms, 1, which) for workflow in workflow_names)
            or bool(sql.overdue(now_ms, 1))
            or bool(self._lost(sql, 1, _dead_owners(sql)))
            or bool(self._never_due(sql, workflow_names, 1))
        )

    def _never_due(
        self, sql: SqlConnection, workflow_names: Collection[str], limit: int
    ) -> list[str]:
        """Return executions that damage makes unclaimable, if it is time to look for them.

        Their due time, or the end of their lease, is not a valid time.
        """
        now_ms, looked_ms = self._machine_ms(), self._looked_for_damage_ms
        if looked_ms is not None and 0 <= now_ms - looked_ms < PUT_OFF_MS:
            return []
        found = sql.never_out(limit)
        for workflow in workflow_names:
            found += sql.never_due(workflow, limit)
        if not found:
            self._looked_for_damage_ms = now_ms
        return ids(found)

    def claim_due(
        self,
        owner: str,
        workflow_names: Collection[str],
        limit: int,
        suspects: int | None = None,
        *,
        keep: bool = False,
    ) -> Sequence[Invocation]:
        sql, now_ms = self._unit.sql, self._now_ms()
        self._unit.save()
        self._take_from_the_lost(limit, now_ms)
        for execution_id in self._never_due(sql, workflow_names, limit):
            with self._unit.isolating(execution_id):
                self._unit.get(execution_id)
        self._commands.expire(ids(sql.overdue(now_ms, limit)))
        self._unit.save()
        claimed = []
        for execution_id in self._due(workflow_names, limit, suspects, now_ms):
            with self._unit.isolating(execution_id):
                execution = self._unit.get(execution_id)
                execution.state.fire(now_ms)
                self._unit.settle(execution)
                if execution.state.is_running:
                    claimed.append(execution)
        if claimed:
            self._add_owner(owner, keep=keep)
            sql.lease([execution.number for execution in claimed], self._machine_ms() + LEASE_MS)
        return [self._begin(execution, owner) for execution in claimed]

    def _due(
        self, workflow_names: Collection[str], limit: int, suspects: int | None, now_ms: int
    ) -> list[str]:
        """Return the executions to claim, the longest due first."""

        def look(which: str, limit: int) -> list[tuple[int, int, str]]:
            sql = self._unit.sql
            found = (sql.due(workflow, now_ms, limit, which) for workflow in workflow_names)
            return sorted(chain.from_iterable(found))[:limit]

        if suspects is None:
            due = look(ANY, limit)
        else:
            due = look(UNSUSPECTED, limit)
            if suspects:
                due = sorted(due + look(SUSPECTED, suspects))[:limit]
        return [execution_id for *_, execution_id in due]

    def _add_owner(self, owner: str, *, keep: bool) -> None:
        sql, pid = self._unit.sql, os.getpid()
        if owner not in self._known:
            self._known.add(owner)
            sql.drop_idle_owners()
        started = start_of(pid) if keep else None
        sql.add_owner(owner, this_host(), pid, NULL if started is None else started)

    def _begin(self, execution: CachedExecution, owner: str) -> Invocation:
        invocation = self._commands.begin(execution, owner)
        return replace(invocation, losses=execution.losses) if execution.losses else invocation

    # -- leases that are lost --------------------------------------------------------------------

    def _take_from_the_lost(self, limit: int, now_ms: int) -> None:
        sql = self._unit.sql
        dead = _dead_owners(sql)
        lost = self._lost(sql, limit, dead)
        for execution_id, reason in lost.items():
            with self._unit.isolating(execution_id):
                execution = self._unit.get(execution_id)
                # A process that has ended has nothing more to lose.
                level = logging.INFO if execution.owner in dead else logging.WARNING
                log_lost_lease(logger, level, execution.state, reason)
                delay_ms = backoff_ms(execution.losses) * self._chance.uniform(0.5, 1)
                execution.lose(
                    ErrorRecord(message=reason, type="WorkerLost"), now_ms + round(delay_ms)
                )
        if lost:
            self._unit.save()
            sql.drop_idle_owners()

    def _lost(self, sql: SqlConnection, limit: int, dead: Iterable[str]) -> dict[str, str]:
        """Return the executions whose lease is lost, each with the reason."""
        late = f"did not renew its lease for {LEASE_MS // 1000} s"
        lost = {
            execution_id: f"The worker {owner!r}, which ran it, {late}"
            for execution_id, owner in self._ran_out(sql, limit)
        }
        for owner in dead:
            for execution_id, _ in sql.leased(owner, limit - len(lost)):
                lost[execution_id] = f"The process of the worker {owner!r}, which ran it, is gone"
        return lost

    def _ran_out(self, sql: SqlConnection, limit: int) -> list[tuple[str, str]]:
        machine_ms = self._machine_ms()
        if not sql.ran_out(machine_ms, 1):  # the usual case; checking processes takes longer
            return []
        return sql.ran_out(machine_ms, limit, _keepers(sql))

    def have_run_out(self, sql: SqlConnection, owner: str, execution_ids: Collection[str]) -> bool:
        """Return whether leases of ``owner`` on these executions ran out and are still its own."""
        late = sql.ran_out(self._machine_ms(), -1)
        return any(who == owner and execution_id in execution_ids for execution_id, who in late)

    def explain(
        self, sql: SqlConnection, cells: Sequence[object], summary: ExecutionSummary
    ) -> ExecutionSummary:
        """Return the summary; its problem says so if its owner makes no progress."""
        lease_ms = cells[_LEASE_MS]
        if lease_ms is None or (found := sql.owner(cells[_OWNER])) is None:
            return summary
        host, pid, started, report = found
        problem = _report_of(report)
        late_ms = self._machine_ms() - lease_ms if type(lease_ms) is int else -1
        if problem is None and late_ms >= 0 and _lives(host, pid, started):
            problem = ErrorRecord(
                f"process {pid} is alive and keeps a lease that ran out {late_ms // 1000} s ago, "
                "since a step may be running there; end that process, or let others continue: "
                f"pyworkflow release {summary.id}",
                "LeaseKept",
            )
        return summary if problem is None else replace(summary, problem=problem)

    # -- for owners ------------------------------------------------------------------------------

    def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        self._unit.save()
        self._unit.sql.renew(owner, execution_ids, self._machine_ms() + LEASE_MS)

    def leased_by(self, sql: SqlConnection, owner: str, *, late: bool) -> list[tuple[str, int]]:
        """Return (id, tokens) of the leases of ``owner``; with ``late``, of those that ran out."""
        return sql.leased_by(owner, self._machine_ms() if late else _LAST_TIME)

    def hand_back(self, owner: str, leased: Iterable[tuple[str, int]]) -> None:
        self._unit.has_changes = True
        for execution_id, tokens in leased:
            with self._unit.isolating(execution_id):
                execution = self._unit.get(execution_id)
                if (
                    execution.owner == owner
                    and execution.state.tokens == tokens
                    and execution.state.is_running
                ):
                    execution.free(self._now_ms())

    def report(self, owner: str, report: ErrorRecord | None) -> None:
        self._unit.sql.put_report(owner, NULL if report is None else _encoding.encode(report))

    def retire(self, owner: str) -> None:
        self._unit.save()
        self._unit.sql.forget_process(owner)
        self._unit.sql.drop_idle_owners()

    def release(
        self, execution_id: str, token: str, problem: ErrorRecord | None, *, is_unfinished: bool
    ) -> None:
        execution = self._unit.get(execution_id)
        now_ms = self._now_ms()
        execution.state.fire(now_ms)
        if not execution.state.is_running or execution.state.token != token:
            return
        self._unit.has_changes = True
        execution.losses = 0
        if problem is not None:
            execution.postpone(problem, now_ms + backoff_ms(execution.failed_invocations + 1))
        else:
            execution.failed_invocations, execution.problem = 0, None
            execution.free(now_ms if is_unfinished else None)

    # -- from outside ----------------------------------------------------------------------------

    def revoke(self, execution_id: str) -> None:
        """Take an execution from its owner. Raises `ServiceError` when it has no owner."""
        execution = self._unit.get(execution_id)
        now_ms = self._now_ms()
        execution.state.fire(now_ms)
        if not execution.state.is_running or execution.owner is None:
            raise not_leased(execution.state.root)
        reason = f"It was released by hand from the worker {execution.owner!r}"
        log_lost_lease(logger, logging.WARNING, execution.state, reason)
        execution.problem = ErrorRecord(reason, "LeaseReleased")
        execution.free(now_ms)
        self._unit.has_changes = True


def _report_of(cell: object) -> ErrorRecord | None:
    """Return an owner's report, `None` if there is none or it can't be read."""
    if type(cell) is not bytes:
        return None
    try:
        return _encoding.decode_error(cell)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
