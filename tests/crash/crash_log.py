"""The log of what ran: one file beside the database, to which every process appends whole lines.

A line is one write to a file that was opened to append, so the order of the lines is the order in
which they were written, whoever did it, and a SIGKILL loses none. Three kinds of lines tell:

* a body *begins* (written right before it runs);
* an outcome is *recorded*: by the process that was told so, or by the test that read the file;
* an execution is *started*, as its starter was told.

From the order alone follows what must never be: a body that begins below a line which says that the
outcome of this attempt is recorded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pyworkflow._protocol.records import Operation, OperationType


class Began(msgspec.Struct, frozen=True, tag=True):
    """A body begins; ``most`` is how many attempts there may be if none may run twice, else 0."""

    execution_id: str
    operation_id: str
    name: str
    attempt: int
    most: int
    pid: int


class Recorded(msgspec.Struct, frozen=True, tag=True):
    """So many attempts of a step are over; ``is_over``: the step is."""

    execution_id: str
    operation_id: str
    attempts: int
    is_over: bool


class Started(msgspec.Struct, frozen=True, tag=True):
    """A process was told that it started an execution."""

    execution_id: str
    workflow: str
    name: str


class Warned(msgspec.Struct, frozen=True, tag=True):
    """A process warned of something."""

    message: str


Line = Began | Recorded | Started | Warned
_decoder = msgspec.json.Decoder(Line)


class Log:
    """The file, to append to and to read."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *lines: Line) -> None:
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if text:
            assert os.write(self._file, text) == len(text)

    def read(self) -> Iterator[Line]:
        with open(self.path, "rb") as file:
            for line in file:
                yield _decoder.decode(line)

    def close(self) -> None:
        os.close(self._file)


def recorded(execution_id: str, operation: Operation) -> Recorded | None:
    """Return the line for what is recorded of a step, if that is an outcome."""
    if operation.type is not OperationType.STEP or not (
        operation.ended or operation.ended_attempts
    ):
        return None
    return Recorded(execution_id, operation.id, operation.ended_attempts, operation.ended)


class Attempt(NamedTuple):
    execution_id: str
    operation_id: str
    number: int


class Laws:
    """What the lines of a log break; ``runs`` counts how often each attempt's body began."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.runs: Counter[Attempt] = Counter()
        self.broken: list[str] = []
        self.began: list[Began] = []
        self.started: list[Started] = []
        self.warnings: list[str] = []
        over: set[tuple[str, str]] = set()
        attempts: dict[tuple[str, str], int] = {}
        pids: dict[Attempt, set[int]] = {}
        for line in lines:
            match line:
                case Began():
                    step = line.execution_id, line.operation_id
                    attempt = Attempt(*step, line.attempt)
                    self.began.append(line)
                    self.runs[attempt] += 1
                    if step in over or line.attempt <= attempts.get(step, 0):
                        self.broken.append(f"it began although its outcome was recorded: {line}")
                    if line.most and (self.runs[attempt] > 1 or line.attempt > line.most):
                        self.broken.append(f"it began twice, and may run once: {line}")
                    known = pids.setdefault(attempt, set())
                    if line.pid in known:
                        self.broken.append(f"it began twice in one process: {line}")
                    known.add(line.pid)
                case Recorded():
                    step = line.execution_id, line.operation_id
                    attempts[step] = max(line.attempts, attempts.get(step, 0))
                    if line.is_over:
                        over.add(step)
                case Started():
                    self.started.append(line)
                case Warned():
                    self.warnings.append(line.message)
        self.steps_recorded = len(over)
