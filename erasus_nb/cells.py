"""A notebook's tagged cells as a module: `load("gradient").scrub`.

The cells tagged `setup` and `strategy` are exported to `_build/cells/<name>.py` and imported
from there, so that tests, tracebacks, coverage and type checkers see an ordinary file.
`python -m erasus_nb.cells` exports every notebook.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import functools
import importlib.util
import inspect
import json
import shutil
import symtable
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import yaml

from . import ROOT, records

NOTEBOOKS = ROOT / "notebooks"
EXPORTS = ROOT / "_build" / "cells"

#: Lines a reader takes in at once; a longer cell usually hides a function.
LONGEST_CELL = 40
#: Tags of cells that the page shows folded or not at all.
HIDDEN = {"hide-input", "remove-input", "remove-cell"}
#: A strategy does not see its score, and needs nothing that measures, shows or stores results.
KEPT_FROM_STRATEGIES = (
    *("metrics", "measuring", "score", "benchmark", "tuning", "records", "writer", "selection"),
    *("charts", "tables", "book"),
)

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


def _chapters(toc: object) -> Iterator[str]:
    """Every file that a table of contents names, at whatever depth."""
    if isinstance(toc, dict):
        yield from (toc[key] for key in ("root", "file") if key in toc)
    if isinstance(toc, (dict, list)):
        for part in toc.values() if isinstance(toc, dict) else toc:
            yield from _chapters(part)


def pages_in(folder: Path) -> list[str]:
    """The notebooks of a folder that are pages of the book, by name, sorted.

    These are what `_toc.yml` beside the folder lists: JupyterLab leaves `Untitled.ipynb`
    in the folder, and a reader notebooks of their own. Without that file, all are pages.
    """
    found = sorted(p.stem for p in folder.glob("[!.]*.ipynb"))
    toc = folder.parent / "_toc.yml"
    if not toc.is_file():
        return found
    listed = {
        name.removesuffix(".ipynb") for name in _chapters(yaml.safe_load(toc.read_text("utf-8")))
    }
    return [name for name in found if f"{folder.name}/{name}" in listed]


def strays_in(folder: Path) -> list[str]:
    """Names of the notebooks there that are no pages."""
    return sorted({p.stem for p in folder.glob("[!.]*.ipynb")} - set(pages_in(folder)))


def names() -> list[str]:
    """The pages there are, by name, sorted."""
    return pages_in(NOTEBOOKS)


def notebook(name: str) -> dict:
    """One notebook as committed.

    Raises:
        ValueError: there is no such notebook; the message says which there are.
    """
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        raise ValueError(f"there is no notebook {name!r}; there are {', '.join(names())}")
    return json.loads(path.read_text("utf-8"))


def text_of(cell: dict) -> str:
    """A cell's source as one string (the format also allows a list of lines)."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags_of(cell: dict) -> set[str]:
    """A cell's tags."""
    return set(cell["metadata"].get("tags", ()))


def code_cells(nb: dict) -> Iterator[tuple[int, dict]]:
    """Code cells with their place in the notebook, counted from 1."""
    for number, cell in enumerate(nb["cells"], 1):
        if cell["cell_type"] == "code":
            yield number, cell


def tagged(nb: dict) -> Iterator[tuple[int, str, str]]:
    """(place, tag, source) of the cells that make the module."""
    for number, cell in code_cells(nb):
        for tag in ("setup", "strategy"):
            if tag in tags_of(cell):
                yield number, tag, text_of(cell).rstrip()


def export(name: str, folder: Path | None = None) -> Path:
    """Write a notebook's tagged cells as a module and return its path.

    The file is left alone when it is up to date, and replaced in one step when it is not:
    two processes may export at once.

    Args:
        folder: Where to; EXPORTS if not given.

    Raises:
        RecordError: the folder cannot be written.
    """
    parts = [f'"""Tagged cells of notebooks/{name}.ipynb, exported by erasus_nb.cells."""']
    parts += [f"# cell {number}\n{source}" for number, _, source in tagged(notebook(name))]
    text, out = "\n\n\n".join(parts) + "\n", (folder or EXPORTS) / f"{name}.py"
    if not out.is_file() or out.read_text("utf-8") != text:
        records.write_text(out, text)
    return out


@functools.cache
def _elsewhere() -> Path:
    """A folder of this process for modules, where the project's cannot be written."""
    folder = Path(tempfile.mkdtemp(prefix="erasus-cells-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(name: str) -> ModuleType:
    """The tagged cells of a notebook as a module; loaded again only after they changed.

    Raises:
        ValueError: there is no such notebook.
    """
    try:
        path = export(name)
    except records.RecordError:  # a project that is mounted read-only, or another user's
        path = export(name, _elsewhere())
    text = path.read_text("utf-8")
    module = sys.modules.get(f"erasus_cells_{name}")
    if module is not None and getattr(module, "__exported__", None) == text:
        return module
    spec = importlib.util.spec_from_file_location(f"erasus_cells_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up here
    try:
        # Not through the loader: it trusts byte code of the same second and length, and a
        # cell that is edited and run again can be both.
        exec(compile(text, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[spec.name]
        raise
    module.__exported__ = text
    return module


def strategies(name: str) -> dict[str, Callable]:
    """The marked functions that a notebook defines, by name, in order of definition."""
    module = load(name)
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and hasattr(value, "facts")
        and value.__module__ == module.__name__
    }


# ------------------------------------------------------------------ the rules of a page


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _bound(source: str) -> set[str]:
    """Names that a cell defines or imports at its top level."""
    table = symtable.symtable(source, "cell", "exec")
    return {
        s.get_name()
        for s in table.get_symbols()
        if s.is_assigned() or s.is_imported() or s.is_namespace()
    }


def outer_names(source: str) -> set[str]:
    """Names that code takes from outside its own functions: globals and builtins."""
    top, *inner = _tables(symtable.symtable(source, "cell", "exec"))
    wanted = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    for table in inner:
        wanted |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return wanted


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported anywhere in a cell; `module.*` for a star import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def check(name: str) -> list[str]:
    """What breaks the rules of a page, a sentence each; an empty list is a healthy page.

    `setup` cells hold imports only. `strategy` cells define functions or classes only and
    use nothing but each other, `setup` imports and builtins: nothing from untagged cells or
    the parameters cell. Neither holds magics or imports what shows or scores results. No
    code cell in plain sight is longer than LONGEST_CELL lines.
    """
    nb, wrong, parsed = notebook(name), [], []
    for number, cell in code_cells(nb):
        lines = len(text_of(cell).rstrip().splitlines())
        if lines > LONGEST_CELL and not tags_of(cell) & HIDDEN:
            wrong.append(f"{name}, cell {number}: {lines} lines; at most {LONGEST_CELL}")
    for number, tag, source in tagged(nb):
        try:
            parsed.append((number, tag, source, ast.parse(source)))
        except SyntaxError as error:
            wrong.append(f"{name}, cell {number} ({tag}): not plain Python: {error.msg}")

    known = set(dir(builtins)).union(*(_bound(source) for _, _, source, _ in parsed))
    for number, tag, source, tree in parsed:
        where = f"{name}, cell {number} ({tag})"
        allowed = _IMPORTS if tag == "setup" else _DEFINITIONS
        what = "imports" if tag == "setup" else "functions or classes"
        wrong += [
            f"{where}: line {node.lineno} is not one of {what}"
            for node in tree.body
            if not isinstance(node, allowed)
        ]
        for imported in _imports(tree):
            if imported.endswith(".*"):
                wrong.append(f"{where}: imports {imported}; name what is used")
            if imported.startswith("erasus_nb") and set(imported.split(".")) & set(
                KEPT_FROM_STRATEGIES
            ):
                wrong.append(f"{where}: imports {imported}, which a strategy may not see")
        strange = sorted(outer_names(source) - known)
        if strange:
            wrong.append(f"{where}: uses {', '.join(strange)} from outside the tagged cells")
    return wrong


if __name__ == "__main__":
    for each in names():
        print(export(each).relative_to(ROOT))
