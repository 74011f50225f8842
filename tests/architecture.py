"""The checks of `test_architecture.py`: each reads source text and returns what it finds wrong.

They parse and never import, so a module that can't be imported is still judged. A finding is one
line that says where and what.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

MODULE_LINES = 800
FUNCTION_LINES = 60
PARAMETERS = 6
ROOT_EXPORTS = 30

LAYERS = {
    "errors": 0,
    "duration": 0,
    "retry": 0,
    "_protocol": 1,
    "_values": 2,
    "_engine": 3,
    "_api": 4,
    "_runtime": 5,
    "_local": 6,
    "testing": 7,
    "aws": 7,
    "types": 7,
    "_cli": 8,
}
"""A module imports from its own layer and from those with a lower number."""

SERVICES_SEE = ("errors", "services", "_protocol")
SERVICES_SEEN_FROM = LAYERS["_runtime"]

CONCRETE_SERVICES = {
    "services.memory": ("testing.",),
    "services._memory_queue": (),
    "services.sqlite": (),
    "services.awslambda": ("aws.",),
}
"""Each service, and who outside `services` may name it: the mock, and Lambda's side of AWS. All
others get theirs from `services.open`."""

PRIVATE_IMPORTS: dict[str, tuple[str, ...]] = {}
"""Modules that may import private ones of another folder, and which: none."""

PURE = ("_protocol", "_values", "_engine")
"""The folders that may not touch the world."""

IMPURE = frozenset(
    "_thread concurrent ctypes glob http importlib io marshal mmap multiprocessing os pathlib"
    " pickle queue secrets select selectors shelve shutil signal socket sqlite3 ssl subprocess"
    " tempfile threading time urllib".split()
)
"""What they may not import: the world, the clock, threads."""

IMPURE_CALLS = frozenset(
    "open print input datetime.now datetime.utcnow datetime.today date.today uuid1 uuid4"
    " uuid.uuid1 uuid.uuid4 random.SystemRandom SystemRandom".split()
)
"""Calls that read the world or chance. `Random` is judged by its arguments: a seed is needed."""

ENGINE_ASYNCIO = {
    "_engine.loop.event_loop": "it is the event loop",
    "_engine.loop.tasks": "its tasks and futures are asyncio's",
    "_engine.loop.forbidden": "it refuses what the loop does not do",
    "_engine.deadlock": "it tells what each task awaits",
    "_engine.ops.base": "an operation's outcome is a future",
    "_engine.loop.greenlets": "it lends the loop to synchronous code",
    "_engine.execution": "it tells a cancelled task from one that failed",
}
PRIVATE_ASYNCIO = {"_engine.loop.tasks": "private names lie in one module, under test"}

BANNED_WORDS = frozenset("common helper helpers manager managers util utils misc".split())

CHECKED_PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples", "src")
"""Files, and folders of Markdown and Python files, whose English the word list checks."""

_END = r"(?=\s*(?:[.,;:!?)]|\Z))"

WORDS = {
    r"\b(?:[Tt]old|[Tt]ells?|[Tt]elling)\b": "reported, raised, passed to; says, shows",
    r"\bheld\b": "cached, leased, deferred, kept",
    r"\bhold(?:s|ing)? (?:an?|the|its?|one|two|no|less|more|what|all|them|this|that|each)\b"
    r"(?! (?:\w+ ){0,2}locks?\b)": "caches, leases, keeps, has, contains",
    r"\b[Ff]or ever\b": "forever",
    rf"\bno more{_END}": "no longer, not any more",
    r"\b[Bb]e it\b": "whether, even",
    r"\b[Ss]o many\b": "as many, that many",
    r"\b[Oo]f late\b": "recently",
    r"\bbelongs? into\b": "belongs in",
    r"\b(?:is|are) none of\b": "does not exist",
    r"(?<!\b[Tt]here )\b(?:is|are|was|were) no (?!longer\b|such\b|more\b)\w+": "is not a",
    r"\bcounts? not\b": "does not count",
    r"\b[Aa]s far as\b": "if, where, to the extent that",
    rf", too{_END}": "also, as well",
    r"(?:(?<=[.!:;] )|(?<=\A))(?:What|Who|Whoever)\b[^.?!]*[.!;]": "a noun as the subject",
}
"""Patterns of wording that is not plain English, and what to write instead."""

OPENERS = {
    "One": "name the thing: A row, The reader",
    "What": "name the thing, or say what the function does",
    "Who": "name the thing",
    "Let": "an imperative: Make, Allow, Wait",
}
"""First words that a docstring does not open with, and how it does instead."""

MACHINE_PATH = re.compile(r"(?<![\w.~*-])/(?:work|home|root)/")
REGISTRY_HOST = re.compile(r"\bpypi\.org|pythonhosted\.org|\bnpmjs\.(?:org|com)")


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed module; ``name`` is dotted and begins below the package: ``_engine.journal``."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def top(self) -> str:
        """The package or module directly below the root; empty for the root itself."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported dotted name, with the line, and whether only type checkers see it."""

    target: str
    line: int
    typing_only: bool


def load_modules(package: Path) -> dict[str, Module]:
    """Parse every module of the package in the folder ``package``."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        modules[name] = Module(name, path, text, ast.parse(text, str(path)))
    return modules


def imports_of(module: Module, package: str) -> list[Import]:
    """List what ``module`` imports, anywhere in it."""
    return list(_imports(module.tree, module, package, typing_only=False))


def _imports(node: ast.AST, module: Module, package: str, *, typing_only: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield Import(alias.name, node.lineno, typing_only)
        case ast.ImportFrom(names=names):
            base = _absolute(node, module, package)
            for alias in names:
                yield Import(f"{base}.{alias.name}", node.lineno, typing_only)
        case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for seen in node.body:
                yield from _imports(seen, module, package, typing_only=True)
            for seen in node.orelse:
                yield from _imports(seen, module, package, typing_only=typing_only)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _imports(child, module, package, typing_only=typing_only)


def _absolute(node: ast.ImportFrom, module: Module, package: str) -> str:
    if not node.level:
        return node.module or ""
    here = [package, *filter(None, module.name.split("."))]
    if module.path.name != "__init__.py":
        here.pop()
    here = here[: len(here) - node.level + 1]
    return ".".join([*here, *filter(None, [node.module])])


def _inner_edges(
    modules: Mapping[str, Module], package: str
) -> Iterator[tuple[Module, str, Import]]:
    """Yield (importer, imported module, import) for each import inside the package."""
    for module in modules.values():
        for found in imports_of(module, package):
            head, _, rest = found.target.partition(".")
            if head != package:
                continue
            while rest and rest not in modules:
                rest = rest.rpartition(".")[0]
            if rest != module.name:
                yield module, rest, found


def layer_findings(modules: Mapping[str, Module], package: str) -> list[str]:
    """Find imports that point up, imports for type checkers included."""
    findings = [
        f"{module.path}: {module.top} has no layer"
        for module in modules.values()
        if module.top not in {"", "services", *LAYERS}
    ]
    for module, target, found in _inner_edges(modules, package):
        if module.name and not _may_import(module, target):
            name = target or package
            findings.append(f"{module.path}:{found.line}: {module.name} may not import {name}")
    return findings


def _may_import(module: Module, target: str) -> bool:
    if not target:
        return False
    if module.top == "services":
        return any(f"{target}.".startswith(f"{seen}.") for seen in SERVICES_SEE)
    here = LAYERS.get(module.top, -1)
    top = target.partition(".")[0]
    if top == "services":
        return here >= SERVICES_SEEN_FROM
    return LAYERS.get(top, len(LAYERS)) <= here


def concrete_service_findings(modules: Mapping[str, Module], package: str) -> list[str]:
    """Find modules that name a concrete service, imports for type checkers included."""
    findings = []
    for module, target, found in _inner_edges(modules, package):
        if module.top == "services":
            continue
        for service, allowed in CONCRETE_SERVICES.items():
            is_named = f"{target}.".startswith(f"{service}.")
            if is_named and not f"{module.name}.".startswith(allowed):
                findings.append(f"{module.path}:{found.line}: {module.name} names {target}")
    return findings


def cycle_findings(modules: Mapping[str, Module], package: str) -> list[str]:
    """Find a cycle among all imports, inside functions or not, those for type checkers included."""
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for module, target, _ in _inner_edges(modules, package):
        graph[module.name].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["import cycle: " + " <- ".join(name or package for name in error.args[1])]
    return []


def private_import_findings(
    modules: Mapping[str, Module], package: str, exceptions: Mapping[str, Iterable[str]]
) -> list[str]:
    """Find private names that are imported from another top-level folder.

    ``exceptions`` maps a module to the private modules that it may import; one that it does not
    import is a finding, too.
    """
    findings = []
    unused = {(name, target) for name, targets in exceptions.items() for target in targets}
    for module in modules.values():
        for found in imports_of(module, package):
            head, *parts = found.target.split(".")
            private = [i for i, part in enumerate(parts) if i and re.match(r"_(?!_)", part)]
            if head != package or parts[0] == module.top or not private:
                continue
            target = ".".join(parts[: private[0] + 1])
            unused.discard((module.name, target))
            if target not in exceptions.get(module.name, ()):
                findings.append(f"{module.path}:{found.line}: {target} is private to {parts[0]}")
    stale = [f"exception for {target} in {name}, which needs none" for name, target in unused]
    return sorted(stale) + findings


def purity_findings(modules: Mapping[str, Module], package: str) -> list[str]:
    """Find what would let the engine touch the world, the clock, threads or chance."""
    findings = []
    for module in modules.values():
        if module.top not in PURE:
            continue
        for found in imports_of(module, package):
            root = found.target.partition(".")[0]
            if found.typing_only:
                continue
            if root in IMPURE or (root == "asyncio" and module.name not in ENGINE_ASYNCIO):
                findings.append(f"{module.path}:{found.line}: the engine imports {found.target}")
        findings += [
            f"{module.path}:{call.lineno}: the engine calls {ast.unparse(call.func)}"
            for call in ast.walk(module.tree)
            if isinstance(call, ast.Call) and _is_impure(call)
        ]
    return findings


def _is_impure(call: ast.Call) -> bool:
    whole = ast.unparse(call.func)
    if whole in {"Random", "random.Random"}:
        return not call.args
    if re.fullmatch(r"random\.[a-z]\w*", whole):
        return True  # a function of the module draws from a generator that nobody seeded
    return ".".join(whole.split(".")[-2:]) in IMPURE_CALLS


def private_asyncio_findings(modules: Mapping[str, Module], package: str) -> list[str]:
    """Find private names of asyncio outside the one module that may use them."""
    findings = []
    for module in modules.values():
        if module.name in PRIVATE_ASYNCIO:
            continue
        private = [
            (found.line, found.target)
            for found in imports_of(module, package)
            if found.target.partition(".")[0] in {"asyncio", "_asyncio"}
            and re.search(r"(^|\.)_[a-z]", found.target)
        ]
        private += [
            (node.lineno, ast.unparse(node))
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute)
            and re.fullmatch(r"asyncio(\.\w+)*\._[a-zA-Z]\w*", ast.unparse(node))
        ]
        findings += [f"{module.path}:{line}: private name {name}" for line, name in private]
    return findings


def size_findings(modules: Mapping[str, Module], exceptions: Mapping[str, str]) -> list[str]:
    """Find modules and functions that are too long, functions with too many parameters.

    ``exceptions`` maps ``module`` or ``module:Class.function`` to the reason why it may be so; one
    that is no longer needed is a finding, too.
    """
    found = {}
    for module in modules.values():
        lines = module.text.count("\n")
        if lines > MODULE_LINES:
            found[module.name] = f"{module.path}: {lines} lines, at most {MODULE_LINES}"
        for name, function in _functions(module.tree):
            where = f"{module.path}:{function.lineno}: {name}"
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            count = _count_parameters(function, public=_is_public(module, name))
            if length > FUNCTION_LINES:
                found[f"{module.name}:{name}"] = f"{where}: {length} lines of {FUNCTION_LINES}"
            if count > PARAMETERS:
                found[f"{module.name}:{name}"] = f"{where}: {count} parameters of {PARAMETERS}"
    stale = [f"exception for {name}, which needs none" for name in exceptions if name not in found]
    return stale + [finding for name, finding in found.items() if name not in exceptions]


def _functions(
    node: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _is_public(module: Module, name: str) -> bool:
    """Whether an author may call it: the engine has no such names."""
    private = any(re.match(r"_(?!_)", part) for part in name.split("."))
    return module.top != "_engine" and not private


def _count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, *, public: bool) -> int:
    """Count parameters but self; keyword-only ones of a public function are its options."""
    spec = function.args
    positional = [arg.arg for arg in (*spec.posonlyargs, *spec.args)]
    count = len(positional) - (positional[:1] in (["self"], ["cls"]))
    count += (spec.vararg is not None) + (spec.kwarg is not None)
    return count if public else count + len(spec.kwonlyargs)


def docstring_findings(modules: Mapping[str, Module]) -> list[str]:
    """Find modules that say nothing of themselves; an empty ``__init__.py`` has nothing to say."""
    return [
        f"{module.path}: no module docstring"
        for module in modules.values()
        if module.tree.body and not ast.get_docstring(module.tree)
    ]


def name_findings(modules: Mapping[str, Module]) -> list[str]:
    """Find modules and classes whose name says only that something is in there."""
    findings = []
    for module in modules.values():
        names = [module.name.rpartition(".")[2]]
        names += [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        findings += [
            f"{module.path}: the name {name} tells nothing"
            for name in names
            if any(word.lower() in BANNED_WORDS for word in re.findall(r"[A-Z]?[a-z]+", name))
        ]
    return findings


def public_findings(
    modules: Mapping[str, Module], public: Mapping[str, Collection[str]]
) -> list[str]:
    """Find public modules whose ``__all__`` differs from the list, or is not sorted."""
    findings = []
    for name, listed in public.items():
        module = modules.get(name)
        if module is None:
            findings.append(f"{name}: it is public, but there is no such module")
            continue
        names = _exports(module)
        if names is None:
            findings.append(f"{module.path}: no __all__")
            continue
        if len(names) > ROOT_EXPORTS and not name:
            findings.append(f"{module.path}: {len(names)} names, at most {ROOT_EXPORTS}")
        if names != sorted(set(names)):
            findings.append(f"{module.path}: __all__ is not sorted, or repeats a name")
        unlisted, absent = {*names} - {*listed}, {*listed} - {*names}
        findings += [f"{module.path}: {each} is not on the list" for each in sorted(unlisted)]
        findings += [f"{module.path}: {each} is not in __all__" for each in sorted(absent)]
    return findings


def _exports(module: Module) -> list[str] | None:
    """Return a module's ``__all__``, `None` for one without."""
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=value):
                return list(ast.literal_eval(value))
    return None


def private_use_findings(
    where: str, code: str, package: str, public: Mapping[str, Collection[str]]
) -> list[str]:
    """Find imports in a user's code of what is not public; ``where`` says where the code stands."""
    known = {package, *(f"{package}.{module}" for module in public if module)}
    known |= {
        ".".join(filter(None, (package, module, name)))
        for module, names in public.items()
        for name in names
    }
    module = Module("", Path(where), code, ast.parse(code))
    return [
        f"{where}:{found.line}: {found.target} is not public"
        for found in imports_of(module, package)
        if found.target.partition(".")[0] == package and found.target not in known
    ]


def loaded_by_import(name: str, folder: Path) -> set[str]:
    """Import ``name`` from ``folder`` in a new process; return all that was loaded then."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def table_findings(page: str, package: Path) -> list[str]:
    """Return which modules the table of a page names not at all, twice, or without their being."""
    found = []
    rows = re.findall(r"^\| `([a-z_/]+)/` \| (.*) \|$", page, re.MULTILINE)
    folders = [folder for folder, _ in rows]
    for folder, cell in rows:
        named = [name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell)]
        there = {
            path.stem
            for path in (package / folder).iterdir()
            if (path.suffix == ".py" or (path / "__init__.py").exists())
            and path.name != "__init__.py"
            and f"{folder}/{path.stem}" not in folders
        }
        found += [f"{folder}/: {name} is missing" for name in sorted(there - {*named})]
        found += [f"{folder}/: {name} is not there" for name in sorted({*named} - there)]
        found += [
            f"{folder}/: {name} is named twice"
            for name in sorted({*named})
            if named.count(name) > 1
        ]
    return found


def text_findings(files: Iterable[Path]) -> list[str]:
    """Find paths of one machine, and hosts of package registries, in text files."""
    findings = []
    for path in files:
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        findings += [
            f"{path}:{number}: {found.group()}"
            for number, line in enumerate(lines, 1)
            for pattern in (MACHINE_PATH, REGISTRY_HOST)
            if (found := pattern.search(line))
        ]
    return findings


def prose_findings(paths: Iterable[Path]) -> list[str]:
    """Find words of the list in Markdown, and in the comments and strings of Python files.

    A folder stands for all such files in it. Names in code are not judged.
    """
    files = [file for path in paths for file in (_text_files(path) if path.is_dir() else [path])]
    findings = []
    for path in files:
        text = path.read_text("utf-8")
        is_python = path.suffix == ".py"
        passages = _python(text) if is_python else _markdown(text)
        for first, passage in passages:
            findings += [f"{path}:{first + line}: {said}" for line, said in _judge(passage)]
        for line, word in _openers(text) if is_python else ():
            findings.append(f"{path}:{line}: a docstring opens with {word!r}: {OPENERS[word]}")
    return findings


def _openers(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, word) for each such docstring, those of attributes included."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(value))):
                word = next(iter(value.split()), "")
                if word in OPENERS:
                    yield node.lineno, word


def _text_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix in {".md", ".py"}]


def _judge(passage: str) -> Iterator[tuple[int, str]]:
    """Yield (line, finding) for each word of the list; a pattern's spaces match line ends."""
    passage = re.sub(r"\n[ \t]+", "\n", passage)
    flat = re.sub(r"\s", " ", passage)
    for pattern, instead in WORDS.items():
        for found in re.finditer(pattern, flat):
            line = passage.count("\n", 0, found.start())
            yield line, f"{found.group()!r}: write {instead}"


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield paragraphs, list items, table cells and code blocks with their lines."""
    line = 1
    # Code spans name things that exist; their words are not the page's.
    text = re.sub(r"`[^`\n]+`", "`", text)
    for part in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) |#)|(?<!\|)\n(?=\|)|\|)", text):
        yield line, re.sub(r"\A\s*(?:[-*]|\d+\.)?\s*(?:\*\*)?", "", part)
        line += part.count("\n")


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Yield strings, and comments joined over neighbouring lines, with their lines."""
    yield from _strings(ast.parse(text))
    for found in re.finditer(r"(?:^[ \t]*#.*\n)+|(?<=  )# .*", text, re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        yield line, re.sub(r"^[ \t]*# ?", "", found.group(), flags=re.MULTILINE)


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.JoinedStr(values=values):
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in values]
            yield node.lineno, "".join(map(str, parts))
        case ast.Constant(value=str(value)):
            yield node.lineno, value
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _strings(child)
