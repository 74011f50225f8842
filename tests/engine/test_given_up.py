"""An operation that gives up the invocation: what runs is recorded, then the invocation ends."""

from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import Retry, sleep, step
from pyworkflow._engine.current import require_execution
from pyworkflow._engine.messages import Broken
from tests.engine.harness import Run, actions


@step(retry=Retry(max_attempts=2, jitter=False))
async def a() -> Any: ...


@step
async def b() -> Any: ...


def give_up(reason: str) -> Any:
    """Stop here, as an operation does that can't go on in this invocation."""
    execution = require_execution("giving up")
    execution.attempts.give_up(LookupError(reason))
    return execution.loop.create_future()


def reason_of(run: Run) -> str:
    assert isinstance(run.end, Broken), run.end
    return str(run.end.error)


async def alone() -> Any:
    await give_up("not now")


def test_it_ends_the_invocation_at_once_if_nothing_else_is_to_be_done() -> None:
    assert reason_of(Run(alone)) == "not now"


def test_a_step_that_runs_is_recorded_before() -> None:
    async def main() -> Any:
        task = asyncio.ensure_future(a())
        await asyncio.sleep(0)
        give_up("not now")
        return await task

    run = Run(main)
    assert run.end is None
    run.ok("a", 1)
    assert actions(run.in_flight) == ["START a", "SUCCEED a"]
    assert run.end is None
    run.commit()
    # The workflow returned, but its end is not told: it has to be invoked again.
    assert reason_of(run) == "not now"


def test_no_further_attempt_begins() -> None:
    async def main() -> Any:
        task = asyncio.ensure_future(a())
        await asyncio.sleep(0)
        give_up("not now")
        await task
        return await b()

    run = Run(main)
    run.done("a", 1)
    assert run.launched == [("a", 1)]
    assert reason_of(run) == "not now"


def test_the_first_reason_is_told() -> None:
    async def main() -> Any:
        await asyncio.gather(give_up("first"), give_up("second"))

    assert reason_of(Run(main)) == "first"


def test_a_wait_is_kept_for_the_next_invocation() -> None:
    async def main() -> Any:
        await asyncio.gather(sleep(60), give_up("not now"))

    run = Run(main)
    assert actions(run.in_flight) == ["START WAIT"]
    run.commit()
    assert reason_of(run) == "not now"
