"""As which class an error is delivered: decided when it is recorded, and the same everywhere."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values.exception_rebuilding import LostClassError
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import ChildContextError, OperationError, StepError

Patch = pytest.MonkeyPatch

SHOP = """
class AppError(Exception):
    pass

class DeclinedError(AppError):
    def __init__(self, code):
        super().__init__(f"declined with {code}")
        self.code = code

class Outer:
    class InnerError(LookupError):
        pass

class TellingError(AppError, ValueError):
    "Its text is made of what no record holds."
    def __init__(self, response):
        self.response = response
    def __str__(self):
        return f"status {self.response.status}"

class Many(ExceptionGroup):
    pass

class Response:
    status = 404

def local():
    class LocalError(DeclinedError):
        pass
    return LocalError(5)

def local_disk():
    class DiskError(FileNotFoundError):
        pass
    return DiskError(2, "no such file", "x.txt")
"""


class Process:
    """Modules as one process has them: sources by name, each with its path."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch

    def load(self, name: str, path: str, source: str = SHOP, **inside: Any) -> dict[str, Any]:
        module = types.ModuleType(name)
        module.__file__ = path
        self._patch.setitem(sys.modules, name, module)
        vars(module).update(inside)
        exec(compile(source, path, "exec"), vars(module))
        return vars(module)

    def unload(self, name: str) -> None:
        self._patch.delitem(sys.modules, name)


@pytest.fixture
def process(monkeypatch: Patch) -> Process:
    return Process(monkeypatch)


def recorded(error: BaseException, home: Any, known: KnownErrors | None = None) -> ErrorRecord:
    """Return what is recorded, after a trip through JSON."""
    record = (known or KnownErrors.snapshot()).record(error, home)
    stored = msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord)
    assert stored == record
    return record


def rebuilt(record: ErrorRecord, home: Any, fallback: type[OperationError] = StepError) -> Any:
    return KnownErrors.snapshot().rebuild(record, fallback, home)


def lineage_of(record: ErrorRecord) -> Any:
    return json.loads(record.data or "{}").get("as")


# -- one file, several names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("__main__", "shop"),
        ("pk.shop", "shop"),
        ("shop", "pk.shop"),
        ("shop", "__main__"),
        ("shop", "loaded_by_spec"),
    ],
)
def test_the_class_of_the_raising_module_is_found_under_any_name(
    first: str, second: str, process: Process
) -> None:
    shop = process.load(first, "/app/pk/shop.py")
    records = [
        recorded(each, shop) for each in (shop["DeclinedError"](5), shop["Outer"].InnerError("x"))
    ]
    assert lineage_of(records[0]) == [".DeclinedError", ".AppError"]
    assert records[0].type == f"{first}.DeclinedError"
    process.unload(first)
    other = process.load(second, "/app/pk/shop.py")
    error, inner = (rebuilt(record, other) for record in records)
    assert (type(error), error.code) == (other["DeclinedError"], 5)
    assert type(inner) is other["Outer"].InnerError


@pytest.mark.parametrize(
    ("first", "second"),
    [("__main__", "shop"), ("pk.shop", "shop"), ("shop", "pk.shop"), ("shop", "__main__")],
)
def test_so_is_one_of_another_module(first: str, second: str, process: Process) -> None:
    home = process.load("steps", "/app/steps.py", "")
    error = process.load(first, "/app/pk/shop.py", __spec__=None)["DeclinedError"](5)
    record = recorded(error, home)
    process.unload(first)
    other = process.load(second, "/app/pk/shop.py", __spec__=None)
    assert type(rebuilt(record, home)) is other["DeclinedError"]


def test_a_step_may_move_away_from_its_errors(process: Process) -> None:
    shop = process.load("__main__", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), shop)
    process.unload("__main__")
    shop = process.load("shop", "/app/shop.py")
    steps = process.load("steps", "/app/steps.py", "")
    assert type(rebuilt(record, steps)) is shop["DeclinedError"]
    record = recorded(shop["DeclinedError"](5), shop)
    assert type(rebuilt(record, steps)) is shop["DeclinedError"]


def test_an_alias_stands_for_a_class_that_was_renamed(process: Process) -> None:
    shop = process.load("shop", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), shop)
    renamed = SHOP.replace("class DeclinedError", "class RefusedError")
    shop = process.load("shop", "/app/shop.py", renamed + "\nDeclinedError = RefusedError")
    assert type(rebuilt(record, shop)) is shop["RefusedError"]


def test_a_module_that_is_loaded_later_counts(process: Process) -> None:
    home = process.load("steps", "/app/steps.py", "")
    shop = process.load("shop", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), home)
    process.unload("shop")
    known = KnownErrors.snapshot()
    with pytest.raises(LostClassError):
        known.rebuild(record, StepError, home)
    shop = process.load("shop", "/app/shop.py")
    assert type(known.rebuild(record, StepError, home)) is shop["DeclinedError"]


# -- what is decided when it is recorded ---------------------------------------------------------


@pytest.mark.parametrize(
    "error", [Exception("x"), ValueError("x"), KeyError("k"), OSError(2, "no")]
)
def test_builtins_are_delivered_as_themselves(error: Exception) -> None:
    record = recorded(error, {})
    assert lineage_of(record)[0] == type(error).__name__
    assert type(rebuilt(record, {})) is type(error)


@pytest.mark.parametrize("key", [("a", 1), frozenset([5]), b"x", "k", 5, ValueError])
def test_a_key_error_is_one_whatever_its_key(key: object) -> None:
    error = rebuilt(recorded(KeyError(key), {}), {})
    assert type(error) is KeyError
    assert str(error) == str(KeyError(key))
    again = recorded(error, {})
    assert type(rebuilt(again, {})) is KeyError
    assert again.message == str(error)
    json.dumps(error.args)


def test_a_class_of_a_function_is_delivered_as_its_base(process: Process) -> None:
    shop = process.load("shop", "/app/shop.py")
    record = recorded(shop["local"](), shop)
    assert record.type == "shop.local.<locals>.LocalError"
    assert lineage_of(record) == [".DeclinedError", ".AppError"]
    assert rebuilt(record, shop).code == 5
    disk = rebuilt(recorded(shop["local_disk"](), shop), shop)
    assert (type(disk), disk.errno, disk.filename) == (FileNotFoundError, 2, "x.txt")


def test_a_class_that_can_not_be_made_is_delivered_as_its_base(process: Process) -> None:
    class Reply(pydantic.BaseModel):
        n: int

    with pytest.raises(pydantic.ValidationError) as caught:
        Reply.model_validate({"n": "many"})
    record = recorded(caught.value, globals())
    assert lineage_of(record) == ["ValueError"]
    assert type(rebuilt(record, globals())) is ValueError
    assert str(rebuilt(record, globals())) == str(caught.value)

    shop = process.load("shop", "/app/shop.py")
    record = recorded(shop["TellingError"](shop["Response"]()), shop)
    assert lineage_of(record) == [".AppError"]
    error = rebuilt(record, shop)
    assert (type(error), str(error)) == (shop["AppError"], "status 404")


def test_a_class_of_a_module_that_came_later_stays_a_stand_in(process: Process) -> None:
    known = KnownErrors.snapshot()
    home = process.load("steps", "/app/steps.py", "")
    shop = process.load("shop", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), home, known)
    assert lineage_of(record) == []
    error = rebuilt(record, home)
    assert (type(error), error.error_type) == (StepError, "shop.DeclinedError")
    assert type(rebuilt(recorded(shop["Outer"].InnerError("x"), home, known), home)) is LookupError
    # That of the home is there whenever the function is.
    assert (
        type(rebuilt(recorded(shop["DeclinedError"](5), shop, known), shop))
        is shop["DeclinedError"]
    )


def test_a_stand_in_stays_one_through_child_contexts(process: Process) -> None:
    known = KnownErrors.snapshot()
    shop = process.load("shop", "/app/shop.py")
    error = known.rebuild(recorded(shop["DeclinedError"](5), {}, known), StepError)
    record = recorded(error, shop)
    assert (record.type, lineage_of(record)) == ("shop.DeclinedError", [])
    child = rebuilt(record, shop, ChildContextError)
    assert (type(child), child.message) == (ChildContextError, "declined with 5")
    assert recorded(child, shop) == record


def test_what_is_no_exception_of_the_code_is_a_stand_in() -> None:
    for error in (
        KeyboardInterrupt("k"),
        StopIteration(1),
        BaseExceptionGroup("g", [SystemExit()]),
    ):
        record = recorded(error, {})
        assert lineage_of(record) == []
        assert type(rebuilt(record, {})) is StepError


def test_of_a_file_that_is_loaded_twice_the_raised_class_is_delivered(process: Process) -> None:
    steps = process.load("steps", "/app/steps.py", "")
    first = process.load("shop", "/app/shop.py")
    second = process.load("__main__", "/app/shop.py", __spec__=None)
    for each in (first, second):
        steps["shop"] = each["DeclinedError"]
        record = recorded(each["DeclinedError"](5), steps)
        assert type(rebuilt(record, steps)) is each["DeclinedError"]
    # One that can't be told from the other is none at all, here and everywhere.
    del steps["shop"]
    assert lineage_of(recorded(second["DeclinedError"](5), steps)) == []


def test_each_member_of_a_group_has_its_own(process: Process) -> None:
    known = KnownErrors.snapshot()
    late = process.load("late", "/app/late.py")
    shop = process.load("__main__", "/app/shop.py")
    parts = [shop["DeclinedError"](5), late["DeclinedError"](6), ValueError("v")]
    inner = ExceptionGroup("inner", [shop["local"]()])
    record = recorded(shop["Many"]("several", [*parts, inner]), shop, known)
    process.unload("__main__")
    shop = process.load("shop", "/app/shop.py")
    group = rebuilt(record, shop)
    assert type(group) is shop["Many"]
    kinds = [shop["DeclinedError"], StepError, ValueError, ExceptionGroup]
    assert [type(each) for each in group.exceptions] == kinds
    assert type(group.exceptions[3].exceptions[0]) is shop["DeclinedError"]
    assert group.exceptions[1].error_type == "late.DeclinedError"


# -- what is lost --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("class DeclinedError", "class GoneError", "shop (/app/shop.py), without a class Decl"),
        ("DeclinedError(AppError)", "DeclinedError(Exception)", "and not from AppError"),
        ("class AppError(Exception)", "class AppError(BaseException)", "without a class Decl"),
        ("declined with", "refused with", "shop.DeclinedError"),
    ],
)
def test_a_class_that_is_lost_is_a_problem(old: str, new: str, said: str, process: Process) -> None:
    shop = process.load("__main__", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), shop)
    process.unload("__main__")
    source = SHOP.replace(old, new)
    if "with" in new:  # its text is made anew from the code
        source = source.replace("        self.code = code", TEXT)
    shop = process.load("shop", "/app/shop.py", source)
    with pytest.raises(LostClassError) as caught:
        rebuilt(record, shop)
    assert "recorded:  __main__.DeclinedError (__main__ was shop)" in str(caught.value)
    assert said in str(caught.value)


TEXT = """
        self.code = code
    def __str__(self):
        return f"refused with {self.code}"
"""


def test_a_lost_class_of_another_module_names_what_is_loaded(process: Process) -> None:
    home = process.load("steps", "/app/steps.py", "")
    shop = process.load("pk.shop", "/app/pk/shop.py")
    records = [recorded(each, home) for each in (shop["DeclinedError"](5), shop["local"]())]
    process.unload("pk.shop")
    with pytest.raises(LostClassError, match=r"loaded: +no module 'pk\.shop'"):
        rebuilt(records[0], home)
    with pytest.raises(LostClassError, match=r"LocalError, raised as pk\.shop\.DeclinedError"):
        rebuilt(records[1], home)
    for folder in "ab":
        process.load(f"{folder}.shop", f"/{folder}/pk/shop.py")
    with pytest.raises(LostClassError, match=r"a\.shop\.DeclinedError \(/a/pk/shop\.py\), b"):
        rebuilt(records[0], home)


def test_a_lost_member_is_a_problem_of_the_group(process: Process) -> None:
    shop = process.load("shop", "/app/shop.py")
    record = recorded(ExceptionGroup("g", [shop["DeclinedError"](5)]), shop)
    shop = process.load("shop", "/app/shop.py", "")
    with pytest.raises(LostClassError, match="DeclinedError"):
        rebuilt(record, shop)


def test_a_base_that_got_another_module_name_is_still_a_base(process: Process) -> None:
    source = "from {} import AppError\nclass PaidError(AppError): pass"
    process.load("pk.shop", "/app/pk/shop.py")
    home = process.load("steps", "/app/steps.py", source.format("pk.shop"))
    record = recorded(home["PaidError"]("x"), home)
    assert lineage_of(record) == [".PaidError", "pk.shop:AppError"]
    process.load("shop", "/app/pk/shop.py")  # now it is loaded twice
    home = process.load("steps", "/app/steps.py", source.format("shop"))
    assert type(rebuilt(record, home)) is home["PaidError"]


# -- records as they come ------------------------------------------------------------------------


def test_no_shortening_drops_the_mark(process: Process) -> None:
    shop = process.load("shop", "/app/shop.py")
    for error in (shop["DeclinedError"]("c" * 40_000), shop["local"]()):
        error.payload = "p" * 50_000
        record = recorded(error, shop)
        assert lineage_of(record) == [".DeclinedError", ".AppError"]
        assert type(rebuilt(record, shop)) is shop["DeclinedError"]
    for limit in range(40, 700):
        error = shop["DeclinedError"]("c" * 300)
        record = KnownErrors.snapshot().record(error, shop, limit_bytes=limit)
        assert len(msgspec.json.encode(record)) <= limit
        # What has a type has a mark; what has none is a stand-in wherever it is read.
        assert bool(record.type) == (lineage_of(record) is not None)
        assert str(rebuilt(record, shop)).endswith(record.message)


def test_a_record_without_a_mark_is_read_as_ever(process: Process) -> None:
    shop = process.load("shop", "/app/shop.py")
    known = KnownErrors.snapshot()
    record = record_error(shop["local"]())
    assert lineage_of(record) is None
    assert type(known.rebuild(record, StepError, shop)) is shop["DeclinedError"]
    telling = record_error(shop["TellingError"](shop["Response"]()))
    assert type(known.rebuild(telling, StepError, shop)) is StepError
    process.unload("shop")
    process.load("pk.shop", "/app/shop.py")
    assert type(known.rebuild(record, StepError, shop)) is StepError


def test_a_client_takes_what_it_knows(process: Process) -> None:
    shop = process.load("__main__", "/app/shop.py")
    record = recorded(shop["DeclinedError"](5), shop)
    known = KnownErrors.snapshot()
    process.unload("__main__")
    assert type(known.rebuild_for_client(record, StepError)) is StepError
    shop = process.load("shop", "/app/shop.py")
    assert type(known.rebuild_for_client(record, StepError)) is shop["DeclinedError"]
    late = recorded(shop["DeclinedError"](5), {}, known)
    assert lineage_of(late) == []
    assert type(known.rebuild_for_client(late, StepError)) is StepError
    assert type(KnownErrors.snapshot().rebuild_for_client(late, StepError)) is shop["DeclinedError"]


def test_a_class_that_is_not_where_its_name_says_is_delivered_as_its_base(
    process: Process,
) -> None:
    shop = process.load("shop", "/app/shop.py")
    shop["DeclinedError"].__qualname__ = "Outer.InnerError"
    assert lineage_of(recorded(shop["DeclinedError"](5), shop)) == [".AppError"]


MARKS = st.lists(
    st.sampled_from(["", ".", ".AppError", "ValueError", "x:y", "os:path", ":", "sys:modules.x"]),
    max_size=3,
)


@settings(max_examples=150)
@given(
    marks=MARKS,
    kind=st.sampled_from(["ValueError", "shop.AppError", ""]),
    data=st.fixed_dictionaries(
        {},
        optional={
            "args": st.lists(st.none() | st.text(max_size=3), max_size=3),
            "main": st.sampled_from(["", "shop", "."]),
            "missing": st.just({"a": "b"}),
            "group": st.just([{"type": "x", "data": '{"as": [".Gone"]}'}]),
        },
    ),
)
def test_a_mark_that_lies_is_a_problem_or_a_stand_in(
    marks: list[str], kind: str, data: dict[str, Any]
) -> None:
    record = ErrorRecord("text", kind, json.dumps({**data, "as": marks}), ("frame",))
    try:
        error = rebuilt(record, {"AppError": AssertionError})
    except LostClassError as lost:
        assert "recorded: " in str(lost)  # noqa: PT017
    else:
        assert str(error) in {"text", f"{kind}: text"}
