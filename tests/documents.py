"""The reader and runner of the code in documents, used by `test_docs.py`.

A fenced block's info string says how it is treated:

* ``python``: run in a namespace of its own, as a reader runs it who copied it alone. One that opens
  with ``# Continues the block above.`` or ``# Continues the first block of this page.`` runs in the
  namespace of that block instead. Functions named ``test_…`` are called, coroutine functions on a
  loop of their own.
* ``python file=NAME.py``: also written to the folder in which the blocks run, and imported from
  there, so that later blocks may import it, as a reader does who saved it under that name.
* ``python no-run``: not run; the next line of text must be ``<!-- no-run: the reason -->``.
* ``bash``, ``sh``, ``console``: read, to see that the targets and files that it names exist.
"""

from __future__ import annotations

import asyncio
import builtins
import dis
import inspect
import os
import re
import sys
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FENCE = re.compile(r"^( *)(`{3,})[ \t]*([^\n`]*)\n(.*?)^ *\2`*[ \t]*$\n?", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"\s*<!--\s*no-run:\s*\S.*?-->", re.DOTALL)
LINK = re.compile(r"(?:\]\(|^\[[^]]+\]: )([^)\s]+)")
SHELLS = {"bash", "console", "sh"}
CONTINUES = re.compile(r"# Continues (the block above|the first block of this page)\.\n")


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

    @property
    def continues(self) -> str | None:
        """The block that this one says it continues, in its own words."""
        found = CONTINUES.match(self.code)
        return found and found.group(1)


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


def link_findings(path: Path) -> list[str]:
    """Find links of a document to files or headings that do not exist."""
    findings = []
    for number, line in enumerate(FENCE.sub(_blank, path.read_text("utf-8")).splitlines(), 1):
        for target in LINK.findall(line):
            name, _, heading = target.partition("#")
            other = path.parent / name if name else path
            if "://" in name:
                continue
            if not other.exists():
                findings.append(f"{path}:{number}: no file {name}")
            elif heading and heading not in _anchors(other):
                findings.append(f"{path}:{number}: no heading {target}")
    return findings


def _blank(found: re.Match[str]) -> str:
    return "\n" * found.group().count("\n")


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def chains(blocks: list[Block]) -> list[list[Block]]:
    """Group Python blocks that share a namespace: each with those that continue it, in order."""
    found: list[list[Block]] = []
    last: list[Block] | None = None
    for block in blocks:
        if block.language != "python":
            continue
        if block.continues is None or last is None:
            last = [block]
            found.append(last)
        else:
            last = last if block.continues == "the block above" else found[0]
            last.append(block)
    return found


def name_findings(blocks: list[Block]) -> list[str]:
    """Find names that a block uses but neither it nor the blocks that it continues define."""
    python = [block for block in blocks if block.language == "python"]
    findings = [
        f"{block.path}:{block.line}: it continues a block, but is the first one"
        for block in python[:1]
        if block.continues
    ]
    for chain in chains(blocks):
        known = {*dir(builtins), "__name__", "__file__", "__annotations__"}
        for block in chain:
            code = compile(block.code, str(block.path), "exec", dont_inherit=True)
            known |= _names(code, "STORE_NAME", "STORE_GLOBAL")
            findings += [
                f"{block.path}:{block.line}: {name} is neither imported nor defined; import it, or"
                " open the block with `# Continues the block above.`"
                for name in sorted(_names(code, "LOAD_NAME", "LOAD_GLOBAL") - known)
            ]
    return findings


def _names(code: CodeType, *operations: str) -> set[str]:
    found = {each.argval for each in dis.get_instructions(code) if each.opname in operations}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found.union(*(_names(each, *operations) for each in inner))


def run_blocks(blocks: list[Block], folder: Path, patch: pytest.MonkeyPatch) -> int:
    """Run the Python blocks of one document in ``folder``; return how many ran.

    Each namespace is a module's, so that annotations resolve. A failure's traceback names the
    document and its line.
    """
    patch.syspath_prepend(str(folder))
    patch.chdir(folder)
    modules: dict[Block, ModuleType] = {}
    for number, chain in enumerate(chains(blocks)):
        module = ModuleType(f"document_{chain[0].path.stem.replace('-', '_')}_{number}")
        patch.setitem(sys.modules, module.__name__, module)
        modules |= dict.fromkeys(chain, module)
    before = set(sys.modules)
    runnable = [block for block in blocks if block.is_run]
    try:
        for block in runnable:
            _run(block, folder, modules[block].__dict__)
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
