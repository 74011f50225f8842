"""The architecture, held by tests. The checks lie in `architecture.py`.

Each check is run on the package and must find nothing; then on a small sample that breaks its rule,
and must find that.
"""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests import architecture
from tests.architecture import Module, load_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pyworkflow"
NAME = PACKAGE.name

SIZE_EXCEPTIONS: dict[str, str] = {
    "_cli.app:list_command": "the options of a command are its parameters",
}
"""Module, or ``module:Class.function``, to the reason why it may be larger than the rest."""

HEAVY = {
    "aws_durable_execution_sdk_python",
    "boto3",
    "botocore",
    "pydantic",
    "rich",
    "sqlite3",
    "starlette",
    "typer",
    "uvicorn",
}
"""What a plain ``import pyworkflow`` must not cost."""

TEXT_FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests")
NO_TEXT = {".pyc", ".zip", ".whl", ".db"}


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return load_modules(PACKAGE)


def sample(folder: Path, **sources: str) -> dict[str, Module]:
    """Write a package whose module ``a__b`` is ``a/b.py``, and load it."""
    package = folder / NAME
    for name, source in sources.items():
        path = package / (name.replace("__", "/", 1) + ".py" if name != "root" else "__init__.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), "utf-8")
    return load_modules(package)


def assert_none(findings: list[str]) -> None:
    assert not findings, "\n" + "\n".join(findings)


# -- imports -------------------------------------------------------------------------------------


def test_layers_point_down(modules: dict[str, Module]) -> None:
    assert_none(architecture.layer_findings(modules, NAME))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("errors", "from pyworkflow._engine import ids"),
        ("errors", "def f():\n    import pyworkflow._engine.ids"),
        ("errors", "from ._engine.ids import x"),
        ("errors", "from pyworkflow import step"),
        (
            "_api__step",
            "import typing\nif typing.TYPE_CHECKING:\n    import pyworkflow.aws.handler",
        ),
        ("_api__step", "from pyworkflow.services import base"),
        ("services__base", "import pyworkflow._engine.ids"),
        ("services__base", "from .. import duration"),
        ("novelty", ""),
    ],
)
def test_imports_that_point_up_are_found(tmp_path: Path, name: str, source: str) -> None:
    others = dict.fromkeys(["aws__handler", "_engine__ids", "duration", "services__port"], "")
    found = architecture.layer_findings(sample(tmp_path, **others, **{name: source}), NAME)
    assert len(found) == 1
    assert name.partition("__")[0] in found[0]


def test_imports_that_point_down_are_fine(tmp_path: Path) -> None:
    package = sample(
        tmp_path,
        root="from pyworkflow._api.step import step",
        errors="",
        _protocol__records="from pyworkflow import errors",
        services__base="from pyworkflow._protocol.records import x\nfrom pyworkflow import errors",
        services__memory="from .base import y",
        _runtime__runner="from pyworkflow.services import base",
        aws__handler="from pyworkflow.testing import conformance",
        testing__conformance="from pyworkflow.services.memory import z",
    )
    assert architecture.layer_findings(package, NAME) == []


def test_services_are_opened_by_their_url(modules: dict[str, Module]) -> None:
    assert_none(architecture.concrete_service_findings(modules, NAME))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("_runtime__client", "from pyworkflow.services.sqlite import SqliteService"),
        ("_runtime__client", "def f():\n    from pyworkflow.services import sqlite"),
        ("_cli__app", "from pyworkflow.services.memory import MemoryService"),
        (
            "_cli__app",
            "import typing\nif typing.TYPE_CHECKING:\n    import pyworkflow.services.sqlite._sql",
        ),
        ("testing__drive", "from pyworkflow.services.awslambda import LambdaService"),
        ("aws__handler", "from pyworkflow.services.memory import MemoryService"),
    ],
)
def test_a_concrete_service_is_found(tmp_path: Path, name: str, source: str) -> None:
    package = sample(
        tmp_path,
        services__sqlite="",
        services__memory="",
        services__awslambda="",
        services__port="",
        testing__outside="from pyworkflow.services.memory import x",
        aws__answer="from pyworkflow.services.awslambda import x",
        services__opening="from pyworkflow.services.sqlite import x",
        _runtime__runner="from pyworkflow.services.port import x",
        **{name: source},
    )
    (found,) = architecture.concrete_service_findings(package, NAME)
    assert name.replace("__", ".") in found


def test_no_import_cycles(modules: dict[str, Module]) -> None:
    assert_none(architecture.cycle_findings(modules, NAME))


def test_a_cycle_is_found_though_an_import_is_inside_a_function(tmp_path: Path) -> None:
    package = sample(
        tmp_path,
        _api__a="from pyworkflow._api.b import x",
        _api__b="def f():\n    from pyworkflow._api import c",
        _api__c="from pyworkflow._api.a import y",
    )
    (found,) = architecture.cycle_findings(package, NAME)
    assert all(name in found for name in ("_api.a", "_api.b", "_api.c"))


def test_a_type_checker_s_import_makes_no_cycle(tmp_path: Path) -> None:
    package = sample(
        tmp_path,
        _api__a="from pyworkflow._api.b import x",
        _api__b="if TYPE_CHECKING:\n    from pyworkflow._api.a import y",
    )
    assert architecture.cycle_findings(package, NAME) == []


def test_import_is_light() -> None:
    assert architecture.loaded_by_import(NAME, PACKAGE.parent) & HEAVY == set()


def test_a_heavy_import_is_found(tmp_path: Path) -> None:
    sample(tmp_path, root="from pyworkflow import store", store="import sqlite3")
    assert architecture.loaded_by_import(NAME, tmp_path) & HEAVY == {"sqlite3"}


# -- the engine ----------------------------------------------------------------------------------


def test_the_engine_is_pure(modules: dict[str, Module]) -> None:
    assert_none(architecture.purity_findings(modules, NAME))


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "from time import monotonic",
        "def f():\n    import os.path",
        "from concurrent.futures import Future",
        "import asyncio",
        "x = datetime.datetime.now(UTC)",
        "x = datetime.now()",
        "x = date.today()",
        "x = uuid.uuid4()",
        "x = random.random()",
        "x = random.Random()",
        "x = open('file')",
    ],
)
def test_impurity_is_found(tmp_path: Path, source: str) -> None:
    package = sample(tmp_path, _engine__ids=source, _runtime__ids=source)
    (found,) = architecture.purity_findings(package, NAME)
    assert "_engine" in found


def test_seeds_and_the_loop_s_asyncio_are_pure(tmp_path: Path) -> None:
    package = sample(
        tmp_path,
        **{"_engine__loop/event_loop": "import asyncio"},
        _engine__ids="x = random.Random('seed')\ny = self.random.choice(z)\nw = uuid.UUID(v)",
        _engine__scope="if TYPE_CHECKING:\n    import asyncio",
    )
    assert architecture.purity_findings(package, NAME) == []


def test_private_asyncio_lies_in_one_module(modules: dict[str, Module]) -> None:
    assert_none(architecture.private_asyncio_findings(modules, NAME))


@pytest.mark.parametrize(
    "source",
    [
        "from asyncio import _get_running_loop",
        "from asyncio.events import _set_running_loop",
        "import _asyncio",
        "x = asyncio._enter_task",
        "x = asyncio.tasks._current_tasks",
    ],
)
def test_private_asyncio_is_found(tmp_path: Path, source: str) -> None:
    package = sample(tmp_path, **{"_engine__loop/tasks": source, "_runtime__runner": source})
    (found,) = architecture.private_asyncio_findings(package, NAME)
    assert "runner" in found


# -- size and names ------------------------------------------------------------------------------


def test_sizes(modules: dict[str, Module]) -> None:
    assert_none(architecture.size_findings(modules, SIZE_EXCEPTIONS))


LONG = "class A:\n    def f(self):\n" + "        pass\n" * 60
WIDE = "def f(a, b, /, c, d, *e, g, **h): ..."


def test_long_modules_and_functions_are_found(tmp_path: Path) -> None:
    package = sample(tmp_path, errors="\n" * 801, retry=LONG)
    length, function = architecture.size_findings(package, {})
    assert "801 lines" in length
    assert "A.f: 61 lines" in function


def test_keyword_only_options_of_public_functions_are_not_counted(tmp_path: Path) -> None:
    package = sample(tmp_path, _engine__ids=WIDE, _api__step=f"{WIDE}\nclass _A:\n    {WIDE}")
    found = architecture.size_findings(package, {})
    assert [line.rpartition(": ")[0].rpartition("/")[2] for line in found] == [
        "step.py:3: _A.f",
        "ids.py:1: f",
    ]


def test_self_is_no_parameter(tmp_path: Path) -> None:
    package = sample(tmp_path, errors="class A:\n    def f(self, a, b, c, d, e, f): ...")
    assert architecture.size_findings(package, {}) == []


def test_a_named_exception_is_allowed_while_it_is_needed(tmp_path: Path) -> None:
    package = sample(tmp_path, retry=LONG)
    assert architecture.size_findings(package, {"retry:A.f": "a table"}) == []
    (stale,) = architecture.size_findings(package, {"retry:A.f": "a table", "retry:gone": "…"})
    assert "retry:gone" in stale


def test_modules_say_what_they_are(modules: dict[str, Module]) -> None:
    assert_none(architecture.docstring_findings(modules))


def test_a_module_that_says_nothing_is_found(tmp_path: Path) -> None:
    package = sample(tmp_path, root="", errors="x = 1", retry='"""Say when."""')
    (found,) = architecture.docstring_findings(package)
    assert "errors.py" in found


def test_names_tell_something(modules: dict[str, Module]) -> None:
    assert_none(architecture.name_findings(modules))


@pytest.mark.parametrize(
    "sources",
    [
        {"aws__utils": ""},
        {"helpers__text": "", "helpers____init__": ""},
        {"errors": "class StepManager: ..."},
        {"common_types": ""},
    ],
)
def test_a_name_that_tells_nothing_is_found(tmp_path: Path, sources: dict[str, str]) -> None:
    assert len(architecture.name_findings(sample(tmp_path, **sources))) == 1


def test_root_exports_are_few_and_sorted(modules: dict[str, Module]) -> None:
    assert_none(architecture.export_findings(modules[""]))


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        "__all__ = ['b', 'a']",
        "__all__ = ['a', 'a']",
        f"__all__ = {[f'name_{number:02}' for number in range(31)]}",
    ],
)
def test_bad_root_exports_are_found(tmp_path: Path, source: str) -> None:
    assert len(architecture.export_findings(sample(tmp_path, root=source)[""])) == 1


# -- text ----------------------------------------------------------------------------------------


def text_files() -> Iterator[Path]:
    # In a worktree of git, .git is a file that names where the clone lies.
    yield from (path for path in sorted(ROOT.glob("*")) if path.is_file() and path.name != ".git")
    for name in TEXT_FOLDERS:
        for folder, subfolders, files in os.walk(ROOT / name):
            # Environments and caches are not the project's text.
            subfolders[:] = [sub for sub in subfolders if not sub.startswith((".", "__"))]
            yield from (Path(folder, file) for file in files if Path(file).suffix not in NO_TEXT)


def test_text_names_no_machine_and_no_registry() -> None:
    files = list(text_files())
    assert ROOT / "Makefile" in files
    assert Path(__file__) in files
    assert_none(architecture.text_findings(files))


@pytest.mark.parametrize(
    "text",
    [
        "/".join(["cd ", "work", "main"]),
        "/".join(["see `", "home", "someone`"]),
        "/".join(["", "root", ".cache"]),
        "https://" + ".".join(["pypi", "org"]) + "/project",
        "https://" + ".".join(["registry", "npmjs", "org"]),
    ],
)
def test_a_machine_path_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.md").write_text(f"good line\n{text}\n", "utf-8")
    (found,) = architecture.text_findings([tmp_path / "bad.md"])
    assert "bad.md:2:" in found


def test_paths_inside_the_project_and_binaries_are_fine(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("docs/work/a.md and ~/home/x and $HOME/.aws\n", "utf-8")
    (tmp_path / "blob").write_bytes(b"\xff\xfe\x00")
    assert architecture.text_findings(sorted(tmp_path.iterdir())) == []


def test_the_english_is_plain() -> None:
    folders = [ROOT / name for name in architecture.CHECKED_PROSE]
    assert_none(architecture.prose_findings(folders))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The caller is told.", "told"),
        ("It tells why.", "tells"),
        ("A value that is held.", "held"),
        ("The cache holds the rows.", "holds the"),
        ("It waits for ever.", "for ever"),
        ("It waits for\never.", "for ever"),
        ("It runs no more.", "no more"),
        ("Any file, be it small or large.", "be it"),
        ("There are so many.", "so many"),
        ("A class that was renamed of late.", "of late"),
        ("It belongs into a step.", "belongs into"),
        ("A status that there is none of.", "is none of"),
        ("A timeout is no failure.", "is no failure"),
        ("Those that wait count not.", "count not"),
        ("As far as is known.", "As far as"),
        ("It is logged, too.", ", too"),
        ("(It is logged, too)", ", too"),
        ("It runs. What it returns is dropped.", "What it returns is dropped."),
        ("Whoever waits is woken.", "Whoever waits is woken."),
    ],
)
def test_a_word_of_the_list_is_found(tmp_path: Path, text: str, word: str) -> None:
    comment = "".join(f"# {line}\n" for line in text.splitlines())
    for name, source, line in (
        ("page.md", f"# Page\n\n- {text}\n", 3),
        ("page.md", f"| a | b |\n|---|---|\n| x | {text.replace(chr(10), ' ')} |\n", 3),
        ("a.py", f'x = 1\n"""{text}"""\n', 2),
        ("d.py", f'def f():\n    """{text}"""\n'.replace("s for\n", "s for\n    "), 2),
        ("b.py", f"x = f({text!r})\n", 1),
        ("c.py", f"x = 1\n{comment}y = 2\n", 2),
    ):
        path = tmp_path / name
        path.write_text(source, "utf-8")
        (found,) = architecture.prose_findings([path])
        assert found.startswith(f"{path}:{line}: {word!r}"), found


@pytest.mark.parametrize("word", ["One", "What", "Who", "Let"])
def test_an_opener_of_a_docstring_is_found(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(f'class A:\n    x: int\n    """{word} more thing"""\n', "utf-8")
    (found,) = architecture.prose_findings([tmp_path])
    assert f"a.py:3: a docstring opens with {word!r}" in found


def test_code_and_plain_words_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""There is no more than one. What is it? The rows hold; it holds a lock."""\n'
        "held = told  # there are no cycles, and there is no longer a reason\n"
        "# There\n#   are no cycles.\n",
        "utf-8",
    )
    (tmp_path / "b.md").write_text("It is no longer `held`. Nothing is too long.\n", "utf-8")
    (tmp_path / "c.txt").write_text("told", "utf-8")
    assert architecture.prose_findings([tmp_path]) == []


def test_the_page_names_each_module_once() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert page.count("| `_") > 3
    assert_none(architecture.table_findings(page, PACKAGE))


def test_a_table_that_is_out_of_date_is_found(tmp_path: Path) -> None:
    for name in ("a/one.py", "a/two.py", "a/b/__init__.py", "a/b/three.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    page = "| `a/` | `one` (a), `one`, `gone` |\n| `a/b/` | on `three` |\n"
    assert architecture.table_findings(page, tmp_path) == [
        "a/: two is missing",
        "a/: gone is not there",
        "a/: one is named twice",
    ]
