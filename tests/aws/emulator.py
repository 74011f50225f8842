"""AWS's emulator of durable functions, a process of its own: `python emulator.py LAMBDA_URL NAME…`.

Its clock skips waits and delays, and stands still while a function runs: what is over only then is
news for the next invocation. It prints the port on which it serves the durable APIs. The names are
of functions that others may invoke and that are not durable.
"""

from __future__ import annotations

import logging
import sys

from aws_durable_execution_sdk_python_testing import runner as runners
from aws_durable_execution_sdk_python_testing.child_dispatcher import FunctionConfigs
from aws_durable_execution_sdk_python_testing.executor import Executor
from aws_durable_execution_sdk_python_testing.runner import WebRunner, WebRunnerConfig
from aws_durable_execution_sdk_python_testing.web.server import WebServiceConfig
from aws_durable_execution_sdk_python_testing.worker.status import InvocationState


class PatientExecutor(Executor):
    """Sets the timers of an execution once its invocation has ended."""

    RETRY_BACKOFF_SECONDS = 0  # real seconds between two invocations that fail

    def _schedule_earliest_pending(self, execution_arn: str) -> None:
        if self._invocation_gate(execution_arn) is not InvocationState.INVOKING:
            super()._schedule_earliest_pending(execution_arn)


def main() -> None:
    runners.Executor = PatientExecutor  # type: ignore[attr-defined]
    url, *plain = sys.argv[1:]
    config = WebRunnerConfig(
        WebServiceConfig("127.0.0.1", 0, logging.ERROR),
        lambda_endpoint=url,
        skip_time=True,
        function_configs=FunctionConfigs.from_dict(dict.fromkeys(plain)),
    )
    with WebRunner(config) as runner:
        assert runner._server is not None
        sys.stdout.write(f"{runner._server.server_address[1]}\n")
        sys.stdout.flush()
        runner.serve_forever()


if __name__ == "__main__":
    main()
