"""Whether a worker's loop answers; and if not, what keeps it, and what others can go on with.

A step that blocks the loop freezes all that this worker runs. The heart notices, from its thread:
it asks the loop for a sign at one beat, and at each later one looks whether it came. Once that
failed for some seconds, the log, `list` and `show` name the step or workflow that keeps the loop,
with its stack. Bodies that were frozen along keep their leases: nothing may run twice. What has no
body running is handed back, for other workers to go on with.

Handing back is decided here and done in the file, while the loop may come back at any moment. It
harms nothing, for whatever runs a body says so first and looks second, and this looks second, too:

* `Run.give_up` is refused by a run that is about to launch a body; one that was given up launches
  none.
* A claim whose answer the loop has not taken yet is void if ``rounds`` has changed meanwhile. Those
  that were taken before it changed are among the runs that are looked at after.
* What was recorded, released or claimed anew since it was looked at has another number of tokens,
  and the service passes it over.

The same goes for what the worker has leased and does not know: a claim whose answer was lost, a run
that could not be handed back.
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

    from pyworkflow._runtime.runner import Run
    from pyworkflow.services.port import Service

logger = logging.getLogger("pyworkflow.worker")

BEATS = 2
"""At how many beats in a row the loop owes a sign before it counts as frozen: 6.7 s."""

_BODIES = {StepRunner.run_async.__code__, StepRunner.run_sync.__code__}


class Watch:
    """Watches the loop on which it is made, for a worker whose runs ``runs`` returns."""

    def __init__(self, service: Service, owner: str, runs: Callable[[], Mapping[str, Run]]) -> None:
        self.rounds = 0
        """How often it was decided what is handed back."""
        self._service = service
        self._owner = owner
        self._runs = runs
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._has_answered = True
        self._missed = 0
        self._is_reported = False
        self._taken: set[str] = set()

    async def beat(self, beat_seconds: float) -> None:
        """Look after the loop; called once a beat, on another thread than the loop's."""
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
        except RuntimeError:  # the loop is closed, and the worker with it
            self._has_answered = True

    def _answer(self) -> None:
        self._has_answered = True

    # -- a frozen loop ---------------------------------------------------------------------------

    async def _on_frozen(self, seconds: float) -> None:
        holder = find_holder(self._thread_id, self._runs())
        said = (
            f"The loop of the worker {self._owner!r} has not answered for {seconds:.0f} s: "
            f"{holder.what} keeps it. Steps that run there keep their leases until it answers "
            "again or its process ends. End that process, or let another worker run one of them a "
            "second time: pyworkflow release EXECUTION"
        )
        if self._missed == BEATS:
            logger.warning(
                "%s. Await what blocks, or make it a sync step, which runs in a thread:\n%s",
                said,
                "".join(holder.stack),
            )
        self._is_reported = True
        report = ErrorRecord(said, "WorkerFrozen", stack_trace=holder.stack)
        await self._service.report(self._owner, report)
        await self._hand_back_idle()

    async def _hand_back_idle(self) -> None:
        leased = await self._service.leased_by(self._owner)
        self.rounds += 1
        runs = self._runs()
        busy = {execution_id for execution_id, run in runs.items() if not run.give_up()}
        idle = [each for each in leased if each[0] not in busy]
        if idle:
            await self._service.hand_back(self._owner, idle)
        taken = busy.difference(self._taken, (execution_id for execution_id, _ in leased))
        for execution_id in taken:
            self._taken.add(execution_id)
            await self._tell_taken(execution_id, runs[execution_id])

    async def _tell_taken(self, execution_id: str, run: Run) -> None:
        summary = await self._service.get(execution_id)
        if summary.status is ExecutionStatus.RUNNING:  # else its end is recorded, or it was stopped
            logger.warning(
                "%s was taken from this worker, whose loop does not answer; what it has not "
                "recorded is lost: %s",
                run.title,
                ", ".join(run.unrecorded) or "nothing",
            )

    async def _hand_back_strays(self) -> None:
        late = await self._service.leased_by(self._owner, late=True)
        if late:
            self.rounds += 1
            runs = self._runs()
            strays = [each for each in late if each[0] not in runs]
            if strays:
                await self._service.hand_back(self._owner, strays)


class Holder(NamedTuple):
    """What keeps a loop, and its stack, innermost last."""

    what: str
    stack: tuple[str, ...]


def find_holder(thread_id: int, runs: Mapping[str, Run]) -> Holder:
    """Return what a thread runs at this moment."""
    frame = sys._current_frames().get(thread_id)
    what, frames = "", []
    while frame is not None and not what:
        if frame.f_code in _BODIES:
            what = _step_of(frame, runs)
        else:
            frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    if not what:
        # Code of a workflow runs on a stack of its own, whose frames end there.
        inside = [run.title for run in runs.values() if run.is_inside]
        what = f"code of {inside[0]}" if inside else "code that belongs to no execution"
    stack = traceback.StackSummary.extract(iter(reversed(frames)))
    return Holder(what, tuple(stack.format()))


def _step_of(frame: FrameType, runs: Mapping[str, Run]) -> str:
    call, runner = frame.f_locals.get("call"), frame.f_locals.get("self")
    run = runs.get(getattr(runner, "_execution_id", ""))
    of = "" if run is None else f" of {run.title}"
    return f"step {getattr(call, 'name', '?')!r}{of}"
