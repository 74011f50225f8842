"""AWS Lambda durable functions as the service: what a Lambda function's handler needs of it."""

from pyworkflow.services.awslambda.service import LambdaService
from pyworkflow.services.awslambda.wire import invocation_from_event

__all__ = ["LambdaService", "invocation_from_event"]
