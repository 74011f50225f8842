"""Opening a service on a thread, for a caller that may be cancelled.

A thread can't be cancelled. So a caller that is cancelled while it waits abandons the service,
which is closed at once, whether it was open by then or opens later.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.services.port import Service


class Opening:
    """Opens one service; `wait` returns it."""

    def __init__(self, open_service: Callable[[], Service]) -> None:
        self._open_service = open_service
        self._lock = threading.Lock()
        self._service: Service | None = None
        self._is_abandoned = False

    async def wait(self) -> Service:
        """Return the open service; raises what opening it raises."""
        try:
            return await asyncio.to_thread(self._open)
        except asyncio.CancelledError:
            self._abandon()
            raise

    def _open(self) -> Service:
        with self._lock:
            if self._is_abandoned:
                raise asyncio.CancelledError
        service = self._open_service()
        with self._lock:
            self._service = service
            is_abandoned = self._is_abandoned
        if is_abandoned:
            _close(service)
        return service

    def _abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            service = self._service
        if service is not None:  # the cancellation came together with the service
            # Not on the loop's executor: it may be shut down already.
            threading.Thread(target=_close, args=(service,), name="pyworkflow-closing").start()


def _close(service: Service) -> None:
    asyncio.run(service.close())
