"""Pydantic models as values, for applications that use pydantic.

Pydantic is never imported here: an application that has a model has imported it, and one that has
none need not have it installed. Models are written by field name and read by name or alias, so that
differing aliases for reading and writing do no harm (pydantic 2.11 or later).
"""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from pyworkflow._values.paths import step_to

_MASK = "**********"


def is_model(value: object) -> bool:
    """Whether ``value`` is an instance of a pydantic model."""
    return is_model_class(type(value))


def is_model_class(kind: type) -> bool:
    """Whether ``kind`` is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def is_dataclass(kind: type) -> bool:
    """Whether ``kind`` is a pydantic dataclass."""
    return "__is_pydantic_dataclass__" in vars(kind)


def mentions(annotation: object, matches: Callable[[type], bool]) -> bool:
    """Whether a class that ``matches`` is part of ``annotation``."""
    if isinstance(annotation, type) and not typing.get_args(annotation) and matches(annotation):
        return True
    return any(mentions(each, matches) for each in typing.get_args(annotation))


def is_root_model(value: object) -> bool:
    """Whether ``value`` is an instance of a `pydantic.RootModel`."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.RootModel)


# -- what a model consists of --------------------------------------------------------------------


def fields_of(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields of a model's class."""
    return tuple(kind.__pydantic_fields__)


def origin_of(kind: Any) -> object:
    """Return the generic class of which a model's class is a version, else the class itself."""
    return kind.__pydantic_generic_metadata__["origin"] or kind


def excluded(model: Any) -> list[str]:
    """Return the fields of a model that are not written, and that have not their default value."""
    if type(model).__pydantic_decorators__.model_serializers:
        return []  # it writes what it likes, under names that it likes
    found = []
    for name, field in type(model).__pydantic_fields__.items():
        given = vars(model).get(name, field.default)
        if given is not field.default and given != field.get_default(call_default_factory=False):
            found.append(name)
    return found


def is_excluded(model: Any, name: str) -> bool:
    """Whether a field of a model may be left out of what is written."""
    field = type(model).__pydantic_fields__[name]
    return bool(field.exclude or getattr(field, "exclude_if", None))


def unused_keys(model: Any, given: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of ``given`` that did not become part of the model that was made of it."""
    if len(given) <= len(model.model_fields_set):  # those of extra attributes are among them
        return []
    lost = [key for key in given if key not in model.model_fields_set]
    return lost[: len(given) - len(model.model_fields_set)]


def hidden_state(model: Any, other: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the private and the extra attributes of two models of one class, side by side."""
    names = ("__pydantic_private__", "__pydantic_extra__")
    return [(getattr(model, n, None) or {}, getattr(other, n, None) or {}) for n in names]


def has_hidden_state(kind: Any) -> bool:
    """Whether models of a class may have attributes besides those in their ``__dict__``."""
    return bool(kind.__private_attributes__) or kind.model_config.get("extra") == "allow"


# -- there and back ------------------------------------------------------------------------------


def dump(model: Any) -> object:
    """Return the JSON form of a model.

    Raises `TypeError` if it contains what pydantic would not write: a secret becomes a mask, and
    NaN or infinity null.
    """
    plain = model.model_dump(mode="json", by_alias=False, round_trip=True)
    if _contains(plain, lambda each: each is None or each == _MASK):
        exact = model.model_dump(by_alias=False, round_trip=True)
        for is_lost, fault in _LOST.items():
            if _contains(exact, is_lost):
                raise TypeError(f"{type(model).__qualname__} contains {fault}")
    return plain


def load(kind: Any, plain: object) -> object:
    """Return the model of class ``kind`` that was written as ``plain``.

    It is validated as JSON, where a strict model accepts text for a date.
    """
    return kind.model_validate_json(msgspec.json.encode(plain), by_alias=True, by_name=True)


class Adapter:
    """Reads JSON text into a type that pydantic understands better than msgspec."""

    __slots__ = ("_relaxed", "_schema", "_validate")

    def __init__(self, annotation: object) -> None:
        make: Any = _pydantic().TypeAdapter
        self._relaxed: Any = None
        as_msgspec_writes = {"val_json_bytes": "base64"}
        if not _has_own_config(annotation):
            try:
                adapter = make(annotation, config=as_msgspec_writes)
            except _pydantic().PydanticUserError:
                # A plain class takes it from what is around it alone.
                schema = _item_of(make(list[annotation], config=as_msgspec_writes).core_schema)  # type: ignore[valid-type] # known at run time
                self._schema = schema
                self._validate = _validator(schema, as_msgspec_writes).validate_json
                return
        else:
            adapter = make(annotation)
        self._schema = adapter.core_schema
        self._validate = adapter.validate_json

    def __call__(self, text: bytes | str) -> object:
        return self._validate(text, by_alias=True, by_name=True)

    def reread(self, text: bytes | str) -> object:
        """Read text that was accepted once, also if it would not be accepted today.

        What depends on the time of reading does not count: whether a date lies in the future, and
        what a validator written in Python says of a value that fits its type.
        """
        if self._relaxed is None:
            self._relaxed = _validator(_relaxed(self._schema)).validate_json
        return self._relaxed(text, by_alias=True, by_name=True)


def item_judge(annotation: Any) -> Callable[[Any], Any]:
    """Return what raises unless the items of a list fit ``annotation``; they are objects, not JSON.

    A list takes the configuration that a class would refuse.
    """
    make: Any = _pydantic().TypeAdapter
    judge: Callable[[Any], Any] = make(
        list[annotation], config={"arbitrary_types_allowed": True}
    ).validate_python
    return judge


def _has_own_config(annotation: Any) -> bool:
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and (is_model_class(kind) or is_dataclass(kind) or is_type(kind))


def _item_of(schema: Any) -> Any:
    """Return the core schema of the items of a list's."""
    if schema["type"] == "definitions":
        return {**schema, "schema": schema["schema"]["items_schema"]}
    return schema["items_schema"]


def _validator(schema: Any, config: Any = None) -> Any:
    """Return a validator that reads models inside as ``schema`` says, not as their classes do."""
    make: Any = sys.modules["pydantic_core"].SchemaValidator
    try:
        return make(schema, config, _use_prebuilt=False)
    except TypeError:  # up to 2.12, a class's own validator is used where that is complete
        kinds = [kind for kind in set(_classes_in(schema)) if vars(kind).get(_COMPLETE)]
    try:
        for kind in kinds:
            setattr(kind, _COMPLETE, False)
        return make(schema, config)
    finally:
        for kind in kinds:
            setattr(kind, _COMPLETE, True)


_COMPLETE = "__pydantic_complete__"


def _classes_in(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        if "cls" in schema:
            yield schema["cls"]
        for key, each in schema.items():
            if key != "metadata":
                yield from _classes_in(each)
    elif isinstance(schema, (list, tuple)):
        for each in schema:
            yield from _classes_in(each)


def _relaxed(schema: Any) -> Any:
    """Return a core schema without what depends on the time of reading."""
    if isinstance(schema, list):
        return [_relaxed(each) for each in schema]
    if isinstance(schema, tuple):
        return tuple(_relaxed(each) for each in schema)
    if not isinstance(schema, dict):
        return schema
    found = {k: v if k == "metadata" else _relaxed(v) for k, v in schema.items() if k != "now_op"}
    if found.get("type") == "function-after":
        function = found["function"]
        found["function"] = {**function, "function": _tolerant(function["function"])}
    return found


def _tolerant(check: Callable[..., object]) -> Callable[..., object]:
    def tolerant(value: object, *info: object) -> object:
        try:
            return check(value, *info)
        except (ValueError, AssertionError):
            return value

    return tolerant


def is_type(kind: type) -> bool:
    """Whether ``kind``, which is not a model, says itself how pydantic reads it."""
    return "pydantic" in sys.modules and hasattr(kind, "__get_pydantic_core_schema__")


def is_description(field: Any) -> bool:
    """Whether a pydantic `Field` in an annotation only describes, and constrains nothing."""
    return isinstance(field, _pydantic().fields.FieldInfo) and not field.metadata


def plain_scalar(value: Any) -> str | None:
    """Return the text for a value of a type that pydantic users annotate, `None` for any other.

    Raises `TypeError` for a secret.
    """
    if is_secret(value):
        raise TypeError(
            "a secret, which would be stored in clear; return a reference to it instead, such as "
            "its name in a vault"
        )
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return None
    kinds = [pydantic.AnyUrl, getattr(pydantic.networks, "_BaseMultiHostUrl", pydantic.AnyUrl)]
    ipaddress = sys.modules.get("ipaddress")
    if ipaddress is not None:
        kinds += [ipaddress._IPAddressBase]
    return str(value) if isinstance(value, tuple(kinds)) else None


def is_secret(value: object) -> bool:
    """Whether ``value`` is one of pydantic's secrets."""
    return hasattr(type(value), "get_secret_value")


def _pydantic() -> Any:
    return sys.modules["pydantic"]


def faults_of(error: BaseException | None) -> list[tuple[str, str]]:
    """Return the path to each fault that pydantic found, and its words; none if it is not to blame.

    It is looked for in ``error`` and its causes.
    """
    pydantic = sys.modules.get("pydantic")
    while error is not None and not (pydantic and isinstance(error, pydantic.ValidationError)):
        error = error.__cause__
    if error is None:
        return []
    return [
        ("".join(map(step_to, fault["loc"])), " ".join(fault["msg"].split()))
        for fault in typing.cast("Any", error).errors(include_url=False, include_context=False)
    ]


def first_fault(error: Any) -> tuple[str, str, object]:
    """Return the path to the first fault in the one item of a list, the words, and what is there.

    ``error`` is what `item_judge` raised.
    """
    fault = error.errors(include_url=False, include_context=False)[0]
    path = "".join(map(step_to, fault["loc"][1:]))
    return path, " ".join(fault["msg"].split()), fault["input"]


def tells_several(error: BaseException) -> bool:
    """Whether ``error`` itself is pydantic's, and names several faults."""
    pydantic = sys.modules.get("pydantic")
    is_its = pydantic is not None and isinstance(error, pydantic.ValidationError)
    return is_its and typing.cast("Any", error).error_count() > 1


_LOST: dict[Callable[[object], bool], str] = {
    is_secret: f"a secret, which is written as {_MASK}",
    lambda each: isinstance(each, float) and not math.isfinite(each): "NaN or infinity",
}


def _contains(value: object, matches: Callable[[object], bool]) -> bool:
    match value:
        case dict():
            return any(_contains(each, matches) for each in value.values())
        case list() | tuple() | set() | frozenset():
            return any(_contains(each, matches) for each in value)
    return matches(value)
