"""Write the blocking twin of an async module: `make generate`; with ``--check``, only compare.

The async module is the source. Its twin is a module of its own, so that type checkers, editors and
readers see exact signatures. It is the source with these changes, in this order:

1. `Twin.texts`: each text is replaced wherever it stands. One that is not found is an error.
2. With `Twin.only`, other definitions of the source are left out, and imported from it if used.
3. ``await`` and ``async`` go, also in the code of docstrings: in backquotes, after ``>>>`` and in
   indented blocks after ``::``. So does the awaitable around a return type: ``Coroutine[Any, Any,
   T]`` becomes ``T``. Parameters keep their types.
4. Identifiers are renamed, in code and in the code of docstrings: `Twin.names`, and Python's own
   pairs, such as ``__aenter__`` and ``AsyncIterator``.
5. With `Twin.delegate`, a public method's body is one call of the async object.
6. ruff removes unused imports, sorts the others and formats.

Strings and comments change by 1 alone.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import TypeAlias

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Twin:
    """An async module and how its blocking twin differs from it."""

    source: str
    target: str
    names: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)
    awaitables: frozenset[str] = frozenset({"Awaitable", "Coroutine"})
    """Generic types that a return type loses; the last parameter is the result's type."""
    only: frozenset[str] = frozenset()
    """The classes and functions to write; by default all."""
    delegate: Mapping[str, str] = field(default_factory=dict)
    """A method's name, the name of its return type (the twin's) or ``"*"`` to the method's body.

    The body is an expression. ``{call}`` in it is the method's call with its own arguments:
    ``get(id_or_name, workflow)``. Private methods are left out.
    """
    without: frozenset[str] = frozenset()
    """With ``delegate``, public methods to leave out."""


API = "src/pyworkflow/_api"
LOCAL = "src/pyworkflow/_local"
TWINS = (
    Twin(
        f"{API}/context.py",
        f"{API}/sync_context.py",
        names={
            "Callback": "SyncCallback",
            "WorkflowContext": "SyncWorkflowContext",
            "coroutine": "blocking",
        },
        texts={
            "an ``async def`` workflow": "a ``def`` workflow",
            """Methods that wait return coroutines, so `asyncio.gather`, `asyncio.wait_for` and
`asyncio.create_task` take them. The exceptions block the calling task: `sleep`, `sleep_until`, and
`callback` until the callback is recorded.
""": """Methods that wait block the calling task, and no other.
""",
            "methods that wait return coroutines.": "methods that wait block.",
            "Sleep durably when called, awaited or not. For `gather` use `pyworkflow.sleep`.": (
                "Sleep durably."
            ),
            "-> Slept:": "-> None:",
            "        return Slept()\n": "",
        },
        awaitables=frozenset({"Awaited", "Coroutine"}),
    ),
    Twin(
        f"{LOCAL}/async_client.py",
        f"{LOCAL}/client.py",
        names={"AsyncClient": "Client", "AsyncHandle": "Handle"},
        texts={
            "import AsyncHandle, Identity, id_of": "import id_of",
            "from pyworkflow._local.completion import Completions\n": (
                "from pyworkflow._local import async_client\n"
                "from pyworkflow._local.blocking import BlockingClient\n"
                "from pyworkflow._local.handle import Handle\n"
            ),
            "class AsyncClient:": "class AsyncClient(BlockingClient):",
            f"    # -- open and closed {'-' * 73}\n\n": "",
            "that were started as objects.\n    ": (
                "that were started as objects. Its\n    "
                "methods may be called from any thread, also from sync steps.\n    "
            ),
        },
        only=frozenset({"AsyncClient"}),
        delegate={
            "Self": "cls(async_client.AsyncClient.{call})",
            "Handle": "Handle(self, self.call(lambda: self._client.{call}))",
            "release": "self.call(lambda: self._client.release(id_of(execution)))",
            "*": "self.call(lambda: self._client.{call})",
        },
        without=frozenset({"join"}),
    ),
    Twin(
        f"{LOCAL}/async_handle.py",
        f"{LOCAL}/handle.py",
        names={"AsyncHandle": "Handle", "AsyncClient": "Client"},
        texts={
            "import waiting_for\n": (
                "import waiting_for\nfrom pyworkflow._local.blocking import BlockingHandle\n"
            ),
            "class AsyncHandle(Generic[R_co]):": "class AsyncHandle(BlockingHandle[R_co]):",
        },
        only=frozenset({"AsyncHandle"}),
        delegate={
            "result": "self._wait_for_result(timeout)",
            "*": "self._client.call(lambda: self._handle.{call})",
        },
        without=frozenset({"wait_for_result"}),
    ),
)

PYTHON_NAMES = {
    "AsyncExitStack": "ExitStack",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aclosing": "closing",
    "anext": "next",
    "asynccontextmanager": "contextmanager",
}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
TYPE_VARIABLES = {"TypeVar", "ParamSpec", "TypeVarTuple"}


class GenerationError(Exception):
    """A twin can't be written; the message says where its description does not fit the source."""


def blocking(source: str, twin: Twin) -> str:
    """Return the text of the twin, before ruff has seen it."""
    for text, instead in twin.texts.items():
        if text not in source:
            raise GenerationError(
                f"{twin.source} does not contain {text!r}, which its twin replaces by {instead!r}. "
                "Correct `texts` in tools/generate_sync.py"
            )
        source = source.replace(text, instead)
    if twin.only:
        source = _with_only(source, twin)
    source = _edited(source, lambda tree, at: _edits(tree, at, twin))
    source = _renamed(source, {**PYTHON_NAMES, **twin.names})
    if twin.delegate:
        source = _edited(source, lambda tree, at: _delegated(tree, at, twin))
    try:
        compile(source, twin.target, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise GenerationError(
            f"{twin.target} would not be Python, line {error.lineno}: {error.msg}"
        ) from None
    header = (
        f"# Generated from {Path(twin.source).name}: change that file, then run `make generate`.\n"
    )
    return header + source


# -- edits of a text by the positions of its nodes -----------------------------------------------


class Positions:
    """Where nodes stand in the bytes of a text."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def line(self, number: int) -> int:
        """Return where line ``number`` begins; the first is 1."""
        return self._starts[number - 1]

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where ``node`` begins and ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.line(node.lineno) + node.col_offset,
            self.line(node.end_lineno) + node.end_col_offset,
        )

    def source(self, node: ast.expr | ast.stmt) -> str:
        """Return the text of ``node``."""
        start, end = self.span(node)
        return self.text[start:end].decode()


Edit: TypeAlias = tuple[int, int, str]


def _edited(source: str, edits: Callable[[ast.Module, Positions], Iterator[Edit]]) -> str:
    text = source.encode()
    for start, end, instead in sorted(edits(ast.parse(text), Positions(text)), reverse=True):
        text = text[:start] + instead.encode() + text[end:]
    return text.decode()


def _edits(tree: ast.Module, at: Positions, twin: Twin) -> Iterator[Edit]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.returns is not None:
                    yield from _unwrapped(node.returns, at, twin.awaitables)
            case ast.Attribute(value=ast.Await(value=awaited)):
                # (await x).y
                start, end = at.span(node.value)
                if isinstance(awaited, ast.Call | ast.Attribute | ast.Name | ast.Subscript):
                    yield start - 1, start, ""
                    yield end, end + 1, ""
        if isinstance(node, (*DEFINITIONS, ast.Module)) and ast.get_docstring(node):
            literal = node.body[0]
            start, end = at.span(literal)
            yield start, end, _docstring(at.source(literal), {**PYTHON_NAMES, **twin.names})


def _unwrapped(returns: ast.expr, at: Positions, awaitables: frozenset[str]) -> Iterator[Edit]:
    match returns:
        case ast.Subscript(value=ast.Name(id=name), slice=result) if name in awaitables:
            result = result.elts[-1] if isinstance(result, ast.Tuple) else result
            start, end = at.span(returns)
            inner_start, inner_end = at.span(result)
            yield start, inner_start, ""
            yield inner_end, end, ""


# -- only some definitions -----------------------------------------------------------------------


def _with_only(source: str, twin: Twin) -> str:
    """Leave out the other definitions; import from the source those that are used."""
    tree = ast.parse(source)
    ours = [node for node in tree.body if _name_of(node) in twin.only]
    if missing := twin.only - {_name_of(node) for node in ours}:
        raise GenerationError(f"{twin.source} does not define {', '.join(sorted(missing))}")
    needed = {each.id for node in ours for each in ast.walk(node) if isinstance(each, ast.Name)}
    module = ".".join(Path(twin.source).with_suffix("").parts[1:])

    def edits(tree: ast.Module, at: Positions) -> Iterator[Edit]:
        # Under `if TYPE_CHECKING:`; imports of these belong there.
        checked = [each for node in tree.body if isinstance(node, ast.If) for each in node.body]
        for nodes in (tree.body[1:], checked):
            missing: list[str] = []
            for node in nodes:
                name = _name_of(node)
                is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if name in twin.only or (name in needed and _is_type_variable(node)):
                    continue
                if name in needed:
                    missing.append(name)
                if name is not None or is_text:
                    yield *_whole(node, at), f"{' ' * node.col_offset}pass\n"
            imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
            if missing and imports:
                _, end = _whole(imports[-1], at)
                indent = " " * imports[-1].col_offset
                yield end, end, f"{indent}from {module} import {', '.join(missing)}\n"

    return _edited(source, edits)


def _whole(node: ast.stmt, at: Positions) -> tuple[int, int]:
    """Return where the lines of ``node`` begin and end, its decorators included."""
    decorators = node.decorator_list if isinstance(node, DEFINITIONS) else []
    assert node.end_lineno is not None
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return at.line(first), at.line(node.end_lineno + 1)


def _name_of(node: ast.stmt) -> str | None:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def _is_type_variable(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(value=ast.Call(func=ast.Name(id=name))):
            return name in TYPE_VARIABLES
    return False


# -- names, await and async ----------------------------------------------------------------------


def _renamed(source: str, names: Mapping[str, str]) -> str:
    """Rename identifiers and drop ``await`` and ``async``; f-strings stay on every Python."""
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    starts = {getattr(tokenize, kind, -1) for kind in ("FSTRING_START", "TSTRING_START")}
    ends = {getattr(tokenize, kind, -1) for kind in ("FSTRING_END", "TSTRING_END")}
    edits: list[tuple[int, int, int, str]] = []
    depth = 0
    for token, following in pairwise(tokens):
        depth += (token.type in starts) - (token.type in ends)
        row, column = token.start
        if token.type != tokenize.NAME or depth:
            continue
        if token.string in {"await", "async"}:
            end = following.start[1] if following.start[0] == row else token.end[1]
            edits.append((row, column, end, ""))
        elif token.string in names:
            edits.append((row, column, token.end[1], names[token.string]))
    for row, column, end, instead in reversed(edits):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + instead + line[end:]
    return "".join(lines)


IN_BACKQUOTES = re.compile(r"``[^`]+``|`[^`]+`")
IN_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.) .*$", re.MULTILINE)
IN_BLOCK = re.compile(r"(?<=::\n\n)(?:(?P<indent>[ \t]+).*\n)(?:(?P=indent).*\n|\n)*")


def _docstring(text: str, names: Mapping[str, str]) -> str:
    def code(match: re.Match[str]) -> str:
        found = re.sub(r"\b(?:await|async) +(?=\w|\()", "", match[0])
        return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), found)

    for pattern in (IN_BACKQUOTES, IN_PROMPT, IN_BLOCK):
        text = pattern.sub(code, text)
    return text


# -- methods that call the async object's --------------------------------------------------------


def _delegated(tree: ast.Module, at: Positions, twin: Twin) -> Iterator[Edit]:
    """Replace the bodies of public methods by calls; leave the others out."""
    for method in (each for node in tree.body for each in getattr(node, "body", ())):
        if not isinstance(method, FUNCTIONS):
            continue
        start, end = _whole(method, at)
        if method.name.startswith("_") or method.name in twin.without:
            yield start, end, ""
        elif not _is_overload(method):
            body = method.body[ast.get_docstring(method) is not None :]
            keys = (method.name, _result_of(method), "*")
            template = next(twin.delegate[key] for key in keys if key in twin.delegate)
            returns = "" if _result_of(method) == "None" else "return "
            call = template.format(call=_call_of(method))
            indent = " " * (method.col_offset + 4)
            yield at.line(body[0].lineno) if body else end, end, f"{indent}{returns}{call}\n"


def _is_overload(method: Function) -> bool:
    return any(
        isinstance(each, ast.Name) and each.id == "overload" for each in method.decorator_list
    )


def _result_of(method: Function) -> str:
    returns = method.returns
    returns = returns.value if isinstance(returns, ast.Subscript) else returns
    return "" if returns is None else ast.unparse(returns)


def _call_of(method: Function) -> str:
    arguments = method.args
    given = [each.arg for each in (arguments.posonlyargs + arguments.args)[1:]]
    given += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    given += [f"{each.arg}={each.arg}" for each in arguments.kwonlyargs]
    given += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return f"{method.name}({', '.join(given)})"


# -- files ---------------------------------------------------------------------------------------


def formatted(text: str, target: Path) -> str:
    """Return ``text`` as ruff leaves it."""
    ruff = which("ruff", path=str(Path(sys.executable).parent)) or "ruff"
    rules = "F401,I,PIE790,RET501,TC005"
    for command in (["check", "--fix-only", "--quiet", "--select", rules], ["format"]):
        run = subprocess.run(  # noqa: S603 - the arguments are ours
            [ruff, *command, "--stdin-filename", str(target), "-"],
            input=text.encode(),
            capture_output=True,
            check=False,
            cwd=ROOT,
        )
        if run.returncode:
            raise GenerationError(f"ruff can't read {target}: {run.stderr.decode()}")
        text = run.stdout.decode()
    return text


def generated(twin: Twin) -> str:
    """Return what the twin's file should contain."""
    source = (ROOT / twin.source).read_text("utf-8")
    return formatted(blocking(source, twin), ROOT / twin.target)


def main(arguments: list[str]) -> int:
    """Write or check all twins."""
    is_check = arguments == ["--check"]
    if arguments and not is_check:
        print("usage: generate_sync.py [--check]", file=sys.stderr)
        return 2
    outdated = []
    for twin in TWINS:
        target = ROOT / twin.target
        text = generated(twin)
        if target.exists() and target.read_text("utf-8") == text:
            continue
        outdated.append(twin)
        if not is_check:
            target.write_text(text, "utf-8")
            print(f"wrote {twin.target}")
    if not is_check or not outdated:
        return 0
    for twin in outdated:
        print(f"{twin.target} does not follow {twin.source}.", file=sys.stderr)
    print("Run `make generate`, and commit what it writes.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
