"""Keeping leases while steps run, however long one blocks the loop.

The heart beats on a thread of its own: an async step that computes for a minute, or calls something
that blocks, does not look like a process that died, and no other process begins the step a second
time. A process that is suspended as a whole (a laptop that sleeps) finds its leases run out: it
goes on with those that nobody took, and of the others the tokens refuse what it writes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from pyworkflow._protocol.executions import LEASE_MS
from pyworkflow.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyworkflow._local.watch import Watch
    from pyworkflow.services.port import Queue

logger = logging.getLogger("pyworkflow.worker")

BEAT_SECONDS = LEASE_MS / 3000


class Heart:
    """Renews the leases of ``owner`` on the executions that ``held`` returns, until `stop`.

    ``on_beat`` is called after each beat, from the thread; before it, ``watch`` looks after the
    worker's loop. Whatever goes wrong at one beat, the next one comes.
    """

    def __init__(
        self,
        service: Queue,
        owner: str,
        held: Callable[[], Collection[str]],
        on_beat: Callable[[], None],
        watch: Watch | None = None,
    ) -> None:
        self._service = service
        self._owner = owner
        self._held = held
        self._on_beat = on_beat
        self._watch = watch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pyworkflow-heart", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    async def stop(self) -> None:
        """Beat no more; return when no renewal is on its way."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)

    def _beat(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            while not self._stopped.wait(BEAT_SECONDS):
                for part in (self._renew, self._look, self._tell):
                    try:
                        runner.run(part())
                    except BaseException:  # there is nobody else to beat
                        logger.exception("a heartbeat of the worker failed; the next one follows")

    async def _renew(self) -> None:
        held = self._held()
        if held:
            try:
                await self._service.renew(self._owner, held)
            except ServiceError as error:
                logger.warning("could not renew the leases of %d executions: %s", len(held), error)

    async def _look(self) -> None:
        if self._watch is not None:
            try:
                await self._watch.beat(BEAT_SECONDS)
            except ServiceError as error:
                logger.warning("could not look after the leases of this worker: %s", error)

    async def _tell(self) -> None:
        self._on_beat()
