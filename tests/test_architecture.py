"""The architecture, held by tests. The checks lie in `architecture.py`.

Each check is run on the package and must find nothing; then on a small sample that breaks its rule,
and must find that.
"""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests import architecture
from tests.architecture import Module, load_modules
from tests.documents import read_blocks

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

NOT_ON_LAMBDA = {
    f"{NAME}.{module}"
    for module in ("_cli", "_local", "services.memory", "services.sqlite", "testing")
}
"""What a Lambda function does without: ``import pyworkflow.aws`` does not load it."""

PUBLIC = {
    module: names.split()
    for module, names in {
        "": """
        AsyncClient BatchError BatchResult CallbackError Client CurrentStep DeadlockError
        FatalError InputError NonDeterminismError PyWorkflowError Retry RetryableError
        SerializationError Step StepCancelledError StepError StepFuture StepInterruptedError
        StepTimeoutError SyncWorkflowContext UsageError Workflow WorkflowContext current_context
        current_step run sleep step workflow
    """,
        "errors": """
        BatchError CallbackAlreadyCompletedError CallbackError CallbackNotFoundError
        CallbackTimeoutError ChildContextError ConditionTimeoutError DamagedExecutionError
        DeadlockError DurationError ExecutionAlreadyStartedError ExecutionEndedError
        ExecutionFailedError ExecutionNameError ExecutionNotFoundError ExecutionStatusError
        ExecutionStoppedError ExecutionTimedOutError FatalError InputError InvalidUpdateError
        InvokeError NonDeterminismError OperationError OutOfTimeError PyWorkflowError
        ReplayHazardError RequestRefusedError RetryableError SagaError SerializationError
        ServiceBusyError ServiceError ServiceUnavailableError StaleTokenError StepCancelledError
        StepError StepInterruptedError StepTimeoutError StorageError UsageError
        WorkflowLoopError
    """,
        "retry": "Retry",
        "duration": "Duration format_duration parse_duration",
        "types": """
        AsyncHandle Callback ExecutionStatus ExecutionSummary Handle HistoryEvent Operation
        Paged SyncCallback
    """,
        "services": """
        Capability Durability Executions History ImmediateHistory Queue Service open require
        sqlite_url
    """,
        "testing": """
        ExamService MockDurableContext ServiceConformance ServiceUnderTest create_test_handler
    """,
        "aws": "aws_workflow_handler",
        "aws.testing": "MockDurableContext create_test_handler",
        "aws.sdk": "DurableContext durable_execution install",
    }.items()
}
"""All that is supported: the names of each public module (the first is the root). What is not here
is private, with an underscore or without. New API is added here and to the module's `__all__`."""

TEXT_FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests", "tools")
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
        ("_runtime__runner", "from pyworkflow._local.worker import Worker"),
        ("services__base", "import pyworkflow._engine.ids"),
        ("services__base", "from .. import duration"),
        ("novelty", ""),
    ],
)
def test_imports_that_point_up_are_found(tmp_path: Path, name: str, source: str) -> None:
    others = dict.fromkeys(
        ["aws__handler", "_engine__ids", "_local__worker", "duration", "services__port"], ""
    )
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


@pytest.mark.parametrize("folder", ["_engine", "_api"])
def test_a_type_checker_s_import_makes_a_cycle(tmp_path: Path, folder: str) -> None:
    package = sample(
        tmp_path,
        **{
            f"{folder}__a": f"from pyworkflow.{folder}.b import x",
            f"{folder}__b": f"if TYPE_CHECKING:\n    from pyworkflow.{folder}.a import y",
        },
    )
    assert len(architecture.cycle_findings(package, NAME)) == 1


def test_private_names_stay_in_their_folder(modules: dict[str, Module]) -> None:
    assert_none(architecture.private_import_findings(modules, NAME, architecture.PRIVATE_IMPORTS))


@pytest.mark.parametrize(
    "source",
    [
        "from pyworkflow.services import _errors",
        "from pyworkflow.services._errors import not_found",
        "from pyworkflow.services.memory import _find",
        "def f():\n    import pyworkflow.services.sqlite._sql",
        "if TYPE_CHECKING:\n    from ..services._errors import not_found",
    ],
)
def test_a_private_name_of_another_folder_is_found(tmp_path: Path, source: str) -> None:
    package = sample(tmp_path, services__port="from ._errors import x", _cli__app=source)
    (found,) = architecture.private_import_findings(package, NAME, {})
    assert "app.py" in found
    assert "is private to services" in found


def test_an_exception_for_a_private_name_is_allowed_while_it_is_needed(tmp_path: Path) -> None:
    package = sample(tmp_path, _cli__app="from pyworkflow.services._errors import not_found")
    allowed = {"_cli.app": ("services._errors",)}
    assert architecture.private_import_findings(package, NAME, allowed) == []
    stale = {**allowed, "_cli.gone": ("services._errors",)}
    (found,) = architecture.private_import_findings(package, NAME, stale)
    assert "_cli.gone" in found


def test_import_is_light() -> None:
    assert architecture.loaded_by_import(NAME, PACKAGE.parent) & HEAVY == set()


def test_a_lambda_function_loads_what_it_needs() -> None:
    loaded = architecture.loaded_by_import(f"{NAME}.aws", PACKAGE.parent)
    assert f"{NAME}._runtime.runner" in loaded
    assert loaded & (NOT_ON_LAMBDA | HEAVY) == set()


def test_what_lambda_does_without_is_found(tmp_path: Path) -> None:
    sample(
        tmp_path,
        root="",
        _local__client="",
        aws__handler="from pyworkflow._local import client",
        aws____init__="from pyworkflow.aws import handler",
    )
    loaded = architecture.loaded_by_import(f"{NAME}.aws", tmp_path)
    assert loaded & NOT_ON_LAMBDA == {f"{NAME}._local"}


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


# -- what is public ------------------------------------------------------------------------------


def test_public_is_what_the_list_names(modules: dict[str, Module]) -> None:
    assert_none(architecture.public_findings(modules, PUBLIC))


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_there(module: str) -> None:
    found = pkgutil.resolve_name(f"{NAME}.{module}".rstrip("."))
    assert [name for name in PUBLIC[module] if not hasattr(found, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        found.no_such_name  # noqa: B018 - some have a __getattr__ of their own


@pytest.mark.parametrize(
    ("root", "errors", "words"),
    [
        ("x = 1", "__all__ = ['c']", "no __all__"),
        ("__all__ = ['a', 'b', 'planted']", "__all__ = ['c']", "planted is not on the list"),
        ("__all__ = ['a', 'b']", "__all__ = ['c', 'd']", "d is not on the list"),
        ("__all__ = ['a']", "__all__ = ['c']", "b is not in __all__"),
        ("__all__ = ['b', 'a']", "__all__ = ['c']", "not sorted"),
        ("__all__ = ['a', 'a', 'b']", "__all__ = ['c']", "repeats a name"),
        ("__all__ = ['a', 'b']", None, "no such module"),
    ],
)
def test_a_difference_from_the_list_is_found(
    tmp_path: Path, root: str, errors: str | None, words: str
) -> None:
    package = sample(tmp_path, root=root, **({} if errors is None else {"errors": errors}))
    (found,) = architecture.public_findings(package, {"": ["a", "b"], "errors": ["c"]})
    assert words in found


def test_a_root_with_too_many_names_is_found(tmp_path: Path) -> None:
    names = [f"name_{number:02}" for number in range(31)]
    (found,) = architecture.public_findings(
        sample(tmp_path, root=f"__all__ = {names}"), {"": names}
    )
    assert "31 names" in found


def test_documents_and_typed_examples_use_what_is_public() -> None:
    files = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("tests/typing/*.py")]
    codes = [(path, path.read_text("utf-8")) for path in files if path.name != "test_typing.py"]
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    codes += [
        (block.path, block.code)
        for page in pages
        for block in read_blocks(page)
        if block.language == "python"
    ]
    assert len(codes) > len(pages)
    for path, code in codes:
        where = str(path.relative_to(ROOT))
        assert_none(architecture.private_use_findings(where, code, NAME, PUBLIC))


@pytest.mark.parametrize(
    ("code", "count"),
    [
        (
            "import pyworkflow\nfrom pyworkflow import step, errors\nimport pyworkflow.aws.testing",
            0,
        ),
        ("from pyworkflow.errors import StepError", 0),
        ("def f():\n    from pyworkflow import Handle", 1),
        ("from pyworkflow._local.client import Handle", 1),
        ("from pyworkflow.services.sqlite import SqliteService", 1),
        ("import pyworkflow.services.port", 1),
    ],
)
def test_use_of_what_is_private_is_found(code: str, count: int) -> None:
    assert len(architecture.private_use_findings("page.md", code, NAME, PUBLIC)) == count


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
