"""What invalidates a row: a line that it depends on, and nothing else."""

from __future__ import annotations

import ast
import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from erasus_nb import ROOT, keys
from erasus_nb.profiles import WORKLOADS


def strategies_of(sources: keys.Sources) -> set[tuple[str, str]]:
    """(page, name) of everything that has rows."""
    pages = [name for name in sources._texts if name.startswith(keys.PAGE)]
    found = {("reference", name) for name in sources.module("erasus_nb.controls").nodes}
    for page in pages:
        found |= {(page.removeprefix(keys.PAGE), name) for name in sources.module(page).nodes}
    return {(page, name) for page, name in found if sources.place_of(page, name)}


def rows_of(sources: keys.Sources) -> dict[tuple[str, str], str]:
    """(workload, name) -> the code of its rows, at laptop sizes; references by "original"."""
    codes = {}
    for workload in WORKLOADS:
        codes[workload, "original"] = sources.row_code(workload, workload, "laptop", "reference")
        for page, name in strategies_of(sources):
            codes[workload, name] = sources.row_code(workload, workload, "laptop", page, name)
    return codes


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "erasus_nb", folder / "erasus_nb", ignore=lambda *_: ["__pycache__"])
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="module", autouse=True)
def parsed_once():
    """A module is parsed once for all tests here: all but one are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "Module", cache(keys.Module))
        yield


def read(project: Path) -> keys.Sources:
    return keys.Sources(project, project / "erasus_nb")


@pytest.fixture(scope="module")
def before(project) -> dict[tuple[str, str], str]:
    found = rows_of(read(project))
    assert len(found) > 60 and None not in found.values()
    return found


def page_edit(old: str, new: str, cell_type: str = "code"):
    """An edit of the first cell of a notebook that holds a text."""

    def edit(text: str) -> str:
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == cell_type and old in source:
                cell["source"] = source.replace(old, new, 1)
                return json.dumps(notebook)
        raise AssertionError(f"{old!r} is in no cell")

    return edit


def line_edit(old: str, new: str):
    def edit(text: str) -> str:
        assert old in text, f"{old!r} is not there"
        return text.replace(old, new, 1)

    return edit


def invalidated(project: Path, before: dict, file: str, edit) -> set[tuple[str, str]]:
    """The rows whose code is another one after an edit."""
    path = project / file
    text = path.read_text("utf-8")
    try:
        path.write_text(edit(text), "utf-8")
        assert path.read_text("utf-8") != text
        after = rows_of(read(project))
    finally:
        path.write_text(text, "utf-8")
    assert after.keys() == before.keys()
    return {row for row in before if before[row] != after[row]}


# ------------------------------------------------------------------ nothing is invalidated

GRADIENT = "notebooks/gradient.ipynb"
SILENT = {
    "a docstring of a page's helper": (
        GRADIENT,
        page_edit('"""Mean loss of a model on a batch, in nats."""', '"""Another sentence."""'),
    ),
    "a docstring of a module": (
        "erasus_nb/measuring.py",
        line_edit('"""From a workload', '"""Of a workload'),
    ),
    "a docstring of a class": (
        "erasus_nb/measuring.py",
        line_edit('"""Runs a strategy', '"""Takes a strategy'),
    ),
    "a comment": (
        "erasus_nb/training.py",
        line_edit("    chosen[torch.argsort", "    # a comment\n    chosen[torch.argsort"),
    ),
    "the layout": (
        "erasus_nb/training.py",
        line_edit(
            "count = count_of(fraction, len(flat))", "count = count_of(\n fraction,\n len(flat))"
        ),
    ),
    "types of arguments": (
        "erasus_nb/training.py",
        line_edit(
            "def count_of(fraction: float, total: int) -> int:", "def count_of(fraction, total):"
        ),
    ),
    "the settings to try": (GRADIENT, page_edit("dict(lr=1e-3), ", "dict(lr=9e-3), ")),
    "the reference of a mark": (GRADIENT, page_edit("kurmanji2023scrub", "somebody2024")),
    "what a mark needs": (GRADIENT, page_edit('needs=("outputs",)', 'needs=("labels",)')),
    "prose of a page": (GRADIENT, page_edit("the", "THE", "markdown")),
    "a cell without a tag": (GRADIENT, page_edit("page.", "x = 1\npage.")),
    "charts": ("erasus_nb/charts/boards.py", lambda text: text + "\nNEW = 1\n"),
    "the book": ("erasus_nb/book.py", lambda text: text + "\nimport time\ntime.sleep(0)\n"),
    "the score": ("erasus_nb/score.py", lambda text: text + "\nNEW = 1\n"),
    "pictures": ("erasus_nb/workloads/text/pictures.py", lambda text: text + "\nNEW = 1\n"),
    "the runner": ("erasus_nb/runner.py", lambda text: text + "\nNEW = 1\n"),
    "the keys themselves": (
        "erasus_nb/keys.py",
        line_edit('PAGE = "notebooks."', 'PAGE = "notebooks.."'),
    ),
}


@pytest.mark.parametrize("what", SILENT)
def test_what_can_change_no_number_invalidates_no_row(project, before, what):
    assert invalidated(project, before, *SILENT[what]) == set()


# ------------------------------------------------------------------ exactly what depends on it


def of(*names: str) -> set[tuple[str, str]]:
    return {(workload, name) for workload in WORKLOADS for name in names}


PARAMETER, LLM = "notebooks/parameter.ipynb", "notebooks/llm.ipynb"
CONTROLS, TRAINING = "erasus_nb/controls.py", "erasus_nb/training.py"
PROVENANCE, METRICS = "erasus_nb/provenance.py", "erasus_nb/metrics.py"
CLASSIFIERS = {"digits", "synthetic"}
EXACT = {
    "a line of one strategy": (
        GRADIENT,
        page_edit("best = rewound(kept, task, forget)", "best = 1 + rewound(kept, task, forget)"),
        of("scrub"),
    ),
    "a default of one strategy": (GRADIENT, page_edit("lr=5e-4", "lr=6e-4"), of("scrub")),
    "a departure": (
        GRADIENT,
        page_edit("The step size is constant; the official", "Constant; the official"),
        of("scrub"),
    ),
    "what a strategy reads": (
        GRADIENT,
        page_edit('reads=("retain inputs", "forgotten class")', 'reads=("retain inputs",)'),
        of("fisher_forgetting"),
    ),
    "a page's helper of two": (
        GRADIENT,
        page_edit(
            "task.example_loss(model, batch).mean().item()",
            "task.example_loss(model, batch).sum().item()",
        ),
        of("gradient_ascent", "scrub"),
    ),
    "a helper's helper": (
        GRADIENT,
        page_edit("(p - start).square().sum()", "(p - start).abs().sum()"),
        of("negative_gradient"),
    ),
    "a decorator of a helper": (
        PARAMETER,
        page_edit("@torch.no_grad()\ndef share_below", "@torch.enable_grad()\ndef share_below"),
        of("sparse_aware"),
    ),
    "a class of a page": (
        LLM,
        page_edit("class Reader(nn.Module):", "class Reader(nn.Module, object):"),
        of("embedding_alignment"),
    ),
    "a helper of the package": (
        TRAINING,
        line_edit("descending=True", "descending=False"),
        of(
            *("ensemble", "saliency_unlearning", "attention_surgery", "neuron_pruning"),
            *("sparse_aware", "timestep_masking"),
        ),
    ),
    "a constant of the package": (
        TRAINING,
        line_edit("CHUNK_NUMBERS = 2**29", "CHUNK_NUMBERS = 2**28"),
        of("fisher_forgetting", "ssd", "noise_injection"),
    ),
    "a constant of one record": (
        PROVENANCE,
        line_edit("SHARDS, SLICES = 4, 4", "SHARDS, SLICES = 5, 4"),
        of("sisa"),
    ),
    "another record's": (
        PROVENANCE,
        line_edit("LAMBDA, SIGMA = 1.0", "LAMBDA, SIGMA = 2.0"),
        of("certified_removal"),
    ),
    "a third record's": (
        PROVENANCE,
        line_edit("[workload.train_ids] * len(logs)", "len(logs) * [workload.train_ids]"),
        of("amnesiac"),
    ),
    "a control": (
        CONTROLS,
        line_edit("5 * task.recipe.lr", "6 * task.recipe.lr"),
        of("ascent_to_destruction"),
    ),
    "a baseline": (CONTROLS, line_edit("beta=0.1, lr=1e-3", "beta=0.2, lr=1e-3"), of("npo")),
}


@pytest.mark.parametrize("what", EXACT)
def test_a_line_that_matters_invalidates_the_rows_that_depend_on_it(project, before, what):
    file, edit, rows = EXACT[what]
    assert invalidated(project, before, file, edit) == rows


WORKLOAD = {
    "digits": ("erasus_nb/workloads/digits.py", line_edit("CORE = (", "CORE = (9, "), {"digits"}),
    "synthetic": (
        "erasus_nb/workloads/synthetic.py",
        line_edit("SEPARATION, NOISE = 6.0", "SEPARATION, NOISE = 5.0"),
        {"synthetic"},
    ),
    "text": (
        "erasus_nb/workloads/text/corpus.py",
        line_edit('_VOWELS = "a e', '_VOWELS = "y a e'),
        {"text"},
    ),
    "classifiers": (
        "erasus_nb/workloads/classifier/__init__.py",
        line_edit("class ClassifierTask(Task):", "class ClassifierTask(Task, object):"),
        CLASSIFIERS,
    ),
    "a metric of classifiers": (
        METRICS,
        line_edit("(values * mask).sum(0)", "(mask * values).sum(0)"),
        CLASSIFIERS,
    ),
    "a metric of texts": (METRICS, line_edit("share: float = 0.4", "share: float = 0.5"), {"text"}),
    "a metric of all": (METRICS, line_edit(".clamp(min=0.0)", ".clamp(min=1e-9)"), set(WORKLOADS)),
    "what makes a row": (
        "erasus_nb/measuring.py",
        line_edit("ATTACKED = 3", "ATTACKED = 4"),
        set(WORKLOADS),
    ),
    "the hooks": (
        "erasus_nb/task.py",
        line_edit("self._passes = 0", "self._passes = 1"),
        set(WORKLOADS),
    ),
    "base training": (
        TRAINING,
        line_edit("def fit(", "@torch.enable_grad()\ndef fit("),
        set(WORKLOADS),
    ),
}


@pytest.mark.parametrize("what", WORKLOAD)
def test_a_workload_and_its_metrics_invalidate_its_rows_and_all_of_them(project, before, what):
    file, edit, workloads = WORKLOAD[what]
    assert invalidated(project, before, file, edit) == {
        row for row in before if row[0] in workloads
    }


def test_tuned_settings_and_who_chose_them_are_part_of_a_row(project, before):
    edit = lambda text: json.dumps(
        {
            workload: {
                name: {**entry, "chosen_by": "a guess"} if name == "scrub" else entry
                for name, entry in entries.items()
            }
            for workload, entries in json.loads(text).items()
        }
    )
    changed = invalidated(project, before, "notebooks/tuned/gradient.json", edit)
    assert changed and changed <= of("scrub")


def test_the_sizes_are_part_of_a_row_and_the_number_of_seeds_is_not(monkeypatch):
    from dataclasses import replace

    from erasus_nb import profiles

    sources = keys.sources()
    code = lambda: sources.row_code("digits", "digits", "laptop", "gradient", "scrub")
    first, sizes = code(), profiles.sizes_of("laptop", "digits")
    assert sources.row_code("digits", "digits", "smoke", "gradient", "scrub") != first
    monkeypatch.setattr(profiles, "sizes_of", lambda *_: replace(sizes, seeds=sizes.seeds + 1))
    assert code() == first
    monkeypatch.setattr(profiles, "sizes_of", lambda *_: replace(sizes, holdout=sizes.holdout + 1))
    assert code() != first


def test_what_is_not_there_has_no_code():
    sources = keys.sources()
    assert sources.row_code("nothing", "digits", "laptop", "gradient", "scrub") is None
    assert sources.row_code("digits", "digits", "no such profile", "gradient", "scrub") is None
    assert sources.row_code("digits", "digits", "laptop", "gradient", "no_such_strategy") is None
    assert sources.row_code("digits", "digits", "laptop", "data", "scrub") is None
    with pytest.raises(KeyError, match="there is no nothing in erasus_nb.training"):
        sources.digest([("erasus_nb.training", "nothing")])


def test_a_notebook_that_does_not_parse_defines_no_strategy(project, before):
    path = project / GRADIENT
    text = path.read_text("utf-8")
    sources = read(project)
    try:
        for broken in (text[: len(text) // 2], page_edit("def scrub(", "def scrub((")(text)):
            path.write_text(broken, "utf-8")
            sources.look()
            assert sources.row_code("digits", "digits", "laptop", "gradient", "scrub") is None
            assert sources.row_code("digits", "digits", "laptop", "data", "sisa") is not None
    finally:
        path.write_text(text, "utf-8")
    sources.look()
    code = sources.row_code("digits", "digits", "laptop", "gradient", "scrub")
    assert code == before["digits", "scrub"]


def test_a_page_that_is_edited_while_a_process_runs_is_read_again_and_the_package_is_not(
    project, before
):
    sources = read(project)
    rows_of(sources)
    page, module = project / GRADIENT, project / TRAINING
    texts = page.read_text("utf-8"), module.read_text("utf-8")
    try:
        module.write_text(texts[1].replace("descending=True", "descending=False"), "utf-8")
        sources.look()
        assert rows_of(sources) == before
        page.write_text(page_edit("lr=5e-4", "lr=6e-4")(texts[0]), "utf-8")
        sources.look()
        after = rows_of(sources)
    finally:
        page.write_text(texts[0], "utf-8")
        module.write_text(texts[1], "utf-8")
    assert {row for row in before if after[row] != before[row]} == of("scrub")


# ------------------------------------------------------------------ a syntax tree as text

GOLDEN = '''
@strategy(category="X")
@cache
def f(a: int, *rest, b=1.5, **more) -> str:
    """Say nothing."""
    for i, x in enumerate(rest):  # a comment
        if not (x := a ** i) or x in {1, "\u00e9", None}:
            yield f"{x!r:>{b}} {i}"
    return lambda y: [z[0:-1] for z in y if z.w]
'''


GOLD = (
    "FunctionDef(name='f' args=arguments(args=[arg(arg='a')] vararg=arg(arg='rest') "
    "kwonlyargs=[arg(arg='b')] kw_defaults=[Constant(value=1.5)] kwarg=arg(arg='more')) "
    "body=[For(target=Tuple(elts=[Name(id='i'),Name(id='x')]) "
    "iter=Call(func=Name(id='enumerate') args=[Name(id='rest')]) "
    "body=[If(test=BoolOp(op=Or() values=[UnaryOp(op=Not() "
    "operand=NamedExpr(target=Name(id='x') value=BinOp(left=Name(id='a') op=Pow() "
    "right=Name(id='i')))),Compare(left=Name(id='x') ops=[In()] "
    r"comparators=[Set(elts=[Constant(value=1),Constant(value='\xe9'),Constant()])])]) "
    "body=[Expr(value=Yield(value=JoinedStr(values=[FormattedValue(value=Name(id='x') "
    "conversion=114 "
    "format_spec=JoinedStr(values=[Constant(value='>'),FormattedValue(value=Name(id='b') "
    "conversion=-1)])),Constant(value=' '),FormattedValue(value=Name(id='i') "
    "conversion=-1)])))])]),Return(value=Lambda(args=arguments(args=[arg(arg='y')]) "
    "body=ListComp(elt=Subscript(value=Name(id='z') slice=Slice(lower=Constant(value=0) "
    "upper=UnaryOp(op=USub() operand=Constant(value=1)))) "
    "generators=[comprehension(target=Name(id='z') iter=Name(id='y') "
    "ifs=[Attribute(value=Name(id='z') attr='w')] is_async=0)])))] "
    "decorator_list=[Name(id='cache')])"
)


def test_a_tree_is_the_same_text_in_every_version_of_python():
    found = keys.bare(ast.parse(GOLDEN).body[0])
    assert found == GOLD


def test_a_tree_has_no_docstrings_types_of_arguments_marks_or_places():
    text = lambda code: keys.bare(ast.parse(code).body[0])
    plain = text("def f(a, *b, c=1, **d): return a")
    for same in (
        '@strategy(category="X")\ndef f(a, *b, c=1, **d): return a',
        "@strategy\ndef f(a, *b, c=1, **d): return a",
        'def f(a: int, *b: int, c: int = 1, **d: int) -> int:\n\n    "Doc."\n    return (a)  # why',
        "def f(\n    a, *b,\n    c=1, **d,\n):\n    return a",
    ):
        assert text(same) == plain
    for other in (
        "def f(a, *b, c=2, **d): return a",
        "def f(a, *b, c=1, **d): return b",
        "@other\ndef f(a, *b, c=1, **d): return a",
        "def f(a, b, c=1, **d): return a",
        "def f(a, *b, c=1, **d): return a or None",
        "def g(a, *b, c=1, **d): return a",
    ):
        assert text(other) != plain
    # What a class says of its fields is run: pydantic and dataclasses read it.
    assert text("class A:\n    x: int = 1") != text("class A:\n    x: float = 1")


def test_a_mark_says_what_can_change_a_row():
    mark = lambda text: keys._mark_of(ast.parse(f"@strategy({text})\ndef f(): pass").body[0])
    assert mark('category="A", reads=("forget",), departures=("x" "y",), product="p"') == (
        *("A", ("forget",), ("xy",), "p"),
    )
    assert mark('category="A", reads=(), needs=("labels",), budget=(dict(a=1),)') == mark(
        'category="A", reads=(), cite="other"'
    )
    # What is not written out is taken as it is written: a page in the making breaks no board.
    assert mark('category="A", reads=READS, departures=(f"{x}",)') == (
        *("A", ("READS",), ("f'{x}'",), ""),
    )


# ------------------------------------------------------------------ what a definition depends on


def made_up(tmp_path: Path, **modules: str) -> keys.Sources:
    """A package of these modules; `a__b` is module `b` of the folder `a`."""
    package = tmp_path / "package"
    for name, text in modules.items():
        path = package / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (tmp_path / "notebooks").mkdir(exist_ok=True)
    return keys.Sources(tmp_path, package)


HELPER = "def helper(): return 1\ndef other(): return 2\nVALUE = 3\n"
WAYS = {
    "from a module": ("from .low import helper\ndef f(): return helper()", "helper"),
    "from the package's name": ("from erasus_nb.low import helper\ndef f(): helper()", "helper"),
    "under another name": ("from .low import helper as h\ndef f(): return h()", "helper"),
    "a module": ("from . import low\ndef f(): return low.helper()", "helper"),
    "a module under another name": ("from . import low as l\ndef f(): l.helper()", "helper"),
    "import as": ("import erasus_nb.low as l\ndef f(): return l.helper()", "helper"),
    "import of a path": ("import erasus_nb.low\ndef f(): erasus_nb.low.helper()", "helper"),
    "inside a function": ("def f():\n    from .low import helper\n    helper()", "helper"),
    "a module inside a function": ("def f():\n    from . import low\n    low.helper()", "helper"),
    "everything": ("from .low import *\ndef f(): return helper()", "helper"),
    "a default": ("from .low import VALUE\ndef f(a=VALUE): return a", "VALUE"),
    "a decorator": ("from .low import helper\n@helper\ndef f(): pass", "helper"),
    "a base class": ("from .low import helper\nclass f(helper): pass", "helper"),
    "a method": ("from .low import helper\nclass f:\n    def g(self): helper()", "helper"),
    "a property of a class": ("from .low import VALUE\nclass f:\n    g = VALUE", "VALUE"),
    "a comprehension": ("from .low import helper\ndef f(): [helper() for _ in ()]", "helper"),
    "a lambda": ("from .low import helper\nf = lambda: helper()", "helper"),
    "a constant": ("from .low import VALUE\nf = [VALUE]", "VALUE"),
    "a helper beside it": ("from .low import helper\ndef g(): helper()\ndef f(): g()", "helper"),
    "handed on": ("from .middle import helper\ndef f(): return helper()", "helper"),
    "handed on by a package": ("from .folder import helper\ndef f(): return helper()", "helper"),
    "a module of a folder": ("from .folder import deep\ndef f(): deep.helper()", "low"),
    "a path through a folder": ("from . import folder\ndef f(): folder.deep.helper()", "low"),
    "under a try": (
        "try:\n    from .low import helper\nexcept ImportError:\n    helper = None\n"
        "def f(): return helper()",
        "helper",
    ),
    "of two names in two functions": (
        "from .low import helper as h\nclass f:\n    def g(self):\n        from .low import other as h\n"
        "    def k(self): h()",
        "helper",
    ),
    "a statement of its module": ("from .low import helper\nhelper()\ndef f(): pass", "helper"),
    "what is changed afterwards": (
        "from .low import helper\nf = {}\nf['a'] = helper",
        "helper",
    ),
}


@pytest.mark.parametrize("how", WAYS)
def test_a_definition_depends_on_what_it_names_however_it_got_the_name(tmp_path, how):
    text, name = WAYS[how]
    edits = {"helper": ("return 1", "return 10"), "VALUE": ("= 3", "= 30"), "low": ("'deep'", "''")}
    texts = dict(
        top=text,
        low=HELPER,
        middle="from .low import helper",
        folder____init__="from ..low import helper\nfrom . import deep",
        folder__deep="def helper(): return 'deep'",
    )
    code = lambda **changed: made_up(tmp_path, **{**texts, **changed}).digest(
        [("erasus_nb.top", "f")]
    )
    before = code()
    where = "folder__deep" if name == "low" else "low"
    assert code(**{where: texts[where].replace(*edits[name])}) != before
    more = "\ndef more(): return 4\n"
    assert code(**{where: texts[where] + more}) == before


@pytest.mark.parametrize(
    "text",
    [
        "from .low import helper\ndef g(): helper()\ndef f(): pass",
        "from .low import helper\ndef f(helper): return helper()",
        "from .low import helper\ndef f(): x = [helper for helper in ()]",
        "from .low import helper\ndef f(a: helper) -> helper: pass",
        "from .low import helper\n@strategy(reads=helper)\ndef f(): pass",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .low import helper\ndef f(): pass",
        "from .low import helper\ndef f(): pass\nif __name__ == '__main__':\n    helper()",
        "from .low import other\ndef f(): return other()",
        "from . import low\ndef f(): return low.other()",
    ],
)
def test_a_definition_depends_on_nothing_that_it_does_not_run(tmp_path, text):
    before = made_up(tmp_path, top=text, low=HELPER).digest([("erasus_nb.top", "f")])
    low = HELPER.replace("return 1", "return 10")
    assert made_up(tmp_path, top=text, low=low).digest([("erasus_nb.top", "f")]) == before


def test_a_module_that_is_handed_on_whole_counts_whole(tmp_path):
    text = "from . import low\ndef f(): return vars(low)"
    before = made_up(tmp_path, top=text, low=HELPER).digest([("erasus_nb.top", "f")])
    for edit in (("return 1", "return 10"), ("return 2", "return 20"), ("= 3", "= 30")):
        after = made_up(tmp_path, top=text, low=HELPER.replace(*edit))
        assert after.digest([("erasus_nb.top", "f")]) != before


def test_definitions_that_need_each_other_end(tmp_path):
    texts = dict(
        top="from .low import g\ndef f(): return g()",
        low="def g():\n    from .top import f\n    return f()",
    )
    assert made_up(tmp_path, **texts).closure([("erasus_nb.top", "f")]) == {
        ("erasus_nb.top", "f"),
        ("erasus_nb.low", "g"),
    }
