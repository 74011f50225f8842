"""`current_step`: the attempt that a step's body runs in."""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.current import running_step
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from pyworkflow._engine.messages import StepCall


class CurrentStep(msgspec.Struct, frozen=True, gc=False):
    """An attempt of a step. ``attempt`` counts from 1."""

    name: str
    attempt: int
    execution_id: str
    operation_id: str

    @classmethod
    def of(cls, call: StepCall, execution_id: str) -> CurrentStep:
        """Return the description of an attempt that is about to run."""
        return cls(call.name, call.attempt, execution_id, call.id)

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for all attempts and replays: 32 hexadecimal digits.

        Pass it to a payment provider or a database, so that it recognises a second attempt.
        """
        identity = f"{self.execution_id}/{self.operation_id}".encode()
        return blake2b(identity, digest_size=16).hexdigest()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``pyworkflow.step``) whose records carry the step and its attempt."""
        extra = {
            "execution_id": self.execution_id,
            "step": self.name,
            "attempt": self.attempt,
        }
        return _StepLogger(logging.getLogger("pyworkflow.step"), extra)


class _StepLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the attempt to the ``extra`` of a call, which a plain adapter would drop."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def current_step() -> CurrentStep:
    """Return the attempt whose body is running; raise `UsageError` outside of a step."""
    step = running_step.get()
    if not isinstance(step, CurrentStep):
        raise UsageError(
            "pyworkflow.current_step() was called outside of a step. It describes the "
            "attempt that a step's body runs in; workflow code uses ctx instead."
        )
    return step
