"""The table of what is measured: peers, rows, bounds. A new comparison is a new record here.

A bound speaks of the median wall time of one unit of work. Wherever there is a peer it is a ratio
to that peer in the same run, since a ratio travels from machine to machine and a time does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent

Medians = Mapping[tuple[str, int], float]
"""Median wall seconds of one unit of work, by the peer's name and the size."""


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
        ours = medians.get((PYWORKFLOW.name, self.size))
        theirs = medians.get((self.peer.name, self.size))
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
        ours = medians.get((PYWORKFLOW.name, self.size))
        theirs = medians.get((self.peer.name, self.size))
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
        sizes = sorted(size for name, size in medians if name == PYWORKFLOW.name)
        if len(sizes) < 2:
            return NOT_MEASURED
        growth = medians[PYWORKFLOW.name, sizes[-1]] / medians[PYWORKFLOW.name, sizes[0]]
        return Verdict(f"{growth:.2f} x from n={sizes[0]} to n={sizes[-1]}", growth <= self.limit)


@dataclass(frozen=True, slots=True)
class AtMostMilliseconds:
    """A unit costs at most ``milliseconds``."""

    milliseconds: float

    @property
    def claim(self) -> str:
        return f"at most {self.milliseconds:g} ms"

    def judge(self, medians: Medians) -> Verdict:
        ours = medians.get((PYWORKFLOW.name, 1))
        if ours is None:
            return NOT_MEASURED
        return Verdict(f"{ours * 1000:.1f} ms", ours * 1000 <= self.milliseconds)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: ``work`` is the name by which the peers' workers know it.

    With ``script``, that one worker measures every peer, and is given the peer's module instead.
    """

    name: str
    unit: str
    work: str
    peers: tuple[Peer, ...]
    bounds: tuple[Bound, ...]
    sizes: tuple[int, ...]
    script: str | None = None

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
BARE = Peer(
    name="physical limit",
    version="msgspec-0.22.0",
    install=("msgspec==0.22.0",),
    script="bare_worker.py",
    module="msgspec",
)

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
        sizes=(300, 1000, 3000),
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
        sizes=(300, 1000, 3000),
    ),
    Row(
        name="live gather",
        unit="step",
        work="live gather",
        peers=(PYWORKFLOW, BARE),
        bounds=(MultipleOfPeer(BARE, 5, 1000),),
        sizes=(1000,),
    ),
    Row(
        name="replayed gather",
        unit="operation",
        work="replay gather",
        peers=(PYWORKFLOW, BARE),
        bounds=(MultipleOfPeer(BARE, 4, 1000),),
        sizes=(1000,),
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
    ),
)
