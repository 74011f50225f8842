"""Recorded exceptions made again, as the class that their mark names.

The record is not trusted: whoever may write to the history could name any class. So nothing is
imported by a recorded name; a class must be an `Exception` that is loaded, and it is made without
its constructor. One of which no exception with the recorded text comes is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values import absent_attributes
from pyworkflow._values.exception_classes import (
    UnknownClassError,
    file_of,
    find,
    is_marked,
    what_is_loaded,
)
from pyworkflow._values.exception_stacks import with_stack
from pyworkflow._values.exception_state import Blueprint, restore, set_attributes
from pyworkflow.errors import OperationError, SerializationError

if TYPE_CHECKING:
    from pyworkflow._values.exception_classes import Home

Fallback: TypeAlias = "type[OperationError]"
"""The class of a stand-in, which carries a record."""


class ErrorData(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The content of `ErrorRecord.data`, as JSON text."""

    bases: tuple[str, ...] = ()
    lineage: tuple[str, ...] | None = msgspec.field(default=None, name="as")
    """The mark of the class as which the error is delivered, then those of its bases.

    Empty for a stand-in; `None` where no class was decided upon: an older version's record.
    """
    main: str = ""
    """The module that ``__main__`` was, if the code that raised was in it."""
    args: list[Any] | None = None
    attributes: dict[str, Any] = {}
    tuples: tuple[str, ...] = ()
    """The attributes that were tuples; JSON makes lists of them."""
    missing: dict[str, str] = {}
    """The attributes that were not recorded, and the types of their values; see `absent`."""
    state: dict[str, Any] = {}
    """State that certain builtins keep outside of their ``__dict__``."""
    group: tuple[ErrorRecord, ...] = ()


class LostClassError(Exception):
    """The class as which an error was delivered is not here, or is no longer what it was."""


def decoded(record: ErrorRecord) -> ErrorData | None:
    """Return the data of ``record``, `None` if it is damaged."""
    if not record.data:
        return ErrorData()
    try:
        return msgspec.json.decode(record.data, type=ErrorData)
    except Exception:
        return None


def delivered(record: ErrorRecord, fallback: Fallback, home: Home) -> Exception:
    """Return the exception that the mark of ``record`` names, else a ``fallback``."""
    data = decoded(record)
    if data is None or not data.lineage:
        return stand_in(record, fallback)
    kind = _class_of(record, data, home)
    members = tuple([delivered(part, fallback, home) for part in data.group])
    error = made(kind, record.message, data, members)
    if error is None:
        found = f"{_here(kind)}, which can't be made with the recorded text"
        raise LostClassError(_lost(record, data, found))
    return with_stack(error, record.stack_trace)


def _class_of(record: ErrorRecord, data: ErrorData, home: Home) -> type[Exception]:
    """Return the class that is marked, if it has the bases that it had; see `LostClassError`."""
    mark, *bases = data.lineage or ()
    try:
        kind = find(mark, home, _modules_of(mark, record, data))
        if kind is None:
            raise LostClassError(_lost(record, data, what_is_loaded(mark, home)))
        for base in bases:
            if find(base, home, _modules_of(base, record, data)) not in kind.__mro__ and not any(
                is_marked(each, base, home) for each in kind.__mro__
            ):
                here = ", ".join(map(class_name, kind.__mro__[1:-1]))
                found = f"{_here(kind)}, derived from {here}, and not from {_shown(base)}"
                raise LostClassError(_lost(record, data, found))
    except UnknownClassError as error:
        raise LostClassError(_lost(record, data, str(error))) from None
    return kind


def _modules_of(mark: str, record: ErrorRecord, data: ErrorData) -> list[str]:
    """Return the modules in which the class of a relative mark was when it was recorded."""
    if data.main:
        return [data.main]
    names = (record.type, *data.bases)
    return [name.removesuffix(mark) for name in names if name.endswith(mark)]


def _lost(record: ErrorRecord, data: ErrorData, found: str) -> str:
    mark = (data.lineage or ("",))[0]
    where = f" (__main__ was {data.main})" if data.main else ""
    as_base = "" if record.type.endswith(mark.rpartition(":")[2]) else f", raised as {_shown(mark)}"
    return f"  recorded:  {record.type}{where}{as_base}\n  loaded:    {found}"


def _here(kind: type) -> str:
    return f"{class_name(kind)} ({file_of(kind.__module__)})"


def _shown(mark: str) -> str:
    return mark.removeprefix(".").replace(":", ".")


def made(
    kind: type[Exception], message: str, data: ErrorData, members: tuple[Exception, ...]
) -> Exception | None:
    """Return an exception of class ``kind`` with the text ``message``, `None` if there is none.

    It is made from all that is recorded or, as a base that knows less may want, from the message.
    """
    args = (message,) if data.args is None else tuple(data.args)
    # A KeyError's text is the repr of its key, which need not be JSON: a tuple is not.
    only = _Verbatim(message) if issubclass(kind, KeyError) else message
    for blueprint in (Blueprint(args, data.state, members), Blueprint((only,))):
        try:
            error = made_from(kind, message, data, blueprint)
        except Exception:  # noqa: S112 - whatever its builtin base, or its __str__, says
            continue
        if error is not None:
            return error
    return None


class _Verbatim(str):
    """A text that is its own repr."""

    __slots__ = ()
    __repr__ = str.__str__


def made_from(
    kind: type[Exception], message: str, data: ErrorData, blueprint: Blueprint
) -> Exception | None:
    attributes = {
        name: tuple(value) if name in data.tuples else value
        for name, value in data.attributes.items()
    }
    notes = attributes.get("__notes__", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        return None
    error = restore(kind, blueprint)
    set_attributes(error, attributes)
    if data.missing:
        absent_attributes.explain(error, data.missing)
    return error if str(error) == message else None


def stand_in(record: ErrorRecord, kind: type[OperationError]) -> OperationError:
    """Return a ``kind`` that carries ``record``; the class that it names is not looked for."""
    error = kind(record.message, error_type=record.type, stack_trace=record.stack_trace)
    return with_stack(error, record.stack_trace)


def misfit(fault: SerializationError, kind: type[OperationError]) -> OperationError:
    """Return a ``kind`` for a message from outside that could not be read."""
    error = kind(str(fault), error_type="SerializationError")
    error.__cause__ = fault
    return error


def class_name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
