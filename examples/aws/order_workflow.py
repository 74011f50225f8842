"""An order: check it, give the customer five minutes to change their mind, charge, ship.

`handler` is the entry point for Lambda. Started as a script, this file runs the workflow with the
mock context and prints what happened; the five minutes pass in virtual time.
"""

from __future__ import annotations

from pyworkflow import FatalError, RetryableError, WorkflowContext, current_step, step, workflow
from pyworkflow.aws import aws_workflow_handler

PRICES = {"ORD-123": 4990}


@step()
async def validate_order(order_id: str) -> dict:
    if order_id not in PRICES:
        raise FatalError(f"there is no order {order_id}")  # trying again would not help
    return {"order_id": order_id, "cents": PRICES[order_id]}


@step()
async def process_payment(order: dict) -> dict:
    attempt = current_step()
    if attempt.attempt == 1:
        raise RetryableError("the payment provider is busy", retry_after="30s")
    # The key stays the same over all attempts, so a provider recognises the second one.
    return {"payment_id": f"PAY-{attempt.idempotency_key[:8]}", "cents": order["cents"]}


@step()
async def ship_order(order_id: str, payment_id: str) -> dict:
    return {"tracking": f"TRACK-{order_id}", "paid_with": payment_id}


@aws_workflow_handler
@workflow
async def order_workflow(ctx: WorkflowContext, order_id: str) -> dict:
    order = await validate_order(order_id)
    ctx.sleep("5m")
    payment = await process_payment(order)
    shipment = await ship_order(order_id, payment["payment_id"])
    return {"order_id": order_id, "status": "shipped", **shipment}


handler = order_workflow


def main() -> None:
    # Only this trial run needs it; on Lambda it would lengthen the cold start.
    from pyworkflow.aws.testing import MockDurableContext, create_test_handler
    from pyworkflow.duration import format_duration

    mock_ctx = MockDurableContext()
    run = create_test_handler(order_workflow, mock_ctx)

    print("Result")
    for field, value in run({"order_id": "ORD-123"}).items():
        print(f"  {field:<16} {value}")
    print("Checkpoints")
    for name, value in mock_ctx.checkpoints.items():
        print(f"  {name:<16} {value}")
    print("Attempts")
    for operation in mock_ctx.operations:
        if operation.type == "STEP":
            print(f"  {operation.name:<16} {operation.attempt}")
    print("Waits")
    for seconds in mock_ctx.waits:
        print(f"  {format_duration(seconds)}")
    print(f"Invocations: {mock_ctx.invocations}")


if __name__ == "__main__":
    main()
