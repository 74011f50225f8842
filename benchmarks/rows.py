"""The table of what is measured: peers, rows, bounds. A new comparison is a new record here.

A bound speaks of the median wall time of one unit of work, or of another figure that it names.
Wherever there is a peer it is a ratio to that peer in the same run, since a ratio travels from
machine to machine and a time does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent

WALL = "wall"

Medians = Mapping[tuple[str, int, str], float]
"""By the peer's name, the size and the figure: `WALL`, in seconds for one unit of work, or one of
the details that its worker told.
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A package that is measured, in a virtual environment of its own."""

    name: str
    version: str
    install: tuple[str, ...]
    script: str
    module: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a bound measured; ``holds`` is `None` if the run lacks what the bound speaks of."""

    measured: str
    holds: bool | None


NOT_MEASURED = Verdict("not measured", None)


class Bound(Protocol):
    """A claim on PyWorkflow's cost that a run confirms or refutes."""

    @property
    def claim(self) -> str: ...

    def judge(self, medians: Medians) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class FractionOfPeer:
    """At ``size``, a unit costs at most 1/``divisor`` of the peer's."""

    peer: Peer
    divisor: float
    size: int

    @property
    def claim(self) -> str:
        return f"n={self.size}: at most 1/{self.divisor:g} of {self.peer.name}"

    def judge(self, medians: Medians) -> Verdict:
        ours = medians.get((PYWORKFLOW.name, self.size, WALL))
        theirs = medians.get((self.peer.name, self.size, WALL))
        if ours is None or theirs is None:
            return NOT_MEASURED
        return Verdict(f"1/{theirs / ours:.1f}", ours * self.divisor <= theirs)


@dataclass(frozen=True, slots=True)
class MultipleOfPeer:
    """At ``size``, a unit costs at most ``factor`` times the peer's."""

    peer: Peer
    factor: float
    size: int

    @property
    def claim(self) -> str:
        return f"n={self.size}: at most {self.factor:g} x {self.peer.name}"

    def judge(self, medians: Medians) -> Verdict:
        ours = medians.get((PYWORKFLOW.name, self.size, WALL))
        theirs = medians.get((self.peer.name, self.size, WALL))
        if ours is None or theirs is None:
            return NOT_MEASURED
        return Verdict(f"{ours / theirs:.1f} x", ours <= self.factor * theirs)


@dataclass(frozen=True, slots=True)
class NoGrowth:
    """A unit at the largest size costs at most ``limit`` times one at the smallest."""

    limit: float

    @property
    def claim(self) -> str:
        return f"a unit at the largest n at most {self.limit:g} x one at the smallest"

    def judge(self, medians: Medians) -> Verdict:
        ours = (PYWORKFLOW.name, WALL)
        sizes = sorted(size for name, size, figure in medians if (name, figure) == ours)
        if len(sizes) < 2:
            return NOT_MEASURED
        growth = (
            medians[PYWORKFLOW.name, sizes[-1], WALL] / medians[PYWORKFLOW.name, sizes[0], WALL]
        )
        return Verdict(f"{growth:.2f} x from n={sizes[0]} to n={sizes[-1]}", growth <= self.limit)


@dataclass(frozen=True, slots=True)
class AtMostMilliseconds:
    """A unit costs at most ``milliseconds``."""

    milliseconds: float

    @property
    def claim(self) -> str:
        return f"at most {self.milliseconds:g} ms"

    def judge(self, medians: Medians) -> Verdict:
        ours = medians.get((PYWORKFLOW.name, 1, WALL))
        if ours is None:
            return NOT_MEASURED
        return Verdict(f"{ours * 1000:.1f} ms", ours * 1000 <= self.milliseconds)


@dataclass(frozen=True, slots=True)
class AtMost:
    """At ``size``, a figure other than the time is at most ``limit``."""

    figure: str
    limit: float
    size: int

    @property
    def claim(self) -> str:
        return f"n={self.size}: {DETAILS[self.figure].text} at most {self.limit:g}"

    def judge(self, medians: Medians) -> Verdict:
        ours = medians.get((PYWORKFLOW.name, self.size, self.figure))
        if ours is None:
            return NOT_MEASURED
        return Verdict(f"{ours:.2f}", ours <= self.limit)


@dataclass(frozen=True, slots=True)
class Detail:
    """What a figure beside the times is called, and whether it is a time of its own."""

    text: str
    is_time: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """What no implementation can beat, measured beside: the ``peer``'s ``figure``.

    PyWorkflow's ``ours`` is told as a multiple of it.
    """

    text: str
    peer: Peer
    figure: str = WALL
    ours: str = WALL


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: ``work`` is the name by which the peers' workers know it.

    With ``script``, that one worker measures every peer, and is given the peer's module instead.
    With ``is_whole`` the size describes the work, and its time is not divided by it. A row with
    ``most_rounds`` takes long: its workers warm up themselves, so that no round is thrown away.
    """

    name: str
    unit: str
    work: str
    peers: tuple[Peer, ...]
    bounds: tuple[Bound, ...]
    sizes: tuple[int, ...]
    script: str | None = None
    limit: Limit | None = None
    is_whole: bool = False
    most_rounds: int | None = None

    def arguments(self, peer: Peer, size: int) -> list[str]:
        """Return the command line of the worker, from the script on."""
        if self.script is None:
            return [peer.script, self.work, str(size)]
        return [self.script, peer.module, str(size)]


PYWORKFLOW = Peer(
    name="PyWorkflow",
    version="checkout",
    install=("--editable", f"{ROOT}[aws]", "botocore==1.44.5"),
    script="pyworkflow_worker.py",
    module="pyworkflow",
)
AWS_SDK = Peer(
    name="AWS SDK",
    version="3.0.0",
    install=("aws-durable-execution-sdk-python==3.0.0",),
    script="aws_sdk_worker.py",
    module="aws_durable_execution_sdk_python",
)
ASYNC_DURABLE = Peer(
    name="async-durable-execution",
    version="2.5.0",
    install=("async-durable-execution==2.5.0",),
    script="async_durable_worker.py",
    module="async_durable_execution",
)
DBOS = Peer(
    name="DBOS",
    version="3.4.0",
    install=("dbos==3.4.0",),
    script="dbos_worker.py",
    module="dbos",
)
BARE = Peer(
    name="physical limit",
    version="msgspec-0.22.0",
    install=("msgspec==0.22.0",),
    script="bare_worker.py",
    module="msgspec",
)

DETAILS = {
    "fsyncs": Detail("fsyncs a unit"),
    "sleeper_bytes": Detail("bytes of memory a sleeping execution"),
    "execution_bytes": Detail("bytes of memory an execution"),
    "all_taken_up_s": Detail("until all sleepers are taken up again", is_time=True),
    "acknowledged_s": Detail("until the start is acknowledged", is_time=True),
    "gross_wall_s": Detail("a step, its round trip included", is_time=True),
    "round_trip_s": Detail("a bare round trip", is_time=True),
    "requests": Detail("requests a step"),
    "request_bytes": Detail("bytes a request"),
}
"""Figures that workers tell beside the times, by the names that they use."""

CALL = Limit("a bare coroutine call, encode and decode", BARE)
DECODE = Limit("a bare coroutine call and decode", BARE)
GATHER = Limit("a bare `asyncio.gather` of the same coroutines", BARE)
FSYNC = Limit("append the bytes of a step to a file and sync it", BARE)
BURST = Limit("six such syncs for all executions together, and the calls", BARE)
START = Limit("append the bytes of a start to a file and sync it, twice", BARE)
ROUND_TRIP = Limit("a bare HTTP round trip", PYWORKFLOW, "round_trip_s", ours="gross_wall_s")
SQLITE_ROUNDS = 3

ROWS = (
    Row(
        name="live step",
        unit="step",
        work="live",
        peers=(PYWORKFLOW, AWS_SDK, ASYNC_DURABLE, BARE),
        bounds=(
            FractionOfPeer(AWS_SDK, 30, 1000),
            FractionOfPeer(ASYNC_DURABLE, 5, 1000),
            NoGrowth(1.25),
        ),
        sizes=(300, 1000),
        limit=CALL,
    ),
    Row(
        name="replayed operation",
        unit="operation",
        work="replay",
        peers=(PYWORKFLOW, AWS_SDK, BARE),
        bounds=(
            FractionOfPeer(AWS_SDK, 20, 1000),
            FractionOfPeer(AWS_SDK, 20, 3000),
            NoGrowth(1.25),
        ),
        sizes=(100, 1000, 3000),
        limit=DECODE,
    ),
    Row(
        name="live gather",
        unit="step",
        work="live gather",
        peers=(PYWORKFLOW, BARE),
        bounds=(MultipleOfPeer(BARE, 5, 1000),),
        sizes=(1000,),
        limit=GATHER,
    ),
    Row(
        name="replayed gather",
        unit="operation",
        work="replay gather",
        peers=(PYWORKFLOW, BARE),
        bounds=(MultipleOfPeer(BARE, 4, 1000),),
        sizes=(1000,),
        limit=GATHER,
    ),
    Row(
        name="sqlite step",
        unit="step",
        work="sqlite step",
        peers=(PYWORKFLOW, DBOS, BARE),
        bounds=(FractionOfPeer(DBOS, 4, 1000), AtMost("fsyncs", 1.3, 1000)),
        sizes=(1000,),
        limit=FSYNC,
        most_rounds=SQLITE_ROUNDS,
    ),
    Row(
        name="sqlite burst",
        unit="execution of 5 steps",
        work="sqlite burst",
        peers=(PYWORKFLOW, DBOS, BARE),
        bounds=(FractionOfPeer(DBOS, 40, 200),),
        sizes=(200,),
        limit=BURST,
        most_rounds=SQLITE_ROUNDS,
    ),
    Row(
        name="sqlite start",
        unit="start to the first line of the workflow",
        work="sqlite start",
        peers=(PYWORKFLOW, DBOS, BARE),
        bounds=(),
        sizes=(200,),
        limit=START,
        most_rounds=SQLITE_ROUNDS,
    ),
    Row(
        name="sqlite wake",
        unit="waking 1,000 executions due together",
        work="sqlite wake",
        peers=(PYWORKFLOW, DBOS),
        bounds=(),
        sizes=(1000,),
        is_whole=True,
        most_rounds=1,
    ),
    Row(
        name="sqlite wake among sleepers",
        unit="waking 1,000 executions due together, among n that sleep",
        work="sqlite wake",
        peers=(PYWORKFLOW,),
        bounds=(NoGrowth(1.5),),
        sizes=(1000, 100_000),
        is_whole=True,
        most_rounds=2,
    ),
    Row(
        name="sqlite open",
        unit="opening a file with n sleepers until one that is due goes on",
        work="sqlite open",
        peers=(PYWORKFLOW, DBOS),
        bounds=(),
        sizes=(300,),
        is_whole=True,
        most_rounds=2,
    ),
    Row(
        name="sqlite open, many",
        unit="opening a file with n sleepers until one that is due goes on",
        work="sqlite open",
        peers=(PYWORKFLOW,),
        bounds=(AtMost("sleeper_bytes", 50, 100_000),),
        sizes=(100_000,),
        is_whole=True,
        most_rounds=SQLITE_ROUNDS,
    ),
    Row(
        name="sqlite running",
        unit="bringing one more execution into a step that waits",
        work="sqlite running",
        peers=(PYWORKFLOW, DBOS),
        bounds=(),
        sizes=(200,),
        most_rounds=2,
    ),
    Row(
        name="sqlite suspended",
        unit="putting one more execution to sleep",
        work="sqlite suspended",
        peers=(PYWORKFLOW, DBOS),
        bounds=(),
        sizes=(200,),
        most_rounds=2,
    ),
    Row(
        name="import",
        unit="import over asyncio's",
        work="import",
        peers=(PYWORKFLOW, AWS_SDK, ASYNC_DURABLE),
        bounds=(AtMostMilliseconds(60),),
        sizes=(1,),
        script="import_worker.py",
    ),
    Row(
        name="cold start",
        unit="start to the first checkpoint",
        work="cold start",
        peers=(PYWORKFLOW, AWS_SDK),
        bounds=(FractionOfPeer(AWS_SDK, 2, 1),),
        sizes=(1,),
        script="cold_start_worker.py",
    ),
    Row(
        name="lambda step",
        unit="step over a bare round trip",
        work="lambda step",
        peers=(PYWORKFLOW, AWS_SDK),
        bounds=(FractionOfPeer(AWS_SDK, 10, 300),),
        sizes=(300,),
        script="lambda_step_worker.py",
        limit=ROUND_TRIP,
    ),
)
