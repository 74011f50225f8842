from __future__ import annotations

import pytest

from pyworkflow._engine.scopes import Scope
from pyworkflow.errors import UsageError

ID_1 = "1ced8f5be2db23a6513eba4d819c73806424748a7bc6fa0d792cc1c7d1775a97"


def test_a_key_lies_below_the_nearest_child_context() -> None:
    assert Scope(None).take_key("a") == "key-a"
    assert Scope(ID_1).take_key("a") == f"{ID_1}-key-a"


@pytest.mark.parametrize(("operation_id", "where"), [(None, "workflow"), (ID_1, "child context")])
def test_a_key_names_one_operation(operation_id: str | None, where: str) -> None:
    scope = Scope(operation_id)
    scope.take_key("a")
    scope.take_key("b")
    with pytest.raises(UsageError, match=f"the key 'a' is used twice in this {where}"):
        scope.take_key("a")
    assert str(scope) == where
