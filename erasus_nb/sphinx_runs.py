"""The site's extension: run outputs under committed sources, numbers into markdown pages.

Notebooks are committed without outputs and papermill runs them into `_runs/`. While Sphinx
reads a page, `graft` lays that run's outputs under the source if, and only if, the run
finished and its code equals the source's code; otherwise the page says so. The page in
`erasus_live` is executed during the build, from result JSON alone. Markdown pages write
`{{ first_synthetic }}`; `substitutions` fills it from the rows.

Importing this module imports neither torch nor the score.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util import logging

from . import ROOT, progress, records, selection
from .cells import code_cells, tags_of, text_of

# `categories` and `unfinished` are asked for here by checks outside of this project.
from .selection import categories, choose_rows, unfinished  # noqa: F401
from .tables import interval
from .workloads import WORKLOADS

if TYPE_CHECKING:
    from .score import Board
    from .selection import Rows

log = logging.getLogger(__name__)

#: What every number says where no row answers for it, and where rows of other code would.
UNKNOWN = "not measured yet"
STALE = "not measured with the code that is here"
NO_ROWS = "*No rows yet: `make book` measures them.*"
#: Stands for what all workloads say together where no board may rank.
NOT_RANKED = "*Nothing is ranked: no workload passes its gates.*"


# ------------------------------------------------------------------ outputs under sources


def _code(nb: dict) -> list[dict]:
    return [c for _, c in code_cells(nb) if "injected-parameters" not in tags_of(c)]


def _ran_through(cell: dict) -> bool:
    # papermill calls a timed-out cell "completed"; what the kernel left tells the truth.
    if not text_of(cell).strip():
        return True
    raised = any(output["output_type"] == "error" for output in cell["outputs"])
    return cell["execution_count"] is not None and (
        not raised or "raises-exception" in tags_of(cell)
    )


def finished(run: dict) -> bool:
    """Whether an executed notebook ran to its end without an unexpected error."""
    about = run["metadata"].get("papermill", {})
    if about and (about.get("exception") or not about.get("end_time")):
        return False
    # Sources carry no language_info; papermill adds it after the last cell.
    return "language_info" in run["metadata"] and all(map(_ran_through, _code(run)))


def same_code(source: dict, run: dict) -> bool:
    """Whether a run executed exactly the source's code cells; prose does not count."""
    return [text_of(c) for c in _code(source)] == [text_of(c) for c in _code(run)]


def read_run(path: Path) -> dict | None:
    """An executed notebook, or None for a file that is not a whole notebook."""
    try:
        run = json.loads(path.read_text("utf-8"))
        return run if run["cells"] is not None and run["metadata"] is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def _markdown(name: str, text: str) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _box(name: str, kind: str, text: str) -> dict:
    return _markdown(name, f":::{{{kind}}}\n{text}\n:::")


def _is_smoke(run: dict) -> bool:
    return run["metadata"].get("papermill", {}).get("parameters", {}).get("profile") == "smoke"


def _about(run: dict) -> list[dict]:
    """One line on when and how the outputs were made, louder if they mean nothing."""
    about = run["metadata"].get("papermill", {})
    if not about:
        return []
    given = about.get("parameters", {}).items()
    shown = ", ".join(f"{code_span(k)} = {code_span(json.dumps(v))}" for k, v in given)
    when, seconds = text_span(about["start_time"][:10]), about.get("duration") or 0
    line = f"Outputs of a run on {when} with {shown or 'the default parameters'}; {seconds:.0f} s."
    if _is_smoke(run):
        line += (
            " A **smoke run**: so small that its numbers mean nothing. "
            "It only shows that everything runs."
        )
        return [_box("run-note", "caution", line)]
    return [_markdown("run-note", f"```{{div}} run-note\n{line}\n```")]


#: How Jupyter stores what needs a kernel to be shown.
_WIDGET = "application/vnd.jupyter.widget-view+json"


def _still(outputs: list[dict]) -> list[dict]:
    """A cell's outputs as a page shows them: no progress, and no widget beside its HTML.

    Sphinx would prefer the widget and load its scripts from elsewhere.
    """
    left = []
    for output in progress.without(outputs):
        data = output.get("data", {})
        if _WIDGET in data and "text/html" in data:
            output = {**output, "data": {k: v for k, v in data.items() if k != _WIDGET}}
        left.append(output)
    return left


def _led(outputs: list[dict]) -> list[dict]:
    """Outputs whose links to a Markdown file of the book, for JupyterLab, lead to its page."""
    text = json.dumps(outputs)
    return json.loads(re.sub(r'(href=\\"\.\./docs/[\w-]+)\.md\b', r"\1.html", text))


def lay(source: dict, run: dict | None, command: str) -> str | None:
    """Lay a run's outputs under a source, in place.

    The output of the cell tagged `glance` moves to directly below the first cell (the title
    and the page's question), as a cell of its own without code.

    Args:
        source: The committed notebook; it is changed.
        run: The executed notebook; None if the file is not a whole notebook.
        command: What runs this page, shown where there are no outputs.

    Returns:
        None if the outputs were laid; else why not, as half a sentence.
    """
    if run is None or not finished(run):
        why = "the last run did not finish"
    elif not same_code(source, run):
        why = "the code has changed since the last run"
    else:
        why = None
    if why:
        text = f"Shown without outputs: {why}. Run {command}, then build again."
        source["cells"].insert(1, _box("run-note", "warning", text))
        return why

    lifted = []
    for here, there in zip(_code(source), _code(run)):
        if "glance" in tags_of(here):
            # With its source, which stays hidden: myst-nb skips cells without any.
            glance = {**here, "id": f"lifted-{len(lifted)}"}
            glance["metadata"] = {"tags": ["remove-input"]}
            glance["outputs"] = _led(_still(there["outputs"]))
            glance["execution_count"] = there["execution_count"]
            lifted.append(glance)
        else:
            here["outputs"] = _still(there["outputs"])
            here["execution_count"] = there["execution_count"]
    about, smoke = _about(run), _is_smoke(run)
    # That the numbers mean nothing is said before them.
    source["cells"][1:1] = about + lifted if smoke else lifted + about
    return None


def _drop_empty(source: dict) -> None:
    """Cells that would show neither code nor output leave no gap on the page."""
    for cell in _code(source):
        if tags_of(cell) & {"glance", "remove-input"} and not cell["outputs"]:
            cell["metadata"] = {**cell["metadata"], "tags": sorted(tags_of(cell) | {"remove-cell"})}


def _depends_on(app, docname: str) -> list[Path]:
    """Files outside the source tree that a page is made of."""
    root = Path(app.srcdir)
    if docname in app.config.erasus_live:
        # Which rows belong to the code that is here is read from the pages and the tuned settings.
        code = [Path(__file__).parent.rglob("[!.]*.py"), (root / "notebooks").glob("[!.]*.ipynb")]
        code.append((root / "notebooks" / "tuned").glob("[!.]*.json"))
        rows = map(records.paths, (root / app.config.erasus_results).glob("[!.]*"))
        return sorted(path for paths in (*rows, *code) for path in paths)
    source = Path(app.env.doc2path(docname))
    run = root / app.config.erasus_runs / source.name
    return [run] if source.suffix == ".ipynb" and run.is_file() else []


def _stamp(paths: list[Path]) -> str:
    lines = [f"{p} {p.stat().st_mtime_ns} {p.stat().st_size}" for p in paths]
    return hashlib.sha256(
        "\n".join([*lines, os.environ.get("ERASUS_ROWS", "")]).encode()
    ).hexdigest()


def _memory(env) -> tuple[dict, set]:
    """What earlier builds knew: page -> stamp of its files, and the pages left stale."""
    if not hasattr(env, "erasus_stamps"):
        env.erasus_stamps, env.erasus_stale = {}, set()
    return env.erasus_stamps, env.erasus_stale


def outdated(app, env, added, changed, removed) -> list[str]:
    """Pages to read again: their files changed, or they must repeat their warning.

    Without the second, a stale page would warn in the first build only, and `-W` would pass
    in the next.
    """
    stamps, stale = _memory(env)
    return [
        doc
        for doc in sorted(env.found_docs)
        if doc in stale or stamps.get(doc) != _stamp(_depends_on(app, doc))
    ]


def graft(app, docname: str, content: list[str]) -> None:
    """Sphinx `source-read`: put outputs, or one honest line, into a notebook's source."""
    stamps, stale = _memory(app.env)
    paths = _depends_on(app, docname)
    stamps[docname] = _stamp(paths)
    stale.discard(docname)
    source = Path(app.env.doc2path(docname))
    if source.suffix != ".ipynb":
        return
    nb = json.loads(content[0])
    command = f"`papermill {docname}.ipynb {app.config.erasus_runs}/{source.name}`"
    if docname in app.config.erasus_live:
        nb["metadata"]["mystnb"] = {"execution_mode": "force", "execution_timeout": 300}
    elif not paths:
        text = "Shown without outputs: this page has not been run here."
        text += f" Run {command} and build again."
        nb["cells"].insert(1, _box("run-note", "tip", text))
        _drop_empty(nb)
    else:
        why = lay(nb, read_run(paths[0]), command)
        if why:
            stale.add(docname)
            log.warning(
                "outputs left out: %s", why, location=docname, type="erasus", subtype="stale"
            )
        _drop_empty(nb)
    content[0] = json.dumps(nb)


# ------------------------------------------------------------------ numbers in markdown pages


def text_span(text: object) -> str:
    """Any text as one line of plain markdown text: nothing in it is markup or HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(text).split()))


def code_span(text: object) -> str:
    """Any text as one inline code span, safe inside a table too."""
    return "`" + " ".join(re.sub(r"[`|]", " ", str(text)).split()) + "`"


def _top_table(board: Board, best: int) -> str:
    """The best strategies and every reference, control and baseline, as a markdown table."""
    lines = [
        "| Row | What it is | Retrain-Match (95 % interval) | Tier | Flags |",
        "|---|---|--:|---|---|",
    ]
    shown = [*board.of("strategy")[:best], *(s for s in board.standings if s.kind != "strategy")]
    for standing in shown:
        what = [standing.kind, "analogue" if standing.analogue else "", standing.product]
        remarks = [*standing.flags]
        if standing.status == "partial":
            remarks.append(f"not ranked: {standing.reason}")
        cells = [
            code_span(standing.name),
            text_span(", ".join(filter(None, what))),
            interval(standing.rm) if standing.rm else f"— {text_span(standing.reason or '')}",
            standing.tier or "",
            text_span(", ".join(remarks)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


#: References and controls whose score stands in prose.
_YARDSTICKS = (
    "original",
    "retrained",
    "random_init",
    "partial_retrain",
    "npo",
    "simnpo",
    "null_space_projection",
)


def _facts_of(workload: str, board: Board | None, unknown: str) -> dict[str, str]:
    """The substitutions of one workload; every key exists whatever was measured."""
    keys = ("first", "bar", "bar_rm", *(f"{name}_rm" for name in _YARDSTICKS))
    facts = {f"{key}_{workload}": unknown for key in keys}
    # Counts stand before a noun: "no training seeds".
    counts = ("seeds", "n_strategies", "n_no_better")
    facts |= {f"{key}_{workload}": "no" for key in counts}
    facts[f"top_table_{workload}"] = NO_ROWS
    facts[f"missing_{workload}"] = ""
    if board is None:
        return facts
    if not board.gates_passed:
        failed = ", ".join(gate.name for gate in board.gates if not gate.passed)
        why = "not ranked (a gate failed)"
        facts |= {key: why for key in facts if facts[key] not in ("no", "")}
        facts[f"top_table_{workload}"] = f"*Not ranked: failed gates: {text_span(failed)}.*"
        return facts
    from . import score

    ranked = [s for s in board.of("strategy") if s.rank]
    by_name = {s.name: s for s in board.standings}
    facts[f"seeds_{workload}"] = str(len(board.seeds))
    facts[f"n_strategies_{workload}"] = str(len(ranked))
    # Whoever is called first has a line, and five have one anyway.
    lines = [n for n, s in enumerate(board.of("strategy"), 1) if s in board.leaders]
    facts[f"top_table_{workload}"] = _top_table(board, max([5, *lines]))
    facts[f"first_{workload}"] = score.first_place(board, code_span)
    facts[f"missing_{workload}"] = score.what_is_missing(board, code_span)
    facts[f"n_no_better_{workload}"] = str(len(ranked) - len(board.above_control))
    if board.bar is not None:
        facts[f"bar_{workload}"] = code_span(board.bar.name)
        facts[f"bar_rm_{workload}"] = interval(board.bar.rm)
    for name in _YARDSTICKS:
        if name in by_name:
            row = by_name[name]
            why = (
                UNKNOWN
                if row.status == "ok"
                else f"no result ({text_span(row.reason or row.status)})"
            )
            facts[f"{name}_rm_{workload}"] = interval(row.rm, unknown=why)
    return facts


#: Numbers and pictures of the whole book that stand on the front page.
_OVERALL = ("answer", "advice", "early", "certainty", "heat_map", "overall_table", "overall_notes")


def _without_boards(text: str) -> dict[str, str]:
    """What the substitutions on the whole book say where there is no board; some are then empty."""
    none = dict.fromkeys(("n_strategies", "n_workloads"), "no")
    return {**dict.fromkeys(_OVERALL, text), **none, "closeness": "", "other_requests": ""}


def _overall_facts(boards: dict[str, Board], root: Path) -> dict[str, str]:
    """The substitutions on all workloads together; only boards that pass their gates count."""
    from . import advice, front, overall, score

    order = sorted(boards, key=lambda name: [*WORKLOADS, name].index(name))
    shown = score.standard({w: boards[w] for w in order if boards[w].gates_passed})
    if not shown:
        return dict.fromkeys(_OVERALL, NOT_RANKED) if boards else {}
    lines = overall.overall(shown)
    count = len(shown)
    known = front.marks(root)
    columns = front.overall_columns(known, count)

    def linked(row: str) -> str:
        return front.name(row, known)

    return {
        "answer": overall.first_place(lines, linked) + ".",
        "closeness": advice.closeness(lines, shown, linked),
        "advice": "\n".join(f"- {said}" for said in advice.advice(lines, linked, root)),
        "early": advice.early(shown, code_span),
        "certainty": advice.certainty(shown, code_span),
        "heat_map": front.heat_map(lines, shown, root=root),
        "overall_table": front.overall_table(lines, root=root, more=False),
        "overall_notes": front.notes([c for c in columns if not c.more], score.FLAGS),
        "n_strategies": str(sum(line.kind == "strategy" for line in lines)),
        "n_workloads": str(count),
    }


def _stamp_text(rows: Rows) -> str:
    documents = [d for group in rows.documents.values() for d in group]
    profiles = " and ".join(sorted({d.profile for d in documents}))
    made = records.stamp(row for d in documents for row in d.rows)
    aside = rows.left_aside()
    return text_span(f"profile {profiles}; {made}" + (f". {aside.rstrip('.')}" if aside else ""))


def _downloads(root: Path, folder: Path, rows: Rows) -> str:
    """A markdown list with one download per document that has rows on the site."""
    lines = []
    for path in records.paths(folder):
        if path.stem not in {d.category for d in rows.documents.get(path.parent.name, ())}:
            continue
        where = path.relative_to(root).as_posix()
        lines.append(f"- {text_span(path.parent.name)}: {{download}}`{path.stem}.json </{where}>`")
    return "\n".join(lines)


def _other_requests(boards: dict[str, Board]) -> str:
    """A sentence on each board of another request than the standard one; "" if there is none."""
    from . import score

    usual = score.standard(boards)
    return " ".join(
        f"{code_span(board.facts.get('workload', name))} has another request, "
        f"{code_span(board.facts['request_kind'])}, with "
        f"{sum(bool(s.rank) for s in board.of('strategy'))} strategies: its board is on the "
        "[leaderboard](notebooks/leaderboard.ipynb) and does not enter the mean."
        for name, board in boards.items()
        if name not in usual
    )


def substitutions(root: str | Path = ROOT) -> dict[str, str]:
    """Substitution name -> markdown for the book's markdown pages, computed from rows.

    For each workload W: first_W and missing_W (sentences on who is first and on what the
    comparison leaves out), original_rm_W, retrained_rm_W, random_init_rm_W,
    partial_retrain_rm_W, npo_rm_W, simnpo_rm_W, null_space_projection_rm_W, seeds_W, n_strategies_W, top_table_W, and
    bar_W, bar_rm_W and n_no_better_W for the best cheap control; and for the whole book
    rows_stamp and downloads; closeness, answer, advice, early and certainty (sentences on all
    workloads together), heat_map, overall_table and overall_notes (HTML), n_strategies and n_workloads,
    other_requests (sentences on boards that do not enter the mean; may be empty).
    Without rows every value is an honest phrase.

    Raises:
        records.RecordError: a result file is unreadable or foreign; it is named. Or none of
            the rows was made with the code that is here.
        ValueError: ERASUS_ROWS names no rows that may be shown.
    """
    root = Path(root)
    folder = choose_rows(root)
    facts = {"rows_stamp": "no rows have been measured yet", "downloads": NO_ROWS}
    facts |= _without_boards(NO_ROWS)
    boards, stale = {}, {}
    if folder is not None:
        from . import score  # here, so that a site without rows needs no statistics

        rows = selection.usable(folder, root)
        boards, stale = score.boards_of(rows), rows.aside
        facts |= {"rows_stamp": _stamp_text(rows), "downloads": _downloads(root, folder, rows)}
        facts |= _overall_facts(boards, root) | {"other_requests": _other_requests(boards)}
    for workload in dict.fromkeys([*WORKLOADS, *boards]):
        unknown = STALE if workload in stale else UNKNOWN
        facts |= _facts_of(workload, boards.get(workload), unknown)
    return facts


def fill(app, config) -> None:
    """Sphinx `config-inited`: compute the substitutions; unusable rows are a warning."""
    try:
        facts = substitutions(app.srcdir)
    except (records.RecordError, ValueError) as error:
        log.warning("rows left out: %s", error, type="erasus", subtype="rows")
        unusable = "not shown (the rows could not be used)"
        facts = dict.fromkeys(("rows_stamp", "downloads"), unusable) | _without_boards(unusable)
        for workload in WORKLOADS:
            facts |= dict.fromkeys(_facts_of(workload, None, UNKNOWN), unusable)
    config.myst_substitutions = {**config.myst_substitutions, **facts}


def take_boards(app, exception) -> None:
    """Sphinx `build-finished`: the boards as files, where the leaderboard's links lead to."""
    made = Path(app.srcdir) / "_build" / "boards"
    if exception is None and made.is_dir() and app.builder.format == "html":
        shutil.copytree(made, Path(app.outdir) / "_build" / "boards", dirs_exist_ok=True)


def setup(app):
    """Connect the extension to Sphinx."""
    # The live page's kernel starts in notebooks/ and must find the package uninstalled, too.
    parts = [str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
    # And it is this environment's kernel, whatever kernels the user has.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    app.add_config_value("erasus_runs", "_runs", "env")
    app.add_config_value("erasus_results", "results", "env")
    app.add_config_value("erasus_live", [], "env")
    app.connect("config-inited", fill)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", graft)
    app.connect("build-finished", take_boards)
    return {"version": "1", "parallel_read_safe": False}
