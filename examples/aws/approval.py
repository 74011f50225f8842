"""An expense that somebody has to approve: asked by mail, reminded, escalated.

The workflow waits for days without running. `handler` is the entry point for Lambda, where the link
in the mail leads to a function that calls SendDurableExecutionCallbackSuccess with the callback's
id. Started as a script, this file plays three cases with the mock context, in virtual time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.errors import CallbackError, CallbackTimeoutError


@dataclass
class Decision:
    approved: bool
    by: str


@step
async def send_mail(to: str, text: str, callback_id: str) -> str:
    # A real one would put the id into a link; whoever follows it completes the callback.
    return f"{text} -> {to}"


@step
async def pay(employee: str, cents: int) -> str:
    return f"{cents / 100:.2f} paid to {employee}"


async def decide(ctx: WorkflowContext, what: str) -> Decision:
    answer = ctx.callback("approval", timeout="2d", result_type=Decision)
    await send_mail("manager", f"please approve {what}", answer.id)
    try:
        return await asyncio.wait_for(answer.result(), 24 * 3600)
    except TimeoutError:  # the callback is still open
        await send_mail("manager", f"reminder: please approve {what}", answer.id)
    try:
        return await answer.result()
    except CallbackTimeoutError:
        pass
    escalated = ctx.callback("escalation", timeout="5d", result_type=Decision)
    await send_mail("director", f"nobody decided about {what}", escalated.id)
    return await escalated.result()


@aws_workflow_handler
@workflow
async def expense(ctx: WorkflowContext, employee: str, cents: int) -> str:
    try:
        decision = await decide(ctx, f"{cents / 100:.2f} for {employee}")
    except CallbackTimeoutError:
        return "refused: nobody decided in time"
    except CallbackError as error:  # the sender sent a failure
        return f"refused: {error.message}"
    if not decision.approved:
        return f"refused by {decision.by}"
    return f"{await pay(employee, cents)}, approved by {decision.by}"


handler = expense


def main() -> None:
    # Only this trial run needs it; on Lambda it would lengthen the cold start.
    from pyworkflow.aws.testing import MockDurableContext, create_test_handler

    def play(title: str, mock_ctx: MockDurableContext) -> None:
        result = create_test_handler(expense, mock_ctx)({"employee": "ada", "cents": 12050})
        print(title)
        print(f"  {result}")
        for name, value in mock_ctx.checkpoints.items():
            print(f"  {name:<12} {value}")

    prompt = MockDurableContext()
    prompt.complete_callback("approval", {"approved": True, "by": "grace"}, after="3h")
    play("The manager approves after three hours", prompt)

    slow = MockDurableContext()
    slow.complete_callback("escalation", {"approved": True, "by": "the director"}, after="1d")
    play("The manager is away, the director approves", slow)

    play("Nobody decides", MockDurableContext())


if __name__ == "__main__":
    main()
