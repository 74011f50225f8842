"""The worker: claims executions that are due, drives many at once, and hands them back.

It sleeps until it is woken, and then looks once: it passes news on to its runs, claims what is due
as far as it has room, and sets an alarm for what is due next. A wake-up can't be lost:

* Between a look and the sleep: the flag is cleared *before* the look, so whatever the service tells
  from then on leads to another look.
* Between a claim and its run: the run is registered in the tick in which the claim is answered, and
  a run that has not begun yet remembers that it was told to look again.
* Between a run's last commit and its release: `release` compares, and what nobody has read makes
  the execution due at once.
* No room: each run that ends wakes the worker, so no alarm is needed then.
* Beyond all that (a change that the service did not notice, a lease that ran out, an error of the
  service, a machine that slept): each heartbeat wakes the worker, too.

What goes wrong with an execution is its own affair: it is released with the problem, due again
later, and nothing recorded is lost. A refused token means that it was stopped, or that another
process has it: what this one still knows of it is dropped.

An execution that lost its process may be what ended it. Such a *suspect* is claimed alone: while
one is on probation, no other is. The probation lasts until its invocation ends, and at most for a
second, twice as long after each further loss: longer than it takes to kill the process, in the end.
So a process that dies takes one suspect along, and its neighbours of the last time are claimed one
after the other.

Runs are told by plain callbacks of the loop, for the engine never advances inside of a task.
Virtual time stands still from each wake-up to the end of its look, and while a run begins or ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from pyworkflow._engine.exits import FAILURES, pass_on_signal
from pyworkflow._engine.messages import Broken, Failed, OutOfTime, Succeeded, Suspended
from pyworkflow._local.heartbeat import Heart
from pyworkflow._local.unclaimed import Unserved
from pyworkflow._local.waits import LENT_SLOTS, lenders
from pyworkflow._local.watch import Watch
from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._runtime.clock import holding
from pyworkflow._runtime.runner import Runner, title_of
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import DamagedExecutionError, ServiceError, StaleTokenError

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyworkflow._engine.messages import End
    from pyworkflow._local.registry import Registry
    from pyworkflow._protocol.executions import Invocation
    from pyworkflow._runtime.clock import Alarm, Clock
    from pyworkflow._runtime.runner import Run
    from pyworkflow.services.port import Service

logger = logging.getLogger("pyworkflow.worker")

MAX_CONCURRENT = 200
UNWINDING_SECONDS = 5
"""How long steps that are cancelled at the end may take to clean up; one may never be over."""
CLAIM = 50
"""How many executions one claim takes at most: histories are read with it."""


LONGEST_PROBATION_SECONDS = 300


def probation_seconds(losses: int) -> int:
    """Return how long a suspect is run alone after that many losses in a row."""
    return min(1 << min(losses - 1, 20), LONGEST_PROBATION_SECONDS)


class Worker:
    """Runs the executions of the workflows in ``registry``; those added later, too.

    ``max_concurrent`` is how many it drives at once; executions that are suspended count not.
    """

    def __init__(
        self,
        service: Service,
        registry: Registry,
        clock: Clock,
        *,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._service = service
        self._registry = registry
        self._clock = clock
        self._max_concurrent = max_concurrent
        self._loop = asyncio.get_running_loop()
        self._runners: dict[str, Runner] = {}
        self._driven: dict[str, _Driven] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._alarm: Alarm | None = None
        self._grace_seconds: float | None = None
        self._unserved = Unserved(service, registry)
        self._lent: dict[str, int] = {}
        """How many bodies of which execution wait for other executions; from any thread."""
        self._lending = threading.Lock()
        self._suspect: Run | None = None
        """The one that is on probation."""

    async def run(self) -> None:
        """Work until `stop`; cancelled, hand back at once what runs.

        Raises `ServiceError` when the service refuses for good.
        """
        for name in self._registry.names:
            self._runner(name)
        self._watch = Watch(self._service, self.owner, self._runs)
        heart = Heart(
            self._service, self.owner, lambda: list(self._driven), self._on_beat, self._watch
        )
        unsubscribe = self._service.subscribe(self._wake_soon)
        lenders.add(self)
        heart.start()
        try:
            self.wake()
            await self._work()
            await self._wind_down()
        finally:
            unsubscribe()
            lenders.discard(self)
            await self._abandon()
            await heart.stop()
            await self._retire()

    def stop(self, grace_seconds: float) -> None:
        """Claim nothing more, let steps in flight end within ``grace_seconds``, and end `run`.

        Those that do not are cancelled and recorded as interrupted, as far as they were recorded at
        all; a sync body can't be cancelled, and is left to itself.
        """
        self._grace_seconds = grace_seconds
        self._tell_to_wind_down()
        self.wake()

    def wake(self) -> None:
        """Look again, soon; to be called on the worker's loop."""
        if not self._woken.is_set():
            self._clock.hold()
            self._woken.set()

    @property
    def driven(self) -> Collection[str]:
        """The ids of the executions that it drives now."""
        return tuple(self._driven)

    # -- slots of executions that wait; see `waits` ----------------------------------------------

    def serves(self, workflow_name: str) -> bool:
        """Whether it runs executions of that workflow."""
        return workflow_name in self._registry.names

    def lend(self, execution_id: str) -> bool | None:
        """Lend the slot of an execution: False if too many are, `None` if it is not run here."""
        if execution_id not in self._driven:
            return None
        with self._lending:
            count = self._lent.get(execution_id, 0)
            if not count and len(self._lent) + 1 >= self._max_concurrent + LENT_SLOTS:
                return False
            self._lent[execution_id] = count + 1
        if not count:
            self._wake_soon()
        return True

    def take_back(self, execution_id: str) -> None:
        """Take back what `lend` lent."""
        with self._lending:
            self._lent[execution_id] -= 1
            if not self._lent[execution_id]:
                del self._lent[execution_id]

    @property
    def _slots(self) -> int:
        return self._max_concurrent + min(len(self._lent), LENT_SLOTS)

    def _runs(self) -> dict[str, Run]:
        """Return what it drives; on any thread."""
        return {execution_id: each.run for execution_id, each in list(self._driven.items())}

    def _on_beat(self) -> None:
        self._unserved.on_beat()
        self._wake_soon()

    def _wake_soon(self) -> None:
        """Do as `wake`, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop is closed, and the worker with it
            return

    # -- looking ---------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                if self._grace_seconds is not None:
                    return
                await self._look()
                await self._unserved.look()
            except ServiceError as error:
                if error.is_final and not isinstance(error, DamagedExecutionError):
                    raise
                logger.warning("the service can't be asked for work now: %s", error)
            finally:
                self._clock.release()

    async def _look(self) -> None:
        driven = tuple(self._driven)
        for execution_id in await self._service.changed(self.owner, driven) if driven else ():
            if execution_id in self._driven:
                self._loop.call_soon(self._driven[execution_id].run.look_again)
        names = self._registry.names
        while (wanted := min(CLAIM, self._slots - len(self._driven))) > 0:
            rounds = self._watch.rounds
            claimed = await self._service.claim_due(
                self.owner, names, wanted, suspects=self._room_for_suspects, keep=True
            )
            for invocation in claimed:
                self._begin(invocation)
            if rounds != self._watch.rounds:  # what was claimed may have been handed back by then
                for invocation in claimed:
                    self._driven[invocation.execution_id].run.give_up()
            if len(claimed) < wanted:
                await self._set_next_alarm(names)
                return
        self._set_alarm(None)

    @property
    def _room_for_suspects(self) -> int:
        return 1 if self._suspect is None else 0

    async def _next_due(self, names: Collection[str]) -> int | None:
        if self._room_for_suspects:
            return await self._service.next_due(names)
        return await self._service.next_due(names, suspects=False)

    async def _set_next_alarm(self, names: Collection[str]) -> None:
        due_ms = await self._next_due(names)
        for_suspended = False
        if due_ms is not None and self._clock.skips_waits:
            # The timeout of an execution whose body runs is not to be skipped.
            deadline_ms = await self._service.next_deadline()
            for_suspended = deadline_ms is None or due_ms < deadline_ms
        self._set_alarm(due_ms, for_suspended=for_suspended)

    def _set_alarm(self, due_ms: int | None, *, for_suspended: bool = False) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due_ms is not None:
            self._alarm = self._clock.call_at(due_ms, self.wake, for_suspended=for_suspended)

    # -- driving ---------------------------------------------------------------------------------

    def _runner(self, workflow_name: str) -> Runner:
        """Return the runner of a workflow, which knows the errors of when it was first wanted."""
        runner = self._runners.get(workflow_name)
        workflow = self._registry.get(workflow_name)
        if runner is None or runner.workflow is not workflow:  # it was defined again
            known = KnownErrors.snapshot()
            runner = self._runners[workflow_name] = Runner(
                self._service, workflow, self._clock, known
            )
        return runner

    def _begin(self, invocation: Invocation) -> None:
        execution_id = invocation.execution_id
        if len(invocation.operations) == 1:
            logger.info("%s begins", title_of(invocation))
        run = self._runner(invocation.workflow_name).begin(invocation)
        former = self._driven.get(execution_id)
        task = self._loop.create_task(self._drive(invocation, run, former))
        self._driven[execution_id] = _Driven(run, task)
        if invocation.losses:
            self._suspect = run
            self._loop.call_later(probation_seconds(invocation.losses), self._end_probation, run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_probation(self, run: Run) -> None:
        if self._suspect is run:
            self._suspect = None
            self.wake()

    async def _drive(self, invocation: Invocation, run: Run, former: _Driven | None) -> None:
        if former is not None:  # its lease ran out before it could be renewed
            former.task.cancel()
            await asyncio.wait([former.task])
        end: End | BaseException
        try:
            end = await run.drive()
        except asyncio.CancelledError:
            end = OutOfTime()
        except FAILURES as error:
            pass_on_signal(error)
            end = error
        with holding(self._clock):
            if self._driven[invocation.execution_id].run is run:
                del self._driven[invocation.execution_id]
            await self._leave(invocation, run, end)
            self._end_probation(run)
            self.wake()

    # -- leaving ---------------------------------------------------------------------------------

    async def _leave(self, invocation: Invocation, run: Run, end: End | BaseException) -> None:
        """Tell the service how an invocation ended."""
        try:
            match end:
                case Succeeded() | Failed():
                    await run.record(end)
                    if isinstance(end, Failed):  # as its client is told, too
                        logger.info("%s failed", title_of(invocation), exc_info=end.error)
                    else:
                        logger.info("%s succeeded", title_of(invocation))
                case Suspended() | OutOfTime():
                    await self._release(invocation, run, is_unfinished=isinstance(end, OutOfTime))
                case Broken():
                    raise end.error
                case _:
                    raise end
        except StaleTokenError as error:
            lost = ", ".join(run.unrecorded)
            logger.log(
                logging.WARNING if lost else logging.INFO,
                "%s was stopped, or another worker has it; what it has not recorded is lost: %s: "
                "%s",
                title_of(invocation),
                lost or "nothing",
                error,
            )
        except FAILURES as error:
            pass_on_signal(error)
            await self._release_with_problem(invocation, run, error)

    async def _release_with_problem(
        self, invocation: Invocation, run: Run, error: BaseException
    ) -> None:
        logger.error(
            "%s can't go on now; it is tried again later, nothing recorded is lost",
            title_of(invocation),
            exc_info=error,
        )
        try:
            await self._release(invocation, run, problem=error)
        except ServiceError as fault:  # then its lease runs out
            logger.warning("%s could not be handed back: %s", title_of(invocation), fault)

    async def _release(
        self,
        invocation: Invocation,
        run: Run,
        *,
        problem: BaseException | None = None,
        is_unfinished: bool = False,
    ) -> None:
        token = run.token
        if token is not None:
            await self._service.release(
                invocation.execution_id,
                token,
                problem=None if problem is None else record_error(problem),
                is_unfinished=is_unfinished,
            )

    # -- the end ---------------------------------------------------------------------------------

    async def _wind_down(self) -> None:
        self._tell_to_wind_down()  # those claimed since `stop`
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace_seconds)

    def _tell_to_wind_down(self) -> None:
        for driven in self._driven.values():
            self._loop.call_soon(driven.run.wind_down)

    async def _abandon(self) -> None:
        """Cancel what is driven still, and see it handed back."""
        self._set_alarm(None)
        for driven in self._driven.values():
            driven.task.cancel()
        if not self._tasks:
            return
        _, stuck = await asyncio.wait(self._tasks, timeout=UNWINDING_SECONDS)
        if stuck:
            logger.warning(
                "a step goes on although it was cancelled, in %s: nothing is handed back; others "
                "take over when this process has ended, or %d s from now",
                ", ".join(self._driven),
                LEASE_MS // 1000,
            )

    async def _retire(self) -> None:
        try:
            await self._service.retire(self.owner)
        except ServiceError as error:  # others do it some time
            logger.warning("the worker %r could not be signed off: %s", self.owner, error)


class _Driven(NamedTuple):
    run: Run
    task: asyncio.Task[None]
