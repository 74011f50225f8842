"""A crash does not change the order in which a timer and somebody's answer come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import WorkflowContext, workflow
from tests.corpus.registry import Shape, act
from tests.corpus.trials import Crashes, Durations, Trial


@workflow
async def answered_in_time(ctx: WorkflowContext) -> Any:
    """The answer and the timer are both due while the body runs, the answer first."""

    async def asks() -> Any:
        async with asyncio.timeout(10):
            return await ctx.callback("question").result()

    return await asyncio.gather(act("long"), asks())


SHAPE = Shape(answered_in_time, True, (), callbacks=(("question", 6.0),))


@pytest.mark.parametrize("number", range(1, 8))
def test_an_answer_before_a_timer_comes_before_it(number: int) -> None:
    """Also where the process dies just before it would have asked for either."""
    for crashes in (Crashes(before=(number,)), Crashes(after=(number,))):
        trial = asyncio.run(Trial(SHAPE, Durations((17_000,)), crashes).run())
        assert trial.outcome == ["long!", "yes"]
