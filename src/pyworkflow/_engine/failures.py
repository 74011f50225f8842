"""Exceptions to `ErrorRecord` and back.

A failed operation raises its own exception class again. The record is not trusted: whoever may
write to the history could name any class. So nothing is imported by a recorded name; a class is
found only in modules that were loaded when the process started its work (the same for a live run
and a replay), it must be an `Exception`, and it is made without its constructor. What does not come
back with the very same text comes back as the fallback class, which carries the record.
"""

from __future__ import annotations

import builtins
import re
import sys
import traceback
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pyworkflow._engine import codec
from pyworkflow._engine.failure_state import Blueprint, restore, state_of
from pyworkflow._engine.records import ErrorRecord
from pyworkflow._engine.transitions import MAX_ERROR_BYTES
from pyworkflow.errors import (
    CallbackError,
    InvokeError,
    OperationError,
    SerializationError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

E = TypeVar("E", bound=Exception)

STACK_NOTE = "Recorded stack trace (innermost last):\n"

_MOST_FRAMES = 200
_CUT = "… [truncated]"
_REFUSED = (StopIteration, StopAsyncIteration)
# Recorded as what they are: a name that somebody outside chose must never be looked for.
_FROM_OUTSIDE = (CallbackError, InvokeError)
_FRAME_START = re.compile(r'\n(?=  File ")')

_to_json = msgspec.json.Encoder().encode


class _Data(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What `ErrorRecord.data` holds, as JSON text."""

    bases: tuple[str, ...] = ()
    args: list[Any] | None = None
    attributes: dict[str, Any] = {}
    tuples: tuple[str, ...] = ()
    """The attributes that were tuples; JSON makes lists of them."""
    state: dict[str, Any] = {}
    """What certain builtins keep outside of their ``__dict__``."""
    group: tuple[ErrorRecord, ...] = ()


# -- recording -----------------------------------------------------------------------------------


RECORD_BYTES = MAX_ERROR_BYTES - 64
"""What may be written, less what the longer names of the fields on its wire may add."""


def record_error(error: BaseException, *, limit_bytes: int = RECORD_BYTES) -> ErrorRecord:
    """Return ``error`` as a record of at most ``limit_bytes`` as JSON.

    What is too long loses first the outermost frames, then the data, then the end of the message.
    """
    is_own = not isinstance(error, _FROM_OUTSIDE)
    if is_own and isinstance(error, OperationError) and vars(error).get("error_type"):
        # It stands for a recorded error; recording it anew would name the stand-in.
        record = ErrorRecord(
            _storable(error.message), error.error_type, None, tuple(error.stack_trace)
        )
        return _fitted(record, _Data(), limit_bytes)
    stack = _recorded_stack(error) or _stack(error.__traceback__)
    record = ErrorRecord(_text_of(error), _name(type(error)), None, stack)
    try:
        data = _data_of(error, limit_bytes)
    except Exception:
        # A property of the error's own raised. The record of a failure must not fail.
        data = _Data()
    return _fitted(record, data, limit_bytes)


def record_report(error: BaseException | str, kind: str | None = None) -> ErrorRecord:
    """Return the record of what somebody outside reports: a text, or an exception without more.

    ``kind`` is what the reporter calls it; default: the name of the exception's class. Raises
    `UsageError` for anything else, which would be a record that nobody can read.
    """
    if not (isinstance(error, (str, BaseException)) and isinstance(kind, (str, type(None)))):
        raise UsageError(
            f"an error is reported as text or as an exception, and its type as text, not as "
            f"{error!r} and {kind!r}"
        )
    if kind is None:
        kind = "" if isinstance(error, str) else type(error).__name__
    text = error if isinstance(error, str) else _text_of(error)
    return fitted(ErrorRecord(text, _storable(kind)))


def fitted(record: ErrorRecord, *, limit_bytes: int = RECORD_BYTES) -> ErrorRecord:
    """Return ``record`` as one of at most ``limit_bytes`` as JSON, shortened as by `record_error`.

    Its data is kept as a whole or not at all.
    """
    data = None if record.data is None else _storable(record.data)
    record = msgspec.structs.replace(record, message=_storable(record.message))
    return _within(limit_bytes, record, (data, None))


def _fitted(record: ErrorRecord, data: _Data, limit: int) -> ErrorRecord:
    candidates = (data, _Data(bases=data.bases), _Data())
    texts = [None if each == _Data() else _to_json(each).decode() for each in candidates]
    return _within(limit, record, texts)


def _within(limit: int, record: ErrorRecord, texts: Iterable[str | None]) -> ErrorRecord:
    """Return ``record`` with the first of ``texts`` for which there is room as its data."""
    bare = msgspec.structs.replace(record, data=None, stack_trace=())
    for text in texts:
        whole = msgspec.structs.replace(bare, data=text)
        room = limit - len(_to_json(whole))
        if room >= 0:
            frames = _innermost(record.stack_trace, room)
            return msgspec.structs.replace(whole, stack_trace=frames)
    shortest = msgspec.structs.replace(bare, message=_CUT)
    room = limit - len(_to_json(shortest))
    if room < 0:
        return ErrorRecord(_CUT)
    return msgspec.structs.replace(shortest, message=_cut(bare.message, room) + _CUT)


def _innermost(frames: tuple[str, ...], room: int) -> tuple[str, ...]:
    room -= len(',"stack_trace":[]')
    kept: deque[str] = deque()
    for frame in reversed(frames):
        room -= len(_to_json(frame)) + 1
        if room < 0:
            break
        kept.appendleft(frame)
    return tuple(kept)


def _cut(message: str, room: int) -> str:
    message = message[:room]
    while len(_to_json(message)) - 2 > room:
        message = message[: len(message) * 3 // 4]
    return message


def _data_of(error: BaseException, limit_bytes: int) -> _Data:
    bases = tuple(
        _name(base)
        for base in type(error).__mro__[1:]
        if issubclass(base, Exception) and base is not Exception
    )
    attributes: dict[str, Any] = {}
    tuples = []
    for name, value in vars(error).items():
        if name == "__notes__":
            value = _own_notes(value)  # noqa: PLW2901
            if not value:
                continue
        if isinstance(value, tuple) and type(value) is tuple and _survives(list(value)):
            attributes[name] = list(value)
            tuples.append(name)
        elif _survives(value):
            attributes[name] = value
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    share = limit_bytes // (2 * len(parts) or 1)
    args = list(error.args)
    return _Data(
        bases=bases,
        args=args if _survives(args) else None,
        attributes=attributes,
        tuples=tuple(tuples),
        state={name: each for name, each in state_of(error).items() if _survives(each)},
        group=tuple(record_error(part, limit_bytes=share) for part in parts),
    )


def _survives(value: object) -> bool:
    try:
        _, plain = codec.roundtrip(value, Any, what="part of an exception")
    except SerializationError:
        return False
    return codec.lossless(value, plain) is None


def _text_of(error: BaseException) -> str:
    try:
        return _storable(str(error))
    except Exception as fault:
        return f"<str() of this {type(error).__qualname__} failed: {type(fault).__name__}>"


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _stack(trace: TracebackType | None) -> tuple[str, ...]:
    frames: deque[Any] = deque(maxlen=_MOST_FRAMES)
    for frame, line in traceback.walk_tb(trace):
        if str(frame.f_globals.get("__name__")).partition(".")[0] != "pyworkflow":
            frames.append((frame, line))
    summary = traceback.StackSummary.extract(frames)
    return tuple(_storable(each.rstrip("\n")) for each in traceback.format_list(summary))


def _notes_of(error: BaseException) -> list[Any]:
    notes = object.__getattribute__(error, "__dict__").get("__notes__")
    return notes if isinstance(notes, list) else []


def _own_notes(notes: object) -> list[Any]:
    found = notes if isinstance(notes, list) else []
    return [note for note in found if not _is_stack_note(note)]


def _is_stack_note(note: object) -> bool:
    return isinstance(note, str) and note.startswith(STACK_NOTE)


def _recorded_stack(error: BaseException) -> tuple[str, ...]:
    """Return the frames that a rebuilt error brought along: they say where it began."""
    for note in _notes_of(error):
        if _is_stack_note(note):
            return tuple(_FRAME_START.split(note.removeprefix(STACK_NOTE)))
    return ()


def _name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


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

    def rebuild(self, record: ErrorRecord, fallback: type[OperationError]) -> Exception:
        """Return the recorded exception, as its own class where that is known and safe to make.

        Otherwise it is a ``fallback`` with the record's type, message and stack trace. Either has
        the recorded stack trace as its last note.
        """
        try:
            error = self._restored(record, fallback)
        except Exception:
            error = None
        return stand_in(record, fallback) if error is None else _with_stack(error, record)

    def _restored(self, record: ErrorRecord, fallback: type[OperationError]) -> Exception | None:
        data = msgspec.json.decode(record.data, type=_Data) if record.data else _Data()
        found = (self._find(name) for name in (record.type, *data.bases))
        kind = next(filter(None, found), None)
        if kind is None:
            return None
        attributes = {
            name: tuple(value) if name in data.tuples else value
            for name, value in data.attributes.items()
        }
        notes = attributes.get("__notes__", [])
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            return None
        blueprint = Blueprint(
            args=(record.message,) if data.args is None else tuple(data.args),
            state=data.state,
            group=tuple(self.rebuild(part, fallback) for part in data.group),
        )
        error = restore(kind, blueprint)
        object.__getattribute__(error, "__dict__").update(attributes)
        return error if str(error) == record.message else None

    def _find(self, name: str) -> type[Exception] | None:
        if "." not in name:
            return _exception_class(vars(builtins).get(name))
        module, _, rest = name.rpartition(".")
        names = [rest]
        while module not in self._modules:
            module, _, rest = module.rpartition(".")
            if not rest:
                return None
            names.insert(0, rest)
        return _exception_class(_walk(sys.modules.get(module), names))


def stand_in(record: ErrorRecord, kind: type[OperationError]) -> OperationError:
    """Return a ``kind`` that carries ``record``; the class that it names is not looked for."""
    error = kind(record.message, error_type=record.type, stack_trace=record.stack_trace)
    return _with_stack(error, record)


def misfit(fault: SerializationError, kind: type[OperationError]) -> OperationError:
    """Return a ``kind`` for what somebody outside sent, and could not be read."""
    error = kind(str(fault), error_type="SerializationError")
    error.__cause__ = fault
    return error


def _with_stack(error: E, record: ErrorRecord) -> E:
    if record.stack_trace:
        # Into its dictionary: a frozen dataclass and the like refuse to have attributes set.
        notes = [*_notes_of(error), STACK_NOTE + "\n".join(record.stack_trace)]
        object.__getattribute__(error, "__dict__")["__notes__"] = notes
    return error


def _walk(module: object, names: list[str]) -> object:
    """Follow ``names`` through dictionaries alone: no property and no ``__getattr__`` runs."""
    if module is None:
        return None
    found = object.__getattribute__(module, "__dict__").get(names[0])
    for name in names[1:]:
        if not issubclass(type(found), type):
            return None
        found = type.__dict__["__dict__"].__get__(found).get(name)
    return found


def _exception_class(found: Any) -> type[Exception] | None:
    # type(found), since isinstance() would ask a lazy proxy for its __class__.
    if not issubclass(type(found), type):
        return None
    mro = type.__dict__["__mro__"].__get__(found)
    if Exception not in mro or any(refused in mro for refused in _REFUSED):
        return None
    return found  # type: ignore[no-any-return]
