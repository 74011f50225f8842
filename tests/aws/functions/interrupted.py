"""A function whose process is killed in the midst of a step. `BRIDGE` is where it says so."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

import pyworkflow
from pyworkflow import StepInterruptedError, current_step, step, workflow
from pyworkflow.aws import aws_workflow_handler


def reach(place: str) -> None:
    with urllib.request.urlopen(f"{os.environ['BRIDGE']}/reached/{place}", timeout=60) as answer:
        answer.read()


@step
def reserve(item: str) -> int:
    return os.getpid()


@step
def pack(item: str) -> int:
    reach("pack")
    return current_step().attempt


@step(at_most_once=True)
def charge(item: str) -> str:
    reach("charge")
    return "charged"


@aws_workflow_handler
@workflow
def packing(item: str) -> dict[str, Any]:
    first = reserve(item)
    attempt = pack(item)
    return {
        "first": first,
        "attempt": attempt,
        "last": os.getpid(),
        "library": pyworkflow.__file__,
    }


@aws_workflow_handler
@workflow
def charging(item: str) -> str:
    try:
        return charge(item)
    except StepInterruptedError:
        return "to be looked into"
