"""Constraints on the parameters of steps and of child workflows hold for each call."""

from __future__ import annotations

import collections
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import annotated_types
import msgspec
import pydantic
import pytest

import pyworkflow
from pyworkflow import Client, InputError, WorkflowContext, step, workflow
from pyworkflow._engine.arguments import Checked
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import BatchError
from tests.api.world import World

Positive = Annotated[int, pydantic.Field(gt=0)]
MetaPositive = Annotated[int, msgspec.Meta(gt=0)]

ran: list[object] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@dataclasses.dataclass
class Line:
    sku: Annotated[str, annotated_types.MinLen(3)]
    count: Positive = 1


class Connection:
    """What no codec knows."""


@step
async def charge(amount: Positive, note: str = "") -> int:
    ran.append(amount)
    return amount


@step
def charge_blocking(amount: MetaPositive, /, *more: Positive, **named: Positive) -> int:
    ran.append(amount)
    return amount


@step(inline=True)
def charge_inline(lines: list[Line], by: Connection | None = None) -> int:
    ran.append(lines)
    return len(lines)


@step
async def charge_by_default(amount: Positive = 0) -> int:
    ran.append(amount)
    return amount


class Shop:
    @step
    async def charge(self, amount: Positive) -> int:
        ran.append(amount)
        return amount

    @classmethod
    @step
    def refund(cls, amount: Positive) -> int:
        ran.append(amount)
        return amount

    @staticmethod
    @step
    def tip(amount: Positive) -> int:
        ran.append(amount)
        return amount

    @workflow
    async def order(self, amount: Positive) -> int:
        ran.append(amount)
        return amount


@workflow
async def order(ctx: WorkflowContext, amount: Positive) -> int:
    ran.append(amount)
    return amount


@workflow
def blocking_order(amount: MetaPositive = 0) -> int:
    ran.append(amount)
    return amount


async def failing(ctx: WorkflowContext, call: Callable[[], Any]) -> list[str]:
    try:
        value = call()
        if hasattr(value, "__await__"):
            value = await value
    except InputError as error:
        return [str(error), *error.problems]
    raise AssertionError(f"{value!r} was accepted")


CALLS: list[tuple[Callable[[WorkflowContext], Any], str, str]] = [
    (lambda ctx: charge(-7), "step 'charge'", "amount: "),
    (lambda ctx: charge(amount=-7), "step 'charge'", "amount: "),
    (lambda ctx: charge.submit(-7), "step 'charge'", "amount: "),
    (lambda ctx: charge.options(name="pay", key="k")(-7), "step 'pay'", "amount: "),
    (lambda ctx: charge_blocking(-7), "step 'charge_blocking'", "amount: "),
    (lambda ctx: charge_blocking(1, 2, -7), "step 'charge_blocking'", "more[1]: "),
    (lambda ctx: charge_blocking(1, tip=-7), "step 'charge_blocking'", "tip: "),
    (lambda ctx: charge_inline([Line("abc"), Line("abc", -7)]), "step 'charge_inline'", "lines: "),
    (lambda ctx: charge_by_default(), "step 'charge_by_default'", "amount: "),
    (lambda ctx: Shop().charge(-7), "step 'charge'", "amount: "),
    (lambda ctx: Shop().charge.options(name="a")(-7), "step 'a'", "amount: "),
    (lambda ctx: Shop.refund(-7), "step 'refund'", "amount: "),
    (lambda ctx: Shop.tip(-7), "step 'tip'", "amount: "),
    (lambda ctx: order(ctx, -7), "workflow 'order'", "amount: "),
    (lambda ctx: order.options(name="sub")(ctx, amount=-7), "workflow 'sub'", "amount: "),
    (lambda ctx: blocking_order(-7), "workflow 'blocking_order'", "amount: "),
    (lambda ctx: blocking_order(), "workflow 'blocking_order'", "amount: "),
    (lambda ctx: Shop().order(-7), "workflow 'order'", "amount: "),
]


@pytest.mark.parametrize(("call", "what", "where"), CALLS)
def test_a_call_that_breaks_a_constraint_fails_and_nothing_runs(
    call: Callable[[WorkflowContext], Any], what: str, where: str
) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        return await failing(ctx, lambda: call(ctx))

    mock = MockDurableContext()
    message, *problems = create_test_handler(main, mock)({})
    assert what in message
    [problem] = problems
    assert problem.startswith(where)
    assert "found -7" in problem or "found 0" in problem
    assert not ran
    assert not mock.waits  # it is not tried again
    found = World()
    assert found.finish(main)[0] == message


@pytest.mark.parametrize(("call", "what", "where"), CALLS)
def test_a_call_that_breaks_a_constraint_fails_in_sqlite(
    call: Callable[[WorkflowContext], Any], what: str, where: str, tmp_path: Path
) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        problems = await failing(ctx, lambda: call(ctx))
        ctx.sleep("1s")
        return problems

    found = pyworkflow.run(main, db=tmp_path / "a.db", skip_time=True)
    assert what in found[0]
    assert found[1].startswith(where)
    assert not ran
    with Client.local(tmp_path / "a.db") as client:
        [execution] = client.list()
        assert execution.status == "SUCCEEDED"


def test_what_fits_runs_with_the_very_arguments() -> None:
    @workflow
    def main(ctx: Any) -> list[Any]:
        lines = [Line("abc")]
        found = [
            charge.submit(1).result(),
            charge_blocking(1, 2, tip=3),
            charge_inline(lines, by=Connection()),
            Shop.tip(1),
            blocking_order(3),
        ]
        given.extend(lines)
        return found

    given: list[Line] = []
    World().finish(main)
    taken = next(each for each in ran if isinstance(each, list))
    assert taken[0] is given[-1]
    assert create_test_handler(main)({}) == [1, 1, 1, 1, 3]


def test_a_default_is_judged_in_an_input_too() -> None:
    with pytest.raises(InputError) as caught:
        create_test_handler(blocking_order)({})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["amount"]
    assert create_test_handler(blocking_order)({"amount": 2}) == 2
    assert set(ran) == {2}


def test_a_plain_call_is_plain() -> None:
    assert charge_inline([Line("")]) == 1
    assert blocking_order(-1) == -1


def test_branches_of_a_map_are_calls_too() -> None:
    @workflow
    async def main(ctx: WorkflowContext, child: bool) -> Any:
        try:
            await ctx.map(blocking_order if child else charge, [1, -7])
        except BatchError as error:
            return [type(each.error).__name__ for each in error.result.items if each.error]

    for child in (False, True):
        assert create_test_handler(main)({"child": child}) == ["InputError"]
        assert ran.pop() == 1


def test_a_fake_is_called_as_its_step() -> None:
    @workflow
    async def main(ctx: WorkflowContext, amount: int) -> int:
        charge_blocking(amount)
        return await charge(amount)

    for fake in ({"result": 5}, {"side_effect": lambda amount: amount}, {"takes": "1m"}):
        mock = MockDurableContext()
        mock.mock_step("charge", **fake)
        mock.mock_step("charge_blocking", **fake)
        handler = create_test_handler(main, mock)
        with pytest.raises(InputError, match="charge"):
            handler({"amount": -7})
        assert handler({"amount": 5}) == 5
    mock = MockDurableContext()
    mock.mock_step("charge", result=-7)
    mock.mock_step("charge_blocking", result=1)
    assert create_test_handler(main, mock)({"amount": 1}) == -7  # results are another matter


class Day:
    today = date(2026, 1, 1)


def is_to_come(value: date) -> date:
    if value <= Day.today:
        raise ValueError("that day has passed")
    return value


ToCome = Annotated[date, pydantic.AfterValidator(is_to_come)]


@step
def book(on: ToCome) -> str:
    if len(ran) < 1:
        ran.append(on)
        raise ConnectionError
    return on.isoformat()


@workflow
async def trip(ctx: WorkflowContext, on: ToCome) -> str:
    ctx.sleep("1d")
    return "went"


@workflow
async def journey(ctx: WorkflowContext) -> list[str]:
    return [await trip(ctx, date(2026, 2, 1)), book(date(2026, 2, 1))]


def test_arguments_are_judged_when_the_call_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.suspend(journey)
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    with pytest.raises(InputError, match="step 'book'"):  # whose call begins on the later day
        world.finish(journey)
    with pytest.raises(InputError, match="workflow 'trip'"):
        World().finish(journey)


def test_a_retry_is_not_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        return book(date(2026, 2, 1))

    world = World()
    world.suspend(main)
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    assert world.finish(main) == "2026-02-01"


def test_a_recorded_outcome_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        ran.append(1)
        found = book(date(2026, 2, 1)) + await trip(ctx, date(2026, 2, 1))
        ctx.sleep("1d")
        return found

    world = World()
    world.suspend(main)
    world.suspend(main)
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    assert world.finish(main) == "2026-02-01went"


@step
async def take(
    any_of: Positive | str | None = None,
    row: Row | None = None,
    pair: Pair | None = None,
    item: Item | None = None,
    prices: dict[Annotated[str, annotated_types.MinLen(2)], Positive] | None = None,
    fixed: tuple[str, Positive] | None = None,
    rest: tuple[Positive, ...] = (),
    parsed: pydantic.Json[list[Positive]] | None = None,
    secret: Annotated[pydantic.SecretStr, pydantic.Field(min_length=3)] | None = None,
    ratio: Annotated[list[float], annotated_types.Len(1)] | None = None,
    on: pydantic.FutureDate | None = None,
    code: Annotated[str | None, msgspec.Meta(pattern="^[a-z]+$", max_length=3)] = None,
    step_of: Annotated[float, msgspec.Meta(ge=1, lt=9, multiple_of=2)] = 2,
    words: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None,
    link: pydantic.HttpUrl | None = None,
    many: Iterable[Positive] = (),
    counts: collections.OrderedDict[str, Positive] | None = None,
    model: Model | None = None,
) -> None:
    ran.append(1)


class Row(TypedDict):
    count: Positive


class Pair(NamedTuple):
    a: Positive
    b: int = 0


class Item(msgspec.Struct, rename="camel"):
    unit_count: MetaPositive
    by: Any = None
    inside: Item | None = None


class Model(pydantic.BaseModel):
    count: Positive


def looped() -> Item:
    item = Item(1)
    item.inside = item
    return item


GOOD: list[dict[str, Any]] = [
    {"any_of": 1},
    {"any_of": "-1"},
    {"row": {"count": 1}},
    {"pair": Pair(1)},
    {"item": Item(1, Connection())},
    {"item": looped()},
    {"prices": {"ab": 1}},
    {"fixed": ("", 1)},
    {"rest": (1, 2)},
    {"parsed": [1]},
    {"secret": pydantic.SecretStr("abc")},
    {"ratio": [float("inf")]},
    {"on": date(2999, 1, 1)},
    {"code": "ab"},
    {"step_of": 8},
    {"words": ["a"]},
    {"link": pydantic.HttpUrl("https://example.com")},
    {"model": Model(count=1)},
    {"many": iter([-1])},  # nobody could read it again
    {"row": 5},  # types are not judged
]

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"any_of": -1}, "$", "-1"),
    ({"row": {"count": -1}}, "$.count", "-1"),
    ({"pair": Pair(-1)}, "$.a", "-1"),
    ({"item": Item(-1, Connection())}, "$.unit_count", "-1"),
    ({"item": Item(1, None, Item(-1))}, "$.inside.unit_count", "-1"),
    ({"prices": {"ab": -1}}, "$.ab", "-1"),
    ({"prices": {"a": 1}}, "$", "'a'"),
    ({"fixed": ("", -1)}, "$[1]", "-1"),
    ({"rest": (1, -2)}, "$[1]", "-2"),
    ({"parsed": [1, -1]}, "$[1]", "-1"),
    ({"secret": pydantic.SecretStr("ab")}, "$", "SecretStr('**********')"),
    ({"ratio": []}, "$", "[]"),
    ({"on": date(1999, 1, 1)}, "$", "datetime.date(1999, 1, 1)"),
    ({"code": "1"}, "$", "'1'"),
    ({"code": "abcd"}, "$", "'abcd'"),
    ({"step_of": 3}, "$", "3"),
    ({"step_of": 10}, "$", "10"),
    ({"step_of": "x"}, "$", "'x'"),
    ({"words": []}, "$", "[]"),
    ({"many": {-1}}, "$[0]", "-1"),
    ({"many": collections.deque([1, -1])}, "$[1]", "-1"),
    ({"counts": collections.OrderedDict(a=-1)}, "$.a", "-1"),
]


@workflow
async def taking(ctx: WorkflowContext, index: int, good: bool) -> None:
    await take(**(GOOD[index] if good else BAD[index][0]))


@pytest.mark.parametrize("index", range(len(GOOD)))
def test_a_value_that_keeps_to_its_constraints_is_taken(index: int) -> None:
    World(f'{{"index": {index}, "good": true}}').finish(taking)
    assert ran


@pytest.mark.parametrize("index", range(len(BAD)))
def test_a_breach_is_named(index: int) -> None:
    with pytest.raises(InputError) as caught:
        World(f'{{"index": {index}, "good": false}}').finish(taking)
    [problem] = caught.value.problems
    given, path, found = BAD[index]
    [name] = given
    assert problem.startswith(f"{name}: ")
    assert f" at {path}, found {found}" in problem
    assert not ran


def test_only_functions_with_constraints_are_checked() -> None:
    @step
    async def free(a: int, b: list[str], *c: Any, **d: Connection) -> dict[str, int]:
        return {}

    assert not isinstance(free._body, Checked)
    assert isinstance(charge._body, Checked)
    assert isinstance(Shop().charge._body, Checked)
    assert isinstance(take._body, Checked)


def test_a_wrong_call_is_pythons_to_refuse() -> None:
    @workflow
    async def main() -> None:
        await charge(1, 2, 3)  # type: ignore[call-arg, arg-type]

    with pytest.raises(TypeError):
        World().finish(main)


def test_a_constraint_that_needs_pydantic_is_refused_without_it(tmp_path: Path) -> None:
    source = tmp_path / "plain.py"
    source.write_text(
        "import annotated_types as at, typing, pyworkflow\n"
        "try:\n"
        "    @pyworkflow.step\n"
        "    def f(a: typing.Annotated[int, at.Gt(0)]): ...\n"
        "except pyworkflow.errors.UsageError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, source], capture_output=True, text=True, check=True)
    assert "parameter 'a' of step 'f'" in found.stdout
    assert "pydantic was not imported" in found.stdout
