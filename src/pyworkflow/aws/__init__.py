"""PyWorkflow on AWS Lambda durable functions."""

from __future__ import annotations

from pyworkflow.aws.handler import aws_workflow_handler

__all__ = ["aws_workflow_handler"]
