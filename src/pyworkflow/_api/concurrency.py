"""`parallel` and `map`: branches that run concurrently, each in a child context of its own.

A branch's id is its place, from 0, below the fan-out. Branches begin in that order, as many at once
as ``max_concurrency`` allows; one that waits keeps its slot. Ends reach the workflow one at a time,
so exactly one branch is counted, and the policy is asked, after each: replayed over the same ends,
it decides the same. What runs then is cancelled, and has cleaned up before the decision is written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from pyworkflow._api.batch import BatchItem, BatchResult, BranchStatus
from pyworkflow._api.child import run_child, run_child_blocking, run_issued
from pyworkflow._api.completion import Completion, CompletionReason
from pyworkflow._engine.ops.fan_out import FAILED, NOT_STARTED, STARTED, SUCCEEDED, Decision
from pyworkflow.errors import BatchError, ChildContextError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from pyworkflow._api.code import Code
    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.ops.fan_out import BranchOp, FanOutOp, Outcome

_STATUSES = {
    SUCCEEDED: BranchStatus.SUCCEEDED,
    FAILED: BranchStatus.FAILED,
    STARTED: BranchStatus.STARTED,
    NOT_STARTED: BranchStatus.NOT_STARTED,
}


class Branches:
    """The branches of one fan-out while it runs."""

    def __init__(
        self,
        execution: Execution,
        op: FanOutOp,
        codes: Sequence[Code],
        completion: Completion,
        max_concurrency: int | None,
    ) -> None:
        self._execution = execution
        self._op = op
        self._codes = codes
        self._completion = completion
        self._slots = max_concurrency or len(codes)
        self._statuses = [NOT_STARTED] * len(codes)
        self._counts = {SUCCEEDED: 0, FAILED: 0}
        self._waiting = deque(range(len(codes)))
        self._ended: asyncio.Future[CompletionReason] = execution.loop.create_future()

    async def run(self) -> Decision:
        """Run the branches until the policy has decided; return the decision."""
        self._begin()
        return self._decision(await self._ended)

    def run_blocking(self) -> Decision:
        """Do what `run` does, for code that blocks."""
        self._begin()
        return self._decision(self._execution.bridge.wait(self._ended))

    def _begin(self) -> None:
        recorded = self._op.recorded
        if recorded is not None:
            ended = (SUCCEEDED, FAILED)
            self._waiting = deque(i for i, s in enumerate(recorded.statuses) if s in ended)
        self._go_on()

    def _go_on(self) -> None:
        """End the fan-out if it is over, else start what there is room for."""
        reason = self._reason()
        if reason is not None:
            self._ended.set_result(reason)
            return
        while self._waiting and self._slots and not self._execution.is_halted:
            self._start(self._waiting.popleft())

    def _reason(self) -> CompletionReason | None:
        done, failed = self._counts.values()
        recorded = self._op.recorded
        if recorded is None:
            return self._completion.reason(len(self._codes), done, failed)
        if done + failed < recorded.success_count + recorded.failure_count:
            return None
        return CompletionReason(recorded.completion_reason)

    def _decision(self, reason: CompletionReason) -> Decision:
        done, failed = self._counts.values()
        statuses = "".join(self._statuses)
        return self._op.recorded or Decision(reason.value, done, failed, statuses)

    # -- one branch ------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        execution, op, code = self._execution, self._op, self._codes[index]
        op.namespace.go_to(index)
        branch = op.branch(execution, code.name, None, code.result_type)
        branch.source = code.source
        op.branches[index] = branch
        self._statuses[index] = STARTED
        self._slots -= 1
        branch.future.add_done_callback(partial(self._on_end, index))
        execution.issue(branch)
        if not branch.ended and not execution.is_halted:
            execution.loop.make_task(
                self._run_branch(branch, code), op.namespace, index + 1, f"branch {code.name}"
            )

    async def _run_branch(self, branch: BranchOp, code: Code) -> None:
        with contextlib.suppress(Exception):  # `_on_end` is told by the branch's future
            await run_issued(self._execution, branch, partial(self._call, code))

    async def _call(self, code: Code) -> Any:
        try:
            return await code.run()
        except asyncio.CancelledError:
            if self._ended.done():
                raise
            # Nobody would tell the fan-out of a branch that is neither done nor failed.
            raise ChildContextError(
                f"branch {code.name!r} was cancelled by the workflow's own code",
                error_type="CancelledError",
            ) from None

    def _on_end(self, index: int, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if self._ended.done():
            return
        if future.cancelled():
            self._ended.set_exception(
                UsageError(
                    f"branch {self._codes[index].name!r} was cancelled by the workflow's own code "
                    "while its outcome was recorded. End a branch from within: let it return"
                )
            )
            return
        status = SUCCEEDED if error is None else FAILED
        self._statuses[index] = status
        self._counts[status] += 1
        self._slots += 1
        self._go_on()


class FanOut:
    """One call of ``ctx.parallel`` or ``ctx.map``, checked and ready to run."""

    def __init__(
        self,
        kind: type[FanOutOp],
        codes: Sequence[Code],
        name: str | None,
        key: str | None,
        *,
        completion: Completion,
        max_concurrency: int | None,
    ) -> None:
        self._kind = kind
        self._codes = codes
        self._name = name
        self._key = key
        self._completion = completion
        self._max_concurrency = max_concurrency
        self.items: Sequence[Any] = ()
        """What each branch of a `map` is called with."""

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, BatchResult[Any]]:
        """Return the coroutine that runs the branches."""
        coroutine = self._run(execution)
        execution.contexts.calls().expect(coroutine, f"ctx.{self._kind.subtype.lower()}()")
        return coroutine

    async def _run(self, execution: Execution) -> BatchResult[Any]:
        try:
            op = self._op(execution)
            return self._result(await run_child(execution, op, self._branches(execution, op).run))
        finally:
            self._drop()

    def blocking(self, execution: Execution) -> BatchResult[Any]:
        """Run the branches; block until the policy has decided."""
        try:
            op = self._op(execution)
            branches = self._branches(execution, op)
            return self._result(run_child_blocking(execution, op, branches.run_blocking))
        finally:
            self._drop()

    def _branches(self, execution: Execution, op: FanOutOp) -> Branches:
        return Branches(execution, op, self._codes, self._completion, self._max_concurrency)

    def _op(self, execution: Execution) -> FanOutOp:
        types = [code.result_type for code in self._codes]
        sources = [code.source for code in self._codes]
        op = self._kind(execution, self._name, self._key, types, sources)
        op.asked_for = {
            "items": self.items,
            "max_concurrency": self._max_concurrency,
            "policy": self._completion,
        }
        journal, most = execution.journal, execution.limits.max_operations
        if most is not None and not journal.knows(op.id):
            used, needed = journal.count_operations(), len(self._codes) + 1
            if used + needed > most:
                raise UsageError(
                    f"{op.awaits()} has {len(self._codes)} branches and needs {needed} operations "
                    f"or more, but this execution has {used} already, and the service allows "
                    f"{most}. Give each branch several items to work on, or let further "
                    "executions take their share. Nothing of it was started"
                )
        return op

    def _drop(self) -> None:
        for code in self._codes:
            code.close()

    def _result(self, outcome: Outcome) -> BatchResult[Any]:
        decision = outcome.decision
        items = tuple(
            BatchItem(
                i, str(code.name), _STATUSES[status], outcome.values.get(i), outcome.errors.get(i)
            )
            for i, (code, status) in enumerate(zip(self._codes, decision.statuses, strict=True))
        )
        result = BatchResult(items, CompletionReason(decision.completion_reason))
        if self._completion.is_met(result.completion_reason, result.success_count):
            return result
        raise _failure(self._kind, self._name, self._completion, result)


def _failure(
    kind: type[FanOutOp], name: str | None, completion: Completion, result: BatchResult[Any]
) -> BatchError:
    label = f"{kind.subtype} {name!r}" if name else str(kind.subtype)
    message = (
        f"{label}: {result.failure_count} of {result.total_count} branches failed, "
        f"{result.success_count} succeeded ({result.completion_reason})"
    )
    if completion.min_successful is not None:
        message += f"; {completion.min_successful} had to succeed"
    first = result.failed[0]
    message += f". The first of them, {first.name!r}: {type(first.error).__name__}: {first.error}"
    error = BatchError(message, result)
    error.__cause__ = first.error
    return error
