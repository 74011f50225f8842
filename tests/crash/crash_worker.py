"""Worker processes that are killed at a chosen moment, forked from one that has imported all.

Run as a program it reads a plan a line, forks a worker for it, and says when that began and how it
ended; it reaps its worker before the next one begins. The worker says each body that it begins.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from pyworkflow._engine.messages import StepCall
from pyworkflow._local import heartbeat, worker
from pyworkflow._local.async_client import AsyncClient
from pyworkflow._protocol.executions import Committed, ExecutionStatus
from pyworkflow._protocol.records import Update
from pyworkflow._runtime.clock import Clock, SystemClock
from pyworkflow._runtime.runner import Runner
from pyworkflow._runtime.steps import StepRunner
from pyworkflow.services.sqlite import SqliteService
from pyworkflow.services.sqlite import _leases as service_leases
from tests.crash.crash_log import Began, Log, Started, Warned, recorded
from tests.crash.crash_shapes import WORKFLOWS

BEFORE_COMMIT, AFTER_COMMIT = "before commit", "after commit"
"""In the writer's thread, the transaction is written but for the COMMIT, or durable and untold."""
ANSWERED = "answered"
"""A checkpoint is acknowledged, and the workflow does not know yet."""
BODY_BEGINS, BODY_ENDS = "body begins", "body ends"
STARTED = "started"
"""An execution was started, and its starter knows."""
KILL_POINTS = (BEFORE_COMMIT, AFTER_COMMIT, ANSWERED, BODY_BEGINS, BODY_ENDS, STARTED)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process does; it dies at the ``number``-th time that it is at ``kill_at``."""

    database: str
    log: str
    kill_at: str | None = None
    number: int = 0
    max_concurrent: int = 200
    starts: tuple[tuple[str, str], ...] = ()
    """Workflows and execution names that it starts itself."""
    skip_time: bool = True
    until_over: bool = True
    """End when all that ran at the beginning is over; else go on until SIGTERM."""
    has_heart: bool = True
    """Without, nobody looks again in case that a wake-up was lost, and no lease runs out."""


class Killer:
    """Counts how often each kill point was passed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._passed: Counter[str] = Counter()

    def at(self, point: str) -> None:
        self._passed[point] += 1
        if (point, self._passed[point]) == (self._plan.kill_at, self._plan.number):
            os.kill(os.getpid(), signal.SIGKILL)


class LoggedSteps(StepRunner):
    """Logs each body that begins."""

    log: Log
    killer: Killer

    async def run_async(self, call: StepCall) -> Any:
        self._enter(call)
        outcome = await super().run_async(call)
        self.killer.at(BODY_ENDS)
        return outcome

    def run_sync(self, call: StepCall) -> Any:
        self._enter(call)
        outcome = super().run_sync(call)
        self.killer.at(BODY_ENDS)
        return outcome

    def _enter(self, call: StepCall) -> None:
        settings, pid = call.settings, os.getpid()
        most = settings.retry.max_attempts if settings.at_most_once else 0
        self.log.write(Began(self._execution_id, call.id, call.name, call.attempt, most, pid))
        say("body")
        self.killer.at(BODY_BEGINS)


class LoggedWarnings(logging.Handler):
    """Logs what a user would be warned of, but not that the steps that shall fail did."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "attempt"):  # it failed, and is followed by another one
            return
        self._log.write(Warned(f"{record.getMessage()} {record.exc_info or ''}"))


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


def open_service(plan: Plan, log: Log, killer: Killer, clock: Clock) -> SqliteService:
    service = SqliteService.open(
        plan.database, clock.now_ms, machine_ms=SystemClock().now_ms, durability="normal"
    )
    sql, send = service._unit.sql, service.commit
    really_commit = sql.commit

    def commit() -> None:
        killer.at(BEFORE_COMMIT)
        really_commit()
        killer.at(AFTER_COMMIT)

    def send_and_log(
        execution_id: str, token: str, updates: Sequence[Update]
    ) -> asyncio.Future[Committed]:
        sending = send(execution_id, token, updates)

        def on_answer(answer: asyncio.Future[Committed]) -> None:
            if not answer.cancelled() and answer.exception() is None:
                found = (recorded(execution_id, each) for each in answer.result().operations)
                log.write(*filter(None, found))
                killer.at(ANSWERED)

        sending.add_done_callback(on_answer)
        return sending

    sql.commit = commit  # type: ignore[method-assign]
    service.commit = send_and_log  # type: ignore[method-assign]
    return service


async def work(plan: Plan) -> None:
    log, killer = Log(plan.log), Killer(plan)
    LoggedSteps.log, LoggedSteps.killer = log, killer
    vars(worker)["Runner"] = _with_logged_steps
    logging.getLogger("pyworkflow").addHandler(LoggedWarnings(log))
    if not plan.has_heart:
        vars(heartbeat)["BEAT_SECONDS"] = 3600.0
        vars(service_leases)["LEASE_MS"] = 3_600_000
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    client = AsyncClient(
        lambda clock: open_service(plan, log, killer, clock),
        worker=True,
        workflows=WORKFLOWS,
        skip_time=plan.skip_time,
        max_concurrent=plan.max_concurrent,
        grace="1m",
    )
    async with client:
        say("ready")
        for workflow, name in plan.starts:
            handle = await client.start(workflow, {}, execution_name=name)
            log.write(Started(handle.id, workflow, name))
            killer.at(STARTED)
        if plan.until_over:
            running = await client.list(status=ExecutionStatus.RUNNING)
            handles = [await client.get(each.id) for each in running]
            # A failed workflow is one that is over.
            await asyncio.gather(*(each.result() for each in handles), return_exceptions=True)
        else:
            await told.wait()


def _with_logged_steps(*args: Any) -> Runner:
    return Runner(*args, step_runner=LoggedSteps)


def serve() -> None:
    gc.freeze()
    for line in sys.stdin:
        plan = msgspec.json.decode(line, type=Plan)
        pid = os.fork()
        if pid == 0:
            # Said by the worker itself: of two processes nobody knows which one speaks first.
            say(f"began {os.getpid()}")
            _end_as(plan)
        _, status = os.waitpid(pid, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


def _end_as(plan: Plan) -> None:
    code = 1
    try:
        asyncio.run(work(plan))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
