from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import typing
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyworkflow._values.codec import (
    decode,
    decoder_for,
    encode,
    lossless,
    roundtrip,
)
from pyworkflow.errors import SerializationError

WHAT = "the result of step 'charge'"
INF = math.inf


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


class Odd(Enum):
    NOTHING = math.nan
    PAIR = (1, 2)


class Point(NamedTuple):
    x: int
    y: float


class Movie(TypedDict):
    title: str
    year: int


@dataclasses.dataclass
class Order:
    id: str
    total: Decimal = Decimal(0)
    note: Any = None


class Line(msgspec.Struct, rename="camel", omit_defaults=True):
    unit_price: float
    left: str | msgspec.UnsetType = msgspec.UNSET


class Money(float):
    pass


class Count(int):
    pass


class Name(str):
    __slots__ = ()


class Blob(bytes):
    pass


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    at: datetime
    amount: float = pydantic.Field(default=1.5, serialization_alias="out", validation_alias="in")


class Other(pydantic.BaseModel):
    word: str


class Secretive(pydantic.BaseModel):
    items: tuple[Any, ...] = ()
    token: Any = None


@pydantic.dataclasses.dataclass
class Parcel:
    weight: int
    tags: list[str] = pydantic.Field(default_factory=list)
    raw: bytes = b""


NESTED_REASON = "is nested deeper"
NOON = datetime(2024, 2, 29, 12, 0, 0, 7, tzinfo=UTC)


def path_of(value: object) -> tuple[str, str]:
    with pytest.raises(SerializationError) as caught:
        encode(value, what=WHAT)
    message = str(caught.value)
    assert message.startswith("The result of step 'charge' can't be stored as JSON: ")
    assert caught.value.path in message
    return caught.value.path, message


# -- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, None),
        (2**70, int),
        (-(2**200), int),
        ({"a": [1, 2.5, None, True, "x"]}, dict[str, Any]),
        (Order("o-1", Decimal("1.10"), [None]), Order),
        ([Line(1.5), Line(2.0, "x")], list[Line]),
        (Movie(title="m", year=1999), Movie),
        (Point(1, 2.5), Point),
        (Colour.RED, Colour),
        (Level.LOW, Level),
        ({Colour.RED: 1}, dict[Colour, int]),
        ({1: "a", 2: "b"}, dict[int, str]),
        ({1.5: None}, dict[float, None]),
        (NOON, datetime),
        (datetime(2024, 1, 1), datetime),  # noqa: DTZ001
        (NOON.astimezone(timezone(timedelta(hours=5, minutes=45))), datetime),
        (date(2024, 1, 1), date),
        (time(1, 2, 3), time),
        (timedelta(days=-3, microseconds=1), timedelta),
        (Decimal("1E+5"), Decimal),
        (uuid.UUID(int=7), uuid.UUID),
        (b"\xff\x00", bytes),
        ({1, 2, None}, set[int | None]),
        (frozenset({"a"}), frozenset[str]),
        ((1, None, "a"), tuple[int, None, str]),
        (Money(1.5), Money),
        ((Count(3), Name("n")), tuple[Count, Name]),
        (Model.model_validate({"at": NOON, "in": 2.0}), Model),
        ({"a": [Other(word="w"), None]}, dict[str, list[Other | None]]),
        (Other(word="w"), Model | Other),
        (Parcel(weight=3, tags=["t"]), Parcel),
        ([Parcel(weight=3)], list[Parcel]),
        ({"a": [1]}, dict[str, object]),
        ([1], typing.Annotated[list[int], ["unhashable"]]),
    ],
)
def test_comes_back_through_its_annotation(value: Any, annotation: Any) -> None:
    text, typed = roundtrip(value, annotation, what=WHAT)
    json.loads(text)
    assert text == encode(value, what=WHAT)
    assert typed == value
    assert decode(text, annotation, what=WHAT) == value
    assert lossless(value, typed) is None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**90), max_value=2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_any_json_value_comes_back_exactly(value: Any) -> None:
    text, decoded = roundtrip(value, Any, what=WHAT)
    assert lossless(value, decoded) is None
    assert lossless(value, decode(text, what=WHAT)) is None


def wrapped(value: Any) -> list[Any]:
    keyed = Order("o", note=value)
    line = Line(value)
    pair = Point(value, value)
    return [
        [value],
        (1, value),
        {"k": value},
        keyed,
        line,
        pair,
        [None, {"k": (value,)}],
        {"n": keyed},
    ]


@settings(max_examples=60)
@given(st.sampled_from([math.nan, INF, -INF, Money("nan"), Odd.NOTHING]), st.data())
def test_nan_and_infinity_never_become_null(number: Any, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([number, *wrapped(number), *wrapped(wrapped(number))]))
    _, message = path_of(value)
    assert "JSON has no NaN or infinity" in message


@given(
    st.dictionaries(st.integers(0, 3) | st.sampled_from("0123") | st.sampled_from(Word), st.none())
)
def test_keys_that_collide_are_refused_and_others_are_kept(value: dict[Any, None]) -> None:
    texts = {str(key) for key in value}
    if len(texts) == len(value):
        assert set(typing.cast("Any", decode(encode(value, what=WHAT), what=WHAT))) == texts
    else:
        assert path_of({"deep": [value]})[0] == "$.deep[0]"


@given(st.datetimes(timezones=st.timezones()))
def test_an_instant_is_kept_or_refused(moment: datetime) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    if offset.total_seconds() % 60:
        assert "convert it to UTC" in path_of([moment])[1]
    else:
        back: Any = roundtrip([moment], list[datetime], what=WHAT)[1]
        assert back[0] - moment == timedelta(0)


# -- what is refused -----------------------------------------------------------------------------


def circle() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


def tower(depth: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(depth):
        items = [items]
    return items


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError


class UnprintableKey(Unprintable):
    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (math.nan, "$", "is nan"),
        ({"a": [0, {"b": INF}]}, "$.a[1].b", "is inf"),
        ({"two words": -INF}, "$['two words']", "is -inf"),
        ({math.nan: 1}, "$", "has the key nan"),
        ({Odd.NOTHING: 1}, "$", "has the key"),
        ({INF: "inf"}, "$", "has the key inf"),
        ({"x": {1: 1, "1": 2}}, "$.x", "has the keys 1 and '1'; as JSON both are '1'"),
        ({None: 1}, "$", "use str keys"),
        ({True: 1}, "$", "use str keys"),
        ({(1, 2): 1}, "$", "has the key (1, 2)"),
        ({UnprintableKey(): 1}, "$", "<UnprintableKey>"),
        ([{"a": object()}], "$[0].a", "is of type object (object has no JSON form)"),
        (Order("o", note=[1j]), "$.note[0]", "complex"),
        ({"f": print}, "$.f", "builtin_function_or_method"),
        (["ok", "\ud800"], "$[1]", r"is '\ud800'"),
        ({"\ud800": 1}, "$", r"has the key '\ud800'"),
        (Name("\ud800"), "$", r"is '\ud800'"),
        pytest.param(10**5_000, "$", "is <int>", id="huge"),
        (msgspec.Raw(b"garbage"), "$", "is <msgspec.Raw object"),
        (circle(), "$[1].again", "refers back"),
        (tower(100_000), "$" + "[0]" * 19 + "[0…", NESTED_REASON),
        ([time(1, tzinfo=timezone(timedelta(seconds=61)))], "$[0]", "seconds in its UTC offset"),
        ([Secretive(token=pydantic.SecretStr("s"))], "$[0]", "contains a secret"),
        (Secretive(items=(pydantic.SecretStr("s"),)), "$", "contains a secret"),
        (Secretive(items=(math.nan,)), "$", "Secretive contains NaN"),
        (Model.model_validate({"at": NOON, "in": INF}), "$.amount", "is inf"),
        (Secretive(token=object()), "$", "is of type Secretive ("),
    ],
)
def test_refuses_with_path_and_reason(value: Any, path: str, reason: str) -> None:
    found, message = path_of(value)
    assert found == path
    assert reason in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "value",
    [
        'null nan" 12:00:00+00:00" ',
        [None, (None, 1)],
        {"text": "at 12:30:00+01:00"},
        {"a": 'x"nan"'},
        Odd.PAIR,
        Blob(b"a"),
        msgspec.Raw(b'{"a": 1}'),
        Secretive(token="*" * 10),
        Secretive(items=(None, {"a": frozenset({1})})),
        [True, None, NOON.astimezone(timezone(timedelta(hours=1)))],
        {Name("k"): None, "l": (None,)},
    ],
)
def test_what_only_looks_suspicious_is_stored(value: Any) -> None:
    assert encode(value, what=WHAT)


def test_deep_text_is_refused() -> None:
    with pytest.raises(SerializationError, match="RecursionError"):
        decode("[" * 100_000, what=WHAT)


# -- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "null"])
def test_no_text_is_null(text: str | None) -> None:
    assert decode(text, what=WHAT) is None
    assert decode(text, int | None, what=WHAT) is None


@pytest.mark.parametrize(
    ("text", "annotation", "path", "message"),
    [
        ('"x"', int, "$", "does not fit its type int: "),
        ('{"id":"a","total":[]}', Order, "$.total", "Order"),
        ("[[1]]", list[list[str]], "$[0][0]", "list[list[str]]"),
        ('{"a":1}', dict[str, str], "$.a", "dict[str, str]"),
        ('{"a":1}', dict[int, int], "$", "the key 'a' can't be read as int at $."),
        ("1.5", int, "$", "type int"),
        ("true", Count, "$", "Expected `Count`, got `bool`"),
        ("{", dict, "$", "type dict"),
        ('{"at":"x"}', Model, "$", "Model"),
        ('{"word":1}', Model | Other, "$", "Model"),
        ("[1]", list[complex], "$[0]", "Expected `complex`, got `int`"),
    ],
)
def test_what_does_not_fit_is_said_with_path_and_types(
    text: str, annotation: Any, path: str, message: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        decode(text, annotation, what=WHAT)
    assert caught.value.path == path
    assert message in str(caught.value)
    assert str(caught.value).startswith("The result of step 'charge' ")


def test_a_wrong_annotation_fails_at_once() -> None:
    with pytest.raises(SerializationError, match=r"dict\[str, str\]: .* at \$\.a\. Correct"):
        roundtrip({"a": 1}, dict[str, str], what=WHAT)


@pytest.mark.parametrize("annotation", [int | complex, Odd, typing.Annotated[Odd, []]])
def test_a_type_that_json_can_not_be_read_into(annotation: Any) -> None:
    with pytest.raises(SerializationError, match="can't be of the type"):
        decoder_for(annotation, what=WHAT)


def test_model_aliases_and_field_names_are_both_read() -> None:
    for key in ("in", "amount"):
        model = decode(json.dumps({"at": NOON.isoformat(), key: 2.0}), Model, what=WHAT)
        assert isinstance(model, Model)
        assert model.amount == 2.0


def test_defaults_of_a_pydantic_dataclass_apply() -> None:
    assert decode('{"weight":3}', Parcel, what=WHAT) == Parcel(weight=3)


def test_a_pydantic_dataclass_that_would_come_back_changed_is_refused() -> None:
    with pytest.raises(SerializationError, match="would not come back equal"):
        roundtrip(Parcel(weight=1, raw=b"abc"), Parcel, what=WHAT)


def test_pydantic_is_never_imported() -> None:
    code = (
        "import sys\n"
        "from typing import Any\n"
        "from pyworkflow._values.codec import decoder_for, roundtrip, SerializationError\n"
        "assert roundtrip([1], list[int], what='it') == ('[1]', [1])\n"
        "for bad in (object(),):\n"
        "    try: roundtrip(bad, Any, what='it')\n"
        "    except SerializationError: pass\n"
        "    else: raise SystemExit('accepted')\n"
        "try: decoder_for(int | complex, what='it')\n"
        "except SerializationError: pass\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, check=False)
    assert done.returncode == 0
