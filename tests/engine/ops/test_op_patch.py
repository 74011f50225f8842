from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from pyworkflow import step
from pyworkflow._engine.messages import Broken, Suspended
from pyworkflow._protocol.records import Status
from tests.engine.harness import Run, Service, actions


@step
async def a() -> Any: ...


async def old() -> Any:
    await a()
    await asyncio.sleep(5)
    return "old"


async def new(ctx: Any) -> Any:
    await a()
    if ctx.patched("p"):
        await a.options(name="extra")()
    await asyncio.sleep(5)
    return "new"


async def patch_only(ctx: Any) -> Any:
    return ctx.patched("p")


def test_a_new_execution_takes_the_new_path_once_that_is_recorded() -> None:
    run = Run(new)
    run.ok("a")
    run.commit()
    assert actions(run.in_flight) == ["START patched p", "SUCCEED patched p"]
    assert run.launched == [("a", 1)]
    run.commit()
    assert run.launched == [("a", 1), ("extra", 1)]


def test_the_decision_is_replayed() -> None:
    run = Run(new)
    run.done("a")
    run = run.crash(new)
    assert run.launched == [("extra", 1)]
    run.done("extra")
    assert isinstance(run.end, Suspended)
    run = run.wake(new)
    assert run.value == "new"


def test_old_history_goes_on_without_it_each_time() -> None:
    run = Run(old)
    run.done("a")
    assert isinstance(run.end, Suspended)
    run = run.crash(new)
    assert isinstance(run.end, Suspended)
    assert run.service.named("patched p") == []
    run = run.wake(new)
    assert run.value == "new"
    assert run.launched == []


def test_an_old_execution_that_came_just_as_far_takes_the_new_path() -> None:
    run = Run(old)
    run.ok("a")
    run.write()
    run = run.crash(new)
    assert actions(run.in_flight) == ["START patched p", "SUCCEED patched p"]


def test_a_decision_whose_outcome_was_not_recorded_is_taken_again() -> None:
    run = Run(patch_only)
    assert run.in_flight is not None
    service = Service()
    started = service.commit(run.in_flight[:1])
    assert started.operations[0].status is Status.STARTED
    run = Run(patch_only, service)
    assert actions(run.in_flight) == ["SUCCEED patched p"]
    run.commit()
    assert run.value is True


def test_without_the_call_its_record_is_history_that_nobody_consumes() -> None:
    run = Run(patch_only)
    run.commit()

    async def gone() -> Any:
        return 1

    run = run.crash(gone)
    assert isinstance(run.end, Broken)
    assert "patched p" in str(run.end.error)


def test_another_operation_in_its_place_is_a_mismatch() -> None:
    run = Run(patch_only)
    run.commit()
    operation = run.service.named("patched p")[0]
    run.service.operations[operation.id] = replace(operation, name="else")
    run = run.crash(patch_only)
    assert isinstance(run.end, Broken)
