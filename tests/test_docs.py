"""The code in documents runs, and the commands in them exist. The runner lies in `documents.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import (
    Block,
    block_findings,
    link_findings,
    name_findings,
    read_blocks,
    run_blocks,
    shell_findings,
)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    *([README] if README.exists() else []),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NEXT = "**Next:** "
named = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@named
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = read_blocks(path)
    assert block_findings(blocks) == []
    count = run_blocks(blocks, tmp_path, monkeypatch)
    assert count > 0 or path != README, "the README shows no Python that runs"


@named
def test_blocks_import_what_they_use(path: Path) -> None:
    assert name_findings(read_blocks(path)) == []


@named
def test_links_lead_somewhere(path: Path) -> None:
    assert link_findings(path) == []


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_a_page_ends_with_where_to_go_next(path: Path) -> None:
    last = path.read_text("utf-8").rstrip().rpartition("\n\n")[2]
    assert last.startswith(NEXT)
    assert re.search(r"\]\([^)]+\.md\)", last)


def test_the_pages_form_one_path_from_the_readme() -> None:
    seen: list[Path] = []
    page = README
    while page == README or page.parent == ROOT / "docs":
        assert page not in seen
        seen.append(page)
        last = page.read_text("utf-8").rpartition(NEXT)[2]
        found = re.match(r"\[[^]]+\]\(([^)]+)\)", last)
        assert found, page
        page = (page.parent / found.group(1)).resolve()
    assert sorted(seen[1:]) == PAGES


@named
def test_commands_exist(path: Path) -> None:
    assert shell_findings(read_blocks(path), ROOT) == []


# -- the runner itself ---------------------------------------------------------------------------


def blocks_of(folder: Path, text: str) -> list[Block]:
    """Write a document with ``~`` for the fence, and read its blocks."""
    path = folder / "page.md"
    path.write_text(text.replace("~", "```"), "utf-8")
    return read_blocks(path)


def test_blocks_are_read_with_their_place(tmp_path: Path) -> None:
    blocks = blocks_of(
        tmp_path, "text\n~python\nx = 1\n~\n- item\n  ~bash\n  make x\n  ~\n\n~\nplain\n~\n"
    )
    assert [(block.line, block.language, block.code) for block in blocks] == [
        (3, "python", "x = 1\n"),
        (7, "bash", "make x\n"),
        (11, "", "plain\n"),
    ]


def test_a_block_that_continues_another_shares_its_namespace_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(
        tmp_path,
        "~python\nx = 1\n~\n~python\ny = 2\n~\n"
        "~python\n# Continues the block above.\nopen('made', 'x').close()\ny += 1\n~\n"
        "~python\n# Continues the first block of this page.\nx += 1\n~\n",
    )
    assert name_findings(blocks) == []
    assert run_blocks(blocks, tmp_path, monkeypatch) == 4
    assert (tmp_path / "made").exists()


def test_a_block_that_stands_alone_has_a_namespace_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(tmp_path, "~python\nx = 1\n~\n~python\nx\n~\n")
    with pytest.raises(NameError):
        run_blocks(blocks, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("~python\nimport json\n~\n~python\njson.dumps(1)\n~\n", "page.md:5: json is neither"),
        ("~python\ndef f(x: Any): ...\n~\n", "page.md:2: Any is neither"),
        ("~python\ndef f():\n    return [late for _ in ()]\n~\n", "page.md:2: late is neither"),
        ("~python no-run\nhandler()\n~\n", "page.md:2: handler is neither"),
        (
            "~python\nx = 1\n~\n~python\ny = 2\n~\n"
            "~python\n# Continues the first block of this page.\ny\n~\n",
            "page.md:8: y is neither",
        ),
        ("~python\n# Continues the block above.\n~\n", "it continues a block, but is the first"),
    ],
)
def test_a_name_without_import_is_found(tmp_path: Path, text: str, finding: str) -> None:
    (found,) = name_findings(blocks_of(tmp_path, text))
    assert finding in found


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `name`\n\n~~~\n## In code\n~~~\n", "utf-8")
    (tmp_path / "page.md").write_text(
        "# Here\n\n[a](other.md) [b](other.md#a-name) [c](#here) [d](https://example.com/x)\n"
        "[e](gone.md)\n[f](other.md#gone)\n\n[g]: gone.md\n",
        "utf-8",
    )
    assert [line.rpartition("page.md:")[2] for line in link_findings(tmp_path / "page.md")] == [
        "4: no file gone.md",
        "5: no heading other.md#gone",
        "7: no file gone.md",
    ]


def test_a_failing_block_fails_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(tmp_path, "\n\n~python\nx = 1\nx / 0\n~\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(blocks, tmp_path, monkeypatch)
    last = caught.traceback[-1]
    assert (Path(last.path).name, last.lineno + 1) == ("page.md", 5)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_tests_in_a_block_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    blocks = blocks_of(tmp_path, f"~python\n{kind} test_it():\n    1 / 0\n~\n")
    with pytest.raises(ZeroDivisionError):
        run_blocks(blocks, tmp_path, monkeypatch)


def test_a_test_that_nobody_can_call_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(tmp_path, "~python\ndef test_it(client): ...\n~\n")
    with pytest.raises(pytest.fail.Exception, match="takes parameters"):
        run_blocks(blocks, tmp_path, monkeypatch)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_saved_block_is_imported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    blocks = blocks_of(
        tmp_path,
        f"~python file=shop.py\nprice = {turn}\n~\n"
        f"~python\nfrom shop import price, price as again\nassert price == again == {turn}\n~\n",
    )
    assert run_blocks(blocks, tmp_path, monkeypatch) == 2


def test_annotations_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(
        tmp_path,
        "~python\nfrom __future__ import annotations\nimport typing\nclass A:\n    b: B\n"
        "class B: ...\nassert typing.get_type_hints(A) == {'b': B}\n~\n",
    )
    assert run_blocks(blocks, tmp_path, monkeypatch) == 1


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("~python no-run\nx\n~\n", "no-run without"),
        ("~python no-run\nx\n~\ntext <!-- no-run: late -->", "no-run without"),
        ("~python no-run\nx\n~\n<!-- no-run: -->", "no-run without"),
        ("~python skip\nx\n~\n", "unknown words"),
        ("~py\nx\n~\n", "write `python`"),
    ],
)
def test_excuses_need_a_reason(tmp_path: Path, text: str, finding: str) -> None:
    (found,) = block_findings(blocks_of(tmp_path, text))
    assert finding in found


def test_a_reason_excuses(tmp_path: Path) -> None:
    text = "~python no-run\nx\n~\n\n<!-- no-run: it needs an account -->\n"
    assert block_findings(blocks_of(tmp_path, text)) == []


def test_missing_targets_and_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("test: setup\n\tpytest\nsetup:\n", "utf-8")
    text = """
~bash
make test CASE=1 && make setup  # make no difference
make tests
.venv/bin/python examples/gone.py --fast
~
"""
    made, gone = shell_findings(blocks_of(tmp_path, text), tmp_path)
    assert "page.md:4: no target tests" in made
    assert "page.md:5: no file examples/gone.py" in gone
