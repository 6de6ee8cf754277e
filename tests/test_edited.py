"""Code that runs in a kernel and is not what the page's file holds, and ideas of one's own."""

from __future__ import annotations

import ast
import json
import re
import sys
import traceback
import types
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from ipykernel.compiler import XCachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from erasus_nb import ROOT, book, cells, keys, selection, training
from erasus_nb.benchmark import Bench
from erasus_nb.progress import BATCH


class Kernel:
    """Runs cells as a Jupyter kernel does: each is compiled under a name of its own."""

    def __init__(self, page: str = ""):
        shell = InteractiveShell(
            user_module=types.ModuleType("a_kernel"),
            config=Config(HistoryManager={"enabled": False}),
        )
        shell.compile = XCachingCompiler()
        self.shell = shell
        sources = [source for *_, source in cells.tagged(cells.notebook(page))] if page else []
        for source in sources:
            self.run(source)

    def run(self, source: str) -> None:
        self.shell.run_cell(source).raise_error()

    def edit(self, page: str, old: str, new: str) -> None:
        """Run the cell that holds a text again, edited."""
        sources = [source for *_, source in cells.tagged(cells.notebook(page)) if old in source]
        assert sources, f"{old!r} is in no tagged cell of {page}"
        self.run(sources[0].replace(old, new, 1))

    def __getitem__(self, name: str):
        return self.shell.user_ns[name]


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A function that starts a kernel, with a page's tagged cells run."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    for name in ("displayhook", "excepthook", "ps1", "ps2", "ps3"):
        monkeypatch.setattr(sys, name, getattr(sys, name, None), raising=False)
    monkeypatch.delitem(sys.modules, "a_kernel", raising=False)
    yield Kernel


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("synthetic", "smoke", (0,), cache="", out=None)


def committed_code(name: str, page: str) -> str:
    return keys.sources().row_code("synthetic", "synthetic", "smoke", page, name)


# ------------------------------------------------------------------ the page's own cells


@pytest.mark.parametrize("page", selection.categories(ROOT))
def test_unchanged_cells_are_the_file_in_a_kernel_and_as_a_module(kernel, bench, page):
    ran = kernel(page)
    for name, function in cells.strategies(page).items():
        for live in (ran[name], function):
            assert keys.committed(live, page), name
            assert bench.code_of(live, None) == (committed_code(name, page), False), name


EDITS = {
    "a strategy": ("gradient", "scrub", "pair = student,", "pair = student.eval(),"),
    "its defaults": ("gradient", "scrub", "lr=5e-4", "lr=6e-4"),
    "a helper": ("gradient", "scrub", "gaps.index(min(gaps))", "gaps.index(max(gaps))"),
    "a helper's helper": ("gradient", "scrub", ".mean().item()", ".sum().item()"),
    "a decorator": ("gradient", "scrub", "@torch.no_grad()", "@torch.inference_mode()"),
    "an import": ("gradient", "scrub", "import copy", "import pickle as copy"),
    "what it reads": (
        *("gradient", "scrub", 'reads=("forget", "retain", "validation")'),
        'reads=("forget", "retain", "validation", "forgotten class")',
    ),
    "a product": ("gradient", "scrub", 'needs=("outputs",),', 'needs=("outputs",), product="x",'),
    "a departure": ("gradient", "scrub", "The step size is constant; the", "The"),
    "a class": ("llm", "embedding_alignment", "super().__init__()", "super().__init__(); 1"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_shows_and_shows_no_more_when_it_is_undone(kernel, bench, what):
    page, name, old, new = EDITS[what]
    ran, plain = kernel(page), (committed_code(name, page), False)
    assert bench.code_of(ran[name], None) == plain
    ran.edit(page, old, new)
    assert not keys.committed(ran[name], page)
    code, edited = bench.code_of(ran[name], None)
    assert edited and code != plain[0]
    assert bench.code_of(ran[name], None) == (code, True), "the same edit has the same code"
    ran.edit(page, old, old)
    assert bench.code_of(ran[name], None) == plain


def test_every_edit_has_a_code_of_its_own(kernel, bench):
    ran, codes = kernel("gradient"), set()
    for new in ("gaps.index(max(gaps))", "gaps.index(sum(gaps))", "len(gaps)"):
        ran.edit("gradient", "gaps.index(min(gaps))", new)
        codes.add(bench.code_of(ran["scrub"], None)[0])
    assert len(codes) == 3


def test_an_edit_leaves_strategies_alone_that_do_not_depend_on_it(kernel, bench):
    ran = kernel("gradient")
    ran.edit("gradient", "gaps.index(min(gaps))", "0")
    assert keys.committed(ran["gradient_ascent"], "gradient")
    assert bench.code_of(ran["gradient_ascent"], None) == (
        committed_code("gradient_ascent", "gradient"),
        False,
    )


def test_layout_comments_docstrings_and_the_settings_to_try_are_no_edit(kernel):
    ran = kernel("gradient")
    ran.edit("gradient", '"""Mean loss of a model on a batch, in nats."""', "# what it loses")
    ran.edit("gradient", "def scrub(", "def  scrub  (")
    ran.edit("gradient", "kurmanji2023scrub", "somebody2024")
    assert keys.committed(ran["scrub"], "gradient")


@pytest.mark.parametrize(
    ("how", "cell"),
    [
        ("an import is bound to something else", "training = object()"),
        ("an import is gone", "del training"),
        ("a helper is bound to something else", "rewound = lambda *_: 0"),
        ("a helper is gone", "del rewound"),
        ("a built-in is hidden", "min = max"),
    ],
)
def test_a_name_that_means_something_else_is_an_edit(kernel, how, cell):
    ran = kernel("gradient")
    ran.run("x = 1\nseeds = [3]")  # names of its own change nothing
    assert keys.committed(ran["scrub"], "gradient")
    ran.run(cell)
    assert not keys.committed(ran["scrub"], "gradient")


def test_a_new_constant_of_an_edited_strategy_is_part_of_its_code(kernel, bench):
    ran, codes = kernel("gradient"), []
    for value in (1, 2, 1):
        ran.run(f"SHIFT = {value}")
        ran.edit("gradient", "epochs - 1", "epochs - SHIFT")
        code, edited = bench.code_of(ran["scrub"], None)
        assert edited
        codes.append(code)
    assert codes[0] == codes[2] != codes[1]


def test_a_strategy_made_inside_of_a_function_is_no_strategy_of_the_page(kernel):
    ran = kernel("gradient")
    source = next(s for *_, s in cells.tagged(cells.notebook("gradient")) if "def scrub(" in s)
    inner = "\n".join(f"    {line}" for line in source.splitlines())
    ran.run(f"def make(copy):\n{inner}\n    return scrub\nscrub = make(copy)")
    assert not keys.committed(ran["scrub"], "gradient")


def test_a_copy_of_a_control_is_not_the_control(kernel):
    from erasus_nb import controls

    assert keys.committed(controls.fine_tune, "control")
    ran = kernel()
    ran.run(
        "from erasus_nb.strategy import Unlearned, strategy\nimport copy\n"
        '@strategy(category="Control", cite="", reads=("retain",))\n'
        "def fine_tune(model, forget, retain, task, *, share=0.25, seed=0):\n"
        "    return Unlearned(copy.deepcopy(model))"
    )
    assert not keys.committed(ran["fine_tune"], "control")


def test_a_module_that_was_loaded_is_the_text_it_was_loaded_from(monkeypatch, tmp_path):
    """Another process may export the edited page to the very same file meanwhile."""
    root, name = tmp_path / "notebooks", "gradient"
    root.mkdir()
    notebook = cells.notebook(name)
    (root / f"{name}.ipynb").write_text(json.dumps(notebook), "utf-8")
    monkeypatch.setattr(cells, "NOTEBOOKS", root)
    monkeypatch.setattr(cells, "EXPORTS", tmp_path / "cells")
    sources = keys.Sources(tmp_path)
    monkeypatch.setattr(keys, "sources", lambda: sources)
    monkeypatch.delitem(sys.modules, f"erasus_cells_{name}", raising=False)
    scrub = cells.strategies(name)["scrub"]
    assert keys.committed(scrub, name)
    for cell in notebook["cells"]:
        source = cells.text_of(cell)
        cell["source"] = source.replace("epochs - 1", "epochs - 1 - 0")
    (root / f"{name}.ipynb").write_text(json.dumps(notebook), "utf-8")
    cells.export(name)
    keys.sources().look()
    assert not keys.committed(scrub, name)  # the file is newer than what runs
    monkeypatch.delitem(sys.modules, f"erasus_cells_{name}")


# ------------------------------------------------------------------ a page in a running kernel


@pytest.fixture
def opened(kernel, tmp_path, tmp_path_factory, monkeypatch):
    """A page's tagged cells and its `page`, run in a kernel at the smallest size."""
    monkeypatch.setenv("ERASUS_CACHE", str(tmp_path_factory.getbasetemp() / "book-cache"))
    monkeypatch.delenv(BATCH, raising=False)
    shown = []
    monkeypatch.setattr(book, "display", shown.append)

    def open_page(name: str, **given):
        ran, values = kernel(name), {"profile": "smoke", "seeds": 1, "out": str(tmp_path), **given}
        ran.run(f"from erasus_nb import book\npage = book.start({name!r}, {values!r})")
        ran.shown = shown
        return ran

    return open_page


def mistaken(page: str) -> str:
    """The cell to try your own in, with a mistake in the first line of its strategy."""
    source = next(s for s in all_code(page) if 'category="Yours"' in s)
    function = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    lines = source.splitlines()
    lines.insert(function.body[1].lineno - 1, f"    {MISTAKE}")
    return "\n".join(lines)


def all_code(page: str) -> list[str]:
    return [cells.text_of(cell) for _, cell in cells.code_cells(cells.notebook(page))]


MISTAKE = "model.no_such_layer"


@pytest.mark.parametrize("page", ["gradient", "parameter", "data"])
def test_a_mistake_in_your_own_strategy_shows_its_line_in_that_cell(opened, page):
    ran = opened(page)
    result = ran.shell.run_cell(mistaken(page))
    assert isinstance(result.error_in_exec, AttributeError)
    frames = traceback.extract_tb(result.error_in_exec.__traceback__)
    at = [n for n, frame in enumerate(frames) if frame.line == MISTAKE]
    assert at, "the line is not in the traceback"
    # Torch's own lines come after it; of this book only the page stands before it.
    own = [frame.filename for frame in frames if "erasus_nb" in frame.filename]
    assert {Path(name).name for name in own} == {"book.py"}
    # What Jupyter prints points at it.
    error = result.error_in_exec
    printed = "\n".join(
        ran.shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    )
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
    assert re.search(rf"-+> *\d+ +{re.escape(MISTAKE)}", plain)


def test_in_a_run_of_the_whole_book_a_mistake_is_a_row_and_the_page_goes_on(
    opened, monkeypatch, capsys
):
    ran = opened("gradient")
    monkeypatch.setenv(BATCH, "1")
    ran.run(mistaken("gradient"))
    assert "error: AttributeError" in str(ran.shown[-1].data)
    assert MISTAKE in capsys.readouterr().err


def test_an_edited_strategy_runs_again_alone_and_is_marked(opened, monkeypatch):
    ran = opened("gradient")
    for name in ("gradient_ascent", "scrub"):
        ran.run(f"page.run({name})")
    plain = ran["page"].board("synthetic")["scrub"].rm
    attempted, attempt = [], Bench.attempt
    monkeypatch.setattr(
        Bench,
        "attempt",
        lambda self, function, *rest: (
            attempted.append(function.__name__) or attempt(self, function, *rest)
        ),
    )
    ran.edit("gradient", "for epoch in range(epochs):", "for epoch in range(1):")
    ran.shown.clear()
    for name in ("gradient_ascent", "scrub"):
        ran.run(f"page.run({name})")
    assert attempted == ["scrub"]
    assert "scrub (edited)" in str(ran.shown[-1].data)
    assert "edited" not in str(ran.shown[0].data)
    board = ran["page"].board("synthetic")
    assert board["scrub"].edited and not board["gradient_ascent"].edited
    assert board["scrub"].rm != plain


def test_a_mistake_in_an_edited_strategy_is_a_row_and_its_lines_are_printed(opened, capsys):
    ran = opened("gradient")
    ran.edit("gradient", "pair = student,", "pair = model.no_such_layer,")
    ran.run("page.run(scrub)")
    assert "error: AttributeError" in str(ran.shown[-1].data)
    printed = capsys.readouterr().err
    assert "pair = model.no_such_layer," in printed and "measuring.py" not in printed


def test_its_lines_are_printed_as_jupyter_would(opened, monkeypatch, capsys):
    ran = opened("gradient")
    monkeypatch.setattr(book, "get_ipython", lambda: ran.shell)
    ran.edit("gradient", "pair = student,", "pair = model.no_such_layer,")
    ran.run("page.run(scrub)")
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().err)
    assert "`scrub`, as you edited it, failed" in printed
    assert re.search(r"-+> *\d+ .*pair = model.no_such_layer,", printed)
    assert "measuring.py" not in printed


def test_an_edited_default_wins_over_the_tuned_value_and_says_so(opened, monkeypatch):
    ran = opened("gradient")
    name = "gradient_ascent"
    chosen = ran["page"].benches["synthetic"].full_settings(ran[name])[0]
    assert chosen["epochs"] not in (3, 5)  # tuned
    ran.edit("gradient", "lr=1e-3, epochs=5, optimizer", "lr=1e-3, epochs=3, optimizer")
    ran.shown.clear()
    ran.run("page.run(gradient_ascent)")
    said = re.sub("</?code>", "`", ran.shown[-1].data)
    assert f"your edited default `epochs=3` is used in place of `epochs={chosen['epochs']}`" in said
    [row] = ran["page"].rows("synthetic", name)
    assert row.settings == {**chosen, "epochs": 3}
    board = ran["page"].board("synthetic")
    assert board[name].label == "gradient_ascent (your settings, edited)"
    ran.run("page.run(gradient_ascent, epochs=4)")
    assert ran["page"].rows("synthetic", name)[0].settings["epochs"] == 4
    monkeypatch.setenv(BATCH, "1")  # where nobody reads along, tuning holds
    ran.run("page.run(gradient_ascent)")
    assert ran["page"].rows("synthetic", name)[0].settings == chosen


def test_every_page_says_how_to_change_a_strategy_and_try_your_own_runs_in_its_cell():
    for page in selection.categories(ROOT):
        prose = [
            cells.text_of(c) for c in cells.notebook(page)["cells"] if c["cell_type"] == "markdown"
        ]
        [said] = [text for text in prose if text.startswith("## Try your own")]
        assert "its row is marked *edited*" in said
        assert "keep=False" in next(s for s in all_code(page) if 'category="Yours"' in s)


# ------------------------------------------------------------------ ideas of one's own

MARK = '@strategy(category="Yours", cite="", reads=("forget",))\n'
IDEA = MARK + "def mine(model, forget, retain, task, *, lr=0.1, seed=0):\n"
SETUP = "import copy, functools, math, torch\nfrom erasus_nb.strategy import Unlearned, strategy\n"


def code_with(ran: Kernel, *parts: str) -> str:
    for part in parts:
        ran.run(part)
    return keys.live_code(ran["mine"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("USED = 1", "USED = 2"),
        ("USED = 0.1", "USED = 0.2"),
        ("USED = (1, 'a')", "USED = [1, 'a']"),
        ("USED = {'a': (1, 2)}", "USED = {'a': (1, 3)}"),
        ("USED = {1, 2}", "USED = {1, 3}"),
        ("USED = None", "USED = False"),
        ("USED = torch.ones(3)", "USED = torch.zeros(3)"),
        ("USED = torch.ones(3)", "USED = torch.ones(3).double()"),
        ("USED = torch.ones(4)", "USED = torch.ones(2, 2)"),
        ("USED = torch.ones(3).bfloat16()", "USED = 2 * torch.ones(3).bfloat16()"),
        ("import numpy\nUSED = numpy.ones(3)", "import numpy\nUSED = numpy.zeros(3)"),
        ("def USED(): return 1", "def USED(): return 2"),
        ("USED = lambda: 1", "USED = lambda: 2"),
        ("class USED:\n    x = 1", "class USED:\n    x = 2"),
        ("class USED:\n    def f(self): return 1", "class USED:\n    def f(self): return 2"),
        ("DEEP = 1\ndef USED(): return DEEP", "DEEP = 2\ndef USED(): return DEEP"),
        ("def USED(x=1): return x", "def USED(x=2): return x"),
        ("from math import sin as USED", "from math import cos as USED"),
        ("import math as USED", "import cmath as USED"),
        (
            "from erasus_nb.training import clone as USED",
            "from erasus_nb.training import frozen as USED",
        ),
        (
            "def make(k):\n    def inner(): return k\n    return inner\nUSED = make(1)",
            "def make(k):\n    def inner(): return k\n    return inner\nUSED = make(2)",
        ),
        (
            "@functools.cache\ndef plain(): return 1\nUSED = [1]",
            "@functools.cache\ndef plain(): return 1\nUSED = [2]",
        ),
    ],
)
def test_what_an_idea_of_your_own_uses_is_part_of_its_code(kernel, one, other):
    ran = kernel()
    ran.run(SETUP)
    body = IDEA + "    USED\n    return Unlearned(copy.deepcopy(model))"
    first = code_with(ran, one, body)
    assert code_with(ran, one, body) == first
    assert code_with(ran, other, body) != first
    again = code_with(ran, one, body)
    # A class of a kernel that has no methods does not know its cell: it counts as new.
    assert again == first or one == "class USED:\n    x = 1"


def test_its_own_text_and_mark_are_part_of_its_code(kernel):
    ran = kernel()
    ran.run(SETUP)
    codes = {
        code_with(ran, cell)
        for cell in (
            IDEA + "    return Unlearned(copy.deepcopy(model))",
            IDEA + "    return Unlearned(copy.copy(model))",
            IDEA.replace("forget", "retain", 1) + "    return Unlearned(copy.deepcopy(model))",
            IDEA.replace('cite=""', 'cite="", product="x"', 1)
            + "    return Unlearned(copy.deepcopy(model))",
        )
    }
    assert len(codes) == 4


def test_what_it_does_not_use_is_no_part_of_its_code(kernel):
    ran = kernel()
    ran.run(SETUP + "class Thing: pass\nthing, x, losses = Thing(), 1, object()")
    body = IDEA + "    x, losses = 2, []\n    return Unlearned(copy.deepcopy(model), losses)"
    first = code_with(ran, body)
    assert code_with(ran, "thing = Thing()\nx = 5\nlosses = object()", body) == first


@pytest.mark.parametrize(
    "thing", ["object()", "torch.Generator()", "torch.nn.Linear(1, 1)", "[object()]", "{1: object}"]
)
def test_what_has_no_stable_text_makes_a_new_code_each_time(kernel, thing):
    ran = kernel()
    ran.run(SETUP + f"USED = {thing}")
    body = IDEA + "    USED\n    return Unlearned(copy.deepcopy(model))"
    assert code_with(ran, body) != code_with(ran, body)


def test_helpers_of_the_package_are_part_of_its_code(kernel, monkeypatch):
    """However they are reached: by name, through their module, inside of the function."""
    before = keys.sources()
    text, is_package = before._texts["erasus_nb.training"]
    changed = keys.Sources()
    changed._texts["erasus_nb.training"] = (
        text.replace("descending=True", "descending=False"),
        is_package,
    )
    ways = (
        "from erasus_nb.training import top_fraction\n" + IDEA + "    top_fraction",
        "from erasus_nb import training\n" + IDEA + "    training.top_fraction",
        "import erasus_nb.training\n" + IDEA + "    erasus_nb.training.top_fraction",
        IDEA + "    from erasus_nb.training import top_fraction\n    top_fraction",
        IDEA + "    from erasus_nb import training\n    training.top_fraction",
    )
    for way in ways:
        ran = kernel()
        first = code_with(ran, SETUP, way)
        with monkeypatch.context() as patch:
            patch.setattr(keys, "sources", lambda: changed)
            assert keys.live_code(ran["mine"]) != first, way
    ran = kernel()
    first = code_with(
        ran, SETUP + "from erasus_nb.training import clone", IDEA + "    clone(model)"
    )
    monkeypatch.setattr(keys, "sources", lambda: changed)
    assert keys.live_code(ran["mine"]) == first


def test_a_file_of_the_users_own_is_part_of_its_code(kernel, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    codes = set()
    for number in (1, 2):
        (tmp_path / "my_own_helpers.py").write_text(f"def helper(): return {number}\n")
        monkeypatch.delitem(sys.modules, "my_own_helpers", raising=False)
        for way in ("from my_own_helpers import helper\n", "import my_own_helpers as helper\n"):
            codes.add(code_with(kernel(), SETUP + way, IDEA + "    helper"))
    assert len(codes) == 4
    monkeypatch.delitem(sys.modules, "my_own_helpers")


def test_arrays_count_by_their_values():
    same = numpy.arange(6.0), torch.arange(6.0, dtype=torch.float64)
    assert keys._constant(same[0])[2] == keys._constant(same[1])[2]
    assert keys._constant(training.KEPT_NUMBERS) == repr(training.KEPT_NUMBERS)


# ------------------------------------------------------------------ from the kernel to the board


@pytest.fixture
def shown(monkeypatch):
    said = []
    monkeypatch.setattr(book, "display", lambda thing: said.append(thing))
    return said


def test_an_edited_strategy_has_a_mark_until_the_edit_is_undone(
    kernel, shown, tmp_path, monkeypatch
):
    monkeypatch.setenv("ERASUS_CACHE", str(tmp_path / "cache"))
    with_git(monkeypatch)  # as in a tree where nothing is uncommitted
    page = book.start("gradient", {"profile": "smoke", "seeds": 2, "out": str(tmp_path)})
    file = tmp_path / "smoke" / "synthetic" / "gradient.json"
    ran = kernel("gradient")
    page.run(ran["gradient_ascent"])
    others = json.loads(file.read_text("utf-8"))["rows"]

    ran.edit("gradient", 'first="min", rewind', 'first="max", rewind')
    page.run(ran["scrub"])
    rows = page.rows("synthetic", "scrub")
    assert [row.edited for row in rows] == [True, True] and all(row.made for row in rows)
    assert "scrub (edited)" in page._lines("scrub")
    assert page.board("synthetic")["scrub"].edited
    board = selection.load(tmp_path / "smoke", ROOT)
    kept = {row.strategy for document in board.documents["synthetic"] for row in document.rows}
    assert "scrub" not in kept and "gradient_ascent" in kept
    assert selection.EDITED in board.left_aside()

    ran.edit("gradient", 'first="min", rewind', 'first="min", rewind')
    page.run(ran["scrub"])
    again = page.rows("synthetic", "scrub")
    assert [row.edited for row in again] == [False, False]
    assert {row.code for row in again} == {committed_code("scrub", "gradient")}
    assert {row.key for row in again}.isdisjoint(row.key for row in rows)
    assert again[0].metrics != rows[0].metrics  # it was measured, not renamed
    assert "(edited)" not in page._lines("scrub")
    board = selection.load(tmp_path / "smoke", ROOT)
    assert not board.left_aside()
    assert json.loads(file.read_text("utf-8"))["rows"][: len(others)] == others


# ------------------------------------------------------------------ saved, and not committed


def with_git(monkeypatch, changed: str = "", new: str = "", head: str | None = None) -> None:
    """Let git say that these files differ from the last commit, which held the text `head`."""
    said = {"diff": changed, "ls-files": new, "rev-parse": f"{len(changed)}{new}{hash(head)}\n"}
    monkeypatch.setattr(keys, "_git", lambda what, *rest: said.get(what, head))


def uncommitted(page: str, name: str) -> bool:
    function = cells.strategies(page)[name]
    return Bench.uncommitted(SimpleNamespace(workload="synthetic"), function)


GRADIENT = "notebooks/gradient.ipynb\0"


def test_an_edit_that_was_saved_and_not_committed_is_known(monkeypatch):
    now = (ROOT / "notebooks" / "gradient.ipynb").read_text("utf-8")
    line = "student = training.clone(model)\\n"
    assert line in now.partition("def scrub(")[2]
    before, _, after = now.partition("def scrub(")
    after = after.replace(line, "student = training.clone(model) or model\\n", 1)
    with_git(monkeypatch, GRADIENT, head=f"{before}def scrub({after}")
    assert uncommitted("gradient", "scrub")
    assert not uncommitted("gradient", "gradient_ascent")
    assert not uncommitted("parameter", "lora")


def test_saved_prose_is_no_edit_and_a_page_of_no_commit_is_one(monkeypatch):
    now = (ROOT / "notebooks" / "gradient.ipynb").read_text("utf-8")
    with_git(monkeypatch, GRADIENT, head=now.replace("# Gradient:", "# Gradients:"))
    assert not uncommitted("gradient", "scrub")
    with_git(monkeypatch, new=GRADIENT)
    assert uncommitted("gradient", "scrub") and not uncommitted("parameter", "lora")


def test_where_git_cannot_tell_nothing_is_said(monkeypatch):
    monkeypatch.setattr(keys, "_git", lambda *given: None)
    assert not uncommitted("gradient", "scrub")
    with_git(monkeypatch)
    assert keys.at_head() is keys.sources()


def test_a_page_marks_what_is_not_committed(monkeypatch, tmp_path):
    monkeypatch.setattr(book, "display", lambda thing: None)
    monkeypatch.setattr(Bench, "uncommitted", lambda bench, function: True)
    given = {"profile": "smoke", "out": str(tmp_path), "seeds": 1, "strategies": "ensemble"}
    page = book.start("ensemble", given)
    page.run(cells.strategies("ensemble")["ensemble"])
    assert "ensemble (edited)" in page._lines("ensemble")
    rows = page.rows("synthetic", "ensemble")
    assert not any(row.edited for row in rows)  # it is what the file holds
