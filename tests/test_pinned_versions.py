"""What developers and CI install is pinned, whole, and names no place that it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = ["constraints.txt", "constraints-lowest.txt"]
PIN = re.compile(r"[a-z0-9-]+==[\w.]+(?: ; [\w\s.<>=!'()]+)?")


def lines(file: str) -> list[str]:
    return [
        line
        for line in (ROOT / file).read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]


def pins(file: str) -> dict[str, str]:
    found = map(Requirement, lines(file))
    return {each.name: str(each.specifier).removeprefix("==") for each in found}


def requirements(*extras: str) -> list[Requirement]:
    wanted = [line for extra in extras for line in EXTRAS[extra]] + PROJECT["dependencies"]
    found = map(Requirement, wanted)
    return [each for each in found if each.name != "pyworkflow"]


@pytest.mark.parametrize("file", FILES)
def test_each_line_is_one_version(file: str) -> None:
    assert [line for line in lines(file) if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("file", FILES)
def test_whatever_is_asked_for_is_pinned_within_its_range(file: str) -> None:
    pinned = pins(file)
    for each in requirements("dev", "aws", "aws-sdk", "cli"):
        assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each


def test_the_lowest_are_those_that_users_may_install() -> None:
    pinned = pins("constraints-lowest.txt")
    for each in requirements("cli", "aws-sdk"):
        (bound,) = each.specifier
        assert bound.operator == ">="
        assert pinned[canonicalize_name(each.name)].startswith(bound.version), each
