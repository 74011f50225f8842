"""What workers with a file have in common: a folder for it, fsyncs counted, memory, one watch."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fsyncs import FsyncCount

FILES = Path(__file__).resolve().parent.parent / ".files"
"""Beside the project and not among temporary files: those may be in memory."""
STEPS_OF_BURST = 5
DUE = 1000
"""How many executions are due together, however many sleep."""
WARM_UP = 20
"""Steps, or executions, that run before the clock starts."""
YEAR_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a worker found that holds the watch itself; ``details`` explain the two times."""

    wall_s: float
    cpu_s: float
    details: Mapping[str, float] = field(default_factory=dict)


class Watch:
    """Wall time, CPU time of all threads and fsyncs, from its start to `read`."""

    def __init__(self, fsyncs: FsyncCount | None) -> None:
        gc.collect()
        self._fsyncs = fsyncs
        self._fsyncs_before = fsyncs.total if fsyncs else 0
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def read(self, units: int = 1, **details: float) -> Measurement:
        """Return what passed until now; the fsyncs are for each of ``units``."""
        wall_s = time.perf_counter() - self._wall
        cpu_s = time.process_time() - self._cpu
        if self._fsyncs is not None:
            details["fsyncs"] = (self._fsyncs.total - self._fsyncs_before) / units
        return Measurement(wall_s, cpu_s, details)


def measure_starts(
    start: Callable[[], Callable[[], object]], begun: list[float], n: int, fsyncs: FsyncCount | None
) -> Measurement:
    """Start ``n`` executions one after another: until the first line of each has run.

    ``start`` returns what waits for the end; the executions tell ``begun`` when they begin.
    """
    waits, acknowledgements = [], []
    for _ in range(WARM_UP):
        start()()
    watch = Watch(fsyncs)
    for _ in range(n):
        begun.clear()
        asked = time.perf_counter()
        wait = start()
        acknowledgements.append(time.perf_counter() - asked)
        wait()
        waits.append(begun[0] - asked)
    found = watch.read(n, acknowledged_s=median(acknowledgements))
    return Measurement(median(waits) * n, found.cpu_s, found.details)


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """Give a folder on the disk of the project for the time of the block."""
    FILES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FILES, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def resident_bytes() -> float:
    """Return how much memory this process holds; not a number where /proc does not tell."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def check_result(what: str, found: object, expected: object) -> None:
    """End this process unless the workflow returned what it should."""
    if found != expected:
        raise SystemExit(f"{what}: expected the result {expected}, found {found!r}")


def leave() -> None:
    """End the process at once: some threads and sleepers would hold it for a year."""
    sys.stdout.flush()
    os._exit(0)
