"""What is printed is never interpreted, and values go in and out unharmed."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow._cli import console, times, values
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "\x1b[2J[red]name[/red]\r\n\x07\x9b\u202eabc\u2028\ud800"


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    shown = console.escape(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_each_dangerous_character_is_spelled_out() -> None:
    assert console.escape(EVIL) == (r"\x1b[2J[red]name[/red]\r\n\x07\x9b\u202eabc\u2028\ud800")


def test_markup_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.stdout().print(console.plain("[red]x[/red] :smile: [link=a]b[/link]"))
    console.stdout().print("[red]x[/red] :smile:")
    assert capsys.readouterr().out == (
        "[red]x[/red] :smile: [link=a]b[/link]\n[red]x[/red] :smile:\n"
    )


def test_without_a_terminal_no_line_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    console.stdout().print("word " * 300)
    assert capsys.readouterr().out.count("\n") == 1


def test_documents_are_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_document({"text": EVIL + "\x7fü"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert json.loads(out) == {"text": EVIL + "\x7fü"}


def test_a_narrow_encoding_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    console.escape_what_cannot_be_encoded()
    print("grün", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"gr\\xfcn\n"


def test_long_text_says_that_it_was_cut() -> None:
    assert console.cut("abc", 3) == "abc"
    assert console.cut("abcd", 3) == "abc… (4 characters; --json shows all)"


# -- values --------------------------------------------------------------------------------------


def test_a_value_comes_from_the_option_a_file_or_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.json").write_text('["a"]', "utf-8")
    stdin = io.TextIOWrapper(io.BytesIO(b'"\xc3\xbc"'))
    monkeypatch.setattr("sys.stdin", stdin)
    assert values.read_value('{"a": 1}', option="--input") == {"a": 1}
    assert values.read_value(f"@{tmp_path / 'in.json'}", option="--input") == ["a"]
    assert values.read_value("-", option="--input") == "ü"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{order: 1}", "in --input, found '{order: 1}'"),
        ("", "found nothing"),
        ("NaN", "'NaN'"),
        ("1 2", "found '1 2'"),
        ('"\udce9"', "found '\"\N{REPLACEMENT CHARACTER}\"'"),
        ("[" * 100_000, "…"),
        ("@nowhere.json", "nowhere.json, which can't be read"),
        ("@.", "can't be read"),
    ],
)
def test_a_bad_value_is_told(given: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.read_value(given, option="--input")
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (None, None),
        ("null", None),
        ('{"a": [1.5, "x"]}', {"a": [1.5, "x"]}),
        ("yes", "yes"),
        ("", ""),
        ("1e999", "1e999"),
        ("NaN", "NaN"),
    ],
)
def test_payloads_are_values_or_else_text(payload: str | None, value: object) -> None:
    assert values.value_of(payload) == value


@pytest.mark.parametrize("depth", [10, 800, 990, 1_000, 1_100, 100_000])
def test_whatever_is_recorded_can_be_printed(
    depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = "[" * depth + "]" * depth
    console.print_document({"operations": [{"result": values.value_of(payload)}]})
    assert json.loads(capsys.readouterr().out)["operations"][0]["result"]
    assert values.indented(payload).startswith("[")


def test_what_would_be_little_but_spaces_stays_on_one_line() -> None:
    deepest = '"[[{"' + ',{"[":[]}' * 3
    for levels, lines in ((98, 206), (99, 1)):
        payload = "[" * levels + deepest + "]" * levels
        assert values.indented(payload).count("\n") + 1 == lines


def test_payloads_for_people_are_escaped_but_for_their_lines() -> None:
    assert values.indented('{"a": "\x9b\\u001b\\n", "b": 1}') == (
        '{\n  "a": "\\x9b\\u001b\\n",\n  "b": 1\n}'
    )
    assert values.indented("no JSON\x1b\nat all") == "no JSON\\x1b\nat all"
    assert values.indented(None) == "null"


# -- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_ms", "shown"),
    [
        (-5, "0ms"),
        (0, "0ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_999, "1.9s"),
        (59_999, "59.9s"),
        (60_000, "1m"),
        (5_405_999, "1h30m5s"),
    ],
)
def test_spans(duration_ms: int, shown: str) -> None:
    assert times.span(duration_ms) == shown


def test_until_counts_the_second_that_has_begun() -> None:
    assert times.until(10_000, 10_000) == "now"
    assert times.until(10_001, 10_000).endswith("(in 1s)")
    assert times.until(310_000, 10_000).endswith("(in 5m)")


def test_until_names_the_day_when_that_is_not_soon() -> None:
    week = 7 * 86_400_000
    assert times.until(week, 0).startswith("1970-01-0")
    assert "1970" not in times.until(3_600_000, 0)
