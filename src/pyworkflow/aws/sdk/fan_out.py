"""`map` and `parallel` as AWS's SDK has them: its completion policy, its summaries, its ids.

A branch's id is its place, from 0, below the fan-out. Branches begin in that order, as many at once
as ``max_concurrency`` allows, and one that waits keeps its slot. Each is a task; NESTED ones are
child contexts, FLAT ones virtual. Ends reach the workflow one at a time, and after each the policy
is asked. What runs when it has decided is cancelled, and reported as STARTED.

A result that is too large is not stored but for a summary, with the decision. A replay then runs
the branches that had ended, over what is recorded below, and obeys that decision.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.concurrency.models import (
    BatchItem,
    BatchResult,
    CompletionPolicy,
    CompletionReason,
    CompletionRecord,
)
from aws_durable_execution_sdk_python.config import (
    BatchItemStatus,
    CompletionItemStatus,
    NestingType,
)

from pyworkflow._api.child import run_issued
from pyworkflow._engine.current import require_execution
from pyworkflow._engine.ids import Namespace, hash_path
from pyworkflow._protocol.records import Operation, Status
from pyworkflow.aws.sdk.contexts import SdkChildOp, run_virtual
from pyworkflow.aws.sdk.errors import error_object, passes_through

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from aws_durable_execution_sdk_python.config import MapConfig, ParallelConfig

    from pyworkflow.aws.sdk.context import DurableContext

SUCCEEDED, FAILED, STARTED = (
    BatchItemStatus.SUCCEEDED,
    BatchItemStatus.FAILED,
    BatchItemStatus.STARTED,
)


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch; ``given_name`` is the name that the code chose, `None` for the usual one."""

    code: Callable[[Any], Any]
    name: str
    given_name: str | None


class FanOutOp(SdkChildOp):
    """One `map` or `parallel`."""

    __slots__ = ("recorded",)

    recorded: Operation | None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.recorded = None

    def replay_end(self, record: Operation) -> None:
        """Take the recorded outcome; run the branches again if it is a summary."""
        if record.replay_children and record.status is Status.SUCCEEDED:
            self.recorded = record
        super().replay_end(record)


class Branches:
    """The branches of one fan-out while it runs. ``context`` is that of the fan-out."""

    def __init__(
        self,
        context: DurableContext,
        op: FanOutOp,
        branches: Sequence[Branch],
        config: MapConfig[Any] | ParallelConfig,
        subtype: str,
    ) -> None:
        self._context = context
        self._execution = require_execution("a fan-out")
        self._op = op
        self._branches = branches
        self._config = config
        self._subtype = subtype
        self._policy = CompletionPolicy.from_config(len(branches), config.completion_config)
        self._slots = config.max_concurrency or len(branches)
        self._waiting = deque(range(len(branches)))
        self._items: dict[int, BatchItem[Any]] = {}
        self._counts = {SUCCEEDED: 0, FAILED: 0}
        self._expected = len(branches)
        self._ended: asyncio.Future[CompletionReason] = op.execution.loop.create_future()

    def run(self) -> BatchResult[Any]:
        """Run the branches until the policy has decided; return what became of them."""
        try:
            if self._op.recorded is not None:
                return self._run_again(self._op.recorded)
            self._go_on()
            return self._result(self._execution.greenlets.wait(self._ended))
        finally:
            # Whatever else is recorded below is no business of the code any more.
            self._execution.journal.consume_below(self._op.id)

    def _result(self, reason: CompletionReason) -> BatchResult[Any]:
        return BatchResult([self._items[index] for index in sorted(self._items)], reason)

    # -- the policy ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """End the fan-out if it is over, else start what there is room for."""
        try:
            if not self._decide():
                self._start_waiting()
        except Exception as error:  # the code's own predicate raised
            self._ended.set_exception(error)

    def _decide(self) -> bool:
        policy, done, failed = self._policy, *self._counts.values()
        snapshot = self._snapshot() if policy.should_complete is not None else ()
        decision = policy.evaluate(done, failed, snapshot)
        over = policy.is_complete(done, failed, snapshot, decision)
        if over or not policy.should_continue(failed):
            self._ended.set_result(policy.reason(done, failed, snapshot, decision))
        return self._ended.done()

    def _snapshot(self) -> tuple[CompletionItemStatus, ...]:
        items = self._items
        return tuple(
            CompletionItemStatus(
                index, branch.given_name, items[index].status if index in items else None
            )
            for index, branch in enumerate(self._branches)
        )

    def _start_waiting(self) -> None:
        """Start branches in the order of their places."""
        while self._waiting and self._slots and not self._execution.is_halted:
            self._slots -= 1
            self._start(self._waiting.popleft())

    # -- one branch ------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        self._items[index] = BatchItem(index, STARTED)
        if self._config.nesting_type is NestingType.FLAT:
            self._start_flat(index)
        else:
            self._start_nested(index)

    def _start_nested(self, index: int) -> None:
        execution, branch = self._execution, self._branches[index]
        self._op.namespace.go_to(index)
        serdes = self._config.item_serdes or self._config.serdes
        op = SdkChildOp(execution, branch.name or None, self._subtype, serdes)
        op.future.add_done_callback(partial(self._on_end, index))
        is_new = execution.journal.record_of(op.id) is None
        execution.issue(op)
        if op.ended or execution.is_halted:
            return
        context = self._context.within(op.namespace, is_new=is_new)

        async def code() -> Any:
            return branch.code(context)

        async def run() -> None:
            with contextlib.suppress(Exception):  # `_on_end` is told by the operation's future
                await run_issued(execution, op, code)

        execution.loop.make_task(run(), self._op.namespace, index + 1, f"branch {branch.name}")

    def _start_flat(self, index: int) -> None:
        execution, branch, around = self._execution, self._branches[index], self._op.namespace
        namespace = Namespace(hash_path(f"{around.prefix}-{index}"), around.scope)
        context = self._context.within(namespace)
        serdes = self._config.item_serdes or self._config.serdes

        async def run() -> Any:
            return run_virtual(execution, lambda: branch.code(context), namespace.prefix, serdes)

        task = execution.loop.make_task(run(), namespace, index + 1, f"branch {branch.name}")
        task.add_done_callback(partial(self._on_end, index))

    def _on_end(self, index: int, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or self._ended.done():
            return
        if error is None:
            item = BatchItem(index, SUCCEEDED, future.result())
        elif passes_through(error) or not isinstance(error, Exception):
            self._ended.set_exception(error)
            return
        else:
            item = BatchItem(index, FAILED, error=error_object(error))
        self._items[index] = item
        self._counts[item.status] += 1
        self._slots += 1
        if self._op.recorded is None:
            self._go_on()
        elif sum(self._counts.values()) == self._expected:
            self._ended.set_result(CompletionReason.ALL_COMPLETED)

    # -- a summary -------------------------------------------------------------------------------

    def _run_again(self, recorded: Operation) -> BatchResult[Any]:
        """Collect the branches that had ended, and obey the recorded decision."""
        record = CompletionRecord.from_summary_payload(recorded.payload)
        total = len(self._branches)
        if record is not None:
            total = min(total, record.started_total)
            ended = [index for index in range(total) if index not in record.started_indexes]
        else:  # written before summaries had the decision: the branches' own records say it
            ended = [index for index in range(total) if self._has_ended(index)]
        self._expected = len(ended)
        for index in range(total):
            if index in ended:
                self._start(index)
            else:
                self._items[index] = BatchItem(index, STARTED)
        if ended:
            self._execution.greenlets.wait(self._ended)
        if record is not None:
            return self._result(record.completion_reason)
        found = self._result(CompletionReason.ALL_COMPLETED).all
        inferred: BatchResult[Any] = BatchResult.from_items(found, self._config.completion_config)
        return inferred

    def _has_ended(self, index: int) -> bool:
        record = self._execution.journal.record_of(hash_path(f"{self._op.id}-{index}"))
        return record is not None and record.ended
