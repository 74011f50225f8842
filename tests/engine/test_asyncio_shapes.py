"""The ids that asyncio's shapes lead to: the same on every Python, run and replay.

An execution in flight depends on them, so the golden file changes by intent alone. To write it
anew, run ``python -m tests.engine.test_asyncio_shapes`` with Python 3.11, then with a later one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pyworkflow._engine.execution import Execution
from pyworkflow._engine.ops.base import Op
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from tests.engine.asyncio_shapes import SHAPES

GOLDEN = Path(__file__).parents[1] / "golden" / "asyncio_ids.json"

GROUP = "3.11" if sys.version_info < (3, 12) else "3.12"
"""`asyncio.wait_for` makes a task on 3.11, and none from 3.12 on."""

BY_GROUP = {"wait_for"}
"""The shapes whose ids differ between the groups."""


def run(name: str, *crashes: int) -> list[str]:
    """Run a shape; return the operations that its code issued, in the order of their first issue.

    Whether each was ever written is another question: a timer that was not needed may not be.
    """
    shape, expected = SHAPES[name]
    mock = MockDurableContext(max_invocations=100)
    for crash in crashes:
        mock.crash_after(crash)
    issued: dict[str, str] = {}
    issue = Execution.issue

    def watch(execution: Execution, op: Op) -> None:
        issued.setdefault(op.id, " ".join(filter(None, (op.id, op.type, op.name))))
        issue(execution, op)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Execution, "issue", watch)
        assert create_test_handler(shape, mock)({}) == expected
    assert issued.keys() >= {op.id for op in mock.operations}
    return list(issued.values())


def read() -> dict[str, dict[str, list[str]]]:
    golden: dict[str, dict[str, list[str]]] = json.loads(GOLDEN.read_text())
    return golden


def group_of(name: str) -> str:
    return GROUP if name in BY_GROUP else "every"


@pytest.mark.parametrize("name", SHAPES)
def test_the_ids_are_those_of_the_golden_file(name: str) -> None:
    # The mock replays each finished run from its record, and raises if that comes out otherwise.
    assert sorted(run(name)) == sorted(read()[name][group_of(name)])


@pytest.mark.parametrize("name", SHAPES)
def test_the_ids_survive_a_crash_after_each_checkpoint(name: str) -> None:
    assert sorted(run(name, *range(1, 100))) == sorted(read()[name][group_of(name)])


def test_the_golden_file_has_the_shapes_and_no_others() -> None:
    golden = read()
    assert golden.keys() == SHAPES.keys()
    for name, groups in golden.items():
        assert groups.keys() == ({"3.11", "3.12"} if name in BY_GROUP else {"every"})


def test_the_groups_differ_where_asyncio_does() -> None:
    for name in BY_GROUP:
        groups = read()[name]
        assert groups["3.11"] != groups["3.12"]


def test_no_two_operations_of_a_shape_share_an_id() -> None:
    for groups in read().values():
        for operations in groups.values():
            ids = [operation.partition(" ")[0] for operation in operations]
            assert len(set(ids)) == len(ids)


def write() -> None:
    golden: dict[str, Any] = read() if GOLDEN.exists() else {}
    ids = {name: {group_of(name): run(name)} for name in SHAPES}
    merged = {
        name: {**(golden.get(name, {}) if name in BY_GROUP else {}), **groups}
        for name, groups in ids.items()
    }
    GOLDEN.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write()
