"""The services that keep executions, and `open`, the one place that knows them by name.

A service is named by a URL: ``sqlite:PATH`` keeps executions in a file, ``memory:`` until it is
closed. Callers see it through the ports `History`, `Queue` and `Executions`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyworkflow._protocol.limits import PAGE_OPERATIONS
from pyworkflow.errors import UsageError
from pyworkflow.services import processes
from pyworkflow.services.port import (
    Capability,
    Durability,
    Executions,
    History,
    ImmediateHistory,
    Queue,
    Service,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Capability",
    "Durability",
    "Executions",
    "History",
    "ImmediateHistory",
    "Queue",
    "Service",
    "open",
    "require",
    "sqlite_url",
]

_MEMORY = "memory:"
_SQLITE = "sqlite:"


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Return the URL of the executions in the file ``path``, for `open`.

    Raises `UsageError` for a path that is not text.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise UsageError(f"Expected the path of a file as text, found {path!r}; decode it")
    # POSIX lets systems treat two leading slashes specially; no supported system does.
    return _SQLITE + ("/" + text.lstrip("/") if text.startswith("//") else text)


def open(  # noqa: A001 - as in codecs.open: the module says what is opened
    url: str,
    now_ms: Callable[[], int],
    *,
    machine_ms: Callable[[], int] | None = None,
    durability: Durability = "full",
    page_size: int = PAGE_OPERATIONS,
    max_payload_bytes: int | None = None,
) -> Service:
    """Open the service that ``url`` names.

    Blocks while it reads the disk; every method of the service may be called on any loop of any
    thread.

    Args:
        url: ``sqlite:PATH`` (a relative PATH begins at the current folder; nothing in it is
            escaped) or ``memory:``.
        now_ms: returns the time of the executions, in milliseconds since the epoch, on any thread.
        machine_ms: returns the time of leases; by default ``now_ms`` does.
        durability: for a file: ``"full"``, or ``"normal"`` for one that a power cut may set back.
        page_size: the number of operations in a page of a history.
        max_payload_bytes: the size limit of inputs, results and answers (`None`: SQLite's, 1 GB; in
            memory, none).

    Raises:
        UsageError: the URL names no service, or no file.
        StorageError: the file can't be used.
        ServiceUnavailableError: the file is locked.
    """
    if url == _MEMORY:
        from pyworkflow.services.memory import MemoryService  # on demand: the import budget

        return MemoryService(
            now_ms,
            machine_ms=machine_ms,
            page_size=page_size,
            max_payload_bytes=max_payload_bytes,
        )
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.startswith("//"):
        raise UsageError(
            f"Expected the URL of a service, sqlite:PATH or memory:, found {url!r}; write an "
            "absolute path directly after the colon: sqlite:/var/lib/executions.db"
        )
    with processes.loading:
        from pyworkflow.services.sqlite import SqliteService  # on demand: it loads sqlite3

    return SqliteService.open(
        path,
        now_ms,
        machine_ms=machine_ms,
        durability=durability,
        page_size=page_size,
        max_payload_bytes=max_payload_bytes,
    )
