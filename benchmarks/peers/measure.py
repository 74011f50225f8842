"""How every worker measures, so that no peer is measured in a way of its own.

A worker is one process that does one work at one size and prints one JSON line. It first runs the
work once, untimed, at the full size: caches fill and lazy imports happen. Then it repeats the
work until `MINIMUM_SECONDS` have passed and reports the mean time of one execution. The garbage
collector stays on; a full collection just before the clock starts gives all the same start.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from disk import Measurement

MINIMUM_SECONDS = 0.3

Execution = Callable[[], object]
"""One execution of the work: made ready outside the clock, it returns the workflow's result."""


def run_worker(
    works: Mapping[str, Callable[[int], Execution]],
    packages: Sequence[str],
    timed_works: Mapping[str, Callable[[int], Measurement]] | None = None,
) -> None:
    """Read the command line, measure one of the works and print its JSON line.

    A work of ``works`` is given the size and returns the `Execution` to time. Every workflow of
    these benchmarks counts to its size, so any other result ends the worker with an error. One of
    ``timed_works`` holds the watch itself.
    """
    timed = timed_works or {}
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=sorted([*works, *timed]))
    parser.add_argument("n", type=int, help="units of work in one execution")
    arguments = parser.parse_args()
    n: int = arguments.n
    if arguments.work in timed:
        found_out = timed[arguments.work](n)
        print_measurement(
            arguments.work,
            n,
            found_out.wall_s,
            found_out.cpu_s,
            1,
            packages,
            found_out.details,
        )
        return
    execute = works[arguments.work](n)
    found = execute()
    if found != n:
        raise SystemExit(f"{arguments.work}: expected the result {n}, found {found!r}")
    wall_s, cpu_s, executions = measure(execute)
    print_measurement(arguments.work, n, wall_s, cpu_s, executions, packages)


def measure(execute: Execution) -> tuple[float, float, int]:
    """Return wall seconds and CPU seconds (all threads) of one execution, and how many ran."""
    gc.collect()
    executions = 0
    cpu_start = time.process_time()
    wall_start = time.perf_counter()
    while True:
        execute()
        executions += 1
        wall = time.perf_counter() - wall_start
        if wall >= MINIMUM_SECONDS:
            cpu = time.process_time() - cpu_start
            return wall / executions, cpu / executions, executions


def print_measurement(
    work: str,
    n: int,
    wall_s: float,
    cpu_s: float,
    executions: int,
    packages: Sequence[str],
    details: Mapping[str, float] | None = None,
) -> None:
    """Print the worker's one JSON line; ``details`` are figures that explain the two times."""
    versions = {"python": platform.python_version()}
    versions |= {package: metadata.version(package) for package in packages}
    line = {
        "work": work,
        "n": n,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "executions": executions,
        "versions": versions,
        "details": dict(details or {}),
    }
    print(json.dumps(line))
