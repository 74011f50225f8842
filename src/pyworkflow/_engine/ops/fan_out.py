"""Fan-outs (`parallel`, `map`) and their branches: child contexts whose parent keeps the decision.

The decision is which branches finished, in which state, and why the fan-out ended. It is recorded
as plain JSON with the results, so a replay neither runs the branches nor decides again. Where the
results are too large to be stored in one piece, the decision is stored alone: the results stay with
the branches, and a replay collects the ends of those that the decision names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.mismatch import mismatch_error
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._protocol.records import ErrorRecord, Operation, Status, SubType
from pyworkflow._values import codec
from pyworkflow._values.exception_classes import home_of
from pyworkflow.errors import ChildContextError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._engine.ops.base import Host

SUCCEEDED, FAILED, STARTED, NOT_STARTED = "SFRN"
"""The letters of `Decision.statuses`: R stands for a branch that was still running."""


class Decision(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How a fan-out ended; ``statuses`` has one letter for each branch, in order.

    ``results`` and ``errors`` are those of the succeeded and of the failed branches, in order; they
    are left out where they would be too large to be stored.
    """

    completion_reason: str
    success_count: int
    failure_count: int
    statuses: str
    results: tuple[msgspec.Raw, ...] | None = None
    errors: tuple[ErrorRecord, ...] | None = None


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """The result of a fan-out for the calling code: the value or the error of each branch."""

    decision: Decision
    values: dict[int, Any]
    errors: dict[int, Exception]


class BranchOp(ChildOp):
    """A branch of a `parallel`."""

    subtype = SubType.PARALLEL_BRANCH

    __slots__ = ("_record",)

    def deliver(self, record: Operation) -> None:
        """Keep the record for the decision of the fan-out."""
        self._record = record
        super().deliver(record)

    @property
    def payload(self) -> str:
        """The result as JSON text; the branch must have succeeded."""
        return self._value[0] if self._value is not None else self._record.payload or "null"

    @property
    def error(self) -> ErrorRecord:
        """The recorded error; the branch must have failed."""
        return self._record.error or ErrorRecord()


class IterationOp(BranchOp):
    """The branch of one item of a `map`."""

    subtype = SubType.MAP_ITERATION

    __slots__ = ()


class FanOutOp(ChildOp):
    """A `parallel`. ``result_types`` are those of its branches.

    ``sources`` are the branches' own, see `ChildOp`.

    ``recorded`` is the decision that the branches have to follow, `None` where it is still open.
    """

    subtype = SubType.PARALLEL
    branch: type[BranchOp] = BranchOp

    __slots__ = ("_result_types", "_sources", "_summary", "branches", "recorded")

    def __init__(
        self,
        execution: Host,
        name: str | None,
        key: str | None,
        result_types: Sequence[object],
        sources: Sequence[object],
    ) -> None:
        super().__init__(execution, name, key, Decision)
        self._sources = sources
        self._result_types = result_types
        self._summary = ""
        self.branches: dict[int, BranchOp] = {}
        self.recorded: Decision | None = None

    def replay_end(self, record: Operation) -> None:
        """Take the recorded decision; go on to the branches if the results are theirs."""
        if record.replay_children and record.status is Status.SUCCEEDED:
            self.recorded = self._decision_of(record.payload)
            for index in _indices(self.recorded, STARTED) if self.recorded else ():
                self.execution.journal.consume(hash_path(f"{self.id}-{index}"))
        super().replay_end(record)

    # -- recording -------------------------------------------------------------------------------

    def encode(self, value: Decision) -> tuple[str, Outcome]:
        """Return the decision with the results, and what the code around receives for it."""
        done, failed = self._branches_that(value, SUCCEEDED), self._branches_that(value, FAILED)
        outcome = Outcome(
            value,
            {index: branch.future.result() for index, branch in done.items()},
            {index: _error_of(branch) for index, branch in failed.items()},
        )
        whole = msgspec.structs.replace(
            value,
            results=tuple([msgspec.Raw(branch.payload.encode()) for branch in done.values()]),
            errors=tuple([branch.error for branch in failed.values()]),
        )
        self._summary = msgspec.json.encode(value).decode()
        return msgspec.json.encode(whole).decode(), outcome

    def summarize(self) -> str:
        """Return the decision alone."""
        return self._summary

    def _branches_that(self, decision: Decision, letter: str) -> dict[int, BranchOp]:
        statuses = decision.statuses
        return {i: self.branches[i] for i in range(len(statuses)) if statuses[i] == letter}

    # -- replaying -------------------------------------------------------------------------------

    def give_recorded(self, payload: str | None) -> None:
        """Give the results and errors that stand beside a recorded decision."""
        decision = self._decision_of(payload)
        if decision is None:
            return
        done, failed = _indices(decision, SUCCEEDED), _indices(decision, FAILED)
        results, errors = decision.results or (), decision.errors or ()
        values = {}
        try:
            for index, raw in zip(done, results, strict=True):
                what = f"the recorded result of branch {index} of {self.awaits()}"
                values[index] = codec.decode(
                    bytes(raw).decode(), self._result_types[index], what=what
                )
        except SerializationError as error:
            self.execution.break_with(mismatch_error(f"{self.position}: {error}"))
            return
        rebuilt: dict[int, Exception] = {}
        for index, record in zip(failed, errors, strict=True):
            home = home_of(self._sources[index])
            rebuilt_error = self.rebuilt(record, ChildContextError, home)
            if rebuilt_error is None:
                return
            rebuilt[index] = rebuilt_error
        self.future.set_result(Outcome(decision, values, rebuilt))

    def _decision_of(self, payload: str | None) -> Decision | None:
        """Return the recorded decision; one that fits nothing stops the run."""
        expected = len(self._result_types)
        try:
            decision = msgspec.json.decode(payload or "null", type=Decision)
        except msgspec.DecodeError as error:
            found = f"something that is not a decision about branches: {error}"
        else:
            if len(decision.statuses) == expected:
                return decision
            found = f"{len(decision.statuses)} branches"
        self.execution.break_with(
            mismatch_error(
                f"history and code disagree at {self.position}.\n"
                f"  recorded:  {self.awaits()} with {found}\n"
                f"  attempted: {self.awaits()} with {expected} branches"
            )
        )
        return None


class MapOp(FanOutOp):
    """A `map`."""

    subtype = SubType.MAP
    branch = IterationOp

    __slots__ = ()


def _indices(decision: Decision, letter: str) -> list[int]:
    return [index for index, status in enumerate(decision.statuses) if status == letter]


def _error_of(branch: BranchOp) -> Exception:
    error = branch.future.exception()
    assert isinstance(error, Exception)
    return error
