"""Counts of what the tests of this folder tried, told at the end of a session."""

from __future__ import annotations

from collections import Counter

counts: Counter[str] = Counter()


def count(label: str, n: int = 1) -> None:
    """Add ``n`` to the cases under ``label``."""
    counts[label] += n


def lines() -> list[str]:
    """Return a line for each label, sorted."""
    return [f"{number:>9,}  {label}" for label, number in sorted(counts.items())]
