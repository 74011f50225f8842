"""What `except` matched, it matches on every replay, in whatever process: for all that can fail.

Two processes are played by one: the modules are loaded under one set of names, the workflow runs
until it sleeps, the modules are unloaded and loaded again under other names, and the workflow ends.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pyworkflow._engine.messages import Broken
from pyworkflow.errors import NonDeterminismError
from tests.api.world import World

Patch = pytest.MonkeyPatch

BANK = """
class BankError(Exception):
    pass

class ClosedError(BankError):
    def __init__(self, hours):
        super().__init__(f"open {hours}")
        self.hours = hours
"""

SHOP = """
import asyncio
from pyworkflow import current_context, step, workflow
from pyworkflow.errors import BatchError, SagaError
from BANK_MODULE import BankError, ClosedError

class ShopError(Exception):
    pass

class Declined(ShopError):
    pass

class Outer:
    class Inner(LookupError):
        pass

class Unmakeable(ShopError):
    def __init__(self, response):
        self.response = response
    def __str__(self):
        return f"status {self.response.status}"

class Response:
    status = 404

def declined(*_):
    raise Declined("no money")

async def declined_later(*_):
    raise Declined("no money")

def local():
    class Local(Declined):
        pass
    raise Local("no money")

@step(retry=False)
async def charge():
    raise Declined("no money")

@step(retry=False)
def charge_blocking():
    raise Declined("no money")

@step(retry=False)
async def nested():
    raise Outer.Inner("not there")

@step(retry=False)
async def in_function():
    local()

@step(retry=False)
async def unmakeable():
    raise Unmakeable(Response())

@step(retry=False)
async def bank():
    raise ClosedError("9 to 5")

@step(retry=False)
async def several():
    raise ExceptionGroup("several", [Declined("a"), ExceptionGroup("in", [ClosedError("b")])])

class Till:
    @step(retry=False)
    async def charge(self):
        raise Declined("no money")

    def __eq__(self, other):
        return True

    __hash__ = None

@workflow
async def child():
    await charge()

@workflow
async def grandchild():
    await child()

async def handled(expected, awaitable):
    try:
        await awaitable
    except expected:
        found = "handled"
    except Exception as error:
        found = f"{type(error)}: {error}"
    else:
        found = "nothing"
    current_context().sleep("1h")
    return found

async def in_batch(ctx, batch):
    found = []
    try:
        await batch
    except BatchError as error:
        found = [type(each) is Declined for each in (error.__cause__, *error.result.errors)]
    ctx.sleep("1h")
    return "handled" if found and all(found) else f"{found}"

async def large():
    return "x" * 300_000

async def both():
    await asyncio.gather(charge(), nested())

async def step_in_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(charge())

@workflow
async def a_step(ctx): return await handled(Declined, charge())
@workflow
async def its_base(ctx): return await handled(ShopError, charge())
@workflow
async def a_step_in_a_thread(ctx): return await handled(Declined, charge_blocking.submit())
@workflow
async def with_options(ctx): return await handled(Declined, charge.options(name="x", key="k")())
@workflow
async def a_class_in_a_class(ctx): return await handled(Outer.Inner, nested())
@workflow
async def a_class_in_a_function(ctx): return await handled(Declined, in_function())
@workflow
async def a_class_not_makeable(ctx): return await handled(ShopError, unmakeable())
@workflow
async def of_another_module(ctx): return await handled(ClosedError, bank())
@workflow
async def a_base_of_another_module(ctx): return await handled(BankError, bank())
@workflow
async def a_method(ctx): return await handled(Declined, Till().charge())
@workflow
async def a_child(ctx): return await handled(Declined, child())
@workflow
async def a_child_of_a_child(ctx): return await handled(Declined, grandchild())
@workflow
async def ctx_child(ctx): return await handled(Declined, ctx.child(declined_later))
@workflow
async def a_gather(ctx): return await handled(Declined, both())
@workflow
async def a_branch(ctx): return await in_batch(ctx, ctx.parallel([charge, declined_later]))
@workflow
async def a_branch_of_a_coroutine(ctx):
    return await in_batch(ctx, ctx.parallel([declined_later(), charge()]))
@workflow
async def a_map(ctx): return await in_batch(ctx, ctx.map(declined_later, [1, 2]))
@workflow
async def a_large_branch(ctx):
    return await in_batch(ctx, ctx.parallel([large, declined_later]))
@workflow
async def a_batch_in_a_child(ctx):
    async def inner():
        await ctx.parallel([charge])
    return await handled(BatchError, ctx.child(inner))
@workflow
async def a_check(ctx):
    return await handled(Declined, ctx.wait_for_condition(declined_later, every="1s"))
@workflow
async def a_check_in_a_thread(ctx):
    return await handled(Declined, ctx.wait_for_condition(declined, every="1s"))
@workflow
async def a_submitter(ctx):
    return await handled(Declined, ctx.wait_for_callback(declined_later, retry=False))
@workflow
async def a_submitter_in_a_thread(ctx):
    return await handled(Declined, ctx.wait_for_callback(declined, retry=False))

@workflow
async def a_compensation(ctx):
    async def undone():
        async with ctx.saga() as saga:
            saga.add(charge)
            raise ClosedError("9 to 5")
    try:
        await undone()
    except SagaError as error:
        found = [type(error.reason) is ClosedError, type(error.failures[0]) is Declined]
    current_context().sleep("1h")
    return "handled" if all(found) else found

@workflow
async def members(ctx):
    found = []
    try:
        await several()
    except* Declined:
        found.append("declined")
    except* ClosedError:
        found.append("closed")
    ctx.sleep("1h")
    return "handled" if found == ["declined", "closed"] else found

@workflow
async def a_task_group(ctx):
    found = "nothing"
    try:
        await step_in_a_group()
    except* Declined:
        found = "handled"
    ctx.sleep("1h")
    return found

@workflow
def blocking(ctx):
    try:
        charge_blocking()
    except Declined:
        found = "handled"
    except Exception as error:
        found = repr(error)
    ctx.sleep("1h")
    return found

@workflow
def a_blocking_child(ctx):
    try:
        blocking_child()
    except Declined:
        found = "handled"
    ctx.sleep("1h")
    return found

@workflow
def blocking_child():
    charge_blocking()
"""

NAMES = [
    line.split("(")[0].split()[-1]
    for line in SHOP.splitlines()
    if line.startswith(("async def ", "def ")) and "(ctx)" in line
]
PROCESSES = [
    ({"shop": "__main__", "bank": "bank"}, {"shop": "shop", "bank": "bank"}),
    ({"shop": "pk.shop", "bank": "pk.bank"}, {"shop": "shop", "bank": "bank"}),
    ({"shop": "shop", "bank": "bank"}, {"shop": "__main__", "bank": "pk.bank"}),
]


class Process:
    """A folder with two modules, and what is loaded of them."""

    def __init__(self, folder: Path, patch: Patch) -> None:
        self._folder, self._patch = folder, patch
        self._loaded: list[str] = []
        folder.mkdir()

    def start(self, names: dict[str, str], shop: str = SHOP) -> ModuleType:
        """Load the modules under these names, and nothing else of them."""
        for name in self._loaded:
            self._patch.delitem(sys.modules, name)
        self._loaded = list(names.values())
        self._load(names["bank"], "bank.py", BANK)
        return self._load(names["shop"], "shop.py", shop.replace("BANK_MODULE", names["bank"]))

    def _load(self, name: str, file: str, source: str) -> ModuleType:
        path = self._folder / file
        path.write_text(source, "utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        if name == "__main__":
            module.__spec__ = None  # as Python has it for a script
        self._patch.setitem(sys.modules, name, module)
        exec(compile(source, path, "exec"), vars(module))
        return module


@pytest.fixture
def process(tmp_path: Path, monkeypatch: Patch) -> Process:
    return Process(tmp_path / "pk", monkeypatch)


@pytest.mark.parametrize(("first", "second"), PROCESSES, ids=["main", "package", "script"])
@pytest.mark.parametrize("name", NAMES)
def test_what_except_matched_it_matches_in_another_process(
    name: str, first: dict[str, str], second: dict[str, str], process: Process
) -> None:
    world = World()
    world.suspend(getattr(process.start(first), name))
    assert world.finish(getattr(process.start(second), name)) == "handled"


def rename(old: str, new: str) -> str:
    assert old in SHOP
    return SHOP.replace(old, new)


LOST = {
    "removed": (
        rename("class Declined(ShopError):\n    pass", "Declined = None"),
        "without a class",
    ),
    "renamed": (rename("Declined", "Refused"), "without a class Declined"),
    "another base": (rename("Declined(ShopError)", "Declined(Exception)"), "not from ShopError"),
}


OF_OTHER_CLASSES = {
    "a_class_in_a_class",
    "a_class_not_makeable",
    "of_another_module",
    "a_base_of_another_module",
    "a_batch_in_a_child",
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_OTHER_CLASSES])
def test_else_the_run_is_put_off_and_says_why(name: str, how: str, process: Process) -> None:
    first, second = PROCESSES[0]
    source, said = LOST[how]
    world = World()
    world.suspend(getattr(process.start(first), name))
    recorded = [(each.id, each.error) for each in world.operations()]
    end = world.invoke(getattr(process.start(second, source), name))
    assert isinstance(end, Broken)
    assert isinstance(end.error, NonDeterminismError)
    for words in ("recorded:", "__main__.", "Declined", "shop.py", said):
        assert words in str(end.error), words
    assert [(each.id, each.error) for each in world.operations()] == recorded
    # With an alias for the recorded name, or the class back, it goes on.
    back = source + "\nDeclined = Refused" if how == "renamed" else SHOP
    assert world.finish(getattr(process.start(second, back), name)) == "handled"
