from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Any

import pytest

from pyworkflow import (
    FatalError,
    NonDeterminismError,
    RetryableError,
    SyncWorkflowContext,
    UsageError,
    Workflow,
    WorkflowContext,
    current_step,
    sleep,
    step,
    workflow,
)
from pyworkflow._api.batch import BranchStatus
from pyworkflow._api.completion import CompletionReason
from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.messages import End, Failed, Succeeded
from pyworkflow._protocol.records import OperationType, Status, SubType
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow._runtime.host_loop import run_to_end
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import BatchError
from pyworkflow.services.memory import ImmediateMemoryService
from tests.api.world import World, crashes, run


@dataclass
class Receipt:
    n: int


class SoldOutError(Exception):
    """An error of the author's own."""


@step
async def charge(n: int) -> Receipt:
    if n < 0:
        raise FatalError(f"no {n}")
    return Receipt(n)


@step
def sync_charge(n: int) -> Receipt:
    return Receipt(n)


@step
async def note(text: str) -> str:
    return text


async def slow(n: int) -> Receipt:
    await sleep(abs(n))
    return await charge(n)


# -- shape -----------------------------------------------------------------------------------------


@workflow
async def both(ctx: WorkflowContext) -> list[Any]:
    mapped = await ctx.map(charge, [1, 2], name="the map")
    branches = await ctx.parallel([charge(3), lambda: {"n": 4}], name="the parallel")
    assert mapped.results == [Receipt(1), Receipt(2)]
    assert branches.results == [Receipt(3), {"n": 4}]
    return [mapped.completion_reason, branches.completion_reason]


@workflow
def sync_both(ctx: SyncWorkflowContext) -> list[Any]:
    mapped = ctx.map(sync_charge, [1, 2], name="the map")
    branches = ctx.parallel([charge(3), lambda: {"n": 4}], name="the parallel")
    assert mapped.results == [Receipt(1), Receipt(2)]
    assert branches.results == [Receipt(3), {"n": 4}]
    return [mapped.completion_reason, branches.completion_reason]


@pytest.mark.parametrize("each", [both, sync_both], ids=["async", "sync"])
def test_ids_names_and_subtypes_are_those_of_the_console(each: Workflow[..., Any]) -> None:
    mock_ctx = MockDurableContext()
    assert run(each, None, mock_ctx) == ["ALL_COMPLETED"] * 2
    contexts = [o for o in mock_ctx.operations if o.type is OperationType.CONTEXT]
    outer = [o for o in contexts if o.parent_id is None]
    assert [(o.id, o.name, o.subtype, o.status) for o in outer] == [
        (hash_path("1"), "the map", SubType.MAP, Status.SUCCEEDED),
        (hash_path("2"), "the parallel", SubType.PARALLEL, Status.SUCCEEDED),
    ]
    inner = {(o.id, o.name, o.subtype) for o in contexts if o.parent_id is not None}
    assert inner == {
        (hash_path(f"{outer[0].id}-0"), "map-item-0", SubType.MAP_ITERATION),
        (hash_path(f"{outer[0].id}-1"), "map-item-1", SubType.MAP_ITERATION),
        (hash_path(f"{outer[1].id}-0"), "parallel-branch-0", SubType.PARALLEL_BRANCH),
        (hash_path(f"{outer[1].id}-1"), "parallel-branch-1", SubType.PARALLEL_BRANCH),
    }
    steps = {o.id for o in mock_ctx.operations if o.type is OperationType.STEP}
    assert hash_path(f"{hash_path(f'{outer[0].id}-1')}-1") in steps
    assert len({str(each_run) for each_run in crashes(each)}) == 1


def test_the_decision_is_plain_json() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        await ctx.map(charge, [1, -2], tolerated_failure_count=1)

    mock_ctx = MockDurableContext()
    run(outer, None, mock_ctx)
    payload = mock_ctx.operations[0].payload
    assert payload is not None
    assert payload.startswith(
        '{"completionReason":"ALL_COMPLETED","successCount":1,"failureCount":1,"statuses":"SF",'
        '"results":[{"n":1}],"errors":[{"message":"no -2","type":"pyworkflow.errors.FatalError",'
    )


def test_branches_have_names() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        named = await ctx.parallel({"left": charge(1), "right": lambda: charge(2)})
        items = await ctx.map(charge, [3, 4], item_name=lambda n: f"order {n}")
        placed = await ctx.map(charge, [5], item_name=lambda n, index: f"{index}: {n}")
        return [
            named["left"].n,
            named["right"]["n"],
            items["order 4"].n,
            items[0].n,
            placed.items[0].name,
        ]

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == [1, 2, 4, 3, "0: 5"]
    names = [o.name for o in mock_ctx.operations if o.type is OperationType.CONTEXT]
    expected = [None, "left", "right", "charge", "order 3", "order 4", "charge", "0: 5"]
    assert names == expected


def test_an_item_and_its_index() -> None:
    def second(item: str, index: int) -> str:
        return f"{item}{index}"

    def named(item: str, index: int = 9) -> str:
        return f"{item}{index}"

    def other(item: str, limit: int = 9) -> str:
        return f"{item}{limit}"

    def any_number(*items: str) -> str:
        return "".join(items)

    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        functions: list[Any] = [
            second,
            named,
            other,
            any_number,
            str,
            functools.partial(second, index=7),
        ]
        return [(await ctx.map(each, ["a", "b"])).results for each in functions]

    assert run(outer) == [
        ["a0", "b1"],
        ["a0", "b1"],
        ["a9", "b9"],
        ["a", "b"],
        ["a", "b"],
        ["a7", "b7"],
    ]


def test_nothing_to_do_is_done() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        none = await ctx.map(charge, ())
        branches: dict[str, Any] = {}
        nothing = await ctx.parallel(branches, tolerated_failure_percentage=10)
        return [none.results, none.completion_reason, nothing.total_count, repr(nothing)]

    result = run(outer)
    assert result[:3] == [[], "ALL_COMPLETED", 0]
    assert result[3] == "<BatchResult ALL_COMPLETED: 0 succeeded, 0 failed, of 0>"


# -- the policy ------------------------------------------------------------------------------------


def test_the_first_failure_ends_it_and_cancels_the_rest() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        async def one(n: int) -> Receipt:
            try:
                return await slow(n)
            finally:
                await note(f"clean {n}")

        with pytest.raises(BatchError, match="Map 'one': 1 of 4 branches failed") as caught:
            await ctx.map(one, [1, -2, 30, 4], max_concurrency=3)
        batch = caught.value.result
        assert isinstance(caught.value.__cause__, FatalError)
        assert [str(each) for each in batch.errors] == ["no -2"]
        assert batch.failed[0].index == 1
        await sleep(1)
        return [batch.completion_reason, *[each.status for each in batch.items]]

    results = crashes(outer)
    assert results[0] == [
        "FAILURE_TOLERANCE_EXCEEDED",
        *["SUCCEEDED", "FAILED", "STARTED", "STARTED"],
    ]
    assert len({str(each) for each in results}) == 1


def test_enough_is_enough() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        batch = await ctx.map(slow, [3, -1, 2, 50, 60], min_successful=2, max_concurrency=2)
        with pytest.raises(UsageError, match="'map-item-3' has no result: it is STARTED"):
            batch[3]
        with pytest.raises(UsageError, match="NOT_STARTED"):
            batch["map-item-4"]
        with pytest.raises(FatalError, match="no -1"):
            batch[1]
        with pytest.raises(KeyError):
            batch["another"]
        with pytest.raises(IndexError):
            batch[5]
        assert (batch.success_count, batch.failure_count, batch[0].n) == (2, 1, 3)
        return [batch.completion_reason, *[each.status for each in batch.items]]

    assert run(outer) == [
        "MIN_SUCCESSFUL_REACHED",
        *["SUCCEEDED", "FAILED", "SUCCEEDED", "STARTED", "NOT_STARTED"],
    ]

    @workflow
    async def too_few(ctx: WorkflowContext) -> str:
        try:
            await ctx.parallel([slow(-1), slow(2)], min_successful=2)
        except BatchError as error:
            return str(error)
        return ""

    assert run(too_few) == (
        "Parallel: 1 of 2 branches failed, 1 succeeded (ALL_COMPLETED); 2 had to succeed. The "
        "first of them, 'parallel-branch-0': FatalError: no -1"
    )


def test_failures_within_the_tolerance_are_told_in_the_result() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        batch = await ctx.map(slow, [1, -2, 3, -4], tolerated_failure_percentage=50)
        return [[each.n for each in batch.results], [str(each) for each in batch.errors]]

    assert set(map(str, crashes(outer))) == {"[[1, 3], ['no -2', 'no -4']]"}


def test_the_errors_of_branches_are_of_their_own_classes() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[str]:
        def fails() -> None:
            raise SoldOutError("tea")

        batch = await ctx.parallel([fails], tolerated_failure_count=1)
        await sleep(1)
        (error,) = batch.errors
        assert isinstance(error, SoldOutError)
        return [str(error)]

    assert run(outer) == ["tea"]


def test_a_batch_error_keeps_its_message_across_a_child() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        try:
            await ctx.child(lambda: ctx.map(charge, [-1]))
        except BatchError as error:
            return [str(error).partition(":")[0], error.result]
        return []

    assert run(outer) == ["Map 'charge'", None]


# -- scheduling ------------------------------------------------------------------------------------


def test_a_branch_that_waits_keeps_its_slot() -> None:
    active: list[int] = []
    most: list[int] = []

    @workflow
    async def outer(ctx: WorkflowContext) -> int:
        active.clear()

        async def one(n: int) -> None:
            active.append(n)
            most.append(len(active))
            await sleep(5)
            active.remove(n)

        await ctx.map(one, range(6), max_concurrency=2)
        return 0

    mock_ctx = MockDurableContext()
    run(outer, None, mock_ctx)
    assert max(most) == 2
    assert mock_ctx.waits == [5] * 6


def test_sync_branches_block_themselves_alone() -> None:
    @workflow
    def outer(ctx: SyncWorkflowContext) -> list[Any]:
        def one(n: int) -> list[int]:
            ctx.sleep(10 - n)
            first = sync_charge(n)
            return [first.n, sync_charge(n + 10).n]

        return [
            ctx.map(one, [1, 2, 3]).results,
            ctx.parallel([lambda: one(4), slow(5)]).success_count,
        ]

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == [[[1, 11], [2, 12], [3, 13]], 2]
    assert mock_ctx.waits == [9, 8, 7, 6, 5]
    starts = [o.start_ms for o in mock_ctx.operations if o.type is OperationType.WAIT]
    assert starts[0] == starts[1] == starts[2], "they slept at once"
    assert len(set(map(str, crashes(outer)))) == 1


@step(retry=5)
async def flaky() -> int:
    if current_step().attempt < 3:
        raise RetryableError("not yet", retry_after="4s")
    return current_step().attempt


@workflow
async def mixed(ctx: WorkflowContext, limit: int) -> list[Any]:
    async def waits() -> str:
        await sleep(7)
        return await note("waited")

    async def asks() -> str:
        return await note(await ctx.callback("answer").result())

    try:
        async with asyncio.timeout(limit):
            return list((await ctx.parallel([waits(), flaky(), asks()])).results)
    except TimeoutError:
        return ["late", await note("after")]


@workflow
def sync_mixed(ctx: SyncWorkflowContext, limit: int) -> list[Any]:
    def waits() -> str:
        ctx.sleep(7)
        return note.submit("waited").result()

    def asks() -> str:
        return note.submit(ctx.callback("answer").result()).result()

    async def within() -> list[Any]:
        async with asyncio.timeout(limit):
            return ctx.parallel([waits, flaky.submit, asks]).results

    try:
        return list(ctx.child(within))
    except TimeoutError:
        return ["late", note.submit("after").result()]


@pytest.mark.parametrize("flow", [mixed, sync_mixed], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("limit", "outcome", "notes"),
    [
        (60, ["waited", 3, "yes"], ["waited", "yes"]),
        (30, ["late", "after"], ["waited", "after"]),
        (6, ["late", "after"], ["after"]),
    ],
)
def test_a_wait_a_retry_a_callback_and_a_timeout_around_all(
    flow: Any, limit: int, outcome: list[Any], notes: list[str]
) -> None:
    for checkpoint in range(1, 30):
        mock_ctx = MockDurableContext()
        mock_ctx.complete_callback("answer", "yes", after=40)
        mock_ctx.crash_after(checkpoint)
        assert run(flow, {"limit": limit}, mock_ctx) == outcome
        noted = [op.payload for op in mock_ctx.operations if op.name == "note" and op.payload]
        assert noted == [f'"{text}"' for text in notes]


def test_cancelled_steps_are_closed_before_the_fan_out() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        async def waits() -> None:
            await hangs()

        await ctx.parallel([slow(2), waits], min_successful=1)
        return "done"

    @step
    async def hangs() -> None:
        pass

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("hangs", takes="1h")
    assert run(outer, None, mock_ctx) == "done"
    events = [(event.type, event.name) for event in mock_ctx.history()]
    assert events.index(("StepFailed", "hangs")) < events.index(("ContextSucceeded", None))


def test_a_thousand_items() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> int:
        batch = await ctx.map(charge, range(1000), max_concurrency=100)
        await sleep(1)
        return sum(each.n for each in batch.results)

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == 499_500
    assert len(mock_ctx.operations) == 2002


def test_fan_outs_nest() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        async def row(n: int) -> list[int]:
            batch = await ctx.map(slow, [n, n + 1])
            return [each.n for each in batch.results]

        return (await ctx.map(row, [1, 10])).results

    assert set(map(str, crashes(outer))) == {"[[1, 2], [10, 11]]"}


def test_a_branch_that_returns_although_it_was_cancelled_has_not_succeeded() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        async def stubborn() -> str:
            try:
                await sleep(50)
            except asyncio.CancelledError:
                return await note("never mind")
            return ""

        batch = await ctx.parallel([stubborn, slow(1)], min_successful=1)
        await sleep(1)
        return [each.status for each in batch.items]

    assert set(map(str, crashes(outer))) == {"['STARTED', 'SUCCEEDED']"}


def test_a_branch_that_cancels_itself_has_failed() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        async def one() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await sleep(5)

        batch = await ctx.parallel([one], tolerated_failure_count=1)
        return str(batch.errors[0])

    assert "cancelled by the workflow's own code" in run(outer)


def test_a_branch_that_is_cancelled_at_its_end_is_told() -> None:
    tasks: list[asyncio.Task[Any]] = []

    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        async def one() -> None:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)

        await ctx.parallel([one, slow(5)])

    assert tasks == []
    with pytest.raises(UsageError, match="was cancelled by the workflow's own code while"):
        run(outer)


def test_it_is_lazy_and_has_to_be_awaited() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        _ = ctx.map(charge, [1])

    with pytest.raises(UsageError, match=r"ctx.map\(\): called but never awaited"):
        run(outer)


# -- large results ---------------------------------------------------------------------------------


@step
async def page(n: int) -> str:
    if n < 0:
        raise FatalError("a long story " * 100)
    return str(n) * 100_000


async def slow_page(n: int) -> str:
    await sleep(abs(n))
    return await page(n)


@workflow
async def large_map(ctx: WorkflowContext) -> list[Any]:
    batch = await ctx.map(slow_page, [1, 2, -3, 4, 50, 60], min_successful=3, max_concurrency=2)
    again = await ctx.map(lambda n: ctx.map(slow_page, range(n)), [], name="nothing")
    await sleep(1)
    return [
        [result[:2] for result in batch.results],
        [each.status for each in batch.items],
        [type(each).__name__ for each in batch.errors],
        batch.completion_reason,
        again.results,
    ]


LARGE = [
    ["11", "22", "44"],
    ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED", "STARTED", "NOT_STARTED"],
    ["FatalError"],
    "MIN_SUCCESSFUL_REACHED",
    [],
]


def test_large_results_stay_with_the_branches() -> None:
    mock_ctx = MockDurableContext()
    assert run(large_map, None, mock_ctx) == LARGE
    fan_out = mock_ctx.operations[0]
    assert fan_out.replay_children
    assert fan_out.payload is not None
    assert '"results"' not in fan_out.payload
    assert len(set(map(str, crashes(large_map)))) == 1


@pytest.mark.parametrize("factor", [1, 300_000])
def test_a_recorded_decision_holds_whatever_the_options_say_now(factor: int) -> None:
    enough = [1]

    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        async def one(n: int) -> str:
            await sleep(n)
            return str(n) * factor

        batch = await ctx.map(one, [1, 20, 30], min_successful=enough[0])
        await sleep(1)
        return [batch.completion_reason, *[each.status for each in batch.items]]

    world = World()
    world.suspend(outer)
    world.suspend(outer)
    enough[0] = 3
    assert world.finish(outer) == ["MIN_SUCCESSFUL_REACHED", "SUCCEEDED", "STARTED", "STARTED"]


def test_a_branch_with_a_large_result() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[Any]:
        async def one(n: int) -> str:
            return await page(n) + await page(n) + await page(n)

        batch = await ctx.map(one, [1, 2])
        await sleep(1)
        return [len(each) for each in batch.results]

    assert set(map(str, crashes(outer))) == {"[300000, 300000]"}


# -- history and code ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("large", [False, True])
def test_another_number_of_branches_is_told(size: int, large: bool) -> None:
    items = [1, 2]

    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        await ctx.map(lambda n: "x" * 200_000 if large else n, items, name="m")
        await sleep(1)

    world = World()
    world.suspend(outer)
    items[:] = range(size)
    with pytest.raises(NonDeterminismError, match=f"with 2 branches\n.*with {size} branches"):
        world.finish(outer)


def test_results_that_no_longer_fit_are_told() -> None:
    types: list[Any] = [int]

    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        def one(n: int) -> Any:
            return n

        one.__annotations__["return"] = types[0]
        await ctx.map(one, [1, 2])
        await sleep(1)

    world = World()
    world.suspend(outer)
    types[0] = list[str]
    with pytest.raises(NonDeterminismError, match="result of branch 0 of Map 'one'.*list"):
        world.finish(outer)


def test_what_is_no_decision_is_told() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        await ctx.map(charge, [1])
        await sleep(1)

    world = World()
    world.suspend(outer)
    (execution,) = world.service._executions.values()
    operation_id = hash_path("1")
    from msgspec.structs import replace

    execution.operations[operation_id] = replace(execution.operations[operation_id], payload="[1]")
    with pytest.raises(
        NonDeterminismError, match="with something that is not a decision about branches"
    ):
        world.finish(outer)


def test_a_branch_that_changed_since_is_told() -> None:
    names = ["first"]

    @workflow
    async def outer(ctx: WorkflowContext) -> None:
        await ctx.parallel({names[0]: slow(5), "other": slow(6)})

    world = World()
    world.suspend(outer)
    names[0] = "second"
    with pytest.raises(NonDeterminismError, match="'second'"):
        world.finish(outer)


# -- the cap ---------------------------------------------------------------------------------------


def capped(flow: Workflow[..., Any], most: int) -> tuple[Any, ImmediateMemoryService]:
    """Run one invocation on a service that allows ``most`` operations."""
    from msgspec.structs import replace

    clock = VirtualClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = replace(service.claim(service.start("capped", "{}")), max_operations=most)

    async def run() -> End:
        return await Runner(invocation, service, flow, clock, KnownErrors.snapshot()).run()

    return run_to_end(run), service


def test_too_many_branches_are_refused_before_the_first_runs() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> list[int]:
        await charge(1)
        with pytest.raises(UsageError) as caught:
            await ctx.map(charge, range(8))
        assert "Map 'charge' has 8 branches and needs 9 operations or more" in str(caught.value)
        assert "this execution already has 1, and the service allows 9" in str(caught.value)
        batch = await ctx.map(lambda n: n, range(7))
        return batch.results

    end, service = capped(outer, 9)
    assert isinstance(end, Succeeded), end
    assert end.value == list(range(7))
    end, service = capped(outer, 8)
    assert isinstance(end, Failed)
    (execution,) = service._executions.values()
    assert len(execution.operations) == 2


def test_coroutines_that_are_refused_are_closed() -> None:
    @workflow
    def outer(ctx: SyncWorkflowContext) -> None:
        ctx.parallel([slow(1), slow(2)])

    end, _ = capped(outer, 2)
    assert isinstance(end, Failed)
    assert "needs 3 operations" in str(end.error)


# -- bad use ---------------------------------------------------------------------------------------


def twice(coroutine: Any) -> list[Any]:
    return [coroutine, coroutine]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ctx: ctx.parallel(charge), "takes a list or tuple of branches, or a dict"),
        (lambda ctx: ctx.parallel([slow(1), 5]), "branch 'parallel-branch-1' of ctx.parallel.. "),
        (
            lambda ctx: ctx.parallel([Receipt(1)]),
            r"it got Receipt\(n=1\). A sync step runs when it is called",
        ),
        (lambda ctx: ctx.parallel(twice(slow(1))), "one coroutine as several branches"),
        (lambda ctx: ctx.parallel({"ü": slow(1)}), "printable ASCII"),
        (lambda ctx: ctx.parallel({1: slow(1)}), "must be a str, not int"),
        (lambda ctx: ctx.parallel([slow(1)], name=""), "1 to 256 characters"),
        (lambda ctx: ctx.parallel([slow(1)], key=""), "non-empty str"),
        (lambda ctx: ctx.parallel([slow(1)], max_concurrency=0), "from 1, not 0"),
        (lambda ctx: ctx.parallel([slow(1)], min_successful=2), "only 1 branches"),
        (lambda ctx: ctx.map(5, [1]), "takes a function and items, not 5 first"),
        (
            lambda ctx: ctx.map(slow, 5),
            "an order that is the same on each replay, such as a list, not int",
        ),
        (lambda ctx: ctx.map(slow, {1, 2}), "not set: sort it"),
        (lambda ctx: ctx.map(lambda: 5, [1]), "can't be called that way"),
        (
            lambda ctx: ctx.map(lambda a, b, c: 5, [1]),
            r"this one\(a, b, c\) can't be called that way",
        ),
        (lambda ctx: ctx.map(lambda a, *, b: 5, [1]), "functools.partial"),
        (lambda ctx: ctx.map(slow, [1], item_name=5), "must be a function of an item, not 5"),
        (lambda ctx: ctx.map(slow, [1, 1], item_name=str), "names two items '1', those at 0 and 1"),
        (lambda ctx: ctx.map(slow, [1], item_name=lambda n: n), "must be a str, not int"),
        (lambda ctx: ctx.map(slow, [1], max_concurrency=True), "not True"),
    ],
)
def test_bad_use_is_told_where_it_is_made(call: Any, message: str) -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        with pytest.raises(UsageError, match=message):
            call(ctx)
        return "told"

    mock_ctx = MockDurableContext()
    assert run(outer, None, mock_ctx) == "told"
    assert mock_ctx.operations == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda ctx: ctx.map(list(range(5000)), slow),
            "ctx.map() takes a function and items, not [0, 1, 2, 3, 4, 5, ...] first: swap them",
        ),
        (
            lambda ctx: ctx.parallel(set(range(5000))),
            "ctx.parallel() takes a list or tuple of branches, or a dict of them by name, not "
            "{0, 1, 2, 3, 4, 5, ...}",
        ),
        (
            lambda ctx: ctx.parallel([list(range(5000))]),
            "branch 'parallel-branch-0' of ctx.parallel() takes a function, or a coroutine that "
            "was not awaited yet, such as the call of an async step; it got [0, 1, 2, 3, 4, 5, "
            "...]. A sync step runs when it is called: pass a function, lambda: charge(order)",
        ),
    ],
)
def test_a_refusal_shows_the_beginning_of_what_is_long(call: Any, message: str) -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        with pytest.raises(UsageError) as caught:
            call(ctx)
        return str(caught.value)

    assert run(outer) == message


def test_options_that_do_not_exist_are_type_errors() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        options: Any = {"max_concurency": 2}
        with pytest.raises(TypeError, match="max_concurency"):
            _ = ctx.map(slow, [1], **options)
        return "told"

    assert run(outer) == "told"


def test_results_that_are_no_values_fail_their_branch() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> str:
        batch = await ctx.parallel({"x": object, "y": lambda: 5}, tolerated_failure_count=1)
        assert batch["y"] == 5
        return str(batch.errors[0])

    assert run(outer).startswith("The result of 'x' can't be stored as JSON")


def test_an_item_need_be_no_value_and_a_result_must() -> None:
    class Parcel:
        weight = 5

    @workflow
    async def outer(ctx: WorkflowContext) -> Any:
        weights = await ctx.map(lambda parcel: parcel.weight, [Parcel(), Parcel()])
        with pytest.raises(BatchError, match=r"The result of 'map-item-0' can't be stored as JSON"):
            await ctx.map(lambda parcel: parcel, [Parcel()])
        return weights.results

    assert run(outer) == [5, 5]


def test_a_batch_is_no_value() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> Any:
        return await ctx.map(charge, [1])

    with pytest.raises(UsageError, match="BatchResult has no JSON form"):
        run(outer)


def test_words_are_those_of_the_service() -> None:
    assert [str(each) for each in BranchStatus] == ["SUCCEEDED", "FAILED", "STARTED", "NOT_STARTED"]
    assert [str(each) for each in CompletionReason] == [
        "ALL_COMPLETED",
        "MIN_SUCCESSFUL_REACHED",
        "FAILURE_TOLERANCE_EXCEEDED",
    ]
