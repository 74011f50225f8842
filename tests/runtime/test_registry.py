from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pyworkflow
from pyworkflow import Client, UsageError, Workflow, workflow
from pyworkflow._local.imports import import_source
from pyworkflow._local.registry import Registry
from pyworkflow.aws import aws_workflow_handler

CODE = """
from pyworkflow import step, workflow

NAME = __name__

@workflow
async def {name}() -> str:
    return "done"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, name: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CODE.format(name=name), "utf-8")
    return str(path)


def flow(name: str) -> Workflow[..., Any]:
    @workflow(name=name)
    async def run() -> None: ...

    return run


def test_a_workflow_is_found_by_its_name() -> None:
    one, two = flow("one"), flow("two")
    registry = Registry([one, two])
    assert registry.names == ("one", "two")
    assert registry.get("two") is two
    assert registry.find("three") is None


def test_a_missing_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="'three'; registered here: 'one', 'two'"):
        Registry([flow("one"), flow("two")]).get("three")
    with pytest.raises(UsageError, match="registered here: none"):
        Registry().get("three")


def test_two_functions_of_one_name_are_refused_and_nothing_is_added() -> None:
    registry = Registry([flow("one")])
    module = ModuleType("more")
    vars(module).update(new=flow("new"), again=flow("one"))
    with pytest.raises(UsageError, match=r"the name 'one': .*test_registry.*:\d+\) and .*flow"):
        registry.add(module)
    assert registry.names == ("one",)


def test_the_same_function_may_come_twice() -> None:
    one = flow("one")
    registry = Registry([one, one, aws_workflow_handler(one)])
    assert registry.names == ("one",)


class Flow:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @workflow
    async def times(self, x: int) -> int:
        return self.factor * x


def test_a_method_of_two_instances_is_one_workflow_and_the_latest_runs() -> None:
    registry = Registry([Flow(1).times, Flow(2).times])
    assert registry.names == ("times",)
    with Client.memory() as client:
        assert [client.start(Flow(n).times, {"x": 3}).result() for n in (1, 2)] == [3, 6]


def test_a_cell_that_runs_again_defines_the_same_workflow() -> None:
    registry = Registry()
    for number in (1, 2):
        cell: dict[str, Any] = {"__name__": "notebook"}
        code = f"@workflow\nasync def cell() -> int:\n    return {number}\n"
        exec(compile(code, f"<cell {number}>", "exec"), {**globals(), **cell}, cell)
        registry.add(cell["cell"])
    assert asyncio.run(registry.get("cell")()) == 2


def test_a_script_and_a_module_of_one_file_have_the_same_workflows(folder: Path) -> None:
    path = write(folder / "twice_imported.py", "flow")
    modules = []
    for name in ("__main__", "twice_imported"):
        module = ModuleType(name)
        exec(compile(Path(path).read_text("utf-8"), path, "exec"), vars(module))
        modules.append(module)
    assert Registry(modules).names == ("flow",)


def test_functions_that_a_function_made_are_not_one() -> None:
    with pytest.raises(UsageError, match="two workflows have the name 'one'"):
        Registry([flow("one"), flow("one")])


def test_a_lambda_handler_counts_as_its_workflow() -> None:
    one = flow("one")
    assert Registry([aws_workflow_handler(one)]).get("one") is one


def test_a_module_gives_its_global_workflows_once() -> None:
    module = ModuleType("orders")
    one = flow("one")
    vars(module).update(one=one, alias=one, handler=aws_workflow_handler(one), other=1, json=pytest)
    assert Registry([module]).names == ("one",)


def test_a_module_without_workflows_is_refused() -> None:
    with pytest.raises(UsageError, match="empty_module .* has no workflow"):
        Registry([ModuleType("empty_module")])


@pytest.mark.parametrize("source", [1, None, print])
def test_anything_else_is_refused(source: Any) -> None:
    with pytest.raises(UsageError, match="expected a function with @workflow"):
        Registry([source])


# -- files and modules ---------------------------------------------------------------------------


def test_a_file_is_imported_under_its_stem_and_sees_its_neighbours(folder: Path) -> None:
    write(folder / "deep" / "neighbour_a.py", "near")
    path = folder / "deep" / "orders_a.py"
    path.write_text("from neighbour_a import near\n" + CODE.format(name="order"), "utf-8")
    registry = Registry(["deep/orders_a.py"])
    assert registry.names == ("near", "order")
    assert sys.modules["orders_a"].NAME == "orders_a"
    assert import_source(str(path)) is sys.modules["orders_a"]


def test_a_module_is_imported_from_the_current_folder(folder: Path) -> None:
    write(folder / "shop_b" / "orders.py", "order")
    assert Registry(["shop_b.orders"]).get("order").__module__ == "shop_b.orders"


@pytest.mark.parametrize("stem", ["json", "asyncio", "sys", "__main__"])
def test_a_stem_of_pythons_own_is_refused(folder: Path, stem: str) -> None:
    source = write(folder / f"{stem}.py", "order")
    with pytest.raises(UsageError, match=f"can't be imported as '{stem}'.*give the file another"):
        Registry([source])


def test_a_stem_that_is_loaded_from_elsewhere_is_refused(folder: Path) -> None:
    import_source(write(folder / "here" / "twin_c.py", "one"))
    other = write(folder / "there" / "twin_c.py", "two")
    with pytest.raises(UsageError, match=r"another module, .*here/twin_c\.py"):
        Registry([other])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gone.py", r"there is no file .*gone\.py"),
        ("gone_module", "no module 'gone_module' can be imported"),
        ("json.gone", "no module 'json.gone' can be imported"),
        ("two words", "expected FILE.py or package.module, found 'two words'"),
        ("", "expected FILE.py or package.module, found ''"),
    ],
)
def test_what_can_not_be_imported_is_told(folder: Path, source: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Registry([source])


def test_a_file_that_is_no_name_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="'my-orders' is not a module name"):
        Registry([write(folder / "my-orders.py", "order")])


def test_what_the_code_itself_raises_is_passed_on(folder: Path) -> None:
    (folder / "misses_d.py").write_text("import module_that_nobody_has", "utf-8")
    with pytest.raises(ModuleNotFoundError, match="module_that_nobody_has"):
        Registry(["misses_d.py"])
    with pytest.raises(ModuleNotFoundError, match="module_that_nobody_has"):
        Registry(["misses_d"])


def test_a_clients_names_come_late_and_cost_nothing_before() -> None:
    code = """
import sys
import pyworkflow
assert not {"sqlite3", "pyworkflow._local.client"} & set(sys.modules)
assert pyworkflow.Client.__name__ == "Client" and pyworkflow.run.__name__ == "run"
assert "sqlite3" not in sys.modules
try:
    pyworkflow.nothing
except AttributeError as error:
    assert "'nothing'" in str(error)
else:
    raise AssertionError
"""
    environment = os.environ | {"PYTHONPATH": str(Path(pyworkflow.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
