"""A machine that slept: no lease was renewed, and the worker finds its own run out."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import step, workflow
from pyworkflow._protocol.executions import LEASE_MS, ExecutionStatus
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.services.sqlite import SqliteService
from tests.runtime.local import ended, on_a_loop, working


class Machine:
    """The machine's time; it jumps when the machine sleeps."""

    def __init__(self) -> None:
        self.slept_ms = 0

    def now_ms(self) -> int:
        return SystemClock().now_ms() + self.slept_ms

    def open(self, path: Path) -> SqliteService:
        now_ms = SystemClock().now_ms
        return SqliteService.open(path, now_ms, machine_ms=self.now_ms, durability="normal")


class Slept:
    """A service whose worker looks for the first time since the machine slept."""

    def __init__(self, service: SqliteService, machine: Machine) -> None:
        self._service = service
        self._machine = machine
        self.has_slept = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def changed(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        if len(execution_ids) == 2:
            self._machine.slept_ms = 10 * LEASE_MS
        return await self._service.changed(owner, execution_ids)

    async def next_due(self, workflow_names: Collection[str] | None = None) -> int | None:
        if self._machine.slept_ms:
            self.has_slept.set()
        return await self._service.next_due(workflow_names)


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_worker_goes_on_with_what_it_runs(tmp_path: Path, at_most_once: bool) -> None:
    machine, bodies = Machine(), list[str]()
    entered, opened = asyncio.Event(), asyncio.Event()

    @step(at_most_once=at_most_once)
    async def held(name: str) -> str:
        bodies.append(name)
        if len(bodies) == 2:
            entered.set()
        await opened.wait()
        return name

    @workflow
    async def main(name: str) -> str:
        return await held(name)

    @on_a_loop
    async def scenario() -> None:
        service = machine.open(tmp_path / "x.db")
        slept = Slept(service, machine)
        async with working(slept, main) as worker:
            ids = [await service.start("main", f'"{name}"') for name in "ab"]
            await entered.wait()
            worker.wake()
            await slept.has_slept.wait()
            opened.set()
            ends = [await ended(service, execution_id) for execution_id in ids]
        assert [end.result for end in ends] == ['"a"', '"b"']
        assert sorted(bodies) == ["a", "b"]
        assert [end.problem for end in ends] == [None, None]
        await service.close()

    scenario()


@on_a_loop
async def test_what_another_worker_took_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    machine = Machine()
    one, other = (machine.open(tmp_path / "x.db") for _ in range(2))
    execution_id = await one.start("main", "null")
    await one.claim_due("sleeper", ["main"], 1)
    machine.slept_ms = 10 * LEASE_MS
    (taken,) = await other.claim_due("awake", ["main"], 1)
    assert list(await one.changed("sleeper", [execution_id])) == [execution_id]
    assert list(await other.changed("awake", [execution_id])) == []
    assert await one.claim_due("sleeper", ["main"], 1) == ()
    await other.commit(execution_id, taken.token, [])
    assert (await one.get(execution_id)).status is ExecutionStatus.RUNNING
    for service in (one, other):
        await service.close()
