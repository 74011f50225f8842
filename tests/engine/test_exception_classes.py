from __future__ import annotations

import asyncio
import functools
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import step, workflow
from pyworkflow._api.callables import as_async, without_result
from pyworkflow._values import exception_classes
from pyworkflow._values.exception_classes import (
    NOWHERE,
    UnknownClassError,
    canonical,
    find,
    home_of,
    is_marked,
    mark_of,
    what_is_loaded,
)


class DeclinedError(Exception):
    class InnerError(Exception):
        pass


HERE: Any = globals()
Patch = pytest.MonkeyPatch


def load(patch: Patch, name: str, path: str | None, **inside: Any) -> types.ModuleType:
    """Put a module in place as if it had been imported from ``path`` under ``name``."""
    module = types.ModuleType(name)
    if path is not None:
        module.__file__ = path
    vars(module).update(inside)
    patch.setitem(sys.modules, name, module)
    return module


def error_class(module: str, name: str = "PaidError") -> type[Exception]:
    return type(name, (Exception,), {"__module__": module, "__qualname__": name})


# -- homes ---------------------------------------------------------------------------------------


class Callee:
    def __call__(self) -> None:
        pass

    def method(self) -> None:
        pass


def plain() -> None:
    pass


@functools.wraps(plain)
def wrapper() -> None:
    pass


@pytest.mark.parametrize(
    "source",
    [
        plain,
        wrapper,
        functools.partial(functools.partial(plain)),
        Callee(),
        Callee().method,
        HERE,
        step(plain),
        workflow(plain),
        step(retry=False)(wrapper),
        as_async(plain),
        without_result(plain),
        without_result(functools.partial(plain)),
        lambda: None,
    ],
    ids=lambda source: type(source).__name__,
)
def test_the_home_is_that_of_the_users_function(source: object) -> None:
    assert home_of(source) is HERE


def test_what_is_no_function_has_no_home() -> None:
    loop = functools.partial(print)
    loop.__dict__["__wrapped__"] = loop
    for source in (None, print, object(), 5):
        assert home_of(source) is NOWHERE
    endless: Any = Callee()
    endless.__wrapped__ = endless
    assert home_of(endless) is NOWHERE


# -- marks ---------------------------------------------------------------------------------------


def test_a_class_of_the_home_has_a_relative_mark() -> None:
    assert mark_of(DeclinedError, HERE) == ".DeclinedError"
    assert mark_of(DeclinedError.InnerError, HERE) == ".DeclinedError.InnerError"
    assert mark_of(DeclinedError, NOWHERE) == f"{__name__}:DeclinedError"
    assert mark_of(ValueError, HERE) == "ValueError"
    assert mark_of(asyncio.QueueFull, HERE) == "asyncio.queues:QueueFull"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ({"__spec__": types.SimpleNamespace(name="pk.orders")}, "pk.orders"),
        ({"__spec__": None, "__file__": "/app/shop.py"}, "shop"),
        ({"__spec__": None, "__file__": "C:\\app\\shop.py"}, "shop"),
        ({"__spec__": None}, "__main__"),
        ({"__file__": 3}, "__main__"),
    ],
)
def test_the_main_module_is_its_spec_or_its_file(
    inside: dict[str, Any], expected: str, monkeypatch: Patch
) -> None:
    load(monkeypatch, "__main__", None, **inside)
    assert canonical("__main__") == expected
    assert canonical("shop") == "shop"


def test_marks_are_found_again() -> None:
    for kind in (DeclinedError, DeclinedError.InnerError, ValueError, asyncio.QueueFull):
        for home in (HERE, NOWHERE):
            mark = mark_of(kind, home)
            assert find(mark, home) is kind
            assert is_marked(kind, mark, home)
    assert not is_marked(ValueError, ".DeclinedError", HERE)
    assert not is_marked(DeclinedError, ".DeclinedError", NOWHERE)


@pytest.mark.parametrize(
    "mark",
    [
        "",
        ".",
        ".HERE",
        ".Nowhere",
        ".DeclinedError.x",
        "int",
        "x:",
        ":x",
        "os:path",
        "a.b:C.d",
        "..:x",
    ],
)
def test_a_mark_that_leads_nowhere(mark: str) -> None:
    assert find(mark, HERE) is None
    assert what_is_loaded(mark, HERE)


def test_a_relative_mark_is_looked_for_last_where_it_was(monkeypatch: Patch) -> None:
    paid = error_class("pk.errors")
    load(monkeypatch, "pk.errors", "/app/pk/errors.py", PaidError=paid)
    assert find(".PaidError", HERE) is None
    assert find(".PaidError", HERE, ["nowhere", "pk.errors"]) is paid
    assert find(".DeclinedError", HERE, ["pk.errors"]) is DeclinedError


@pytest.mark.parametrize(
    ("recorded", "loaded", "path"),
    [
        ("pk.orders", "orders", "/app/pk/orders.py"),
        ("orders", "pk.orders", "/app/pk/orders.py"),
        ("pk.orders", "anything", "/app/pk/orders.py"),
        ("pk.orders", "orders", "/app/pk/orders/__init__.py"),
        ("pk.orders", "orders", "C:\\app\\pk\\orders.py"),
        ("orders", "__main__", "/app/orders.py"),
        ("pk.orders", "__main__", "/app/pk/orders.py"),
    ],
)
def test_a_module_is_found_by_the_end_of_its_path(
    recorded: str, loaded: str, path: str, monkeypatch: Patch
) -> None:
    paid = error_class(loaded)
    load(monkeypatch, loaded, path, PaidError=paid, __spec__=None)
    assert find(f"{recorded}:PaidError", NOWHERE) is paid
    assert is_marked(paid, f"{recorded}:PaidError", NOWHERE)


@pytest.mark.parametrize(
    ("loaded", "path"),
    [("orders", "/app/orders.py"), ("orders", "/app/xpk/orders.py"), ("orders", None)],
)
def test_another_file_is_not_taken_for_it(loaded: str, path: str, monkeypatch: Patch) -> None:
    load(monkeypatch, loaded, path, PaidError=error_class(loaded))
    assert find("pk.orders:PaidError", NOWHERE) is None
    assert "no module 'pk.orders'" in what_is_loaded("pk.orders:PaidError", NOWHERE)


def test_two_files_that_could_be_meant_are_a_problem(monkeypatch: Patch) -> None:
    for folder in "ab":
        name = f"{folder}.orders"
        load(monkeypatch, name, f"/{folder}/orders.py", PaidError=error_class(name))
    with pytest.raises(UnknownClassError, match=r"a\.orders\.PaidError \(/a/orders\.py\), b\."):
        find("orders:PaidError", NOWHERE)
    own = error_class("orders")
    load(monkeypatch, "orders", "/c/orders.py", PaidError=own)
    assert find("orders:PaidError", NOWHERE) is own


@pytest.mark.parametrize("as_module", [False, True])
def test_of_a_file_that_is_loaded_twice_the_home_decides(
    as_module: bool, monkeypatch: Patch
) -> None:
    kinds = {name: error_class(name) for name in ("orders", "pk.orders")}
    modules = {
        name: load(monkeypatch, name, "/app/pk/orders.py", PaidError=kind)
        for name, kind in kinds.items()
    }
    for name, kind in kinds.items():
        home = {"x": modules[name] if as_module else kind}
        assert find("pk.orders:PaidError", home) is kind
        assert find("orders:PaidError", home) is kind
    assert find("pk.orders:PaidError", NOWHERE) is kinds["pk.orders"]
    both = dict(enumerate(kinds.values()))
    assert find("pk.orders:PaidError", both) is kinds["pk.orders"]  # type: ignore[arg-type]
    del sys.modules["pk.orders"]
    load(monkeypatch, "third", "/app/pk/orders.py", PaidError=error_class("third"))
    with pytest.raises(UnknownClassError):
        find("pk.orders:PaidError", NOWHERE)


def test_what_is_no_module_is_passed_over(monkeypatch: Patch) -> None:
    class Slotted:
        __slots__ = ()

    class Odd:
        __dict__ = 3  # type: ignore[assignment]

    monkeypatch.setitem(sys.modules, "slotted_for_test", Slotted())
    monkeypatch.setitem(sys.modules, "odd_for_test", Odd())
    monkeypatch.setitem(sys.modules, "none_for_test", None)
    for name in ("slotted_for_test", "odd_for_test", "none_for_test"):
        assert find(f"{name}:PaidError", NOWHERE) is None


def test_modules_that_come_and_go_are_seen(monkeypatch: Patch) -> None:
    mark = "pk.late:PaidError"
    assert find(mark, NOWHERE) is None
    late = error_class("late")
    load(monkeypatch, "late", "/app/pk/late.py", PaidError=late)
    assert find(mark, NOWHERE) is late
    monkeypatch.delitem(sys.modules, "late")
    assert find(mark, NOWHERE) is None


def test_what_is_loaded_names_the_file() -> None:
    assert (
        what_is_loaded(".GoneError", HERE) == f"{__name__} ({__file__}), without a class GoneError"
    )
    found = what_is_loaded("pyworkflow._values.exception_classes:GoneError", HERE)
    assert str(Path(exception_classes.__file__)) in found
    assert what_is_loaded(".GoneError", NOWHERE) == "no such code"
