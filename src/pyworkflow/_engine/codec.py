"""Values to JSON text and back.

What is stored must come back: a value that JSON would change in silence (NaN, keys that collide as
text, an offset with seconds) is refused while its author can still see why. What JSON merely spells
differently, such as a `datetime`, comes back through the annotation, or as plain JSON without one.

The check is done backwards, at C speed. The text is decoded and encoded again: another text means
that keys collided. A ``null`` in it must have been `None` in the value. Only what looks suspicious
is walked through (`_engine/stumbles.py`), to find out where and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from pyworkflow._engine import pydantic_values
from pyworkflow._engine.annotations import parameter_annotations, return_annotation
from pyworkflow._engine.misfits import Text, find_misfit
from pyworkflow._engine.stumbles import find_stumble, lossless
from pyworkflow.errors import SerializationError

__all__ = [
    "Encoding",
    "decode",
    "decoder_for",
    "encode",
    "lossless",
    "parameter_annotations",
    "return_annotation",
    "roundtrip",
]

Decode = Callable[[bytes | str], object]


class Encoding:
    """How values are written and read that are not JSON of an annotation's: the caller says it.

    An operation, or a workflow, has one in the place of its result's type. What it raises is the
    error of the operation. No text is `None`.
    """

    __hash__ = None  # type: ignore[assignment] # no look-up in a cache of decoders may find one

    def encode(self, value: Any) -> str | None:
        """Return the text for ``value``."""
        raise NotImplementedError

    def decode(self, text: str | None) -> Any:
        """Return the value that ``text`` stands for."""
        raise NotImplementedError


def plain_form(value: object) -> object:
    """Return what stands in JSON for a value that msgspec does not know.

    Raises `TypeError` if nothing does.
    """
    if pydantic_values.is_model(value):
        return pydantic_values.dump(value)
    match value:
        case bool():
            # Only as a key is it unknown: there it would become "1".
            pass
        case float():
            return float.__float__(value)
        case int():
            return int.__int__(value)
        case str():
            return str.__str__(value)
        case bytes():
            return bytes.__getitem__(value, slice(None))
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


def _restore(kind: type, plain: object) -> object:
    if isinstance(plain, kind):  # of `object`, everything is
        return plain
    if pydantic_values.is_model_class(kind):
        return pydantic_values.load(kind, plain)
    for base in (float, int, str):
        if issubclass(kind, base) and isinstance(plain, base) and not isinstance(plain, bool):
            return kind(plain)
    raise ValueError(f"Expected `{kind.__qualname__}`, got `{type(plain).__name__}`")


_encode = msgspec.json.Encoder(enc_hook=plain_form).encode
_decode = msgspec.json.Decoder().decode

# NaN, infinity, and clock times whose offset may have had seconds: msgspec writes them, changed.
_SUSPECT_TEXT = re.compile(rb'(?:nan|inf)"|:\d\d(?:\.\d+)?[+-]\d\d:\d\d"').search
# Most texts do not even have this, which is found out in a third of the time.
_SUSPECT_END = re.compile(rb'"(?<=nan"|inf"|:\d\d")').search


def encode(value: object, *, what: object) -> str:
    """Return ``value`` as JSON text.

    ``what`` names it in messages, as its `str` does: ``"the result of step 'charge'"``.

    Raises `SerializationError` with the path to whatever can't be stored, or would be lost.
    """
    return _checked(value, what)[0].decode()


def decode(text: str | None, annotation: object = Any, *, what: object) -> object:
    """Return the value that JSON text stands for, converted to ``annotation``.

    No text is JSON null.

    Raises `SerializationError` with the path to whatever does not fit.
    """
    try:
        return _known_decoder(annotation)(text or "null")
    except Exception:  # an unhashable annotation, or a fault that is told here
        if isinstance(annotation, Encoding):
            return annotation.decode(text)
        return _load(text or "null", decoder_for(annotation, what=what), annotation, what)


def roundtrip(value: object, annotation: object, *, what: object) -> tuple[str, object]:
    """Return the JSON text of ``value``, and the value that ``annotation`` makes of that text.

    Raises `SerializationError` as `encode` and `decode` do, or what an `Encoding` raises.
    """
    if isinstance(annotation, Encoding):
        text: Any = annotation.encode(value)
        return text, annotation.decode(text)
    data, plain = _checked(value, what)
    if annotation is Any:
        return data.decode(), plain
    load = decoder_for(annotation, what=what)
    typed = _load(data, load, annotation, what)
    if isinstance(load, pydantic_values.Adapter) and _encode(typed) != data:
        raise SerializationError(
            f"{_start(what)} would not come back equal through {_name(annotation)}: "
            "what pydantic reads there differs from what was written."
        )
    return data.decode(), typed


def decoder_for(annotation: object, *, what: object) -> Decode:
    """Return the function from JSON text to ``annotation``; use it to check a type early.

    Raises `SerializationError` if values of that type can't be read from JSON.
    """
    if annotation is Any:
        return _decode
    try:
        hash(annotation)
    except TypeError:
        make: Callable[[object], Decode] = _make_decoder
    else:
        make = _known_decoder
    try:
        return make(annotation)
    except Exception as error:
        raise SerializationError(
            f"{_start(what)} can't be of the type {_name(annotation)}: {error}. Use JSON types, "
            "dataclasses, msgspec Structs, TypedDict, NamedTuple, Enum of all str or all int "
            "values, datetime, Decimal, UUID, bytes or pydantic models."
        ) from error


def _make_decoder(annotation: object) -> Decode:
    if pydantic_values.mentions(annotation, pydantic_values.is_dataclass):
        # msgspec takes it for a plain one and would leave out validators and Field(default=…).
        return pydantic_values.Adapter(annotation)
    try:
        return msgspec.json.Decoder(annotation, dec_hook=_restore).decode
    except TypeError:
        if not pydantic_values.mentions(annotation, pydantic_values.is_model_class):
            raise
        # A union of models, say, which msgspec can't tell apart.
        return pydantic_values.Adapter(annotation)


_known_decoder = lru_cache(maxsize=512)(_make_decoder)


def _checked(value: object, what: object) -> tuple[bytes, object]:
    try:
        data = _encode(value)
        plain = _decode(data)
        if _encode(plain) == data and not (_SUSPECT_END(data) and _SUSPECT_TEXT(data)):
            if b"null" not in data:
                return data, plain
            if msgspec.to_builtins(value, str_keys=True, enc_hook=plain_form) == plain:
                return data, plain
    except Exception as error:
        stumble = find_stumble(value, plain_form)
        path, fault = stumble or ("$", f"{type(error).__name__}: {error}")
        raise _refusal(what, path, fault) from error
    if stumble := find_stumble(value, plain_form):
        raise _refusal(what, *stumble)
    return data, plain


def _load(text: bytes | str, load: Decode, annotation: object, what: object) -> object:
    try:
        return load(text)
    except Exception as error:
        path, fault, cause = find_misfit(text, annotation, error, _read)
        raise SerializationError(
            f"{_start(what)} does not fit its type {_name(annotation)}: {fault} at {path}. "
            "Correct the value or the annotation.",
            path=path,
        ) from cause


def _read(text: Text, annotation: object) -> object:
    return decoder_for(annotation, what="a part of the value")(text)


def _refusal(what: object, path: str, fault: str) -> SerializationError:
    return SerializationError(
        f"{_start(what)} can't be stored as JSON: {path}: {fault}.", path=path
    )


def _start(what: object) -> str:
    text = str(what)
    return text[:1].upper() + text[1:]


def _name(annotation: object) -> str:
    return annotation.__qualname__ if type(annotation) is type else str(annotation)
