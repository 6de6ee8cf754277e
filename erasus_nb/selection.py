"""Which rows are shown: the newest complete run made here, else the published rows.

Importing this module imports neither torch nor the score.
"""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import ROOT, cells, records
from .parameters import strategies_in

#: Profiles of local runs that may fill the site. `smoke` rows are for plumbing only.
BOARD_PROFILES = ("laptop", "full")
PUBLISHED = "published"


def categories(root: Path) -> list[str]:
    """The strategy pages: every notebook of the book but the leaderboard."""
    return [name for name in cells.pages_in(root / "notebooks") if name != "leaderboard"]


def controls() -> list[str]:
    """Names of the controls that every workload measures, read without importing torch."""
    tree = ast.parse(Path(__file__).with_name("controls.py").read_text("utf-8"))
    return [
        node.name
        for node in tree.body
        for mark in getattr(node, "decorator_list", [])
        for given in getattr(mark, "keywords", [])
        if given.arg == "category" and getattr(given.value, "value", None) == "Control"
    ]


def _read(folder: Path) -> tuple[dict[tuple[str, str], records.Document], list[str]]:
    """(workload, category) -> document, and what is wrong with the files that are none."""
    found, wrong = {}, []
    for path in records.paths(folder):
        where = f"{path.parent.name}/{path.name}"
        try:
            document = records.read(path)
        except records.RecordError:
            wrong.append(f"a usable {where}")
            continue
        named = document.workload, document.category
        if named != (path.parent.name, path.stem):
            wrong.append(f"a {where} of its own (it says that it is {'/'.join(named)})")
        elif document.profile != folder.name:
            wrong.append(f"{folder.name} rows in {where} (it is of profile {document.profile})")
        else:
            found[named] = document
    return found, wrong


def _gaps(wanted: Iterable[str], seeds: set[int], ran: Mapping[str, set[int]]) -> list[str]:
    """Of each name that is not there at every seed, the name and where it lacks."""
    lacking = []
    for name in wanted:
        if missing := sorted(seeds - ran.get(name, set())):
            where = f"{'seed' if len(missing) == 1 else 'seeds'} {', '.join(map(str, missing))}"
            lacking.append(f"{name} at {where}")
    return lacking


def unfinished(folder: Path, pages: list[str]) -> list[str]:
    """What a complete run has and this folder lacks, a few words each.

    A complete run has a document of every strategy page. On each workload it has the
    reference rows, every control among them; and a page that has a document there has a row
    of each strategy it defines, at every seed of the reference rows. The strategies are read
    from the pages of the project that the folder is in (`results/<profile>`). A file that
    cannot be used makes a run incomplete too.
    """
    documents, lacking = _read(folder)
    if not documents and not lacking:
        return ["any rows"]
    notebooks = folder.absolute().parents[1] / "notebooks"
    ran: dict[tuple[str, str], dict[str, set[int]]] = {}
    for place, document in documents.items():
        ran[place] = defaultdict(set)
        for row in document.rows:
            ran[place][row.strategy].add(row.seed)
    there = {category for _, category in documents}
    lacking += [f"rows of {page}" for page in pages if page not in there]
    defined = {p: strategies_in(notebooks / f"{p}.ipynb") for p in pages if p in there}
    always = ("original", "retrained", *controls())
    for workload in sorted({workload for workload, _ in documents}):
        reference = ran.get((workload, "reference"))
        if not reference:
            lacking.append(f"reference rows of {workload}")
            continue
        seeds = set().union(*reference.values())
        wanted = {"reference": dict.fromkeys((*always, *reference))} | defined
        for page, names in wanted.items():
            if (workload, page) in ran:
                gaps = _gaps(names, seeds, ran[workload, page])
                lacking += [f"{gap} on {workload}" for gap in gaps]
        # The gates are computed when the last reference row is there.
        if not documents[workload, "reference"].gates:
            lacking.append(f"the end of the reference rows of {workload}")
    return lacking


def choose_rows(root: str | Path = ROOT) -> Path | None:
    """The folder of rows that the site shows, or None where there are none to show.

    The newest complete local run of a board profile; else the published rows. Smoke rows are
    never chosen. The environment variable ERASUS_ROWS names a folder of results/ instead.

    Raises:
        ValueError: ERASUS_ROWS names smoke rows, or rows that do not exist.
    """
    root = Path(root)
    results, wanted = root / "results", os.environ.get("ERASUS_ROWS")
    if wanted:
        allowed = [*BOARD_PROFILES, PUBLISHED]
        if wanted not in allowed:
            raise ValueError(f"ERASUS_ROWS is {wanted!r}; allowed: {', '.join(allowed)}")
        if not records.paths(results / wanted):
            raise ValueError(f"ERASUS_ROWS is {wanted!r}, but results/{wanted} has no rows")
        return results / wanted
    pages = categories(root)
    local = [
        folder
        for folder in (results / profile for profile in BOARD_PROFILES)
        if not unfinished(folder, pages)
    ]
    if local:
        return max(local, key=lambda folder: max(p.stat().st_mtime for p in records.paths(folder)))
    published = results / PUBLISHED
    return published if records.paths(published) else None
