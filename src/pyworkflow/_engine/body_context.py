"""The context in which a body runs: a copy of its caller's, so what it sets ends with it.

Context variables are for tracing and logging. A value inside one is shared unless it is copied:
decimal's context, which every calculation reads and `decimal.getcontext().prec = 5` changes, is.
"""

from __future__ import annotations

import decimal
import sys
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.ids import Namespace

T = TypeVar("T")

callback_namespace: ContextVar[Namespace | None] = ContextVar("pyworkflow.namespace", default=None)
"""Where what a callback of the workflow's loop asks for belongs: to the task that made it."""


def _decimal_variable() -> ContextVar[decimal.Context]:
    # Its name is decimal's own affair; it is the one that asking for the context sets.
    empty = Context()
    empty.run(decimal.getcontext)
    (variable,) = empty
    return variable


_DECIMAL: Any = _decimal_variable()


def body_context(caller: Context) -> Context:
    """Return the context for one attempt of a body that code in the context ``caller`` called."""
    own = caller.copy()
    if _DECIMAL in own:
        own.run(_DECIMAL.set, own[_DECIMAL].copy())
    return own


def call_in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call ``function`` in a thread, in a context of its own, for code that runs on a loop.

    No async library runs here, whatever that code's context says to those that ask sniffio.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(None)
    return function(*args, **kwargs)
