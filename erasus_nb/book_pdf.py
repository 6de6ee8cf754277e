"""The book as one PDF: Sphinx's single page, printed by Chromium.

The site links to the PDF while it is made of the very files that the site is made of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import date
from pathlib import Path

from . import ROOT

#: Where the PDF is made, and the name of the file that readers get.
FOLDER, NAME = Path("_build", "pdf"), "forgetting-measured.pdf"
#: Programs that are Chromium, best first.
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
#: What the pages are made of.
_SOURCES = (
    "*.md", "*.yml", "references.bib", "docs/*.*", "notebooks/*.ipynb", "notebooks/tuned/*.json",
    "_runs/*.ipynb", "results/*/*/*.json", "erasus_nb/**/*.py", "erasus_nb/print.*",
)  # fmt: skip


class NoBrowser(ValueError):
    """There is no Chromium here; the message says what to install."""


def browser() -> str:
    """The path of a Chromium: ERASUS_CHROMIUM, else the first one on the PATH.

    Raises:
        NoBrowser: there is none.
    """
    asked = os.environ.get("ERASUS_CHROMIUM")
    found = filter(None, map(shutil.which, [asked] if asked else _PROGRAMS))
    if path := next(found, None):
        return path
    if asked:
        raise NoBrowser(f"ERASUS_CHROMIUM is {asked!r}, which is no program")
    raise NoBrowser(
        "Chromium is needed and not installed: on Debian or Ubuntu `apt-get install chromium`, "
        "elsewhere install Chromium or Chrome and name its program in ERASUS_CHROMIUM"
    )


def _stamp(root: Path) -> str:
    """A hash of the names, sizes and times of everything that the pages are made of."""
    paths = {path for pattern in _SOURCES for path in root.glob(pattern)}
    said = [f"{p.relative_to(root)} {p.stat().st_mtime_ns} {p.stat().st_size}" for p in paths]
    rows = os.environ.get("ERASUS_ROWS", "")
    return hashlib.sha256("\n".join([rows, *sorted(said)]).encode()).hexdigest()


def current(root: Path = ROOT) -> Path | None:
    """The PDF, if it was made of the files that are here now; else None."""
    path, stamp = root / FOLDER / NAME, root / FOLDER / "stamp"
    if not path.is_file() or not stamp.is_file():
        return None
    return path if stamp.read_text("utf-8") == _stamp(root) else None


def make(page: Path, title: str, author: str, root: Path = ROOT) -> Path:
    """Print the book and remember what it was made of.

    Args:
        page: The book as one HTML page, as Sphinx's singlehtml writes it.
        title: On the cover.
        author: On the cover.

    Returns:
        The PDF's path.

    Raises:
        NoBrowser: there is no Chromium here.
    """
    program, path = browser(), root / FOLDER / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = _stamp(root)
    about = {"title": title, "author": author, "made": f"Printed on {date.today():%-d %B %Y}"}
    print_page(program, page, path, about)
    (path.parent / "stamp").write_text(stamp, "utf-8")
    return path


def print_page(program: str, page: Path, path: Path, about: dict[str, str]) -> None:
    """Open the page in Chromium, make a book of it, and print that."""
    from playwright.sync_api import sync_playwright

    here = Path(__file__).parent
    with sync_playwright() as play:
        # Without a sandbox, as Chromium refuses one to root, and the only page is our own.
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        view = chromium.new_page(color_scheme="light")
        view.set_default_timeout(600_000)
        view.goto(page.resolve().as_uri())
        view.evaluate("window.MathJax && MathJax.startup.promise.then(() => null)")
        view.add_style_tag(content=(here / "print.css").read_text("utf-8"))
        view.evaluate((here / "print.js").read_text("utf-8"), about)
        view.pdf(path=path, prefer_css_page_size=True, outline=True, tagged=True)
        chromium.close()
