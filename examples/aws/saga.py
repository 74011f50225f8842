"""A sale: take the money, pack, ship; and undo what was done when something fails on the way.

`handler` is the entry point for Lambda. Started as a script, this file runs the workflow with the
mock context, once with a parcel that arrives and once with one that no carrier takes.
"""

from __future__ import annotations

from pyworkflow import FatalError, RetryableError, WorkflowContext, current_step, step, workflow
from pyworkflow.aws import aws_workflow_handler


@step
async def charge(order_id: str, cents: int) -> str:
    return f"PAY-{order_id}-{cents}"


@step
async def refund(payment_id: str) -> str:
    if current_step().attempt == 1:
        raise RetryableError("the payment provider is busy", retry_after="10m")
    return f"refunded {payment_id}"


@step
async def reserve(order_id: str) -> str:
    return f"SHELF-{order_id}"


@step
async def put_back(reservation_id: str) -> str:
    return f"put back {reservation_id}"


@step
async def ship(order_id: str, country: str) -> str:
    if country == "Atlantis":
        raise FatalError("no carrier goes there")  # trying again would not help
    return f"TRACK-{order_id}"


@aws_workflow_handler
@workflow
async def sale(ctx: WorkflowContext, order_id: str, country: str) -> str:
    async with ctx.saga() as saga:
        payment_id = await charge(order_id, 4990)
        saga.add(refund, payment_id)
        reservation_id = await reserve(order_id)
        saga.add(put_back, reservation_id)
        ctx.sleep("1h")  # nothing is undone while the workflow is suspended
        return await ship(order_id, country)


handler = sale


def main() -> None:
    # Only this trial run needs it; on Lambda it would lengthen the cold start.
    from pyworkflow.aws.testing import MockDurableContext, create_test_handler

    for country in ("Iceland", "Atlantis"):
        mock_ctx = MockDurableContext()
        print(f"A sale to {country}")
        try:
            tracking = create_test_handler(sale, mock_ctx)({"order_id": "7", "country": country})
            print(f"  shipped: {tracking}")
        except FatalError as error:
            print(f"  failed: {error}")
        for name, value in mock_ctx.checkpoints.items():
            print(f"  {name:<10} {value}")


if __name__ == "__main__":
    main()
