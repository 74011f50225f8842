"""Values and code that a replay would not reproduce: a test sees them, the engine can't.

Four things are looked at. A step's result that comes back from JSON as something else. An argument
that a step's body changed: on a replay the body does not run, so the change is missing. And, since
every finished run is replayed once more from its record, any operation or argument that differs
then: state changed in a child workflow's closure, the order of a set, time, chance. And, on each
replay, what is asked of an operation: the seconds of waits, timers and timeouts, the items of a
map, the arguments of a child workflow, the options of steps, conditions and callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.ops.step import StepOp, asked_of
from pyworkflow._values import codec
from pyworkflow._values.roundtrip import lossless
from pyworkflow.errors import ReplayHazardError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.messages import AttemptSettings, StepCall
    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation


class Strictness:
    """Looks at one execution over all its invocations; ``hazard`` is the first thing found."""

    refuses_world = True

    def __init__(self) -> None:
        self.hazard: ReplayHazardError | None = None
        self._arguments: dict[str, bytes] = {}
        self._settings: dict[str, AttemptSettings] = {}
        self._asked: dict[str, dict[str, bytes]] = {}

    def on_issue(self, op: Op) -> None:
        """Compare what is asked of an operation with what was asked when it was issued before."""
        if isinstance(op, StepOp):
            self.on_call(op.id, op.settings.name, op.args, op.kwargs)
            self._on_settings(op.id, op.settings)
            return
        found = _texts_of(op.asked())
        what = f"{op.subtype} {op.name!r}" if op.name else f"{op.subtype} at {op.position}"
        self._compare(what, self._asked.setdefault(op.id, found), found)

    def _on_settings(self, operation_id: str, settings: AttemptSettings) -> None:
        known = self._settings.setdefault(operation_id, settings)
        if known is not settings:  # mostly it is the very same step
            first, replayed = _texts_of(asked_of(known)), _texts_of(asked_of(settings))
            self._compare(f"step {settings.name!r}", first, replayed)

    def _compare(
        self, what: str, first: Mapping[str, bytes], replayed: Mapping[str, bytes]
    ) -> None:
        for name, found in replayed.items():
            if first.get(name, found) != found:
                self._report(
                    f"{what} was asked for with another value of {name!r} on a replay.\n"
                    f"  first:    {_shown(first[name])}\n  replayed: {_shown(found)}\n{_CAUSES}"
                )

    def on_call(
        self, operation_id: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Compare a step's arguments with those that it was called with before."""
        found = _text_of(args, kwargs)
        known = self._arguments.setdefault(operation_id, found)
        if known != found:
            self._report(
                f"step {name!r} was called with other arguments on a replay.\n"
                f"  first:    {known.decode()}\n  replayed: {found.decode()}\n{_CAUSES}"
            )

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        """Nothing to look at."""

    def on_recall(
        self,
        operation_id: str,
        settings: AttemptSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        """Compare a step's arguments with those that it was called with before."""
        self.on_call(operation_id, settings.name, args, kwargs)
        self._on_settings(operation_id, settings)

    def on_result(self, call: StepCall, value: Any, decoded: Any) -> None:
        """Compare a step's value with what the workflow receives."""
        difference = lossless(value, decoded)
        if difference is not None:
            self._report(
                f"the result of step {call.name!r} does not come back as it was: {difference}"
            )

    def before(self, call: StepCall) -> bytes:
        """Return what to hand to `after` when the body has run."""
        return _text_of(call.args, call.kwargs)

    def after(self, call: StepCall, before: bytes) -> None:
        """Compare a step's arguments before and after its body ran."""
        now = _text_of(call.args, call.kwargs)
        if before != now:
            self._report(
                f"step {call.name!r} changed its arguments.\n"
                f"  before: {before.decode()}\n  after:  {now.decode()}\n"
                "On a replay the body does not run, so the workflow would see the old value. Copy "
                "the argument, and return what changed."
            )

    def _report(self, message: str) -> None:
        self.hazard = self.hazard or ReplayHazardError(message)


_CAUSES = (
    "The code depends on something that is not recorded: an object that a step or a child workflow "
    "changed, the order of a set, time or chance. Return such values from steps; use ctx.now() and "
    "ctx.random."
)

_encode = msgspec.json.Encoder(enc_hook=codec.plain_form, order="sorted").encode


def _text_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Return arguments as JSON, the order of sets aside; a mark stands for any other object."""
    try:
        return _encode([args, kwargs])
    except Exception:  # whatever an argument's own code raises: it is not a value then
        return _encode([[_raw(each) for each in args], {k: _raw(v) for k, v in kwargs.items()}])


def _texts_of(asked: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: _text_of((value,), {}) for name, value in asked.items()}


def _shown(text: bytes) -> str:
    """Return the one argument that ``text`` is made of."""
    return text.decode()[2:-5]


def _raw(argument: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(argument))
    except Exception:  # as above
        return msgspec.Raw(b'"<no JSON value>"')
