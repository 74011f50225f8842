from __future__ import annotations

import pytest

from pyworkflow import UsageError
from pyworkflow._api.naming import MAX_NAME, check_key, check_name


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
