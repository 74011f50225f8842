"""The world outside of one execution in memory: who completes its callbacks, and whom it invokes.

It stands between the runner and the memory service. The time of an event planned for a callback
counts from the moment at which the callback exists. The event happens at its own time: whenever
something is written or time has jumped, all that was due by then is done first, each at the time at
which it was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.messages import Failed, Succeeded
from pyworkflow._protocol.executions import InvokedNames
from pyworkflow._protocol.records import ErrorRecord, OperationType, Status
from pyworkflow._values import codec
from pyworkflow._values.exceptions import record_error
from pyworkflow.errors import CallbackAlreadyCompletedError, UsageError
from pyworkflow.services.memory import ImmediateMemoryService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pyworkflow._api.workflow import Workflow
    from pyworkflow._protocol.executions import Committed, Page
    from pyworkflow._protocol.records import Operation, Update
    from pyworkflow._runtime.clock import Clock

    Ended = Succeeded | Failed
    RunWorkflow = Callable[[Workflow[..., Any], str, int, str], Awaitable[tuple[Ended, int]]]
    """Runs a workflow with an input from a time on; returns how and when it ended."""

COMPLETE, FAIL, EXPIRE, HEARTBEAT = "complete", "fail", "expire", "heartbeat"

_OF_WAIT = " create callback id"

_ANSWERED = {OperationType.CALLBACK, OperationType.CHAINED_INVOKE}
"""Operations that end from outside; both begin with a START, and send nothing else."""


class CallbackPlan(msgspec.Struct, frozen=True):
    """A planned end of a callback, and how long after its creation it comes."""

    kind: str
    after_ms: int
    payload: str | None = None
    error: ErrorRecord = ErrorRecord()


class InvokePlan(msgspec.Struct, frozen=True):
    """The answer to an invoke, and its delay: one kind of answer is set, the others are not."""

    milliseconds: int
    payload: str | None = None
    error: ErrorRecord | None = None
    side_effect: Callable[[Any], Any] | None = None
    workflow: Any = None


class _Open(msgspec.Struct):
    """A callback of this execution."""

    id: str
    can_expire: bool
    is_ordered: bool = False
    """Whether its end is planned."""


class OutsideWorld:
    """The memory service of one execution, with what happens around it."""

    def __init__(
        self,
        clock: Clock,
        plans: Mapping[str, Sequence[CallbackPlan]],
        callees: Mapping[str, InvokePlan],
        run_workflow: RunWorkflow,
    ) -> None:
        self.service = ImmediateMemoryService(self._now_ms)
        self._clock = clock
        self._plans = {label: list(planned) for label, planned in plans.items()}
        self._callees = callees
        self._run_workflow = run_workflow
        self._as_of_ms: int | None = None
        self._callbacks: dict[str, _Open] = {}
        self._labels: dict[str, _Open] = {}
        self._due: list[tuple[int, int, _Open, CallbackPlan]] = []
        self._answers: list[tuple[int, int, tuple[str, str], InvokePlan]] = []
        self._invoked: dict[str, str | None] = {}
        self._names: InvokedNames | None = None
        self._count = 0
        self._calls: set[asyncio.Task[None]] = set()

    def _now_ms(self) -> int:
        return self._clock.now_ms() if self._as_of_ms is None else self._as_of_ms

    # -- between a runner and the service --------------------------------------------------------

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return a page of the history."""
        return await self.service.load(execution_id, token, marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply a checkpoint, and look at what it starts."""
        return self.commit_now(execution_id, token, updates)

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        self.apply_due()
        answer = self.service.commit_now(execution_id, token, updates)
        started = {update.id: update for update in updates if update.type in _ANSWERED}
        if started:
            for operation in answer.operations:
                update = started.get(operation.id)
                if update is None:
                    continue
                if operation.type is OperationType.CALLBACK:
                    self._take_callback(operation, update)
                else:
                    self._take_invoke(execution_id, operation, update)
        return answer

    # -- callbacks -------------------------------------------------------------------------------

    def _take_callback(self, operation: Operation, update: Update) -> None:
        assert operation.callback_id is not None
        can_expire = bool(update.timeout_seconds or update.heartbeat_timeout_seconds)
        opened = _Open(operation.callback_id, can_expire)
        self._callbacks[opened.id] = opened
        name = (operation.name or "").removesuffix(_OF_WAIT)
        label, count = name, 1
        while label in self._labels:
            count += 1
            label = f"{name}#{count}"
        self._labels[label] = opened
        for plan in self._plans.pop(label, ()):
            self._schedule(opened, plan, operation.start_ms)

    def knows(self, callback_id: str) -> bool:
        """Whether this is the id of a callback of this execution."""
        return callback_id in self._callbacks

    def plan(self, label_or_id: str, plan: CallbackPlan) -> None:
        """Plan something while the execution runs: from now, or from the callback's creation."""
        opened = self._callbacks.get(label_or_id) or self._labels.get(label_or_id)
        if opened is None:
            planned = self._plans.setdefault(label_or_id, [])
            add_plan(planned, label_or_id, plan)
        else:
            self._schedule(opened, plan, self._clock.now_ms())

    def _schedule(self, opened: _Open, plan: CallbackPlan, from_ms: int) -> None:
        if plan.kind != HEARTBEAT:
            if opened.is_ordered:
                raise UsageError(_twice(opened.id))
            opened.is_ordered = True
        if plan.kind == EXPIRE and not opened.can_expire:
            raise UsageError(
                f"callback {opened.id!r} has no timeout, so it can't expire; give it one: "
                "ctx.callback(..., timeout=...)"
            )
        self._count += 1
        heappush(self._due, (from_ms + plan.after_ms, self._count, opened, plan))

    def _carry_out(self, callback_id: str, plan: CallbackPlan) -> None:
        service = self.service
        # It may be over by its own timeout: then the sender comes too late, and gets an error.
        with contextlib.suppress(CallbackAlreadyCompletedError):
            if plan.kind == COMPLETE:
                service.complete_callback(callback_id, plan.payload)
            elif plan.kind == FAIL:
                service.fail_callback(callback_id, plan.error)
            elif plan.kind == EXPIRE:
                service.expire_callback(callback_id)
            else:
                service.heartbeat_callback(callback_id)

    # -- invokes ---------------------------------------------------------------------------------

    def _take_invoke(self, execution_id: str, operation: Operation, update: Update) -> None:
        self._invoked[operation.id] = update.function_name
        self._names = self._names or InvokedNames(execution_id)
        invoked_id = self._names.take(operation.id, operation.name)
        for name in (operation.name, update.function_name):
            callee = self._callees.get(name or "")
            if callee is not None:
                payload = update.payload or "null"
                call = self._call((execution_id, operation), callee, payload, invoked_id)
                task = asyncio.get_running_loop().create_task(call)
                self._calls.add(task)
                self._clock.hold()
                task.add_done_callback(lambda _: self._clock.release())
                return

    async def _call(
        self, caller: tuple[str, Operation], callee: InvokePlan, payload: str, invoked_id: str
    ) -> None:
        execution_id, operation = caller
        over_ms = operation.start_ms + callee.milliseconds
        answer = callee
        if callee.workflow is not None:
            start_ms = operation.start_ms
            end, over_ms = await self._run_workflow(callee.workflow, payload, start_ms, invoked_id)
            if isinstance(end, Succeeded):
                answer = InvokePlan(0, end.payload)
            else:
                answer = InvokePlan(0, error=end.record)
        elif callee.side_effect is not None:
            answer = await _outcome_of(callee.side_effect, payload)
        self._count += 1
        heappush(self._answers, (over_ms, self._count, (execution_id, operation.id), answer))

    def _answer(self, target: tuple[str, str], answer: InvokePlan) -> None:
        status = Status.SUCCEEDED if answer.error is None else Status.FAILED
        self.service.complete_invoke(
            *target, payload=answer.payload, status=status, error=answer.error
        )

    # -- time ------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """See the callees that run to their end; raises what one of them could not answer."""
        while self._calls:
            task = self._calls.pop()
            await task

    async def close(self) -> None:
        """Cancel the callees that nobody waits for any more."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def next_due(self, execution_id: str) -> int | None:
        """Return when the next thing happens: a timer of the service, or something planned."""
        heads = [heap[0][0] for heap in (self._due, self._answers) if heap]
        due_ms = self.service.next_due(execution_id)
        return min(heads if due_ms is None else [*heads, due_ms], default=None)

    def apply_due(self) -> None:
        """Do all that is due by now, in its order, each at its own time."""
        now_ms = self._clock.now_ms()
        while self._due or self._answers:
            heaps: list[list[Any]] = [h for h in (self._due, self._answers) if h]
            heap = min(heaps, key=lambda h: h[0][:2])
            if heap[0][0] > now_ms:
                return
            self._as_of_ms, _, target, what = heappop(heap)
            try:
                if isinstance(what, CallbackPlan):
                    self._carry_out(target.id, what)
                else:
                    self._answer(target, what)
            finally:
                self._as_of_ms = None

    def hint(self, operation: Operation) -> str:
        """Return what a test could do about an operation that nobody ends."""
        name = (operation.name or "").removesuffix(_OF_WAIT)
        if operation.type is OperationType.CALLBACK:
            return f" (mock_ctx.complete_callback({name or operation.callback_id!r}, ...))"
        if operation.type is OperationType.CHAINED_INVOKE:
            return f" (mock_ctx.mock_invoke({name or self._invoked.get(operation.id)!r}, ...))"
        return ""

    @property
    def unused(self) -> list[str]:
        """The labels for which something is planned and no callback has come."""
        return list(self._plans)


async def _outcome_of(side_effect: Callable[[Any], Any], payload: str) -> InvokePlan:
    try:
        value = side_effect(codec.decode(payload, what="the input of an invoke"))
        value = await value if inspect.isawaitable(value) else value
    except Exception as error:
        return InvokePlan(0, error=record_error(error))
    return InvokePlan(0, codec.encode(value, what="the result of a side_effect"))


def add_plan(planned: list[CallbackPlan], label: str, plan: CallbackPlan) -> None:
    """Add ``plan`` to what is planned for ``label``; a second end is a `UsageError`."""
    if plan.kind != HEARTBEAT and any(each.kind != HEARTBEAT for each in planned):
        raise UsageError(_twice(label))
    planned.append(plan)


def _twice(callback: str) -> str:
    return (
        f"callback {callback!r} is to end twice, but a callback ends once; the next one of the "
        "same name is 'name#2'"
    )
