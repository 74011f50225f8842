"""The workflows that a worker can run, by name.

An execution records only the name of its workflow. So a name stands for one function: a second one
is refused, and an unknown name is reported together with the known ones. A method of two instances
counts as one function, and so does a module's function that is defined again, for instance when a
notebook cell runs again: the latest definition runs.
"""

from __future__ import annotations

import inspect
import os
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from pyworkflow._api.workflow import EntryPoint, Workflow
from pyworkflow._local.imports import import_source
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

Source: TypeAlias = "Workflow[..., Any] | EntryPoint[..., Any] | ModuleType | str"
"""A source of workflows: a workflow, a module, ``FILE.py`` or ``package.module``."""


class Registry:
    """Workflows, each under its own name."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._workflows: dict[str, Workflow[..., Any]] = {}
        for source in sources:
            self.add(source)

    def add(self, source: Source) -> tuple[Workflow[..., Any], ...]:
        """Add the workflows of ``source`` and return them.

        A module's workflows are those among its global names, imported ones included. Raises
        `UsageError` if the source can't be imported or has no workflow, or if a name is already
        taken by another function; then nothing was added.
        """
        found = self._found_in(source)
        added = dict(self._workflows)
        for workflow in found:
            known = added.get(workflow.name, workflow)
            added[workflow.name] = workflow
            if not _are_one(known.function, workflow.function):
                raise UsageError(
                    f"two workflows have the name {workflow.name!r}: {_place(known.function)} and "
                    f"{_place(workflow.function)}; give one of them another, @workflow(name=...)"
                )
        self._workflows = added
        return found

    def get(self, name: str) -> Workflow[..., Any]:
        """Return the workflow ``name``; raises `UsageError` that lists the known names."""
        try:
            return self._workflows[name]
        except KeyError:
            known = ", ".join(map(repr, self.names)) or "none"
            raise UsageError(
                f"no workflow has the name {name!r}; registered here: {known}"
            ) from None

    def find(self, name: str) -> Workflow[..., Any] | None:
        """Return the workflow ``name``, or `None`."""
        return self._workflows.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of their addition."""
        return tuple(self._workflows)

    def _found_in(self, source: Source) -> tuple[Workflow[..., Any], ...]:
        single = workflow_of(source)
        if single is not None:
            return (single,)
        if isinstance(source, str):
            source = import_source(source)
        if not isinstance(source, ModuleType):
            raise UsageError(
                "expected a function with @workflow, a module, FILE.py or package.module, not "
                f"{source!r}"
            )
        in_module = [workflow_of(value) for value in vars(source).values()]
        found = tuple(dict.fromkeys(filter(None, in_module)))
        if not found:
            raise UsageError(
                f"{source.__name__} ({getattr(source, '__file__', 'no file')}) has no workflow: "
                "none of its global names is a function with @workflow"
            )
        return found


def workflow_of(value: object) -> Workflow[..., Any] | None:
    """Return the workflow that ``value`` is or wraps, or `None`."""
    if isinstance(value, EntryPoint):
        return value.workflow
    return value if isinstance(value, Workflow) else None


def _are_one(one: Any, other: Any) -> bool:
    """Return whether both are one function, defined again or bound to other instances."""
    one, other = getattr(one, "__func__", one), getattr(other, "__func__", other)
    if one is other:
        return True
    # Functions made by a function may differ in their closures.
    if one.__qualname__ != other.__qualname__ or "<locals>" in one.__qualname__:
        return False
    return one.__module__ == other.__module__ or _file(one) == _file(other)


def _file(function: Any) -> str:
    """Return the file of a function: the same for a script and for its module."""
    code: CodeType = inspect.unwrap(function).__code__
    return os.path.realpath(code.co_filename)


def _place(function: Any) -> str:
    code = inspect.unwrap(function).__code__
    name = f"{function.__module__}.{function.__qualname__}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})"
