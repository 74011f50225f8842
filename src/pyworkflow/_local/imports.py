"""Import the code of workflows that a command names: ``FILE.py`` or ``package.module``.

A file is imported under its stem, never as ``__main__``, with its folder on ``sys.path`` as for a
script. So ``if __name__ == "__main__"`` does not run, and the classes of its errors have the same
name wherever it is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType


def import_source(source: str) -> ModuleType:
    """Import ``FILE.py`` or ``package.module`` and return the module.

    Raises `UsageError` if there is no such file or module, or if the file's stem is the name of
    another module. Errors of the module's own code are passed on.
    """
    if source.endswith(".py"):
        return _import_file(Path(source).absolute())
    if not all(part.isidentifier() for part in source.split(".")):
        raise UsageError(f"expected FILE.py or package.module, found {source!r}")
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(source)  # noqa: TID251 - the command's user names it
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise  # a module that its code imports is missing
        raise UsageError(
            f"no module {source!r} can be imported ({error}); the current folder, "
            f"{Path.cwd()}, is searched first"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    path = path.resolve()
    stem = path.stem
    if not stem.isidentifier():
        raise UsageError(
            f"{path} can't be imported: {stem!r} is not a module name; use letters, digits and "
            "underscores, and no digit first"
        )
    _put_on_path(path.parent)
    # This runs none of its code, and finds Python's own and loaded modules first.
    spec = None if stem == "__main__" else importlib.util.find_spec(stem)
    if stem in sys.stdlib_module_names or spec is None or not _is(spec.origin, path):
        found = None if spec is None else spec.origin
        raise UsageError(
            f"{path} can't be imported as {stem!r}: that is the name of another module, "
            f"{found or 'which is built in'}; give the file another name"
        )
    return importlib.import_module(stem)  # noqa: TID251 - the command's user names it


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _is(origin: str | None, path: Path) -> bool:
    return origin is not None and Path(origin).resolve() == path
