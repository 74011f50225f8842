"""Measure PyWorkflow beside its peers, in one run.

Peers take turns: a round measures each peer once, in a fresh process, and rounds repeat. So what
slows the machine for a while slows all alike. One round before the first is thrown away.

With ``--publish`` the tables replace those in docs/performance.md.

Exit code: 0 when every bound that was measured holds, 1 when one does not, 3 when a peer could not
be installed or measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from environments import (
    BENCHMARKS,
    Sample,
    UnavailableError,
    prepare_environment,
    run_worker,
)
from report import Cell, describe_run, judge, to_json, to_markdown
from rows import ROOT, ROWS, Peer, Row

RESULTS = BENCHMARKS / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN_MARK = "<!-- measured: begin -->"
END_MARK = "<!-- measured: end -->"
EXIT_BOUND_BROKEN = 1
EXIT_PEER_UNAVAILABLE = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    arguments = parse_arguments(argv)
    started = datetime.now(UTC)
    chosen = [row for row in ROWS if row.name in arguments.rows]
    environments = prepare_environments(dict.fromkeys(peer for row in chosen for peer in row.peers))
    cells: list[Cell] = []
    for row in chosen:
        # A row of one fixed size, as the import is, has nothing to choose from.
        sizes = arguments.sizes if arguments.sizes and len(row.sizes) > 1 else row.sizes
        for size in sizes:
            tell(f"{row.name}, n={size}")
            cells += measure(row, size, arguments.runs, environments)
    judgements = judge(cells)
    tables = to_markdown(cells, judgements, describe_run(started))
    print(tables)
    if arguments.publish:
        publish(tables)
    path = write_results(json.dumps(to_json(cells, judgements, describe_run(started)), indent=2))
    tell(f"written: {path}")
    if any(cell.failure for cell in cells):
        return EXIT_PEER_UNAVAILABLE
    if any(it.verdict.holds is False for it in judgements):
        return EXIT_BOUND_BROKEN
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description="Measure PyWorkflow beside its peers.")
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--sizes", nargs="+", type=to_positive, help="default: the row's own")
    parser.add_argument("--runs", type=to_positive, default=3, help="rounds measured; default: 3")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md")
    return parser.parse_args(argv)


def to_positive(text: str) -> int:
    """Convert a command-line value to a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text}")
    return number


def prepare_environments(peers: Sequence[Peer] | dict[Peer, None]) -> dict[Peer, Path | str]:
    """Return each peer's Python, or in one line why it has none."""

    def prepare(peer: Peer) -> Path | str:
        tell(f"environment: {peer.name} {peer.version}")
        try:
            return prepare_environment(peer)
        except UnavailableError as error:
            return f"can't be installed: {error}"

    with ThreadPoolExecutor(max_workers=3) as pool:
        return dict(zip(peers, pool.map(prepare, peers), strict=True))


def measure(row: Row, size: int, runs: int, environments: dict[Peer, Path | str]) -> list[Cell]:
    """Measure every peer of a row at one size, in turns; the first round is the warm-up.

    A row with a number of rounds of its own has no such round.
    """
    samples: dict[Peer, list[Sample]] = {peer: [] for peer in row.peers}
    failures = {peer: found for peer, found in environments.items() if isinstance(found, str)}
    warm_ups = 1 if row.most_rounds is None else 0
    for number in range(warm_ups + min(runs, row.most_rounds or runs)):
        for peer in row.peers:
            python = environments[peer]
            if peer in failures or isinstance(python, str):
                continue
            try:
                sample = run_worker(python, row.arguments(peer, size))
            except UnavailableError as error:
                failures[peer] = str(error)
                samples[peer].clear()
            else:
                samples[peer] += [sample] if number >= warm_ups else []
    return [Cell(row, peer, size, tuple(samples[peer]), failures.get(peer)) for peer in row.peers]


def write_results(text: str) -> Path:
    """Write a run's JSON under its time in UTC."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(text + "\n")
    return path


def publish(tables: str) -> None:
    """Put the tables between the marks in the document."""
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not end:
        raise SystemExit(f"expected {BEGIN_MARK} and {END_MARK} in {DOCUMENT.name}, found not both")
    DOCUMENT.write_text(f"{before}{begin}\n\n{tables}\n\n{end}{after}")


def tell(message: str) -> None:
    """Report progress where it does not mix with the table."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
