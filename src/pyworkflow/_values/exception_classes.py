"""Marks: the names by which an exception class is found again, in whatever process replays.

A recorded name depends on how a file was imported: one file is ``__main__``, ``shop`` and
``pk.shop`` in three processes. So the mark of a class is relative where it can be: ``.Declined`` is
looked up in the globals of the function that raised (its *home*). Of a class of another module it
is ``module:Qualname``, where the module's name is the canonical one: ``__main__`` has that of its
file. It is looked for under that name, and then in the one loaded module whose file has it.

Lookups go through dictionaries alone, so no property, no ``__getattr__`` and no import runs.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Home = Mapping[str, Any]

NOWHERE: Home = types.MappingProxyType({})
"""The home of code of which no function is known."""

_SOURCE = "__pyworkflow_source__"
_MAIN = ("__main__", "__mp_main__")
_REFUSED = (StopIteration, StopAsyncIteration)


class UnknownClassError(LookupError):
    """A mark leads to no class here; the message says what was found instead."""


# -- where code is at home -----------------------------------------------------------------------


def home_of(source: object) -> Home:
    """Return the globals of the function that ``source`` is or stands for."""
    for _ in range(100):  # whatever refers to itself ends here
        match source:
            case dict():
                return source
            case functools.partial():
                source = source.func
            case types.MethodType():
                source = source.__func__
            case _:
                inner = _attributes(source)
                if _SOURCE in inner or "__wrapped__" in inner:
                    source = inner.get(_SOURCE) or inner["__wrapped__"]
                elif isinstance(source, types.FunctionType):
                    return source.__globals__
                else:
                    source = _class_attribute(type(source), "__call__")
    return NOWHERE


def stand_for(wrapper: object, function: object) -> None:
    """Have `home_of` take ``wrapper`` for ``function``; to others it stays what it is."""
    _attributes(wrapper)[_SOURCE] = function


def _attributes(source: object) -> dict[str, Any]:
    found = getattr(source, "__dict__", None)
    return found if isinstance(found, dict) else {}


def _class_attribute(kind: type, name: str) -> object:
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)


# -- marks ---------------------------------------------------------------------------------------


def mark_of(kind: type, home: Home) -> str:
    """Return the mark of ``kind`` for code with this home."""
    module, name = kind.__module__, kind.__qualname__
    if module == "builtins":
        return name
    if module == home.get("__name__"):
        return f".{name}"
    return f"{canonical(module)}:{name}"


def canonical(module: str) -> str:
    """Return the name of a module that other processes know it by as well."""
    if module not in _MAIN:
        return module
    inside = dictionary(sys.modules.get(module))
    spec = inside.get("__spec__")
    if spec is not None:
        return str(spec.name)
    return _stem(inside.get("__file__")) or module


def find(mark: str, home: Home, recorded: Iterable[str] = ()) -> type[Exception] | None:
    """Return the class with this mark, `None` if it is not loaded.

    ``recorded`` are names of modules in which a relative mark is looked for last. Raises
    `UnknownClassError` if several classes could be meant.
    """
    module, colon, name = mark.rpartition(":")
    names = name.removeprefix(".").split(".")
    if colon:
        return _find_in(module, names, home)
    if not mark.startswith("."):
        return exception_class(walk(vars(builtins), names))
    found = exception_class(walk(home, names))
    for module in () if found is not None else recorded:
        found = found or _find_in(module, names, home)
    return found


def _find_in(module: str, names: list[str], home: Home) -> type[Exception] | None:
    """Return the class of ``module``, or of the loaded module whose file has that name.

    Where one file is loaded twice, it is the class that the home knows, if it knows one of them.
    """
    found = {
        name: kind for name in _places(module) if (kind := _class_in(sys.modules[name], names))
    }
    named = next((name for name in found if canonical(name) == module), None)
    if named is not None:
        file = _file_of(named)
        found = {n: k for n, k in found.items() if n == named or (file and _file_of(n) == file)}
    kinds = dict.fromkeys(found.values())
    if len(kinds) < 2:
        return next(iter(kinds), None)
    if len({_file_of(name) for name in found}) == 1:
        known = [n for n, kind in found.items() if _knows(home, kind, sys.modules[n])]
        if len({found[name] for name in known}) == 1:
            return found[known[0]]
    if named is not None:
        return found[named]
    ways = ", ".join(f"{name}.{'.'.join(names)} ({file_of(name)})" for name in found)
    raise UnknownClassError(f"several classes could be meant: {ways}")


def _knows(home: Home, kind: type, module: object) -> bool:
    return any(value is kind or value is module for value in list(home.values()))


def _class_in(module: object, names: list[str]) -> type[Exception] | None:
    return exception_class(walk(dictionary(module), names))


def is_marked(kind: type, mark: str, home: Home) -> bool:
    """Return whether ``kind`` is the class with this mark, by its name."""
    module, colon, name = mark.rpartition(":")
    if kind.__qualname__ != name.removeprefix("."):
        return False
    if not colon:
        return kind.__module__ == (home.get("__name__") if mark.startswith(".") else "builtins")
    return kind.__module__ == module or kind.__module__ in _places(module)


def what_is_loaded(mark: str, home: Home) -> str:
    """Say what is loaded of the module of a class that was not found."""
    module, colon, name = mark.rpartition(":")
    name = name.removeprefix(".")
    if colon:
        places = [f"{place} ({file_of(place)})" for place in _places(module)]
    else:
        file = home.get("__file__")
        places = [f"{home.get('__name__')} ({file})"] if home else []
    if not places:
        return f"no module {module!r}, nor one of such a file" if colon else "no such code"
    return f"{', '.join(places)}, without a class {name}"


# -- loaded modules ------------------------------------------------------------------------------


def _places(module: str) -> Iterator[str]:
    """Yield the names of loaded modules that may be ``module``, that of its own name first."""
    if module in sys.modules:
        yield module
    ending = "/" + module.replace(".", "/")
    for name in _by_stem().get(module.rpartition(".")[2], ()):
        if name != module and name in sys.modules:
            file = _file_of(name)
            if canonical(name) == module or (file is not None and file.endswith(ending)):
                yield name


class _Index:
    """The loaded modules by the last part of their names, made anew when there are others."""

    def __init__(self) -> None:
        self.state = (0, "")
        self.names: dict[str, list[str]] = {}


_index = _Index()


def _by_stem() -> dict[str, list[str]]:
    state = (len(sys.modules), next(reversed(sys.modules)))
    if _index.state != state:
        names: dict[str, list[str]] = {}
        for name in list(sys.modules):
            file = _file_of(name)
            for stem in {canonical(name).rpartition(".")[2], (file or "").rpartition("/")[2]}:
                if stem:
                    names.setdefault(stem, []).append(name)
        _index.names, _index.state = names, state
    return _index.names


def _file_of(name: str) -> str | None:
    """Return the file of a loaded module without its ending, that of a package as its folder."""
    file = dictionary(sys.modules.get(name)).get("__file__")
    if type(file) is not str:
        return None
    path = file.replace("\\", "/").rpartition(".")[0]
    return "/" + path.removesuffix("/__init__").removeprefix("/")


def file_of(name: str) -> str:
    """Return where a loaded module comes from, for messages."""
    file = dictionary(sys.modules.get(name)).get("__file__")
    return file if isinstance(file, str) else "no file"


def _stem(file: object) -> str:
    if type(file) is not str:
        return ""
    return file.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]


def dictionary(module: object) -> dict[str, Any]:
    """Return the names in a module; no code of a lazy one runs."""
    try:
        found = object.__getattribute__(module, "__dict__")
    except AttributeError:  # what is in place of a module has none
        return {}
    return found if isinstance(found, dict) else {}


# -- classes -------------------------------------------------------------------------------------


def walk(names_inside: Mapping[str, Any], names: list[str]) -> object:
    """Follow ``names`` through dictionaries alone: no property and no ``__getattr__`` runs."""
    found = names_inside.get(names[0])
    for name in names[1:]:
        if not issubclass(type(found), type):
            return None
        found = type.__dict__["__dict__"].__get__(found).get(name)
    return found


def exception_class(found: Any) -> type[Exception] | None:
    """Return ``found`` if it is an exception class that may be raised in a workflow."""
    # type(found), since isinstance() would ask a lazy proxy for its __class__.
    if not issubclass(type(found), type):
        return None
    mro = type.__dict__["__mro__"].__get__(found)
    if Exception not in mro or any(refused in mro for refused in _REFUSED):
        return None
    return found  # type: ignore[no-any-return]
