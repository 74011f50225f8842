"""The workflows that a command line names: ``FILE[:workflow]`` or a module."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pyworkflow._local import imports
from pyworkflow._local.registry import Registry
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any

    from pyworkflow._api.workflow import Workflow


def load_target(target: str) -> tuple[ModuleType, Workflow[..., Any]]:
    """Import what ``FILE[:workflow]`` names; return the module, and the workflow to run.

    Without a name it is the only workflow of the file; those that the file merely imports count
    when it has none of its own. Raises `UsageError`.
    """
    source, name = split_target(target)
    module = load(source)
    registry = Registry()
    found = registry.add(module)
    if name is not None:
        return module, registry.get(name)
    own = [workflow for workflow in found if workflow.function.__module__ == module.__name__]
    candidates = own or found
    if len(candidates) == 1:
        return module, candidates[0]
    choices = "\n".join(f"  {source}:{workflow.name}" for workflow in candidates)
    raise UsageError(f"{source} has {len(candidates)} workflows; say which to run:\n{choices}")


def split_target(target: str) -> tuple[str, str | None]:
    """Return the file or module, and the workflow, that ``FILE[:workflow]`` names."""
    source, colon, name = target.rpartition(":")
    if not colon or Path(target).exists():
        return target, None
    if not name:
        raise UsageError(f"expected FILE:workflow, found {target!r}: no name follows the colon")
    return source, name


def load_all(named: Iterable[str]) -> list[ModuleType]:
    """Import files and modules. Raises `UsageError`."""
    return [load(source) for source in named]


def load(source: str) -> ModuleType:
    """Import a file or a module.

    What it prints goes to stderr. Raises `UsageError` that says why it can't be imported, with the
    frames of its own code.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return imports.import_source(source)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(_told(source, error)) from None


_MACHINERY = (imports.__file__, __file__, "<frozen importlib", str(Path(importlib.__file__).parent))


def _told(source: str, error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in told.stack if not frame.filename.startswith(_MACHINERY)]
    told.stack = traceback.StackSummary.from_list(frames)
    hint = ""
    if isinstance(error, SystemExit):
        hint = '\nput what is to run in a script only under `if __name__ == "__main__":`'
    return f"{source} can't be imported:\n{''.join(told.format()).rstrip()}{hint}"
