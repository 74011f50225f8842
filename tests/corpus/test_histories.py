"""Recorded histories: what this version wrote, every later one must replay.

Each shape has a file in `tests/histories/`: the operations of one run, and its outcome. A file
changes by intent alone, for an execution that is in flight depends on what it shows. To record what
is missing, run ``python -m tests.corpus.test_histories``; with the names of shapes, these are
recorded anew. Where asyncio itself differs, a file has a history for 3.11 and one for later
Pythons: record on both.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pyworkflow._engine.messages import Turn
from pyworkflow._protocol.records import Operation
from pyworkflow._runtime.runner import LAG_MS
from pyworkflow.testing._verify import Replay
from tests.corpus.counting import count
from tests.corpus.registry import Raises
from tests.corpus.shapes import SHAPES, Shape
from tests.corpus.trials import KNOWN, Durations, Trial, outcome_of

FOLDER = Path(__file__).parents[1] / "histories"
WITHOUT_MARKS = Path(__file__).parents[1] / "golden" / "histories_without_marks"
"""Histories with errors as the version before marks recorded them. None is ever recorded anew."""

PACE = Durations((1_000, 20_000, 7_000, 3, 12_000))
GROUP = "3.11" if sys.version_info < (3, 12) else "3.12"
BY_GROUP = {"wait_for"}
"""`asyncio.wait_for` makes a task on 3.11, and none from 3.12 on."""


def group_of(name: str) -> str:
    return GROUP if name in BY_GROUP else "every"


def read(name: str) -> dict[str, Any]:
    histories: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return histories


def operations_of(history: dict[str, Any]) -> tuple[Operation, ...]:
    return msgspec.convert(history["operations"], tuple[Operation, ...])


def outcome_in(history: dict[str, Any]) -> Any:
    return Raises(**history["error"]) if "error" in history else history["result"]


async def replay(shape: Shape, operations: tuple[Operation, ...]) -> Turn:
    return await Replay(shape.workflow, operations, KNOWN).run()


def check_history(shape: Shape, history: dict[str, Any]) -> None:
    """A whole history leads to its outcome again; nothing is launched, nothing written."""
    operations = operations_of(history)
    turn = asyncio.run(replay(shape, operations))
    assert turn.end is not None, f"it goes on: {turn}"
    assert outcome_of(turn.end) == outcome_in(history)
    assert turn.launch == ()
    assert turn.write == ()
    count("recorded histories replayed")
    count("recorded operations replayed", len(operations) - 1)


@pytest.mark.parametrize("name", SHAPES)
def test_a_recorded_history_leads_to_its_outcome(name: str) -> None:
    check_history(SHAPES[name], read(name)[group_of(name)])


@pytest.mark.parametrize("name", sorted(path.stem for path in WITHOUT_MARKS.iterdir()))
def test_a_history_of_the_version_before_marks_leads_to_its_outcome(name: str) -> None:
    text = (WITHOUT_MARKS / f"{name}.json").read_text("utf-8")
    assert '\\"as\\"' not in text
    check_history(SHAPES[name], json.loads(text)[group_of(name)])


@pytest.mark.parametrize("name", SHAPES)
def test_a_recorded_history_is_what_a_run_records(name: str) -> None:
    """So it also holds that nothing new is written; a change of this alone harms no execution."""
    recorded, found = read(name)[group_of(name)], record(SHAPES[name])
    for old, new in zip(recorded["operations"], found["operations"], strict=True):
        check_begins(old, new)
    assert found == recorded


def check_begins(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Take out of ``new`` when bodies began: the files hold when that was sent, 100 ms later."""
    begin_ms = new.pop("attempt_start_ms", None)
    assert begin_ms is None or new["start_ms"] <= begin_ms <= new.get("end_ms", begin_ms)
    if new["type"] in {"STEP", "CONTEXT"}:
        assert old["start_ms"] - LAG_MS <= new["start_ms"] <= old["start_ms"]
        new["start_ms"] = old["start_ms"]


def test_each_shape_has_a_history_and_no_other_file_is_there() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == SHAPES.keys()
    for name in SHAPES:
        assert read(name).keys() == ({"3.11", "3.12"} if name in BY_GROUP else {"every"})


def record(shape: Shape) -> dict[str, Any]:
    trial = asyncio.run(Trial(shape, PACE).run())
    operations = [_without_stack(each) for each in trial.operations]
    history: dict[str, Any] = {"operations": msgspec.to_builtins(operations)}
    if isinstance(trial.outcome, Raises):
        history["error"] = {"type": trial.outcome.type, "message": trial.outcome.message}
    else:
        history["result"] = trial.outcome
    # As a file gives it back.
    found: dict[str, Any] = json.loads(json.dumps(history))
    return found


def _without_stack(operation: Operation) -> Operation:
    """Stacks name places in the code, which may change; a fan-out keeps those of its branches."""
    payload = operation.payload
    if payload is not None and "stack_trace" in payload:
        value = json.loads(payload)
        for each in value["errors"]:
            del each["stack_trace"]
        operation = replace(operation, payload=msgspec.json.encode(value).decode())
    if operation.error is None:
        return operation
    return replace(operation, error=replace(operation.error, stack_trace=()))


def write(name: str) -> None:
    path = FOLDER / f"{name}.json"
    histories = read(name) if path.exists() and name in BY_GROUP else {}
    histories[group_of(name)] = record(SHAPES[name])
    path.write_text(json.dumps(histories, indent=1, sort_keys=True) + "\n", "utf-8")


def is_missing(name: str) -> bool:
    return not (FOLDER / f"{name}.json").exists() or group_of(name) not in read(name)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in sys.argv[1:] or filter(is_missing, SHAPES):
        write(each)
        sys.stdout.write(f"recorded {each}\n")
