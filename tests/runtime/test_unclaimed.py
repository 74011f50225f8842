"""A workflow that is invoked and that no worker has."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from pyworkflow import WorkflowContext, workflow
from pyworkflow._local import heartbeat
from pyworkflow._local.unclaimed import BEATS
from tests.runtime.local import ended, on_a_loop, opened, working


@workflow
async def order(ctx: WorkflowContext) -> str:
    charged: str = await ctx.invoke("charge", 1)
    return charged


@workflow(name="charge")
async def charge(cents: int) -> str:
    return f"PAY-{cents}"


class Beats(logging.Handler):
    """Sees the warnings, and counts the looks at what is left."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.loop = asyncio.get_running_loop()
        self.told: list[str] = []
        self.has_told = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        self.loop.call_soon_threadsafe(self.has_told.set)


@on_a_loop
async def test_a_worker_says_once_that_nobody_runs_what_was_invoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    log, warnings = logging.getLogger("pyworkflow.worker"), Beats()
    log.addHandler(warnings)
    try:
        async with opened(tmp_path / "x.db") as service:
            looks, seen = 0, asyncio.Event()
            real = service.unserved

            async def unserved(names: object) -> object:
                nonlocal looks
                looks += 1
                if looks > 3 * BEATS and warnings.told:
                    seen.set()
                return await real(names)  # type: ignore[arg-type]

            monkeypatch.setattr(service, "unserved", unserved)
            first = await service.start("order", "{}", execution_name="A")
            second = await service.start("order", "{}", execution_name="B")
            async with working(service, order):
                await warnings.has_told.wait()
                await seen.wait()
                async with working(service, charge):
                    for each in (first, second):
                        assert (await ended(service, each)).result == '"PAY-1"'
    finally:
        log.removeHandler(warnings)
    (told,) = [each for each in warnings.told if "has no workflow 'charge'" in each]
    assert re.search(r"execution 'A\..*' of 'charge' has been due", told)
    assert "pyworkflow worker FILE" in told


@on_a_loop
async def test_what_is_due_of_other_workflows(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as service:
        for workflow_name in ("b", "a", "b", "c"):
            await service.start(workflow_name, "1")
        left = await service.unserved(["c"])
        assert [each.workflow_name for each in left] == ["a", "b"]
        assert await service.unserved(["a", "b", "c"]) == ()
        await service.claim_due("me", ["a"], 1)
        assert [each.workflow_name for each in await service.unserved([])] == ["b", "c"]
