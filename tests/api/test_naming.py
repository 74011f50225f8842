from __future__ import annotations

from typing import Any

import pytest

from pyworkflow import UsageError, WorkflowContext, step, workflow
from pyworkflow._api.names import check_key, check_name
from pyworkflow._protocol.limits import MAX_NAME
from pyworkflow.aws.testing import MockDurableContext
from tests.api.world import run


@pytest.mark.parametrize("name", ["a", "validate_order", "to be, or not: 2/3", "x" * MAX_NAME])
def test_a_good_name_is_returned(name: str) -> None:
    assert check_name(name, "step 'f'") == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (None, "must be a str, not NoneType: None"),
        (5, "must be a str, not int: 5"),
        ("", "1 to 256 characters, not 0"),
        ("x" * (MAX_NAME + 1), "1 to 256 characters, not 257"),
        ("größe", "printable ASCII.*'größe'.*name="),
        ("a\nb", "printable ASCII"),
        ("a\x7fb", "printable ASCII"),
    ],
)
def test_a_bad_name_is_told_with_its_owner(name: object, fault: str) -> None:
    with pytest.raises(UsageError, match=rf"the name of step 'f' .*{fault}"):
        check_name(name, "step 'f'")


def test_a_key_may_be_any_text() -> None:
    assert check_key("Zürich 7\n", "a sleep") == "Zürich 7\n"


@pytest.mark.parametrize("key", ["", None, 7, b"x"])
def test_a_bad_key_is_told_with_its_owner(key: object) -> None:
    with pytest.raises(UsageError, match="the key of a sleep must be a non-empty str"):
        check_key(key, "a sleep")


def nothing() -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        lambda ctx: ctx.sleep(1, name="naïve"),
        lambda ctx: ctx.child(print, name="naïve"),
        lambda ctx: ctx.parallel([print], name="naïve"),
        lambda ctx: ctx.parallel({"naïve": print}),
        lambda ctx: ctx.map(print, [1], name="naïve"),
        lambda ctx: ctx.map(print, [1], item_name=lambda item: "naïve"),
        lambda ctx: ctx.callback("naïve"),
        lambda ctx: ctx.wait_for_callback(print, "naïve"),
        lambda ctx: ctx.wait_for_condition(bool, every=1, name="naïve"),
        lambda ctx: ctx.invoke("f", name="naïve"),
        lambda ctx: step(name="naïve")(nothing),
        lambda ctx: workflow(name="naïve")(nothing),
    ],
)
def test_each_operation_tells_where_it_is_called_and_records_nothing(call: Any) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        with pytest.raises(UsageError, match="must be printable ASCII, .*: .*na.ve"):
            call(ctx)
        return "told"

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == "told"
    assert mock_ctx.operations == ()
