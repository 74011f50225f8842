from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow._local import completion as module
from pyworkflow._local.completion import Completions
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow.errors import ExecutionNotFoundError, ServiceUnavailableError
from tests.runtime.local import on_a_loop

RUNNING, SUCCEEDED = ExecutionStatus.RUNNING, ExecutionStatus.SUCCEEDED


class Told:
    """A service whose executions stand as it is told."""

    def __init__(self) -> None:
        self.status = RUNNING
        self.on_get: list[Callable[[], None]] = []
        self.listeners: list[Callable[[], None]] = []

    async def get(self, execution_id: str) -> ExecutionSummary:
        status = self.status
        if self.on_get:
            self.on_get.pop(0)()
        return ExecutionSummary(
            id=execution_id,
            name=execution_id,
            workflow_name="main",
            status=status,
            start_ms=0,
            input_payload="null",
        )

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(on_change)
        return lambda: self.listeners.remove(on_change)

    def change(self) -> None:
        for listener in self.listeners:
            listener()

    def end(self) -> None:
        self.status = SUCCEEDED
        self.change()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACE", 0)


def completions_of(service: Any) -> Completions:
    return Completions(service)


@on_a_loop
async def test_an_end_is_told_to_everybody_who_waits() -> None:
    service = Told()
    completions = completions_of(service)
    waiting = [asyncio.ensure_future(completions.wait(name)) for name in "aab"]
    await asyncio.sleep(0)
    service.end()
    assert [summary.id for summary in await asyncio.gather(*waiting)] == ["a", "a", "b"]
    completions.close()
    assert service.listeners == []


@on_a_loop
async def test_one_that_is_over_already_is_not_waited_for() -> None:
    service = Told()
    service.status = SUCCEEDED
    assert (await completions_of(service).wait("a")).status is SUCCEEDED


@on_a_loop
async def test_an_end_right_after_the_first_look_is_seen() -> None:
    service = Told()
    service.on_get = [service.end]
    assert (await completions_of(service).wait("a")).status is SUCCEEDED


@on_a_loop
async def test_an_end_while_a_sweep_looks_is_seen() -> None:
    service = Told()
    service.on_get = [service.change, service.end]
    assert (await completions_of(service).wait("a")).status is SUCCEEDED


@pytest.mark.parametrize("ticks", range(6))
def test_an_end_while_a_sweep_leaves_is_seen(ticks: int) -> None:
    @on_a_loop
    async def scenario() -> None:
        service, loop = Told(), asyncio.get_running_loop()

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                service.end()

        service.on_get = [service.change, lambda: later(ticks)]
        assert (await completions_of(service).wait("a")).status is SUCCEEDED

    scenario()


@on_a_loop
async def test_a_fault_is_told_to_those_who_wait_and_may_pass() -> None:
    service = Told()
    completions = completions_of(service)

    def fail() -> None:
        raise ServiceUnavailableError("busy")

    service.on_get = [service.change, fail]
    with pytest.raises(ServiceUnavailableError):
        await completions.wait("a")
    service.status = SUCCEEDED
    assert (await completions.wait("a")).status is SUCCEEDED


@on_a_loop
async def test_what_ends_all_waiting_is_told_now_and_later() -> None:
    completions = completions_of(Told())
    waiting = asyncio.ensure_future(completions.wait("a"))
    await asyncio.sleep(0)
    completions.fail(ExecutionNotFoundError("gone"))
    for each in (waiting, completions.wait("a")):
        with pytest.raises(ExecutionNotFoundError, match="gone"):
            await each


@on_a_loop
async def test_who_gave_up_waiting_is_forgotten() -> None:
    service = Told()
    completions = completions_of(service)
    waiting = asyncio.ensure_future(completions.wait("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    looks: list[None] = []
    service.on_get = [lambda: looks.append(None)]
    service.change()
    for _ in range(10):
        await asyncio.sleep(0)
    assert looks == []
