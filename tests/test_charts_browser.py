"""Charts in a real browser, from a file: pointer, keyboard, phone, dark page, axe.

Needs Chromium and playwright; where one is missing, the tests are skipped and say so.
"""

from __future__ import annotations

import shutil

import fabricate
import pytest

from erasus_nb import ROOT, charts, score

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no Chromium on this machine")

DRAWN = (
    charts.forest,
    charts.rank_intervals,
    charts.positions,
    charts.axes,
    charts.quality_against_cost,
)
#: The theme's variables that charts use.
THEMES = {
    "light": "--pst-color-background:#fff;--pst-color-text-base:#222832",
    "dark": "--pst-color-background:#14181e;--pst-color-text-base:#ced6dd",
}


@pytest.fixture(scope="module")
def board() -> score.Board:
    absent = {"fisher_forgetting": ("error", "it ran out of memory")}
    return score.board(fabricate.documents(absent=absent))


@pytest.fixture(scope="module")
def files(tmp_path_factory, board) -> dict[str, str]:
    """Theme -> the address of a page with all charts of a board."""
    folder = tmp_path_factory.mktemp("page")
    body = "".join(draw(board)._repr_html_() for draw in DRAWN)
    for theme, colours in THEMES.items():
        colours += ";--pst-color-surface:var(--pst-color-background);--pst-color-border:#888"
        page = (
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>Charts</title>'
            f'<style>:root{{{colours}}}body{{font-family:"Segoe UI",Arial,sans-serif;margin:1rem;'
            "background:var(--pst-color-background);color:var(--pst-color-text-base)}</style>"
            f'<link rel="stylesheet" href="{(ROOT / "_static/book.css").as_uri()}">'
            f'<script src="{(ROOT / "_static/charts.js").as_uri()}"></script>'
            f'<script src="{(ROOT / "_static/tip.js").as_uri()}"></script>'
            f'<main class="bd-content"><h1>Charts</h1>{body}</main></html>'
        )
        (folder / f"{theme}.html").write_text(page, "utf-8")
    return {theme: (folder / f"{theme}.html").as_uri() for theme in THEMES}


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def view(chromium, files):
    """Opens the page at a width and in a theme, offline."""
    opened = []

    def at(width: int = 1000, theme: str = "light", **more):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, offline=True, **more
        )
        opened.append(context)
        page = context.new_page()
        page.goto(files[theme])
        return page

    yield at
    for context in opened:
        context.close()


def rows_of(page, number: int, drawing: str = "wide"):
    return page.locator("figure.erasus-chart").nth(number).locator(f"svg.{drawing} .row")


def test_the_pointer_anywhere_on_a_row_shows_what_it_says(view, board):
    page = view()
    tip = page.locator("#tip")
    assert not tip.is_visible()
    best = board.of("strategy")[0]
    row = rows_of(page, 0).first
    for part in (row.locator("text").first, row.locator("g").first):
        page.mouse.move(0, 0)
        part.hover(force=True)
        assert tip.inner_text().startswith(f"{best.name}: Retrain-Match {best.rm.mean:.1f} (")
    page.mouse.move(0, 0)
    assert not tip.is_visible()


def test_without_the_script_the_browsers_own_tooltip_says_it(view, board):
    page = view(java_script_enabled=False)
    titles = page.locator("figure.erasus-chart").first.locator("svg.wide .row > title")
    lines = [*board.of("strategy"), *board.of("control"), *board.of("original", "retrained")]
    said = titles.all_text_contents()
    assert len(said) == len(lines)
    for line in lines:
        (own,) = [text for text in said if text.split(":")[0].split(" (")[0] == line.name]
        assert (f"{line.rm.mean:.1f}" if line.rm else line.reason) in own


def test_the_keyboard_reads_a_chart_row_by_row_and_goes_on_to_the_next(view):
    page = view()
    tip = page.locator("#tip")
    page.keyboard.press("Tab")
    now = lambda what: page.evaluate(f"document.activeElement.{what}")
    assert now("tagName") == "FIGURE" and "Arrow keys" in tip.inner_text()
    said = rows_of(page, 0).evaluate_all("rows => rows.map(row => row.ariaLabel)")
    assert len(said) == len(set(said)) > 20
    ends = [("ArrowDown", 0), ("ArrowDown", 1), ("End", -1), ("ArrowUp", -2), ("Home", 0)]
    for key, place in ends:
        page.keyboard.press(key)
        page.wait_for_timeout(50)  # a row out of view is scrolled to
        assert now("ariaLabel") == said[place] == tip.inner_text()
        assert now("getAttribute('role')") == "img"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("Tab")
    assert now("tagName") == "FIGURE"
    assert now("ariaLabel").startswith("Bars from the best to the worst rank")


def test_a_phone_gets_a_drawing_of_its_own_that_a_finger_can_ask(view):
    page = view(390, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for number in range(len(DRAWN)):
        figure = page.locator("figure.erasus-chart").nth(number)
        assert not figure.locator("svg.wide").is_visible()
        assert figure.locator("svg.narrow").is_visible()
        assert figure.evaluate("figure => figure.scrollWidth <= figure.clientWidth")
        rows_of(page, number, "narrow").nth(1).locator("text").first.tap()
        said = rows_of(page, number).nth(1).get_attribute("aria-label")
        assert page.locator("#tip").inner_text() == said


#: Texts of what is shown that stick out of their drawing, and the height of the smallest, px.
FITS = """() => {
  const out = [], sizes = [];
  for (const svg of document.querySelectorAll("figure.erasus-chart svg")) {
    if (!svg.clientWidth) continue;
    const frame = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const scale = frame.width / svg.viewBox.baseVal.width;
      sizes.push(scale * parseFloat(getComputedStyle(text).fontSize));
      if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
          box.top < frame.top - 1 || box.bottom > frame.bottom + 1) out.push(text.textContent);
    }
  }
  return [out, Math.min(...sizes)];
}"""


@pytest.mark.parametrize("width", [360, 390, 530, 768, 1400])
def test_text_in_the_pages_font_fits_and_can_be_read_at_every_width(view, width):
    out, smallest = view(width).evaluate(FITS)
    assert not out and smallest >= 8


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [390, 1000])
def test_a_checker_of_accessibility_finds_nothing(view, width, theme):
    page = view(width, theme)
    found = axe.Axe().run(page).response["violations"]
    assert not [f"{one['id']}: {one['help']}" for one in found]
