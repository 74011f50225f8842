"""Tests of workflows: the real engine over memory, in virtual time, with faults on demand.

```python
def test_order() -> None:
    mock_ctx = MockDurableContext()
    handler = create_test_handler(order_workflow, mock_ctx)
    assert handler({"order_id": "ORD-1"})["status"] == "shipped"
    assert "validate_order" in mock_ctx.checkpoints
```

Each suspension ends the invocation, time jumps to what is due next, and the workflow is invoked
again and replayed, as on Lambda: a month-long wait takes a millisecond.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pyworkflow._api.workflow import Workflow
from pyworkflow._engine.messages import Broken, Failed, Succeeded
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow._runtime.clock import DEFAULT_START_MS, VirtualClock
from pyworkflow._runtime.host_loop import run_on_kept_loop
from pyworkflow._runtime.runner import Runner
from pyworkflow._values import codec
from pyworkflow._values.exception_rebuilding import stand_in
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.handler import WorkflowHandler
from pyworkflow.duration import parse_duration
from pyworkflow.errors import ExecutionFailedError, ReplayHazardError, UsageError
from pyworkflow.testing import _audit
from pyworkflow.testing._fakes import Fake, Fakes, FakingStepRunner
from pyworkflow.testing._invocations import CrashingService, InvocationLoop
from pyworkflow.testing._outside_world import OutsideWorld
from pyworkflow.testing._planned_answers import PlannedAnswers
from pyworkflow.testing._strictness import Strictness
from pyworkflow.testing._verify import Replay, check_replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyworkflow._engine.messages import AttemptSettings, End
    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation
    from pyworkflow.duration import Duration
    from pyworkflow.services.history import HistoryEvent
    from pyworkflow.services.memory import ImmediateMemoryService


_UNSET = Fake().result


class MockDurableContext(PlannedAnswers):
    """The durable service of a test, and what it saw of the last execution.

    ``max_invocations`` bounds how often one execution is invoked. ``strict`` lets a test fail when
    it sees something that a replay would not reproduce (`ReplayHazardError`).
    """

    def __init__(self, *, max_invocations: int = 10_000, strict: bool = True) -> None:
        super().__init__()
        self._max_invocations = max_invocations
        self._strict = strict
        self._fakes = Fakes()
        self._crash_after: list[int] = []
        self._seen = _Seen()

    # -- what happened ---------------------------------------------------------------------------

    @property
    def checkpoints(self) -> dict[str, Any]:
        """The results that the workflow received, by step name, in the order of their delivery.

        The first result of a step is under its name, later ones under ``name#2``, ``name#3``, …;
        failed steps are absent.
        """
        return self._seen.checkpoints()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every durable operation in the order of its start, without the execution itself."""
        return self._seen.operations()

    @property
    def wait_count(self) -> int:
        """How many WAIT operations there are; the delays of retries are not among them."""
        return len(self.waits)

    @property
    def waits(self) -> list[int]:
        """The seconds of each WAIT operation, in the order of their start."""
        return [
            ((op.scheduled_end_ms or op.start_ms) - op.start_ms) // 1000
            for op in self.operations
            if op.type is OperationType.WAIT
        ]

    @property
    def invocations(self) -> int:
        """How often the workflow was invoked: once, and again after each suspension or crash."""
        return self._seen.invocations

    @property
    def crashes(self) -> int:
        """How often the process 'died': fewer than ordered where no such checkpoint was sent."""
        return self._seen.crashing.crashes if self._seen.crashing else 0

    @property
    def execution_id(self) -> str:
        """The id of the last execution, empty before the first."""
        return self._seen.execution_id

    def history(self) -> tuple[HistoryEvent, ...]:
        """Return the events of the last execution, as AWS records them."""
        return self._seen.history()

    # -- fakes and faults ------------------------------------------------------------------------

    def mock_step(
        self,
        name: str,
        *,
        result: Any = _UNSET,
        error: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        takes: Duration = 0,
    ) -> None:
        """Replace the body of the step ``name`` in all later executions.

        Give one of ``result``, ``error`` (raised at each attempt) and ``side_effect`` (called with
        the step's arguments, sync or async); none of them keeps the body. ``takes`` is the virtual
        time that an attempt lasts.
        """
        seconds = parse_duration(takes)
        fake = Fake(result=result, error=error, side_effect=side_effect, seconds=seconds)
        self._fakes.put(name, fake)

    def fail_step(
        self, name: str, times: int = 1, error: BaseException | type[BaseException] | None = None
    ) -> None:
        """Make the next ``times`` attempts of the step ``name`` raise ``error``."""
        if times < 1:
            raise UsageError(f"fail_step({name!r}) takes a number of times from 1, not {times}")
        self._fakes.fail(name, times, error or RuntimeError(f"injected failure of {name}"))

    def crash_after(self, checkpoint: int) -> None:
        """Make the process 'die' right after that checkpoint of each later execution, from 1.

        An execution that ends with it, or before, goes on undisturbed; see ``crashes``.
        """
        if checkpoint < 1:
            raise UsageError(
                f"crash_after takes the number of a checkpoint from 1, not {checkpoint}"
            )
        self._crash_after.append(checkpoint)

    # -- running ---------------------------------------------------------------------------------

    def run(self, workflow: Workflow[..., Any], event: Any) -> Any:
        """Start a new execution with the input ``event``; return its result or raise its error.

        Warns of a fake for a step that has not run, unless the execution fails.
        """
        payload = codec.encode(event, what="the event")
        result = run_on_kept_loop(functools.partial(self._run, workflow, payload))
        self._fakes.warn_of_unused(stack_level=2)
        return result

    async def _run(self, workflow: Workflow[..., Any], payload: str) -> Any:
        clock = VirtualClock(DEFAULT_START_MS)
        world = OutsideWorld(clock, self._plans, self._callees, self._run_invoked)
        seen = self._seen = _Seen(world.service, is_strict=self._strict)
        end = await self._execute(workflow, payload, clock, world, seen)
        if isinstance(end, Succeeded):
            return end.value
        assert isinstance(end, Failed | Broken)
        if isinstance(end, Failed) and not isinstance(end.error, Exception):
            # An exit of the workflow's must not end the process that asked for its result.
            raise stand_in(end.record, ExecutionFailedError) from end.error
        raise end.error

    async def _run_invoked(
        self, workflow: Workflow[..., Any], payload: str, start_ms: int, execution_id: str
    ) -> tuple[Succeeded | Failed, int]:
        """Run a workflow that the last execution invokes, in a world of its own."""
        clock = VirtualClock(start_ms)
        world = OutsideWorld(clock, self._plans, self._callees, self._run_invoked)
        seen = _Seen(world.service, is_strict=self._strict)
        seen.execution_id = execution_id
        end = await self._execute(workflow, payload, clock, world, seen)
        if isinstance(end, Succeeded | Failed):
            return end, clock.now_ms()
        assert isinstance(end, Broken)
        raise end.error

    async def _execute(
        self,
        workflow: Workflow[..., Any],
        payload: str,
        clock: VirtualClock,
        world: OutsideWorld,
        seen: _Seen,
    ) -> End:
        service, strictness = world.service, seen.strictness
        if self._strict:
            _audit.watch()
        known_errors = KnownErrors.snapshot()
        seen.crashing = CrashingService(world, self._crash_after)
        runner_for = functools.partial(
            Runner,
            service=seen.crashing,
            workflow=workflow,
            clock=clock,
            known_errors=known_errors,
            step_runner=functools.partial(
                FakingStepRunner, fakes=self._fakes, strictness=strictness
            ),
            observer=seen,
        )
        invocations = InvocationLoop(
            service, runner_for, clock, self._max_invocations, seen.on_invocation, world
        )
        seen.execution_id = service.start(
            workflow.name, payload, execution_id=seen.execution_id or None
        )
        self._enter(world)
        try:
            end = await invocations.run_to_end(seen.execution_id)
        finally:
            self._leave(world)
            await world.close()
        if self._strict and not isinstance(end, Broken):
            history = service.operations(seen.execution_id)
            cause = end.error if isinstance(end, Failed) else None
            try:
                await check_replay(Replay(workflow, history, known_errors, strictness), end)
            except ReplayHazardError as hazard:
                # The first finding is the cause, and says more.
                raise strictness.hazard or hazard from cause
            if strictness.hazard is not None:
                raise strictness.hazard from cause
        return end


class _Seen:
    """The observations of a mock about one execution."""

    def __init__(
        self, service: ImmediateMemoryService | None = None, *, is_strict: bool = False
    ) -> None:
        self.execution_id = ""
        self.invocations = 0
        self.crashing: CrashingService | None = None
        self.refuses_world = is_strict
        self.strictness = Strictness()
        self._service = service
        self._results: dict[str, tuple[str | None, AttemptSettings]] = {}

    def on_invocation(self) -> None:
        self.invocations += 1

    def on_issue(self, op: Op) -> None:
        self.strictness.on_issue(op)

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        if isinstance(op, StepOp) and record.status is Status.SUCCEEDED:
            self._results.setdefault(op.id, (record.payload, op.settings))

    def on_recall(
        self,
        operation_id: str,
        settings: AttemptSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        self.strictness.on_recall(operation_id, settings, args, kwargs, record)
        self._results.setdefault(operation_id, (record.payload, settings))

    def checkpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for payload, settings in self._results.values():
            name = settings.name
            counts[name] = count = counts.get(name, 0) + 1
            label = name if count == 1 else f"{name}#{count}"
            result_type = settings.result_type
            found[label] = codec.decode(payload, result_type, what=f"the result of {name!r}")
        return found

    def operations(self) -> tuple[Operation, ...]:
        return self._service.operations(self.execution_id)[1:] if self._service else ()

    def history(self) -> tuple[HistoryEvent, ...]:
        return self._service.history(self.execution_id) if self._service else ()


def create_test_handler(
    workflow: Workflow[..., Any] | WorkflowHandler[..., Any],
    mock_ctx: MockDurableContext | None = None,
) -> Callable[[Any], Any]:
    """Return ``handler(event)``, which runs ``workflow`` in memory and returns its result.

    ``event`` is the workflow's input, as JSON values. Each call is a new execution; ``mock_ctx``
    shows the last. The handler raises the workflow's own error, `InputError` when the event does
    not fit, and works inside a running event loop as well.
    """
    if isinstance(workflow, WorkflowHandler):
        workflow = workflow.workflow
    if not isinstance(workflow, Workflow):
        raise UsageError(
            f"create_test_handler takes a function with @workflow, with or without "
            f"@aws_workflow_handler, not {workflow!r}"
        )
    return functools.partial((mock_ctx or MockDurableContext()).run, workflow)
