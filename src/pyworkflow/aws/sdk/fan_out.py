"""`map` and `parallel` as AWS's SDK has them: its completion policy, its summaries, its ids.

Each branch is a task; NESTED ones are child contexts, FLAT ones virtual. A branch that runs when
the policy has decided is cancelled, and reported as STARTED.

Of a result that is too large, only a summary is stored, with the decision. A replay then runs the
branches that had ended again, over what is recorded below them, and obeys that decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

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

from pyworkflow._api.branches import Branches
from pyworkflow._engine.ids import Namespace, hash_path
from pyworkflow._engine.ops.fan_out import FAILED, NOT_STARTED, STARTED, SUCCEEDED
from pyworkflow._protocol.records import Operation, Status
from pyworkflow.aws.sdk.contexts import SdkChildOp, run_virtual
from pyworkflow.aws.sdk.errors import error_object, passes_through

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from aws_durable_execution_sdk_python.config import MapConfig, ParallelConfig
_STATUSES = {
    SUCCEEDED: BatchItemStatus.SUCCEEDED,
    FAILED: BatchItemStatus.FAILED,
    STARTED: BatchItemStatus.STARTED,
    NOT_STARTED: None,
}


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch; ``given_name`` is the name that the code chose, `None` for the default."""

    code: Callable[[Any], Any]
    name: str
    given_name: str | None


class SurroundingContext(Protocol):
    """The context of a fan-out, which makes those of its branches."""

    def within(self, namespace: Namespace, *, is_new: bool = False) -> Any:
        """Return the context of code in ``namespace``."""


class SdkFanOutOp(SdkChildOp):
    """A `map` or `parallel`."""

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


class SdkBranches(Branches[CompletionReason]):
    """The branches of a `map` or `parallel`. ``context`` is that of the fan-out."""

    op: SdkFanOutOp

    def __init__(
        self,
        context: SurroundingContext,
        op: SdkFanOutOp,
        branches: Sequence[Branch],
        config: MapConfig[Any] | ParallelConfig,
        subtype: str,
    ) -> None:
        super().__init__(op, [branch.name for branch in branches], config.max_concurrency)
        self._context = context
        self._branches = branches
        self._config = config
        self._serdes = config.item_serdes or config.serdes
        self._subtype = subtype
        self._policy = CompletionPolicy.from_config(len(branches), config.completion_config)
        self._ended: dict[int, BatchItem[Any]] = {}

    def run(self) -> BatchResult[Any]:
        """Run the branches until the policy has decided; return their outcomes."""
        try:
            if self.op.recorded is not None:
                return self._run_again(self.op.recorded)
            return self._result(self._execution.greenlets.wait(self.begin()))
        finally:
            # The code has no use for anything else that is recorded below.
            self._execution.journal.consume_below(self.op.id)

    def _result(self, reason: CompletionReason) -> BatchResult[Any]:
        items = [
            self._ended.get(index) or BatchItem(index, BatchItemStatus.STARTED)
            for index, status in enumerate(self.statuses)
            if status != NOT_STARTED
        ]
        return BatchResult(items, reason)

    # -- the policy ------------------------------------------------------------------------------

    def decide(self) -> CompletionReason | None:
        """Ask the policy, which may be a function of the code's own."""
        policy, done, failed = self._policy, self.succeeded, self.failed
        snapshot = self._snapshot() if policy.should_complete is not None else ()
        decision = policy.evaluate(done, failed, snapshot)
        over = policy.is_complete(done, failed, snapshot, decision)
        if over or not policy.should_continue(failed):
            return policy.reason(done, failed, snapshot, decision)
        return None

    def _snapshot(self) -> tuple[CompletionItemStatus, ...]:
        return tuple(
            CompletionItemStatus(index, branch.given_name, _STATUSES[status])
            for index, (branch, status) in enumerate(
                zip(self._branches, self.statuses, strict=True)
            )
        )

    def on_end(self, index: int, future: asyncio.Future[Any]) -> None:
        """Keep the value or error as the SDK gives it."""
        error = future.exception()
        if error is None:
            item = BatchItem(index, BatchItemStatus.SUCCEEDED, future.result())
        else:
            assert isinstance(error, Exception)
            item = BatchItem(index, BatchItemStatus.FAILED, error=error_object(error))
        self._ended[index] = item

    def passes_through(self, error: BaseException) -> bool:
        """Whether ``error`` is raised in the code around as it is, without being recorded."""
        return passes_through(error)

    # -- one branch ------------------------------------------------------------------------------

    def start(self, index: int) -> None:
        """Start a branch: NESTED as a child context, FLAT as a virtual one."""
        if self._config.nesting_type is NestingType.FLAT:
            self._start_flat(index)
        else:
            super().start(index)

    def branch(self, index: int) -> tuple[SdkChildOp, Callable[[], Awaitable[Any]]]:
        """Return the operation of a NESTED branch and its code."""
        execution, branch = self._execution, self._branches[index]
        op = SdkChildOp(execution, branch.name or None, self._subtype, self._serdes)
        is_new = execution.journal.record_of(op.id) is None

        async def code() -> Any:
            return branch.code(self._context.within(op.namespace, is_new=is_new))

        return op, code

    def _start_flat(self, index: int) -> None:
        execution, branch, around = self._execution, self._branches[index], self.op.namespace
        namespace = Namespace(hash_path(f"{around.prefix}-{index}"), around.scope)
        context = self._context.within(namespace)

        async def run() -> Any:
            code = partial(branch.code, context)
            return run_virtual(execution, code, namespace.prefix, self._serdes)

        task = execution.loop.make_task(run(), namespace, index + 1, f"branch {branch.name}")
        self.watch(index, task)

    # -- a summary -------------------------------------------------------------------------------

    def _run_again(self, recorded: Operation) -> BatchResult[Any]:
        """Collect the branches that had ended, and obey the recorded decision."""
        record = CompletionRecord.from_summary_payload(recorded.payload)
        total = len(self._branches)
        if record is not None:
            total = min(total, record.started_total)
            ended = [index for index in range(total) if index not in record.started_indexes]
            reason = record.completion_reason
        else:  # a summary of an older version, without the decision: the branches' records give it
            ended = [index for index in range(total) if self._has_ended(index)]
            reason = CompletionReason.ALL_COMPLETED
        self.statuses[:total] = [STARTED] * total
        self.follow(ended, reason)
        result = self._result(self._execution.greenlets.wait(self.begin()))
        if record is not None:
            return result
        inferred: BatchResult[Any] = BatchResult.from_items(
            result.all, self._config.completion_config
        )
        return inferred

    def _has_ended(self, index: int) -> bool:
        record = self._execution.journal.record_of(hash_path(f"{self.op.id}-{index}"))
        return record is not None and record.ended
