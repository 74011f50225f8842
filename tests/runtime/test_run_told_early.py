"""What a run is told before it has begun, while its history is still being read."""

from __future__ import annotations

import asyncio

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow._engine.messages import OutOfTime, Succeeded
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.services.memory import ImmediateMemoryService
from tests.runtime.local import on_a_loop


@on_a_loop
async def test_told_to_wind_down_it_starts_no_step() -> None:
    bodies: list[str] = []

    @step
    async def one() -> None:
        bodies.append("one")

    @workflow
    async def main() -> None:
        await one()

    clock = VirtualClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = service.claim(service.start("main", "null"))
    runner = Runner(invocation, service, main, clock, KnownErrors.snapshot())
    runner.wind_down()
    assert isinstance(await runner.run(), OutOfTime)
    assert bodies == []


@on_a_loop
async def test_told_to_look_again_it_looks_once_it_has_begun() -> None:
    answered = asyncio.Event()

    @step
    async def waits_for_the_answer() -> None:
        await answered.wait()

    @step
    async def takes_the_answer() -> None:
        answered.set()

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        async def ask() -> str:
            answer = await ctx.callback("answer", result_type=str).result()
            await takes_the_answer()
            return answer

        answer, _ = await asyncio.gather(ask(), waits_for_the_answer())
        return answer

    clock = VirtualClock()
    service = ImmediateMemoryService(clock.now_ms)
    execution_id = service.start("main", "null")
    known = KnownErrors.snapshot()
    first = Runner(service.claim(execution_id), service, main, clock, known)
    crashed = asyncio.ensure_future(first.run())
    callback_id = None
    while callback_id is None:
        await asyncio.sleep(0)
        callback_id = next((o.callback_id for o in service.operations(execution_id)[1:]), None)
    crashed.cancel()
    await asyncio.wait([crashed])

    runner = Runner(service.claim(execution_id), service, main, clock, known)
    service.complete_callback(callback_id, '"yes"')
    runner.look_again()
    end = await runner.run()
    assert isinstance(end, Succeeded)
    assert end.value == "yes"
