"""Which function turns JSON text into a value of a type, and what JSON form a value has.

msgspec reads all that it knows. pydantic reads what carries constraints of its own, and what
msgspec can't distinguish. Values that pydantic once accepted but refuses today can be read
without that check: a replay does not ask again whether a date lies in the future.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.constraints import Survey, UnenforcedError, for_pydantic
from pyworkflow._values.equality import is_told_by_equality

Decode = Callable[[bytes | str], object]


def plain_form(value: object) -> object:
    """Return what stands in JSON for a value that msgspec does not know.

    Raises `TypeError` if nothing does.
    """
    if pydantic_models.is_model(value):
        return pydantic_models.dump(value)
    if (text := pydantic_models.plain_scalar(value)) is not None:
        return text
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


_adapter_of = lru_cache(maxsize=128)(pydantic_models.Adapter)


def _restore(kind: type, plain: object) -> object:
    if isinstance(plain, kind):  # of `object`, everything is
        return plain
    if pydantic_models.is_model_class(kind):
        return pydantic_models.load(kind, plain)
    if pydantic_models.is_type(kind):
        return _adapter_of(kind)(to_json(plain))
    for base in (float, int, str):
        if issubclass(kind, base) and isinstance(plain, base) and not isinstance(plain, bool):
            return kind(plain)
    raise ValueError(f"Expected `{kind.__qualname__}`, got `{type(plain).__name__}`")


to_json = msgspec.json.Encoder(enc_hook=plain_form).encode
from_json = msgspec.json.Decoder().decode


class Reader(NamedTuple):
    """How text becomes a value of one type.

    ``tells_by_equality`` says that such a value differs from another one if ``==`` says so.
    """

    load: Decode
    tells_by_equality: bool


def make_reader(annotation: object) -> Reader:
    return Reader(make_decoder(annotation), is_told_by_equality(annotation))


def make_decoder(annotation: object) -> Decode:
    survey = Survey(annotation)
    if survey.fault is not None:
        raise UnenforcedError(survey.fault)
    if survey.is_pydantics:
        # msgspec would leave out validators, constraints and Field(default=…).
        return pydantic_models.Adapter(for_pydantic(annotation))
    try:
        return msgspec.json.Decoder(annotation, dec_hook=_restore).decode
    except TypeError:
        if not pydantic_models.mentions(annotation, _is_pydantics):
            raise
        # A union of models, say, which msgspec can't distinguish.
        return pydantic_models.Adapter(for_pydantic(annotation))


def _is_pydantics(kind: type) -> bool:
    return pydantic_models.is_model_class(kind) or pydantic_models.is_type(kind)


known_reader = lru_cache(maxsize=512)(make_reader)


def lenient(annotation: object) -> Iterator[Decode]:
    """Return the ways to read what pydantic refuses now, the strictest first."""
    with suppress(Exception):
        yield pydantic_models.Adapter(for_pydantic(annotation)).reread
    with suppress(TypeError):
        yield msgspec.json.Decoder(annotation, dec_hook=_restore).decode
