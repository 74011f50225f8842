"""Log records that say which execution and which invocation they belong to.

Lambda's runtime has a handler of its own, in plain text or JSON, and the latter shows every extra
attribute of a record. So nothing is set up here but a filter on the handlers that are there: it
adds the attributes to the records of all loggers, the application's own included.
"""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_fields: ContextVar[Mapping[str, str] | None] = ContextVar("pyworkflow.invocation", default=None)


class InvocationFilter(logging.Filter):
    """Gives each record the attributes of the running invocation, and lets it pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``execution_id``, ``execution_name`` and ``aws_request_id``, where absent."""
        for name, value in (_fields.get() or {}).items():
            if not getattr(record, name, None):
                setattr(record, name, value)
        return True


_filter = InvocationFilter()


@contextlib.contextmanager
def log_fields(fields: Mapping[str, str]) -> Iterator[None]:
    """Add ``fields`` to every record that is logged inside.

    The filter stays on the root logger's handlers: outside of an invocation it adds nothing.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(_filter)  # once: a handler keeps a filter that it has
    token = _fields.set(fields)
    try:
        yield
    finally:
        _fields.reset(token)
