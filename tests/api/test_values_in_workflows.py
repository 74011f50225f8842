"""What would come back different is refused wherever it is recorded; inputs keep constraints."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import date
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from pyworkflow import InputError, SerializationError, UsageError, WorkflowContext, step, workflow
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import BatchError
from tests.api.world import World


@dataclasses.dataclass
class Msg:
    author: str


@dataclasses.dataclass
class ToolMsg(Msg):
    tool: str = ""


class Hidden(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field("none", exclude=True)


@step
async def fetch() -> list[Msg]:
    return [ToolMsg("me", tool="saw")]


@step(inline=True)
def fetch_inline() -> list[Msg]:
    return [ToolMsg("me", tool="saw")]


@step
def fetch_in_thread() -> Hidden:
    return Hidden(name="a", token="T")


@workflow
async def child() -> Msg:
    return ToolMsg("me")


@workflow
def blocking_child() -> Hidden:
    return Hidden(name="a", token="T")


async def branch() -> Msg:
    return ToolMsg("me")


async def call_fetch(ctx: WorkflowContext) -> Any:
    return await fetch()


async def call_inline(ctx: WorkflowContext) -> Any:
    return fetch_inline()


async def submit(ctx: WorkflowContext) -> Any:
    return await fetch_in_thread.submit()


async def call_child(ctx: WorkflowContext) -> Any:
    return await child()


async def call_blocking_child(ctx: WorkflowContext) -> Any:
    return blocking_child()


async def run_child(ctx: WorkflowContext) -> Any:
    return await ctx.child(branch)


async def run_parallel(ctx: WorkflowContext) -> Any:
    batch = await ctx.parallel([branch], tolerated_failure_count=1)
    raise batch.errors[0]


async def run_map(ctx: WorkflowContext) -> Any:
    def give(each: int) -> list[Msg]:
        return [ToolMsg("me")] if each else []

    batch = await ctx.map(give, [0, 1, 0], tolerated_failure_count=1)
    assert batch.results == [[], []]
    raise batch.errors[0]


async def run_map_of_steps(ctx: WorkflowContext) -> Any:
    @step
    def give(each: int) -> Hidden:
        return Hidden(name="a", token="none" if each else "T")

    batch = await ctx.map(give, [0, 1], tolerated_failure_count=1)
    assert batch.results == [Hidden.model_validate({"name": "a"})]
    raise batch.errors[0]


async def poll(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(branch, every=1, name="poll")


async def poll_typed(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(
        lambda: ToolMsg("me"), every=1, name="poll", result_type=Msg
    )


async def poll_from(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(
        lambda state: state, ToolMsg("me"), every=1, name="poll", result_type=Msg
    )


async def invoke(ctx: WorkflowContext) -> Any:
    return await ctx.invoke("other", Hidden(name="a", token="T"))


PATHS = [
    *(call_fetch, call_inline, submit, call_child, call_blocking_child, run_child),
    *(run_parallel, run_map, run_map_of_steps, poll, poll_typed, poll_from, invoke),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strict", [True, False])
def test_it_is_a_failure_of_the_operation(path: Any, strict: bool) -> None:
    """And it can be handled; a replay sees the same."""
    seen: list[str] = []

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            await path(ctx)
        except SerializationError as error:
            seen.append(str(error))
            ctx.sleep(60)
            return "told"
        raise AssertionError

    assert create_test_handler(main, MockDurableContext(strict=strict))({}) == "told"
    assert World().finish(main) == "told"
    assert len(set(seen)) == 1
    assert "would not come back equal" in seen[0]


def test_a_result_of_a_workflow_is_its_failure() -> None:
    for flow in (child, blocking_child):
        with pytest.raises(SerializationError, match="result of the workflow would not come back"):
            World().finish(flow)


def test_no_further_attempt_is_made() -> None:
    ran = []

    @step
    async def make() -> Msg:
        ran.append(1)
        return ToolMsg("me")

    @workflow
    async def main() -> Msg:
        return await make()

    with pytest.raises(SerializationError):
        create_test_handler(main)({})
    assert len(ran) == 1


def test_a_branch_that_fails_so_fails_its_fan_out() -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> int:
        return len(ctx.parallel([branch]).results)

    for run in (create_test_handler(main), lambda _: World().finish(main)):
        with pytest.raises(BatchError, match="would not come back equal through Msg"):
            run({})


class Reading:
    """What `Unsteady` does when it is read: an older version accepted values of such a class."""

    suffix = ""


@dataclasses.dataclass
class Unsteady:
    name: str

    def __post_init__(self) -> None:
        self.name += Reading.suffix


def test_what_was_recorded_earlier_is_not_refused_on_a_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @step
    async def make() -> Unsteady:
        return Unsteady("a")

    @workflow
    async def inner() -> Unsteady:
        return Unsteady("b")

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        found = await make(), await inner()
        invoked = asyncio.ensure_future(ctx.invoke("other", Unsteady("i")))
        polled = await ctx.wait_for_condition(
            lambda state: Unsteady("c"), Unsteady("s"), every=1, result_type=Unsteady, name="poll"
        )
        ctx.sleep(5)
        invoked.cancel()
        return f"{found[0].name} {found[1].name} {polled.name}"

    world = World()
    world.suspend(main)
    monkeypatch.setattr(Reading, "suffix", "!")
    assert world.finish(main) == "a! b! c!"


def test_a_large_result_is_not_judged_again_on_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not stored: the code of the child context or branch runs again."""

    def give(each: int = 0) -> list[Unsteady]:
        return [Unsteady("x" * 300_000)]

    @workflow
    def main(ctx: SyncWorkflowContext) -> list[str]:
        found = [*ctx.child(give), *ctx.map(give, [1]).results[0]]
        ctx.sleep(5)
        return [each.name[-2:] for each in found]

    world = World()
    world.suspend(main)
    monkeypatch.setattr(Reading, "suffix", "!")
    assert world.finish(main) == ["!!", "!!"]


def test_a_state_that_was_recorded_earlier_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def look(ctx: WorkflowContext) -> str:
        found = await ctx.wait_for_condition(
            lambda state: state,
            Unsteady("s"),
            every=1,
            until=lambda _: False,
            name="poll",
            result_type=Unsteady,
        )
        return str(found.name)

    world = World()
    world.suspend(look)
    monkeypatch.setattr(Reading, "suffix", "!")
    with pytest.raises(SerializationError, match="state of condition 'poll' would not come back"):
        world.finish(look)  # the check's own result is new, and is refused


# -- inputs ---------------------------------------------------------------------------------------


class Day:
    today = date(2026, 1, 1)


def not_over(value: date) -> date:
    if value < Day.today:
        raise ValueError("is over")
    return value


class Booking(pydantic.BaseModel):
    on: Annotated[date, pydantic.AfterValidator(not_over)]
    name: Annotated[str, pydantic.AfterValidator(str.upper)]


@workflow
async def book(
    ctx: WorkflowContext,
    booking: Booking,
    on: Annotated[date, pydantic.AfterValidator(not_over)],
    seats: pydantic.PositiveInt = 1,
) -> str:
    ctx.sleep("60d")
    return f"{booking.on} {booking.name} {on} {seats}"


GIVEN = '{"booking": {"on": "2026-02-01", "name": "ada"}, "on": "2026-02-02"}'


def test_an_input_that_was_accepted_is_accepted_on_each_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(GIVEN)
    world.suspend(book)
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    assert world.finish(book) == "2026-02-01 ADA 2026-02-02 1"


def test_an_input_is_judged_when_its_execution_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    with pytest.raises(InputError) as caught:
        World(GIVEN).finish(book)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["booking", "on"]


def test_every_field_that_breaks_a_constraint_is_named() -> None:
    @dataclasses.dataclass
    class Line:
        sku: Annotated[str, pydantic.StringConstraints(min_length=3)]
        count: pydantic.PositiveInt

    async def order(qty: Annotated[int, pydantic.Field(gt=0)], lines: Any, key: Any) -> None: ...

    order.__annotations__ |= {"lines": list[Line], "key": pydantic.SecretStr}
    with pytest.raises(InputError) as caught:
        create_test_handler(workflow(order))(
            {"qty": 0, "lines": [{"sku": "a", "count": 0}], "key": 1, "other": 2}
        )
    found = [problem.partition(":")[0] for problem in caught.value.problems]
    assert found == ["qty", "lines", "lines", "key", "other"]
    assert "$[0].sku" in caught.value.problems[1]
    assert "$[0].count" in caught.value.problems[2]


def test_a_secret_is_a_parameter_and_no_result() -> None:
    @workflow
    async def login(key: pydantic.SecretStr) -> str:
        return key.get_secret_value()

    @workflow
    async def leak(key: pydantic.SecretStr) -> pydantic.SecretStr:
        return key

    assert create_test_handler(login)({"key": "abc"}) == "abc"
    assert create_test_handler(login)("abc") == "abc"
    with pytest.raises(SerializationError, match="a secret"):
        create_test_handler(leak)({"key": "abc"})


def test_what_nobody_would_enforce_is_refused_where_it_is_defined() -> None:
    class Item(msgspec.Struct):
        n: pydantic.PositiveInt

    async def give() -> Any: ...
    async def take(item: Any) -> None: ...

    give.__annotations__["return"] = list[Item]
    take.__annotations__["item"] = Item
    for make in (lambda: step(give), lambda: workflow(give), lambda: workflow(take)):
        with pytest.raises(UsageError, match=r"Gt\(gt=0\) of .*Item\.n is not enforced"):
            make()


def test_an_answer_that_depends_on_the_time_of_reading_is_refused() -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> str:
        for ask in (
            lambda: ctx.callback("a", result_type=pydantic.FutureDate),
            lambda: ctx.invoke("a", result_type=pydantic.FutureDate),
        ):
            with pytest.raises(SerializationError, match="depends on when it is read"):
                ask()
        return "told"

    assert create_test_handler(main)({}) == "told"
