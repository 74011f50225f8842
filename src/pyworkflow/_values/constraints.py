"""Which constraints an annotation carries, and who can enforce them.

msgspec enforces `msgspec.Meta` and passes over any other metadata. pydantic enforces its own and
those of annotated_types, also in dataclasses, typed dicts and named tuples, but it knows neither
`msgspec.Meta` nor Structs. So an annotation with constraints for pydantic is pydantic's as a whole,
and one that needs both is refused: no constraint is passed over in silence.

Where neither pydantic nor annotated_types was imported there is nothing to look for.
"""

from __future__ import annotations

import contextlib
import sys
import typing
from typing import Any

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.annotations import parameter_annotations, replace_parts, return_annotation
from pyworkflow._values.roundtrip import field_names
from pyworkflow.errors import UsageError

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
_CLOCKS = {"PastDate", "FutureDate", "PastDatetime", "FutureDatetime"}
_NOT_INSTANCES = _CLOCKS | {
    *("AwareDatetime", "NaiveDatetime", "Json", "EmailStr", "ImportString"),
    *("IPvAnyAddress", "IPvAnyInterface", "IPvAnyNetwork"),
}
"""Classes of pydantic's that only stand in annotations: no value is an instance of one."""
_LIMITED = _NOT_INSTANCES - {"Json", "ImportString"}
"""Those that constrain a value that is there; the others say how text is read."""
_HARMLESS = {"DocInfo", "Unit"}


class UnenforcedError(Exception):
    """A constraint in an annotation would not be enforced."""


class Survey:
    """The findings of one annotation."""

    def __init__(self, annotation: object) -> None:
        self.is_pydantics = False
        """Whether pydantic has to read values of this type."""
        self.reads_clock: str | None = None
        """The part whose values are good at one time and not at another."""
        self._limit: str | None = None
        self._foreign: str | None = None
        self._unknown: str | None = None
        self._seen: set[object] = set()
        if "pydantic" in sys.modules or "annotated_types" in sys.modules:
            self._look_at(annotation, "", None)

    @property
    def fault(self) -> str | None:
        """Why a constraint would not be enforced, `None` if all are."""
        if self._limit is None and not self.is_pydantics:
            return None
        if "pydantic" not in sys.modules:
            return (
                f"{self._limit} is a constraint that pydantic enforces, and pydantic was not "
                "imported; import it, or use msgspec.Meta"
            )
        if self._unknown is not None:
            return self._unknown
        if self._foreign is not None:
            return (
                f"{self._foreign}, which pydantic does not know, stands beside "
                f"{self._limit or 'a pydantic dataclass'}, which msgspec does not; use constraints "
                "of one of them alone"
            )
        return None

    def _look_at(self, annotation: Any, where: str, holder: type | None) -> None:
        """Look at an annotation; ``holder`` is the class of whose field it is."""
        if typing.get_origin(annotation) is typing.Annotated:
            self._look_at_metadata(annotation, where, holder)
            annotation = annotation.__origin__
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        origin = typing.get_origin(annotation)
        if origin is typing.Literal:
            return
        if typing.get_origin(annotation) is typing.Annotated:
            self._look_at(annotation, where, holder)
            return
        for each in typing.get_args(annotation):
            self._look_at(each, where, holder)
        kind = origin or annotation
        if isinstance(kind, type):
            self._look_at_class(kind, where, holder)

    def _look_at_metadata(self, annotation: Any, where: str, holder: type | None) -> None:
        for each in annotation.__metadata__:
            label = f"{each!r}{where}"
            if isinstance(each, msgspec.Meta):
                if any(getattr(each, name) is not None for name in LIMITS):
                    self._foreign = self._foreign or label
            elif is_constraint(each):
                self._add_limit(label, holder)

    def _add_limit(self, label: str, holder: type | None) -> None:
        """Take note of what pydantic alone enforces."""
        self.is_pydantics = True
        self._limit = self._limit or label
        if holder is not None and not _is_pydantics_to_read(holder):
            self._unknown = self._unknown or (
                f"{label} is not enforced there: msgspec reads {holder.__qualname__} and knows "
                "msgspec.Meta alone; use that, or a dataclass or a pydantic model"
            )

    def _look_at_class(self, kind: Any, where: str, holder: type | None) -> None:
        if kind.__module__.partition(".")[0] == "pydantic" and kind.__name__ in _NOT_INSTANCES:
            self._add_limit(f"{kind.__name__}{where}", holder)
            if kind.__name__ in _CLOCKS:
                self.reads_clock = self.reads_clock or f"{kind.__name__}{where}"
        if kind in self._seen:
            return
        self._seen.add(kind)
        if pydantic_models.is_model_class(kind):
            for field in kind.__pydantic_fields__.values():
                self._look_at_clock(field.annotation, where)
            return
        self.is_pydantics = self.is_pydantics or pydantic_models.is_dataclass(kind)
        if not _has_fields(kind):
            return
        if not _is_pydantics_to_read(kind):
            self._foreign = self._foreign or f"{kind.__qualname__}{where}"
        elif _is_old_typed_dict(kind) and holder is not None and not typing.is_typeddict(holder):
            self._foreign = self._foreign or f"typing.TypedDict {kind.__qualname__}{where}"
        for name, each in hints_of(kind).items():
            self._look_at(each, f" of {kind.__qualname__}.{name}", kind)

    def _look_at_clock(self, annotation: object, where: str) -> None:
        """Look into a model, whose constraints pydantic enforces wherever it stands."""
        inner = Survey.__new__(Survey)
        inner.is_pydantics, inner.reads_clock = False, None
        inner._limit = inner._foreign = inner._unknown = None
        inner._seen = self._seen
        inner._look_at(annotation, where, None)
        self.reads_clock = self.reads_clock or inner.reads_clock


def check_signature(function: object, what: str) -> None:
    """Raise `UsageError` if a constraint in the signature of a workflow would not be enforced.

    What can't be evaluated yet is looked at when it is first used.
    """
    if "pydantic" in sys.modules or "annotated_types" in sys.modules:
        for where, annotation in _annotations(function):
            if (fault := Survey(annotation).fault) is not None:
                raise UsageError(f"{where} of {what}: {fault}")


def check_result(function: object, what: str) -> None:
    """Do what `check_signature` does for the return annotation of a step."""
    if "pydantic" in sys.modules or "annotated_types" in sys.modules:
        for where, annotation in _annotations(function, with_parameters=False):
            if (fault := Survey(annotation).fault) is not None:
                raise UsageError(f"{where} of {what}: {fault}")


def _annotations(function: object, *, with_parameters: bool = True) -> Iterator[tuple[str, object]]:
    with contextlib.suppress(UsageError):
        yield "the result", return_annotation(function)
    if with_parameters:
        try:
            found = parameter_annotations(function)
        except UsageError:
            return
        yield from ((f"parameter {name!r}", each) for name, each in found.items())


def hints_of(kind: type) -> dict[str, Any]:
    """Return the evaluated annotations of a class, with metadata; none if one is unknown yet."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:
        return {}


def is_limited_class(kind: type) -> bool:
    """Whether a class is one of pydantic's that stand in annotations for a constraint."""
    return kind.__name__ in _LIMITED and kind.__module__.partition(".")[0] == "pydantic"


def is_constraint(metadata: Any) -> bool:
    """Whether metadata is pydantic's to enforce, or that of annotated_types."""
    kind = metadata if isinstance(metadata, type) else type(metadata)
    if kind.__name__ in _HARMLESS and kind.__module__ == "annotated_types":
        return False
    if kind.__module__ == "pydantic.fields":
        return not pydantic_models.is_description(metadata)
    modules = {base.__module__.partition(".")[0] for base in kind.__mro__}
    return bool(modules & {"pydantic", "annotated_types"}) or hasattr(
        metadata, "__get_pydantic_core_schema__"
    )


def _has_fields(kind: Any) -> bool:
    return (
        field_names(kind) is not None
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _is_pydantics_to_read(kind: type) -> bool:
    return not (issubclass(kind, msgspec.Struct) or hasattr(kind, "__attrs_attrs__"))


def _is_old_typed_dict(kind: type) -> bool:
    """Whether it is a typed dict that pydantic refuses to read."""
    return (
        sys.version_info < (3, 12)
        and typing.is_typeddict(kind)
        and type(kind).__module__ == "typing"
    )


def for_pydantic(annotation: Any) -> Any:
    """Return an annotation as pydantic takes it: up to 3.11 it refuses `typing.TypedDict`."""
    return replace_parts(annotation, _new_typed_dict)


def _new_typed_dict(kind: Any) -> Any:
    if not (isinstance(kind, type) and _is_old_typed_dict(kind)):
        return kind
    extensions: Any = sys.modules["typing_extensions"]
    required: Any = kind.__required_keys__  # type: ignore[attr-defined] # a typed dict
    fields = {}
    for name, each in hints_of(kind).items():
        presence = typing.get_origin(each)
        if presence is typing.Required or presence is typing.NotRequired:
            (part,) = typing.get_args(each)
        else:
            presence = typing.Required if name in required else typing.NotRequired
            part = each
        fields[name] = presence[for_pydantic(part)]
    return extensions.TypedDict(kind.__name__, fields)
