"""AWS Lambda durable functions as the service: what a Lambda function's handler needs of it."""

from pyworkflow._protocol.wire import INVOCATION_KEYS, invocation_from_event
from pyworkflow.services.awslambda._service import LambdaService

__all__ = ["INVOCATION_KEYS", "LambdaService", "invocation_from_event"]
