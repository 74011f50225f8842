"""Logs executions that are due but that no worker runs, because none has their workflow.

Whatever invoked one would wait forever. A worker can't know the workflows of others, so it looks
for executions of workflows that it does not have and that stay due from heartbeat to heartbeat. An
execution that is due once means nothing: another worker may be about to claim it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyworkflow._protocol.executions import LEASE_MS

if TYPE_CHECKING:
    from pyworkflow._local.registry import Registry
    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow.services.port import Queue

logger = logging.getLogger("pyworkflow.worker")

BEATS = 3
"""Heartbeats in a row at which an execution must be found: together, as long as a lease."""


class Unclaimed:
    """Finds unclaimed executions; to be called with each heartbeat."""

    def __init__(self, service: Queue, registry: Registry) -> None:
        self._service = service
        self._registry = registry
        self._found: dict[str, int] = {}
        self._reported: set[str] = set()
        self._has_beaten = False

    def on_beat(self) -> None:
        """Enable the next `look`. Safe on any thread."""
        self._has_beaten = True

    async def look(self) -> None:
        """Log, once for each workflow, that an execution stays due."""
        if not self._has_beaten:
            return
        self._has_beaten = False
        left = await self._service.unserved(self._registry.names)
        self._found = {each.id: self._found.get(each.id, 0) + 1 for each in left}
        for each in left:
            if self._found[each.id] >= BEATS and each.workflow_name not in self._reported:
                self._reported.add(each.workflow_name)
                self._report(each)

    def _report(self, left: ExecutionSummary) -> None:
        logger.warning(
            "execution %r of %r has been due for %d s, and no worker claims it: this one has no "
            "workflow %r; whatever invoked it waits until a worker with that workflow runs on this "
            "database (pyworkflow worker FILE, or workflows=[...])",
            left.name,
            left.workflow_name,
            LEASE_MS // 1000,
            left.workflow_name,
        )
