"""A report: have it rendered elsewhere, and look from time to time whether it is done.

`handler` is the entry point for Lambda. Started as a script, this file runs the workflow with the
mock context and prints when it looked; the hours pass in virtual time.
"""

from __future__ import annotations

from typing import TypedDict

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow.aws import aws_workflow_handler


class Job(TypedDict):
    """The renderer's report on a job."""

    id: str
    percent: int


@step
async def start_rendering(pages: int) -> Job:
    return {"id": f"JOB-{pages}", "percent": 0}


def look_at(job: Job) -> Job:
    # Stands for a request to the renderer, which gets on between two polls.
    return {"id": job["id"], "percent": min(100, job["percent"] + 30)}


def is_done(job: Job) -> bool:
    return job["percent"] == 100


@aws_workflow_handler
@workflow
async def report(ctx: WorkflowContext, pages: int) -> str:
    started = await start_rendering(pages)
    job = await ctx.wait_for_condition(
        look_at, started, until=is_done, every="1m", backoff=3, max_every="20m", timeout="6h"
    )
    return f"{job['id']} is done"


handler = report


def main() -> None:
    # Only this trial run needs it; on Lambda it would lengthen the cold start.
    from pyworkflow.aws.testing import MockDurableContext, create_test_handler
    from pyworkflow.duration import format_duration

    mock_ctx = MockDurableContext()
    print(create_test_handler(report, mock_ctx)({"pages": 400}))
    for event in mock_ctx.history():
        if event.type == "StepSucceeded" and event.name == "look_at":
            delay = event.delay_seconds
            then = "that is enough" if delay is None else f"again in {format_duration(delay)}"
            print(f"  {event.payload}, {then}")
    print(f"Invocations: {mock_ctx.invocations}")


if __name__ == "__main__":
    main()
