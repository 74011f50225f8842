"""The part of the Lambda API that an execution of steps speaks to, in a process of its own.

A checkpoint is applied as a whole or refused: its token has to be the newest, its updates have to
be starts and successes of steps, each legal where the step stands. The answer holds the next token
and the operations that changed. A ClientToken seen before gets the answer that it got then.

An execution comes into being with its first request, whose token is `FIRST_TOKEN`. What the server
saw of it is told at ``GET /facts/{ARN}``. The port goes to stdout; the process ends with its stdin.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

FIRST_TOKEN = "0"


class RefusedError(Exception):
    """The request is refused as a whole; nothing of it is applied."""


class Execution:
    """The history of one execution, and what was seen of its requests."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.commits = 0
        self.operations: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, float] = {"requests": 0, "bytes": 0}

    def note(self, size: int, arrival: float) -> None:
        self.facts.setdefault("first_arrival", arrival)
        self.facts["requests"] += 1
        self.facts["bytes"] += size

    def checkpoint(self, request: dict[str, Any]) -> dict[str, Any]:
        repeated = self.answers.get(request["ClientToken"])
        if repeated is not None:
            return repeated
        self.check(request["CheckpointToken"])
        changed: dict[str, dict[str, Any]] = {}
        now = time.time()
        for update in request["Updates"]:
            before = changed.get(update["Id"]) or self.operations.get(update["Id"])
            changed[update["Id"]] = apply(update, before, now)
        self.operations |= changed
        self.commits += 1
        answer = {
            "CheckpointToken": str(self.commits),
            "NewExecutionState": {"Operations": list(changed.values())},
        }
        self.answers[request["ClientToken"]] = answer
        return answer

    def check(self, token: str) -> None:
        if token != str(self.commits):
            raise RefusedError(f"Invalid checkpoint token: expected {self.commits}, found {token}")


def apply(update: dict[str, Any], before: dict[str, Any] | None, now: float) -> dict[str, Any]:
    """Return what ``update`` makes of the step as it was."""
    status = before and before["Status"]
    match update["Type"], update["Action"], status:
        case "STEP", "START", None:
            return begin(update, now)
        case "STEP", "SUCCEED", None | "STARTED":
            step = before or begin(update, now)
            details = {"Attempt": 1, "Result": update["Payload"]}
            end = {"Status": "SUCCEEDED", "EndTimestamp": now, "StepDetails": details}
            return step | end
    raise RefusedError(f"expected a step's start or success, found {update} on {status}")


def begin(update: dict[str, Any], now: float) -> dict[str, Any]:
    kept = {key: update[key] for key in ("Id", "Type", "Name", "SubType") if key in update}
    return kept | {"Status": "STARTED", "StartTimestamp": now, "StepDetails": {"Attempt": 1}}


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open; an answer is one write."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    executions: ClassVar[defaultdict[str, Execution]] = defaultdict(Execution)

    def do_POST(self) -> None:
        arrival = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.segments():
            case [_, "durable-executions", arn, "checkpoint"]:
                execution = self.executions[arn]
                with execution.lock:
                    execution.note(len(body), arrival)
                    try:
                        self.answer(200, execution.checkpoint(json.loads(body)))
                    except RefusedError as error:
                        self.answer(400, {"message": str(error)})
            case _:
                self.answer(404, {"message": self.path})

    def do_GET(self) -> None:
        match self.segments():
            case ["facts", arn]:
                self.answer(200, self.executions[arn].facts)
            case [_, "durable-executions", arn, "state"]:
                self.answer(200, {"Operations": list(self.executions[arn].operations.values())})
            case _:
                self.answer(404, {"message": self.path})

    def segments(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("x-amzn-errortype", "InvalidParameterValueException")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
