from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow._protocol.limits import fitting
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values.exception_stacks import (
    STACK_NOTE,
    is_stack_note,
    notes_of,
    stack_of,
    with_stack,
)
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import StepError
from pyworkflow.retry import Retry

KNOWN = KnownErrors.snapshot()


def refuse() -> None:
    raise ConnectionRefusedError(111, "bank.example:443 refused")


def caused() -> None:
    try:
        refuse()
    except OSError as error:
        raise RuntimeError("could not pay") from error


def in_context() -> None:
    try:
        caused()
    except RuntimeError:
        raise KeyError("fallback")  # noqa: B904


def hidden() -> None:
    try:
        refuse()
    except OSError:
        raise RuntimeError("could not pay") from None


def grouped() -> None:
    errors: list[Exception] = []
    for function in (refuse, caused):
        try:
            function()
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("several", errors)


def caused_by_a_group() -> None:
    try:
        grouped()
    except ExceptionGroup as error:
        raise ValueError("all failed") from error


def raised_by(function: Any) -> Any:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError


HEADER = "Traceback (most recent call last):\n"


def has_cause(error: BaseException) -> bool:
    return bool(error.__cause__ or (error.__context__ and not error.__suppress_context__))


def text_of(stack: tuple[str, ...]) -> str:
    return "\n".join(stack)


ALL = [refuse, caused, in_context, hidden, grouped, caused_by_a_group]


@pytest.mark.parametrize("function", ALL)
def test_a_stack_is_what_format_exception_prints(function: Any) -> None:
    error = raised_by(function)
    printed = "".join(traceback.format_exception(error)).rstrip("\n")
    stack = text_of(stack_of(error))
    header = "" if isinstance(error, ExceptionGroup) or has_cause(error) else HEADER
    last = "" if isinstance(error, ExceptionGroup) else f"\n{type(error).__name__}: {error}"
    assert printed == header + stack + last


@pytest.mark.parametrize("function", ALL)
def test_a_recorded_stack_is_recorded_as_it_was(function: Any) -> None:
    record = record_error(raised_by(function))
    rebuilt = KNOWN.rebuild(record, StepError)
    assert record_error(rebuilt) == record
    assert rebuilt.__notes__ == [STACK_NOTE + text_of(record.stack_trace)]


def test_a_cause_that_was_rebuilt_brings_its_own_chain() -> None:
    first = KNOWN.rebuild(record_error(raised_by(caused)), StepError)

    def again() -> None:
        raise ValueError("later") from first

    stack = text_of(stack_of(raised_by(again)))
    assert "bank.example:443 refused" in stack
    assert stack.count("direct cause") == 2


def test_what_led_to_a_rebuilt_error_since_then_stands_before_its_stack() -> None:
    first = KNOWN.rebuild(record_error(raised_by(caused)), StepError)
    recorded = stack_of(first)

    def again() -> None:
        try:
            raise ValueError("later")
        except ValueError as later:
            raise first from later

    stack = stack_of(raised_by(again))
    assert stack[-len(recorded) + 1 :] == recorded[1:]
    assert "ValueError: later" in text_of(stack[: -len(recorded) + 1])
    first.__cause__ = None
    first.__suppress_context__ = True
    assert stack_of(first) == recorded


def test_a_cause_whose_own_code_raises_costs_the_chain_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = raised_by(caused)
    whole = stack_of(error)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a property of the cause")

    monkeypatch.setattr(traceback, "TracebackException", refuse)
    stack = stack_of(error)
    assert 0 < len(stack) < len(whole)
    assert stack[-1] == whole[-1]


def test_a_chain_that_runs_in_a_circle_ends() -> None:
    one, two = raised_by(refuse), raised_by(caused)
    one.__cause__, two.__cause__ = two, one
    assert "could not pay" in text_of(stack_of(one))


def test_frames_of_the_library_are_left_out_of_causes() -> None:
    def wrapped() -> None:
        try:
            Retry.of("nonsense")  # type: ignore[arg-type]
        except Exception as error:
            raise ExceptionGroup("g", [error]) from error

    for error in (raised_by(wrapped), raised_by(wrapped).__cause__):
        stack = text_of(stack_of(error))
        assert ", in wrapped" in stack
        assert "retry.py" not in stack


def test_a_text_of_any_length_is_cut_within_a_chain() -> None:
    def long() -> None:
        try:
            raise ValueError("a" * 50_000)
        except ValueError as error:
            raise RuntimeError("short") from error

    record = record_error(raised_by(long))
    assert "direct cause" in text_of(record.stack_trace)
    assert len(text_of(record.stack_trace)) < 6_000


def test_an_error_without_frames_has_its_causes() -> None:
    error = RuntimeError("never raised")
    assert stack_of(error) == ()
    error.__cause__ = ValueError("nor this \ud800")
    assert text_of(stack_of(error)).startswith("ValueError: nor this \\ud800\n\nThe above exc")


# -- fitting -------------------------------------------------------------------------------------


def test_the_middle_of_a_stack_goes_first() -> None:
    stack = tuple(f'  File "{number}"' for number in range(100))
    assert fitting(stack, 10_000) == stack
    short = fitting(stack, 200)
    (place,) = (i for i, entry in enumerate(short) if "left out" in entry)
    kept = len(short) - 1
    assert short[place] == f"  … [{100 - kept} entries left out]"
    assert short[:place] == stack[:place]
    assert short[place + 1 :] == stack[place - kept :]
    assert kept - place in (place, place + 1)
    assert fitting(stack, 60) == stack[-2:]
    assert fitting(stack, 40) == stack[-1:]
    assert fitting(stack, 10) == ()


@given(st.lists(st.text(max_size=20), max_size=20).map(tuple), st.integers(0, 300))
def test_a_stack_fits(stack: tuple[str, ...], room: int) -> None:
    found = fitting(stack, room)
    size = len(',"stack_trace":' + json.dumps(found, ensure_ascii=False, separators=(",", ":")))
    assert not found or size <= room + sum(each.count("\x7f") for each in found) + 1
    assert found == stack or len(found) <= len(stack)


def test_a_stack_without_its_middle_is_recorded_as_it_was() -> None:
    record = record_error(raised_by(in_context), limit_bytes=900)
    assert "left out" in text_of(record.stack_trace)
    assert stack_of(KNOWN.rebuild(record, StepError)) == record.stack_trace


# -- notes ---------------------------------------------------------------------------------------


def test_the_note_comes_last_and_a_damaged_list_of_notes_is_replaced() -> None:
    error = ValueError("x")
    assert with_stack(error, ()) is error
    assert notes_of(error) == []
    error.add_note("mine")
    assert notes_of(with_stack(error, ("f",))) == ["mine", STACK_NOTE + "f"]
    assert [is_stack_note(note) for note in (*error.__notes__, 3)] == [False, True, False]
    vars(error)["__notes__"] = 3
    assert notes_of(with_stack(error, ("g",))) == [STACK_NOTE + "g"]


def test_a_record_that_somebody_else_wrote_keeps_its_stack() -> None:
    record = ErrorRecord("m", "elsewhere.Gone", None, ("at charge (index.js:1)", "at main"))
    assert KNOWN.rebuild(record, StepError).stack_trace == record.stack_trace  # type: ignore[attr-defined]
