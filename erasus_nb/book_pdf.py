"""The book as one PDF: Sphinx's single page, printed by Chromium.

The site links to the PDF while it is made of the very files that the site is made of.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from datetime import date
from pathlib import Path

import yaml

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


def make(page: Path, root: Path = ROOT) -> Path:
    """Print the book and remember what it was made of.

    Args:
        page: The book as one HTML page, as Sphinx's singlehtml writes it.
        root: The project; the cover's title and author are those of its _config.yml.

    Returns:
        The PDF's path.

    Raises:
        NoBrowser: there is no Chromium here.
    """
    program, path = browser(), root / FOLDER / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = _stamp(root)
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    about = {key: config[key] for key in ("title", "author")}
    print_page(program, page, path, about | {"made": f"Printed on {date.today().isoformat()}"})
    (path.parent / "stamp").write_text(stamp, "utf-8")
    return path


def print_page(program: str, page: Path, path: Path, about: dict[str, str]) -> None:
    """Open the page in Chromium, make a book of it, and print that."""
    import pikepdf
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
        # Chromium knows on which page a heading is once it has printed it, and not before.
        view.evaluate(_NUMBER, page_numbers(view.pdf(**_PRINT)))
        printed = view.pdf(**_PRINT)
        chromium.close()
    with pikepdf.open(io.BytesIO(printed)) as book:
        # What a screen reader needs is most of the file, unless it is compressed, too.
        book.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate)


_PRINT = {"prefer_css_page_size": True, "outline": True, "tagged": True}
#: Writes the page of its heading beside each entry of the contents.
_NUMBER = """(pages) => document.querySelectorAll(".book-contents a").forEach(
    (entry) => { entry.dataset.page = pages[entry.hash.slice(1)]; })"""


def page_numbers(printed: bytes) -> dict[str, int]:
    """Id of a heading -> the number of the page that it is on."""
    import pikepdf

    with pikepdf.open(io.BytesIO(printed)) as book:
        numbers = {page.objgen: number for number, page in enumerate(book.pages, 1)}
        places = book.Root.get("/Dests", {})
        return {name[1:]: numbers[place[0].objgen] for name, place in places.items()}
