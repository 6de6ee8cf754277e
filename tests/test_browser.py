"""The built site in a real browser: wide and narrow, light and dark, with nothing from outside.

Drives the site in ERASUS_SITE, or one that is built here from the committed rows. Needs
Chromium; where there is none, the tests are skipped and say what to install.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pikepdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from erasus_nb import ROOT, book_pdf

try:
    PROGRAM, WHY = book_pdf.browser(), ""
except book_pdf.NoBrowser as error:
    PROGRAM, WHY = None, str(error)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=WHY)

WIDTHS, THEMES = {"wide": 1400, "phone": 390}, ("light", "dark")

# ------------------------------------------------------------------ the site and the browser


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of a built site."""
    if asked := os.environ.get("ERASUS_SITE"):
        folder = Path(asked).resolve()
        assert (folder / "index.html").is_file(), f"ERASUS_SITE is {asked}, which holds no site"
        return folder
    folder = tmp_path_factory.mktemp("site")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(ROOT), "--path-output", str(folder)]
    built = subprocess.run(
        command, env=os.environ | {"ERASUS_ROWS": "published"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests."""
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Page:
    """What was seen of one page of a site.

    Args:
        faults: Kind of fault -> what is wrong, each with the view in which it was seen.
        ids: Everything that a link can point to.
        links: The addresses of all links.
    """

    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ids: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)


#: Formulas that no drawing has replaced.
_UNDRAWN = """() => [...document.querySelectorAll(".math")].filter(
    (each) => !each.querySelector("mjx-container svg")).map((each) => each.textContent)"""
#: Cells of heat maps of which a screen reader would say nothing.
_SILENT = """() => [...document.querySelectorAll("table.heatmap td")].filter((cell) =>
    !cell.getAttribute("aria-label") && ![...cell.querySelectorAll(".visually-hidden")].some(
        (each) => each.textContent.trim())).map((cell) => cell.outerHTML)"""
#: Medals that only some computers have in a font; in code they are meant as letters.
_MEDALS = """() => {
    const all = document.body.cloneNode(true);
    all.querySelectorAll("pre, code, script").forEach((each) => each.remove());
    return all.textContent.match(/[\\u{1F947}-\\u{1F949}]/gu) ?? [];
}"""
#: axe would load style sheets anew, which browsers forbid to pages from a disk.
_AXE = {"preload": False, "resultTypes": ["violations"]}
#: By far the slowest rule, and the only one for which light and dark differ.
_CONTRAST = "color-contrast"
#: What has no contrast rule of its own; code, whose colours are seen on the pages of docs/; and
#: rows of boards that look like the first ones.
_ALIKE = ["svg", "mjx-container", ".cell pre", "table.board tbody tr:nth-child(n+9)"]


def axe(view, contrast: bool) -> list[str]:
    """What axe calls serious or critical: contrasts, or everything else."""
    if contrast:
        options = _AXE | {"runOnly": {"type": "rule", "values": [_CONTRAST]}}
        found = Axe().run(view, context={"exclude": _ALIKE}, options=options)
    else:
        found = Axe().run(view, options=_AXE | {"rules": {_CONTRAST: {"enabled": False}}})
    return [
        f"{each['id']}, {len(each['nodes'])} times, at {each['nodes'][0]['target']}: "
        f"{each['nodes'][0]['html'][:200]}"
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def look(view, page: Page, name: str) -> None:
    """Check a page that has just been opened, in light and dark."""
    page.faults["axe"] += [f"{name}: {fault}" for fault in axe(view, contrast=False)]
    for theme in THEMES:
        view.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        width = view.evaluate("document.documentElement.scrollWidth")
        if width > view.viewport_size["width"]:
            page.faults["sideways"].append(f"{name}, {theme}: {width} pixels wide")
        if (name, theme) in (("wide", "light"), ("phone", "dark")):
            page.faults["axe"] += [
                f"{name}, {theme}: {fault}" for fault in axe(view, contrast=True)
            ]


def visit(context, path: Path) -> Page:
    """Open a page once for each width and look at it in light and dark."""
    page, view, where = Page(), context.new_page(), ""
    says = lambda kind: lambda text: page.faults[kind].append(f"{where}: {text}")
    view.on("pageerror", lambda error: says("errors")(error))
    view.on("console", lambda said: says("errors")(said.text) if said.type == "error" else None)
    view.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else says("outside")(r.url),
    )
    for name, width in WIDTHS.items():
        where = name
        view.set_viewport_size({"width": width, "height": 900})
        view.goto(path.as_uri())
        # Colours that are still changing have no contrast yet.
        view.add_style_tag(content="* { transition: none !important; }")
        view.evaluate("window.MathJax?.startup?.promise?.then(() => null)")
        look(view, page, name)
    for kind, script in {"formulas": _UNDRAWN, "heat map": _SILENT, "medals": _MEDALS}.items():
        page.faults[kind] += view.evaluate(script)
    if (count := view.locator("h1").count()) != 1:
        page.faults["headings"].append(f"{count} headings of the first rank")
    page.ids = set(view.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)"))
    page.links = set(view.evaluate("[...document.links].map(link => link.href)"))
    view.close()
    return page


def dead_links(folder: Path, pages: dict[Path, Page]) -> None:
    """Add a fault for each link into the site behind which there is nothing."""
    for path, page in pages.items():
        for link in sorted(page.links):
            address, place = urldefrag(link)
            parts = urlsplit(address)
            if parts.scheme != "file":
                if parts.scheme not in ("https", "data", "mailto") or "localhost" in link:
                    page.faults["links"].append(link)
                continue
            target = Path(unquote(parts.path))
            if not target.is_relative_to(folder) or not target.is_file():
                page.faults["links"].append(f"no such file: {link}")
            elif place and target in pages and unquote(place) not in pages[target].ids:
                page.faults["links"].append(f"no such place: {link}")


def visit_all(chromium, folder: Path) -> dict[Path, Page]:
    """All pages of a site, with what is wrong with each."""
    context = chromium.new_context(reduced_motion="reduce")
    # Nothing outside is ever asked, not even where a page wants to.
    context.route(lambda url: not url.startswith(("file:", "data:")), lambda route: route.abort())
    paths = [p for p in sorted(folder.rglob("*.html")) if "_static" not in p.parts]
    # index.html only leads to the first page.
    pages = {path: visit(context, path) for path in paths if path != folder / "index.html"}
    context.close()
    dead_links(folder, pages)
    return pages


@pytest.fixture(scope="module")
def pages(chromium, site):
    """Path -> page of the whole site."""
    return visit_all(chromium, site)


# ------------------------------------------------------------------ every page

KINDS = (
    "errors",
    "outside",
    "sideways",
    "axe",
    "headings",
    "formulas",
    "heat map",
    "medals",
    "links",
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_has_a_fault(pages, site, kind):
    found = {str(path.relative_to(site)): page.faults[kind] for path, page in pages.items()}
    assert not {name: faults for name, faults in found.items() if faults}


def test_every_page_of_the_book_was_seen(pages, site):
    names = {str(path.relative_to(site).with_suffix("")) for path in pages}
    for folder in ("notebooks", "docs"):
        written = {
            f"{folder}/{p.stem}"
            for p in (ROOT / folder).glob("*.*")
            if p.suffix in (".md", ".ipynb")
        }
        assert written <= names
    assert {"intro", "search"} <= names
    formulas = sum("MathJax" in path.read_text("utf-8") for path in pages)
    assert formulas > 5


# ------------------------------------------------------------------ boards, tips, formulas

BOARD = """<!doctype html><html lang="en"><title>A board</title><main class="bd-content"><h1>A board</h1>
<div class="rows"><table class="dataframe table board"><thead><tr>
<th scope="col" title="Who it is">row</th><th scope="col">score</th><th scope="col">note</th>
<th scope="col" class="more">cost</th></tr></thead><tbody>
<tr><th scope="row">b</th><td data-order="9.5">9.5 (8 to 11)</td><td>x</td><td class="more">1</td></tr>
<tr><th scope="row">a</th><td data-order="">none</td><td>z</td><td class="more">2</td></tr>
<tr><th scope="row">c</th><td data-order="10">10 (9 to 11)</td><td>y</td><td class="more">10</td></tr>
<tr><th scope="row">d</th><td data-order="-1">-1 (-2 to 0)</td><td></td><td class="more">3</td></tr>
</tbody></table></div><p>A <span class="tip" tabindex="0" data-tip="What it means">word</span>.</p>
<div class="rows" tabindex="0" role="region" aria-label="Heat map"><table class="heatmap"><caption>Map</caption>
<thead><tr><th scope="col">row</th><th scope="col">x</th><th scope="col">y</th></tr></thead><tbody>
<tr class="group"><th scope="rowgroup" colspan="3">Strategies</th></tr>
<tr><th scope="row">a</th><td class="tip" data-tip="a on x">1</td><td class="tip" data-tip="a on y">2</td></tr>
<tr><th scope="row">b</th><td class="tip" data-tip="b on x">3</td><td class="tip" data-tip="b on y">4</td></tr>
</tbody></table></div></main>"""


@pytest.fixture
def board(chromium, tmp_path):
    """A page with a small board and a tip, with the site's script and style."""
    static = (ROOT / "_static").as_uri()
    scripts = (f'<script src="{static}/{name}.js"></script>' for name in ("boards", "tip"))
    head = f'<link rel="stylesheet" href="{static}/book.css">' + "".join(scripts)
    path = tmp_path / "board.html"
    path.write_text(BOARD.replace("<main", head + "<main", 1), "utf-8")
    view = chromium.new_page(viewport={"width": 390, "height": 700}, has_touch=True)
    view.goto(path.as_uri())
    yield view
    view.close()


def names(view, table="table.board") -> list[str]:
    return [text.strip() for text in view.locator(f"{table} tbody th[scope=row]").all_inner_texts()]


def direction(view, column: int) -> str | None:
    return view.locator("table.board thead th").nth(column).get_attribute("aria-sort")


def test_a_click_anywhere_on_a_header_sorts_by_the_value_and_once_more_turns_it(board):
    header = board.locator("table.board thead th").nth(1)
    header.click(position={"x": 2, "y": 2})
    assert (names(board), direction(board, 1)) == (["d", "b", "c", "a"], "ascending")
    header.click(position={"x": 2, "y": 2})
    assert (names(board), direction(board, 1)) == (["c", "b", "d", "a"], "descending")
    board.locator("table.board thead th").nth(0).click()
    assert names(board) == ["a", "b", "c", "d"] and direction(board, 1) is None


def test_text_is_sorted_as_text_and_what_is_missing_comes_last(board):
    header = board.locator("table.board thead th").nth(2)
    header.click()
    assert names(board) == ["b", "c", "a", "d"]
    header.click()
    assert names(board) == ["a", "c", "b", "d"]


def test_headers_sort_by_keyboard(board):
    board.locator("table.board thead button").nth(1).focus()
    board.keyboard.press("Enter")
    assert names(board) == ["d", "b", "c", "a"]
    board.keyboard.press("Space")
    assert names(board) == ["c", "b", "d", "a"]


def test_further_columns_are_shown_on_request_and_all_of_them_without_the_script(board, chromium):
    cost = board.locator("th.more")
    assert not cost.is_visible()
    board.get_by_role("button", name="Show all columns").click()
    assert cost.is_visible()
    cost.click()
    assert names(board) == ["b", "a", "d", "c"]
    board.get_by_role("button", name="Show fewer columns").click()
    assert not cost.is_visible()
    plain = chromium.new_page(java_script_enabled=False)
    plain.goto(board.url)
    assert plain.locator("th.more").is_visible() and not plain.locator("button").count()
    plain.close()


@pytest.mark.parametrize("way", ["hover", "focus", "tap"])
def test_a_tip_is_shown_by_mouse_keyboard_and_touch_and_goes_again(board, way):
    word, tip = board.locator("span.tip"), board.get_by_role("tooltip")
    assert not tip.is_visible()
    getattr(word, way)()
    assert tip.inner_text() == "What it means"
    assert word.get_attribute("aria-describedby") == tip.get_attribute("id")
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert board.evaluate("document.documentElement.scrollWidth") <= 390
    board.keyboard.press("Escape")
    assert not tip.is_visible()


def test_cells_of_the_heat_map_say_more_by_keyboard(board):
    tip, box = board.get_by_role("tooltip"), board.get_by_label("Heat map")
    box.focus()
    said = []
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        board.keyboard.press(key)
        said.append(tip.inner_text())
    assert said == ["a on x", "a on y", "a on y", "b on y", "b on x", "a on x"]
    board.keyboard.press("Escape")
    assert not tip.is_visible() and box.evaluate("box => box === document.activeElement")
    board.keyboard.press("Tab")
    assert board.locator("td:focus").count() == 0, "Tab goes on behind the map"


def test_what_a_header_says_of_its_column_is_a_tip(board):
    board.locator("table.board thead button").nth(0).focus()
    assert board.get_by_role("tooltip").inner_text() == "Who it is"


def test_boards_of_the_site_sort_and_keep_their_names_in_view(chromium, site, pages):
    seen = 0
    for path in pages:
        if 'table board"' not in path.read_text("utf-8"):
            continue
        view = chromium.new_page(viewport={"width": 390, "height": 900})
        view.goto(path.as_uri())
        for number in range(view.locator("table.board").count()):
            table = view.locator("table.board").nth(number)
            if table.is_visible():
                seen += 1
                check_board(view, table)
        view.close()
    assert seen >= 2, "a front page and a leaderboard have boards"


def check_board(view, table) -> None:
    """One visible board of the site: sorted by its last visible column, and scrolled."""
    column = table.locator("thead th:visible").last
    for way in ("ascending", "descending"):
        column.locator("button").click()
        assert column.get_attribute("aria-sort") == way
        orders = table.evaluate(
            """(table) => {
                const at = table.querySelector("th[aria-sort]").cellIndex;
                return [...table.tBodies[0].rows].map((row) => row.cells[at].dataset.order);
            }"""
        )
        if None in orders:
            continue  # sorted as text, as the tests above show
        known = [order for order in orders if order]
        assert orders == known + [""] * (len(orders) - len(known))
        values = [float(order) for order in known]
        assert values == sorted(values, reverse=way == "descending")
    box = table.locator("xpath=ancestor::div[contains(@class, 'rows')]")
    box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    name = table.locator("tbody th[scope=row]").first
    assert abs(name.bounding_box()["x"] - box.bounding_box()["x"]) < 3
    background = name.evaluate("(cell) => getComputedStyle(cell).backgroundColor")
    assert background.startswith("rgb("), f"other columns shine through: {background}"


# ------------------------------------------------------------------ the book as PDF

BOOK = """<!doctype html><html lang="en"><title>Book</title><body><header>menu</header><main>
<article class="bd-article"><section><h1>Start<a class="headerlink" href="#s">#</a></h1><p>Text</p>
<div class="toctree-wrapper"><span id="document-a"></span><section><h2>First</h2>
<section id="same"><h3>Part</h3></section></section><span id="document-b"></span>
<section><h2>Second</h2><section id="same"><h3>Other part</h3></section></section></div></section>
</article></main></body></html>"""


def test_the_book_is_printed_with_a_cover_contents_and_numbers_of_pages(tmp_path):
    page = tmp_path / "book.html"
    page.write_text(BOOK, "utf-8")
    (tmp_path / "_config.yml").write_text("title: A title\nauthor: Someone\n")
    # In a process of its own: one of them can hold one Playwright.
    program = (
        "import sys, pathlib as p, erasus_nb.book_pdf as b; b.make(*map(p.Path, sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", program, page, tmp_path], cwd=ROOT, check=True)
    path = tmp_path / book_pdf.FOLDER / book_pdf.NAME
    assert book_pdf.current(tmp_path) == path
    with pikepdf.open(path) as book:
        # Cover, contents, start, and a page for each chapter.
        assert len(book.pages) == 5
        with book.open_outline() as outline:
            assert [item.title for item in outline.root] == ["Start"]
        links = [str(link.Dest) for link in book.pages[1].Annots]
        assert links == [f"/contents-{number}" for number in range(1, 6)]
    numbers = book_pdf.page_numbers(path.read_bytes())
    assert [numbers[f"contents-{number}"] for number in range(1, 6)] == [3, 4, 4, 5, 5]


# ------------------------------------------------------------------ the check itself

BROKEN = """<!doctype html><html lang="en"><title>Broken</title><body><h1>One</h1><h1>Two</h1>
<p style="width: 2000px">Wide \U0001f947 <span class="math">\\(x\\)</span></p>
<table class="heatmap"><tr><td>0.5</td></tr></table>
<img src="https://example.org/picture.png"><a href="missing.html">A</a><a href="#nowhere">B</a>
<script>undefinedFunction()</script></body></html>"""


def test_each_kind_of_fault_is_found(chromium, tmp_path):
    (tmp_path / "broken.html").write_text(BROKEN, "utf-8")
    (page,) = visit_all(chromium, tmp_path).values()
    assert set(KINDS) == {kind for kind, faults in page.faults.items() if faults}
    assert any("image-alt" in fault for fault in page.faults["axe"])
    assert sorted(fault.split(":")[0] for fault in page.faults["links"]) == [
        "no such file",
        "no such place",
    ]
