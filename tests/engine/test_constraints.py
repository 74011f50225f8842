"""Constraints in annotations are enforced, or refused where they are written."""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess
import sys
import typing
import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import annotated_types
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from pyworkflow._values.codec import admit, check_outside, decode, decoder_for, roundtrip
from pyworkflow.errors import SerializationError

T = TypeVar("T")
Positive = Annotated[int, pydantic.Field(gt=0)]


@dataclasses.dataclass
class Line:
    sku: Annotated[str, pydantic.StringConstraints(min_length=3)]
    count: Positive = 1
    raw: bytes = b""


@dataclasses.dataclass
class Order:
    lines: list[Line]
    parent: Order | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Row(TypedDict):
    count: Positive
    note: NotRequired[Annotated[str, annotated_types.MaxLen(3)]]


class Table(TypedDict):
    rows: list[Row]


class Pair(NamedTuple):
    a: Positive
    b: int = 0


class Item(msgspec.Struct):
    url: pydantic.HttpUrl
    model: Model | None = None


class Model(pydantic.BaseModel):
    n: pydantic.PositiveInt
    on: pydantic.FutureDate | None = None


@pydantic.dataclasses.dataclass
class Parcel:
    weight: Positive


@dataclasses.dataclass
class Load:
    parcels: list[Parcel]


class Limited(msgspec.Struct):
    n: Annotated[int, msgspec.Meta(gt=0)]


def first_digit(value: object) -> object:
    return str(value)[0]


VERSION_4 = uuid.UUID(int=1, version=4)

CASES: list[tuple[Any, str, object, str]] = [
    (Positive, "5", 5, "0"),
    (pydantic.PositiveInt, "5", 5, "-1"),
    (pydantic.conint(gt=1, lt=5), "2", 2, "5"),
    (Annotated[str, pydantic.StringConstraints(min_length=3)], '"abc"', "abc", '"ab"'),
    (Annotated[str, pydantic.AfterValidator(str.upper)], '"abc"', "ABC", "1"),
    (Annotated[int, pydantic.BeforeValidator(first_digit)], "51", 5, '"x"'),
    (Annotated[int, annotated_types.Gt(0)], "1", 1, "0"),
    (Annotated[int, annotated_types.Interval(ge=1, le=3)], "3", 3, "4"),
    (Annotated[int, annotated_types.MultipleOf(3)], "9", 9, "10"),
    (Annotated[list[int], annotated_types.Len(1, 2)], "[1]", [1], "[]"),
    (Annotated[int, annotated_types.Predicate(lambda n: n % 2 == 0)], "2", 2, "3"),
    (Annotated[bytes, annotated_types.MaxLen(3)], '"+/+/"', b"\xfb\xff\xbf", '"YWJjZA=="'),
    (Annotated[int, msgspec.Meta(gt=0)], "1", 1, "0"),
    (Limited, '{"n":1}', Limited(1), '{"n":0}'),
    (list[Positive], "[1]", [1], "[1,0]"),
    (dict[str, Positive | None], '{"a":null}', {"a": None}, '{"a":0}'),
    (tuple[Positive, str], '[1,"a"]', (1, "a"), '[0,"a"]'),
    (Positive | str, '"a"', "a", "0"),
    (Line, '{"sku":"abc","raw":"+/+/"}', Line("abc", raw=b"\xfb\xff\xbf"), '{"sku":"ab"}'),
    (list[Line], '[{"sku":"abc","count":2}]', [Line("abc", 2)], '[{"sku":"abc","count":0}]'),
    (
        Order,
        '{"lines":[{"sku":"abc"}],"parent":{"lines":[]}}',
        Order([Line("abc")], Order([])),
        '{"lines":[],"parent":{"lines":[{"sku":"ab"}]}}',
    ),
    (Box[Positive], '{"content":1}', Box(1), '{"content":0}'),
    (Row, '{"count":1}', {"count": 1}, '{"count":0}'),
    (Row | None, '{"count":1,"note":"abc"}', {"count": 1, "note": "abc"}, '{"note":"abc"}'),
    (list[Row], '[{"count":1}]', [{"count": 1}], '[{"count":1,"note":"abcd"}]'),
    (Table, '{"rows":[{"count":1}]}', {"rows": [{"count": 1}]}, '{"rows":[{"count":0}]}'),
    (Pair, "[1]", Pair(1), "[0]"),
    (Parcel, '{"weight":1}', Parcel(1), '{"weight":0}'),
    (Load, '{"parcels":[{"weight":1}]}', Load([Parcel(1)]), '{"parcels":[{"weight":0}]}'),
    (Model, '{"n":1}', Model(n=1), '{"n":0}'),
    (pydantic.HttpUrl, '"https://a.b/"', pydantic.HttpUrl("https://a.b/"), '"no url"'),
    (pydantic.HttpUrl | int, '"https://a.b/"', pydantic.HttpUrl("https://a.b/"), "[]"),
    (list[pydantic.AnyUrl], '["x://a"]', [pydantic.AnyUrl("x://a")], '[""]'),
    (Item, '{"url":"https://a.b/"}', Item(pydantic.HttpUrl("https://a.b/")), '{"url":"x"}'),
    (
        pydantic.AwareDatetime,
        '"2026-01-01T00:00:00Z"',
        datetime(2026, 1, 1, tzinfo=UTC),
        '"2026-01-01T00:00:00"',
    ),
    (pydantic.PastDate, '"2000-01-01"', date(2000, 1, 1), '"2999-01-01"'),
    (pydantic.FutureDate, '"2999-01-01"', date(2999, 1, 1), '"2000-01-01"'),
    (pydantic.Json, '"[1]"', [1], '"["'),
    (pydantic.Json[list[int]], '"[1]"', [1], '"[null]"'),
    (pydantic.UUID4, f'"{VERSION_4}"', VERSION_4, f'"{uuid.UUID(int=1)}"'),
    (pydantic.IPvAnyAddress, '"::1"', ipaddress.ip_address("::1"), '"x"'),
    (pydantic.StrictInt, "1", 1, '"1"'),
    (pydantic.ByteSize, '"1kB"', 1000, '"x"'),
    (pydantic.DirectoryPath, '"/"', Path("/"), '"/no such folder"'),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "good", "value", "bad"), CASES)
def test_a_constraint_is_enforced(annotation: Any, good: str, value: object, bad: str) -> None:
    found = admit(good, annotation, what="it")
    assert found == value
    assert type(found) is type(value) or isinstance(found, int)
    assert decode(good, annotation, what="it") == value
    with pytest.raises(SerializationError, match="does not fit its type"):
        admit(bad, annotation, what="it")


def test_a_secret_is_read_and_not_written() -> None:
    for kind in (pydantic.SecretStr, pydantic.SecretBytes):
        found: Any = admit('"abc"', kind, what="it")
        assert found.get_secret_value() in ("abc", b"abc")
        with pytest.raises(SerializationError, match="a secret, which would be stored in clear"):
            roundtrip(found, kind, what="it")


@pytest.mark.parametrize(
    ("annotation", "value", "bad"),
    [
        (Positive, 1, 0),
        (Line, Line("abc", raw=b"\xfb\xff\xbf"), Line("ab")),
        (list[Row], [{"count": 1}], [{"count": 0}]),
        (pydantic.HttpUrl, pydantic.HttpUrl("https://a.b/"), pydantic.AnyUrl("x://a")),
        (pydantic.IPvAnyAddress, ipaddress.ip_address("10.0.0.1"), 1j),
        (pydantic.FutureDate, date(2999, 1, 1), date(2000, 1, 1)),
    ],
)
def test_a_result_is_checked_when_it_is_recorded(annotation: Any, value: Any, bad: Any) -> None:
    assert roundtrip(value, annotation, what="it")[1] == value
    with pytest.raises(SerializationError):
        roundtrip(bad, annotation, what="it")


# -- what is refused as an annotation ------------------------------------------------------------


class UnreadStruct(msgspec.Struct):
    n: Positive


class UnreadDate(msgspec.Struct):
    on: pydantic.FutureDate | None = None


class UnreadLists(msgspec.Struct):
    n: list[Annotated[str, annotated_types.Len(1)]]


class Plain(msgspec.Struct):
    n: int = 0


@dataclasses.dataclass
class Mixed:
    plain: Plain
    count: Positive


@dataclasses.dataclass
class MixedLimits:
    one: Annotated[int, msgspec.Meta(gt=0)]
    other: Positive


@dataclasses.dataclass
class HasRow:
    row: Row


@pytest.mark.parametrize(
    "annotation",
    [
        UnreadStruct,
        list[UnreadStruct | None],
        UnreadLists,
        UnreadDate,
        Box[UnreadStruct],
        Mixed,
        MixedLimits,
        tuple[Plain, Positive],
        dict[str, Annotated[int, msgspec.Meta(gt=0)] | Positive],
    ],
)
def test_a_constraint_that_nobody_would_enforce_is_refused(annotation: Any) -> None:
    with pytest.raises(SerializationError, match=r"msgspec|pydantic does not know"):
        decoder_for(annotation, what="it")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic reads typing.TypedDict there")
def test_a_typed_dict_in_a_dataclass_is_refused_where_pydantic_refuses_it() -> None:
    with pytest.raises(SerializationError, match=r"typing\.TypedDict Row"):
        decoder_for(HasRow, what="it")


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, "a note", typing.Any],
        Annotated[int, pydantic.Field(description="how many")],
        Annotated[int, annotated_types.doc("how many")],
        Annotated[Plain, pydantic.Field(title="plain")],
        Annotated[int, msgspec.Meta(description="how many")],
    ],
)
def test_what_only_describes_constrains_nothing(annotation: Any) -> None:
    decoder_for(annotation, what="it")
    decoder_for(tuple[annotation, Plain], what="it")


def test_constraints_without_pydantic_are_refused() -> None:
    code = (
        "import sys, annotated_types\n"
        "from typing import Annotated\n"
        "from pyworkflow import UsageError, step, workflow\n"
        "def one() -> Annotated[int, annotated_types.Gt(0)]: ...\n"
        "def two(n: Annotated[int, annotated_types.Gt(0)]): ...\n"
        "for make, function in ((step, one), (step, two), (workflow, one), (workflow, two)):\n"
        "    try: make(function)\n"
        "    except UsageError as error: assert 'pydantic was not imported' in str(error)\n"
        "    else: raise SystemExit(f'{make} {function}')\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, check=False)
    assert done.returncode == 0


# -- what was accepted stays accepted ------------------------------------------------------------


class Day:
    """What validators ask for the time; a test lets it pass."""

    today = date(2026, 1, 1)


def not_over(value: date) -> date:
    if value < Day.today:
        raise ValueError("is over")
    return value


Coming = Annotated[date, pydantic.AfterValidator(not_over)]


class Booking(pydantic.BaseModel):
    on: Coming
    name: Annotated[str, pydantic.AfterValidator(str.upper)]

    @pydantic.model_validator(mode="after")
    def check_day(self) -> Booking:
        not_over(self.on)
        return self


@dataclasses.dataclass
class Stay:
    first: Coming
    name: Annotated[str, pydantic.AfterValidator(str.upper)]
    bookings: list[Booking]


BOOKING = '{"on":"2026-02-01","name":"ada"}'


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Coming, '"2026-02-01"'),
        (Booking, BOOKING),
        (list[Booking], f"[{BOOKING}]"),
        (Stay, f'{{"first":"2026-02-01","name":"ada","bookings":[{BOOKING}]}}'),
    ],
)
def test_what_was_accepted_once_is_read_again_as_it_was(
    annotation: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = admit(text, annotation, what="it")
    monkeypatch.setattr(Day, "today", date(2026, 3, 1))
    with pytest.raises(SerializationError, match="is over"):
        admit(text, annotation, what="it")
    assert decode(text, annotation, what="it") == found


@pytest.mark.parametrize(
    "annotation",
    [pydantic.FutureDate, list[pydantic.FutureDate], Model],
)
def test_pydantic_s_own_dates_are_read_again(annotation: Any) -> None:
    text = {Model: '{"n":1,"on":"2000-01-01"}', list[pydantic.FutureDate]: '["2000-01-01"]'}
    found: Any = decode(text.get(annotation, '"2000-01-01"'), annotation, what="it")
    assert "2000" in repr(found)


def test_what_an_older_version_recorded_past_a_constraint_is_read_as_it_was() -> None:
    assert decode("-5", Positive, what="it") == -5
    assert decode('{"sku":"","count":-5}', Line, what="it") == Line("", -5)


def test_what_does_not_fit_is_told_on_a_replay_as_well() -> None:
    for text, annotation in (('"x"', Positive), ("{}", Line), ('{"n":"x"}', Model)):
        with pytest.raises(SerializationError, match="does not fit its type"):
            decode(text, annotation, what="it")


@pytest.mark.parametrize("annotation", [pydantic.FutureDate, list[Model], dict[str, Model | None]])
def test_what_depends_on_the_time_of_reading_is_no_type_of_an_answer(annotation: Any) -> None:
    with pytest.raises(SerializationError, match="depends on when it is read"):
        check_outside(annotation, what="the result of a callback")
    check_outside(Positive, what="the result of a callback")
