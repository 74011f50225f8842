"""Invocations that bring the client of their service along.

AWS's test runner calls a handler with an object that holds, beside the event, the client to
checkpoint with, so that no network is needed. Objects of that kind are known by what they can do;
the one class that is needed here, that of an update, is taken from the object's own package.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pyworkflow._protocol.executions import Committed, Page
from pyworkflow._protocol.limits import PAGE_OPERATIONS
from pyworkflow._protocol.wire import (
    invocation_from_event,
    operations_from_event,
    update_to_wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyworkflow._protocol.executions import Invocation
    from pyworkflow._protocol.records import Operation, Update
    from pyworkflow.services.port import History


def is_injected(event: Any) -> bool:
    """Whether ``event`` is an invocation that brings its client along."""
    return hasattr(event, "service_client") and hasattr(event, "to_json_dict")


def take_injected(event: Any) -> tuple[Invocation, History]:
    """Return the invocation, and a service over the client that it brought along."""
    package = type(event).__module__.rpartition(".")[0]
    update = sys.modules[f"{package}.lambda_service"].OperationUpdate
    service = InjectedService(event.service_client, update.from_dict)
    return invocation_from_event(event.to_json_dict()), service


class InjectedService:
    """The service behind a client that blocks; its calls are made in threads."""

    def __init__(self, client: Any, make_update: Callable[[dict[str, Any]], Any]) -> None:
        self._client = client
        self._make_update = make_update

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names."""
        call = partial(
            self._client.get_execution_state, execution_id, token, marker, max_items=PAGE_OPERATIONS
        )
        answer = await asyncio.to_thread(call)
        return Page(_records(answer.operations), answer.next_marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply ``updates``; raises what the client raises."""
        made = [self._make_update(update_to_wire(update)) for update in updates]
        call = partial(self._client.checkpoint, execution_id, token, made, str(uuid4()))
        answer = await asyncio.to_thread(call)
        state = answer.new_execution_state
        return Committed(answer.checkpoint_token, _records(state.operations), state.next_marker)


def _records(operations: Iterable[Any]) -> tuple[Operation, ...]:
    return operations_from_event([one.to_json_dict() for one in operations])
