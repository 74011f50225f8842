"""Changes of programs: every kind at every place, and the same with the old code kept by a patch.

A change replaces the nodes of one stretch of one sequence by others. So its patched twin is exact:
at that place it asks `ctx.patched` whether to run the new nodes or the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tests.corpus.programs import Child, Gather, Node, Patch, Program, Step, Task, Timeout, Wait


@dataclass(frozen=True)
class Mutation:
    """One change: ``new`` stands where ``old`` stood; ``patched`` asks which of them to run."""

    kind: str
    program: Program
    patched: Program
    old: Program
    new: Program

    def __str__(self) -> str:
        return f"{self.kind}: {self.old} -> {self.new}"


Rebuild = Callable[[Program], Program]
Change = tuple[str, int, int, Program]
"""Kind, first and last place of the stretch, and what stands there then."""


def mutations(program: Program) -> Iterator[Mutation]:
    """Yield every change of ``program``."""
    for sequence, rebuild in _sequences(program, lambda whole: whole):
        for kind, first, last, new in _changes(sequence):
            old = sequence[first:last]
            before, after = sequence[:first], sequence[last:]
            yield Mutation(
                kind,
                rebuild(before + new + after),
                rebuild((*before, Patch("p", new, old), *after)),
                old,
                new,
            )


def _sequences(program: Program, rebuild: Rebuild) -> Iterator[tuple[Program, Rebuild]]:
    yield program, rebuild
    for index, node in enumerate(program):
        for body, with_body in _bodies(node):

            def around(inner: Program, index: int = index, with_body: Any = with_body) -> Program:
                changed = (*program[:index], with_body(inner), *program[index + 1 :])
                return rebuild(changed)

            yield from _sequences(body, around)


def _bodies(node: Node) -> Iterator[tuple[Program, Callable[[Program], Node]]]:
    match node:
        case Task() | Child() | Timeout():
            yield node.body, lambda body: replace(node, body=body)
        case Gather():
            for index, branch in enumerate(node.branches):

                def with_branch(body: Program, index: int = index) -> Node:
                    branches = (*node.branches[:index], body, *node.branches[index + 1 :])
                    return Gather(branches)

                yield branch, with_branch


def _changes(sequence: Program) -> Iterator[Change]:
    for index in range(len(sequence) + 1):
        yield "inserted", index, index, (Step("new", key=_key_like(sequence, "new")),)
    for index, node in enumerate(sequence):
        yield "removed", index, index + 1, ()
        for kind, new in _changes_of(node):
            yield kind, index, index + 1, new
    for index, (one, two) in enumerate(pairwise(sequence)):
        if one != two:
            yield "swapped", index, index + 2, (two, one)
        yield "made concurrent", index, index + 2, (Gather(((one,), (two,))),)


def _changes_of(node: Node) -> Iterator[tuple[str, Program]]:
    yield "moved into a task", (Task((node,)),)
    yield "child added", (Child("added", (node,), key="added" if _key_of(node) else None),)
    yield "timeout added", (Timeout((node,)),)
    match node:
        case Step():
            yield "renamed", (replace(node, name=f"{node.name}2"),)
            yield "turned into a wait", (Wait(node.name, key=node.key),)
        case Wait():
            yield "turned into a step", (Step(node.name or "named", key=node.key),)
            yield "renamed", (replace(node, name=f"{node.name}2"),)
            yield "made longer", (replace(node, seconds=2 * node.seconds),)
        case Child():
            yield "renamed", (replace(node, name=f"{node.name}2"),)
            yield "child removed", node.body
        case Task():
            yield "taken out of a task", node.body
        case Gather():
            yield "made sequential", sum(node.branches, ())
        case Timeout():
            yield "timeout removed", node.body
    if isinstance(node, Step | Wait | Child):
        key = None if node.key else f"k-{node.name}"
        yield ("key removed" if node.key else "key added"), (replace(node, key=key),)


def _key_of(node: Node) -> str | None:
    return node.key if isinstance(node, Step | Wait | Child) else None


def _key_like(sequence: Program, name: str) -> str | None:
    """A key for a node among keyed ones, none among others."""
    return f"k-{name}" if sequence and all(map(_key_of, sequence)) else None
