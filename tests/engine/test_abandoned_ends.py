"""Ends that no code saw, for it waited for them no longer, where times decide the order.

A replay knows them from the start. Whatever time they bear, by a tie or by two clocks, they must
not reach the code before what had made it go on without them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import StepCancelledError, step
from pyworkflow._protocol.records import Status
from tests.engine.harness import Run, Service


@step(retry=False)
async def fetch(name: str) -> str:
    return name


async def first_of_two(ctx: Any) -> list[str]:
    """The slow one is issued first, so it would win a tie."""
    slow = asyncio.create_task(fetch.options(name="slow")("slow"))
    fast = asyncio.create_task(fetch.options(name="fast")("fast"))
    found = await fast
    slow.cancel()
    (lost,) = await asyncio.gather(slow, return_exceptions=True)
    seen = [found, type(lost).__name__]
    await fetch.options(name="after")("-".join(seen))
    return seen


LOST = ["fast", "CancelledError"]


@pytest.mark.parametrize("back_ms", [0, 10, 25])
def test_the_record_of_a_cancelled_step_reaches_no_code(back_ms: int) -> None:
    service = Service(sequences=False)
    run = Run(first_of_two, service)
    run.settle()
    run.lag()
    run.settle()
    run.ok("fast", "fast")
    run.commit()
    service.now_ms -= back_ms  # the clock of whoever writes the next one is behind
    run.settle()
    slow = next(each for each in service.operations.values() if each.name == "slow")
    assert slow.status is Status.FAILED
    again = run.crash(first_of_two)
    assert again.call("after").args == ("-".join(LOST),)
    again.done("after", "after")
    assert again.value == LOST


def test_an_outcome_that_came_too_late_comes_after_what_was_delivered() -> None:
    service = Service(sequences=False)
    run = Run(first_of_two, service)
    run.settle()
    run.ok("fast", "fast")
    run.ok("slow", "slow")  # while the other is on its way
    run.commit()
    service.now_ms -= 10
    run.settle()
    slow = next(each for each in service.operations.values() if each.name == "slow")
    assert slow.status is Status.SUCCEEDED
    run.done("after", "after")
    assert run.value == LOST
    again = run.crash(first_of_two)
    assert again.value == LOST


def test_a_body_may_raise_that_error_itself() -> None:
    """Then it is an outcome like any other."""

    async def main(ctx: Any) -> str:
        try:
            return await fetch("x")
        except StepCancelledError as error:
            await fetch.options(name="after")("after")
            return str(error)

    run = Run(main, Service(sequences=False))
    run.settle()
    run.fail("fetch", StepCancelledError("by itself"))
    run.settle()
    again = run.crash(main)
    again.done("after", "after")
    assert again.value == "by itself"
