"""What a step costs on Lambda beyond the network: n of them, less n bare round trips.

A bare round trip is a POST over one open connection of `http.client`: the same path, a body of the
mean size of the handler's own, a start and a success of a step in it, which the server applies as
any other. Nothing is signed, encoded or decoded. It is measured in this process, by turns with the
handler, and one a step is taken off, however many requests the handler made.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import quote

from lambda_side import FUNCTIONS, Server, check_answer, serve
from measure import print_measurement

EXECUTIONS = 3
"""How many are timed, by turns with as many series of bare round trips."""


def main() -> None:
    function, n = FUNCTIONS[sys.argv[1]], int(sys.argv[2])
    with serve() as server:
        os.environ.update(server.environment)
        handler = importlib.import_module(function.module).handler
        event = server.new_event(n)
        run_handler(handler, event, n)  # untimed: caches fill, connections open
        facts = server.read_facts(event)
        size = round(facts["bytes"] / facts["requests"])
        steps, trips = [], []
        with contextlib.closing(server.connect()) as connection:
            send_bare(connection, *bare_requests(server, n, size))
            for _ in range(EXECUTIONS):
                event = server.new_event(n)
                steps.append(timed(partial(run_handler, handler, event, n)))
                trips.append(timed(partial(send_bare, connection, *bare_requests(server, n, size))))
    (wall, cpu), (bare_wall, bare_cpu) = middle(steps), middle(trips)
    details = {
        "gross_wall_s": wall / n,
        "round_trip_s": bare_wall / n,
        "requests": facts["requests"] / n,
        "request_bytes": size,
    }
    print_measurement(
        "lambda step", n, wall - bare_wall, cpu - bare_cpu, EXECUTIONS, function.packages, details
    )


def run_handler(handler: Callable[..., dict[str, Any]], event: dict[str, Any], n: int) -> None:
    """Let the handler run one invocation, as Lambda's runtime calls it."""
    check_answer(handler(event, None), n)


def timed(execute: Callable[[], None]) -> tuple[float, float]:
    """Return wall seconds and this process's CPU seconds of one run."""
    gc.collect()
    cpu_start = time.process_time()
    wall_start = time.perf_counter()
    execute()
    wall = time.perf_counter() - wall_start
    return wall, time.process_time() - cpu_start


def middle(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median wall time and the median CPU time."""
    walls, cpus = zip(*times, strict=True)
    return median(walls), median(cpus)


def bare_requests(server: Server, n: int, size: int) -> tuple[str, list[bytes]]:
    """Return the path and the bodies of ``n`` checkpoints, one a step, of ``size`` bytes."""
    arn = server.new_event(n)["DurableExecutionArn"]
    path = f"/2025-12-01/durable-executions/{quote(arn, safe='')}/checkpoint"
    return path, [json.dumps(bare_body(i)).encode().ljust(size) for i in range(n)]


def bare_body(i: int) -> dict[str, Any]:
    step = {"Id": str(i), "Type": "STEP", "Name": "add", "SubType": "Step"}
    updates = [step | {"Action": "START"}, step | {"Action": "SUCCEED", "Payload": str(i + 1)}]
    return {"CheckpointToken": str(i), "ClientToken": f"client-{i}", "Updates": updates}


def send_bare(connection: http.client.HTTPConnection, path: str, bodies: list[bytes]) -> None:
    """Send one body after another, and read each answer whole."""
    for body in bodies:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.read() and answer.status != 200:
            raise SystemExit(f"a bare round trip: expected 200, found {answer.status}")


if __name__ == "__main__":
    main()
