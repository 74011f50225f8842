"""The queue of executions in memory, with their leases: the reference for `Queue`.

Each workflow has a heap of its sleeping executions, by due time. An entry that no longer agrees
with its execution stays until it is reached. Leases run by the machine's time, even if the
executions have a clock of their own. All owners are workers of this process, which is
alive as long as the queue is: a lease that is kept ends with its owner.
"""

from __future__ import annotations

import logging
import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow._protocol.executions import LEASE_MS, ExecutionSummary, InvokedNames
from pyworkflow._protocol.moves import apply_outside
from pyworkflow._protocol.records import ErrorRecord, Status
from pyworkflow.services._scheduling import Scheduled, backoff_ms, log_lost_lease
from pyworkflow.services.errors import not_found, not_leased

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import TypeAlias

    from pyworkflow.services._execution_state import ExecutionState

    Wake: TypeAlias = tuple[int, int, "QueuedExecution"]
    """The due time, the number of the execution, and the execution."""

logger = logging.getLogger("pyworkflow.memory")


class QueuedExecution(Scheduled):
    """An execution in the queue."""

    __slots__ = ("invoked", "lease_ms", "number", "parent")

    def __init__(
        self, number: int, state: ExecutionState, parent: tuple[QueuedExecution, str] | None = None
    ) -> None:
        super().__init__(state)
        self.number = number
        self.parent = parent
        """The execution that invoked it, and the id of the operation that did."""
        self.invoked = InvokedNames(state.root.name or state.id)
        self.lease_ms = 0

    @property
    def id(self) -> str:
        return self.state.id


class _Owner:
    """A worker that has claimed executions."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        """Whether its leases outlast their time."""
        self.report: ErrorRecord | None = None
        self.leased: dict[str, QueuedExecution] = {}


class MemoryQueue:
    """The executions that are due, and the leases of each owner."""

    def __init__(self, now_ms: Callable[[], int], machine_ms: Callable[[], int]) -> None:
        self.has_changes = False
        """Whether anything changed that workers or waiting clients need to see."""
        self._now_ms = now_ms
        self._machine_ms = machine_ms
        # Not the global one, which may have the same seed in every process.
        self._chance = random.Random()  # noqa: S311 - no secret
        self._all: dict[str, QueuedExecution] = {}
        self._sleeping: dict[str, list[Wake]] = {}
        self._deadlines: list[Wake] = []
        self._owners: dict[str, _Owner] = {}

    # -- executions ------------------------------------------------------------------------------

    def find(self, execution_id: str) -> QueuedExecution:
        """Return an execution. Raises `ExecutionNotFoundError`."""
        found = self._all.get(execution_id)
        if found is None:
            raise not_found(execution_id)
        return found

    def add(
        self,
        state: ExecutionState,
        *,
        timeout_seconds: int | None = None,
        parent: tuple[QueuedExecution, str] | None = None,
    ) -> None:
        """Add an execution that is due now."""
        each = self._all[state.id] = QueuedExecution(len(self._all) + 1, state, parent)
        if timeout_seconds is not None:
            state.deadline_ms = state.root.start_ms + timeout_seconds * 1000
            heappush(self._deadlines, (state.deadline_ms, each.number, each))
        self.has_changes = True
        self._place(each)

    def begin(self, each: QueuedExecution, owner: str | None) -> None:
        """Record that an invocation begins for ``owner``, `None` without a lease."""
        each.not_before_ms = None
        self._lease_to(each, owner)
        self._place(each)

    def settle(self, each: QueuedExecution) -> None:
        """Update the queue after a change of an execution's state."""
        state = each.state
        if not state.is_running and not each.is_over:
            each.is_over = self.has_changes = True
            self._lease_to(each, None)
            self._carry_end_to_parent(each)
        elif state.is_running and state.unread:
            self.has_changes = True
        self._place(each)

    def _carry_end_to_parent(self, each: QueuedExecution) -> None:
        if each.parent is None:
            return
        parent, operation_id = each.parent
        root, now_ms = each.state.root, self._now_ms()
        parent.state.fire(now_ms)
        operation = parent.state.operations[operation_id]
        if parent.state.is_running and operation.status is Status.STARTED:
            end_ms = root.end_ms or now_ms
            ended = apply_outside(
                operation, root.status, end_ms, payload=each.state.result, error=root.error
            )
            parent.state.put(end_ms, ended)
        self.settle(parent)

    def _place(self, each: QueuedExecution) -> None:
        wake_ms = each.next_wake(self._now_ms())
        if wake_ms != each.wake_ms:
            each.wake_ms = wake_ms
            if wake_ms is not None:
                heap = self._sleeping.setdefault(each.state.workflow_name, [])
                heappush(heap, (wake_ms, each.number, each))

    def _lease_to(self, each: QueuedExecution, owner: str | None) -> None:
        if each.owner is not None and (known := self._owners.get(each.owner)) is not None:
            known.leased.pop(each.id, None)
        each.owner = owner
        if owner is not None:
            each.lease_ms = self._machine_ms() + LEASE_MS
            self._owners[owner].leased[each.id] = each

    def _free(self, each: QueuedExecution, due_ms: int | None) -> None:
        self._lease_to(each, None)
        each.free(due_ms)
        self.has_changes = True
        self._place(each)

    # -- what is due -----------------------------------------------------------------------------

    def _take_awake(
        self, workflow_name: str, now_ms: int, most: Callable[[QueuedExecution], int]
    ) -> list[Wake]:
        """Remove and return a workflow's due entries; ``most`` limits suspects and the others."""
        heap = self._sleeping.get(workflow_name, [])
        taken: list[Wake] = []
        passed: list[Wake] = []
        counts = {True: 0, False: 0}
        seen: set[str] = set()
        while heap and heap[0][0] <= now_ms:
            entry = heappop(heap)
            each = entry[-1]
            if each.wake_ms != entry[0] or each.id in seen:
                continue
            seen.add(each.id)
            is_suspect = each.losses > 0
            if counts[is_suspect] < most(each):
                counts[is_suspect] += 1
                taken.append(entry)
            else:
                passed.append(entry)
                if not is_suspect:
                    break
        for entry in passed:
            heappush(heap, entry)
        return taken

    def take_due(
        self, workflow_names: Iterable[str], limit: int, suspects: int | None
    ) -> list[QueuedExecution]:
        """Remove and return executions to claim, the longest due first."""
        now_ms = self._now_ms()

        def most(each: QueuedExecution) -> int:
            return limit if suspects is None or not each.losses else suspects

        due: list[Wake] = []
        suspected = 0
        for name in workflow_names:
            due += self._take_awake(name, now_ms, most)
        due.sort(key=lambda entry: entry[:2])
        taken: list[QueuedExecution] = []
        for entry in due:
            each = entry[-1]
            is_one_too_many = suspects is not None and each.losses > 0 and suspected >= suspects
            if len(taken) == limit or is_one_too_many:
                heappush(self._sleeping[each.state.workflow_name], entry)
                continue
            suspected += each.losses > 0
            each.wake_ms = None
            taken.append(each)
        return taken

    def next_wake(self, workflow_names: Iterable[str] | None, *, suspects: bool) -> int | None:
        """Return when the first sleeping execution of those workflows is due."""
        names = self._sleeping if workflow_names is None else workflow_names
        firsts = (self._first(name, suspects=suspects) for name in names)
        return min((first.wake_ms for first in firsts if first and first.wake_ms), default=None)

    def _first(self, workflow_name: str, *, suspects: bool = True) -> QueuedExecution | None:
        """Return the execution of a workflow that is due first."""
        heap, passed, found = self._sleeping.get(workflow_name, []), [], None
        while heap:
            wake_ms, _, each = heap[0]
            if each.wake_ms == wake_ms:
                if suspects or not each.losses:
                    found = each
                    break
                passed.append(heap[0])
            heappop(heap)
        for entry in passed:
            heappush(heap, entry)
        return found

    def next_deadline(self) -> int | None:
        """Return when the first running execution exceeds its timeout."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][-1].state.deadline_ms != deadlines[0][0]:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expire(self) -> None:
        """End the executions that exceed their timeout."""
        now_ms = self._now_ms()
        while (deadline_ms := self.next_deadline()) is not None and deadline_ms <= now_ms:
            _, _, each = heappop(self._deadlines)
            each.state.fire(now_ms)
            self.settle(each)

    def unserved(self, workflow_names: Collection[str]) -> list[QueuedExecution]:
        """Return the execution that has been due the longest, for each workflow except these."""
        now_ms = self._now_ms()
        others = sorted(name for name in self._sleeping if name not in workflow_names)
        firsts = (self._first(name) for name in others)
        return [each for each in firsts if each and each.wake_ms and each.wake_ms <= now_ms]

    # -- leases ----------------------------------------------------------------------------------

    def add_owner(self, owner: str, *, keeps: bool) -> None:
        """Add an owner; its first choice of ``keeps`` is valid until it retires."""
        self._owners.setdefault(owner, _Owner(keeps=keeps))

    def take_from_the_lost(self, limit: int) -> None:
        """Take back executions whose lease has run out: they are suspects from now on."""
        now_ms, machine_ms = self._now_ms(), self._machine_ms()
        late = [
            each
            for owner in self._owners.values()
            if not owner.keeps
            for each in owner.leased.values()
            if each.lease_ms <= machine_ms
        ]
        for each in sorted(late, key=lambda each: each.lease_ms)[:limit]:
            reason = (
                f"The worker {each.owner!r}, which ran it, did not renew its lease for "
                f"{LEASE_MS // 1000} s"
            )
            log_lost_lease(logger, logging.WARNING, each.state, reason)
            delay_ms = round(backoff_ms(each.losses) * self._chance.uniform(0.5, 1))
            each.losses += 1
            self._lease_to(each, None)
            each.postpone(ErrorRecord(message=reason, type="WorkerLost"), now_ms + delay_ms)
            self.has_changes = True
            self._place(each)

    def renew(self, owner: str, execution_ids: Iterable[str]) -> None:
        leased, lease_ms = self._leased_by(owner), self._machine_ms() + LEASE_MS
        for execution_id in execution_ids:
            if execution_id in leased:
                leased[execution_id].lease_ms = lease_ms

    def _leased_by(self, owner: str) -> dict[str, QueuedExecution]:
        known = self._owners.get(owner)
        return {} if known is None else known.leased

    def release(
        self, each: QueuedExecution, problem: ErrorRecord | None, *, is_unfinished: bool
    ) -> None:
        now_ms = self._now_ms()
        each.losses = 0
        self._lease_to(each, None)
        if problem is not None:
            each.postpone(problem, now_ms + backoff_ms(each.failed_invocations + 1))
        else:
            each.failed_invocations, each.problem = 0, None
            each.free(now_ms if is_unfinished else None)
        self.has_changes = True
        self._place(each)

    def leased_by(self, owner: str, *, late: bool) -> list[tuple[str, int]]:
        machine_ms = self._machine_ms()
        leased = self._leased_by(owner).values()
        return [
            (each.id, each.state.tokens)
            for each in leased
            if not late or each.lease_ms <= machine_ms
        ]

    def hand_back(self, owner: str, leased: Iterable[tuple[str, int]]) -> None:
        mine = self._leased_by(owner)
        for execution_id, tokens in leased:
            each = mine.get(execution_id)
            if each is not None and each.state.tokens == tokens:
                self._free(each, self._now_ms())

    def report(self, owner: str, report: ErrorRecord | None) -> None:
        if owner in self._owners:
            self._owners[owner].report = report

    def retire(self, owner: str) -> None:
        known = self._owners.get(owner)
        if known is not None:
            known.keeps = False
            if not known.leased:
                del self._owners[owner]

    def changed(self, owner: str, execution_ids: Iterable[str]) -> list[str]:
        """Return executions that ``owner`` has lost or not read; renew its leases."""
        self.expire()
        found = [self._all[each] for each in execution_ids if each in self._all]
        self.renew(owner, [each.id for each in found])
        return [each.id for each in found if each.owner != owner or each.state.unread]

    def revoke(self, each: QueuedExecution) -> None:
        """Take an execution from its owner. Raises `ServiceError` when it has none."""
        if not each.state.is_running or each.owner is None:
            raise not_leased(each.state.root)
        reason = f"It was released by hand from the worker {each.owner!r}"
        log_lost_lease(logger, logging.WARNING, each.state, reason)
        each.problem = ErrorRecord(reason, "LeaseReleased")
        self._free(each, self._now_ms())

    # -- reading ---------------------------------------------------------------------------------

    def newest_first(self) -> Iterable[QueuedExecution]:
        """Return all executions, the newest first."""
        return reversed(self._all.values())

    def summary(self, each: QueuedExecution) -> ExecutionSummary:
        """Return an execution's summary; its problem says so if its owner makes no progress."""
        problem = each.problem
        if each.owner is not None and (owner := self._owners.get(each.owner)) is not None:
            late_ms = self._machine_ms() - each.lease_ms
            if owner.report is not None:
                problem = owner.report
            elif owner.keeps and late_ms >= 0:
                problem = ErrorRecord(
                    f"the worker {each.owner!r} of this process keeps a lease that ran out "
                    f"{late_ms // 1000} s ago, since a step may be running there; let others "
                    "continue with client.release",
                    "LeaseKept",
                )
        return replace(
            each.state.summary(),
            wake_ms=each.wake_ms,
            problem=problem,
            failed_invocations=each.failed_invocations,
        )
