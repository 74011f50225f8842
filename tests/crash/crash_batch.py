"""A file of executions, processes that run them and are killed, and what must hold at the end.

The test's own process starts executions and answers callbacks through a client that only talks, and
remembers what was acknowledged. Between two workers it reads the file and logs which outcomes are
recorded; so also an outcome that nobody was told of is known to be recorded before the next worker
begins.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

import pyworkflow
from pyworkflow import AsyncClient
from pyworkflow._engine.messages import Failed, Succeeded
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._protocol.records import Operation, OperationType, Status
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.testing._verify import Replay, check_replay
from tests.corpus.registry import Raises
from tests.corpus.trials import is_one_of
from tests.crash.crash_log import Laws, Log, recorded
from tests.crash.crash_shapes import DRAWN, INVOKED, SHAPES, WORKFLOWS, answer
from tests.crash.crash_worker import Plan

PATIENCE = 120
"""Seconds after which what hangs has failed."""

KNOWN = KnownErrors.snapshot()
_ROOT = Path(__file__).parents[2]
_SOURCES = Path(pyworkflow.__file__).parents[1]


class Nursery:
    """A process that forks workers, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pid = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Nursery]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.crash.crash_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": f"{_SOURCES}{os.pathsep}{_ROOT}"},
            process_group=0,
        )
        try:
            yield cls(process)
        finally:
            # Together with its worker, which may not have said yet who it is.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def begin(self, plan: Plan) -> None:
        """Fork a worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
        await self._process.stdin.drain()
        self._pid = int((await self._words())[1])

    async def ready(self) -> None:
        """Wait until the worker is at work."""
        assert await self._words() == ["ready"]

    async def end(self, *, kill_after_bodies: int = 0) -> int:
        """Return the worker's exit code; it is killed once so many bodies have begun."""
        bodies = 0
        while (words := await self._words())[0] != "ended":
            bodies += words == ["body"]
            if words == ["body"] and bodies == kill_after_bodies:
                self.kill()
        self._pid = 0
        return int(words[1])

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Tell the worker to end gracefully."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._pid:
            with suppress(ProcessLookupError):  # its end is not read yet
                os.kill(self._pid, number)

    async def _words(self) -> list[str]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the process that forks workers has ended"
        return line.decode().split()


class Batch:
    """Executions in one file."""

    def __init__(self, folder: Path, client: AsyncClient) -> None:
        self.database = folder / "executions.db"
        self.log = Log(folder / "log")
        self.client = client
        self.counts: Counter[str] = Counter()
        self._started: dict[str, tuple[str, str]] = {}
        """Workflow and name of those whose start was acknowledged, by id."""
        self._answered: dict[str, str] = {}
        """The answers that were acknowledged, by the callback's id."""
        self._unfinished: set[str] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path) -> AsyncIterator[Batch]:
        path = folder / "executions.db"
        client = AsyncClient.local(path, worker=False, workflows=WORKFLOWS, durability="normal")
        async with client:
            batch = cls(folder, client)
            end = batch._service.subscribe(batch._on_change)
            try:
                yield batch
            finally:
                end()
                batch.log.close()

    def _on_change(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    @property
    def _service(self) -> Any:
        return self.client._opened.service

    def plan(self, **fields: Any) -> Plan:
        return Plan(database=str(self.database), log=str(self.log.path), **fields)

    @property
    def is_over(self) -> bool:
        """Whether all was over when the file was read last."""
        return not self._unfinished

    @property
    def started(self) -> Collection[str]:
        """The ids of the executions whose start was acknowledged."""
        return self._started

    async def over(self, execution_id: str) -> None:
        """Wait until an execution is over, however it ends."""
        handle = await self.client.get(execution_id)
        await asyncio.gather(handle.result(), return_exceptions=True)

    # -- the outside world -----------------------------------------------------------------------

    async def start(self, starts: Iterable[tuple[str, str]]) -> None:
        for workflow, name in starts:
            handle = await self.client.start(workflow, {}, execution_name=name)
            self._started[handle.id] = workflow, name
            self._unfinished.add(handle.id)
            self.counts["starts acknowledged"] += 1

    async def answer(self) -> None:
        """Answer the callbacks that are open."""
        for execution in await self.client.list(status=ExecutionStatus.RUNNING):
            if not execution.workflow_name.startswith("asks"):
                continue
            for operation in await self._service.operations(execution.id):
                callback_id = operation.callback_id
                if operation.status is Status.STARTED and callback_id is not None:
                    assert callback_id not in self._answered, "an answer was lost"
                    value = answer(operation.name)
                    await self.client.complete_callback(callback_id, value)
                    self._answered[callback_id] = value
                    self.counts["callbacks acknowledged"] += 1

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Meanwhile answer callbacks whenever something has changed."""

        async def answer_on_change() -> None:
            while True:
                self._changed.clear()
                await self.answer()
                await self._changed.wait()

        async with asyncio.TaskGroup() as group:
            answering = group.create_task(answer_on_change())
            yield
            answering.cancel()

    async def run(self, nursery: Nursery, plan: Plan, *, kill_after_bodies: int = 0) -> int:
        """Run a worker to its end, and read what is recorded by then."""
        async with asyncio.timeout(PATIENCE), self.answering():
            await nursery.begin(plan)
            code = await nursery.end(kill_after_bodies=kill_after_bodies)
        assert code in {0, -signal.SIGKILL}, f"the worker ended with {code}"
        if code:
            self.counts["kills"] += 1
        await self.read(was_killed=bool(code))
        return code

    async def read(self, *, was_killed: bool = False) -> None:
        """Log which outcomes are recorded."""
        running = {each.id for each in await self.client.list(status=ExecutionStatus.RUNNING)}
        for execution_id in list(self._unfinished):
            found: Sequence[Operation] = await self._service.operations(execution_id)
            self.log.write(*filter(None, (recorded(execution_id, each) for each in found)))
            if execution_id not in running:
                self._unfinished.discard(execution_id)
            elif was_killed and len(found) > 1:
                self.counts["executions cut off by a kill"] += 1

    # -- laws ------------------------------------------------------------------------------------

    async def check(self) -> Laws:
        """Assert all that must hold once everything is over; return what the log says."""
        laws = Laws(self.log.read())
        assert not laws.broken, "\n".join(laws.broken)
        there = {each.id: each for each in await self.client.list(payloads=True)}
        for line in laws.started:
            self._started[line.execution_id] = line.workflow, line.name
        lost = self._started.keys() - there.keys()
        assert not lost, f"acknowledged starts were lost: {lost}"
        assert len(set(self._started.values())) == len(self._started), "one was started twice"
        of_others = [each for each in there.values() if each.id not in self._started]
        invokes = sum(workflow == "invokes" for workflow, _ in self._started.values())
        assert [each.workflow_name for each in of_others] == ["invoked"] * INVOKED * invokes
        for execution_id, (workflow, name) in self._started.items():
            try:
                await self._check_execution(there[execution_id])
            except Exception as error:
                raise AssertionError(f"{workflow} {name} ({execution_id}): {error}") from error
        with sqlite3.connect(self.database) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        self.counts["executions over"] += len(there)
        self.counts["step bodies that began"] += len(laws.began)
        self.counts["steps recorded"] += laws.steps_recorded
        again = sum(count - 1 for count in laws.runs.values())
        self.counts["step bodies cut off, and run again"] += again
        once = sum(bool(line.most) for line in laws.began)
        self.counts["at-most-once bodies, none of which ran twice"] += once
        return laws

    async def _check_execution(self, summary: ExecutionSummary) -> None:
        shape = SHAPES[summary.workflow_name]
        end = _end(summary)
        outcome = Raises(*_error_words(end)) if isinstance(end, Failed) else end.value
        operations = tuple(await self._service.operations(summary.id))
        if shape.outcomes and shape.name not in DRAWN and not is_one_of(outcome, shape.outcomes):
            assert is_one_of(outcome, shape.interrupted), f"its result is {outcome}"
            errors = [each.error.type for each in operations if each.error is not None]
            assert any(each.endswith("StepInterruptedError") for each in errors), errors
            self.counts["executions told that a step was interrupted"] += 1
        await check_replay(Replay(shape.workflow, operations, KNOWN), end)
        ends = Counter(
            event.operation_id
            for event in await self._service.history(summary.id)
            if not event.type.endswith("Started") and event.delay_seconds is None
        )
        assert set(ends.values()) == {1}, f"an end was recorded twice: {ends.most_common(1)}"
        for operation in operations:
            if operation.callback_id in self._answered:
                assert operation.type is OperationType.CALLBACK
                assert operation.payload == json.dumps(self._answered[operation.callback_id])


def _end(summary: ExecutionSummary) -> Succeeded | Failed:
    if summary.status is ExecutionStatus.SUCCEEDED and summary.result is not None:
        return Succeeded(summary.result, json.loads(summary.result))
    assert summary.status is ExecutionStatus.FAILED, summary
    assert summary.error is not None
    return Failed(summary.error, Exception())


def _error_words(end: Failed) -> tuple[str, str]:
    return end.record.type.rpartition(".")[2], end.record.message
