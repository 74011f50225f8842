"""Attributes of an exception that were not recorded: asking for one says why it is missing.

The value was not JSON, or did not fit. The exception keeps its class, so the message comes
from a ``__getattr__`` that its class is given with the first such exception. Python asks that only
for what is found nowhere else, and it says what Python would say, but for a name of the list
that the exception carries. A class with a ``__getattr__`` of its own, or that can't be changed,
stays as it is.
"""

from __future__ import annotations

from typing import Any

KEY = "__not_recorded__"
"""Where an exception has the list, in its ``__dict__``: names, and the types of the values."""

TOO_LARGE = ""
"""Stands for the type of a value for which the record had no room."""


def explain(error: Exception, missing: dict[str, str]) -> None:
    """Have ``error`` say of each name in ``missing`` why it has no such attribute."""
    object.__getattribute__(error, "__dict__")[KEY] = dict(missing)
    kind = type(error)
    if not any("__getattr__" in vars(each) for each in kind.__mro__):
        try:
            type.__setattr__(kind, "__getattr__", _missing)
        except TypeError:  # a builtin
            return


def missing_in(error: BaseException) -> dict[str, str]:
    """Return what `explain` was given."""
    found = object.__getattribute__(error, "__dict__").get(KEY)
    return dict(found) if isinstance(found, dict) else {}


def _missing(error: Exception, name: str) -> Any:
    kind = missing_in(error).get(name)
    if kind is None:
        # Python's own error, or that of a property which asked for a name of the list.
        return object.__getattribute__(error, name)
    why = f"its value, of type {kind}, isn't JSON" if kind else "the record had no room for it"
    raise AttributeError(
        f"attribute {name!r} of {type(error).__qualname__} was not recorded, for {why}. A step's "
        "error is rebuilt from its record: let the step keep what is needed of it as plain values",
        name=name,
        obj=error,
    )
