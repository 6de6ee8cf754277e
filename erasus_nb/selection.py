"""Which rows are shown: those of the code that is here, of the newest complete run made here,
else the published ones.

Importing this module imports neither torch nor the score.
"""

from __future__ import annotations

import ast
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import ROOT, cells, keys, records
from .parameters import strategies_in

#: Profiles of local runs that may fill the site. `smoke` rows are for plumbing only.
BOARD_PROFILES = ("laptop", "full")
PUBLISHED = "published"


#: The page that is made of the rows alone, while the site is built.
LIVE = "leaderboard"
#: Pages that are run like strategy pages, and make no rows of the book.
GUIDES = ("your_own",)


def runnable(root: Path) -> list[str]:
    """The pages that are run before the site is built: every notebook of the book but one."""
    return [name for name in cells.pages_in(root / "notebooks") if name != LIVE]


def categories(root: Path) -> list[str]:
    """The strategy pages."""
    return [name for name in runnable(root) if name not in GUIDES]


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


# ------------------------------------------------------------------ rows of the code here

#: Why a row is left aside.
EDITED = "ran with a strategy that had been edited"
OTHER = "were made with other code, settings or sizes than those that are here"
NOBODY = "are of strategies that their page does not define"
MISPLACED = "stand in a document where rows of their kind do not belong"
NOWHERE = "are of a workload or profile that is not here"
SILENT = "do not say where and with which code they were made"


@dataclass
class Rows:
    """The rows of one results folder that belong to the code that is here.

    Args:
        documents: Workload -> its documents, `reference` first, with these rows only.
        aside: Workload -> (reason, name of a row) -> how many others there are.
    """

    documents: dict[str, list[records.Document]] = field(default_factory=dict)
    aside: dict[str, Counter] = field(default_factory=dict)

    def left_aside(self, *workloads: str) -> str:
        """One sentence on the rows that were left aside; "" where there are none.

        Args:
            workloads: Only of these; of all if there are none.
        """
        found = Counter()
        for workload, counts in self.aside.items():
            if not workloads or workload in workloads:
                found += counts
        if not found:
            return ""
        parts = []
        for reason in dict.fromkeys(reason for reason, _ in found):
            names = sorted({name for why, name in found if why == reason})
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
            count = sum(n for (why, _), n in found.items() if why == reason)
            parts.append(f"{count} {reason} ({shown})")
        rows = "row is" if found.total() == 1 else "rows are"
        return f"{found.total()} {rows} left aside: {'; '.join(parts)}."


@cache
def _sources(root: Path) -> keys.Sources:
    return keys.sources() if root == ROOT else keys.Sources(root)


def _fits(row: records.Row, document: records.Document) -> bool:
    """Whether a row is of the kind that its document holds."""
    if document.category != "reference":
        return row.kind == "strategy" and row.category.lower() == document.category
    return row.kind == "control" or row.kind == row.strategy


def _objection(row: records.Row, document: records.Document, sources: keys.Sources) -> str | None:
    """Why a row does not belong to the code that is here; None if it does."""
    if row.edited:
        return EDITED
    facts, page = document.facts, document.category
    if not row.code or row.made is None or not isinstance(facts.get("made_by"), str):
        return SILENT
    if not _fits(row, document):
        return MISPLACED
    where = facts["made_by"], str(facts.get("workload", document.workload)), document.profile
    wanted = sources.row_code(*where, "reference")
    if wanted is None:
        return NOWHERE
    if row.kind in ("control", "strategy"):
        place = sources.place_of(page, row.strategy)
        if place is None or place[0].startswith(keys.PAGE) != (row.kind == "strategy"):
            return NOBODY
        wanted = sources.row_code(*where, page, row.strategy)
    return None if wanted == row.code else OTHER


def current(document: records.Document, sources: keys.Sources) -> tuple[records.Document, Counter]:
    """A document with the rows of the code that is here, and why others are left aside.

    Returns:
        The document, and (reason, name of a row) -> how many.
    """
    kept, aside = [], Counter()
    for row in document.rows:
        why = _objection(row, document, sources)
        if why is None:
            kept.append(row)
        else:
            aside[why, row.strategy] += 1
    return document.model_copy(update={"rows": kept}), aside


def load(folder: str | Path, root: str | Path = ROOT) -> Rows:
    """The rows of a results folder that belong to a project's code.

    Args:
        root: The project whose pages count.

    Raises:
        RecordError: a file there is unreadable or foreign; it is named.
    """
    sources, rows = _sources(Path(root)), Rows()
    sources.look()
    for workload, group in records.load(folder).items():
        aside = Counter()
        kept = []
        for document in group:
            document, others = current(document, sources)
            aside += others
            kept += [document] if document.rows or not others else []
        if kept:
            rows.documents[workload] = kept
        if aside:
            rows.aside[workload] = aside
    return rows


def usable(folder: str | Path, root: str | Path = ROOT) -> Rows:
    """The same, where no rows at all are worth an error.

    Raises:
        RecordError: a file cannot be used; it is named. Or all rows there are left aside.
    """
    rows = load(folder, root)
    if rows.aside and not rows.documents:
        raise records.RecordError(f"{folder}: nothing is of the code here. {rows.left_aside()}")
    return rows


# ------------------------------------------------------------------ complete runs


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
    of each strategy it defines, at every seed of the reference rows, made with the code that
    is here. The strategies are read from the pages of the project that the folder is in
    (`results/<profile>`). A file that cannot be used makes a run incomplete too.
    """
    documents, lacking = _read(folder)
    sources = _sources(folder.absolute().parents[1])
    sources.look()
    documents = {place: current(document, sources)[0] for place, document in documents.items()}
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
