"""A world in which one execution is driven invocation by invocation, by any version of its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pyworkflow._engine.messages import Broken, End, Failed, Succeeded, Suspended
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow._runtime.host_loop import run_to_end
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import StaleTokenError
from pyworkflow.services.memory import ImmediateMemoryService
from pyworkflow.testing._invocations import CrashingService, SimulatedCrashError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow import Workflow
    from pyworkflow._protocol.records import Operation
    from pyworkflow.aws.handler import WorkflowHandler


class World:
    """One execution in memory; time jumps to what is due whenever it suspends."""

    def __init__(
        self,
        payload: str = "{}",
        *,
        crash_after: Sequence[int] = (),
        beside: World | None = None,
        max_payload_bytes: int | None = None,
    ) -> None:
        clock = VirtualClock()
        self.clock: VirtualClock = beside.clock if beside else clock
        self.service: ImmediateMemoryService = (
            beside.service if beside else ImmediateMemoryService(clock.now_ms)
        )
        self.max_payload_bytes = max_payload_bytes
        self.crashing = CrashingService(self.service, crash_after)
        self.id = self.service.start("versions", payload)

    def invoke(self, workflow: Workflow[..., Any]) -> End | None:
        """Run one invocation; `None` says that it crashed."""
        invocation = replace(self.service.claim(self.id), max_payload_bytes=self.max_payload_bytes)

        async def run() -> End:
            known = KnownErrors.snapshot()
            runner = Runner(invocation, self.crashing, workflow, self.clock, known)
            return await runner.run_and_record()

        try:
            end = run_to_end(run)
        except SimulatedCrashError:
            return None
        if isinstance(end, Suspended):
            due_ms = self.service.next_due(self.id)
            assert due_ms is not None
            self.clock.advance_to(due_ms)
        return end

    def suspend(self, workflow: Workflow[..., Any]) -> None:
        """Run one invocation, which must suspend."""
        assert isinstance(self.invoke(workflow), Suspended)

    def finish(self, workflow: Workflow[..., Any]) -> Any:
        """Invoke until the workflow ends; return its value or raise its error."""
        while True:
            try:
                end = self.invoke(workflow)
            except StaleTokenError:  # it crashed right after its end was recorded
                return "ended"
            match end:
                case Succeeded():
                    return end.value
                case Failed() | Broken():
                    raise end.error

    def operations(self) -> list[Operation]:
        """Return what is recorded, without the execution itself."""
        return list(self.service.operations(self.id)[1:])

    def names(self) -> list[str]:
        """Return the names of what is recorded (types, where there is none) in starting order."""
        return [op.name or op.type.value for op in self.operations()]


def run(
    workflow: Workflow[..., Any] | WorkflowHandler[..., Any],
    event: Any = None,
    mock_ctx: MockDurableContext | None = None,
) -> Any:
    """Run a workflow to its end, with all that a mock context looks at."""
    return create_test_handler(workflow, mock_ctx)(event)


def crashes(workflow: Workflow[..., Any], event: Any = None) -> list[Any]:
    """Return the result of a run without a crash, and of one with a crash after each checkpoint."""
    calm = MockDurableContext()
    results = [run(workflow, event, calm)]
    for checkpoint in range(1, 40):
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        results.append(run(workflow, event, mock_ctx))
        if mock_ctx.invocations == calm.invocations:
            break
    assert len(results) > 2, "at least one crash happened"
    return results
