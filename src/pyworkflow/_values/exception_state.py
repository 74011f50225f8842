"""Exceptions made without their constructors, and what certain builtins keep outside ``__dict__``.

A constructor may demand arguments that are not recorded, or act on the world. `OSError` and a few
more builtins hold their values in C fields, which their own ``__new__``, ``__init__`` and field
descriptors set; those run no user code, even for a user's subclass.
"""

from __future__ import annotations

import base64
import types
from collections.abc import Callable
from typing import Any

import msgspec

_FIELDS: dict[type[Exception], tuple[str, ...]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    SyntaxError: ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
    ImportError: ("msg", "name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement


class Blueprint(msgspec.Struct, frozen=True):
    """The parts of an exception. ``group`` are the members of an `ExceptionGroup`."""

    args: tuple[Any, ...] = ()
    state: dict[str, Any] = {}
    group: tuple[Exception, ...] = ()


def state_of(error: BaseException) -> dict[str, Any]:
    """Return what ``error`` keeps in C fields; `restore` reads it."""
    match error:
        case UnicodeDecodeError() | UnicodeEncodeError() | UnicodeTranslateError():
            return _unicode_state(error)
        case BaseExceptionGroup():
            return {"message": error.message}
    for kind, names in _FIELDS.items():
        if isinstance(error, kind):
            fields = {name: vars(kind)[name].__get__(error) for name in names}
            return {name: value for name, value in fields.items() if value is not None}
    return {}


def restore(kind: type[Exception], blueprint: Blueprint) -> Exception:
    """Return an exception of class ``kind``; none of its own code runs.

    Raises whatever its builtin base raises if the blueprint does not fit.
    """
    for base, make in _MAKERS.items():
        if issubclass(kind, base):
            return make(kind, blueprint)
    root: Any = next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE)
    error: Exception = root.__new__(kind)
    args = blueprint.args
    if issubclass(kind, SyntaxError) and "lineno" in blueprint.state:
        message, *details = (blueprint.state.get(name) for name in _FIELDS[SyntaxError])
        args = (message, tuple(details))
    for base, names in _FIELDS.items():
        if issubclass(kind, base):
            for name in names:
                if name in blueprint.state:
                    vars(base)[name].__set__(error, blueprint.state[name])
    vars(BaseException)["args"].__set__(error, args)
    return error


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return what is set on ``error``: its ``__dict__``, and its ``__slots__``."""
    found = dict(vars(error))
    for name, slot in _slots_of(type(error)).items():
        try:
            found[name] = slot.__get__(error)
        except AttributeError:
            continue
    return found


def set_attributes(error: BaseException, attributes: dict[str, Any]) -> None:
    """Set ``attributes``; neither a ``__setattr__`` nor a property runs."""
    slots = _slots_of(type(error))
    inside = object.__getattribute__(error, "__dict__")
    for name, value in attributes.items():
        if name in slots:
            slots[name].__set__(error, value)
        else:
            inside[name] = value


def _slots_of(kind: type) -> dict[str, types.MemberDescriptorType]:
    return {
        name: member
        for each in reversed(kind.__mro__)
        if each.__flags__ & _HEAP_TYPE
        for name, member in vars(each).items()
        if type(member) is types.MemberDescriptorType
    }


def _unicode_state(error: Any) -> dict[str, Any]:
    whole = error.object
    data = whole.encode(errors="surrogatepass") if isinstance(whole, str) else bytes(whole)
    state = {name: getattr(error, name) for name in ("start", "end", "reason")}
    if not isinstance(error, UnicodeTranslateError):
        state["encoding"] = error.encoding
    return state | {"object": base64.b64encode(data).decode()}


def _make_unicode_error(kind: Any, blueprint: Blueprint) -> Exception:
    state = blueprint.state
    root: Any = next(each for each in _UNICODE if issubclass(kind, each))
    whole: Any = base64.b64decode(state["object"], validate=True)
    if root is not UnicodeDecodeError:
        whole = whole.decode(errors="surrogatepass")
    start, end = state["start"], state["end"]
    # Outside of the object they would be read all the same when the text is made.
    if not 0 <= start <= end <= len(whole):
        raise ValueError(f"start {start} and end {end} do not fit an object of {len(whole)}")
    encoding = () if root is UnicodeTranslateError else (state["encoding"],)
    error: Exception = root.__new__(kind)
    root.__init__(error, *encoding, whole, start, end, state["reason"])
    return error


def _make_group(kind: Any, blueprint: Blueprint) -> Exception:
    members = list(blueprint.group)
    return BaseExceptionGroup.__new__(kind, blueprint.state["message"], members)  # type: ignore[no-any-return]


_UNICODE = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)
_MAKERS: dict[type, Callable[[Any, Blueprint], Exception]] = {
    **dict.fromkeys(_UNICODE, _make_unicode_error),
    ExceptionGroup: _make_group,
}
