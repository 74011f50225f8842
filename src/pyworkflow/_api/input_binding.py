"""How a recorded input becomes the arguments of a workflow.

The signature decides, never the data. A JSON object binds to parameters by name, each converted by
its annotation; a single parameter of a structured type takes the whole object; any other JSON value
goes to a single parameter. Mismatches are reported field by field, before anything has run.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._values import codec
from pyworkflow._values.annotations import parameter_annotations
from pyworkflow._values.pydantic_models import faults_of, is_model_class
from pyworkflow.errors import InputError, SerializationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.arguments import Limits

_CONTEXTS = {"WorkflowContext", "SyncWorkflowContext", "BaseContext"}
_EMPTY = inspect.Parameter.empty
_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY
_REST = inspect.Parameter.VAR_KEYWORD
_BY_POSITION = (_POSITIONAL, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class InputBinder:
    """Binds JSON inputs to the parameters of one workflow function."""

    def __init__(
        self, function: Callable[..., Any], name: str, limits: Limits | None = None
    ) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        self.takes_context = bool(parameters) and _is_context(parameters[0])
        self.context_name = parameters[0].name if self.takes_context else ""
        self._reserved: set[str] = set()
        if self.takes_context:
            context = parameters.pop(0)
            if context.kind not in _BY_POSITION:
                raise UsageError(
                    f"workflow {name!r} takes ctx as {str(context)!r}; make it the plain first "
                    "parameter"
                )
            if context.kind is not _POSITIONAL:
                self._reserved = {context.name}
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            raise UsageError(
                f"workflow {name!r} takes *args, which JSON objects can't fill; take a list instead"
            )
        self._function = function
        self._name = name
        self._limits = limits
        self._named = [p for p in parameters if p.kind is not _REST]
        self._rest = next((p for p in parameters if p.kind is _REST), None)
        self._types: Mapping[str, object] | None = None

    def bind(
        self, payload: str | None, *, was_accepted: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for ``payload`` (JSON text; `None` or empty: no input).

        An input that ``was_accepted`` when its execution began is not validated again: whether a
        date lies in the future, for example, was decided then.

        Raises `InputError` with a line for each wrong, missing or unexpected field.
        """
        fields = self._fields(payload)
        problems: list[str] = []
        convert = functools.partial(
            self._convert, problems, codec.decode if was_accepted else codec.admit
        )
        values = {
            parameter.name: convert(parameter, parameter.name, fields.pop(parameter.name))
            for parameter in self._named
            if parameter.name in fields
        }
        problems += [
            f"{p.name}: missing"
            for p in self._named
            if p.name not in values and p.default is _EMPTY
        ]
        if self._limits is not None and not was_accepted:
            problems += self._limits.problems_of_defaults(
                p.name for p in self._named if p.name not in values and p.default is not _EMPTY
            )
        if self._rest is not None:
            rest = {k: v for k, v in fields.items() if k not in self._reserved}
            values |= {k: convert(self._rest, k, v) for k, v in rest.items()}
            fields = {k: v for k, v in fields.items() if k in self._reserved}
        problems += [f"{name}: unexpected" for name in fields]
        if problems:
            raise self._error(problems)
        return self._arguments(values)

    def _arguments(self, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        positional = [values.pop(p.name, p.default) for p in self._named if p.kind is _POSITIONAL]
        return positional, values

    def _fields(self, payload: str | None) -> dict[str, msgspec.Raw]:
        if not payload or not payload.strip():
            return {}
        try:
            whole = msgspec.json.decode(payload, type=msgspec.Raw)
            is_object = payload.lstrip()[0] == "{"
            fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw]) if is_object else {}
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise self._error([f"the input is not JSON: {error}"]) from error
        single = self._named[0] if len(self._named) == 1 and self._rest is None else None
        if is_object:
            if single is not None and self._takes_whole:
                return {single.name: whole}
            return fields
        is_null = payload.strip() == "null"
        if is_null and all(p.default is not _EMPTY for p in self._named):
            return {}
        if single is None:
            kind = "null" if is_null else f"a JSON {_json_kind(payload)}"
            raise self._error([f"the input is {kind}, but the parameters need a JSON object"])
        return {single.name: whole}

    @functools.cached_property
    def _takes_whole(self) -> bool:
        """Whether the one parameter takes a JSON object as a whole."""
        return _is_structured(self._type(self._named[0].name))

    def _convert(
        self,
        problems: list[str],
        read: Callable[..., Any],
        parameter: inspect.Parameter,
        field: str,
        raw: msgspec.Raw,
    ) -> Any:
        text = bytes(raw).decode()
        try:
            return read(text, self._type(parameter.name), what=f"field {field!r}")
        except SerializationError as error:
            # pydantic reports all faults, each with its place in the value at `error.path`.
            faults = [f"{fault} at {error.path}{path}" for path, fault in faults_of(error)]
            problems += [f"{field}: {fault}" for fault in faults or [str(error)]]
            return None

    def _type(self, parameter: str) -> object:
        if self._types is None:
            self._types = parameter_annotations(self._function, omit=self.context_name)
        return self._types.get(parameter, Any)

    def _error(self, problems: list[str]) -> InputError:
        lines = "\n".join(f"  {problem}" for problem in problems)
        return InputError(
            f"the input does not fit workflow {self._name!r}:\n{lines}\n"
            f"It takes ({self._describe()}). A single parameter annotated with dict, a dataclass "
            "or a model takes the whole object.",
            problems=problems,
        )

    def _describe(self) -> str:
        parameters = [*self._named, *([self._rest] if self._rest is not None else [])]
        return ", ".join(str(parameter) for parameter in parameters)


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.name == "ctx":
        return True
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] in _CONTEXTS


def _is_structured(annotation: object) -> bool:
    """Whether a JSON object as a whole is a value of this type."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_structured(typing.get_args(annotation)[0])
    if isinstance(annotation, typing.NewType):
        return _is_structured(annotation.__supertype__)
    if origin is typing.Union or isinstance(annotation, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        return bool(members) and all(_is_structured(member) for member in members)
    cls = origin or annotation
    if not isinstance(cls, type):
        return False
    return (
        issubclass(cls, (Mapping, msgspec.Struct))
        or typing.is_typeddict(cls)
        or is_dataclass(cls)
        or is_model_class(cls)
    )


def _json_kind(payload: str) -> str:
    kinds = {'"': "string", "[": "array", "t": "boolean", "f": "boolean"}
    return kinds.get(payload.lstrip()[0], "number")
