"""Lambda's side of a function: the server, the environment, the event, the check of the answer."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lambda_server import FIRST_TOKEN

PEERS = Path(__file__).resolve().parent
ARN = "arn:aws:lambda:us-east-1:123456789012:function:count:1/durable-execution/count/"


@dataclass(frozen=True, slots=True)
class Function:
    """The module that holds a package's ``handler``, and the packages that it stands on."""

    module: str
    packages: tuple[str, ...]


FUNCTIONS = {
    "pyworkflow": Function("pyworkflow_handler", ("pyworkflow", "msgspec", "greenlet", "botocore")),
    "aws_durable_execution_sdk_python": Function(
        "aws_sdk_handler", ("aws-durable-execution-sdk-python", "boto3", "botocore")
    ),
}
"""By the name under which the package is imported."""


class Server:
    """A running server, and the executions that are begun on it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count(1)

    def new_event(self, n: int) -> dict[str, Any]:
        """Return the event of an execution's first invocation; its input is ``{"n": n}``."""
        execution_id = f"execution-{next(self._numbers)}"
        root = {
            "Id": execution_id,
            "Type": "EXECUTION",
            "Status": "STARTED",
            "StartTimestamp": int(time.time() * 1000),
            "ExecutionDetails": {"InputPayload": json.dumps({"n": n})},
        }
        return {
            "DurableExecutionArn": ARN + execution_id,
            "CheckpointToken": FIRST_TOKEN,
            "InitialExecutionState": {"Operations": [root], "NextMarker": ""},
        }

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port)

    def read_facts(self, event: dict[str, Any]) -> dict[str, float]:
        """Return what the server saw of the event's execution."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", "/facts/" + quote(event["DurableExecutionArn"], safe=""))
            facts: dict[str, float] = json.loads(connection.getresponse().read())
        return facts

    @property
    def environment(self) -> dict[str, str]:
        """The variables that Lambda would set; the user's own AWS settings stay out."""
        return {
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_SESSION_TOKEN": "example",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Run a server of its own process while the block runs."""
    command = [sys.executable, str(PEERS / "lambda_server.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.stdin.close()


def check_answer(answer: dict[str, Any], n: int) -> None:
    """End this process unless the function told Lambda that its result is ``n``."""
    if answer.get("Status") != "SUCCEEDED" or answer.get("Result") != str(n):
        raise SystemExit(f"expected SUCCEEDED with {n}, found {answer}")
