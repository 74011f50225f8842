"""Where a stored value does not fit its annotation.

The walk descends into the text and the annotation side by side, to the smallest part that can't be
read. The path comes from the walk alone: libraries word their errors as they like, and change the
words. It runs only after reading has failed, so it costs nothing otherwise.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.paths import step_to

Text = bytes | str
Read = Callable[[Text, object], object]

MARKS = (typing.Annotated, typing.Required, typing.NotRequired)
UNIONS = (typing.Union, types.UnionType)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_COLLECTIONS = (
    list,
    set,
    frozenset,
    collections.abc.Collection,
    collections.abc.MutableSequence,
    collections.abc.MutableSet,
    collections.abc.Sequence,
    collections.abc.Set,
)


class Misfit(NamedTuple):
    """The smallest part of a value that does not fit, and the error of reading it alone."""

    path: str
    fault: str
    error: Exception


class _Part(NamedTuple):
    step: str
    text: bytes
    annotation: object


def find_misfit(text: Text, annotation: object, error: Exception, read: Read) -> Misfit:
    """Return the place of ``error``, which ``read(text, annotation)`` raised.

    What the walk can't look into counts as one part, and so does what pydantic reads, if it found
    several faults: its error names them all.
    """
    path = "$"
    while not pydantic_models.tells_several(error) and (
        found := _failing_part(text, annotation, read)
    ):
        (step, text, annotation), error = found
        path += step
    if key := _failing_key(text, annotation, read):
        return Misfit(path, key, error)
    fault = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return Misfit(path, fault, error)


def _failing_part(text: Text, annotation: object, read: Read) -> tuple[_Part, Exception] | None:
    if pydantic_models.mentions(annotation, pydantic_models.is_dataclass):
        return None
    try:
        parts = list(_parts(text, annotation))
    except Exception:  # broken text, or an annotation without known parts
        return None
    for part in parts:
        try:
            read(part.text, part.annotation)
        except Exception as error:
            return part, error
    return None


def _failing_key(text: Text, annotation: object, read: Read) -> str | None:
    for kind, arguments in members(annotation):
        if kind not in _MAPPINGS or len(arguments) != 2:
            continue
        with contextlib.suppress(msgspec.DecodeError, UnicodeError):  # not an object
            for key in _object(text):
                try:
                    read(msgspec.json.encode({key: None}), dict[arguments[0], Any])  # type: ignore[valid-type]
                except Exception:
                    name = getattr(arguments[0], "__qualname__", arguments[0])
                    return f"the key {key!r} can't be read as {name}"
    return None


def _parts(text: Text, annotation: object) -> Iterator[_Part]:
    kinds = list(members(annotation))
    tags = {tag: kind for kind, _ in kinds if (tag := _tag(kind)) is not None}
    if tags:
        step, found = _found_tag(text, next(iter(tags.values())))
        tag = msgspec.json.decode(found)
        if tag not in tags:
            yield _Part(step, found, typing.Literal.__getitem__(tuple(tags)))
        kinds = [each for each in kinds if _tag(each[0]) in (None, tag)]
    for kind, arguments in kinds:
        with contextlib.suppress(msgspec.DecodeError):  # the text is of another JSON type
            yield from _parts_of_kind(text, kind, arguments)


def _parts_of_kind(text: Text, kind: Any, arguments: tuple[Any, ...]) -> Iterator[_Part]:
    if kind in _MAPPINGS and len(arguments) == 2:
        for key, each in _object(text).items():
            yield _Part(step_to(key), each, arguments[1])
    elif (kind in _COLLECTIONS and arguments) or arguments[1:] == (...,):
        for at, each in enumerate(_array(text)):
            yield _Part(f"[{at}]", each, arguments[0])
    elif kind is tuple:
        yield from _by_position(text, arguments)
    elif (fields := _fields(kind, arguments)) is not None:
        if _is_array(kind):
            yield from _by_position(text, (*[Any] * (_tag(kind) is not None), *fields.values()))
            return
        entries = _object(text)
        for name, annotation in fields.items():
            if name in entries:
                yield _Part(step_to(name), entries[name], annotation)


def _by_position(text: Text, annotations: Iterable[object]) -> Iterator[_Part]:
    for at, (each, annotation) in enumerate(zip(_array(text), annotations, strict=False)):
        yield _Part(f"[{at}]", each, annotation)


def members(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield class and type arguments of ``annotation``: of each member, if it is a union."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in MARKS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(origin or annotation, "__value__"):  # type X = …, perhaps with parameters
            value = (origin or annotation).__value__
            annotation = value[typing.get_args(annotation)] if origin else value
        elif origin in UNIONS:
            for each in typing.get_args(annotation):
                yield from members(each)
            return
        else:
            yield origin or annotation, typing.get_args(annotation)
            return


def _fields(kind: Any, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    """Return the annotation of each field of a class by its name in JSON, `None` if it has none."""
    fields = fields_of(kind, arguments)
    if fields is None:
        return None
    return dict(
        zip(getattr(kind, "__struct_encode_fields__", fields), fields.values(), strict=True)
    )


def fields_of(kind: Any, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    """Return the annotation of each field of a class by its name, `None` if it has none.

    ``arguments`` are those of a generic class. Raises if an annotation can't be evaluated.
    """
    if not isinstance(kind, type):
        return None
    names: Iterable[str]
    if issubclass(kind, msgspec.Struct):
        names = kind.__struct_fields__
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__]
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = kind._fields
    elif typing.is_typeddict(kind):
        names = kind.__annotations__
    else:
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    given = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    return {name: _substituted(hints.get(name, Any), given) for name in names}


def _substituted(annotation: Any, given: dict[Any, Any]) -> Any:
    if annotation in given:
        return given[annotation]
    open_parameters = getattr(annotation, "__parameters__", ())
    if typing.get_origin(annotation) is None or not open_parameters:
        return annotation
    return annotation[tuple(given.get(each, Any) for each in open_parameters)]


def _is_array(kind: Any) -> bool:
    if issubclass(kind, msgspec.Struct):
        return bool(kind.__struct_config__.array_like)
    return issubclass(kind, tuple)


def _tag(kind: Any) -> str | int | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.tag
    return None


def _found_tag(text: Text, kind: Any) -> tuple[str, bytes]:
    if _is_array(kind):
        return "[0]", _array(text)[0]
    field = kind.__struct_config__.tag_field
    return step_to(field), _object(text)[field]


def _object(text: Text) -> dict[str, bytes]:
    entries = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return {key: bytes(each) for key, each in entries.items()}


def _array(text: Text) -> list[bytes]:
    return list(map(bytes, msgspec.json.decode(text, type=list[msgspec.Raw])))
