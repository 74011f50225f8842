"""Plans of a test for the world outside: the ends of callbacks, the answers to invokes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._local.arguments import answer_of
from pyworkflow._values import codec
from pyworkflow._values.exceptions import record_error, record_report
from pyworkflow.duration import parse_duration
from pyworkflow.errors import UsageError
from pyworkflow.testing._outside_world import (
    COMPLETE,
    EXPIRE,
    FAIL,
    HEARTBEAT,
    CallbackPlan,
    InvokePlan,
    add_plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.duration import Duration
    from pyworkflow.testing._outside_world import OutsideWorld

_UNSET: Any = msgspec.UNSET
_is_callback_id = re.compile(r".*\.[0-9a-f]{64}").fullmatch


class PlannedAnswers:
    """Plans by the name of the callback, for each later execution.

    ``"approval"`` is the first callback of that name in an execution, ``"approval#2"`` the next.
    `wait_for_callback` goes by the name that it was given. While an execution runs (in the body of
    a step, say) a callback's id does as well, and the plan is for that execution alone. ``after``
    counts from the callback's creation, or from now if it exists already. A plan for a callback
    that times out before is too late, and does nothing.
    """

    def __init__(self) -> None:
        self._plans: dict[str, list[CallbackPlan]] = {}
        self._is_from_earlier: set[str] = set()
        self._callees: dict[str, InvokePlan] = {}
        self._worlds: list[OutsideWorld] = []
        """Those of the running execution and of the workflows that it invokes."""

    def complete_callback(
        self, name_or_id: str, result: Any = None, *, after: Duration = 0
    ) -> None:
        """Make the sender complete a callback with ``result``, as JSON; bytes are sent as they are.

        Raises `UsageError` if the callback's end is planned already, or if bytes are not UTF-8.
        """
        payload = answer_of(result, f"the result of callback {name_or_id!r}")
        self._plan(name_or_id, CallbackPlan(COMPLETE, _milliseconds(after), payload))

    def fail_callback(
        self,
        name_or_id: str,
        error: BaseException | str = "the sender failed",
        *,
        error_type: str | None = None,
        after: Duration = 0,
    ) -> None:
        """Make the sender fail a callback, with a message or an exception.

        ``error_type`` is what the sender calls it; default: the name of the exception's class.
        """
        record = record_report(error, error_type)
        self._plan(name_or_id, CallbackPlan(FAIL, _milliseconds(after), error=record))

    def expire_callback(self, name_or_id: str, *, after: Duration = 0) -> None:
        """Make a callback time out, sooner than its own timeout would; it must have one."""
        self._plan(name_or_id, CallbackPlan(EXPIRE, _milliseconds(after)))

    def heartbeat_callback(self, name_or_id: str, *, after: Duration = 0) -> None:
        """Make the sender report that it is still at work; may be planned several times."""
        self._plan(name_or_id, CallbackPlan(HEARTBEAT, _milliseconds(after)))

    def mock_invoke(
        self,
        function: Any,
        *,
        result: Any = _UNSET,
        error: BaseException | None = None,
        side_effect: Callable[[Any], Any] | None = None,
        takes: Duration = 0,
    ) -> None:
        """Answer invokes of ``function`` (its name, or the operation's) in all later executions.

        Give one of ``result``, ``error`` and ``side_effect`` (called with the input, sync or
        async); ``takes`` is the virtual time until the answer. A workflow, given alone, is run for
        real, as an execution of its own with the mocks of this context, and takes what it takes.
        """
        workflow = getattr(function, "workflow", function)
        name = getattr(workflow, "name", workflow)
        if not isinstance(name, str):
            raise UsageError(f"mock_invoke takes a function's name or a workflow, not {function!r}")
        given = (result is not _UNSET) + (error is not None) + (side_effect is not None)
        if given > 1 or (given == 0 and workflow is name):
            raise UsageError(
                f"mock_invoke({name!r}) takes one of result=, error= and side_effect=; only a "
                "workflow can be given alone, to be run"
            )
        milliseconds = _milliseconds(takes)
        if result is not _UNSET:
            payload = codec.encode(result, what=f"the result of function {name!r}")
            callee = InvokePlan(milliseconds, payload)
        elif error is not None:
            callee = InvokePlan(milliseconds, error=record_error(error))
        elif side_effect is not None:
            callee = InvokePlan(milliseconds, side_effect=side_effect)
        else:
            callee = InvokePlan(milliseconds, workflow=workflow)
        self._callees[name] = callee

    def _plan(self, name_or_id: str, plan: CallbackPlan) -> None:
        if _is_callback_id(name_or_id):
            for world in self._worlds:
                if world.knows(name_or_id):
                    world.plan(name_or_id, plan)
                    return
            raise UsageError(
                f"{name_or_id!r} is the id of a callback whose execution does not run; plan by the "
                "callback's name before the execution begins"
            )
        if self._worlds:
            self._worlds[0].plan(name_or_id, plan)
            return
        if name_or_id in self._is_from_earlier:  # another test case with the same context
            self._is_from_earlier.discard(name_or_id)
            self._plans[name_or_id] = []
        add_plan(self._plans.setdefault(name_or_id, []), name_or_id, plan)

    def _enter(self, world: OutsideWorld) -> None:
        self._worlds.append(world)

    def _leave(self, world: OutsideWorld) -> None:
        self._worlds.remove(world)
        self._is_from_earlier = set(self._plans)


def _milliseconds(duration: Duration) -> int:
    return round(parse_duration(duration) * 1000)
