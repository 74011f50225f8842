"""Updates as the conformance suite sends them, and the batches that every service refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Update

if TYPE_CHECKING:
    from collections.abc import Callable


def _moves(kind: OperationType, subtype: str) -> Callable[..., Update]:
    def move(operation_id: str, action: Action = Action.START, **fields: Any) -> Update:
        named = {"subtype": subtype, "name": f"the {kind.lower()}", **fields}
        return Update(id=operation_id, type=kind, action=action, **named)

    return move


step = _moves(OperationType.STEP, "Step")
context = _moves(OperationType.CONTEXT, "RunInChildContext")
wait = _moves(OperationType.WAIT, "Wait")
callback = _moves(OperationType.CALLBACK, "Callback")
invoke = _moves(OperationType.CHAINED_INVOKE, "ChainedInvoke")
START, SUCCEED, FAIL, RETRY, CANCEL = Action
ERROR = ErrorRecord(message="no", type="ValueError")


def end(execution_id: str, action: Action = SUCCEED, **fields: Any) -> Update:
    return Update(id=execution_id, type=OperationType.EXECUTION, action=action, **fields)


# A batch that is accepted, and one that must be refused after it.
REFUSED: dict[str, tuple[tuple[Update, ...], tuple[Update, ...]]] = {
    "START on STARTED": ((step("a"),), (step("a"),)),
    "START on PENDING": ((step("a", RETRY, delay_seconds=9, error=ERROR),), (step("a"),)),
    "SUCCEED after SUCCEED": ((step("a", SUCCEED),), (step("a", SUCCEED),)),
    "FAIL after SUCCEED": ((step("a", SUCCEED),), (step("a", FAIL),)),
    "SUCCEED on PENDING": (
        (step("a", RETRY, delay_seconds=9, error=ERROR),),
        (step("a", SUCCEED),),
    ),
    "CANCEL of a step": ((step("a"),), (step("a", CANCEL),)),
    "START of an ended context": ((context("c"), context("c", SUCCEED)), (context("c"),)),
    "RETRY of a context": (
        (context("c"),),
        (context("c", RETRY, delay_seconds=1, error=ERROR),),
    ),
    "SUCCEED of a wait": ((wait("w", wait_seconds=1),), (wait("w", SUCCEED),)),
    "CANCEL of no wait": ((), (wait("w", CANCEL),)),
    "SUCCEED of a callback": ((callback("k"),), (callback("k", SUCCEED),)),
    "SUCCEED of an invoke": ((invoke("i", function_name="f"),), (invoke("i", SUCCEED),)),
    "WAIT START + CANCEL": ((), (wait("w", wait_seconds=1), wait("w", CANCEL))),
    "two ends": ((), (step("a", SUCCEED), step("a", SUCCEED))),
    "START twice": ((), (step("a"), step("a"))),
    "three updates": ((), (step("a"), step("a", SUCCEED), step("a", SUCCEED))),
    "no such parent": ((), (step("a", parent_id="c"),)),
    "parent later in the batch": ((), (step("a", parent_id="c"), context("c"))),
    "parent is a step": ((step("p"),), (step("a", parent_id="p"),)),
    "parent has ended": (
        (context("c"), context("c", SUCCEED)),
        (step("a", parent_id="c"),),
    ),
    "parent ends in the batch": (
        (context("c"), step("a", parent_id="c")),
        (context("c", SUCCEED), step("a", SUCCEED, parent_id="c")),
    ),
    "parent's parent has ended": (
        (context("c"), context("d", parent_id="c")),
        (context("c", SUCCEED), step("a", parent_id="d")),
    ),
    "other type": ((step("a"),), (context("a", SUCCEED),)),
    "other name": ((step("a"),), (step("a", SUCCEED, name="other"),)),
    "other subtype": ((step("a"),), (step("a", SUCCEED, subtype="WaitForCondition"),)),
    "other parent": ((context("c"), step("a")), (step("a", SUCCEED, parent_id="c"),)),
    "FAIL with a payload": ((), (step("a", FAIL, payload="1"),)),
    "SUCCEED with an error": ((), (step("a", SUCCEED, error=ERROR),)),
    "RETRY without a delay": ((), (step("a", RETRY, error=ERROR),)),
    "RETRY at once": ((), (step("a", RETRY, error=ERROR, delay_seconds=0),)),
    "RETRY with both": ((), (step("a", RETRY, error=ERROR, payload="1", delay_seconds=1),)),
    "RETRY with neither": ((), (step("a", RETRY, delay_seconds=1),)),
    "no wait_seconds": ((), (wait("w"),)),
    "wait of 0": ((), (wait("w", wait_seconds=0),)),
    "wait of 367 days": ((), (wait("w", wait_seconds=31_622_401),)),
    "negative timeout": ((), (callback("k", timeout_seconds=-1),)),
    "no function name": ((), (invoke("i"),)),
    "id with a space": ((), (step("a b"),)),
    "id of 65": ((), (step("a" * 65),)),
    "empty name": ((), (step("a", name=""),)),
    "name of 257": ((), (step("a", name="n" * 257),)),
    "name that is not ASCII": ((), (step("a", name="café"),)),
    "subtype of 33": ((), (step("a", subtype="s" * 33),)),
    "EXECUTION first": ((), (end("x"), step("a"))),
    "EXECUTION twice": ((), (end("x"), end("x"))),
    "EXECUTION START": ((), (end("x", START),)),
    "251 updates": ((), tuple(step(f"s{n}") for n in range(251))),
}
