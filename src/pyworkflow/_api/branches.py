"""The calls of `ctx.parallel` and `ctx.map`, checked before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pyworkflow._api.callables import Code, code_of, drop, name_of, result_type_of
from pyworkflow._api.completion import Completion, check_count
from pyworkflow._api.fan_out import FanOut
from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.ops.fan_out import FanOutOp, MapOp
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def parallel_call(
    branches: object,
    *,
    name: str | None = None,
    key: str | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> FanOut:
    """Return the checked call of ``ctx.parallel``."""
    targets: Sequence[Any] = list(branches.values()) if isinstance(branches, Mapping) else ()
    targets = branches if isinstance(branches, list | tuple) else targets
    try:
        what = _what("ctx.parallel()", name)
        names: list[str]
        match branches:
            case Mapping():
                names = [check_name(each, f"a branch of {what}") for each in branches]
            case list() | tuple():
                names = [f"parallel-branch-{index}" for index in range(len(branches))]
            case _:
                raise UsageError(
                    f"{what} takes a list or tuple of branches, or a dict of them by name, not "
                    f"{brief(branches)}"
                )
        completion = _completion(len(targets), what, key, max_concurrency, options)
        codes = [
            replace(code_of(target, f"branch {each!r} of {what}"), name=each)
            for each, target in zip(names, targets, strict=True)
        ]
        if len({id(target) for target in targets if inspect.iscoroutine(target)}) < sum(
            map(inspect.iscoroutine, targets)
        ):
            raise UsageError(
                f"{what} got one coroutine as several branches; call the function anew for each"
            )
    except BaseException:
        drop(targets)
        raise
    return FanOut(
        FanOutOp, codes, name, key, completion=completion, max_concurrency=max_concurrency
    )


def map_call(
    function: Any,
    items: Any,
    *,
    name: str | None = None,
    key: str | None = None,
    max_concurrency: int | None = None,
    item_name: Any = None,
    **options: Any,
) -> FanOut:
    """Return the checked call of ``ctx.map``."""
    if not callable(function):
        hint = ": swap them" if callable(items) else ""
        raise UsageError(f"ctx.map() takes a function and items, not {brief(function)} first{hint}")
    name = name_of(function) if name is None else name
    what = _what("ctx.map()", name)
    if isinstance(items, AbstractSet) or not isinstance(items, Iterable):
        raise UsageError(
            f"{what} takes items in an order that each replay repeats, such as a list, not "
            f"{type(items).__name__}" + (": sort it" if isinstance(items, AbstractSet) else "")
        )
    items = list(items)
    completion = _completion(len(items), what, key, max_concurrency, options)
    result_type = result_type_of(function, what)
    takes_index = _takes_index(function, what)
    codes = [
        Code(each, result_type, partial(function, *((item, index) if takes_index else (item,))))
        for index, (each, item) in enumerate(
            zip(_names(items, item_name, what), items, strict=True)
        )
    ]
    fan_out = FanOut(
        MapOp, codes, name, key, completion=completion, max_concurrency=max_concurrency
    )
    fan_out.items = items
    return fan_out


def _what(call: str, name: str | None) -> str:
    return call if name is None else f"{call} {check_name(name, call)!r}"


def _completion(
    total: int, what: str, key: str | None, max_concurrency: int | None, options: dict[str, Any]
) -> Completion:
    if key is not None:
        check_key(key, what)
    check_count(max_concurrency, "max_concurrency", 1, what)
    completion = Completion(**options)
    completion.check(total, what)
    return completion


def _names(items: list[Any], item_name: Any, what: str) -> list[str]:
    if item_name is None:
        return [f"map-item-{index}" for index in range(len(items))]
    if not callable(item_name):
        raise UsageError(f"item_name of {what} must be a function of an item, not {item_name!r}")
    takes_index = _takes_index(item_name, f"item_name of {what}")
    places: dict[str, int] = {}
    for index, item in enumerate(items):
        name = check_name(
            item_name(item, index) if takes_index else item_name(item), f"item {index} of {what}"
        )
        if name in places:
            raise UsageError(
                f"item_name of {what} names two items {name!r}, those at {places[name]} and "
                f"{index}; make the names differ, by the index for example: item_name(item, index)"
            )
        places[name] = index
    return list(places)


def _takes_index(function: Any, what: str) -> bool:
    """Whether ``function`` is to be called with an item and its index; if not, with the item."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not say
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if named or len(needed) > 2 or not (places or takes_any):
        raise UsageError(
            f"{what} calls its function with an item, or with an item and its index; "
            f"{name_of(function) or 'this one'}{inspect.signature(function)} can't be called so. "
            "Bind the other arguments: functools.partial(function, ...), or a lambda"
        )
    return len(needed) == 2 or (len(places) > 1 and places[1].name == "index")
