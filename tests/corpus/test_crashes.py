"""Each shape of the corpus, crashed before and after each checkpoint, at paces that are drawn.

What is asserted stands in `checks.py` and `trials.py`.
"""

from __future__ import annotations

import asyncio
import os
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.corpus.checks import (
    check_crashes,
    check_error_classes,
    check_foreign_records,
    check_paces,
)
from tests.corpus.counting import count
from tests.corpus.shapes import SHAPES, Shape
from tests.corpus.trials import AT_ONCE, Durations

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "proof"
EXAMPLES = 40 if IS_LONG else 2


def pace(seed: int) -> Durations:
    """Durations from nothing to half a minute; the short ones are as many as the long ones."""
    random = Random(seed)
    return Durations(tuple(round(10 ** random.uniform(0, 4.5)) for _ in range(9)))


paces = st.integers(0, 2**32).map(pace)
few = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
    # A smaller example would take longer to find than the whole test takes.
    phases=[Phase.explicit, Phase.generate],
)
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

SOME = Durations((1_000, 20_000, 7_000, 3, 12_000))
"""A pace at which most races have a winner by far."""


def crash(shape: Shape, durations: Durations, *, is_wired: bool = False) -> None:
    found = asyncio.run(check_crashes(shape, durations, is_wired=is_wired))
    for label, number in found.items():
        count(f"corpus, {label}", number)
    count("corpus, shapes at one pace, crashed at each checkpoint")


@each_shape
def test_crashes_of_steps_that_take_no_time(shape: Shape) -> None:
    crash(shape, AT_ONCE)
    count("corpus, shapes")


@each_shape
def test_crashes_while_a_checkpoint_is_on_its_way(shape: Shape) -> None:
    crash(shape, AT_ONCE, is_wired=True)


@each_shape
@given(durations=paces)
@few
def test_crashes_at_any_pace(shape: Shape, durations: Durations) -> None:
    crash(shape, durations)


@each_shape
@given(durations=paces)
@few
def test_ids_and_results_do_not_depend_on_the_pace(shape: Shape, durations: Durations) -> None:
    for other in (AT_ONCE, SOME):
        asyncio.run(check_paces(shape, other, durations))
        count("corpus, pairs of paces")


@each_shape
def test_a_record_that_does_not_fit_is_noticed(shape: Shape) -> None:
    for label, number in asyncio.run(check_foreign_records(shape)).items():
        count(f"corpus, {label}", number)


@pytest.mark.parametrize("name", ["errors_of_its_own", "errors_of_its_own_out_of_a_child"])
def test_what_except_matched_it_matches_under_another_name(name: str) -> None:
    for label, number in asyncio.run(check_error_classes(SHAPES[name])).items():
        count(f"corpus, {label}", number)


def test_the_corpus_is_large_enough() -> None:
    assert len(SHAPES) >= 120
    assert sum(shape.is_race for shape in SHAPES.values()) >= 40
    assert sum(bool(shape.interrupted) for shape in SHAPES.values()) >= 5
