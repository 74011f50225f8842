from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NewType, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from pyworkflow import (
    InputError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    step,
    workflow,
)
from pyworkflow._api.input_binding import InputBinder
from tests.api.world import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from nowhere import Ghost  # type: ignore[import-not-found]


@dataclasses.dataclass
class Data:
    a: int
    b: str = "b"


class Record(msgspec.Struct):
    a: int


class Model(pydantic.BaseModel):
    a: int


class Typed(TypedDict):
    a: int


class Generic(msgspec.Struct, typing.Generic[typing.TypeVar("T")]):  # type: ignore[misc]
    a: Any


class Color(Enum):
    RED = "red"


Named = NewType("Named", dict)  # type: ignore[type-arg]


def bind(function: Callable[..., Any], payload: str | None) -> Any:
    return InputBinder(function, "greet").bind(payload)


def problems(function: Callable[..., Any], payload: str | None) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        bind(function, payload)
    assert str(caught.value).startswith("the input does not fit workflow 'greet':")
    assert all(f"\n  {problem}" in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def names(found: tuple[str, ...]) -> list[str]:
    return [problem.partition(":")[0] for problem in found]


# -- objects, by name ------------------------------------------------------------------------------


def two(a: int, b: str = "default") -> None: ...


def converted(day: date, color: Color, data: Data) -> None: ...


def rest(a: int, **more: float) -> None: ...


def only_rest(**more: Any) -> None: ...


def kinds(a: int, /, b: int = 2, *, c: int, d: int = 4) -> None: ...


def nothing() -> None: ...


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (two, '{"a": 1, "b": "x"}', ([], {"a": 1, "b": "x"})),
        (two, ' {"b": "x", "a": 1} ', ([], {"a": 1, "b": "x"})),
        (two, '{"a": 1}', ([], {"a": 1})),
        (
            converted,
            '{"day": "2026-01-02", "color": "red", "data": {"a": 1}}',
            ([], {"day": date(2026, 1, 2), "color": Color.RED, "data": Data(1)}),
        ),
        (rest, '{"a": 1, "x": 2, "y": 0.5}', ([], {"a": 1, "x": 2.0, "y": 0.5})),
        (rest, '{"a": 1}', ([], {"a": 1})),
        (only_rest, '{"x": {"y": null}}', ([], {"x": {"y": None}})),
        (only_rest, "{}", ([], {})),
        (only_rest, "", ([], {})),
        (kinds, '{"a": 1, "c": 3}', ([1], {"c": 3})),
        (kinds, '{"d": 40, "c": 30, "b": 20, "a": 10}', ([10], {"b": 20, "c": 30, "d": 40})),
        (lambda a=1, b=2, /: None, '{"b": 5}', ([1, 5], {})),
        (lambda a: None, '{"a": [1, {}]}', ([], {"a": [1, {}]})),
        (nothing, "{}", ([], {})),
        (nothing, "null", ([], {})),
        (nothing, "", ([], {})),
        (nothing, None, ([], {})),
    ],
)
def test_an_object_binds_by_name(function: Any, payload: str | None, expected: Any) -> None:
    assert bind(function, payload) == expected


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (two, '{"b": 1, "c": 2}', ["b", "a", "c"]),
        (two, "{}", ["a"]),
        (two, "", ["a"]),
        (converted, '{"day": "x", "color": "green", "data": {}}', ["day", "color", "data"]),
        (rest, '{"a": "x", "y": "z", "w": 1}', ["a", "y"]),
        (kinds, '{"b": 2}', ["a", "c"]),
        (nothing, '{"a": 1}', ["a"]),
    ],
)
def test_each_wrong_missing_or_unexpected_field_is_named(
    function: Any, payload: str, expected: list[str]
) -> None:
    assert names(problems(function, payload)) == expected


def test_problems_say_what_is_wrong_and_what_is_taken() -> None:
    with pytest.raises(InputError) as caught:
        bind(rest, '{"b": "x"}')
    first, second = caught.value.problems
    assert first == "a: missing"
    assert "'b'" in second
    assert "float" in second
    assert "It takes (a: 'int', **more: 'float')" in str(caught.value)
    assert problems(two, '{"a": 1, "c": 2}') == ("c: unexpected",)


# -- one structured parameter ----------------------------------------------------------------------


def by_dict(order: dict[str, Any]) -> None: ...
def by_mapping(order: Mapping[str, int]) -> None: ...
def by_data(order: Data) -> None: ...
def by_record(order: Record) -> None: ...
def by_model(order: Model) -> None: ...
def by_typed(order: Typed) -> None: ...
def by_optional(order: Data | None) -> None: ...
def by_old_optional(order: typing.Optional[Model] = None) -> None: ...  # noqa: UP045
def by_annotated(order: Annotated[Record, "note"]) -> None: ...
def by_new_type(order: Named) -> None: ...
def by_position(order: dict[str, int], /) -> None: ...
def by_keyword(*, order: dict[str, int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (by_dict, {"a": 1}),
        (by_mapping, {"a": 1}),
        (by_data, Data(1)),
        (by_record, Record(1)),
        (by_model, Model(a=1)),
        (by_typed, {"a": 1}),
        (by_optional, Data(1)),
        (by_old_optional, Model(a=1)),
        (by_annotated, Record(1)),
        (by_new_type, {"a": 1}),
        (by_keyword, {"a": 1}),
    ],
)
def test_a_structured_parameter_takes_the_whole_object(function: Any, expected: Any) -> None:
    args, kwargs = bind(function, '{"a": 1}')
    assert (args, kwargs) == ([], {"order": expected})
    assert type(kwargs["order"]) is type(expected)


def test_the_signature_decides_and_never_the_data() -> None:
    assert bind(by_dict, '{"order": {"a": 1}}') == ([], {"order": {"order": {"a": 1}}})
    assert bind(by_dict, "{}") == ([], {"order": {}})
    assert bind(by_position, '{"a": 1}') == ([{"a": 1}], {})
    assert names(problems(by_data, '{"order": {"a": 1}}')) == ["order"]


@pytest.mark.parametrize(
    "annotation",
    [int, list, Any, Data | int, Color, "Data | str", tuple, typing.Literal["x"], None],
)
def test_other_single_parameters_take_a_field(annotation: Any) -> None:
    def single(order: Any) -> None: ...

    single.__annotations__["order"] = annotation
    assert names(problems(single, '{"a": 1}')) == ["order", "a"]


def test_a_structured_parameter_beside_others_takes_a_field() -> None:
    def beside(order: Data, more: int = 0) -> None: ...

    def beside_rest(order: dict[str, int], **more: int) -> None: ...

    assert bind(beside, '{"order": {"a": 1}}') == ([], {"order": Data(1)})
    assert bind(beside_rest, '{"order": {"a": 1}, "b": 2}') == ([], {"order": {"a": 1}, "b": 2})


def test_a_structured_parameter_that_does_not_fit() -> None:
    (problem,) = problems(by_data, '{"a": "x"}')
    assert problem.startswith("order: ")
    assert "$.a" in problem
    assert names(problems(by_model, '{"a": "x"}')) == ["order"]
    assert names(problems(by_record, "{}")) == ["order"]


# -- other JSON values -----------------------------------------------------------------------------


def one_int(a: int) -> None: ...
def one_list(a: list[int]) -> None: ...
def one_any(a) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001
def one_flag(*, a: bool) -> None: ...
def one_maybe(a: int | None) -> None: ...
def one_default(a: int = 7) -> None: ...


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (one_int, "5", 5),
        (one_list, " [1, 2]", [1, 2]),
        (one_any, '"text"', "text"),
        (one_any, "null", None),
        (one_flag, "true", True),
        (one_maybe, "null", None),
        (by_optional, "null", None),
        (one_default, "5", 5),
    ],
)
def test_another_value_goes_to_the_single_parameter(
    function: Any, payload: str, expected: Any
) -> None:
    assert bind(function, payload) == (
        [],
        {"a" if function is not by_optional else "order": expected},
    )


def test_null_and_no_input_leave_defaults_alone() -> None:
    for payload in ("null", "", " ", None, "{}"):
        assert bind(one_default, payload) == ([], {})
        assert bind(lambda a=1, *, b=2: None, payload) == ([], {})


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ("5", "a JSON number"),
        ("-1.5", "a JSON number"),
        ('"x"', "a JSON string"),
        ("[1]", "a JSON array"),
        ("true", "a JSON boolean"),
        (" false", "a JSON boolean"),
        ("null", "null"),
    ],
)
def test_another_value_has_nowhere_to_go(payload: str, found: str) -> None:
    expected = (f"the input is {found}, but the parameters need a JSON object",)
    assert problems(two, payload) == expected
    assert problems(rest, payload) == expected


def test_nothing_to_go_to_at_all() -> None:
    assert problems(nothing, "5") == (
        "the input is a JSON number, but the parameters need a JSON object",
    )


class Line(pydantic.BaseModel):
    sku: str
    count: int = pydantic.Field(gt=0)


class Order(pydantic.BaseModel):
    id: int
    lines: list[Line]
    by: str = pydantic.Field(alias="who")

    @pydantic.model_validator(mode="after")
    def has_lines(self) -> Self:
        if not self.lines:
            raise ValueError("an order\nof nothing")
        return self


@pydantic.dataclasses.dataclass
class Address:
    street: str
    number: int


def by_order(order: Order) -> None: ...
def by_orders(orders: list[Order], urgent: bool) -> None: ...
def by_address(address: Address) -> None: ...
def by_either(either: Line | Address) -> None: ...
def by_struct(held: Holder) -> None: ...


def by_prices(prices: Prices) -> None: ...
def by_limits(limits: list[Limits]) -> None: ...


class Prices(pydantic.RootModel[dict[str, int]]):
    pass


class Holder(msgspec.Struct):
    order: Order


@dataclasses.dataclass
class Limits:
    sku: Annotated[str, pydantic.Field(min_length=3)]
    count: pydantic.PositiveInt = 1


BAD_ORDER = '{"id": "x", "lines": [{"sku": 1, "count": 0}, 5]}'


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (
            by_order,
            BAD_ORDER,
            [
                "order $.id",
                "order $.lines[0].sku",
                "order $.lines[0].count",
                "order $.lines[1]",
                "order $.who",
            ],
        ),
        (
            by_orders,
            f'{{"orders": [{BAD_ORDER}], "urgend": true}}',
            [
                "orders $[0].id",
                "orders $[0].lines[0].sku",
                "orders $[0].lines[0].count",
                "orders $[0].lines[1]",
                "orders $[0].who",
                "urgent",
                "urgend",
            ],
        ),
        (by_address, '{"number": "x"}', ["address $.street", "address $.number"]),
        (
            by_either,
            '{"number": 5}',
            ["either $.Line.sku", "either $.Line.count", "either $.Address.street"],
        ),
        (by_struct, '{"order": {"id": 1, "lines": []}}', ["held $.order.who"]),
        (by_order, '{"id": 1, "lines": [], "who": "me"}', ["order $"]),
        (
            by_limits,
            '{"limits": [{"sku": "ABC"}, {"sku": "A", "count": 0}]}',
            ["limits $[1].sku", "limits $[1].count"],
        ),
        (by_prices, '{"tea": "x", "green tea": "x"}', ["prices $.tea", "prices $['green tea']"]),
        (by_limits, '{"limits": [{"sku": "ABC", "count": 0}]}', ["limits $[0].count"]),
    ],
)
def test_each_wrong_field_of_a_pydantic_model_is_named(
    function: Any, payload: str, expected: list[str]
) -> None:
    found = problems(function, payload)
    places = [each.rpartition(" at ")[2] if " at $" in each else "" for each in found]
    assert [
        f"{name} {place}".strip() for name, place in zip(names(found), places, strict=True)
    ] == expected
    assert not any("\n" in problem for problem in found)


def test_what_pydantic_says_of_a_field_is_kept() -> None:
    payload = '{"id": "x", "lines": [], "who": "me"}'
    with pytest.raises(pydantic.ValidationError) as caught:
        Order.model_validate_json(payload)
    (fault,) = caught.value.errors()
    assert problems(by_order, payload) == (f"order: {fault['msg']} at $.id",)


def test_another_value_that_does_not_fit() -> None:
    assert names(problems(one_int, '"x"')) == ["a"]
    assert names(problems(one_int, "null")) == ["a"]
    assert names(problems(by_dict, "5")) == ["order"]


@pytest.mark.parametrize(
    "payload", ["{", '{"a": nul}', "[1", "nul", "'a'", "NaN", "5 6", '"\ud800"']
)
@pytest.mark.parametrize("function", [two, one_int, by_dict])
def test_what_is_no_json(function: Any, payload: str) -> None:
    (problem,) = problems(function, payload)
    assert problem.startswith("the input is not JSON: ")


# -- annotations -----------------------------------------------------------------------------------


def test_an_annotation_that_is_unknown_at_run_time() -> None:
    def haunted(a: Ghost) -> None: ...

    binder = InputBinder(haunted, "haunted")
    with pytest.raises(UsageError, match="'Ghost' in the annotation of parameter 'a'"):
        binder.bind('{"a": 1}')


def test_the_annotation_of_ctx_is_not_needed() -> None:
    def haunted(ctx: Ghost, a: int) -> None: ...

    assert bind(haunted, "5") == ([], {"a": 5})


# -- ctx -------------------------------------------------------------------------------------------


def _by_name(ctx, a: int) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001
def _by_annotation(context: WorkflowContext, a: int) -> None: ...
def _by_sync_annotation(c: SyncWorkflowContext, a: int) -> None: ...
def _by_position(ctx: Any, /, a: int) -> None: ...


def _evaluated(c: Any, a: int) -> None: ...


_evaluated.__annotations__["c"] = WorkflowContext


def _dotted(c: Any, a: int) -> None: ...


_dotted.__annotations__["c"] = "pyworkflow.WorkflowContext"


@pytest.mark.parametrize(
    "function",
    [_by_name, _by_annotation, _by_sync_annotation, _by_position, _evaluated, _dotted],
)
def test_ctx_is_known_by_name_or_annotation(function: Any) -> None:
    binder = InputBinder(function, "greet")
    assert binder.takes_context
    assert binder.bind("5") == ([], {"a": 5})


def test_ctx_is_the_first_parameter_or_none() -> None:
    def second(a: int, ctx: int) -> None: ...

    binder = InputBinder(second, "greet")
    assert not binder.takes_context
    assert binder.bind('{"a": 1, "ctx": 2}') == ([], {"a": 1, "ctx": 2})
    assert not InputBinder(nothing, "greet").takes_context


def test_ctx_must_be_positional() -> None:
    def keyword(*, ctx: WorkflowContext) -> None: ...

    def collected(**ctx: Any) -> None: ...

    for function, shown in ((keyword, "ctx: 'WorkflowContext'"), (collected, r"\*\*ctx: 'Any'")):
        with pytest.raises(UsageError, match=f"'greet' takes ctx as .{shown}.; make it the plain"):
            InputBinder(function, "greet")


def test_a_field_can_not_pose_as_ctx() -> None:
    def collecting(ctx: WorkflowContext, **more: Any) -> None: ...

    def positional(ctx: WorkflowContext, /, **more: Any) -> None: ...

    assert problems(collecting, '{"ctx": 1, "x": 2}') == ("ctx: unexpected",)
    assert bind(positional, '{"ctx": 1}') == ([], {"ctx": 1})


def test_var_positional_is_refused_where_it_is_written() -> None:
    def many(ctx: WorkflowContext, *items: int) -> None: ...

    with pytest.raises(UsageError, match=r"'many' takes \*args.*take a list instead"):
        workflow(many)


# -- in a run --------------------------------------------------------------------------------------


def test_nothing_has_run_when_the_input_does_not_fit() -> None:
    ran: list[str] = []

    @step
    async def body() -> None:
        ran.append("step")

    @workflow
    async def strict(ctx: WorkflowContext, order_id: str, amount: int = 1) -> None:
        ran.append("workflow")
        await body()

    with pytest.raises(InputError) as caught:
        run(strict, {"order_id": 5, "amuont": 2})
    assert names(caught.value.problems) == ["order_id", "amuont"]
    assert ran == []
