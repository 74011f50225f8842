"""The commands in documents run in order, beside the files that a page saves."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.documents import Block, read_blocks

ROOT = Path(__file__).parents[2]
READERS = {"list", "show", "history"}
PAGES = [ROOT / "README.md", ROOT / "docs" / "cli.md"]


def commands(block: Block) -> list[list[str]]:
    if block.language != "bash" or "no-run" in block.info:
        return []
    lines = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["pyworkflow"]]


def waves(block: Block) -> list[list[list[str]]]:
    """Group the commands of a block: neighbours that only read run side by side."""
    found: list[list[list[str]]] = []
    for words in commands(block):
        if found and words[0] in READERS and found[-1][0][0] in READERS:
            found[-1].append(words)
        else:
            found.append([words])
    return found


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    count = 0
    for block in read_blocks(page):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.code, "utf-8")
        for wave in waves(block):
            for terminal in [Terminal(tmp_path, *words) for words in wave]:
                assert terminal.end() == 0, f"{page}:{block.line}: {wave}\n{terminal.stderr}"
                assert terminal.stdout
                count += 1
    assert count > 0


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_command_that_is_not_run_has_a_reason(page: Path) -> None:
    for block in read_blocks(page):
        assert block.has_reason or "no-run" not in block.info, f"{page}:{block.line}"


def test_commands_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```bash\ncd x\npyworkflow run 'a b' # why\n```\n"
        "```bash no-run\npyworkflow worker x\n```\n<!-- no-run: it stays -->\n"
        "```python\npyworkflow\n```\n",
        "utf-8",
    )
    found = [commands(block) for block in read_blocks(tmp_path / "page.md")]
    assert found == [[["run", "a b"]], [], []]
