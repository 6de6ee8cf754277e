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
import copy
import hashlib
import importlib
import inspect
import json
import linecache
import secrets
import symtable
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cache
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
    """A syntax tree as text: without docstrings, strategies' marks and places in the file.

    Not `ast.dump`, which writes one tree in different ways from version to version. What a
    mark says that can change a row is hashed by itself (`Mark`): the settings to try and the
    reference are in it, too, and no row depends on these.
    """
    if isinstance(node, list):
        return f"[{','.join(map(bare, node))}]" if node else ""
    if not isinstance(node, ast.AST):
        return "" if node is None else repr(node)
    parts = dict(ast.iter_fields(node))
    if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
        parts["body"] = node.body[1:]
    if "decorator_list" in parts:
        parts["decorator_list"] = [d for d in node.decorator_list if not _is_mark(d)]
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
    plain = lambda name, default: ast.literal_eval(given[name]) if name in given else default
    departures = tuple(plain("departures", ()))
    return Mark(plain("category", ""), tuple(plain("reads", ())), departures, plain("product", ""))


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
        self._taken: dict[str, set[Reference]] = {}
        self.tree = ast.parse(text)
        for node in self.tree.body:
            self._enter(node)

    def _enter(self, node: ast.AST) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.imports.update(self.bound(node))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.nodes.setdefault(node.name, []).append(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        self.nodes.setdefault(part.id, []).append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pass  # types are not run
        elif not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            self.loose.append(node)

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
        return {wanted for node in nodes for _, wanted in self.bound(node)}

    def text(self, name: str) -> str:
        """What a name is bound to, as a hashable text."""
        return "\n".join(map(bare, self.nodes.get(name, ())))

    def taken(self, name: str) -> set[Reference]:
        """What the definition of a name takes from elsewhere in this module or another."""
        if name not in self._taken:
            nodes = self.nodes.get(name, ())
            self._taken[name] = set().union(*(names_taken(n, self) for n in nodes))
        return self._taken[name]


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


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _outer_names(source: str) -> set[str]:
    """Names that a piece of code takes from outside of its own functions."""
    top, *inner = _tables(symtable.symtable(source, "definition", "exec"))
    found = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    for table in inner:
        symbols = table.get_symbols()
        found |= {s.get_name() for s in symbols if s.is_global() and s.is_referenced()}
    return found


def names_taken(node: ast.AST, module: Module) -> set[Reference]:
    """What a definition names: `clone` here, `training.clone`, or an import inside it.

    A name that a string makes (`getattr`, `import_module`) is not seen.
    """
    source = ast.unparse(_Running().visit(copy.deepcopy(node)))
    outer, tree = _outer_names(source), ast.parse(source)
    inside: dict[str, Reference] = {}
    for part in ast.walk(tree):
        if isinstance(part, (ast.Import, ast.ImportFrom)):
            inside.update(module.bound(part))
    imported = lambda name: (
        inside.get(name) or (module.imports.get(name) if name in outer else None)
    )
    found, chained = set(), set()
    for part in ast.walk(tree):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            where = imported(part.value.id)
            if where is not None:
                chained.add(id(part.value))
                # `where` may be a module of this name, or a name in one: both are tried.
                found |= {where, Reference(".".join(filter(None, where)), part.attr)}
    for part in ast.walk(tree):
        if isinstance(part, ast.Name) and id(part) not in chained:
            where = imported(part.id)
            if where is not None:
                found |= {where, Reference(".".join(filter(None, where)), "*")}
            elif part.id in outer:
                found.add(Reference(module.name, part.id))
    return found


# ------------------------------------------------------------------ the sources


class Sources:
    """The package's modules and the pages' tagged cells, as they are in their files.

    The package is read at once, so that a process that runs for hours goes on to know the
    code that it loaded, whatever is edited meanwhile.

    Args:
        root: The project, for its notebooks.
        package: The package's folder; by default the one that runs.
    """

    def __init__(self, root: str | Path = ROOT, package: str | Path | None = None):
        self.root, folder = Path(root), Path(package or ROOT / PACKAGE)
        self._texts: dict[str, tuple[str, bool]] = {}
        self._pages: dict[str, str] = {}
        self._tuned: dict[str, dict] = {}
        self._modules: dict[str, Module] = {}
        self._digests: dict[frozenset, str] = {}
        for path in sorted(folder.rglob("*.py")):
            place = (PACKAGE, *path.relative_to(folder).with_suffix("").parts)
            is_package = place[-1] == "__init__"
            name = ".".join(place[:-1] if is_package else place)
            self._texts[name] = path.read_text("utf-8"), is_package
        self.look()

    def look(self) -> None:
        """Read the pages and the tuned settings again: both may be edited while a kernel runs."""
        folder = self.root / "notebooks"
        found = {PAGE + p.stem: p.read_text("utf-8") for p in folder.glob("[!.]*.ipynb")}
        self._tuned = {}
        for path in (folder / "tuned").glob("[!.]*.json"):
            try:
                self._tuned[path.stem] = json.loads(path.read_text("utf-8"))
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

    def _resolved(self, wanted: Reference) -> Iterator[Name]:
        """The definitions that a reference means: one, all of a module (`*`), or none."""
        module = self.module(wanted.module)
        if module is None:
            return
        if wanted.name == "*":
            yield from ((module.name, name) for name in module.nodes)
        elif wanted.name in module.nodes:
            yield module.name, wanted.name
        elif wanted.name in module.imports:  # handed on from another module
            yield from self._resolved(module.imports[wanted.name])

    def closure(self, roots: Iterable[Name]) -> set[Name]:
        """Every definition that these depend on, themselves included."""
        found: set[Name] = set()
        waiting = [name for root in roots for name in self._resolved(Reference(*root))]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for wanted in self.module(name[0]).taken(name[1]):
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

    def pages_code(self) -> str:
        """Hash of all modules that a page depends on: what it shows, and what makes its rows."""
        waiting = [f"{PACKAGE}.book", *(module for module, _ in MAKERS.values())]
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
            sizes = asdict(profiles.sizes_of(profile, workload, module == "published"))
        except ValueError:
            return None
        sizes.pop("seeds")  # how many rows there are changes none of them
        common = [self.rows_code(module), sizes]
        if strategy is None:
            return digest(common)
        place = self.place_of(page, strategy)
        if place is None:
            return None
        mark = self.mark_of(place)
        roots = [place, *(MAKERS[r] for r in mark.reads if r in MAKERS)]
        return digest(common, self.digest(roots), mark, self.tuned(page, strategy, workload))


@cache
def sources() -> Sources:
    """The sources that this process was started with."""
    return Sources()


# ------------------------------------------------------------------ code that runs


def committed(function: Callable, page: str) -> bool:
    """Whether a strategy that runs is the one that the page's file holds, helpers included.

    A cell may have been edited and run without being saved, or saved after the run.
    """
    place = sources().place_of(page, function.__name__)
    if place is None or sources().mark_of(place) != _live_mark(function):
        return False
    if not place[0].startswith(PAGE):
        return True  # of the package: what was imported is what was read
    file = sources().module(place[0])
    names = {name for module, name in sources().closure([place]) if module == place[0]}
    imported = set()
    for name in names:
        for wanted in file.taken(name):
            imported |= {k for k, v in file.imports.items() if v == wanted}
    scope = function.__globals__
    return all(_live_text(scope.get(n), n) == file.text(n) for n in names) and all(
        _target(file.imports[n]) is scope.get(n, n) for n in imported
    )


def _live_mark(function: Callable) -> Mark:
    facts = function.facts
    return Mark(facts.category, facts.declared, facts.departures, facts.product)


def _target(reference: Reference) -> Any:
    """What an import statement binds."""
    if not reference.name:
        return importlib.import_module(reference.module)
    module = importlib.import_module(reference.module)
    if hasattr(module, reference.name):
        return getattr(module, reference.name)
    return importlib.import_module(f"{reference.module}.{reference.name}")


def _live_node(item: Any, name: str) -> ast.AST | None:
    """The syntax tree of a function or class that runs, from the cell or file it came from."""
    if not isinstance(item, (types.FunctionType, type)):
        return None
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    except (OSError, TypeError, SyntaxError):
        pass  # a class of a kernel has no source file; the cell that defined it is known
    for file in reversed(list(linecache.cache)):
        text = "".join(linecache.getlines(file))
        if f"class {name}" not in text:
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # a cell with a magic
        if found := [n for n in tree.body if getattr(n, "name", "") == name]:
            return found[-1]
    return None


def _live_text(item: Any, name: str) -> str | None:
    node = _live_node(item, name)
    return None if node is None else bare(node)


def live_code(function: Callable) -> str:
    """Hash of a strategy that is in no file as it runs: its sources, constants and helpers.

    What cannot be hashed makes the hash different each time, so that no row of it is ever
    taken for up to date.
    """
    seen: dict[str, Any] = {}
    roots: set[Name] = set()

    def visit(name: str, item: Any, scope: dict) -> None:
        if name in seen:
            return
        home = getattr(item, "__module__", None) or ""
        own = isinstance(item, (types.FunctionType, type)) and home == function.__module__
        if isinstance(item, types.ModuleType):
            seen[name] = item.__name__
        elif own:
            node = _live_node(item, name)
            seen[name] = secrets.token_hex(8) if node is None else bare(node)
            if node is not None:
                _follow(node, scope)
        elif isinstance(item, (types.FunctionType, type)) and home.startswith(f"{PACKAGE}."):
            seen[name] = home
            roots.add((home, item.__qualname__.partition(".")[0]))
        elif isinstance(item, (types.FunctionType, types.BuiltinFunctionType, type)):
            seen[name] = f"{home}.{item.__qualname__}"
        else:
            seen[name] = _constant(item)

    def _follow(node: ast.AST, scope: dict) -> None:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name in sorted(names & scope.keys()):
            visit(name, scope[name], scope)
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                base = scope.get(part.value.id)
                if isinstance(base, types.ModuleType) and base.__name__.startswith(PACKAGE):
                    roots.add((base.__name__, part.attr))

    visit(function.__name__, function, function.__globals__)
    real = [r for r in roots if any(sources()._resolved(Reference(*r)))]
    return digest(sorted(seen.items()), sources().digest(real), _live_mark(function))


def _constant(item: Any) -> Any:
    """A constant as something to hash; what has no stable text is new each time."""
    if item is None or isinstance(item, (bool, int, float, complex, str, bytes)):
        return repr(item)
    if isinstance(item, (list, tuple)):
        return [type(item).__name__, *map(_constant, item)]
    if isinstance(item, (set, frozenset)):
        return [type(item).__name__, *sorted(map(repr, item))]
    if isinstance(item, dict):
        return [(repr(key), _constant(value)) for key, value in item.items()]
    if hasattr(item, "numpy") and hasattr(item, "detach"):
        value = item.detach().cpu().numpy()
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    return secrets.token_hex(8)
