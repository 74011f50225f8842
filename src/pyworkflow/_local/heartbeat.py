"""The heartbeat of a worker: renews leases while steps run, even if one blocks the loop.

It has its own thread. So an async step that computes for a minute, or makes a blocking call, does
not look like a dead process, and no other process starts the step a second time. When a whole
process was suspended (a laptop that sleeps), its leases have expired: it goes on with the
executions that nobody claimed, and tokens refuse its writes to the others.
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


class Heartbeat:
    """Renews the leases of ``owner`` on the executions that ``leased`` returns, until `stop`.

    At each beat, ``watch`` then checks the worker's loop, and ``on_beat`` is called, all on the
    heartbeat's thread. A beat that fails is logged; the next one follows.
    """

    def __init__(
        self,
        service: Queue,
        owner: str,
        leased: Callable[[], Collection[str]],
        on_beat: Callable[[], None],
        watch: Watch | None = None,
    ) -> None:
        self._service = service
        self._owner = owner
        self._leased = leased
        self._on_beat = on_beat
        self._watch = watch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pyworkflow-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop the thread; return when no renewal is in flight."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)

    def _beat(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            while not self._stopped.wait(BEAT_SECONDS):
                for part in (self._renew, self._look, self._notify):
                    try:
                        runner.run(part())
                    except BaseException:  # nothing else would beat
                        logger.exception("a heartbeat of the worker failed; the next one follows")

    async def _renew(self) -> None:
        leased = self._leased()
        if leased:
            try:
                await self._service.renew(self._owner, leased)
            except ServiceError as error:
                logger.warning(
                    "could not renew the leases of %d executions: %s", len(leased), error
                )

    async def _look(self) -> None:
        if self._watch is not None:
            try:
                await self._watch.beat(BEAT_SECONDS)
            except ServiceError as error:
                logger.warning("could not check the leases of this worker: %s", error)

    async def _notify(self) -> None:
        self._on_beat()
