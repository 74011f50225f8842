"""The engine: it runs workflow code over recorded history, without I/O, clock or threads.

It has four verbs. `start` takes the code and the history; `resolve` brings one fact of the outside
world; `advance` runs the code until it is idle and returns a `Turn`; `close` disposes of the run.

* Replay comes first: as long as a recorded end of an issued operation is undelivered, nothing is
  launched and nothing is sent.
* Suspension is idleness: the run is over for now when no handle is ready, no step runs, no write is
  in flight, and something outside is pending. No exception passes through user code for it.
* Once history and code disagree, the loop stops where it is: user code never sees it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zlib import crc32

from pyworkflow._engine.attempts import Attempts
from pyworkflow._engine.deadlock import deadlock_error
from pyworkflow._engine.journal import Journal
from pyworkflow._engine.loop.event_loop import TimerHandle, WorkflowLoop, make_loop
from pyworkflow._engine.loop.greenlets import Greenlets
from pyworkflow._engine.loop.tasks import are_done, call_plain
from pyworkflow._engine.messages import (
    Broken,
    End,
    Fact,
    Failed,
    LagElapsed,
    LastCall,
    OutOfTime,
    Refreshing,
    StepRaised,
    StepReturned,
    Succeeded,
    Suspended,
    Turn,
)
from pyworkflow._engine.mismatch import difference, mismatch_error, rerun_error, unconsumed_error
from pyworkflow._engine.open_scopes import OpenScopes
from pyworkflow._engine.ops.wait import TimerOp
from pyworkflow._engine.outbox import Outbox
from pyworkflow._engine.pending import PendingOperations
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.limits import MAX_UPDATES, Limits, check_size
from pyworkflow._protocol.records import OperationType
from pyworkflow._values import codec
from pyworkflow._values.exception_classes import home_of
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import NonDeterminismError, SerializationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow._engine.ids import Namespace
    from pyworkflow._engine.loop.tasks import Task
    from pyworkflow._engine.messages import StepCall
    from pyworkflow._engine.observer import Observer
    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.ops.child import ChildOp
    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation, Update

logger = logging.getLogger("pyworkflow.workflow")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Execution:
    """A run of an execution: from its history to its next suspension, or its end."""

    def __init__(
        self,
        execution_id: str,
        execution_name: str,
        known_errors: KnownErrors,
        observer: Observer | None = None,
    ) -> None:
        self.id = execution_id
        self.name = execution_name
        self.loop: WorkflowLoop = make_loop(self)
        self.loop.hash_base = crc32(execution_id.encode()) << 28
        self.greenlets = Greenlets(self.loop)
        self.journal = Journal()
        self.open_scopes = OpenScopes(self.loop)
        self.outbox = Outbox()
        self.attempts = Attempts()
        self.calls = self.loop.root.calls
        self.pending = PendingOperations()
        self.now_ms = 0
        self.clock_ms: int | None = None  # the host's, at the last fact; it decides nothing
        self.is_closing = False
        self.limits = Limits()
        self._start_ms = 0
        self.known_errors = known_errors
        self.observer = observer
        self._main: Task[Any] | None = None
        self._code: Callable[[], Any] | None = None
        self._result_type: object = Any
        self._has_returned = False
        self._broken: Exception | None = None

    # -- the four verbs --------------------------------------------------------------------------

    def start(
        self, main: Callable[[], Any], result_type: object, operations: Sequence[Operation]
    ) -> None:
        """Take the code and all that is recorded. ``main`` returns a value or an awaitable."""
        if (fault := self.journal.load(operations)) is not None:
            self.break_with(fault)
        starts = (o.start_ms for o in operations if o.type is OperationType.EXECUTION)
        self._start_ms = self.now_ms = next(starts, 0)
        self._code, self._result_type = main, result_type
        self._main = self.loop.make_main(_run(main))

    def resolve(self, fact: Fact) -> None:
        """Take one fact. The code sees what follows from it in the next `advance`."""
        match fact:
            case Committed():
                self.outbox.in_flight = False
                for record in fact.operations:
                    self._take_change(record)
            case StepReturned():
                if (op := self.attempts.take_outcome_of(fact)) is not None:
                    op.succeed(fact.payload, fact.value)
            case StepRaised():
                if (op := self.attempts.take_outcome_of(fact)) is not None:
                    op.fail(fact.error)
            case LagElapsed():
                self.outbox.hurry()
            case Refreshing():
                self.outbox.in_flight = True
            case LastCall():
                self.attempts.defer_rest()

    def advance(self) -> Turn:
        """Run the code until it is idle. Called from a plain callback of the host's loop."""
        if self.loop.ready or self.journal.order.ends or self.journal.creations:
            self.loop.inside(self.greenlets.run)
            self._check_consumption()
        if self._broken is not None:
            return Turn(end=Broken(self._broken))
        if self._has_returned and not self._tasks_go_on():
            self._wind_up()
        return self._take_turn()

    def close(self) -> None:
        """Dispose of the run: frames unwind, nothing durable happens any more. Idempotent."""
        if self.is_closing:
            return
        self.is_closing = True
        self.outbox.clear()
        self.attempts.clear()
        self.loop.inside(lambda: self.greenlets.close(self.open_scopes.tasks()))
        self.loop.dispose_asyncgens()
        self.open_scopes.forget()
        self.journal.forget_issued()

    # -- running ---------------------------------------------------------------------------------

    def _check_consumption(self) -> None:
        """The code is idle: what it has not consumed by now, it never will."""
        reruns, unconsumed = self.journal.reruns, self.journal.unconsumed
        if not (reruns or unconsumed) or self.loop.stopped or self._is_timer_next():
            return
        if reruns:
            self.break_with(rerun_error(next(iter(reruns))))
            return
        reached = "the workflow returned" if self._has_returned else "it waits for something new"
        self.break_with(unconsumed_error(unconsumed.values(), reached))

    def bring_next(self) -> bool:
        """The code is idle: give it the next recorded end; False if there is none."""
        if not self._has_returned and self._main is not None and self._main.done():
            self._has_returned = True
            for task in self.loop.root.tasks:
                task.cancel()
            return True
        if self.journal.creations:
            return self.journal.bring_creation()
        if not self.journal.order.ends or (self.pending.waiting and self._is_timer_next()):
            return False
        if self._has_returned and are_done(self.loop.root.tasks):
            return False
        end = self.journal.take_end()
        if end is None:
            return False
        op, record = end
        self._leave(op)
        self.pass_time(record)
        if self.observer is not None:
            self.observer.on_delivery(op, record)
        op.deliver(record)
        return True

    def _is_timer_next(self) -> bool:
        """Whether a wait was due before the next end, but its own end is not known yet."""
        next_ms = self.journal.order.next_ms()
        wait_ms = self.pending.next_wait_ms() if next_ms is not None else None
        return wait_ms is not None and next_ms is not None and wait_ms <= next_ms

    def pass_time(self, record: Operation) -> None:
        """It is now the time at which a delivered operation ended; time never goes back."""
        if (end_ms := record.end_ms) is not None and end_ms > self.now_ms:
            self.now_ms = end_ms
            self.loop.elapsed_ms = end_ms - self._start_ms

    def _take_change(self, record: Operation) -> None:
        op = self.journal.take_change(record)
        if op is None or op.abandoned:
            self.journal.order.pass_by(op, record)
            return
        if record.ended:
            self.journal.queue_end(op, record, is_replay=False)
        else:
            if op.is_pending:
                self.pending.discard(op)
            op.on_change(record)

    # -- turns -----------------------------------------------------------------------------------

    def _take_turn(self) -> Turn:
        attempts, outbox = self.attempts, self.outbox
        launch: tuple[StepCall, ...] = ()
        if attempts.waiting:
            # An end that has to wait, for a creation or a timer, may cancel a body first.
            is_early = self.journal.order.ends and (self.journal.creations or self._is_timer_next())
            launch = attempts.take_launches(recorded_alone=bool(is_early))
        are_running = bool(attempts.running)
        write: tuple[Update, ...] = ()
        # While a body is deferred nothing hurries its start: a later run would find that alone.
        is_busy = are_running or attempts.waiting
        if outbox.is_due or (not (is_busy or outbox.in_flight) and outbox.hurry()):
            first = self.journal.order.take_record()
            write = first + outbox.take_batch(MAX_UPDATES - len(first))
        return Turn(
            launch,
            attempts.take_cancels(),
            write,
            outbox.is_lagging,
            self.pending.next_due_ms() if are_running else None,
            None if are_running or outbox.in_flight else self._take_end(),
        )

    def _take_end(self) -> End:
        if self.attempts.given_up is not None:
            return Broken(self.attempts.given_up)
        if self._has_returned and not self._tasks_go_on():
            return self._outcome()
        if self.attempts.are_deferred:
            return OutOfTime(self.pending.next_due_ms())
        if self.pending.waiting:
            return Suspended()
        error = deadlock_error(self.open_scopes.tasks())
        return Failed(record_error(error), error)

    def _tasks_go_on(self) -> bool:
        """Whether tasks that were cancelled when the workflow returned are still cleaning up."""
        unfinished = not are_done(self.loop.root.tasks)
        attempts, outbox = self.attempts, self.outbox
        expects = attempts.waiting or attempts.running or outbox.in_flight or outbox.is_waiting
        return unfinished and bool(expects or attempts.are_deferred or self.pending.waiting)

    def _wind_up(self) -> None:
        for op in list(self.loop.root.live):
            self.abandon(op)
        self.outbox.drop_lagging()

    def _outcome(self) -> End:
        assert self._main is not None
        self.open_scopes.report_unread(self._main)
        try:
            value = self._main.result()
            self.calls.check(self.loop.root)
            what = "the result of the workflow"
            payload, value = codec.roundtrip(value, self._result_type, what=what)
            check_size(payload, self.limits.max_result_bytes, what)
        except BaseException as error:
            return Failed(self.known_errors.record(error, home_of(self._code)), error)
        return Succeeded(payload, value)

    # -- what operations ask for -----------------------------------------------------------------

    def issue(self, op: Op) -> None:
        """Begin ``op``, or go on with it from its record."""
        record = self.journal.issue(op)
        op.scope.live[op] = None
        if self.observer is not None:
            self.observer.on_issue(op)
        if record is None:
            op.start()
        elif (what := difference(op, record)) is not None:
            self.break_with(mismatch_error(what))
        elif record.ended:
            op.replay_end(record)
        else:
            op.replay(record)

    def abandon(self, op: IssuedOperation) -> None:
        """The workflow no longer waits for ``op``."""
        if op.abandoned or op not in op.scope.live or self.is_closing:
            return
        op.abandoned = True
        self._leave(op)
        op.abandon()

    def _leave(self, op: IssuedOperation) -> None:
        op.scope.live.pop(op, None)
        if op.is_pending:
            self.pending.discard(op)

    def give_decoded(self, op: Op, payload: str | None, result_type: object) -> None:
        """Complete ``op`` with a recorded result; one that no longer fits stops the run."""
        try:
            value = codec.decode(payload, result_type, what=op)
        except SerializationError as error:
            self.break_with(mismatch_error(f"{op.position}: {error}"))
            return
        op.future.set_result(value)

    @property
    def is_halted(self) -> bool:
        """Whether this run is broken or being disposed of: no code goes on."""
        return self.loop.stopped or self.is_closing

    @property
    def is_broken(self) -> bool:
        """Whether history and code were found to disagree: nothing goes on."""
        return self._broken is not None

    def break_with(self, error: NonDeterminismError) -> None:
        """Stop the run where it is: history and code disagree."""
        self._broken = self._broken or error
        self.loop.stopped = True

    # -- what the author's API asks for ----------------------------------------------------------

    def admit(self, what: str) -> None:
        """Refuse ``what`` in a run that is disposed of and in finalisers of async generators."""
        if self.is_closing:
            self.greenlets.refuse()
        namespace = self.loop.namespace()
        if namespace.scope.is_over:
            raise UsageError(
                f"{what} was asked for below a child context that is over, where nothing is "
                "recorded any more. Await what the child starts before the child returns"
            )
        if namespace.detached:
            raise UsageError(
                f"{what} was asked for while an unfinished async generator was finalised, which "
                "happens at a moment that no replay repeats. Close it: "
                "contextlib.aclosing(generator), or end its loop"
            )

    def wait(self, op: Op) -> Any:
        """Block the running task until ``op`` is over; give its value or raise its error."""
        try:
            return self.greenlets.wait(op.future)
        except (asyncio.CancelledError, UsageError):
            self.abandon_if_cancelled(op)
            raise

    def abandon_if_cancelled(self, op: Op) -> None:
        """Abandon ``op`` if it was its own future that was cancelled."""
        if op.future.cancelled():
            self.abandon(op)

    def start_timer(self, seconds: int, handle: TimerHandle) -> None:
        """Start the durable timer behind a callback of the loop."""
        op = TimerOp(self, seconds, handle)
        handle.abandon = lambda: self.abandon(op)
        self.issue(op)

    def leave(self, child: ChildOp, task: Task[Any], outer: Namespace) -> None:
        """End the namespace of ``child``; what still runs in it is abandoned."""
        for op in self.open_scopes.leave(child, task, outer):
            self.abandon(op)

    def report(self, context: dict[str, Any]) -> None:
        """Log an unhandled error; once, not on each replay."""
        if not self.is_closing and not self.journal.is_replaying:
            logger.error("%s", context.get("message"), exc_info=context.get("exception"))

    def now(self) -> datetime:
        """Return the time of the last delivered end."""
        return _EPOCH + timedelta(milliseconds=self.now_ms)


async def _run(main: Callable[[], Any]) -> Any:
    result = call_plain(main)
    return await result if inspect.isawaitable(result) else result
