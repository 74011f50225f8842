"""From samples to Markdown and JSON: medians, ratios, verdicts. Nothing here measures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from environments import Sample
from rows import PYWORKFLOW, Bound, Peer, Row, Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    """What one peer gave for one row at one size: samples, or the reason for having none."""

    row: Row
    peer: Peer
    size: int
    samples: tuple[Sample, ...] = ()
    failure: str | None = None

    def per_unit(self, read: Callable[[Sample], float]) -> list[float]:
        """Return one figure of every sample, in seconds for one unit of work."""
        return [read(sample) / self.size for sample in self.samples]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A row's bound with its verdict."""

    row: Row
    bound: Bound
    verdict: Verdict


def wall(sample: Sample) -> float:
    return sample.wall_s


def cpu(sample: Sample) -> float:
    return sample.cpu_s


def judge(cells: Sequence[Cell]) -> list[Judgement]:
    """Hold every bound of every measured row against the medians."""
    judgements = []
    for row in dict.fromkeys(cell.row for cell in cells):
        medians = {
            (cell.peer.name, cell.size): median(cell.per_unit(wall))
            for cell in cells
            if cell.row is row and cell.samples
        }
        judgements += [Judgement(row, bound, bound.judge(medians)) for bound in row.bounds]
    return judgements


def describe_machine() -> dict[str, str | int]:
    """Return what a reader needs to know of the machine; never its name."""
    return {
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def to_markdown(cells: Sequence[Cell], judgements: Sequence[Judgement]) -> str:
    """Render the measurements, the bounds and the versions as Markdown."""
    lines = [
        "| row | n | peer | wall a unit: median (min to max) | CPU a unit | wall, x PyWorkflow "
        "| CPU, x PyWorkflow |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    ours = {(cell.row, cell.size): cell for cell in cells if cell.peer is PYWORKFLOW}
    lines += [to_line(cell, ours.get((cell.row, cell.size))) for cell in cells]
    lines += [
        "",
        "| row | bound (median wall time a unit) | measured | holds |",
        "|---|---|---|---|",
    ]
    words = {True: "yes", False: "**no**", None: "-"}
    lines += [
        f"| {it.row.name} | {it.bound.claim} | {it.verdict.measured} | {words[it.verdict.holds]} |"
        for it in judgements
    ]
    machine = ", ".join(f"{key} {value}" for key, value in describe_machine().items())
    lines += ["", f"Machine: {machine}.", ""]
    for name, versions in collect_versions(cells).items():
        found = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.append(f"- {name}: {found}")
    return "\n".join(lines)


def to_line(cell: Cell, ours: Cell | None) -> str:
    """Render one cell as a line of the table."""
    start = f"| {cell.row.name} | {cell.size} | {cell.peer.name} "
    if not cell.samples:
        reason = (cell.failure or "not measured").replace("|", "\\|")
        return f"{start}| unavailable: {reason} | | | |"
    times = cell.per_unit(wall)
    spread = f"{to_time(median(times))} ({to_time(min(times))} to {to_time(max(times))})"
    ratios = [to_ratio(cell, ours, read) for read in (wall, cpu)]
    return f"{start}| {spread} | {to_time(median(cell.per_unit(cpu)))} | {' | '.join(ratios)} |"


def to_ratio(cell: Cell, ours: Cell | None, read: Callable[[Sample], float]) -> str:
    """Render how many times PyWorkflow's cost the peer's is."""
    if ours is None or not ours.samples:
        return "-"
    return f"{median(cell.per_unit(read)) / median(ours.per_unit(read)):.2f}"


def to_time(seconds: float) -> str:
    """Render seconds in the unit that gives the fewest digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def collect_versions(cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
    """Return the versions that each peer's workers reported."""
    versions: dict[str, dict[str, str]] = {}
    for cell in cells:
        for sample in cell.samples:
            versions.setdefault(cell.peer.name, {}).update(sample.versions)
    return versions


def to_json(cells: Sequence[Cell], judgements: Sequence[Judgement]) -> Mapping[str, Any]:
    """Return everything that the run found, every sample included, for `json.dump`."""
    return {
        "machine": describe_machine(),
        "versions": collect_versions(cells),
        "measurements": [
            {
                "row": cell.row.name,
                "unit": cell.row.unit,
                "peer": cell.peer.name,
                "pinned": cell.peer.version,
                "n": cell.size,
                "samples": [asdict(sample) for sample in cell.samples],
                "failure": cell.failure,
            }
            for cell in cells
        ],
        "bounds": [
            {"row": it.row.name, "claim": it.bound.claim, **asdict(it.verdict)} for it in judgements
        ],
    }
