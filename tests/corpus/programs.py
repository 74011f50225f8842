"""Workflows as data: a small tree of nodes, the workflow that it stands for, and what it must do.

A program is a tuple of nodes. `main` makes a workflow function of it. `Walk` says, without any
engine, which operations a program asks for: once over what is recorded, to see whether it can go
on from there, and once to its end, to see what must be recorded then. So a change of a program is
a change of data, and exact.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pyworkflow import WorkflowContext, sleep, step, workflow
from pyworkflow._protocol.records import Operation

# -- nodes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    name: str
    argument: int = 0
    key: str | None = None

    @property
    def value(self) -> str:
        return f"{self.name}({self.argument})"


@dataclass(frozen=True)
class Wait:
    name: str | None
    seconds: int = 60
    key: str | None = None


@dataclass(frozen=True)
class Gather:
    branches: tuple[Program, ...]


@dataclass(frozen=True)
class Task:
    body: Program


@dataclass(frozen=True)
class Child:
    name: str
    body: Program
    key: str | None = None


@dataclass(frozen=True)
class Timeout:
    """It never comes: what runs out of time is the matter of other tests."""

    body: Program
    seconds: int = 1_000_000


@dataclass(frozen=True)
class Patch:
    id: str
    new: Program
    old: Program


Node = Step | Wait | Gather | Task | Child | Timeout | Patch
Program = tuple[Node, ...]


# -- as workflows --------------------------------------------------------------------------------


@step
async def do(name: str, argument: int) -> str:
    raise AssertionError("whoever drives the execution runs the bodies")


@workflow
async def child(ctx: WorkflowContext, body: Any) -> Any:
    return await _run(ctx, body)


def main(program: Program) -> Callable[[WorkflowContext], Any]:
    """Return the workflow function of ``program``; it returns the results of its nodes."""

    async def run(ctx: WorkflowContext) -> Any:
        return await _run(ctx, program)

    return run


async def _run(ctx: WorkflowContext, program: Program) -> list[Any]:
    results: list[Any] = []
    for node in program:
        if isinstance(node, Patch):
            results += await _run(ctx, node.new if ctx.patched(node.id) else node.old)
        else:
            results.append(await _perform(ctx, node))
    return results


async def _perform(ctx: WorkflowContext, node: Node) -> Any:
    match node:
        case Step():
            return await do.options(name=node.name, key=node.key)(node.name, node.argument)
        case Wait():
            return await sleep(node.seconds, name=node.name, key=node.key)
        case Gather():
            return await asyncio.gather(*(_run(ctx, branch) for branch in node.branches))
        case Task():
            return await asyncio.create_task(_run(ctx, node.body))
        case Child():
            return await child.options(name=node.name, key=node.key)(ctx, node.body)
        case Timeout():
            async with asyncio.timeout(node.seconds):
                return await _run(ctx, node.body)
    raise AssertionError(node)


# -- what they must do ---------------------------------------------------------------------------


@dataclass
class Place:
    """A namespace: where the positions of a task are counted."""

    prefix: str = ""
    scope: str | None = None
    number: int = 0

    def take(self, key: str | None = None) -> tuple[str, str]:
        """Return the path and the id of what comes next."""
        if key is None:
            self.number += 1
            path = f"{self.prefix}-{self.number}" if self.prefix else str(self.number)
        else:
            path = f"{self.scope}-key-{key}" if self.scope else f"key-{key}"
        return path, blake2b(path.encode()).hexdigest()[:64]


@dataclass
class Walk:
    """A way through a program over what was recorded when it was taken up.

    With ``is_reach`` the walk ends in each task at the first operation whose end is not recorded:
    what the code asks for right away. Otherwise it goes to the end of the program.
    ``differs`` are the recorded operations that the program takes for others, ``stale`` those that
    it takes for its own though they are another call's, ``steps`` the values that must be recorded
    for steps at the end.
    """

    recorded: Mapping[str, Operation]
    is_reach: bool
    patches: Mapping[str, bool] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    differs: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    steps: dict[str, str] = field(default_factory=dict)

    def ends_here(self, identity: tuple[str, str, str | None, str | None]) -> bool:
        """Take note of an operation; return whether the walk stops at it."""
        operation_id, type_, name, scope = identity
        record = self.recorded.get(operation_id)
        self.seen.add(operation_id)
        if record is None:
            return self.is_reach
        if (record.type, record.name, record.parent_id) != (type_, name, scope):
            self.differs.add(operation_id)
            return True
        return self.is_reach and not record.ended

    def go(self, program: Program, place: Place) -> list[Any] | None:
        """Return the results of ``program``, `None` if the walk does not come to its end."""
        results: list[Any] = []
        for node in program:
            if isinstance(node, Patch):
                way = node.new if self.patches[node.id] else node.old
                found = self.go(way, place)
            else:
                result = self.visit(node, place)
                found = None if result is STOPPED else [result]
            if found is None:
                return None
            results += found
        return results

    def visit(self, node: Node, place: Place) -> Any:
        match node:
            case Step():
                operation_id = place.take(node.key)[1]
                stops = self.ends_here((operation_id, "STEP", node.name, place.scope))
                self.steps[operation_id] = node.value
                record = self.recorded.get(operation_id)
                if record is not None and record.payload not in {None, json.dumps(node.value)}:
                    self.stale.add(operation_id)
                return STOPPED if stops else node.value
            case Wait():
                operation_id = place.take(node.key)[1]
                stops = self.ends_here((operation_id, "WAIT", node.name, place.scope))
                return STOPPED if stops else None
            case Gather():
                places = [Place(place.take()[0], place.scope) for _ in node.branches]
                found = [self.go(*each) for each in zip(node.branches, places, strict=True)]
                return STOPPED if None in found else found
            case Task():
                inner = Place(place.take()[0], place.scope)
                return _or_stopped(self.go(node.body, inner))
            case Timeout():
                operation_id = place.take()[1]
                self.ends_here((operation_id, "WAIT", None, place.scope))
                return _or_stopped(self.go(node.body, place))
            case Child():
                return self.visit_child(node, place)
        raise AssertionError(node)

    def visit_child(self, node: Child, place: Place) -> Any:
        operation_id = place.take(node.key)[1]
        self.ends_here((operation_id, "CONTEXT", node.name, place.scope))
        if operation_id in self.differs:
            return STOPPED
        record = self.recorded.get(operation_id)
        if record is not None and record.ended:
            below = list(below_of(operation_id, self.recorded))
            self.seen.update(below)
            self.steps.update(step_values({i: self.recorded[i] for i in below}))
            return json.loads(record.payload or "null")
        found = self.go(node.body, Place(operation_id, operation_id))
        return STOPPED if found is None or self.is_reach else found

    @property
    def unseen(self) -> set[str]:
        """The recorded operations that the program does not ask for."""
        return set(self.recorded) - self.seen


STOPPED: Any = object()


def step_values(operations: Mapping[str, Operation]) -> dict[str, Any]:
    """Return what is recorded for the steps that are a program's own, by id."""
    return {
        i: json.loads(each.payload or "null")
        for i, each in operations.items()
        if each.type == "STEP" and not (each.name or "").startswith(ENGINES_OWN)
    }


ENGINES_OWN = ("patched ", "pyworkflow delivery order")


def _or_stopped(found: list[Any] | None) -> Any:
    return STOPPED if found is None else found


def below_of(operation_id: str, recorded: Mapping[str, Operation]) -> Iterator[str]:
    """Yield the ids of what is recorded below a child context."""
    for each in recorded.values():
        if each.parent_id == operation_id:
            yield each.id
            yield from below_of(each.id, recorded)
