"""Values to JSON text and back.

What is stored must come back: a value that JSON would change in silence (NaN, keys that collide as
text, an offset with seconds) is refused while its author can still see why. Values that JSON
only spells differently, such as a `datetime`, come back through the annotation, or as plain JSON
without one.

That check is done backwards, at C speed. The text is decoded and encoded again: another text means
that keys collided. A ``null`` in it must have been `None` in the value. Only what looks suspicious
is walked through (`_values/roundtrip.py`), to find out where and why.

What is about to be recorded must also come back equal through its annotation. Where the type has
builtins alone, one comparison suffices; any other is compared by structure (`_values/losses.py`).
Recorded values are not judged again: a replay reads them as they were read when recorded, even if a
validator now refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.annotations import (
    parameter_annotations,
    replace_parts,
    return_annotation,
)
from pyworkflow._values.constraints import Survey, UnenforcedError
from pyworkflow._values.losses import Loss, find_loss
from pyworkflow._values.misfits import Text, find_misfit
from pyworkflow._values.paths import step_to
from pyworkflow._values.readers import (
    Decode,
    Reader,
    from_json,
    known_reader,
    lenient,
    make_decoder,
    make_reader,
    plain_form,
    to_json,
)
from pyworkflow._values.roundtrip import find_stumble, lossless
from pyworkflow.errors import SerializationError

__all__ = [
    "Decode",
    "Encoding",
    "admit",
    "copied",
    "decode",
    "decoder_for",
    "encode",
    "lossless",
    "parameter_annotations",
    "plain_form",
    "reread",
    "return_annotation",
    "roundtrip",
    "text_of",
]


class Encoding:
    """How values are written and read that are not JSON of an annotation's: the caller says it.

    An operation, or a workflow, has one in place of its result's type. An error it raises is the
    operation's error. Without text, the value is `None`.
    """

    __hash__ = None  # type: ignore[assignment] # no look-up in a cache of decoders may find one

    def encode(self, value: Any) -> str | None:
        """Return the text for ``value``."""
        raise NotImplementedError

    def decode(self, text: str | None) -> Any:
        """Return the value that ``text`` stands for."""
        raise NotImplementedError


# NaN, infinity, and clock times whose offset may have had seconds: msgspec writes them, changed.
_SUSPECT_TEXT = re.compile(rb'(?:nan|inf)"|:\d\d(?:\.\d+)?[+-]\d\d:\d\d"').search
# Most texts do not even have this, which is found out in a third of the time.
_SUSPECT_END = re.compile(rb'"(?<=nan"|inf"|:\d\d")').search


def encode(value: object, *, what: object) -> str:
    """Return ``value`` as JSON text.

    ``what`` names it in messages, as its `str` does: ``"the result of step 'charge'"``.

    Raises `SerializationError` with the path to whatever can't be stored, or would be lost to
    whoever reads it as what it is.
    """
    data, plain = _checked(value, what)
    if not _is_equal(value, plain):
        if not _is_own_form(value) and (loss := find_loss(value, plain)) is not None:
            raise _changed(what, Any, loss)
        _check_instances(value, what)
    return data.decode()


def decode(text: str | None, annotation: object = Any, *, what: object) -> object:
    """Return the value that recorded JSON text stands for, converted to ``annotation``.

    No text is JSON null. Values that a pydantic constraint or validator refuses today were
    accepted when recorded, so they are read without it.

    Raises `SerializationError` with the path to whatever does not fit.
    """
    try:
        return known_reader(annotation).load(text or "null")
    except Exception:  # an unhashable annotation, or a fault that is reported here
        if isinstance(annotation, Encoding):
            return annotation.decode(text)
        try:
            return admit(text, annotation, what=what)
        except SerializationError as error:
            if pydantic_models.faults_of(error):
                for load in lenient(annotation):
                    try:
                        return load(text or "null")
                    except Exception:  # noqa: S112 - the first error is the one to report
                        continue
            raise


def admit(text: str | None, annotation: object, *, what: object) -> object:
    """Do what `decode` does for text that comes from outside: all constraints apply."""
    return _load(text or "null", _reader(annotation, what).load, annotation, what)


def roundtrip(value: object, annotation: object, *, what: object) -> tuple[str, object]:
    """Return the JSON text of ``value``, and the value that ``annotation`` makes of that text.

    Raises `SerializationError` as `encode` and `admit` do, also where the two values differ; or
    what an `Encoding` raises.
    """
    if isinstance(annotation, Encoding):
        text: Any = annotation.encode(value)
        return text, annotation.decode(text)
    data, plain = _checked(value, what)
    typed, tells = plain, True
    if annotation is not Any:
        load, tells = _reader(annotation, what)
        try:
            typed = _load(data, load, annotation, what)
        except SerializationError as error:
            if (loss := find_loss(value, plain)) is not None:  # a field is missing, for example
                raise _changed(what, annotation, loss) from error
            raise
    if tells and _is_equal(value, typed):
        return data.decode(), typed
    if (typed is plain or (tells and _is_equal(typed, plain))) and _is_own_form(value):
        return data.decode(), typed
    if (loss := find_loss(value, typed)) is not None:
        raise _changed(what, annotation, loss, value, data)
    return data.decode(), typed


def text_of(value: object, *, what: object) -> str:
    """Return ``value`` as JSON text; what its reader would lose is not looked for.

    For what a replay writes again. Raises `SerializationError` for what can't be stored.
    """
    return _checked(value, what)[0].decode()


def reread(value: object, annotation: object, *, what: object) -> tuple[str, object]:
    """Do what `roundtrip` does for a value that was recorded before: it is not judged again.

    A replay makes it anew where it was too large to be stored.
    """
    if isinstance(annotation, Encoding):
        return roundtrip(value, annotation, what=what)
    text = text_of(value, what=what)
    return text, decode(text, annotation, what=what)


def copied(value: object, annotation: object, *, what: object) -> object:
    """Return a copy of a value that came back through ``annotation`` before."""
    return reread(value, annotation, what=what)[1]


def decoder_for(annotation: object, *, what: object) -> Decode:
    """Return the function from JSON text to ``annotation``; use it to check a type early.

    Raises `SerializationError` if values of that type can't be read from JSON, or if a constraint
    in it would not be enforced.
    """
    return from_json if annotation is Any else _reader(annotation, what).load


def check_outside(annotation: object, *, what: object) -> None:
    """Check the type of a value that others send, and that each replay reads anew.

    Raises `SerializationError` as `decoder_for` does, or if values of that type are good at one
    time and not at another.
    """
    decoder_for(annotation, what=what)
    if (part := Survey(annotation).reads_clock) is not None:
        raise SerializationError(
            f"{_start(what)} can't be of the type {_name(annotation)}: whether a value fits {part} "
            "depends on when it is read, and each replay reads it again. Use date or datetime, and "
            "compare it with ctx.now()."
        )


def _reader(annotation: object, what: object) -> Reader:
    try:
        return known_reader(annotation)
    except Exception as error:
        fault = error
    if isinstance(fault, TypeError):  # it may be unhashable alone
        try:
            return make_reader(annotation)
        except Exception as error:
            fault = error
    remedy = (
        ""
        if isinstance(fault, UnenforcedError)
        else " Use JSON types, dataclasses, msgspec Structs, TypedDict, NamedTuple, Enum of all "
        "str or all int values, datetime, Decimal, UUID, bytes or pydantic models."
    )
    raise SerializationError(
        f"{_start(what)} can't be of the type {_name(annotation)}: {fault}.{remedy}"
    ) from fault


# -- what would be lost --------------------------------------------------------------------------


def _is_equal(value: object, typed: object) -> bool:
    try:
        return bool(value == typed)
    except Exception:  # whatever the value's own code raises
        return False


def _is_own_form(value: object) -> bool:
    """Whether the JSON form of ``value`` is msgspec's: code of pydantic's made no part of it.

    Such a form has all that is stored, so a reader of the form itself loses nothing.
    """
    try:
        _builtin_json(value)
    except Exception:
        return False
    return True


_builtin_json = msgspec.json.Encoder().encode


def _check_instances(value: object, what: object, place: str = "") -> None:
    """Refuse instances that their own class would not read as they are."""
    match value:
        case dict():
            parts: Iterable[tuple[object, object]] = value.items()
        case list() | tuple() | set() | frozenset():
            parts = enumerate(value)
        case _:
            kind: Any = type(value)
            try:
                data = to_json(value)
                typed = known_reader(kind).load(data)
            except Exception:
                return  # whoever reads it takes it as something else
            if (loss := find_loss(value, typed)) is not None:
                loss.path = place + loss.path
                raise _changed(what, kind, loss, value, data)
            return
    for at, each in parts:
        if type(each) not in _JSON_SCALARS:
            _check_instances(each, what, place + step_to(at))


_JSON_SCALARS = frozenset({str, int, float, bool, type(None)})


def _changed(
    what: object, annotation: object, loss: Loss, value: object = None, data: bytes = b""
) -> SerializationError:
    path = f"${loss.path}"
    remedy = _remedy(loss, annotation, value, data) if loss.kinds is not None else loss.remedy
    return SerializationError(
        f"{_start(what)} would not come back equal through {_name(annotation)}: {path}: "
        f"{loss.fault}. {remedy}.",
        path=path,
    )


def _remedy(loss: Loss, annotation: object, value: object, data: bytes) -> str:
    """Return what helps where a value came back as an instance of another class."""
    assert loss.kinds is not None
    found, back = loss.kinds
    union = back | found
    itself = f"or return an instance of {back.__qualname__} itself"
    wider = replace_parts(annotation, lambda part: union if part is back else part)
    if wider is not annotation:
        try:
            if find_loss(value, make_decoder(wider)(data)) is None:
                return f"Annotate {_name(wider)}, {itself}"
        except Exception:  # noqa: S110 - it does not help
            pass
    else:
        try:
            make_decoder(union)
        except Exception:  # noqa: S110 - as above
            pass
        else:
            return f"Annotate that field with {_name(union)}, {itself}"
    return (
        f"Annotate {found.__qualname__} there, if it always is one; for a mixture of both, make "
        "them pydantic models, or msgspec Structs with tag=True, and annotate their union; "
        f"{itself}"
    )


# -- what can't be stored ------------------------------------------------------------------------


def _checked(value: object, what: object) -> tuple[bytes, object]:
    try:
        data = to_json(value)
        plain = from_json(data)
        if to_json(plain) == data and not (_SUSPECT_END(data) and _SUSPECT_TEXT(data)):
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
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
