"""Executions that are due and that nobody runs, for no worker has their workflow: said once.

Whatever invoked one waits for it, and for ever. One worker can't know what others have, so it looks
at what is left lying: an execution of a workflow that it does not have, due at one heartbeat after
the other. A moment is no sign, for another worker may be about to take it.
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
"""At how many heartbeats in a row the same execution has to be found: as long as a lease lasts."""


class Unserved:
    """What is left lying by everybody; to be asked for with each heartbeat."""

    def __init__(self, service: Queue, registry: Registry) -> None:
        self._service = service
        self._registry = registry
        self._found: dict[str, int] = {}
        self._told: set[str] = set()
        self._has_beaten = False

    def on_beat(self) -> None:
        """Let the next `look` be one; from any thread."""
        self._has_beaten = True

    async def look(self) -> None:
        """Log each workflow, once, of which an execution has been due for long."""
        if not self._has_beaten:
            return
        self._has_beaten = False
        left = await self._service.unserved(self._registry.names)
        self._found = {each.id: self._found.get(each.id, 0) + 1 for each in left}
        for each in left:
            if self._found[each.id] >= BEATS and each.workflow_name not in self._told:
                self._told.add(each.workflow_name)
                self._tell(each)

    def _tell(self, left: ExecutionSummary) -> None:
        logger.warning(
            "execution %r of %r has been due for %d s, and no worker takes it: this one has no "
            "workflow %r; whatever invoked it waits until a worker that has it runs on this "
            "database (pyworkflow worker FILE, or workflows=[...])",
            left.name,
            left.workflow_name,
            LEASE_MS // 1000,
            left.workflow_name,
        )
