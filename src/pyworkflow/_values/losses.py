"""The losses of a value on its way to JSON text and back through its annotation.

The comparison is by structure: equality that a class defines may leave fields out, and equality
that it inherits knows identity alone. Whatever only spells a value differently counts as equal:

* a container as another kind of container with the same items, an int as a float, a `Decimal` or a
  time of another form that is equal, a scalar as an instance of the base that is annotated;
* a rich value as its plain JSON, where the annotation asks for nothing more (`Any`, `dict`, `str`);
* plain JSON as the richer value that the annotation makes of it, if no key is left over.

An instance that comes back as one of another class, a field, a key, an item or an attribute that is
missing or different is a loss.
"""

from __future__ import annotations

import datetime
import types
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.equality import ATOMS, BASES
from pyworkflow._values.members import Fields, fields_of, is_cached, slots_of, state_of
from pyworkflow._values.paths import shown, step_to

_MISSING: Any = msgspec.UNSET
_BY_IDENTITY: Any = object.__eq__
_JSON_SCALARS = (str, int, float, types.NoneType)
_NUMBERS = (int, float, Decimal)
_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)
_CONTAINERS = (*_SEQUENCES, *_SETS)

_BY_CODE = (
    "Its `__post_init__`, a validator or a serializer changes it each time that it is read or "
    "written; let it leave unchanged what was stored"
)
_AS_FIELD = "Make it a field that is stored, or leave it out of the value"


class Loss(msgspec.Struct):
    """A difference. ``kinds`` are the class of the value and the one that it came back as."""

    fault: str
    remedy: str = _BY_CODE
    path: str = ""
    kinds: tuple[type, type] | None = None


def find_loss(value: object, typed: object) -> Loss | None:
    """Return the first thing that ``value`` lost when it came back as ``typed``, `None` if nothing.

    What nests too deep for Python to walk through counts as equal.
    """
    try:
        if type(value) is type(typed) and _have_one_state(value, typed):
            return None
        return _Comparison().visit(value, typed)
    except RecursionError:
        return None
    except Exception as error:  # whatever the value's own code raises
        return Loss(
            f"can't be compared with what was stored ({type(error).__name__}: {error})",
            "Let its `__eq__` and its properties raise nothing",
        )


class _Comparison:
    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._may_be_text = False

    def visit(self, value: Any, typed: Any) -> Loss | None:
        if value is typed:
            return None
        kind: Any = type(value)
        if kind in ATOMS:
            if kind is not Decimal and value == typed:
                return None
            return _scalar_loss(value, typed) or self._read_text(value, typed)
        if isinstance(value, dict):
            return self._mapping(value, typed)
        if isinstance(value, _CONTAINERS):
            return self._items(value, typed)
        fields = fields_of(kind)
        if fields is not None:
            return self._fields(value, typed, fields)
        if isinstance(value, Enum):
            if isinstance(typed, Enum):
                return _replaced(value, typed)
            return None if value == typed else self.visit(value.value, typed)
        if isinstance(value, BASES):
            loss = _scalar_loss(value, typed)
            if loss is None and kind is type(typed):
                return self._hidden(value, typed, frozenset(), ())
            return loss
        return self._unknown(value, typed)

    # -- containers ------------------------------------------------------------------------------

    def _mapping(self, value: Mapping[Any, Any], typed: Any) -> Loss | None:
        if isinstance(typed, Mapping):
            if value.keys() <= typed.keys():
                if list(value) == list(typed) and _are_alike(value.values(), typed.values()):
                    return None
                return self._pairs((k, v, typed[k]) for k, v in value.items())
            if len(value) > len(typed):
                return _lost_keys([key for key in value if key not in typed])
            for key, other in zip(value, typed, strict=False):
                if (loss := self.visit(key, other)) is not None:
                    return loss
            return self._pairs(
                (k, v, b) for (k, v), b in zip(value.items(), typed.values(), strict=False)
            )
        back: Any = type(typed)
        fields = fields_of(back)
        if fields is None:
            return None
        if pydantic_models.is_root_model(typed):
            return self.visit(value, typed.root)
        if fields.is_model:
            lost = pydantic_models.unused_keys(typed, value)
        elif pydantic_models.is_dataclass(back):
            lost = []
        else:
            lost = [key for key in value if key not in fields.stored]
        if lost:
            return _lost_keys(lost)
        stored = fields.stored
        return self._pairs(
            (k, v, getattr(typed, stored[k], _MISSING)) for k, v in value.items() if stored.get(k)
        )

    def _items(self, value: Any, typed: Any) -> Loss | None:
        names, back = getattr(value, "_fields", None), getattr(typed, "_fields", None)
        if names is not None and back is not None and type(value) is not type(typed):
            return _replaced(value, typed)
        if isinstance(typed, _SETS):
            return self._set(value, typed)
        if pydantic_models.is_root_model(typed):
            return self.visit(value, typed.root)
        if not isinstance(typed, _SEQUENCES):
            return None  # another kind of value, which the annotation makes of the items
        if len(value) != len(typed):
            return Loss(f"has {len(value)} items, of which {len(typed)} would come back")
        loss = None
        if not _are_alike(value, typed):
            pairs = enumerate(zip(value, typed, strict=True))
            loss = self._pairs((at, v, b) for at, (v, b) in pairs)
        if loss is None and type(value) is type(typed):
            return self._hidden(value, typed, frozenset(), ())
        return loss

    def _set(self, value: Iterable[Any], typed: Any) -> Loss | None:
        back = {each: each for each in typed}
        unknown = []
        for each in value:
            found = back.pop(each, _MISSING) if _is_hashable(each) else _MISSING
            if found is _MISSING:
                unknown.append(each)
            elif (loss := self.visit(each, found)) is not None:
                return loss
        if len(unknown) != len(back):
            return Loss(
                f"has the item {shown(unknown[0])} twice, or as another one's equal"
                if unknown
                else "has more items than before",
                "Return a set, or annotate a list",
            )
        for each, found in zip(unknown, back, strict=True):
            if type(each) is type(found) or (loss := self.visit(each, found)) is not None:
                return Loss(f"has the item {shown(each)}, which would come back as another one")
        return None

    def _pairs(self, pairs: Iterable[tuple[Any, Any, Any]]) -> Loss | None:
        for at, value, back in pairs:
            if value is not back and (loss := self.visit(value, back)) is not None:
                loss.path = step_to(at) + loss.path
                return loss
        return None

    # -- instances -------------------------------------------------------------------------------

    def _fields(self, value: Any, typed: Any, fields: Fields) -> Loss | None:
        if not _is_same_class(value, typed):
            if pydantic_models.is_root_model(value):
                return self.visit(value.root, typed)
            if isinstance(typed, dict):
                return self._as_dict(value, typed, fields)
            if type(typed) in ATOMS or isinstance(typed, (list, tuple)):
                return None  # the form that it has in JSON
            return _replaced(value, typed)
        if fields.state is not None and _have_one_state(value, typed):
            return None
        for name in _to_walk(value, typed, fields):
            one, other = getattr(value, name, _MISSING), getattr(typed, name, _MISSING)
            if one is other or one is _MISSING:
                continue
            around, self._may_be_text = self._may_be_text, name in fields.may_be_text
            loss = self.visit(one, other)
            self._may_be_text = around
            if loss is not None:
                loss.path = f".{name}{loss.path}"
                if fields.is_model and pydantic_models.is_excluded(value, name):
                    loss.remedy, loss.kinds = _AS_FIELD, None
                return loss
        if fields.is_model:
            for one, other in pydantic_models.hidden_state(value, typed):
                if (loss := self._attributes(type(value), one, other)) is not None:
                    return loss
        return self._hidden(value, typed, fields.names, fields.slots)

    def _read_text(self, value: Any, typed: Any) -> Loss | None:
        """Return the loss of text, in a union with str, that came back as another member's."""
        if not self._may_be_text or type(value) is not str or isinstance(typed, str):
            return None
        loss = _different(value, typed)
        loss.remedy = f"Annotate str alone there, or give a {type(typed).__qualname__} itself"
        return loss

    def _as_dict(self, value: Any, typed: dict[str, Any], fields: Fields) -> Loss | None:
        for name in pydantic_models.excluded(value) if fields.is_model else ():
            if name not in typed:
                return Loss(
                    f"has the field {name!r}, which is excluded from what is stored", _AS_FIELD
                )
        return self._pairs(
            (key, getattr(value, name, _MISSING), typed[key])
            for key, name in fields.stored.items()
            if key in typed
        )

    def _hidden(
        self, value: Any, typed: Any, names: frozenset[str], slots: tuple[str, ...]
    ) -> Loss | None:
        """Compare what instances of one class have beside their fields."""
        attributes = getattr(value, "__dict__", None)
        if not slots and (attributes is None or attributes.keys() <= names):
            return None
        one = {name: each for name, each in (attributes or {}).items() if name not in names}
        one |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
        other = {
            name: getattr(typed, name, _MISSING)
            for name in one
            if name in getattr(typed, "__dict__", ()) or name in slots
        }
        return self._attributes(type(value), one, other)

    def _attributes(
        self, kind: type, value: Mapping[str, Any], typed: Mapping[str, Any]
    ) -> Loss | None:
        for name, one in value.items():
            other = typed.get(name, _MISSING)
            if other is _MISSING:
                if not is_cached(kind, name):
                    return Loss(
                        f"has the attribute {name!r}, which is not stored: it would be missing",
                        _AS_FIELD,
                    )
            elif one is not other and (loss := self.visit(one, other)) is not None:
                loss.path = f".{name}{loss.path}"
                loss.remedy = _AS_FIELD
                return loss
        return None

    def _unknown(self, value: Any, typed: Any) -> Loss | None:
        """Compare instances of which only their own class knows what they consist of."""
        kind = type(value)
        if isinstance(value, Mapping):
            return self._mapping(value, typed)
        if isinstance(value, types.MethodType) and isinstance(typed, types.MethodType):
            return self.visit(value.__func__, typed.__func__)
        if kind is not type(typed):
            plain = type(typed) in ATOMS or type(typed) in (dict, list)
            return None if plain or value == typed else _replaced(value, typed)
        if kind.__eq__ is not _BY_IDENTITY:
            return None if value == typed else _different(value, typed)
        pair = (id(value), id(typed))
        if pair in self._seen:
            return None
        self._seen.add(pair)
        return self._hidden(value, typed, frozenset(), slots_of(kind))


def _are_alike(values: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether items are all the same, judged at C speed."""
    kinds = set(map(type, values))
    try:
        if kinds <= ATOMS:
            return [*values] == [*others]
        if len(kinds) > 1 or set(map(type, others)) != kinds:
            return False
        kind: Any = kinds.pop()
        state = state_of(kind)
        return state is not None and [*map(state, values)] == [*map(state, others)]
    except Exception:  # a field is missing, or does not compare
        return False


def _have_one_state(value: object, typed: object) -> bool:
    kind: Any = type(value)
    state = state_of(kind)
    try:
        return state is not None and type(value) is type(typed) and state(value) == state(typed)
    except Exception:  # a field is missing, or does not compare
        return False


def _to_walk(value: object, typed: object, fields: Fields) -> Iterable[str]:
    """Return the fields that may differ."""
    try:
        if fields.plain is not None and fields.plain(value) == fields.plain(typed):
            return fields.others
    except Exception:  # one is missing, or does not compare
        return fields.names
    return fields.names


def _scalar_loss(value: Any, typed: Any) -> Loss | None:
    if value is None or typed is None:
        return _different(value, typed)
    if isinstance(value, _NUMBERS) and isinstance(typed, _NUMBERS):
        is_decimal = isinstance(typed, Decimal)  # NaN is not equal to itself
        if (is_decimal and str(value) == str(typed)) or value == typed:
            return None
        if is_decimal and Decimal(str(value)) == typed:
            return None
        loss = _different(value, typed)
        if type(value) is not type(typed):
            loss.remedy = f"Annotate {type(value).__qualname__} there"
        return loss
    for base in BASES:
        if isinstance(value, base) and isinstance(typed, base):
            is_same = value == typed or _is_same_instant(value, typed)
            return None if is_same else _different(value, typed)
    if isinstance(value, _JSON_SCALARS) or isinstance(typed, _JSON_SCALARS) or value == typed:
        return None
    return _different(value, typed)


def _is_same_instant(value: object, typed: object) -> bool:
    """Whether times differ in their zone alone: in an hour that comes twice they are unequal."""
    return (
        isinstance(value, datetime.datetime)
        and isinstance(typed, datetime.datetime)
        and value.utcoffset() is not None
        and typed.utcoffset() is not None
        and value - typed == datetime.timedelta(0)
    )


def _different(value: object, typed: object) -> Loss:
    return Loss(f"{shown(value)} would come back as {shown(typed)}")


def _replaced(value: object, typed: object) -> Loss:
    found, back = type(value), type(typed)
    return Loss(
        f"an instance of {found.__qualname__} would come back as one of {back.__qualname__}",
        f"Annotate {found.__qualname__} there, or return an instance of {back.__qualname__} itself",
        kinds=(found, back),
    )


def _lost_keys(keys: list[Any]) -> Loss:
    names = ", ".join(map(shown, keys[:3]))
    return Loss(
        f"has the keys {names}, for which its type has no place: they would be lost",
        "Add them to the type, or leave them out",
    )


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_same_class(value: object, typed: object) -> bool:
    one, other = type(value), type(typed)
    # Of a generic model, `Box[int]` is a class of its own, which pydantic counts as equal to `Box`.
    return one is other or (
        pydantic_models.is_model_class(one)
        and pydantic_models.is_model_class(other)
        and pydantic_models.origin_of(one) is pydantic_models.origin_of(other)
    )
