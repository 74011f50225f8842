"""AWS's emulator of durable functions, as a process of its own: `python emulator.py LAMBDA_URL`.

Its clock skips waits and delays. It prints the port on which it serves the durable APIs.
"""

from __future__ import annotations

import logging
import sys

from aws_durable_execution_sdk_python_testing.executor import Executor
from aws_durable_execution_sdk_python_testing.runner import WebRunner, WebRunnerConfig
from aws_durable_execution_sdk_python_testing.web.server import WebServiceConfig


def main() -> None:
    Executor.RETRY_BACKOFF_SECONDS = 0  # real seconds between two invocations that fail
    config = WebRunnerConfig(
        WebServiceConfig("127.0.0.1", 0, logging.ERROR), lambda_endpoint=sys.argv[1], skip_time=True
    )
    with WebRunner(config) as runner:
        assert runner._server is not None
        sys.stdout.write(f"{runner._server.server_address[1]}\n")
        sys.stdout.flush()
        runner.serve_forever()


if __name__ == "__main__":
    main()
