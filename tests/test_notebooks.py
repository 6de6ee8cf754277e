"""The committed notebooks: clean, complete, and with every figure, key and page in its place."""

import ast
import json
import re
from importlib import import_module

import nbformat
import pytest
import yaml

from erasus_nb import ROOT, cells, parameters, references, selection, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.strategy import settings_of
from erasus_nb.training import same_weights

NAMES = cells.names()
PAGES = selection.categories(ROOT)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=PAGES)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def chapters():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [c["file"] for part in toc["parts"] for c in part["chapters"]]


def prose(name):
    nb = cells.notebook(name)
    return "\n".join(cells.text_of(c) for c in nb["cells"] if c["cell_type"] == "markdown")


def code_of(name, *tags):
    return [
        cells.text_of(cell)
        for _, cell in cells.code_cells(cells.notebook(name))
        if not tags or set(tags) & cells.tags_of(cell)
    ]


def test_every_notebook_is_in_the_book_and_every_chapter_exists():
    files = chapters()
    assert sorted(f.split("/")[1] for f in files if f.startswith("notebooks/")) == NAMES
    for file in files:
        assert any((ROOT / f"{file}{ending}").is_file() for ending in (".md", ".ipynb")), file


def test_a_notebook_is_valid_and_was_committed_without_outputs(name):
    nb = cells.notebook(name)
    nbformat.validate(nb)
    assert nb["metadata"] == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    for number, cell in enumerate(nb["cells"], 1):
        assert set(cell["metadata"]) <= {"tags", "mystnb"}, f"cell {number}"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, f"cell {number}"
            assert cells.text_of(cell).strip(), f"cell {number} is empty"
    ids = [cell["id"] for cell in nb["cells"]]
    assert len(set(ids)) == len(ids)


def test_a_page_has_one_title_and_says_its_question_under_it(name):
    first = cells.text_of(cells.notebook(name)["cells"][0])
    titles = re.findall(r"^# .+$", prose(name), flags=re.MULTILINE)
    assert len(titles) == 1 and first.startswith(titles[0])
    assert len(first.splitlines()) > 1


#: Longer lines scroll sideways on the widest page.
WIDEST = 100


def test_code_is_plain_python_and_fits_the_page(name):
    for source in code_of(name):
        ast.parse(source)  # no magics, which papermill and the exporter would not share
        assert [line for line in source.splitlines() if len(line) > WIDEST] == []


def test_every_parameter_has_a_meaning_and_is_read(name):
    path = cells.NOTEBOOKS / f"{name}.ipynb"
    known = parameters.declared(path)
    later = "\n".join(code_of(name)[1:])
    through_page = "globals()" in later  # book.start reads them all
    for key, what in known.items():
        assert what.help, f"{key} has no comment"
        assert through_page or re.search(rf"\b{key}\b", later), f"{key} is never read"


def test_the_strategy_pages_take_the_same_parameters():
    declared = {p: parameters.declared(cells.NOTEBOOKS / f"{p}.ipynb") for p in PAGES}
    first = declared[PAGES[0]]
    for name, found in declared.items():
        assert list(found) == list(first), name
        assert [(w.type, w.default) for w in found.values()] == [
            (w.type, w.default) for w in first.values()
        ], name


def test_a_page_has_every_part_in_order(page):
    text = "\n".join(cells.text_of(c) for c in cells.notebook(page)["cells"])
    parts = ['book.start("%s", globals())' % page, "## What there is to forget", "page.request()"]
    parts += [f"## {name}" for name in parameters.strategies_in(cells.NOTEBOOKS / f"{page}.ipynb")]
    parts += ["## What the chart shows", "page.chart()", "page.table()", "## Try to break it"]
    parts += ["page.relearn(", "## Try your own", "keep=False", "## Caveats"]
    parts += ["page.departures()", "## References"]
    parts += ["page.references()", "page.glance()"]
    at = [text.find(part) for part in parts]
    assert -1 not in at, parts[at.index(-1)]
    assert at == sorted(at), [p for p, a, b in zip(parts[1:], at, at[1:]) if b < a]


def test_every_strategy_of_a_page_is_run_and_read_out(page):
    code = "\n".join(code_of(page))
    for strategy in parameters.strategies_in(cells.NOTEBOOKS / f"{page}.ipynb"):
        assert re.search(rf"page\.run\(\s*{strategy}\b", code), strategy
        assert re.search(rf"page\.say\(\s*{strategy}\b", code), strategy


def test_read_outs_and_the_glance_box_hide_their_code(page):
    for _, cell in cells.code_cells(cells.notebook(page)):
        source, tags = cells.text_of(cell), cells.tags_of(cell)
        if source.startswith("page.say("):
            assert "remove-input" in tags, source
        if source.startswith("page.glance("):
            assert {"glance", "remove-input"} <= tags, source
        if source.startswith("page.claim("):
            assert "remove-cell" in tags, source


def test_strategies_stand_in_plain_sight(page):
    for _, cell in cells.code_cells(cells.notebook(page)):
        if "strategy" in cells.tags_of(cell):
            assert not cells.tags_of(cell) & {"hide-input", "remove-input", "remove-cell"}


def keys():
    text = (ROOT / "references.bib").read_text("utf-8")
    return re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.MULTILINE)


def test_references_are_there_once():
    found = keys()
    assert len(found) == len(set(found))


def test_every_mark_names_a_reference(name):
    cited = re.findall(r'cite="([^"]+)"', "\n".join(code_of(name, "strategy")))
    assert set(cited) <= set(keys())


def test_every_citation_says_who_wrote_the_paper_that_it_links_to(name):
    """`[Kurmanji et al. (2023)](address)`, both as `references.bib` has them."""
    known = {
        references.address(entry): (references.authors(entry), entry.fields["year"])
        for entry in references.entries().entries.values()
    }
    for text, address in references.citations(name):
        assert address in known, f"{text}: {address} is in no entry of references.bib"
        who, year = known[address]
        assert text in (f"{who} ({year})", f"{who}, {year}"), address


def test_every_paper_that_is_linked_is_cited(name):
    """A link to arXiv that is no citation would be missing in the list of references."""
    links = re.findall(r"\]\((https?://(?:arxiv|doi)\.org/[^)\s]+)\)", prose(name))
    assert len(links) == len(
        [a for _, a in references.citations(name) if "arxiv.org" in a or "doi.org" in a]
    )


def test_a_page_lists_the_papers_that_it_cites(page):
    cited = references.cited(page)
    listed = references.listed(page)
    assert cited and listed.count("<li>") == len(cited) == len(set(cited))
    for key in cited:
        assert references.address(references.entries().entries[key]) in listed


#: Of MyST alone: JupyterLab shows it as it is written.
BARE = {
    "directive": r"^\s*(?:```+|~~~+|:::+)\s*\{",
    "fence of colons": r"^\s*:::",
    "role": r"\{[\w:+-]+\}`",
    "label": r"^\([\w-]+\)=\s*$",
    "label of an equation": r"\$\$\s*\([\w-]+\)",
    "substitution": r"\{\{.*?\}\}",
    "comment or break": r"^(?:%|\+\+\+)(?:\s|$)",
    "footnote": r"\[\^[^\]]+\]",
}


def bare(text: str) -> list[str]:
    """What of a text JupyterLab would not show as the site does."""
    prose = re.sub(r"\$\$.+?\$\$(?!\s*\()", "", text, flags=re.DOTALL)
    prose = re.sub(r"\$[^$\n]+\$", "", prose)
    return [what for what, how in BARE.items() if re.search(how, prose, flags=re.MULTILINE)]


def test_pages_read_in_jupyterlab_as_they_do_on_the_site(name):
    for number, cell in enumerate(cells.notebook(name)["cells"], 1):
        if cell["cell_type"] == "markdown":
            text = cells.text_of(cell)
            assert not bare(text), f"cell {number}"
            assert text.count("$$") % 2 == 0, f"cell {number}: an equation has no end"


@pytest.mark.parametrize(
    "text",
    [
        "```{math}\n:label: eq-x\nx\n```",
        "```{bibliography}\n```",
        ":::{note}\nx\n:::",
        "as {cite:p}`shi2025muse` says",
        "see {ref}`x`",
        "(eq-x)=\n# Title",
        "$$\nx\n$$ (eq-x)",
        "it is {{ rm }}",
        "% nobody sees this",
        "so[^1] it is",
    ],
)
def test_what_jupyterlab_would_show_bare_is_found(text):
    assert len(bare(text)) >= 1
    assert bare("# Title\n\n$\\frac{a}{b}$ and\n\n$$\n{x}_{i}\n$$\n\n`code` [x](y)") == []


def test_no_source_names_a_path_of_one_machine():
    for name in NAMES:
        text = json.dumps(cells.notebook(name))
        assert not re.search(r'"(/home/|/root/|/work/|/Users/|C:\\\\)', text)


def test_the_strategies_to_try_run_as_they_are(page, cache):
    """The cells that readers are asked to edit, on every workload that they can run on."""
    sources = [s for s in code_of(page) if 'category="Yours"' in s]
    assert sources
    benches = [Bench(w, "smoke", (0,), out=None, cache=cache) for w in workloads.WORKLOADS]
    space = dict(vars(cells.load(page)))
    for source in sources:
        functions = [
            node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
        ]
        exec(source.split("\n\n\npage.run")[0], space)
        for function in (space[name] for name in functions):
            ran = []
            for bench in benches:
                if function.facts.form_on(bench.workload, bench.load.provides) is None:
                    continue
                new, _, _ = bench.unlearn(function, 0, settings_of(function))
                product, start = bench.product_of(function, new), bench.originals()[0]
                assert not same_weights(product.state_dict(), start)
                ran.append(bench.workload)
            assert workloads.home(page) in ran


def test_every_picture_that_a_page_draws_is_one_that_some_workload_can_draw():
    drawn = {
        (name, node.args[0].value)
        for name in cells.names()
        for source in code_of(name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "draw"
    }
    known = {
        picture
        for path in (ROOT / "erasus_nb" / "workloads").glob("*/pictures.py")
        for picture in vars(import_module(f"erasus_nb.workloads.{path.parent.name}.pictures"))
    }
    assert drawn and not [(page, picture) for page, picture in drawn if picture not in known]
