"""The worker: claims executions that are due, drives many at once, and hands them back.

It sleeps until it is woken, and then looks once: it passes news to its runners, claims what is due
while it has room, and sets an alarm for what is due next. No wake-up is lost:

* Between a look and the sleep: the flag is cleared *before* the look, so any later change leads to
  another look.
* Between a claim and its run: the runner is registered in the tick in which the claim is answered,
  and remembers to look again if it has not begun yet.
* Between a runner's last commit and its release: `release` compares, and a change that was not read
  makes the execution due at once.
* No room: each run that ends wakes the worker, so no alarm is needed.
* In all other cases (a change that the service did not notice, an expired lease, an error of the
  service, a machine that slept): each heartbeat wakes the worker.

A fault of one execution stays with it: it is released with the problem and due again later, and
nothing recorded is lost. A refused token means that the execution was stopped or that another
process has it: unrecorded work is dropped.

An execution that lost its process may have killed it. Such a *suspect* is claimed alone: one at a
time is on probation. The probation lasts until its invocation ends, and at most a second, doubled
after each further loss: eventually longer than it takes to kill the process. So a process that dies
takes one suspect with it, and the executions that ran beside it last time are claimed one by one.

Runners are notified by plain callbacks of the loop, because the engine never advances inside a
task. Virtual time stands still from each wake-up to the end of its look, and while a run begins or
ends.
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
from pyworkflow._local.heartbeat import Heartbeat
from pyworkflow._local.unclaimed import Unclaimed
from pyworkflow._local.waits import LENT_SLOTS, lenders
from pyworkflow._local.watch import Watch
from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow._runtime.clock import holding
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import DamagedExecutionError, ServiceError, StaleTokenError

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from pyworkflow._api.workflow import Workflow
    from pyworkflow._engine.messages import End
    from pyworkflow._local.registry import Registry
    from pyworkflow._protocol.executions import Invocation
    from pyworkflow._runtime.clock import Alarm, Clock
    from pyworkflow.services.port import Service

logger = logging.getLogger("pyworkflow.worker")

MAX_CONCURRENT = 200
UNWINDING_SECONDS = 5
"""Time for steps that are cancelled at the end to clean up; one may never end."""
CLAIM = 50
"""Maximum number of executions per claim, which also reads their histories."""


LONGEST_PROBATION_SECONDS = 300


def probation_seconds(losses: int) -> int:
    """Return how long a suspect runs alone after that many losses in a row."""
    return min(1 << min(losses - 1, 20), LONGEST_PROBATION_SECONDS)


class Worker:
    """Runs the executions of the workflows in ``registry``, including those added later.

    ``max_concurrent`` is the number of executions driven at once; suspended ones don't count.
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
        self._known_errors: dict[str, tuple[Workflow[..., Any], KnownErrors]] = {}
        self._driven: dict[str, _Driven] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._alarm: Alarm | None = None
        self._grace_seconds: float | None = None
        self._unclaimed = Unclaimed(service, registry)
        self._lent: dict[str, int] = {}
        """The number of bodies that wait for other executions, by execution; used on any thread."""
        self._lending = threading.Lock()
        self._suspect: Runner | None = None
        """The runner of the execution on probation."""

    async def run(self) -> None:
        """Work until `stop`; if cancelled, hand back at once what is running.

        Raises `ServiceError` when the service fails for good.
        """
        for name in self._registry.names:
            self._workflow(name)
        self._watch = Watch(self._service, self.owner, self._runners)
        heartbeat = Heartbeat(
            self._service, self.owner, lambda: list(self._driven), self._on_beat, self._watch
        )
        unsubscribe = self._service.subscribe(self._wake_soon)
        lenders.add(self)
        heartbeat.start()
        try:
            self.wake()
            await self._work()
            await self._wind_down()
        finally:
            unsubscribe()
            lenders.discard(self)
            await self._abandon()
            await heartbeat.stop()
            await self._retire()

    def stop(self, grace_seconds: float) -> None:
        """Claim nothing more, let steps in flight end within ``grace_seconds``, and end `run`.

        Later ones are cancelled, and recorded as interrupted if their start was recorded. A sync
        body can't be cancelled and is abandoned.
        """
        self._grace_seconds = grace_seconds
        self._wind_down_runners()
        self.wake()

    def wake(self) -> None:
        """Look again soon. To be called on the worker's loop."""
        if not self._woken.is_set():
            self._clock.hold()
            self._woken.set()

    @property
    def driven(self) -> Collection[str]:
        """The ids of the executions that it is driving."""
        return tuple(self._driven)

    # -- slots of executions that wait, see `waits` ----------------------------------------------

    def serves(self, workflow_name: str) -> bool:
        """Return whether it runs executions of that workflow."""
        return workflow_name in self._registry.names

    def lend(self, execution_id: str) -> bool | None:
        """Lend an execution's slot; False if too many are lent, `None` if it does not run here."""
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
        """Take back the slot that `lend` lent."""
        with self._lending:
            self._lent[execution_id] -= 1
            if not self._lent[execution_id]:
                del self._lent[execution_id]

    @property
    def _slots(self) -> int:
        return self._max_concurrent + min(len(self._lent), LENT_SLOTS)

    def _runners(self) -> dict[str, Runner]:
        """Return the runners by execution. Safe on any thread."""
        return {execution_id: each.runner for execution_id, each in list(self._driven.items())}

    def _on_beat(self) -> None:
        self._unclaimed.on_beat()
        self._wake_soon()

    def _wake_soon(self) -> None:
        """Wake the worker, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop is closed, and so is the worker
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
                await self._unclaimed.look()
            except ServiceError as error:
                if error.is_final and not isinstance(error, DamagedExecutionError):
                    raise
                logger.warning("can't ask the service for work now: %s", error)
            finally:
                self._clock.release()

    async def _look(self) -> None:
        driven = tuple(self._driven)
        for execution_id in await self._service.changed(self.owner, driven) if driven else ():
            if execution_id in self._driven:
                self._loop.call_soon(self._driven[execution_id].runner.look_again)
        names = self._registry.names
        while (wanted := min(CLAIM, self._slots - len(self._driven))) > 0:
            rounds = self._watch.rounds
            claimed = await self._service.claim_due(
                self.owner, names, wanted, suspects=self._room_for_suspects, keep=True
            )
            for invocation in claimed:
                self._begin(invocation)
            if rounds != self._watch.rounds:  # claims may have been handed back meanwhile
                for invocation in claimed:
                    self._driven[invocation.execution_id].runner.give_up()
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
            # Never skip to the timeout of an execution whose body is running.
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

    def _workflow(self, name: str) -> tuple[Workflow[..., Any], KnownErrors]:
        """Return a workflow, and the errors known since it was first wanted."""
        workflow = self._registry.get(name)
        found = self._known_errors.get(name)
        if found is None or found[0] is not workflow:  # it was defined again
            found = self._known_errors[name] = (workflow, KnownErrors.snapshot())
        return found

    def _begin(self, invocation: Invocation) -> None:
        execution_id = invocation.execution_id
        workflow, known = self._workflow(invocation.workflow_name)
        runner = Runner(invocation, self._service, workflow, self._clock, known)
        if len(invocation.operations) == 1:
            logger.info("%s begins", runner.title)
        former = self._driven.get(execution_id)
        task = self._loop.create_task(self._drive(runner, former))
        self._driven[execution_id] = _Driven(runner, task)
        if invocation.losses:
            self._suspect = runner
            self._loop.call_later(probation_seconds(invocation.losses), self._end_probation, runner)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_probation(self, runner: Runner) -> None:
        if self._suspect is runner:
            self._suspect = None
            self.wake()

    async def _drive(self, runner: Runner, former: _Driven | None) -> None:
        if former is not None:  # its lease ran out before it could be renewed
            former.task.cancel()
            await asyncio.wait([former.task])
        end: End | BaseException
        try:
            end = await runner.run()
        except asyncio.CancelledError:
            end = OutOfTime()
        except FAILURES as error:
            pass_on_signal(error)
            end = error
        with holding(self._clock):
            if self._driven[runner.invocation.execution_id].runner is runner:
                del self._driven[runner.invocation.execution_id]
            await self._leave(runner, end)
            self._end_probation(runner)
            self.wake()

    # -- leaving ---------------------------------------------------------------------------------

    async def _leave(self, runner: Runner, end: End | BaseException) -> None:
        """Report the end of an invocation to the service."""
        try:
            match end:
                case Succeeded() | Failed():
                    await runner.record(end)
                    if isinstance(end, Failed):  # clients report it as well
                        logger.info("%s failed", runner.title, exc_info=end.error)
                    else:
                        logger.info("%s succeeded", runner.title)
                case Suspended() | OutOfTime():
                    await self._release(runner, is_unfinished=isinstance(end, OutOfTime))
                case Broken():
                    raise end.error
                case _:
                    raise end
        except StaleTokenError as error:
            lost = ", ".join(runner.unrecorded)
            logger.log(
                logging.WARNING if lost else logging.INFO,
                "%s was stopped, or another worker has it; what it has not recorded is lost: %s: "
                "%s",
                runner.title,
                lost or "nothing",
                error,
            )
        except FAILURES as error:
            pass_on_signal(error)
            await self._release_with_problem(runner, error)

    async def _release_with_problem(self, runner: Runner, error: BaseException) -> None:
        logger.error(
            "%s can't go on now; it is tried again later, nothing recorded is lost",
            runner.title,
            exc_info=error,
        )
        try:
            await self._release(runner, problem=error)
        except ServiceError as fault:  # then its lease expires
            logger.warning("%s could not be handed back: %s", runner.title, fault)

    async def _release(
        self,
        runner: Runner,
        *,
        problem: BaseException | None = None,
        is_unfinished: bool = False,
    ) -> None:
        token = runner.token
        if token is not None:
            await self._service.release(
                runner.invocation.execution_id,
                token,
                problem=None if problem is None else record_error(problem),
                is_unfinished=is_unfinished,
            )

    # -- the end ---------------------------------------------------------------------------------

    async def _wind_down(self) -> None:
        self._wind_down_runners()  # including those claimed since `stop`
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace_seconds)

    def _wind_down_runners(self) -> None:
        for driven in self._driven.values():
            self._loop.call_soon(driven.runner.wind_down)

    async def _abandon(self) -> None:
        """Cancel what is still driven, and wait until it is handed back."""
        self._set_alarm(None)
        for driven in self._driven.values():
            driven.task.cancel()
        if not self._tasks:
            return
        _, stuck = await asyncio.wait(self._tasks, timeout=UNWINDING_SECONDS)
        if stuck:
            logger.warning(
                "a cancelled step goes on in %s, so nothing is handed back; other workers take "
                "over when this process has ended, or in %d s",
                ", ".join(self._driven),
                LEASE_MS // 1000,
            )

    async def _retire(self) -> None:
        try:
            await self._service.retire(self.owner)
        except ServiceError as error:  # other workers do it later
            logger.warning("the worker %r could not be signed off: %s", self.owner, error)


class _Driven(NamedTuple):
    runner: Runner
    task: asyncio.Task[None]
