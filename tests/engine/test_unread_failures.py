"""A task that failed unseen is told of when the workflow is over, once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pyworkflow import WorkflowContext, sleep, workflow
from pyworkflow.aws.testing import create_test_handler


async def fails() -> None:
    raise ValueError("unseen")


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.getMessage()}: {record.exc_info[1]!r}"
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.exc_info
    ]


def test_a_failure_that_nobody_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """However often the run was suspended since."""

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        asyncio.create_task(fails(), name="background")  # noqa: RUF006 - that is the point
        await sleep(5)
        ctx.sleep(5)
        return "done"

    assert create_test_handler(main)({}) == "done"
    assert failures(caplog) == [
        "background failed, and its outcome was never retrieved: ValueError('unseen')"
    ]


def test_a_failure_that_somebody_saw(caplog: pytest.LogCaptureFixture) -> None:
    """Awaited, or asked for; the workflow's own is no news either."""

    @workflow
    async def main() -> str:
        seen = asyncio.create_task(fails())
        cancelled = asyncio.create_task(sleep(5))
        await asyncio.wait([seen])
        assert seen.exception()
        cancelled.cancel()
        await asyncio.gather(fails(), fails())
        return "not reached"

    with pytest.raises(ValueError, match="unseen"):
        create_test_handler(main)({})
    assert failures(caplog) == []
