"""`ctx.patched`: which of two versions of the code this execution follows.

It is a keyed step whose result is true. Where old history goes on without it, the execution began
before the patch: the answer is false, and nothing is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._engine.ops.base import Op
from pyworkflow._protocol.records import Action, Operation, OperationType, SubType

if TYPE_CHECKING:
    from pyworkflow._engine.ops.base import Host


class PatchOp(Op):
    """The recorded decision to follow the new code."""

    type = OperationType.STEP
    subtype = SubType.STEP

    __slots__ = ()

    def __init__(self, execution: Host, patch_id: str) -> None:
        super().__init__(execution, f"patched {patch_id}", f"patched-{patch_id}")

    def start(self) -> None:
        """Record the decision before the code acts on it."""
        self.write(Action.START, urgent=True)
        self.write(Action.SUCCEED, urgent=True, payload="true")

    def replay(self, record: Operation) -> None:
        """Decide again: the decision was begun but its outcome was not recorded."""
        self.write(Action.SUCCEED, urgent=True, payload="true")

    def deliver(self, record: Operation) -> None:
        """Go on."""
        self.future.set_result(True)
