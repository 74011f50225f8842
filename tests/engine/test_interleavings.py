"""Workflow shapes under random schedules and crashes.

A schedule decides which fact comes next: a step ends, a batch becomes durable, its answer arrives,
time passes, a timer fires unread, the process dies. `harness.Service` refuses any illegal batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyworkflow import SyncWorkflowContext, WorkflowContext, step, workflow
from pyworkflow._engine.messages import Failed, Refreshing, Succeeded, Suspended
from pyworkflow._protocol.executions import Committed
from pyworkflow.errors import BatchError, FatalError, SagaError
from tests.engine.harness import Run, Service, shape

# -- shapes --------------------------------------------------------------------------------------
# A step that is named f* fails for good, r* fails once and then succeeds, w* gives the number of
# its attempt, all else gives its name.


@step
async def do(name: str) -> str:
    raise AssertionError("the harness runs the bodies")


def named(name: str, **options: Any) -> Any:
    return do.options(name=name, **options)(name)


async def gathered() -> Any:
    return await asyncio.gather(*(named(n) for n in ("a", "b", "r1", "c")))


async def chained() -> Any:
    return [await named("a"), await named("r1"), await named("once", at_most_once=True)]


async def careful() -> Any:
    calls = (named(n, at_most_once=True, retry=5) for n in ("a", "r1", "b"))
    return await asyncio.gather(*calls)


async def _caught(name: str) -> str:
    try:
        return str(await named(name))
    except FatalError as error:
        return f"caught {error}"


async def failing() -> Any:
    return await asyncio.gather(_caught("f1"), _caught("a"), _caught("f2"))


async def timeouts() -> Any:
    results = []
    for name in ("a", "r1", "b"):
        try:
            async with asyncio.timeout(2):
                results.append(await named(name))
        except TimeoutError:
            results.append(f"late {name}")
        results.append(await named(f"after {name}"))
    return results


async def racing() -> Any:
    async def timed(name: str) -> str:
        try:
            return str(await asyncio.wait_for(named(name), 3))
        except TimeoutError:
            return str(await named(f"late {name}"))

    return await asyncio.gather(timed("a"), timed("b"), timed("r1"))


async def group_fails() -> Any:
    done: list[str] = []

    async def one(name: str) -> None:
        try:
            done.append(await named(name))
        finally:
            done.append(await named(f"clean {name}"))

    try:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "f1", "b", "f2"):
                group.create_task(one(name))
    except* FatalError as errors:
        done += [str(e) for e in errors.exceptions]
    return done


@workflow
async def inner(name: str) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(named(f"{name}{n}")) for n in range(2)]
    await asyncio.sleep(1)
    return [task.result() for task in tasks]


@workflow
async def outer_child(name: str) -> Any:
    left = do.options(name=f"left {name}").submit("x")
    left.add_done_callback(lambda _: None)
    asyncio.create_task(inner(f"lost {name}"))  # noqa: RUF006 - left behind on purpose
    return [await named(f"{name} first"), await inner(name)]


async def nested() -> Any:
    return await asyncio.gather(outer_child("x"), outer_child("y"), named("z"))


@workflow
async def failing_child(name: str) -> Any:
    return await asyncio.gather(named(name), named("f1"))


async def children_fail() -> Any:
    results = []
    for name in ("a", "b"):
        try:
            results.append(await failing_child(name))
        except FatalError as error:
            results.append(str(error))
    results.append(await named("last"))
    return results


async def cancelled_child() -> Any:
    task = asyncio.create_task(outer_child("x"))
    first = await named("a")
    task.cancel()
    rest = await asyncio.gather(task, named("b"), return_exceptions=True)
    return [first, str(rest[0]), rest[1]]


async def submits() -> Any:
    futures = {n: do.options(name=n).submit(n) for n in ("a", "b", "r1", "c")}
    first = await asyncio.wait(futures.values(), return_when=asyncio.FIRST_COMPLETED)
    results = sorted(f.result() for f in first[0])
    for future in first[1]:
        future.cancel()
    return [*results, await named("last")]


async def at_most_once_race() -> Any:
    futures = [do.options(name=n, at_most_once=True).submit(n) for n in ("a", "b", "c")]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in futures:
        future.cancel()
    await asyncio.sleep(1)
    return await named("last")


async def leaves_tasks() -> Any:
    async def loser(name: str) -> None:
        try:
            await named(name)
        finally:
            await named(f"clean {name}")
            await asyncio.sleep(2)
            await named(f"r clean {name}")

    tasks = [asyncio.create_task(loser(name)) for name in ("a", "b")]
    first = await named("first")
    return [first, len(tasks)]


def blocking(ctx: Any) -> Any:
    futures = [do.options(name=n).submit(n) for n in ("a", "b", "r1")]
    ctx.sleep(1)
    return [future.result() for future in futures]


async def _item(name: str) -> str:
    first = str(await named(name))
    await asyncio.sleep(1)
    return first + str(await named(f"then {name}"))


async def mapped(ctx: WorkflowContext) -> Any:
    batch = await ctx.map(_item, ("a", "r1", "b", "c"), max_concurrency=2)
    return [batch.results, batch.completion_reason]


async def mapped_failing(ctx: WorkflowContext) -> Any:
    async def one(name: str) -> str:
        try:
            return await _item(name)
        finally:
            await named(f"clean {name}")

    results = []
    for tolerated in (0, 1):
        try:
            batch = await ctx.map(one, ("a", "f1", "b", "f2"), tolerated_failure_count=tolerated)
        except BatchError as error:
            batch = error.result
        results += [[each.status, str(each.error)] for each in batch.items]
    return [*results, await named("last")]


async def first_of(ctx: WorkflowContext) -> Any:
    branches = {"x": named("a"), "y": _item("r1"), "z": inner("z")}
    batch = await ctx.parallel(branches, min_successful=1)
    try:
        async with asyncio.timeout(2):
            second = await ctx.parallel([named("b"), _item("c")])
    except TimeoutError:
        return [batch.results, "late"]
    return [batch.results, second.results]


async def large(ctx: WorkflowContext) -> Any:
    """Results that are not stored: their code runs again on each replay."""

    async def big(name: str) -> list[str]:
        left = do.options(name=f"left {name}").submit("x")
        left.add_done_callback(lambda _: None)
        return [await _item(name), "x" * 300_000]

    child = asyncio.create_task(ctx.child(big, "child"))
    batch = await ctx.map(big, ("a", "f1", "b", "c"), min_successful=2, max_concurrency=3)
    between = await named("between")
    return [
        between,
        [result[0] for result in batch.results],
        [each.status for each in batch.items],
        (await child)[0],
    ]


def mapped_blocking(ctx: SyncWorkflowContext) -> Any:
    def one(name: str, index: int) -> Any:
        future = do.options(name=name).submit(name)
        ctx.sleep(1 + index)
        return future.result()

    batch = ctx.map(one, ("a", "f1", "b", "r1"), tolerated_failure_percentage=25)
    return [ctx.child(named("last")), batch.results, batch.completion_reason]


async def asks(ctx: Any) -> Any:
    """What each task sees of creations and ends, in one order for all of them."""
    seen: list[str] = []

    async def ask(name: str) -> None:
        seen.append(await named(f"before {name}"))
        callback = ctx.callback(name)
        seen.append(callback.id)
        seen.append(await named(f"r {name}"))
        seen.append(await callback.result())

    async def work(name: str) -> None:
        for n in range(3):
            seen.append(await named(f"{name}{n}"))

    await asyncio.gather(ask("x"), work("w"), ask("y"), work("v"))
    return seen


async def asks_in_time(ctx: Any) -> Any:
    async def ask(name: str) -> Any:
        callback = ctx.callback(name)
        try:
            return await asyncio.wait_for(callback.result(), 2)
        except TimeoutError:
            return [await named(f"late {name}"), await callback.result()]

    loser = asyncio.create_task(ask("z"))
    results = await asyncio.gather(ask("x"), ask("y"), named("a"))
    loser.cancel()
    return results


async def hands_out(ctx: Any) -> Any:
    async def submit(callback_id: str) -> None:
        raise AssertionError("the harness runs the bodies")

    waits = [ctx.wait_for_callback(submit, name) for name in ("x", "y")]
    return await asyncio.gather(*waits, named("a"))


async def invokes(ctx: Any) -> Any:
    seen: list[Any] = []

    async def call(name: str) -> None:
        seen.append(await ctx.invoke("callee", name=name))
        seen.append(await named(f"after {name}"))

    await asyncio.gather(call("x"), call("y"), named("r1"))
    return seen


def asks_blocking(ctx: Any) -> Any:
    first = do.options(name="r1").submit("x")
    callback = ctx.callback("x")
    return [ctx.invoke("callee", name="y"), callback.result(), first.result()]


def polled(ctx: Any, name: str, polls: int) -> Any:
    return ctx.wait_for_condition(
        lambda: None, until=lambda n: n >= polls, every=2, name=name, result_type=int
    )


async def polling(ctx: Any) -> Any:
    return await asyncio.gather(polled(ctx, "w1", 3), named("a"), polled(ctx, "w2", 2), named("r1"))


async def polling_in_time(ctx: Any) -> Any:
    results = []
    for name in ("w1", "w2"):
        try:
            async with asyncio.timeout(3):
                results.append(await polled(ctx, name, 2))
        except TimeoutError:
            results.append(await named(f"late {name}"))
    return results


def undone(saga: Any, *names: str) -> None:
    for name in names:
        saga.add(do.options(name=name), name)


async def saga_fails(ctx: Any) -> Any:
    try:
        async with ctx.saga() as outer:
            undone(outer, "undo a", "f undo b", "r undo c")
            await named("a")
            async with ctx.saga() as inner_saga:
                undone(inner_saga, "undo d", "undo e")
                ctx.sleep(1)
                await asyncio.gather(named("r1"), named("f1"))
    except SagaError as error:
        return [str(each) for each in error.exceptions]


async def saga_is_cancelled(ctx: Any) -> Any:
    async def one(name: str) -> None:
        async with ctx.saga() as saga:
            undone(saga, f"undo {name}", f"r undo {name}")
            await named(name)
            await asyncio.sleep(5)
            await named(f"f {name}")

    tasks = [asyncio.create_task(one(name)) for name in ("a", "b")]
    await named("first")
    tasks[0].cancel()
    await named("second")
    tasks[0].cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(end).__name__ for end in ends]


SHAPES: tuple[Callable[..., Any], ...] = (
    gathered,
    chained,
    careful,
    failing,
    timeouts,
    racing,
    group_fails,
    nested,
    children_fail,
    cancelled_child,
    submits,
    at_most_once_race,
    leaves_tasks,
    blocking,
    asks,
    asks_in_time,
    hands_out,
    invokes,
    asks_blocking,
    mapped,
    mapped_failing,
    first_of,
    large,
    mapped_blocking,
    polling,
    polling_in_time,
    saga_fails,
    saga_is_cancelled,
)
CONFLUENT: tuple[Callable[..., Any], ...] = (
    gathered,
    failing,
    blocking,
    inner._function,
    hands_out,
    asks_blocking,
    mapped,
    mapped_blocking,
    polling,
)
"""Shapes whose outcome and operations do not depend on what comes first, nor on a crash."""


# -- the scheduler -------------------------------------------------------------------------------


class World:
    """One execution through all its invocations."""

    def __init__(self, function: Callable[..., Any], random: Random, crashes: float) -> None:
        self.function = function
        self.random = random
        self.crashes = crashes
        self.service = Service()
        self.delivered: list[str] = []
        self.cancelled: set[str] = set()
        self.answers: list[Committed] = []
        self.run = self.begin()

    def begin(self) -> Run:
        recorded = {i for i, o in self.service.operations.items() if o.ended}
        self.answers.clear()
        run = Run(self.function, self.service)
        self.check(run, recorded)
        again = [i for i in run.trace.delivered if i in set(self.delivered)]
        live = [i for i in self.delivered if i in set(run.trace.delivered)]
        assert again == live, "replay delivers in the order of the live run"
        skipped = [i for i in self.delivered if i not in set(again)]
        assert all(self.is_below_ended(i) for i in skipped), "only an ended child is skipped"
        return run

    def is_below_ended(self, operation_id: str) -> bool:
        parent_id = self.service.operations[operation_id].parent_id
        if parent_id is None:
            return False
        return self.service.operations[parent_id].ended or self.is_below_ended(parent_id)

    def check(self, run: Run, recorded: set[str]) -> None:
        for call in run.running.values():
            assert call.id not in recorded, "a recorded body runs again"
            assert call.id not in self.cancelled, "a cancelled body runs again"

    def finish(self, operation_id: str) -> None:
        call = self.run.running[operation_id]
        self.run.finish(call, lambda: _body(call.name, call.attempt))

    def choices(self) -> list[Callable[[], Any]]:
        run = self.run
        choices: list[Callable[[], Any]] = []
        for operation_id in run.running:
            choices.append(lambda i=operation_id: self.finish(i))  # type: ignore[misc]
        if run.in_flight is not None:
            choices.append(lambda: self.answers.append(run.write()))
        elif self.answers:
            choices.append(self.answer)
        else:
            choices.append(self.refresh)
        choices.append(run.lag)
        if self.service.open_outside() and self.random.random() < 0.3:
            choices.append(self.end_outside)
        if self.service.due() and (run.running or self.random.random() < 0.3):
            choices.append(self.service.fire_next)
        return choices

    def end_outside(self) -> None:
        """Somebody completes a callback or answers an invoke."""
        operation_id = self.random.choice(self.service.open_outside())
        self.service.end(operation_id, '"done"')

    def answer(self) -> None:
        self.run.execution.resolve(self.answers.pop())
        self.run.advance()

    def refresh(self) -> None:
        self.run.execution.resolve(Refreshing())
        self.answers.append(self.service.refresh())

    def step(self) -> None:
        before = {i for i, o in self.service.operations.items() if o.ended}
        running = set(self.run.running)
        if self.random.random() < self.crashes:
            self.crash()
            return
        self.random.choice(self.choices())()
        self.check(self.run, before)
        ended = {i for i, o in self.service.operations.items() if o.ended}
        self.cancelled |= {
            i
            for i in running - set(self.run.running)
            if i not in ended and self.run.cancelled and self.was_abandoned(i)
        }

    def was_abandoned(self, operation_id: str) -> bool:
        return any(op.id == operation_id and op.abandoned for op in self.run.trace.issued)

    def crash(self) -> None:
        self.delivered = _merged(self.delivered, self.run.trace.delivered)
        self.run.close()
        self.run = self.begin()

    def to_end(self) -> Run:
        for _ in range(3000):
            end = self.run.end
            if isinstance(end, Suspended):
                if self.service.due():  # else it has fired, and nobody read of it
                    self.service.fire_next()
                elif self.service.open_outside():
                    self.end_outside()
                self.crash()
            elif end is not None:
                return self.run
            else:
                self.step()
        raise AssertionError("the workflow does not end")


def _merged(before: list[str], now: list[str]) -> list[str]:
    """Return what was ever delivered: a replay leaves out what an ended child covers."""
    return [i for i in before if i not in set(now)] + now if now else before


def _body(name: str, attempt: int) -> str | int | None:
    if name.endswith("submitter"):
        return None
    if name.startswith("f"):
        raise FatalError(f"{name} failed")
    if name.startswith("r") and attempt == 1:
        raise ValueError(f"{name} failed once")
    return attempt if name.startswith("w") else name


def outcome(run: Run) -> Any:
    match run.end:
        case Succeeded(payload=payload):
            return payload
        case Failed(record=record):
            return record.type, record.message
    raise AssertionError(run.end)


seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
@given(seed=seeds)
@settings(max_examples=60)
def test_any_schedule_is_legal_and_replays(function: Callable[..., Any], seed: int) -> None:
    run = World(function, Random(seed), crashes=0).to_end()
    history, batches = run.service.load(), len(run.service.batches)
    run.close()

    again = Run(function, run.service)
    assert outcome(again) == outcome(run)
    assert not again.launched, "a replay of the whole history runs nothing"
    assert again.in_flight is None, "and writes nothing"
    assert (run.service.load(), len(run.service.batches)) == (history, batches)
    again.close()


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
@given(seed=seeds)
@settings(max_examples=60)
def test_crashes_are_survived(function: Callable[..., Any], seed: int) -> None:
    run = World(function, Random(seed), crashes=0.1).to_end()
    run.close()
    again = Run(function, run.service)
    assert outcome(again) == outcome(run)
    assert not again.launched
    assert again.in_flight is None
    again.close()


@pytest.mark.parametrize("function", CONFLUENT, ids=lambda f: f.__name__)
@given(seed=seeds)
@settings(max_examples=40)
def test_a_crash_changes_neither_result_nor_operations(
    function: Callable[..., Any], seed: int
) -> None:
    if function is inner._function:

        async def main() -> Any:
            return await inner("x")

        function = main
    smooth = World(function, Random(0), crashes=0).to_end()
    crashed = World(function, Random(seed), crashes=0.15).to_end()
    assert outcome(crashed) == outcome(smooth)
    assert shape(crashed.service.operations) == shape(smooth.service.operations)
    smooth.close()
    crashed.close()


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
def test_each_write_is_a_point_to_crash_at(function: Callable[..., Any]) -> None:
    """Crash after each batch in turn, before and after its answer arrives."""
    batches = len(World(function, Random(1), crashes=0).to_end().service.batches)
    for crash_after in range(1, batches + 1):
        world = World(function, Random(1), crashes=0)
        while len(world.service.batches) < crash_after and world.run.end is None:
            world.step()
        if world.run.end is None:
            world.crash()
        run = world.to_end()
        run.close()
        again = Run(function, run.service)
        assert outcome(again) == outcome(run)
        again.close()
