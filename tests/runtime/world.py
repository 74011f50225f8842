"""A world for runners: a loop whose time jumps when nothing else happens, and a watched service.

Tests that need time to pass (timeouts, the lag of starts) take no time here: a loop with nothing
to do jumps to its next timer. One that waits for a thread alone waits for it truly.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow._engine.messages import Suspended
from pyworkflow._runtime.runner import Runner
from pyworkflow._values import codec
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.services.memory import ImmediateMemoryService

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from pyworkflow._api.workflow import Workflow
    from pyworkflow._engine.messages import End
    from pyworkflow._protocol.executions import Committed, Invocation, Page
    from pyworkflow._protocol.records import Operation, Update
    from pyworkflow._runtime.clock import Alarm
    from pyworkflow._runtime.deadline import Deadline

T = TypeVar("T")

START_MS = 1_000_000_000


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout else timeout)
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop over virtual time."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class LoopClock:
    """The loop's time as a clock: it passes while steps run, as on a real machine."""

    skips_waits = False

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return START_MS + round(self._loop.time() * 1000)

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        return self._loop.call_at((when_ms - START_MS) / 1000, callback)

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def enter_body(self) -> None:
        pass

    def leave_body(self) -> None:
        pass


class WatchedService:
    """A memory service over a slow wire. It keeps the batches, and fails where it is told to.

    ``faults`` and ``gates`` are keyed by the number of the commit, from 1: an error to raise before
    anything is written, and an event to wait for before the answer is given.
    """

    def __init__(self, memory: ImmediateMemoryService) -> None:
        self.memory = memory
        self.batches: list[tuple[Update, ...]] = []
        self.loads = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.faults: dict[int, BaseException] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.on_commit: Callable[[Sequence[Update]], None] = lambda _: None
        self.revoke_at = 0

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        self.loads += 1
        return await self.memory.load(execution_id, token, marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        self.batches.append(tuple(updates))
        number = len(self.batches)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if number in self.faults:
                raise self.faults[number]
            answer = await self.memory.commit(execution_id, token, updates)
            self.on_commit(updates)
            if number in self.gates:
                await self.gates[number].wait()
        finally:
            self.in_flight -= 1
        if number == self.revoke_at:
            return type(answer)(None, ())
        return answer

    def moves(self) -> list[list[str]]:
        """What each batch did: ``"STEP START charge"``."""
        return [
            [f"{one.type} {one.action} {one.name or ''}".strip() for one in batch]
            for batch in self.batches
        ]


class World:
    """One execution after another, on one loop."""

    def __init__(self, page_size: int = 1000) -> None:
        self.loop = JumpingLoop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.clock = LoopClock(self.loop)
        self.memory = ImmediateMemoryService(self.clock.now_ms, page_size=page_size)
        self.service = WatchedService(self.memory)
        self.execution_id = ""

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def start(self, workflow: Workflow[..., Any], *args: object) -> None:
        payload = codec.encode(args[0] if args else {}, what="the input")
        self.execution_id = self.memory.start(workflow.name, payload)

    def claim(self) -> Invocation:
        return self.memory.claim(self.execution_id)

    def runner(self, workflow: Workflow[..., Any], **options: Any) -> Runner:
        """Claim the execution; to be called on the loop."""
        service = options.pop("service", self.service)
        known = KnownErrors.snapshot()
        return Runner(self.claim(), service, workflow, self.clock, known, **options)

    async def invoke(
        self, workflow: Workflow[..., Any], deadline: Deadline | None = None, **options: Any
    ) -> End:
        """Run one invocation, and record the end of the execution if it is one."""
        must_record = options.pop("must_record", lambda _: True)
        runner = self.runner(workflow, **options)
        return await runner.run_and_record(deadline, must_record=must_record)

    def run(self, workflow: Workflow[..., Any], *args: object, **options: Any) -> End:
        """Start an execution, and invoke it until it ends."""
        self.start(workflow, *args)
        while isinstance(end := self.do(self.invoke(workflow, **options)), Suspended):
            if len(self.service.batches) == self.service.revoke_at:
                self.service.revoke_at = 0  # invoked again at once
            else:
                self.pass_time()
        return end

    def pass_time(self) -> None:
        """Jump to the next timer of the execution."""
        due_ms = self.memory.next_due(self.execution_id)
        assert due_ms is not None
        self.loop.selector.now = max(self.loop.time(), (due_ms - START_MS) / 1000)

    def operations(self) -> dict[str, Operation]:
        """The operations by name, the unnamed ones by type."""
        found = self.memory.operations(self.execution_id)[1:]
        return {one.name or str(one.type): one for one in found}

    def close(self) -> None:
        """Check that nothing is left behind, and nothing was reported to the loop."""
        if self.loop.is_closed():
            return
        left = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        gc.collect()
        assert not left
        assert not self.faults
