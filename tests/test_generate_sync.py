"""The script that writes blocking twins: what it changes, and that it notices an outdated twin."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tools import generate_sync
from tools.generate_sync import GenerationError, Twin, blocking, formatted, main

if TYPE_CHECKING:
    from pathlib import Path


def twin(**options: Any) -> Twin:
    options = {"names": {"AsyncShop": "Shop"}, **options}
    return Twin("src/shops/async_shop.py", "src/shops/shop.py", **options)


def written(source: str, **options: Any) -> str:
    """Return the twin of ``source``, without the header and the blank lines around."""
    description = twin(**options)
    text = formatted(blocking(dedent(source), description), generate_sync.ROOT / description.target)
    header, _, rest = text.partition("\n")
    assert header == "# Generated from async_shop.py: change that file, then run `make generate`."
    return rest.strip()


def same(text: str) -> str:
    return dedent(text).strip()


# -- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    return await g()", "def f():\n    return g()"),
        ("async def f():\n    return (await g(1)).x", "def f():\n    return g(1).x"),
        ("async def f():\n    return h(await g())", "def f():\n    return h(g())"),
        (
            "async def f():\n    async with g() as h:\n        pass",
            "def f():\n    with g() as h:\n        pass",
        ),
        (
            "async def f(a):\n    return [b async for b in a if await b]",
            "def f(a):\n    return [b for b in a if b]",
        ),
        ("class AsyncShop:\n    x = AsyncShops", "class Shop:\n    x = AsyncShops"),
        ("s = f'{AsyncShop} äöü'; t = 'AsyncShop'", 's = f"{AsyncShop} äöü"\nt = "AsyncShop"'),
        ("async def f(): await g()  # await AsyncShop", "def f():\n    g()  # await AsyncShop"),
        ("x = 'ä'; y = AsyncShop", 'x = "ä"\ny = Shop'),
        (
            "class A:\n    async def __aenter__(self):\n        return self",
            "class A:\n    def __enter__(self):\n        return self",
        ),
    ],
)
def test_code(source: str, expected: str) -> None:
    assert written(source) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("Coroutine[Any, Any, list[T]]", "list[T]"),
        ("Awaitable[AsyncShop]", "Shop"),
        ("list[Coroutine[Any, Any, T]]", "list[Coroutine[Any, Any, T]]"),
        ("Awaited[T]", "Awaited[T]"),
        ("T", "T"),
    ],
)
def test_a_return_type_loses_its_awaitable(annotation: str, expected: str) -> None:
    source = f"def f(a: Coroutine[Any, Any, T]) -> {annotation}: ..."
    assert written(source) == f"def f(a: Coroutine[Any, Any, T]) -> {expected}: ..."


def test_a_return_type_loses_an_awaitable_of_its_own() -> None:
    source = "def f() -> Awaited[T]: ..."
    assert written(source, awaitables=frozenset({"Awaited"})) == "def f() -> T: ..."


def test_code_in_docstrings() -> None:
    source = '''
    class AsyncShop:
        """A shop: ``await shop.open()``, in an `AsyncShop`; await this in AsyncShop.

        Example::

            async with AsyncShop() as shop:
                await shop.open()

        >>> await shop.open()
        Then await it.
        """
    '''
    assert written(source) == same('''
    class Shop:
        """A shop: ``shop.open()``, in an `Shop`; await this in AsyncShop.

        Example::

            with Shop() as shop:
                shop.open()

        >>> shop.open()
        Then await it.
        """
    ''')


def test_texts_come_first() -> None:
    source = "def f() -> Slept:\n    g()\n    return Slept()"
    texts = {"-> Slept": "-> None", "    return Slept()": ""}
    assert written(source, texts=texts) == "def f() -> None:\n    g()"


def test_unused_imports_go() -> None:
    source = """
    from __future__ import annotations

    from typing import TYPE_CHECKING

    from shops.sleeping import Slept

    if TYPE_CHECKING:
        from shops.waiting import Waited

    x = 1
    """
    assert written(source, texts={"x = 1": "x = 2"}).endswith("annotations\n\nx = 2")


# -- some definitions ----------------------------------------------------------------------------

MODULE = '''
"""Shops."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from typing import TypeAlias

T = TypeVar("T")
U = TypeVar("U")
LIMIT = 5
"""How many."""

if TYPE_CHECKING:
    Item: TypeAlias = tuple[int, T]


class AsyncShop:
    async def first(self, item: Item[T], limit: int = LIMIT) -> T:
        """Return the first."""
        return await self._parts.first(item)

    async def close(self) -> None:
        """Close it."""
        await self._parts.close()

    async def open(self) -> None:
        """Open it."""
        await self._parts.open()

    async def wait(self) -> None:
        pass

    @property
    def _parts(self) -> object:
        return _parts(self)


def _parts(shop: AsyncShop) -> U: ...
'''


def test_the_rest_is_imported() -> None:
    assert written(MODULE, only=frozenset({"AsyncShop"})).split("\n\n\nclass ")[0] == same('''
    """Shops."""

    from __future__ import annotations

    from typing import TYPE_CHECKING, TypeVar

    from shops.async_shop import LIMIT, _parts

    if TYPE_CHECKING:
        from shops.async_shop import Item

    T = TypeVar("T")
    ''')


def test_methods_that_call_the_async_object() -> None:
    text = written(
        MODULE,
        only=frozenset({"AsyncShop"}),
        delegate={
            "*": "self.call(lambda: self._shop.{call})",
            "T": "value(self._shop.{call})",
            "close": "self.end({call})",
        },
        without=frozenset({"wait"}),
    )
    assert text.split("\n\n\n")[1] == same('''
    class Shop:
        def first(self, item: Item[T], limit: int = LIMIT) -> T:
            """Return the first."""
            return value(self._shop.first(item, limit))

        def close(self) -> None:
            """Close it."""
            self.end(close())

        def open(self) -> None:
            """Open it."""
            self.call(lambda: self._shop.open())
    ''')


def test_arguments_are_passed_as_they_are_declared() -> None:
    source = "class A:\n    async def f(self, a, /, b, *c, d, e=1, **g) -> int:\n        ..."
    assert "return x.f(a, b, *c, d=d, e=e, **g)" in written(source, delegate={"*": "x.{call}"})


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("x = 1", {"texts": {"y": "z"}}, "async_shop.py does not contain 'y'"),
        ("x = 1", {"only": frozenset({"y"})}, "async_shop.py does not define y"),
        ("async def f():\n    return f'{await g()}'", {}, r"shop.py would not be Python, line 2"),
    ],
)
def test_a_description_that_does_not_fit(source: str, options: Any, says: str) -> None:
    with pytest.raises(GenerationError, match=says):
        blocking(source, twin(**options))


# -- files ---------------------------------------------------------------------------------------


def test_an_outdated_twin_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate_sync, "ROOT", tmp_path)
    monkeypatch.setattr(generate_sync, "TWINS", (twin(),))
    source, target = tmp_path / twin().source, tmp_path / twin().target
    source.parent.mkdir(parents=True)
    source.write_text("class AsyncShop:\n    x = 'ä'\n", "utf-8")

    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "src/shops/shop.py does not follow src/shops/async_shop.py." in said
    assert "make generate" in said
    assert not target.exists()

    assert main([]) == 0
    assert capsys.readouterr().out == "wrote src/shops/shop.py\n"
    assert target.read_text("utf-8").endswith('class Shop:\n    x = "ä"\n')
    assert main(["--check"]) == main([]) == 0
    assert capsys.readouterr().out == ""

    target.write_text("class Shop: ...\n", "utf-8")
    assert main(["--check"]) == 1


def test_another_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--chekc"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_package_is_up_to_date() -> None:
    assert main(["--check"]) == 0
