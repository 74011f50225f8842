from __future__ import annotations

import asyncio
import json
import sys
import types
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyworkflow import errors
from pyworkflow._protocol.limits import fitted
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values.exception_stacks import STACK_NOTE
from pyworkflow._values.exceptions import (
    KnownErrors,
    record_error,
    record_report,
)
from pyworkflow.errors import ChildContextError, OperationError, StepError, UsageError
from pyworkflow.retry import Retry

KNOWN = KnownErrors.snapshot()
CALLED: list[str] = []


class AppError(Exception):
    pass


class DeclinedError(AppError):
    """Demands arguments that are not recorded, and reacts to being made."""

    def __init__(self, code: int, *, customer: str, history: tuple[int, ...] = ()) -> None:
        CALLED.append(customer)
        super().__init__(f"declined with {code}")
        self.code = code
        self.customer = customer
        self.history = history
        self.socket = object()


class HostileError(AppError):
    def __new__(cls, *args: Any) -> HostileError:
        CALLED.append("new")
        return super().__new__(cls, *args)

    def __setattr__(self, name: str, value: object) -> None:
        CALLED.append(name)
        super().__setattr__(name, value)


class DiskError(PermissionError):
    def __init__(self, disk: str) -> None:
        super().__init__(13, "no way", disk)
        self.disk = disk


class GarbledTextError(UnicodeDecodeError):
    pass


class Many(ExceptionGroup[Exception]):
    pass


class MuteError(Exception):
    def __str__(self) -> str:
        raise LookupError("mute")


class CountingError(Exception):
    made = 0

    def __str__(self) -> str:
        CountingError.made += 1
        return f"text {CountingError.made}"


class BoobytrappedError(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise KeyError


class Stopped(StopIteration):
    pass


class Halted(BaseException):
    class InnerError(Exception):
        pass


def raised(error: BaseException) -> Any:
    try:
        raise error
    except BaseException as caught:
        return caught


def again(error: BaseException, fallback: type[OperationError] = StepError) -> Any:
    """Return the error after a trip through its record as JSON."""
    record = record_error(error)
    stored = msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord)
    assert stored == record
    return KNOWN.rebuild(stored, fallback)


def data_of(error: BaseException) -> Any:
    return json.loads(record_error(error).data or "{}")


# -- recording -----------------------------------------------------------------------------------


def test_the_record_names_the_class_and_its_bases() -> None:
    record = record_error(DeclinedError(51, customer="c-1"))
    assert record.type == f"{__name__}.DeclinedError"
    assert record.message == "declined with 51"
    assert data_of(DeclinedError(51, customer="c-1")) == {
        "bases": [f"{__name__}.AppError"],
        "args": ["declined with 51"],
        "attributes": {"code": 51, "customer": "c-1", "history": []},
        "tuples": ["history"],
        "missing": {"socket": "object"},
    }
    assert record_error(FileNotFoundError(2, "no")).type == "FileNotFoundError"
    assert data_of(FileNotFoundError(2, "no"))["bases"] == ["OSError"]
    assert data_of(ValueError("x")) == {"args": ["x"]}


def test_the_stack_is_innermost_last_without_frames_of_the_library() -> None:
    def inner() -> None:
        Retry.of("nonsense")  # type: ignore[arg-type]

    with pytest.raises(errors.UsageError) as caught:
        inner()
    stack = record_error(caught.value).stack_trace
    assert ", in test_the_stack_is_innermost_last" in stack[0]
    assert '\n    Retry.of("nonsense")  # type: ignore[arg-type]' in stack[-1]
    assert not any("retry.py" in frame for frame in stack)


def test_an_error_that_was_not_raised_has_no_stack() -> None:
    assert record_error(ValueError("x")).stack_trace == ()
    assert not hasattr(again(ValueError("x")), "__notes__")


def test_an_error_whose_text_fails_is_recorded() -> None:
    record = record_error(MuteError())
    assert record.message == "<str() of this MuteError failed: LookupError>"
    assert type(again(MuteError())) is StepError


def test_an_error_whose_properties_fail_is_recorded() -> None:
    record = record_error(BoobytrappedError("x"))
    assert (record.type, record.data) == (f"{__name__}.BoobytrappedError", None)


def test_text_that_is_no_unicode_is_recorded() -> None:
    record = record_error(ValueError("\ud800"))
    assert record.message == "\\ud800"
    assert type(again(ValueError("\ud800"))) is ValueError


def deep(levels: int, error: Exception) -> None:
    if levels:
        deeper(levels - 1, error)
    else:
        raise error


def deeper(levels: int, error: Exception) -> None:
    # Python folds the frames of a function that calls itself.
    if levels:
        deep(levels - 1, error)
    else:
        raise error


@settings(max_examples=40)
@given(
    st.integers(200, 5_000),
    st.integers(0, 30),
    st.text(max_size=200).map(lambda text: text * 20),
    st.integers(0, 4_000),
)
def test_a_record_stays_within_its_limit(limit: int, levels: int, text: str, payload: int) -> None:
    error = AppError(text)
    error.payload = "p" * payload  # type: ignore[attr-defined]
    with pytest.raises(AppError):
        deep(levels, error)
    record = record_error(error, limit_bytes=limit)
    assert len(msgspec.json.encode(record)) <= limit


def test_the_stack_is_cut_first_then_the_data_then_the_message() -> None:
    def recorded(limit: int) -> ErrorRecord:
        error = AppError("m" * 300)
        error.payload = "p" * 300  # type: ignore[attr-defined]
        with pytest.raises(AppError):
            deep(50, error)
        return record_error(error, limit_bytes=limit)

    whole, no_frames, bases, bare, cut = map(recorded, (90_000, 1_400, 600, 420, 300))
    assert len(whole.stack_trace) == 52
    assert 0 < len(no_frames.stack_trace) < 52
    assert no_frames.stack_trace[0] == whole.stack_trace[0]
    assert no_frames.stack_trace[-1] == whole.stack_trace[-1]
    assert any("entries left out" in entry for entry in no_frames.stack_trace)
    assert no_frames.data == whole.data
    assert bases.data is None or "ppp" not in bases.data
    assert bare.message == "m" * 300
    assert cut.message.endswith("… [truncated]")
    assert str(KNOWN.rebuild(cut, StepError)) == cut.message
    assert record_error(AppError("m" * 300), limit_bytes=40).message == "… [truncated]"


def test_bases_outlive_other_data() -> None:
    error = DeclinedError(1, customer="c" * 40_000)
    names = dict.fromkeys(("code", "customer", "history"), "")
    missing = {**names, "socket": "object"}
    assert data_of(error) == {"bases": [f"{__name__}.AppError"], "missing": missing}


# -- restoring -----------------------------------------------------------------------------------


def test_the_own_class_comes_back_without_its_constructor() -> None:
    error = raised(DeclinedError(51, customer="c-1", history=(1, 2)))
    CALLED.clear()
    rebuilt = again(error)
    assert type(rebuilt) is DeclinedError
    assert str(rebuilt) == "declined with 51"
    assert (rebuilt.code, rebuilt.customer, rebuilt.history) == (51, "c-1", (1, 2))
    assert rebuilt.args == error.args
    assert not hasattr(rebuilt, "socket")
    assert CALLED == []


def test_neither_new_nor_setattr_of_the_class_run() -> None:
    error = HostileError("x")
    error.extra = 1
    CALLED.clear()
    rebuilt = again(error)
    assert type(rebuilt) is HostileError
    assert vars(rebuilt) == {"extra": 1}
    assert CALLED == []


def test_the_nearest_known_base_stands_in() -> None:
    local: Any = type("Local", (AppError,), {"__qualname__": "f.<locals>.Local"})
    assert type(again(local("x"))) is AppError


def test_args_that_json_can_not_hold_give_way_to_the_message() -> None:
    error = AppError("x", object)
    rebuilt = again(error)
    assert type(rebuilt) is AppError
    assert rebuilt.args == (str(error),)


def os_error() -> OSError:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/nowhere/at/all").read_text()
    return caught.value


def syntax_error(source: str) -> SyntaxError:
    with pytest.raises(SyntaxError) as caught:
        compile(source, "script.py", "exec")
    return caught.value


def missing(expression: str) -> Any:
    with pytest.raises(Exception, match=r".") as caught:
        eval(expression)
    return caught.value


BUILTINS: list[tuple[BaseException, list[str]]] = [
    (os_error(), ["errno", "strerror", "filename", "filename2"]),
    (OSError("only text"), ["errno", "strerror", "filename"]),
    (OSError(2, "no", "a", None, "b"), ["errno", "filename", "filename2"]),
    (DiskError("sda"), ["errno", "strerror", "filename", "disk"]),
    (ConnectionResetError(104, "reset"), ["errno"]),
    (TimeoutError(), ["errno"]),
    (missing("b'a\\xff'.decode()"), ["encoding", "object", "start", "end", "reason"]),
    (missing("'a\\ud800'.encode()"), ["encoding", "object", "start", "end", "reason"]),
    (UnicodeTranslateError("abc", 1, 2, "why"), ["object", "start", "end", "reason"]),
    (
        GarbledTextError("utf-8", b"ab", 0, 2, "why"),
        ["encoding", "object", "start", "end", "reason"],
    ),
    (syntax_error("x = = 1"), ["msg", "filename", "lineno", "offset", "text", "end_offset"]),
    (syntax_error("if 1:\n\tx\n        y"), ["msg", "lineno"]),
    (SyntaxError("only text"), ["msg", "lineno"]),
    (missing("__import__('nowhere_at_all')"), ["msg", "name", "path"]),
    (missing("nowhere"), ["name"]),
    (missing("str.nowhere"), ["name"]),
    (missing("{}['a']"), []),
    (missing("1/0"), []),
    (MemoryError("full"), []),
    (errors.FatalError("no"), []),
    (errors.SerializationError("no", path="$.a"), ["path"]),
    (errors.InputError("no", problems=["a", "b"]), ["problems"]),
    (errors.StepError("raised by hand"), ["message", "error_type", "stack_trace"]),
]


@pytest.mark.parametrize(("error", "fields"), BUILTINS, ids=lambda each: type(each).__name__)
def test_builtins_come_back_with_what_they_hold(error: Any, fields: list[str]) -> None:
    rebuilt = again(error)
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert [getattr(rebuilt, name) for name in fields] == [getattr(error, name) for name in fields]
    if not isinstance(error, SyntaxError):
        assert rebuilt.args == error.args


@pytest.mark.parametrize("kind", [ExceptionGroup, Many])
def test_a_group_comes_back_with_its_members(kind: Any) -> None:
    inner = ExceptionGroup("inner", [KeyError("k"), DeclinedError(5, customer="c")])
    rebuilt = again(raised(kind("several", [raised(ValueError("v")), inner])))
    assert type(rebuilt) is kind
    assert rebuilt.message == "several"
    first, second = rebuilt.exceptions
    assert type(first) is ValueError
    assert [type(each) for each in second.exceptions] == [KeyError, DeclinedError]
    assert second.exceptions[1].code == 5
    assert "test_exceptions.py" in first.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt("k"),
        asyncio.CancelledError("c"),
        BaseExceptionGroup("g", [SystemExit()]),
        StopIteration(1),
        Stopped(1),
        StopAsyncIteration(1),
        CountingError(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_must_not_be_raised_in_a_workflow_becomes_the_fallback(error: BaseException) -> None:
    record = record_error(raised(error))
    rebuilt = KNOWN.rebuild(record, StepError)
    assert type(rebuilt) is StepError
    assert isinstance(rebuilt, StepError)
    assert rebuilt.error_type == record.type
    assert rebuilt.message == record.message
    assert rebuilt.stack_trace == record.stack_trace
    assert rebuilt.__notes__ == [STACK_NOTE + "\n".join(record.stack_trace)]


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class DelegatingError(Exception):
    def __getattr__(self, name: str) -> Any:
        return vars(self)["inner"][name]


class SealedError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize(
    "error",
    [
        FrozenError(51),
        DelegatingError("d"),
        SealedError("s"),
        HTTPError("http://host/", 404, "not there", Message(), None),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_class_that_minds_its_attributes_comes_back(error: Exception) -> None:
    rebuilt = again(raised(error))
    assert type(rebuilt) is type(error)
    assert vars(rebuilt).get("code") == vars(error).get("code")
    assert vars(rebuilt)["__notes__"][-1].startswith(STACK_NOTE)


# -- over and over -------------------------------------------------------------------------------


def test_notes_are_kept_and_the_stack_is_noted_once() -> None:
    error = ValueError("x")
    error.add_note("mine")
    first = again(raised(error))
    second = again(raised(first))
    third = again(raised(second))
    assert first.__notes__[0] == "mine"
    assert first.__notes__[1].startswith(STACK_NOTE)
    assert len(first.__notes__) == 2
    assert first.__notes__ == second.__notes__ == third.__notes__


def test_the_first_stack_survives_a_second_recording() -> None:
    with pytest.raises(AppError) as caught:
        deep(3, AppError("x"))
    record = record_error(caught.value)
    rebuilt = raised(KNOWN.rebuild(record, StepError))
    assert len(record.stack_trace) == 5
    assert record_error(rebuilt) == record


def test_a_stand_in_is_recorded_as_what_it_stands_for() -> None:
    original = ErrorRecord("boom", "elsewhere.Gone", None, ('  File "a.py", line 1, in f',))
    first = KNOWN.rebuild(original, StepError)
    record = record_error(raised(first))
    assert record == original
    second = KNOWN.rebuild(record, ChildContextError)
    assert type(second) is ChildContextError
    assert str(second) == "elsewhere.Gone: boom"


# -- records that lie ----------------------------------------------------------------------------


class Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        CALLED.append(name)
        return ValueError


class Proxy:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        CALLED.append("class")
        return type


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        CALLED.append(name)
        return super().__getattribute__(name)


class Watched(metaclass=Meta):
    class InnerError(Exception):
        pass


PROXY = Proxy()
LIST: list[int] = []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "ValueError.",
        ".ValueError",
        "int",
        "print",
        "__doc__",
        "Nowhere",
        "BaseException",
        "os.path",
        "os.system",
        "os.path.Nowhere",
        "antigravity.Error",
        "nowhere.Error",
        "sys.modules",
        f"{__name__}.PROXY",
        f"{__name__}.PROXY.x",
        f"{__name__}.LIST.append",
        f"{__name__}.AppError.__init__",
        f"{__name__}.errors.FatalError",
        f"{__name__}.Nowhere.Error",
        f"{__name__}.Halted",
        "lazy_for_test.Anything",
    ],
)
def test_a_name_that_leads_nowhere_safe_gives_the_fallback(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lazy_for_test", Lazy("lazy_for_test"))
    known = KnownErrors.snapshot()
    before = set(sys.modules)
    CALLED.clear()
    assert type(known.rebuild(ErrorRecord("x", name), StepError)) is StepError
    assert CALLED == []
    assert set(sys.modules) == before


def test_nested_classes_are_found_through_dictionaries() -> None:
    for name, kind in (
        ("Halted.InnerError", Halted.InnerError),
        ("Watched.InnerError", Watched.InnerError),
    ):
        CALLED.clear()
        rebuilt = KNOWN.rebuild(ErrorRecord("x", f"{__name__}.{name}"), StepError)
        assert CALLED == []
        assert type(rebuilt) is kind


def test_only_modules_of_the_snapshot_count(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownErrors.snapshot()
    late = types.ModuleType("late_for_test")
    vars(late)["Error"] = AppError
    monkeypatch.setitem(sys.modules, "late_for_test", late)
    record = ErrorRecord("x", "late_for_test.Error")
    assert type(known.rebuild(record, StepError)) is StepError
    both = KnownErrors.snapshot()
    assert type(both.rebuild(record, StepError)) is AppError
    monkeypatch.delitem(sys.modules, "late_for_test")
    assert type(both.rebuild(record, StepError)) is StepError


@pytest.mark.parametrize(
    ("kind", "message", "data"),
    [
        ("ValueError", "x", "{"),
        ("ValueError", "x", "[]"),
        ("ValueError", "x", '{"args": 3}'),
        ("ValueError", "x", '{"args": ["other text"]}'),
        ("ValueError", "x", '{"attributes": {"__notes__": 3}}'),
        ("ValueError", "x", '{"attributes": {"__notes__": [3]}}'),
        ("ValueError", "x", '{"attributes": {"a": 3}, "tuples": ["a"]}'),
        ("ValueError", "x", '{"bases": [1]}'),
        ("ValueError", "x", '{"group": ' + "[" * 100_000),
        ("ExceptionGroup", "x", "{}"),
        ("ExceptionGroup", "x", '{"state": {"message": "x"}}'),
        ("ExceptionGroup", "x", '{"state": {"message": 3}, "group": [{}]}'),
        ("UnicodeDecodeError", "x", "{}"),
        (
            "UnicodeEncodeError",
            "x",
            '{"state": {"object": "YQ==", "start": -5, "end": 9, "reason": "", "encoding": ""}}',
        ),
        (
            "UnicodeEncodeError",
            str(UnicodeEncodeError("u", "a", 0, 9, "r")),
            '{"state": {"object": "YQ==", "start": 0, "end": 9, "reason": "r", "encoding": "u"}}',
        ),
        ("UnicodeTranslateError", "x", '{"state": {"object": "!"}}'),
        ("SyntaxError", "x", '{"state": {"msg": [], "lineno": {}}}'),
        ("OSError", "x", '{"state": {"errno": {}, "strerror": []}}'),
    ],
)
def test_data_that_lies_gives_the_fallback(kind: str, message: str, data: str) -> None:
    rebuilt = KNOWN.rebuild(ErrorRecord(message, kind, data, ("f",)), StepError)
    assert type(rebuilt) is StepError
    assert str(rebuilt) == f"{kind}: {message}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELD = st.sampled_from(
    ["errno", "start", "end", "object", "msg", "lineno", "text", "message", "name"]
)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(
        [type(error).__name__ for error, _ in BUILTINS] + ["ExceptionGroup", "x.y"]
    ),
    data=st.fixed_dictionaries(
        {},
        optional={
            "args": st.lists(JSON, max_size=3),
            "attributes": st.dictionaries(st.sampled_from(["__notes__", "a", "__class__"]), JSON),
            "tuples": st.just(["a"]),
            "state": st.dictionaries(FIELD, JSON),
            "group": st.lists(st.fixed_dictionaries({"type": st.text(max_size=3)}), max_size=2),
        },
    ),
)
def test_no_data_breaks_rebuilding(kind: str, data: dict[str, Any]) -> None:
    record = ErrorRecord("text", kind, json.dumps(data), ("frame",))
    rebuilt = KNOWN.rebuild(record, StepError)
    assert isinstance(rebuilt, Exception)
    assert rebuilt.__notes__[-1] == STACK_NOTE + "frame"
    assert str(rebuilt) in {"text", f"{kind}: text"}


def test_a_damaged_notes_list_is_not_recorded() -> None:
    error = ValueError("x")
    vars(error)["__notes__"] = 3
    assert data_of(error) == {"args": ["x"]}
    error.__notes__ = ["kept", STACK_NOTE + "f"]
    assert data_of(error)["attributes"] == {"__notes__": ["kept"]}


# -- fitting a record ----------------------------------------------------------------------------


def test_a_record_that_fits_stays_as_it_is() -> None:
    record = ErrorRecord("m", "T", "{}", ("a", "b"))
    assert fitted(record) == record


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ErrorRecord("m", "T", "d", ("a" * 90, "b")), ErrorRecord("m", "T", "d", ("b",))),
        (ErrorRecord("m", "T", "d" * 90, ("b",)), ErrorRecord("m", "T", None, ("b",))),
        (ErrorRecord("m" * 90, "T"), ErrorRecord("m" * 40 + "… [truncated]", "T")),
        (ErrorRecord("\ud800", "T", "\ud800"), ErrorRecord("\\ud800", "T", "\\ud800")),
    ],
)
def test_a_record_that_does_not_fit_is_shortened(
    record: ErrorRecord, expected: ErrorRecord
) -> None:
    found = fitted(record, limit_bytes=80)
    assert found == expected
    assert len(msgspec.json.encode(found)) <= 80


# -- what somebody outside reports ---------------------------------------------------------------


def test_a_report_is_text_or_an_exception() -> None:
    assert record_report("no") == ErrorRecord("no")
    assert record_report("no", "Refused") == ErrorRecord("no", "Refused")
    assert record_report(KeyError("k")) == ErrorRecord("'k'", "KeyError")
    assert record_report(KeyError("k"), "Missing") == ErrorRecord("'k'", "Missing")
    assert record_report("a\ud800", "b\ud800") == ErrorRecord("a\\ud800", "b\\ud800")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(None, None), (5, None), (b"no", None), ({}, "a"), ("no", 404), ("no", b"x")],
)
def test_a_report_of_anything_else_is_refused(error: Any, kind: Any) -> None:
    with pytest.raises(UsageError, match=r"not as .* and "):
        record_report(error, kind)


def test_a_stack_without_frames_ends_with_what_led_to_the_error() -> None:
    try:
        raise KeyError("k")
    except KeyError as error:
        cause = error
    later = ValueError("no frames")
    later.__cause__ = cause
    text = "\n".join(record_error(later).stack_trace)
    assert text.endswith(
        "KeyError: 'k'\n\nThe above exception was the direct cause of the following exception:"
    )
