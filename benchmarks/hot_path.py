"""Show where the time of a live step, a replayed operation and a step on SQLite goes.

The first two run on one thread: cProfile tells calls and own time for each unit of work, of which
its own cost takes a good part. A step on SQLite is spread over two threads and waits for the disk,
so there a sampler looks at all threads a thousand times a second, in wall time. A thread inside of
a call to C is at the line that calls. One that comes back from such a call waits for the
interpreter's lock there: at `_write_to_self` the writer waits while the other thread works.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import pstats
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PACKAGE = str(BENCHMARKS.parent / "src")
sys.path.insert(0, str(BENCHMARKS / "peers"))

import pyworkflow_sqlite  # noqa: E402  (peers are no package)
import pyworkflow_worker  # noqa: E402
from disk import STEPS_OF_BURST, WARM_UP, new_folder  # noqa: E402

from pyworkflow import AsyncClient, Client  # noqa: E402

STEPS = 1000
BURST = 200
LINES = 25
INTERVAL_SECONDS = 0.001
SWITCH_SECONDS = 0.00005
"""Else the sampler would see only threads that gave up the interpreter's lock by themselves."""
IDLE = {"_gather", "_worker", "select", "wait"}
"""Functions in which a thread sits that has nothing to do."""
THREADS = ("MainThread", "pyworkflow")
WAITING = "waiting: "
MOSTLY = 0.99
"""A thread that waits for as much of the time is not shown."""


def main() -> None:
    count = pyworkflow_sqlite.count
    show_calls("a live step, service in memory", pyworkflow_worker.live_engine(count, STEPS))
    show_calls("a replayed operation", pyworkflow_worker.replay(count, STEPS))
    show_sqlite()


def show_calls(title: str, execute: Callable[[], object]) -> None:
    """Print the functions in which most time is spent, per unit of work."""
    execute()
    start = time.perf_counter()
    execute()
    plain = time.perf_counter() - start
    profile = cProfile.Profile()
    profile.runcall(execute)
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    print(f"\n{title}: {plain / STEPS * 1e6:.1f} µs, {total / STEPS * 1e6:.1f} µs under cProfile\n")
    rows = [
        (own, calls, inside, name_call(*where))
        for where, (_, calls, own, inside, _) in stats.stats.items()  # type: ignore[attr-defined]
    ]
    print(f"{'own µs':>8} {'own %':>6} {'calls':>6} {'with callees µs':>16}  function")
    for own, calls, inside, name in sorted(rows, reverse=True)[:LINES]:
        print(
            f"{own / STEPS * 1e6:8.2f} {own / total:6.1%} {calls / STEPS:6.1f} "
            f"{inside / STEPS * 1e6:16.2f}  {name}"
        )


def name_call(file: str, line: int, function: str) -> str:
    """Return where a function of ours, of the standard library or of C is."""
    if file.startswith(PACKAGE):
        return f"{file[len(PACKAGE) + 1 :]}:{line} {function}"
    return function if file == "~" else f"{Path(file).name}:{line} {function}"


def show_sqlite() -> None:
    """Print where the threads are while steps run on SQLite, alone and in a burst."""
    with new_folder() as folder, Client.local(folder / "a.db") as client:

        def run(n: int) -> object:
            return client.start(pyworkflow_sqlite.count, {"n": n}).result()

        run(WARM_UP)
        show_threads("a step on SQLite", STEPS, lambda: run(STEPS))
    with new_folder() as folder:
        asyncio.run(show_burst(folder / "a.db"))


async def show_burst(path: Path) -> None:
    async with AsyncClient.local(path) as client:

        async def run(number: int) -> None:
            event = {"n": STEPS_OF_BURST}
            starts = (client.start(pyworkflow_sqlite.count, event) for _ in range(number))
            for handle in await asyncio.gather(*starts):
                await handle.result()

        await run(WARM_UP)
        with sampling() as sampler:
            await run(BURST)
    title = f"an execution of {STEPS_OF_BURST} steps in a burst of {BURST} on SQLite"
    show_samples(title, BURST, sampler)


def show_threads(title: str, units: int, execute: Callable[[], object]) -> None:
    with sampling() as sampler:
        execute()
    show_samples(title, units, sampler)


@contextlib.contextmanager
def sampling() -> Iterator[Sampler]:
    """Sample while the block runs."""
    sampler = Sampler()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()
        sys.setswitchinterval(usual)


def show_samples(title: str, units: int, sampler: Sampler) -> None:
    """Print, for each thread, the lines at which it was seen most."""
    wall = sampler.wall_s / units * 1e6
    print(
        f"\n{title}: {wall:.0f} µs of wall time, {sampler.cpu_s / units * 1e6:.0f} µs of CPU time, "
        f"the sampler's included; {sampler.looks} looks"
    )
    for thread, seen in sampler.seen.items():
        idle = sum(number for place, number in seen.items() if place.startswith(WAITING))
        if idle > MOSTLY * sampler.looks:
            continue
        print(f"\nthread {thread}\n{'share':>7} {'µs each':>10}  where")
        for place, number in seen.most_common(LINES):
            share = number / sampler.looks
            print(f"{share:7.1%} {share * wall:10.1f}  {place}")


class Sampler(threading.Thread):
    """Looks at where every other thread is, again and again."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.looks = 0
        self.wall_s = self.cpu_s = 0.0
        self.seen: dict[str, Counter[str]] = {}
        self._is_over = threading.Event()

    def run(self) -> None:
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        while not self._is_over.wait(INTERVAL_SECONDS):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            self.looks += 1
            for ident, frame in sys._current_frames().items():
                name = names.get(ident, "")
                if name.startswith(THREADS):
                    self.seen.setdefault(name, Counter())[name_frame(frame)] += 1
        self.wall_s = time.perf_counter() - wall_start
        self.cpu_s = time.process_time() - cpu_start

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def name_frame(frame: FrameType) -> str:
    """Name the function that runs, and, when it is none of ours, ours that called it."""
    here = name_code(frame.f_code)
    if frame.f_code.co_name in IDLE:
        return f"{WAITING}{here}"
    for each in walk(frame):
        if each.f_code.co_filename.startswith(PACKAGE):
            ours = f"{name_code(each.f_code)} line {each.f_lineno}"
            return ours if each is frame else f"{ours} -> {here}"
    return here


def walk(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def name_code(code: CodeType | Any) -> str:
    return name_call(code.co_filename, code.co_firstlineno, code.co_qualname)


if __name__ == "__main__":
    main()
