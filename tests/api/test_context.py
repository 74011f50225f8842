from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    FatalError,
    NonDeterminismError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_context,
    current_step,
    sleep,
    step,
    workflow,
)
from pyworkflow._engine.messages import Broken
from pyworkflow.aws.testing import MockDurableContext
from tests.api.world import World, crashes, run

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 1, 1, tzinfo=UTC)


@step
async def work(n: int = 0) -> int:
    return n


@step
async def flaky(attempts: int) -> int:
    if current_step().attempt < attempts:
        raise ValueError("not yet")
    return attempts


# -- the execution ---------------------------------------------------------------------------------


def test_the_context_knows_its_execution() -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> list[Any]:
        assert isinstance(ctx, WorkflowContext)
        return [ctx.execution_id, ctx.execution_name, ctx.is_closing]

    @workflow
    def asking_sync(ctx: SyncWorkflowContext) -> list[Any]:
        assert isinstance(ctx, SyncWorkflowContext)
        return [ctx.execution_id, ctx.execution_name, ctx.is_closing]

    for each in (asking, asking_sync):
        world = World()
        name = world.service.get(world.id).name
        assert world.finish(each) == [world.id, name, False]


def test_current_context_is_there_anywhere_in_workflow_code() -> None:
    def deep() -> str:
        current_context().sleep(1)
        return current_context().execution_id

    @workflow
    async def asking() -> list[str]:
        async def in_a_task() -> str:
            return deep()

        return [deep(), await asyncio.create_task(in_a_task())]

    @workflow
    def asking_sync() -> str:
        return deep()

    mock_ctx = MockDurableContext()
    assert run(asking, None, mock_ctx) == [mock_ctx.execution_id] * 2
    assert run(asking_sync, None, mock_ctx) == mock_ctx.execution_id


def test_current_context_elsewhere_is_an_error() -> None:
    @step(retry=False)
    def within() -> None:
        current_context()

    @workflow
    def asking() -> None:
        within()

    with pytest.raises(UsageError, match=r"current_context\(\) was called outside of a running"):
        current_context()
    with pytest.raises(UsageError, match=r"current_context\(\) was called inside step 'within'"):
        run(asking)


def test_the_context_of_another_execution_is_refused() -> None:
    kept: list[WorkflowContext] = []

    @workflow
    async def first(ctx: WorkflowContext) -> None:
        kept[:] = [ctx]

    uses: list[Callable[[WorkflowContext], object]] = [
        lambda ctx: ctx.sleep(1),
        lambda ctx: ctx.sleep_until(START),
        lambda ctx: ctx.patched("p"),
        lambda ctx: ctx.uuid4(),
        lambda ctx: ctx.random,
    ]

    @workflow
    async def second(ctx: WorkflowContext) -> list[str]:
        found = []
        for use in uses:
            with pytest.raises(
                UsageError, match="Use the ctx that the workflow was called with"
            ) as e:
                use(kept[0])
            found.append(str(e.value).partition(":")[0])
        return found

    run(first)
    assert run(second) == [
        "ctx.sleep()",
        "ctx.sleep_until()",
        "ctx.patched()",
        "ctx.uuid4",
        "ctx.random",
    ]


def test_durable_chance_outside_of_the_workflow_is_refused() -> None:
    kept: list[WorkflowContext] = []

    @workflow
    async def leaking(ctx: WorkflowContext) -> None:
        kept[:] = [ctx]

    run(leaking)
    with pytest.raises(UsageError, match=r"ctx\.uuid4 was called outside of a running workflow"):
        kept[0].uuid4()


def test_both_contexts_sleep() -> None:
    @workflow
    async def waiting(ctx: WorkflowContext) -> None:
        await ctx.sleep(1)
        ctx.sleep(0)
        await ctx.sleep_until(START + timedelta(seconds=3))
        ctx.sleep_until(START)

    @workflow
    def blocking(ctx: SyncWorkflowContext) -> None:
        ctx.sleep(1)
        ctx.sleep(0)
        ctx.sleep_until(START + timedelta(seconds=3))
        ctx.sleep_until(START)

    for each in (waiting, blocking):
        mock_ctx = MockDurableContext()
        run(each, None, mock_ctx)
        assert mock_ctx.waits == [1, 2]


def test_is_closing_tells_the_end_of_a_run_from_a_cancellation() -> None:
    seen: list[bool] = []

    @workflow
    async def cleaning(ctx: WorkflowContext) -> None:
        try:
            ctx.sleep(5)
        finally:
            seen.append(ctx.is_closing)

    world = World()
    world.suspend(cleaning)
    assert seen == [True]
    world.finish(cleaning)
    assert seen == [True, False]


def test_is_replaying() -> None:
    seen: list[bool] = []

    @workflow
    async def looking(ctx: WorkflowContext) -> None:
        seen.append(ctx.is_replaying)
        await work()
        seen.append(ctx.is_replaying)
        ctx.sleep(5)
        seen.append(ctx.is_replaying)
        await work()

    world = World()
    world.suspend(looking)
    assert seen == [False, False]
    seen.clear()
    world.finish(looking)
    assert seen == [True, True, False]


# -- the logger ------------------------------------------------------------------------------------


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "pyworkflow.workflow"]


def test_the_logger_says_each_thing_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyworkflow")

    @workflow
    async def talking(ctx: WorkflowContext) -> None:
        ctx.logger.info("begins")
        for n in range(5):
            await flaky(2)
            ctx.logger.info("worked %d", n)
            ctx.sleep(60)
            ctx.logger.info("slept %d", n)
        ctx.logger.info("ends")

    mock_ctx = MockDurableContext()
    run(talking, None, mock_ctx)
    assert mock_ctx.invocations == 11
    rounds = [f"{what} {n}" for n in range(5) for what in ("worked", "slept")]
    assert _said(caplog) == ["begins", *rounds, "ends"]


def test_the_logger_of_parallel_tasks_says_each_thing_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pyworkflow")

    @workflow
    async def talking(ctx: WorkflowContext) -> None:
        async def nap(seconds: int) -> None:
            ctx.logger.info("falls asleep for %d", seconds)
            await sleep(seconds)
            ctx.logger.info("slept %d", seconds)

        await asyncio.gather(nap(20), nap(10), nap(30))

    run(talking)
    assert _said(caplog) == [
        *(f"falls asleep for {n}" for n in (20, 10, 30)),
        *(f"slept {n}" for n in (10, 20, 30)),
    ]


def test_the_logger_is_mute_while_a_run_is_disposed_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyworkflow")

    @workflow
    async def cleaning(ctx: WorkflowContext) -> None:
        try:
            ctx.sleep(5)
        finally:
            ctx.logger.info("cleaned")

    run(cleaning)
    assert _said(caplog) == ["cleaned"]


def test_a_logged_record_carries_the_execution(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pyworkflow")

    @workflow
    async def talking(ctx: WorkflowContext) -> None:
        ctx.logger.info("too quiet")
        ctx.logger.warning("order %s", "7", extra={"order": 7})
        ctx.logger.warning("nothing more", extra=None)

    world = World()
    world.finish(talking)
    first, second = (r for r in caplog.records if r.name == "pyworkflow.workflow")
    assert (first.getMessage(), vars(first)["order"]) == ("order 7", 7)
    for record in (first, second):
        assert vars(record)["execution_id"] == world.id
        assert vars(record)["execution_name"] == world.service.get(world.id).name


# -- time and chance -------------------------------------------------------------------------------


def test_now_is_the_time_of_the_last_event() -> None:
    @workflow
    async def timing(ctx: WorkflowContext) -> list[float]:
        times = [ctx.now()]
        await work()
        times.append(ctx.now())
        ctx.sleep("1h")
        times.append(ctx.now())
        await flaky(2)
        times.append(ctx.now())
        assert times[0].tzinfo is UTC
        return [(each - START) / timedelta(seconds=1) for each in times]

    for times in crashes(timing):
        assert times[:3] == [0, 0, 3600]
        assert times[3] > 3600
    assert len({tuple(times) for times in crashes(timing)}) == 1


def test_chance_is_the_same_on_each_replay() -> None:
    @workflow
    async def rolling(ctx: WorkflowContext) -> list[Any]:
        found: list[Any] = []
        for _ in range(3):
            found += [str(ctx.uuid4()), ctx.random.random(), ctx.random.randrange(1000)]
            ctx.sleep(1)
            found.append(await work(ctx.random.randrange(10**9)))
        return found

    results = crashes(rolling)
    assert all(each == results[0] for each in results)
    assert len(set(results[0])) == len(results[0])


def test_chance_costs_no_operation_and_differs_between_executions() -> None:
    @workflow
    def rolling(ctx: SyncWorkflowContext) -> list[Any]:
        return [str(ctx.uuid4()), ctx.random.random()]

    world = World()
    other = World(beside=world)
    first, second = world.finish(rolling), other.finish(rolling)
    assert not set(first) & set(second)
    assert (world.operations(), other.operations()) == ([], [])


def test_uuid4_is_one_of_version_4() -> None:
    @workflow
    async def rolling(ctx: WorkflowContext) -> list[int | None]:
        return [ctx.uuid4().version for _ in range(20)]

    assert run(rolling) == [4] * 20


def test_chance_of_a_task_is_its_own() -> None:
    def rolls(with_neighbour: bool) -> list[float]:
        @workflow
        async def rolling(ctx: WorkflowContext) -> list[float]:
            async def neighbour() -> None:
                for _ in range(10 * with_neighbour):
                    ctx.random.random()
                    ctx.uuid4()
                    await asyncio.sleep(0)

            async def roll() -> list[float]:
                found = []
                for _ in range(3):
                    found.append(ctx.random.random())
                    await asyncio.sleep(0)
                return found

            mine, _, own = await asyncio.gather(roll(), neighbour(), roll())
            return [*mine, *own, ctx.random.random()]

        found: list[float] = World().finish(rolling)
        return found

    assert rolls(False) == rolls(True)
    assert len(set(rolls(True))) == 7


def test_uuids_do_not_shift_random() -> None:
    @workflow
    async def rolling(ctx: WorkflowContext, uuids: int) -> float:
        for _ in range(uuids):
            ctx.uuid4()
        return ctx.random.random()

    assert World("0").finish(rolling) == World("5").finish(rolling)


# -- patched ---------------------------------------------------------------------------------------


@workflow
async def unpatched(ctx: WorkflowContext) -> list[Any]:
    await work.options(name="before")(0)
    ctx.sleep("1h", name="pause")
    return ["old", await work.options(name="old")(1)]


@workflow
async def patched(ctx: WorkflowContext) -> list[Any]:
    await work.options(name="before")(0)
    is_new = ctx.patched("faster")
    if is_new:
        await work.options(name="new 1")(2)
    ctx.sleep("1h", name="pause")
    if not is_new:
        return ["old", await work.options(name="old")(1)]
    ctx.sleep("1h", name="pause 2")
    return ["new", await work.options(name="new 2")(3)]


def test_new_executions_follow_the_patch() -> None:
    results = crashes(patched)
    assert results == [["new", 3]] * len(results)
    world = World()
    world.suspend(patched)
    assert world.names() == ["before", "patched faster", "new 1", "pause"]
    assert world.finish(patched) == ["new", 3]


def test_old_executions_keep_the_old_code() -> None:
    world = World()
    world.suspend(unpatched)
    assert world.finish(patched) == ["old", 1]
    assert world.names() == ["before", "pause", "old"]


def test_old_executions_keep_the_old_code_over_crashes() -> None:
    for checkpoint in range(1, 6):
        world = World(crash_after=[checkpoint])
        while world.names()[-1:] != ["pause"]:
            world.invoke(unpatched)
        world.finish(patched)
        assert world.names() == ["before", "pause", "old"]


def test_an_execution_that_has_not_come_so_far_follows_the_patch() -> None:
    world = World(crash_after=[1])
    assert world.invoke(unpatched) is None
    assert world.names() == ["before"]
    assert world.finish(patched) == ["new", 3]


def test_the_answer_stays_the_same_within_a_workflow() -> None:
    @workflow
    async def before(ctx: WorkflowContext) -> list[bool]:
        await work()
        ctx.sleep(60)
        await work()
        ctx.sleep(60)
        return []

    @workflow
    async def after(ctx: WorkflowContext) -> list[bool]:
        answers = []
        for _ in range(2):
            answers.append(ctx.patched("p"))
            await work()
            ctx.sleep(60)
        answers.append(ctx.patched("p"))
        return answers

    results = crashes(after)
    assert results == [[True] * 3] * len(results)
    world = World()
    world.suspend(before)
    assert world.finish(after) == [False] * 3


def test_two_tasks_may_ask_at_once() -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> list[Any]:
        async def ask(n: int) -> Any:
            return [ctx.patched("p"), await work(n)]

        return list(await asyncio.gather(ask(1), ask(2)))

    results = crashes(asking)
    assert results == [[[True, 1], [True, 2]]] * len(results)


def test_a_child_context_decides_for_itself() -> None:
    def version(*, has_patch: bool) -> Any:
        @workflow
        async def child(ctx: WorkflowContext) -> bool:
            is_new = has_patch and ctx.patched("p")
            await work()
            ctx.sleep(60)
            return is_new

        @workflow
        async def parent(ctx: WorkflowContext) -> list[bool]:
            return [await child(ctx), await child(ctx)]

        return parent

    world = World()
    world.suspend(version(has_patch=False))
    assert world.finish(version(has_patch=True)) == [False, True]


def test_a_patch_that_is_taken_away_is_noticed() -> None:
    world = World()
    world.suspend(patched)
    end = world.invoke(unpatched)
    assert isinstance(end, Broken)
    assert isinstance(end.error, NonDeterminismError)
    assert "patched faster" in str(end.error) or "new 1" in str(end.error)


@pytest.mark.parametrize("wrong", ["", None, 5])
def test_a_patch_has_a_name(wrong: Any) -> None:
    @workflow
    async def nameless(ctx: WorkflowContext) -> bool:
        return ctx.patched(wrong)

    with pytest.raises(UsageError, match=r"the key of ctx\.patched\(\) must be a non-empty str"):
        run(nameless)


def test_patched_in_a_step_is_an_error() -> None:
    kept: list[WorkflowContext] = []

    @step(retry=False)
    def asks() -> bool:
        return kept[0].patched("p")

    @workflow
    async def wrong(ctx: WorkflowContext) -> bool:
        kept[:] = [ctx]
        return asks()

    with pytest.raises(UsageError, match=r"ctx\.patched\(\) was called inside step 'asks'"):
        run(wrong)


def test_a_failed_branch_is_still_patched() -> None:
    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        if ctx.patched("p"):
            raise FatalError("new code")

    with pytest.raises(FatalError, match="new code"):
        run(failing)
