"""From samples to Markdown and JSON: medians, ratios, verdicts. Nothing here measures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from environments import Sample
from rows import DETAILS, PYWORKFLOW, WALL, Bound, Medians, Peer, Row, Verdict


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
        units = 1 if self.row.is_whole else self.size
        return [read(sample) / units for sample in self.samples]

    def details(self) -> dict[str, list[float]]:
        """Return what the samples told beside the times, all of each figure."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.details)
        return {
            name: [sample.details[name] for sample in self.samples if name in sample.details]
            for name in names
        }


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
        medians = collect_medians([cell for cell in cells if cell.row is row])
        judgements += [Judgement(row, bound, bound.judge(medians)) for bound in row.bounds]
    return judgements


def collect_medians(cells: Sequence[Cell]) -> Medians:
    """Return the median of every figure of the cells, which are of one row."""
    medians: dict[tuple[str, int, str], float] = {}
    for cell in cells:
        if cell.samples:
            figures = {WALL: cell.per_unit(wall), **cell.details()}
            for figure, values in figures.items():
                medians[cell.peer.name, cell.size, figure] = median(values)
    return medians


def describe_run(started: datetime) -> dict[str, str]:
    """Return when the run was, how long it took, and how busy the machine is at its end."""
    minutes = (datetime.now(UTC) - started).total_seconds() / 60
    load = (
        f", load average {os.getloadavg()[0]:.1f} at its end" if hasattr(os, "getloadavg") else ""
    )
    return {"date": f"{started:%Y-%m-%d %H:%M} UTC", "took": f"{minutes:.0f} minutes{load}"}


def describe_machine() -> dict[str, str | int]:
    """Return what a reader needs to know of the machine; never its name."""
    return {
        "processor": read_processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def read_processor() -> str:
    """Return the processor's model where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def to_markdown(
    cells: Sequence[Cell], judgements: Sequence[Judgement], run: Mapping[str, str]
) -> str:
    """Render the run: the bounds, the times, what else was found, limits, machine and versions."""
    parts = (
        to_bounds(judgements),
        to_times(cells),
        to_limits(cells),
        to_details(cells),
        to_conditions(cells, run),
    )
    return "\n\n".join(part for part in parts if part)


def to_times(cells: Sequence[Cell]) -> str:
    lines = [
        "| row | n | peer | wall a unit: median (min to max) | CPU a unit | wall, x PyWorkflow "
        "| CPU, x PyWorkflow |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    ours = {(cell.row, cell.size): cell for cell in cells if cell.peer is PYWORKFLOW}
    lines += [to_line(cell, ours.get((cell.row, cell.size))) for cell in cells]
    return "\n".join(lines)


def to_bounds(judgements: Sequence[Judgement]) -> str:
    words = {True: "yes", False: "**no**", None: "-"}
    lines = [
        "| row | bound (median wall time a unit, or as said) | measured | holds |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {it.row.name} | {it.bound.claim} | {it.verdict.measured} | {words[it.verdict.holds]} |"
        for it in judgements
    ]
    return "\n".join(lines) if judgements else ""


def to_limits(cells: Sequence[Cell]) -> str:
    """Render PyWorkflow's figures as multiples of what nobody can beat."""
    lines = [
        "| row | n | physical limit | limit | PyWorkflow | multiple |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for row in dict.fromkeys(cell.row for cell in cells):
        medians = collect_medians([cell for cell in cells if cell.row is row])
        for size in dict.fromkeys(cell.size for cell in cells if cell.row is row):
            if row.limit is None:
                continue
            limit = medians.get((row.limit.peer.name, size, row.limit.figure))
            ours = medians.get((PYWORKFLOW.name, size, row.limit.ours))
            if limit is not None and ours is not None:
                lines.append(
                    f"| {row.name} | {size} | {row.limit.text} | {to_time(limit)} "
                    f"| {to_time(ours)} | {ours / limit:.1f} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def to_details(cells: Sequence[Cell]) -> str:
    lines = ["| row | n | peer | figure | median (min to max) |", "|---|---:|---|---|---:|"]
    for cell in cells:
        for name, values in cell.details().items():
            detail = DETAILS[name]
            render = to_time if detail.is_time else to_number
            spread = f"{render(median(values))} ({render(min(values))} to {render(max(values))})"
            start = f"| {cell.row.name} | {cell.size} | {cell.peer.name}"
            lines.append(f"{start} | {detail.text} | {spread} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def to_conditions(cells: Sequence[Cell], run: Mapping[str, str]) -> str:
    """Render the date, the machine and the versions."""
    lines = [f"Run: {run['date']}, took {run['took']}."]
    lines += [f"Machine: {', '.join(f'{key} {it}' for key, it in describe_machine().items())}.", ""]
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


def to_number(value: float) -> str:
    """Render a count, with decimals where it is small."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def collect_versions(cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
    """Return the versions that each peer's workers reported."""
    versions: dict[str, dict[str, str]] = {}
    for cell in cells:
        for sample in cell.samples:
            versions.setdefault(cell.peer.name, {}).update(sample.versions)
    return versions


def to_json(
    cells: Sequence[Cell], judgements: Sequence[Judgement], run: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return everything that the run found, every sample included, for `json.dump`."""
    return {
        "run": run,
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
