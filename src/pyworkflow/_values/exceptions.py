"""Exceptions to `ErrorRecord` and back.

A failed operation raises its own exception class again. The record is not trusted: whoever may
write to the history could name any class. So nothing is imported by a recorded name; a class is
found only in modules that were loaded when the process started its work (the same for a live run
and a replay), it must be an `Exception`, and it is made without its constructor. An exception
whose text would differ comes back as the fallback class, which carries the record.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pyworkflow._protocol.limits import RECORD_BYTES, fitted, storable, with_data, with_message_cut
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values import absent_attributes, codec
from pyworkflow._values.exception_classes import (
    NOWHERE,
    UnknownClassError,
    canonical,
    dictionary,
    exception_class,
    find,
    mark_of,
    walk,
)
from pyworkflow._values.exception_rebuilding import (
    ErrorData,
    LostClassError,
    class_name,
    decoded,
    delivered,
    made,
    made_from,
    stand_in,
)
from pyworkflow._values.exception_stacks import is_stack_note, stack_of, with_stack
from pyworkflow._values.exception_state import Blueprint, attributes_of, state_of
from pyworkflow.errors import (
    CallbackError,
    InvokeError,
    OperationError,
    SerializationError,
    UsageError,
)

if TYPE_CHECKING:
    from pyworkflow._values.exception_classes import Home

# Recorded as what they are: a name chosen outside must never be looked for.
_FROM_OUTSIDE = (CallbackError, InvokeError)

_to_json = msgspec.json.Encoder().encode


# -- recording -----------------------------------------------------------------------------------


def record_error(error: BaseException, *, limit_bytes: int = RECORD_BYTES) -> ErrorRecord:
    """Return ``error`` as a record of at most ``limit_bytes`` as JSON, without a mark.

    A record that is too long loses first the middle of the stack, then the data, then the end of
    the message. Errors that a replay raises again are recorded by `KnownErrors.record`.
    """
    return _recorded(error, limit_bytes, None)


def _recorded(error: BaseException, limit: int, marker: _Marker | None) -> ErrorRecord:
    is_own = not isinstance(error, _FROM_OUTSIDE)
    if is_own and isinstance(error, OperationError) and vars(error).get("error_type"):
        # It stands for a recorded error; recording it anew would name the stand-in.
        record = ErrorRecord(
            storable(error.message), error.error_type, None, tuple(error.stack_trace)
        )
        return _fitted(record, ErrorData(), limit, _unmarked if marker is None else _as_stand_in)
    record = ErrorRecord(_text_of(error), class_name(type(error)), None, stack_of(error))
    try:
        data = _data_of(error, limit, marker)
    except Exception:
        # A property of the error's own raised. The record of a failure must not fail.
        data = ErrorData()
    mark = _unmarked if marker is None else functools.partial(marker.mark, type(error))
    return _fitted(record, data, limit, mark)


_Mark = Callable[[str, ErrorData], ErrorData]
"""From the text and the data of an error that are to be stored, to that data with a mark."""


def _unmarked(_: str, data: ErrorData) -> ErrorData:
    return data


def _as_stand_in(_: str, data: ErrorData) -> ErrorData:
    return replace(data, lineage=())


def record_report(error: BaseException | str, kind: str | None = None) -> ErrorRecord:
    """Return the record of an error reported from outside: a text, or an exception without more.

    ``kind`` is what the reporter calls it; default: the name of the exception's class. Raises
    `UsageError` for anything else, which would be an unreadable record.
    """
    if not (isinstance(error, (str, BaseException)) and isinstance(kind, (str, type(None)))):
        raise UsageError(
            f"an error is reported as text or as an exception, and its type as text, not as "
            f"{error!r} and {kind!r}"
        )
    if kind is None:
        kind = "" if isinstance(error, str) else type(error).__name__
    text = error if isinstance(error, str) else _text_of(error)
    return fitted(ErrorRecord(text, storable(kind)))


def _fitted(record: ErrorRecord, data: ErrorData, limit: int, mark: _Mark) -> ErrorRecord:
    too_large = dict.fromkeys(data.attributes, absent_attributes.TOO_LARGE) | data.missing
    bases = ErrorData(bases=data.bases)
    for each in (data, replace(bases, missing=too_large), bases, ErrorData()):
        text = _text_of_data(mark(record.message, each))
        if (found := with_data(record, text, limit)) is not None:
            return found
    return with_message_cut(record, limit, lambda text: _text_of_data(mark(text, ErrorData())))


def _text_of_data(data: ErrorData) -> str | None:
    return None if data == ErrorData() else _to_json(data).decode()


def _data_of(error: BaseException, limit: int, marker: _Marker | None) -> ErrorData:
    bases = tuple(
        class_name(base)
        for base in type(error).__mro__[1:]
        if issubclass(base, Exception) and base is not Exception
    )
    attributes: dict[str, Any] = {}
    tuples = []
    missing = absent_attributes.missing_in(error)
    for name, value in attributes_of(error).items():
        if name == "__notes__":
            value = _own_notes(value)  # noqa: PLW2901
            if not value:
                continue
        if isinstance(value, tuple) and type(value) is tuple and _survives(list(value)):
            attributes[name] = list(value)
            tuples.append(name)
        elif _survives(value):
            attributes[name] = value
        else:
            missing[name] = class_name(type(value))
    attributes.pop(absent_attributes.KEY, None)
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    share = limit // (2 * len(parts) or 1)
    args = list(error.args)
    return ErrorData(
        bases=bases,
        args=args if _survives(args) else None,
        attributes=attributes,
        tuples=tuple(tuples),
        missing={name: kind for name, kind in missing.items() if name not in attributes},
        state={name: each for name, each in state_of(error).items() if _survives(each)},
        group=tuple(_recorded(part, share, marker) for part in parts),
    )


def _survives(value: object) -> bool:
    try:
        _, plain = codec.roundtrip(value, Any, what="part of an exception")
    except SerializationError:
        return False
    return codec.lossless(value, plain) is None


def _text_of(error: BaseException) -> str:
    try:
        return storable(str(error))
    except Exception as fault:
        return f"<str() of this {type(error).__qualname__} failed: {type(fault).__name__}>"


def _own_notes(notes: object) -> list[Any]:
    found = notes if isinstance(notes, list) else []
    return [note for note in found if not is_stack_note(note)]


class _Marker:
    """Decides as which class an error is delivered, live and on every replay."""

    __slots__ = ("_home", "_modules")

    def __init__(self, modules: frozenset[str], home: Home) -> None:
        self._modules = modules
        self._home = home

    def mark(self, own: type, message: str, data: ErrorData) -> ErrorData:
        """Return ``data`` with the class as which an error of class ``own`` is delivered.

        It is the nearest of the class and its bases that is known since the start, and of which
        an exception with this text can be made.
        """
        try:
            members = tuple([delivered(part, OperationError, self._home) for part in data.group])
            for kind in own.__mro__:
                mark = self._mark_of(kind) if kind is own else self._mark_of_base(kind)
                if mark is not None and made(kind, message, data, members) is not None:
                    return self._marked(data, kind, mark)
        except Exception:  # noqa: S110 - of a metaclass, say: the record must not fail
            pass
        return replace(data, lineage=())

    def _marked(self, data: ErrorData, kind: type, mark: str) -> ErrorData:
        lineage = (mark, *filter(None, map(self._mark_of_base, kind.__mro__[1:])))
        name = str(self._home.get("__name__"))
        main = canonical(name)
        is_needed = main != name and any(each.startswith(".") for each in lineage)
        return replace(data, lineage=lineage, main=main if is_needed else "")

    def _mark_of_base(self, kind: type) -> str | None:
        # A plain Exception has a better stand-in.
        return None if kind is Exception else self._mark_of(kind)

    def _mark_of(self, kind: type) -> str | None:
        """Return a mark by which ``kind`` is found here, `None` if there is none."""
        if exception_class(kind) is None or "<locals>" in kind.__qualname__:
            return None
        module = kind.__module__
        is_home = module == self._home.get("__name__")
        if not (is_home or module in self._modules):
            return None
        homes = (self._home, NOWHERE) if is_home else (self._home,)
        for mark in (mark_of(kind, home) for home in homes):
            try:
                if find(mark, self._home) is kind:
                    return mark
            except UnknownClassError:
                continue
        return None


# -- restoring -----------------------------------------------------------------------------------


class KnownErrors:
    """The modules in which recorded exception classes are looked for."""

    __slots__ = ("_modules",)

    def __init__(self, modules: frozenset[str]) -> None:
        self._modules = modules

    @classmethod
    def snapshot(cls) -> KnownErrors:
        """Know the modules that are loaded now."""
        return cls(frozenset(sys.modules))

    def record(
        self, error: BaseException, home: Home, *, limit_bytes: int = RECORD_BYTES
    ) -> ErrorRecord:
        """Return ``error`` as `record_error` does, with the class as which it is delivered.

        ``home`` are the globals of the function that raised it.
        """
        return _recorded(error, limit_bytes, _Marker(self._modules, home))

    def rebuild(
        self, record: ErrorRecord, fallback: type[OperationError], home: Home = NOWHERE
    ) -> Exception:
        """Return the recorded exception, as the class that was decided upon when it was recorded.

        Of a record without such a mark it is its own class, where that is known and safe to make.
        Otherwise it is a ``fallback`` with the record's type, message and stack trace. Either has
        the recorded stack trace as its last note.

        Raises `LostClassError` where a mark leads to no such class.
        """
        data = decoded(record)
        if data is not None and data.lineage is not None:
            return delivered(record, fallback, home)
        return self._by_name(record, data, fallback)

    def rebuild_for_client(self, record: ErrorRecord, fallback: type[OperationError]) -> Exception:
        """Return the exception with which a whole execution failed: nothing replays it.

        So a class known only here will do, and a missing class does no harm.
        """
        data = decoded(record)
        if data is not None and data.lineage:
            try:
                return delivered(record, fallback, NOWHERE)
            except LostClassError:
                pass
        return self._by_name(record, data, fallback)

    def _by_name(
        self, record: ErrorRecord, data: ErrorData | None, fallback: type[OperationError]
    ) -> Exception:
        try:
            error = self._restored(record, data, fallback)
        except Exception:
            error = None
        return (
            stand_in(record, fallback) if error is None else with_stack(error, record.stack_trace)
        )

    def _restored(
        self, record: ErrorRecord, data: ErrorData | None, fallback: type[OperationError]
    ) -> Exception | None:
        if data is None:
            return None
        found = (self._find(name) for name in (record.type, *data.bases))
        kind = next(filter(None, found), None)
        if kind is None:
            return None
        members = tuple([self.rebuild_for_client(part, fallback) for part in data.group])
        args = (record.message,) if data.args is None else tuple(data.args)
        return made_from(kind, record.message, data, Blueprint(args, data.state, members))

    def _find(self, name: str) -> type[Exception] | None:
        if "." not in name:
            return exception_class(vars(builtins).get(name))
        module, _, rest = name.rpartition(".")
        names = [rest]
        while module not in self._modules:
            module, _, rest = module.rpartition(".")
            if not rest:
                return None
            names.insert(0, rest)
        return exception_class(walk(dictionary(sys.modules.get(module)), names))
