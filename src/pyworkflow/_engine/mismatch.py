"""Never silently wrong: errors for recorded history and running code that disagree.

Each issued operation is compared with its record in type, subtype, name and parent. A difference,
and history that the code no longer consumes, end the run with a `NonDeterminismError`; user code
sees none of it, and nothing is run or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow.errors import NonDeterminismError

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation
    from pyworkflow._values.exception_rebuilding import LostClassError

_SHOWN = 5

_ADVICE = """\
Usual causes: the workflow's code was changed while this execution was running; it depends on \
time, chance, a set's order or global state instead of ctx.now(), ctx.random and recorded results; \
or the execution began on another minor version of Python, whose asyncio makes other tasks.
Remedies: finish running executions with the code they began with (a new version of the function); \
keep the old path for them with ctx.patched("..."); or give operations a key \
(step.options(key=...)), which makes them independent of their position.
Nothing was run or written; the recorded history is intact."""

_CLASS_ADVICE = """\
Usual causes: the exception class was renamed, moved or removed, or got another base, while this \
execution was running; or its module is not imported here.
Remedies: keep the class under its recorded name, as an alias if it has another one now; import \
its module where the step is defined; or stop the execution.
Nothing was run or written; the recorded history is intact."""


def difference(op: IssuedOperation, record: Operation) -> str | None:
    """Return how ``op`` differs from its record, `None` if it is the same."""
    if (
        record.type is op.type
        and record.name == op.name
        and record.subtype == op.subtype
        and record.parent_id == op.scope.operation_id
    ):
        return None
    return (
        f"history and code disagree at {op.position}.\n"
        f"  recorded:  {_describe(record.type, record.subtype, record.name, record.parent_id)}\n"
        f"  attempted: {_describe(op.type, op.subtype, op.name, op.scope.operation_id)}"
    )


def mismatch_error(what: str) -> NonDeterminismError:
    """Return the error for a difference, with causes and remedies."""
    return NonDeterminismError(f"{what}\n{_ADVICE}")


def unconsumed_error(records: Collection[Operation], reached: str) -> NonDeterminismError:
    """Return the error for history that the code did not ask for."""
    lines = [
        f"history has {len(records)} operation(s) that the code no longer performs, though it "
        f"has already passed them ({reached}).",
        *(
            f"  recorded:  {_describe(r.type, r.subtype, r.name, r.parent_id)}, {r.status}"
            for r in list(records)[:_SHOWN]
        ),
        "  attempted: nothing" + (" (further ones left out)" if len(records) > _SHOWN else ""),
    ]
    return mismatch_error("\n".join(lines))


def rerun_error(op: IssuedOperation) -> NonDeterminismError:
    """Return the error for a child context that is over, and whose code goes on all the same."""
    return mismatch_error(
        f"history and code disagree below {op.position}.\n"
        f"  recorded:  {op.awaits()} has succeeded\n"
        "  attempted: its code, run again over its record because its result was too large to be "
        "stored, came to something that is not recorded"
    )


def lost_class_error(op: IssuedOperation, lost: LostClassError) -> NonDeterminismError:
    """Return the error for a failure whose exception class is not here, or is not what it was."""
    return NonDeterminismError(
        f"the error with which {op.awaits()} failed, at {op.position}, can't be raised again: an "
        f"`except` clause that matched it would not match any more.\n{lost}\n{_CLASS_ADVICE}"
    )


def _describe(type_: str, subtype: str | None, name: str | None, parent_id: str | None) -> str:
    kind = type_ if subtype is None else f"{type_} ({subtype})"
    where = "" if parent_id is None else f" in child context {parent_id[:8]}…"
    return f"{kind} {name!r}{where}" if name is not None else f"{kind} without a name{where}"
