"""Names and keys of operations and workflows, checked where they are given."""

from __future__ import annotations

from pyworkflow._protocol.limits import MAX_NAME
from pyworkflow.errors import UsageError


def check_name(name: object, what: str) -> str:
    """Return ``name`` if it is 1 to 256 printable ASCII characters, else raise `UsageError`."""
    if not isinstance(name, str):
        raise UsageError(f"the name of {what} must be a str, not {type(name).__name__}: {name!r}")
    if not 1 <= len(name) <= MAX_NAME:
        raise UsageError(
            f"the name of {what} must have 1 to {MAX_NAME} characters, not {len(name)}"
        )
    if not (name.isascii() and name.isprintable()):
        raise UsageError(
            f"the name of {what} must be printable ASCII, because the service stores nothing "
            f"else: {name!r}. Choose another one with name=..."
        )
    return name


def check_key(key: object, what: str) -> str:
    """Return ``key`` if it is a non-empty str; raise `UsageError` otherwise."""
    if not isinstance(key, str) or not key:
        raise UsageError(f"the key of {what} must be a non-empty str, not {key!r}")
    return key
