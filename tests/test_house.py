"""The shape of the house: no circle among modules, nothing measured that looks at what is shown,
one layout, and no workload named outside of its place."""

from __future__ import annotations

import ast
import graphlib
import io
import re
import subprocess
import sys
import tokenize

import pytest

from erasus_nb import ROOT, cells, keys
from erasus_nb.profiles import WORKLOADS
from erasus_nb.workloads import TAKES_PUBLISHED

PACKAGE = keys.PACKAGE
#: What shows results; a row must not depend on any of it.
SHOWING = ("__main__", "book", "charts", "moving", "references", "runner", "score", "selection")
SHOWING += ("sphinx_runs", "sweeps", "tables")
#: Beside what rows depend on, what keeps them.
KEEPING = ("cache", "locks", "writer", "clock")


def modules(sources: keys.Sources) -> list[str]:
    return [name for name in sources._texts if not name.startswith(keys.PAGE)]


def imports(sources: keys.Sources) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports: inside of functions and for types
    too."""
    graph = {}
    for name in modules(sources):
        named = {
            path
            for wanted in sources.module(name).everything_imported()
            for path in (wanted.module, ".".join(filter(None, wanted)))
        }
        graph[name] = (named & set(modules(sources))) - {name, PACKAGE}
    return graph


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports(keys.sources())


def test_every_module_of_the_package_is_looked_at(graph):
    files = [p for p in (ROOT / PACKAGE).rglob("*.py") if "__pycache__" not in p.parts]
    assert len(graph) == len(files) > 30
    assert f"{PACKAGE}.score" in graph[f"{PACKAGE}.benchmark"]  # inside of a function
    assert f"{PACKAGE}.workloads.base" in graph[f"{PACKAGE}.provenance"]  # for types


def test_no_modules_import_each_other_in_a_circle(graph):
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "text",
    [
        "from .two import a",
        "from . import two",
        "import erasus_nb.two",
        "def f():\n    from .two import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .two import a",
        "try:\n    from .two import a\nexcept ImportError:\n    pass",
        "class A:\n    from .two import a",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(tmp_path, text):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "one.py").write_text(text)
    (tmp_path / "package" / "two.py").write_text("from .one import b")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(imports(keys.Sources(tmp_path, tmp_path / "package"))).prepare()


def measuring() -> set[str]:
    """The modules of everything that can change a row, and of what keeps rows."""
    sources = keys.sources()
    makers = [*keys.MAKERS.values(), (f"{PACKAGE}.controls", "*")]
    for name in (*WORKLOADS, *(f"{workload}.published" for workload in TAKES_PUBLISHED)):
        makers.append((f"{PACKAGE}.workloads.{name}", "make"))
    found = {module for module, _ in sources.closure([keys.ROWS, keys.MODELS, *makers])}
    return found | {f"{PACKAGE}.{name}" for name in KEEPING}


def test_what_measures_knows_nothing_of_what_shows(graph):
    showing = {f"{PACKAGE}.{name}" for name in SHOWING}
    assert showing <= graph.keys()
    for module in measuring():
        reached, waiting = set(), [module]
        while waiting:
            name = waiting.pop()
            waiting += graph[name] - reached
            reached |= graph[name]
        assert not reached & showing, f"{module} knows of {sorted(reached & showing)}"
        assert not any(name.endswith(".pictures") for name in reached), module


def test_pictures_are_found_by_name_and_imported_by_nobody(graph):
    pictures = {name for name in graph if name.endswith(".pictures")}
    assert len(pictures) == 4
    assert not {name for name, wanted in graph.items() if wanted & pictures}


def test_every_python_file_has_the_one_layout():
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


# ------------------------------------------------------------------ names of workloads

NAMED = re.compile(rf"""(["'`])({"|".join(WORKLOADS)})\1""")
#: Of the format of notebooks, which calls what was printed so.
FORMAT = 'output["text"]', '{**output, "text": rest}'
#: What names a page; a page and a workload may share a name.
OF_PAGES = 'book.start("', 'tuned("', "_ORDER = ("


def named(source: str) -> list[str]:
    """Lines of code and comments that name a workload in quotes.

    What a strategy's mark says of its departures is prose: a page prints it.
    """
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.keyword) and node.arg == "departures"
        for line in range(node.lineno, node.end_lineno + 1)
    }
    found, lines = [], source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL) or token.start[0] in prose:
            continue
        line = lines[token.start[0] - 1] if token.start[0] <= len(lines) else ""
        if NAMED.search(token.string) and not any(each in line for each in FORMAT + OF_PAGES):
            found.append(line.strip())
    return found


def test_names_are_found_where_they_stand():
    first = WORKLOADS[0]
    for line in (
        f'x = "{first}"',
        f"x = '{first}'",
        f"x = 1  # on `{first}`",
        f'"""Of `{first}`."""',
    ):
        assert named(line) == [line]
    assert not named(f"x = {first!r} + 1".replace("'", "")) and not named(f'x = "{first}s"')
    mark = (
        f'@strategy(\n    reads=(),\n    departures=("On `{first}` it differs.",),\n)\ndef f(): ...'
    )
    assert not named(mark)


def test_no_line_of_the_package_names_a_workload_outside_of_its_place():
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        place = path.relative_to(ROOT / PACKAGE)
        if place.parts[0] != "workloads" and place.name != "profiles.py":
            found[str(place)] = named(path.read_text("utf-8"))
    assert not {place: lines for place, lines in found.items() if lines}


@pytest.mark.parametrize("page", cells.names())
def test_no_code_of_a_page_names_a_workload(page):
    wrong = []
    for number, cell in cells.code_cells(cells.notebook(page)):
        wrong += [f"cell {number}: {line}" for line in named(cells.text_of(cell))]
    assert not wrong
