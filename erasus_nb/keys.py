"""What a row depends on, read from the sources: the definitions that can change it.

Everything starts from a few definitions: the strategy, the workload's `make`, and what turns
both into a row. A definition depends on what it names, in its own module, in the package's
other modules and in the tagged cells of a page; what these name, it depends on as well. The
hash of all of them, as syntax trees without docstrings and comments, is the `code` of a row.
So prose and layout invalidate nothing, and a line that matters invalidates the rows that
depend on it and no others. No list of files says so.

Nothing here imports torch or runs a notebook: a site tells from the sources alone which rows
belong to them.
"""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import importlib
import inspect
import json
import linecache
import secrets
import subprocess
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from . import ROOT, cells, profiles

PACKAGE = __package__
#: Prefix of the module that the tagged cells of a page make.
PAGE = "notebooks."

#: What makes the models that rows are measured on, and what makes a row of one.
MODELS, ROWS = (f"{PACKAGE}.measuring", "Models"), (f"{PACKAGE}.measuring", "Measuring")
#: Record of base training -> what makes it. A row depends on the makers of those records that
#: its strategy declares; they are named here, and not there, so that it depends on no others.
MAKERS = {
    "update log": (f"{PACKAGE}.provenance", "update_logs"),
    "sisa shards": (f"{PACKAGE}.provenance", "sisa_shards"),
    "convex head": (f"{PACKAGE}.provenance", "convex_head"),
}

Name = tuple[str, str]  # module, name in it


class Reference(NamedTuple):
    """What an import binds a name to: a module, or a name in one (`name` is not empty)."""

    module: str
    name: str


def digest(*parts: Any) -> str:
    """A short, stable hash of values that JSON can write (others by their repr)."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


# ------------------------------------------------------------------ syntax trees


#: Parts of a syntax tree that say nothing, or that only some versions of Python have.
_SILENT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
_WITH_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def bare(node: Any) -> str:
    """A syntax tree as text: without docstrings, types of arguments, strategies' marks and
    places in the file.

    Not `ast.dump`, which writes one tree in different ways from version to version; nor
    `repr`, which writes some letters as they are where Python's tables know them. What a
    mark says that can change a row is hashed by itself (`Mark`): the settings to try and the
    reference are in it, too, and no row depends on these.
    """
    if isinstance(node, list):
        return f"[{','.join(map(bare, node))}]" if node else ""
    if not isinstance(node, ast.AST):
        return "" if node is None else ascii(node)
    parts = dict(ast.iter_fields(node))
    if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
        parts["body"] = node.body[1:]
    if "decorator_list" in parts:
        parts["decorator_list"] = [d for d in node.decorator_list if not _is_mark(d)]
    if isinstance(node, ast.arg):
        parts["annotation"] = None
    parts["returns"] = None
    texts = ((k, bare(v)) for k, v in parts.items() if k not in _SILENT)
    return f"{type(node).__name__}({' '.join(f'{k}={v}' for k, v in texts if v)})"


def _is_mark(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    return isinstance(called, ast.Name) and called.id == "strategy"


class Mark(NamedTuple):
    """What a strategy's mark says that can change its rows."""

    category: str
    reads: tuple[str, ...]
    departures: tuple[str, ...]
    product: str


def _mark_of(node: ast.AST) -> Mark | None:
    """The mark of a definition, from its source."""
    found = [d for d in getattr(node, "decorator_list", ()) if _is_mark(d)]
    if not found or not isinstance(found[0], ast.Call):
        return None
    given = {k.arg: k.value for k in found[0].keywords}

    def several(name: str) -> tuple[str, ...]:
        written = given.get(name, ast.Tuple([]))
        return tuple(map(_written, getattr(written, "elts", [written])))

    one = lambda name: _written(given[name]) if name in given else ""
    return Mark(one("category"), several("reads"), several("departures"), one("product"))


def _written(node: ast.expr) -> str:
    """What an argument of a mark says; the expression, where it is not written out."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


#: Tests of statements that an import does not run: types, and what a command line runs.
_NOT_RUN = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
_BINDING = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign),
)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements inside one, at whatever depth, but not inside of definitions."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, (ast.stmt, ast.ExceptHandler)):
            yield part
            if not isinstance(part, _BINDING):
                yield from _statements(part)


class Module:
    """The definitions of one module by name: functions, classes, constants, imports.

    Args:
        name: Its dotted name.
        text: Its source.
    """

    def __init__(self, name: str, text: str, is_package: bool = False):
        self.name = name
        self._base = name if is_package else name.rpartition(".")[0]
        self.nodes: dict[str, list[ast.AST]] = {}
        self.imports: dict[str, Reference] = {}
        #: Statements that bind no name: they count wherever anything of the module does.
        self.loose: list[ast.AST] = []
        #: Modules of which every name is imported.
        self.stars: list[str] = []
        self._taken: dict[str, set[Reference]] = {}
        self.tree = ast.parse(text)
        for node in self.tree.body:
            self._enter(node)

    def _enter(self, node: ast.AST) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found = dict(self.bound(node))
            self.stars += [found.pop("*").module] if "*" in found else []
            self.imports.update(found)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.nodes.setdefault(node.name, []).append(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        self.nodes.setdefault(part.id, []).append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in _NOT_RUN:
            for each in node.orelse:
                self._enter(each)
        elif not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            self.loose.append(node)
            for part in _statements(node):  # what a `try` or a `with` binds is bound as well
                if isinstance(part, _BINDING):
                    self._enter(part)

    def bound(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Reference]]:
        """The names that an import statement binds."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, Reference(whole, "")
                continue
            base = self._base.split(".")[: len(self._base.split(".")) - node.level + 1]
            prefix = ".".join(base) if node.level else ""
            module = ".".join(filter(None, (prefix, node.module)))
            yield alias.asname or alias.name, Reference(module, alias.name)

    def everything_imported(self) -> set[Reference]:
        """What is imported anywhere in the module, inside of functions too."""
        statements = (ast.Import, ast.ImportFrom)
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, statements)]
        found = {wanted for node in nodes for _, wanted in self.bound(node)}
        # `import a.b` binds `a` and imports both.
        whole = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
        return found | {Reference(name, "") for name in whole}

    def text(self, name: str) -> str:
        """What a name is bound to, as a hashable text."""
        return "\n".join(map(bare, self.nodes.get(name, ())))

    def taken(self, name: str) -> set[Reference]:
        """What the definition of a name takes from elsewhere in this module or another."""
        if name not in self._taken:
            nodes = self.nodes.get(name, ())
            self._taken[name] = set().union(*(names_taken(n, self) for n in nodes))
        return self._taken[name]

    def taken_loosely(self) -> set[Reference]:
        """The same of the statements that count wherever anything of the module does."""
        if "" not in self._taken:
            self._taken[""] = set().union(*(names_taken(n, self) for n in self.loose))
        return self._taken[""]


class _Running(ast.NodeTransformer):
    """Leaves of a definition what is run: no marks of strategies, no types of arguments."""

    def _definition(self, node):
        node.decorator_list = [d for d in node.decorator_list if not _is_mark(d)]
        node.returns = None
        self.generic_visit(node)
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _definition

    def visit_arg(self, node):
        node.annotation = None
        return node


def names_taken(node: ast.AST, module: Module) -> set[Reference]:
    """What a definition names: `clone` here, `training.clone`, or an import inside it.

    A name that a string makes (`getattr`, `import_module`) is not seen.
    """
    source = ast.unparse(_Running().visit(copy.deepcopy(node)))
    outer, tree = cells.outer_names(source), ast.parse(source)
    inside: dict[str, set[Reference]] = {}
    for part in ast.walk(tree):
        if isinstance(part, (ast.Import, ast.ImportFrom)):
            for name, wanted in module.bound(part):
                inside.setdefault(name, set()).add(wanted)

    def imported(name: str) -> set[Reference]:
        found = inside.get(name, set())
        return found | ({module.imports[name]} if name in outer & module.imports.keys() else set())

    found = {wanted for each in inside.values() for wanted in each if wanted.name == "*"}
    chained = set()
    for part in ast.walk(tree):
        chain = _chain(part)
        if chain is None or id(part) in chained:
            continue
        name, *rest = chain
        for where in imported(name):
            # `where` may be a module of this name, or a name in one: both are tried. So is
            # each link of `package.module.name`, and all of a module that is handed on whole.
            path = ".".join(filter(None, where))
            found.add(where)
            for attribute in rest:
                found.add(Reference(path, attribute))
                path = f"{path}.{attribute}"
            found.add(Reference(path, "*"))
        if name in outer and name not in inside and name not in module.imports:
            found.add(Reference(module.name, name))
        chained |= {id(link) for link in ast.walk(part)}
    return found


def _chain(node: ast.AST) -> list[str] | None:
    """`package.module.name` as a list; None for what is no such chain."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


# ------------------------------------------------------------------ the sources


class Sources:
    """The package's modules and the pages' tagged cells, as they are in their files.

    The package is read at once, so that a process that runs for hours goes on to know the
    code that it loaded, whatever is edited meanwhile.

    Args:
        root: The project, for its notebooks.
        package: The package's folder; by default the one that runs.
        instead: Path -> the text to take instead of the file's; None leaves the file out.
    """

    def __init__(
        self,
        root: str | Path = ROOT,
        package: str | Path | None = None,
        instead: Mapping[Path, str | None] | None = None,
    ):
        self.root, folder = Path(root), Path(package or ROOT / PACKAGE)
        self._instead = dict(instead or {})
        self._texts: dict[str, tuple[str, bool]] = {}
        self._pages: dict[str, str] = {}
        self._tuned: dict[str, dict] = {}
        self._modules: dict[str, Module] = {}
        self._digests: dict[frozenset, str] = {}
        for path, text in sorted(self._read(folder, "**/*.py").items()):
            place = (PACKAGE, *path.relative_to(folder).with_suffix("").parts)
            is_package = place[-1] == "__init__"
            name = ".".join(place[:-1] if is_package else place)
            self._texts[name] = text, is_package
        self.look()

    def _read(self, folder: Path, pattern: str) -> dict[Path, str]:
        """The files of a folder by path."""
        paths = set(folder.glob(pattern)) - self._instead.keys()
        given = {
            path: text
            for path, text in self._instead.items()
            if text is not None and path.is_relative_to(folder) and path.match(pattern)
        }
        return {path: path.read_text("utf-8") for path in paths} | given

    def look(self) -> None:
        """Read the pages and the tuned settings again: both may be edited while a kernel runs."""
        folder = self.root / "notebooks"
        pages = self._read(folder, "[!.]*.ipynb").items()
        found = {PAGE + path.stem: text for path, text in pages if path.parent == folder}
        self._tuned = {}
        for path, text in self._read(folder / "tuned", "[!.]*.json").items():
            try:
                self._tuned[path.stem] = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{path}: is not JSON ({error})") from error
        if found == self._pages:
            return
        for name in self._pages:
            self._texts.pop(name, None)
            self._modules.pop(name, None)
        self._pages = found
        self._digests.clear()
        for name, text in found.items():
            try:
                source = "\n\n".join(part for _, _, part in cells.tagged(json.loads(text)))
                ast.parse(source)
            except (ValueError, KeyError, TypeError, SyntaxError):
                continue  # a notebook that does not parse defines no strategy
            self._texts[name] = source, False

    def module(self, name: str) -> Module | None:
        """One module by its dotted name; None for what is not of this project."""
        if name not in self._texts:
            return None
        if name not in self._modules:
            self._modules[name] = Module(name, *self._texts[name])
        return self._modules[name]

    def _resolved(self, wanted: Reference, asked: frozenset = frozenset()) -> Iterator[Name]:
        """The definitions that a reference means: one, all of a module (`*`), or none."""
        module = self.module(wanted.module)
        if module is None or wanted in asked:  # `from . import x` in a folder: x is a module
            return
        if wanted.name == "*":
            yield from ((module.name, name) for name in module.nodes)
        elif wanted.name in module.nodes:
            yield module.name, wanted.name
        elif wanted.name in module.imports:  # handed on from another module
            yield from self._resolved(module.imports[wanted.name], asked | {wanted})
        else:
            for star in module.stars:
                yield from self._resolved(Reference(star, wanted.name), asked | {wanted})

    def closure(self, roots: Iterable[Name]) -> set[Name]:
        """Every definition that these depend on, themselves included."""
        found: set[Name] = set()
        waiting = [name for root in roots for name in self._resolved(Reference(*root))]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            module = self.module(name[0])
            for wanted in module.taken(name[1]) | module.taken_loosely():
                waiting += [each for each in self._resolved(wanted) if each not in found]
        return found

    def digest(self, roots: Iterable[Name]) -> str:
        """Hash of everything that these definitions depend on.

        Raises:
            KeyError: one of them does not exist.
        """
        wanted = frozenset(roots)
        if wanted not in self._digests:
            for root in wanted:
                if not any(self._resolved(Reference(*root))):
                    raise KeyError(f"there is no {root[1]} in {root[0]}")
            names = sorted(self.closure(wanted))
            texts = [(*name, self.module(name[0]).text(name[1])) for name in names]
            loose = [
                (name, [bare(node) for node in self.module(name).loose])
                for name in sorted({module for module, _ in names})
            ]
            self._digests[wanted] = digest(texts, loose)
        return self._digests[wanted]

    def pages_code(self, *more: str) -> str:
        """Hash of all modules that a page depends on: what it shows, and what makes its rows.

        Args:
            more: Modules that only some pages import.
        """
        waiting = [f"{PACKAGE}.book", *more, *(module for module, _ in MAKERS.values())]
        waiting += [name for name in self._texts if name.startswith(f"{PACKAGE}.workloads")]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            module = self.module(name)
            if module is None or name in found:
                continue
            found.add(name)
            for wanted in module.everything_imported():
                waiting += [wanted.module, ".".join(filter(None, wanted))]
        return digest([(name, bare(self.module(name).tree)) for name in sorted(found)])

    # ---- strategies and their rows

    def place_of(self, page: str, strategy: str) -> Name | None:
        """Where a strategy, control or baseline is defined; None if nowhere."""
        for module in (f"{PAGE}{page}", f"{PACKAGE}.controls"):
            found = self.module(module)
            if found is not None and any(map(_mark_of, found.nodes.get(strategy, ()))):
                return module, strategy
        return None

    def mark_of(self, place: Name) -> Mark | None:
        """What the mark of a strategy says that can change its rows."""
        marks = map(_mark_of, self.module(place[0]).nodes[place[1]])
        return next(filter(None, marks), None)

    def models_code(self, module: str) -> str:
        """Hash of all code that the models of a workload depend on.

        Args:
            module: The module of the workload, in its folder.
        """
        return self.digest([MODELS, (f"{PACKAGE}.workloads.{module}", "make")])

    def rows_code(self, module: str) -> str:
        """Hash of all code that any row of a workload depends on."""
        return self.digest([ROWS, (f"{PACKAGE}.workloads.{module}", "make")])

    def tuned(self, page: str, strategy: str, workload: str) -> list:
        """What tuning chose for a strategy, and how: part of what a row claims."""
        entry = self._tuned.get(page, {}).get(workload, {}).get(strategy, {})
        return [entry.get("settings"), entry.get("chosen_by")]

    def row_code(
        self, module: str, workload: str, profile: str, page: str, strategy: str | None = None
    ) -> str | None:
        """The `code` of a row as these sources would make it; None if they cannot.

        Args:
            module: The module of the workload (Workload.made_by).
            workload: Its name, by which tuning knows it.
            profile: Name of the sizes.
            page: The notebook, or "reference" for references and controls.
            strategy: None for the original and the retrained model.
        """
        if self.module(f"{PACKAGE}.workloads.{module}") is None:
            return None
        try:
            sizes = asdict(profiles.sizes_of(profile, workload, module.endswith(".published")))
        except ValueError:
            return None
        sizes.pop("seeds")  # how many rows there are changes none of them
        common = [self.rows_code(module), sizes]
        if strategy is None:
            return digest(common)
        own = self._own_parts(page, strategy, workload)
        return None if own is None else digest(common, *own)

    def _own_parts(self, page: str, strategy: str, workload: str) -> tuple | None:
        place = self.place_of(page, strategy)
        if place is None:
            return None
        mark = self.mark_of(place)
        roots = [place, *(MAKERS[r] for r in mark.reads if r in MAKERS)]
        return self.digest(roots), mark, self.tuned(page, strategy, workload)

    def strategy_code(self, page: str, strategy: str, workload: str) -> str | None:
        """Hash of a strategy's own part of its rows' code; None if no page defines it."""
        own = self._own_parts(page, strategy, workload)
        return None if own is None else digest(own)


@cache
def sources() -> Sources:
    """The sources that this process was started with."""
    return Sources()


def _git(*arguments: str) -> str | None:
    """What git prints, run in the project; None where it says no."""
    try:
        ran = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
        )
    except (OSError, UnicodeDecodeError):
        return None
    return ran.stdout if ran.returncode == 0 else None


def at_head() -> Sources | None:
    """The sources as they were last committed; None where git cannot tell."""
    where = "--", PACKAGE, "notebooks"
    changed = _git("diff", "--name-only", "-z", "HEAD", *where)
    new = _git("ls-files", "--others", "--exclude-standard", "-z", *where)
    head = _git("rev-parse", "HEAD")
    if None in (changed, new, head):
        return None
    names = {name for name in f"{changed}{new}".split("\0") if name}
    return _committed_sources(head.strip(), frozenset(names)) if names else sources()


@lru_cache(maxsize=4)
def _committed_sources(head: str, names: frozenset[str]) -> Sources:
    return Sources(instead={ROOT / name: _git("show", f"{head}:{name}") for name in names})


# ------------------------------------------------------------------ code that runs


def committed(function: Callable, page: str) -> bool:
    """Whether a strategy that runs is the one that the page's file holds, helpers included.

    A cell may have been edited and run without being saved, or saved after the run.
    """
    place = sources().place_of(page, function.__name__)
    if place is None or sources().mark_of(place) != _live_mark(function):
        return False
    if not place[0].startswith(PAGE):
        # Of the package: what was imported is what was read.
        return _target(Reference(*place)) is function
    if function.__closure__:
        return False  # no definition of a page is inside another function
    file = sources().module(place[0])
    names = {name for module, name in sources().closure([place]) if module == place[0]}
    scope = function.__globals__
    for name in names:
        if _live_text(scope.get(name), name) != file.text(name):
            return False
        for wanted in file.taken(name):
            same = (_bound_as_imported(scope, k, v) for k, v in file.imports.items() if v == wanted)
            if not all(same):
                return False
            if wanted.module == file.name and wanted.name not in file.nodes:
                # Neither of the page nor imported: a built-in, unless something hides it.
                built_in = getattr(builtins, wanted.name, None)
                if scope.get(wanted.name, built_in) is not built_in:
                    return False
    return True


def _bound_as_imported(scope: dict, name: str, reference: Reference) -> bool:
    return name in scope and scope[name] is _target(reference)


def _live_mark(function: Callable) -> Mark:
    facts = function.facts
    return Mark(facts.category, facts.declared, facts.departures, facts.product)


def _target(reference: Reference) -> Any:
    """What an import statement binds."""
    module = importlib.import_module(reference.module)
    if not reference.name:
        return module
    if hasattr(module, reference.name):
        return getattr(module, reference.name)
    return importlib.import_module(f"{reference.module}.{reference.name}")


@lru_cache(maxsize=64)
def _parsed(text: str) -> ast.AST | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _text_around(function: types.FunctionType) -> str:
    """The text that a function was compiled from: its cell, the exported cells, or its file."""
    if "__exported__" in function.__globals__:  # the file may have been exported anew since
        return function.__globals__["__exported__"]
    file = function.__code__.co_filename
    linecache.checkcache(file)
    return "".join(linecache.getlines(file, function.__globals__))


def _first_line(node: ast.AST) -> int:
    return min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])


def _live_node(item: Any, name: str) -> ast.AST | None:
    """The syntax tree of a function or class that runs, from the cell or file it came from."""
    if isinstance(item, type):
        return _live_class(item, name)
    if not isinstance(item, types.FunctionType):
        return None
    item = inspect.unwrap(item)
    tree, line = _parsed(_text_around(item)), item.__code__.co_firstlineno
    for node in ast.walk(tree) if tree is not None else ():
        if getattr(node, "name", None) == item.__name__ and _first_line(node) == line:
            return node
    try:  # a lambda has no name of its own
        return ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def _live_class(item: type, name: str) -> ast.AST | None:
    """The same of a class: a kernel keeps no file of it, but its methods know their cell."""
    for value in vars(item).values():
        method = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
        if not isinstance(method, types.FunctionType) or method.__module__ != item.__module__:
            continue
        tree, line = _parsed(_text_around(method)), method.__code__.co_firstlineno
        for node in ast.walk(tree) if tree is not None else ():
            named = isinstance(node, ast.ClassDef) and node.name == item.__name__
            if named and node.lineno <= line <= node.end_lineno:
                return node
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    except (OSError, TypeError, SyntaxError):
        pass
    # One without methods may be of any cell that has a class of this name.
    cells = [key for key, entry in linecache.cache.items() if len(entry) == 4 and entry[1] is None]
    trees = filter(None, (_parsed("".join(linecache.getlines(cell))) for cell in cells))
    found = [n for t in trees for n in t.body if isinstance(n, ast.ClassDef) and n.name == name]
    return found[0] if len(set(map(bare, found))) == 1 else None


def _live_text(item: Any, name: str) -> str | None:
    node = _live_node(item, name)
    return None if node is None else bare(node)


def live_code(function: Callable) -> str:
    """Hash of a strategy that is in no file as it runs: its sources, constants and helpers.

    What cannot be hashed makes the hash different each time, so that no row of it is ever
    taken for up to date.
    """
    seen: dict[tuple[str, int], Any] = {}  # by name and object: one name may have two
    taken: set[Reference] = set()

    def visit(name: str, item: Any, scope: dict) -> None:
        which = name, id(item)
        if which in seen:
            return
        seen[which] = None
        home = getattr(item, "__module__", None) or ""
        if not isinstance(item, (types.FunctionType, types.BuiltinFunctionType, type)):
            seen[which] = _constant(item)
        elif home != function.__module__:
            seen[which] = f"{home}.{item.__qualname__}"
            taken.add(Reference(home, item.__qualname__.partition(".")[0]))
        elif (node := _live_node(item, name)) is None:
            seen[which] = secrets.token_hex(8)
        else:
            seen[which] = bare(node)
            follow(node, {**scope, **_enclosed(item)})

    def follow(node: ast.AST, scope: dict) -> None:
        here = Module("", "")
        for name, item in scope.items():
            if isinstance(item, types.ModuleType):
                here.imports[name] = Reference(item.__name__, "")
        for wanted in names_taken(node, here):
            if wanted.module:
                taken.add(wanted)
            elif wanted.name in scope:
                visit(wanted.name, scope[wanted.name], scope)

    visit(function.__name__, function, function.__globals__)
    roots = [each for each in taken if any(sources()._resolved(each))]
    files = {each.module: _own_file(each.module) for each in taken}
    texts = sorted(((name, text) for (name, _), text in seen.items()), key=repr)
    parts = texts, sorted(map(tuple, taken)), sorted(files.items())
    return digest(*parts, sources().digest(roots), _live_mark(function))


def _enclosed(item: Any) -> dict[str, Any]:
    """What a function takes from the function around it."""
    item = inspect.unwrap(item) if isinstance(item, types.FunctionType) else None
    if item is None or not item.__closure__:
        return {}
    return inspect.getclosurevars(item).nonlocals


def _own_file(module: str) -> str:
    """Hash of a module's file, where it is one of the user's own; "" for what is installed."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    ours = module == PACKAGE or module.startswith(f"{PACKAGE}.")  # known by its sources
    if ours or not file.endswith(".py") or any(map(Path(file).is_relative_to, installed)):
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _constant(item: Any) -> Any:
    """A constant as something to hash; what has no stable text is new each time."""
    if item is None or isinstance(item, (bool, int, float, complex, str, bytes)):
        return repr(item)
    if isinstance(item, (list, tuple)):
        return [type(item).__name__, *map(_constant, item)]
    if isinstance(item, (set, frozenset)):
        return [type(item).__name__, *sorted(repr(_constant(each)) for each in item)]
    if isinstance(item, dict):
        return [(_constant(key), _constant(value)) for key, value in item.items()]
    if isinstance(item, (types.FunctionType, types.BuiltinFunctionType, type)):
        return secrets.token_hex(8)
    if hasattr(item, "tolist") and hasattr(item, "dtype"):
        return [str(item.dtype), list(item.shape), _constant(item.tolist())]
    return secrets.token_hex(8)
