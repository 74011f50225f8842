"""Refund many orders at once, a few at a time, and go on when some of them can't be refunded.

Run it: ``python examples/aws/fan_out.py``. On Lambda the entry point is ``fan_out.handler``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyworkflow import FatalError, WorkflowContext, step, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.errors import BatchError


@dataclass
class Refund:
    """A refund that the bank has taken."""

    order_id: str
    amount: int


@step
async def find_orders(day: str) -> list[str]:
    return [f"{day}/{number}" for number in range(1, 9)]


@step
async def refund(order_id: str) -> Refund:
    if order_id.endswith("/3"):
        raise FatalError("the card has expired")
    return Refund(order_id, 10)


@step
async def send_letter(order_id: str) -> str:
    return f"letter about {order_id}"


async def refund_and_wait(ctx: WorkflowContext, order_id: str) -> Refund:
    """Refund one order; the bank wants a pause before it may be asked again."""
    refunded = await refund(order_id)
    ctx.sleep("1m")
    return refunded


@aws_workflow_handler
@workflow
async def refund_day(ctx: WorkflowContext, day: str) -> dict[str, object]:
    """Refund the orders of a day: three at a time, and at most a quarter of them may fail."""
    orders = await find_orders(day)

    async def one(order_id: str) -> Refund:
        return await refund_and_wait(ctx, order_id)

    try:
        batch = await ctx.map(
            one,
            orders,
            item_name=lambda order_id: f"refund {order_id}",
            max_concurrency=3,
            tolerated_failure_percentage=25,
        )
    except BatchError as error:
        return {"status": "stopped", "why": str(error)}

    failed = [orders[item.index] for item in batch.failed]
    letters = await ctx.parallel([send_letter(order_id) for order_id in failed])
    return {
        "status": "refunded",
        "amount": sum(each.amount for each in batch.results),
        "letters": letters.results,
    }


handler = refund_day


if __name__ == "__main__":
    from pyworkflow.aws.testing import MockDurableContext, create_test_handler

    mock_ctx = MockDurableContext()
    print(create_test_handler(refund_day, mock_ctx)({"day": "2026-01-31"}))
    print(f"{len(mock_ctx.operations)} operations, {mock_ctx.wait_count} waits")
