"""Detects a frozen worker loop, reports what blocks it, and hands back executions it need not keep.

A step that blocks the loop freezes every execution of its worker. The heartbeat notices from its
own thread: at one beat it schedules a callback on the loop, at the next ones it checks whether that
ran. After some seconds without an answer, the log, `list` and `show` name the step or workflow that
blocks the loop, with its stack. Executions with a running body keep their leases: nothing may run
twice. The others are handed back, so that other workers can continue them.

The decision is made here and carried out in the file, while the loop may come back at any moment.
This is safe because both sides announce first and check second:

* `Runner.give_up` is refused by a runner that is about to launch a body; one that was given up
  launches none.
* A claim that the loop has not yet received is void if ``rounds`` has changed meanwhile. Claims
  received before the change are among the runs that are checked after it.
* An execution that was recorded, released or claimed again since the check has another number of
  tokens, and the service skips it.

The same applies to executions that the worker has leased without knowing: a claim whose answer was
lost, an execution that could not be handed back.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING, NamedTuple

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._runtime.steps import StepRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from pyworkflow._runtime.runner import Runner
    from pyworkflow.services.port import Service

logger = logging.getLogger("pyworkflow.worker")

BEATS = 2
"""Beats in a row without an answer after which the loop counts as frozen: 6.7 s."""

_BODIES = {StepRunner.run_async.__code__, StepRunner.run_sync.__code__}


class Watch:
    """Watches the loop on which it is made, for a worker whose runners ``runners`` returns."""

    def __init__(
        self, service: Service, owner: str, runners: Callable[[], Mapping[str, Runner]]
    ) -> None:
        self.rounds = 0
        """The number of times that executions to hand back were chosen."""
        self._service = service
        self._owner = owner
        self._runners = runners
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._has_answered = True
        self._missed = 0
        self._is_reported = False
        self._taken: set[str] = set()

    async def beat(self, beat_seconds: float) -> None:
        """Check the loop; called once a beat, on another thread."""
        if self._has_answered:
            if self._missed >= BEATS:
                logger.warning("the loop of worker %r answers again", self._owner)
            self._missed = 0
            self._taken.clear()
            self._ask()
            if self._is_reported:
                await self._service.report(self._owner, None)
                self._is_reported = False
        else:
            self._missed += 1
            if self._missed >= BEATS:
                await self._on_frozen(self._missed * beat_seconds)
        await self._hand_back_strays()

    def _ask(self) -> None:
        self._has_answered = False
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed, and so is the worker
            self._has_answered = True

    def _answer(self) -> None:
        self._has_answered = True

    # -- a frozen loop ---------------------------------------------------------------------------

    async def _on_frozen(self, seconds: float) -> None:
        blocker = find_blocker(self._thread_id, self._runners())
        said = (
            f"The loop of the worker {self._owner!r} has not answered for {seconds:.0f} s: "
            f"{blocker.what} blocks it. Steps that run there keep their leases until it answers "
            "again or its process ends. End that process, or let another worker run one of them a "
            "second time: pyworkflow release EXECUTION"
        )
        if self._missed == BEATS:
            logger.warning(
                "%s. Await what blocks, or make it a sync step, which runs in a thread:\n%s",
                said,
                "".join(blocker.stack),
            )
        self._is_reported = True
        report = ErrorRecord(said, "WorkerFrozen", stack_trace=blocker.stack)
        await self._service.report(self._owner, report)
        await self._hand_back_idle()

    async def _hand_back_idle(self) -> None:
        leased = await self._service.leased_by(self._owner)
        self.rounds += 1
        runners = self._runners()
        busy = {execution_id for execution_id, runner in runners.items() if not runner.give_up()}
        idle = [each for each in leased if each[0] not in busy]
        if idle:
            await self._service.hand_back(self._owner, idle)
        taken = busy.difference(self._taken, (execution_id for execution_id, _ in leased))
        for execution_id in taken:
            self._taken.add(execution_id)
            await self._report_taken(execution_id, runners[execution_id])

    async def _report_taken(self, execution_id: str, runner: Runner) -> None:
        summary = await self._service.get(execution_id)
        if summary.status is ExecutionStatus.RUNNING:  # else it ended or was stopped
            logger.warning(
                "%s was taken from this worker, whose loop does not answer; what it has not "
                "recorded is lost: %s",
                runner.title,
                ", ".join(runner.unrecorded) or "nothing",
            )

    async def _hand_back_strays(self) -> None:
        late = await self._service.leased_by(self._owner, late=True)
        if late:
            self.rounds += 1
            runners = self._runners()
            strays = [each for each in late if each[0] not in runners]
            if strays:
                await self._service.hand_back(self._owner, strays)


class Blocker(NamedTuple):
    """The code that blocks a loop, and its stack, innermost last."""

    what: str
    stack: tuple[str, ...]


def find_blocker(thread_id: int, runners: Mapping[str, Runner]) -> Blocker:
    """Return the code that a thread is running."""
    frame = sys._current_frames().get(thread_id)
    what, frames = "", []
    while frame is not None and not what:
        if frame.f_code in _BODIES:
            what = _step_of(frame, runners)
        else:
            frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    if not what:
        # Workflow code runs on a stack of its own, whose frames end there.
        inside = [runner.title for runner in runners.values() if runner.is_inside]
        what = f"code of {inside[0]}" if inside else "code that belongs to no execution"
    stack = traceback.StackSummary.extract(iter(reversed(frames)))
    return Blocker(what, tuple(stack.format()))


def _step_of(frame: FrameType, runners: Mapping[str, Runner]) -> str:
    call, steps = frame.f_locals.get("call"), frame.f_locals.get("self")
    runner = runners.get(getattr(steps, "_execution_id", ""))
    of = "" if runner is None else f" of {runner.title}"
    return f"step {getattr(call, 'name', '?')!r}{of}"
