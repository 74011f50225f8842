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

Runs are told by plain callbacks of the loop, for the engine never advances inside of a task.
Virtual time stands still from each wake-up to the end of its look, and while a run begins or ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple

from pyworkflow._engine.failures import KnownErrors, record_error
from pyworkflow._engine.turn import Broken, Failed, OutOfTime, Succeeded, Suspended
from pyworkflow._runtime.clock import holding
from pyworkflow._runtime.leases import Heart
from pyworkflow._runtime.runner import Runner
from pyworkflow._runtime.unserved import Unserved
from pyworkflow.errors import DamagedExecutionError, ServiceError, StaleTokenError
from pyworkflow.services.base import LEASE_MS

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyworkflow._engine.turn import End
    from pyworkflow._runtime.clock import Alarm, Clock
    from pyworkflow._runtime.registry import Registry
    from pyworkflow._runtime.runner import Run
    from pyworkflow.services.base import Invocation, SchedulingService

logger = logging.getLogger("pyworkflow.worker")

MAX_CONCURRENT = 200
UNWINDING_SECONDS = 5
"""How long steps that are cancelled at the end may take to clean up; one may never be over."""
CLAIM = 50
"""How many executions one claim takes at most: histories are read with it."""


class Worker:
    """Runs the executions of the workflows in ``registry``; those added later, too.

    ``max_concurrent`` is how many it drives at once; executions that are suspended count not.
    """

    def __init__(
        self,
        service: SchedulingService,
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

    async def run(self) -> None:
        """Work until `stop`; cancelled, hand back at once what runs.

        Raises `ServiceError` when the service refuses for good.
        """
        for name in self._registry.names:
            self._runner(name)
        heart = Heart(self._service, self.owner, lambda: list(self._driven), self._on_beat)
        unsubscribe = self._service.subscribe(self._wake_soon)
        heart.start()
        try:
            self.wake()
            await self._work()
            await self._wind_down()
        finally:
            unsubscribe()
            await self._abandon()
            await heart.stop()

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
        for execution_id in await self._service.news(self.owner, driven) if driven else ():
            if execution_id in self._driven:
                self._loop.call_soon(self._driven[execution_id].run.look_again)
        names = self._registry.names
        while (wanted := min(CLAIM, self._max_concurrent - len(self._driven))) > 0:
            claimed = await self._service.claim_due(self.owner, names, wanted)
            for invocation in claimed:
                self._begin(invocation)
            if len(claimed) < wanted:
                self._set_alarm(await self._service.next_due(names))
                return
        self._set_alarm(None)

    def _set_alarm(self, due_ms: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if due_ms is None else self._clock.call_at(due_ms, self.wake)

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
            logger.info("%s begins", _name(invocation))
        run = self._runner(invocation.workflow_name).begin(invocation)
        former = self._driven.get(execution_id)
        task = self._loop.create_task(self._drive(invocation, run, former))
        self._driven[execution_id] = _Driven(run, task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, invocation: Invocation, run: Run, former: _Driven | None) -> None:
        if former is not None:  # its lease ran out before it could be renewed
            former.task.cancel()
            await asyncio.wait([former.task])
        end: End | BaseException
        try:
            end = await run.drive()
        except asyncio.CancelledError:
            end = OutOfTime()
        except (Exception, SystemExit) as error:  # workflow code may well call sys.exit()
            end = error
        with holding(self._clock):
            if self._driven[invocation.execution_id].run is run:
                del self._driven[invocation.execution_id]
            await self._leave(invocation, run, end)
            self.wake()

    # -- leaving ---------------------------------------------------------------------------------

    async def _leave(self, invocation: Invocation, run: Run, end: End | BaseException) -> None:
        """Tell the service how an invocation ended."""
        try:
            match end:
                case Succeeded() | Failed():
                    await run.record(end)
                    if isinstance(end, Failed):  # as its client is told, too
                        logger.info("%s failed", _name(invocation), exc_info=end.error)
                    else:
                        logger.info("%s succeeded", _name(invocation))
                case Suspended() | OutOfTime():
                    await self._release(invocation, run, is_unfinished=isinstance(end, OutOfTime))
                case Broken():
                    raise end.error
                case _:
                    raise end
        except StaleTokenError as error:
            logger.info("%s was stopped, or another worker has it: %s", _name(invocation), error)
        except (Exception, SystemExit) as error:
            await self._release_with_problem(invocation, run, error)

    async def _release_with_problem(
        self, invocation: Invocation, run: Run, error: BaseException
    ) -> None:
        logger.error(
            "%s can't go on now; it is tried again later, nothing recorded is lost",
            _name(invocation),
            exc_info=error,
        )
        try:
            await self._release(invocation, run, problem=error)
        except ServiceError as fault:  # then its lease runs out
            logger.warning("%s could not be handed back: %s", _name(invocation), fault)

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


class _Driven(NamedTuple):
    run: Run
    task: asyncio.Task[None]


def _name(invocation: Invocation) -> str:
    return f"execution {invocation.execution_name!r} of {invocation.workflow_name!r}"
