"""The reader and runner of the code in documents, used by `test_docs.py`.

A fenced block's info string says what becomes of it:

* ``python``: run, in one namespace with the file's other blocks, in order. Functions named
  ``test_…`` are called, coroutine functions on a loop of their own.
* ``python file=NAME.py``: also written to the folder in which the blocks run, and imported from
  there, so that later blocks may import it, as a reader does who saved it under that name.
* ``python no-run``: not run; the next line of text must be ``<!-- no-run: the reason -->``.
* ``bash``, ``sh``, ``console``: read, to see that the targets and files that it names exist.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FENCE = re.compile(r"^( *)(`{3,})[ \t]*([^\n`]*)\n(.*?)^ *\2`*[ \t]*$\n?", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"\s*<!--\s*no-run:\s*\S.*?-->", re.DOTALL)
SHELLS = {"bash", "console", "sh"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``line`` is that of its first line of code, from 1."""

    path: Path
    line: int
    info: tuple[str, ...]
    code: str
    has_reason: bool

    @property
    def language(self) -> str:
        """The first word of the info string, in lower case."""
        return self.info[0].lower() if self.info else ""

    @property
    def is_run(self) -> bool:
        """Whether this is Python that runs."""
        return self.language == "python" and "no-run" not in self.info

    @property
    def file(self) -> str | None:
        """The name under which a reader would save this block."""
        return next((word[5:] for word in self.info if word.startswith("file=")), None)


def read_blocks(path: Path) -> list[Block]:
    """Read the fenced blocks of a document, in order."""
    text = path.read_text("utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        indent, _, info, body = found.groups()
        code = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        line = text.count("\n", 0, found.start(4)) + 1
        has_reason = REASON.match(text, found.end()) is not None
        blocks.append(Block(path, line, tuple(info.split()), code, has_reason))
    return blocks


def block_findings(blocks: list[Block]) -> list[str]:
    """Find Python blocks that are excused without a reason, or whose info string is unknown."""
    findings = []
    for block in blocks:
        where = f"{block.path}:{block.line}"
        if block.language in {"py", "python3", "pycon"}:
            findings.append(f"{where}: write `python`, so that the block is run")
        if block.language != "python":
            continue
        if "no-run" in block.info and not block.has_reason:
            findings.append(f"{where}: no-run without <!-- no-run: the reason --> after the block")
        unknown = [
            word for word in block.info[1:] if word != "no-run" and not word.startswith("file=")
        ]
        if unknown:
            findings.append(f"{where}: unknown words in the info string: {' '.join(unknown)}")
    return findings


def shell_findings(blocks: list[Block], root: Path) -> list[str]:
    """Find shell lines that name a make target or an example which does not exist."""
    makefile = root / "Makefile"
    targets = set(re.findall(r"^([\w-]+):", makefile.read_text("utf-8"), re.MULTILINE))
    findings = []
    for block in blocks:
        if block.language not in SHELLS:
            continue
        for number, line in enumerate(block.code.splitlines(), block.line):
            where = f"{block.path}:{number}"
            for words in re.findall(r"(?:^|&&|;|\$)\s*make((?:\s+[\w-]+(?=[\s;&]|$))+)", line):
                findings += [
                    f"{where}: no target {word} in the Makefile"
                    for word in words.split()
                    if word not in targets and not word.startswith("-")
                ]
            findings += [
                f"{where}: no file {name}"
                for name in re.findall(r"python[\d.]*\s+(examples/\S+)", line)
                if not (root / name).is_file()
            ]
    return findings


def run_blocks(blocks: list[Block], folder: Path, patch: pytest.MonkeyPatch) -> int:
    """Run the Python blocks of one document in ``folder``; return how many ran.

    The namespace is a module's, so that annotations resolve. A failure's traceback names the
    document and its line.
    """
    module = ModuleType(f"document_{blocks[0].path.stem}") if blocks else ModuleType("document")
    patch.setitem(sys.modules, module.__name__, module)
    patch.syspath_prepend(str(folder))
    patch.chdir(folder)
    before = set(sys.modules)
    runnable = [block for block in blocks if block.is_run]
    try:
        for block in runnable:
            _run(block, folder, module.__dict__)
    finally:
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) in _saved(runnable, folder):
                del sys.modules[name]
    return len(runnable)


def _saved(blocks: list[Block], folder: Path) -> set[str]:
    return {os.fspath(folder / block.file) for block in blocks if block.file}


def _run(block: Block, folder: Path, namespace: dict[str, object]) -> None:
    code = "\n" * (block.line - 1) + block.code
    if block.file:
        (folder / block.file).write_text(block.code, "utf-8")
        code = f"from {block.file.removesuffix('.py')} import *"
    known = dict(namespace)
    exec(compile(code, str(block.path), "exec", dont_inherit=True), namespace)
    for name, test in list(namespace.items()):
        if name.startswith("test_") and inspect.isfunction(test) and known.get(name) is not test:
            if inspect.signature(test).parameters:
                pytest.fail(f"{block.path}:{block.line}: {name} takes parameters; nobody has them")
            if inspect.iscoroutinefunction(test):
                asyncio.run(test())
            else:
                test()
