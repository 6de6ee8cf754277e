"""The site: outputs under sources, the live page, numbers from rows, and a quiet build."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from unittest.mock import Mock

import fabricate
import pytest
import yaml

from erasus_nb import ROOT, book_pdf, progress, records, selection, sphinx_runs, sphinx_site

# ------------------------------------------------------------------ notebooks made for tests


def md(text):
    return {"cell_type": "markdown", "id": "", "metadata": {}, "source": text}


def code(source, *tags):
    return {
        "cell_type": "code",
        "id": "",
        "metadata": {"tags": list(tags)},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def notebook(*cells):
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": list(cells),
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def page(title):
    return notebook(
        md(f"# {title}\n\nIs anything left?"),
        code("seed: int = 0", "parameters"),
        md("Prose in the middle."),
        code(f"print('answer of {title}')"),
        code("show_glance()", "glance", "remove-input"),
        md("The end."),
    )


def stream(text):
    return [{"output_type": "stream", "name": "stdout", "text": text}]


def executed(source, profile="laptop"):
    """What papermill leaves: outputs, counts, an injected cell, and language_info at the end."""
    run = copy.deepcopy(source)
    for count, cell in enumerate((c for c in run["cells"] if c["cell_type"] == "code"), 1):
        cell["execution_count"] = count
        printed = re.search(r"'(.+)'", cell["source"])
        if printed:
            cell["outputs"] = stream(printed[1].upper())
        if "glance" in cell["metadata"]["tags"]:
            cell["outputs"] = stream("AT A GLANCE")
    injected = code("seed = 1", "injected-parameters")
    injected |= {"id": "injected", "execution_count": 99, "outputs": stream("INJECTED")}
    run["cells"].insert(2, injected)
    run["metadata"]["language_info"] = {"name": "python"}
    run["metadata"]["papermill"] = {
        "parameters": {"profile": profile},
        "start_time": "2026-01-31T12:00:00",
        "end_time": "2026-01-31T12:01:00",
        "duration": 63.2,
        "exception": None,
    }
    return run


def texts(nb):
    return [c["source"] for c in nb["cells"]]


# ------------------------------------------------------------------ laying outputs, one rule each


def test_outputs_of_a_finished_run_of_the_same_code_are_laid_under_the_source():
    source = page("Page")
    assert sphinx_runs.lay(source, executed(source), "`run`") is None
    cell = next(c for c in source["cells"] if "print" in c["source"])
    assert cell["outputs"] == stream("ANSWER OF PAGE")
    assert "INJECTED" not in json.dumps(source) and "seed = 1" not in json.dumps(source)


def test_the_glance_moves_below_the_title_and_leaves_nothing_behind():
    source = page("Page")
    sphinx_runs.lay(source, executed(source), "`run`")
    lifted = source["cells"][1]
    assert lifted["outputs"] == stream("AT A GLANCE")
    assert "remove-input" in lifted["metadata"]["tags"]
    assert json.dumps(source).count("AT A GLANCE") == 1
    ids = [cell["id"] for cell in source["cells"]]
    assert len(set(ids)) == len(ids)


def test_the_links_of_the_glance_lead_to_pages_of_the_site():
    link = {"data": {"text/html": ['<a href="../docs/glossary.md">words</a>, docs/glossary.md']}}
    (led,) = sphinx_runs._led([link])
    assert led["data"]["text/html"] == [
        '<a href="../docs/glossary.html">words</a>, docs/glossary.md'
    ]


def test_the_page_says_when_and_with_what_it_was_run():
    source = page("Page")
    sphinx_runs.lay(source, executed(source), "`run`")
    note = source["cells"][2]["source"]
    assert r"2026\-01\-31" in note and "profile" in note and "63 s" in note


def test_a_smoke_run_says_that_its_numbers_mean_nothing():
    source = page("Page")
    sphinx_runs.lay(source, executed(source, "smoke"), "`run`")
    assert "{caution}" in source["cells"][1]["source"]  # before the glance
    assert "mean nothing" in source["cells"][1]["source"]
    assert source["cells"][2]["outputs"] == stream("AT A GLANCE")


def test_progress_lines_are_not_laid():
    source = page("Page")
    run = executed(source)
    line = {"output_type": "stream", "name": "stderr", "text": f"{progress.MARK}scrub, 00:08\r"}
    for cell in run["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [line, *cell["outputs"]]
    sphinx_runs.lay(source, run, "`run`")
    assert progress.MARK not in json.dumps(source)
    assert source["cells"][1]["outputs"] == stream("AT A GLANCE")
    assert source["cells"][-3]["outputs"] == stream("ANSWER OF PAGE")


def with_slider(run):
    """The run as a kernel leaves it whose page shows a slider and, beside it, its still picture."""
    data = {
        "text/html": "<figure>STILL PICTURE</figure>",
        "application/vnd.jupyter.widget-view+json": {"model_id": "m", "version_major": 2},
    }
    cell = next(c for c in run["cells"] if c["source"].startswith("print"))
    cell["outputs"] = [
        *cell["outputs"],
        {"output_type": "display_data", "data": data, "metadata": {}},
    ]
    state = {"m": {"model_name": "SliderModel", "model_module": "x", "state": {}}}
    kept = {"version_major": 2, "version_minor": 0, "state": state}
    run["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": kept}
    return run


def test_a_slider_is_laid_as_its_still_picture():
    source = page("Page")
    sphinx_runs.lay(source, with_slider(executed(source)), "`run`")
    text = json.dumps(source)
    assert "STILL PICTURE" in text and "widget" not in text


def test_a_change_of_text_keeps_the_outputs_and_a_change_of_code_drops_them():
    run = executed(page("Page"))
    retold = page("Page")
    retold["cells"][2]["source"] = "Other prose."
    retold["cells"].append(md("More prose."))
    assert sphinx_runs.lay(retold, run, "`run`") is None

    changed = page("Page")
    changed["cells"][3]["source"] = "print('another answer')"
    assert "code has changed" in sphinx_runs.lay(changed, run, "`run`")
    assert "{warning}" in changed["cells"][1]["source"]
    assert "ANSWER" not in json.dumps(changed) and "GLANCE" not in json.dumps(changed)


def raised(run):
    run["cells"][4]["outputs"] = [
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run["metadata"].pop("language_info"),
        lambda run: run["metadata"]["papermill"].update(exception=True),
        lambda run: run["metadata"]["papermill"].update(end_time=None),
        lambda run: run["cells"][4].update(execution_count=None),
        raised,
    ],
    ids=["killed", "failed", "terminated", "timed out", "raised"],
)
def test_a_run_that_did_not_finish_is_not_shown(spoil):
    source = page("Page")
    run = executed(source)
    spoil(run)
    assert sphinx_runs.lay(source, run, "`run`") == "the last run did not finish"
    assert "ANSWER" not in json.dumps(source)


def test_an_error_that_the_page_expects_is_shown():
    source = notebook(md("# T\n\nQ"), code("1 / 0", "raises-exception"))
    run = executed(source)
    run["cells"][1]["outputs"] = [
        {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []}
    ]
    assert sphinx_runs.lay(source, run, "`run`") is None
    assert source["cells"][-1]["outputs"][0]["ename"] == "ZeroDivisionError"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"cells": null}'])
def test_a_file_that_is_no_notebook_counts_as_an_unfinished_run(tmp_path, text):
    path = tmp_path / "run.ipynb"
    path.write_text(text)
    assert sphinx_runs.lay(page("Page"), sphinx_runs.read_run(path), "`run`")


# ------------------------------------------------------------------ which rows, and their text

PAGES = ("gradient", "parameter", "data", "llm", "ensemble")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of five strategy pages that define what is fabricated, and no rows."""
    monkeypatch.delenv("ERASUS_ROWS", raising=False)
    (tmp_path / "notebooks").mkdir()
    for name in (*PAGES, "leaderboard"):
        defined = [n for n, (c, *_) in fabricate.STRATEGIES.items() if c.lower() == name]
        nb = notebook(code(fabricate.defining(defined), "strategy"))
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps(nb))
    return tmp_path


def edit(project, name, old="return model", new="return model.eval()"):
    """Other code in a page of the project."""
    path = project / "notebooks" / f"{name}.ipynb"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def put(project, folder, profile="laptop", at=None, **more):
    made = fabricate.documents(profile=profile, **more)
    path = fabricate.write(project / "results" / folder, made)
    for file in path.glob("*/*.json"):
        if at is not None:
            os.utime(file, (at, at))
    return path


def test_without_rows_nothing_is_chosen_and_every_number_says_so(project):
    assert selection.choose_rows(project) is None
    facts = sphinx_runs.substitutions(project)
    assert facts["first_synthetic"] == facts["original_rm_digits"] == "not measured yet"
    assert "No rows yet" in facts["top_table_synthetic"]


def test_smoke_rows_are_never_chosen(project, monkeypatch):
    put(project, "smoke", "smoke")
    assert selection.choose_rows(project) is None
    monkeypatch.setenv("ERASUS_ROWS", "smoke")
    with pytest.raises(ValueError, match="ERASUS_ROWS is 'smoke'; allowed: laptop"):
        selection.choose_rows(project)


def test_the_newest_complete_local_run_is_preferred_to_the_published_rows(project, monkeypatch):
    published = put(project, "published", at=3000)
    assert selection.choose_rows(project) == published
    laptop = put(project, "laptop", at=2000)
    assert selection.choose_rows(project) == laptop
    full = put(project, "full", "full", at=1000)
    assert selection.choose_rows(project) == laptop
    (laptop / "synthetic" / "reference.json").unlink()
    assert selection.choose_rows(project) == full
    (full / "synthetic" / "data.json").unlink()
    assert selection.choose_rows(project) == published
    monkeypatch.setenv("ERASUS_ROWS", "full")
    assert selection.choose_rows(project) == full


def test_a_run_of_other_code_is_not_preferred_to_published_rows_of_this_code(project):
    laptop = put(project, "laptop")
    assert selection.choose_rows(project) == laptop
    edit(project, "data")
    published = put(project, "published")
    assert selection.choose_rows(project) == published
    assert "left aside" not in sphinx_runs.substitutions(project)["rows_stamp"].replace("\\", "")
    edit(project, "data", "return model.eval()", "return model")
    assert selection.choose_rows(project) == laptop


def stale(folder, workload="*"):
    """Rows that were made with code of another time."""
    for path in folder.glob(f"{workload}/*.json"):
        document = records.read(path)
        for row in document.rows:
            row.code = "of another time"
        records.write(path, document)


def test_the_front_page_says_which_rows_are_of_other_code(project):
    put(project, "published", analogues=("scrub",))
    fabricate.write(project / "results" / "published", fabricate.documents("digits", seeds=2))
    edit(project, "data")
    stale(project / "results" / "published", "digits")
    facts = sphinx_runs.substitutions(project)
    said = facts["rows_stamp"].replace("\\", "")
    count = 5 * 4 + 2 * (2 + 5 + len(fabricate.STRATEGIES))
    assert f"{count} rows are left aside: {count} were made with other code" in said
    assert "sisa" not in facts["top_table_synthetic"]
    assert facts["first_synthetic"] != facts["first_digits"] == sphinx_runs.STALE
    assert facts["first_text"] == sphinx_runs.UNKNOWN
    assert facts["downloads"].count("{download}") == 5  # of synthetic, but for data
    assert "digits" not in facts["downloads"] and "data.json" not in facts["downloads"]


def warnings_of_a_build(project, monkeypatch):
    said = []
    monkeypatch.setattr(
        sphinx_runs.log, "warning", lambda text, *given, **_: said.append(text % given)
    )
    config = Mock(myst_substitutions={})
    sphinx_runs.fill(Mock(srcdir=str(project)), config)
    return said, config.myst_substitutions


def test_rows_none_of_which_are_of_this_code_are_left_out_with_a_warning(project, monkeypatch):
    put(project, "published", seeds=2)
    assert warnings_of_a_build(project, monkeypatch)[0] == []
    stale(project / "results" / "published")
    (said,), facts = warnings_of_a_build(project, monkeypatch)
    assert re.match(r"rows left out: .*published: nothing is of the code here\. 48 rows are", said)
    assert (
        facts["first_synthetic"]
        == facts["rows_stamp"]
        == ("not shown (the rows could not be used)")
    )


def test_rows_of_an_earlier_schema_are_left_out_by_name(project, monkeypatch):
    path = put(project, "published", seeds=2) / "synthetic" / "llm.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    (said,), _ = warnings_of_a_build(project, monkeypatch)
    assert said == f"rows left out: {path}: has schema version 1; this book reads 2"
    shutil.move(project / "results" / "published", project / "results" / "laptop")
    assert selection.choose_rows(project) is None


def test_the_live_page_is_read_again_when_rows_pages_or_tuning_change(project):
    folder = put(project, "laptop", seeds=2)
    (project / "results" / ".publish-x" / "fresh").mkdir(parents=True)
    tuned = project / "notebooks" / "tuned" / "data.json"
    tuned.parent.mkdir()
    tuned.write_text("{}")
    app = Mock(srcdir=str(project))
    app.config.erasus_live, app.config.erasus_results = ["notebooks/leaderboard"], "results"
    app.env.doc2path = lambda name: str(project / f"{name}.ipynb")
    stamp = lambda: sphinx_runs._stamp(sphinx_runs._depends_on(app, "notebooks/leaderboard"))
    before = [stamp()]
    for path in (folder / "synthetic" / "data.json", project / "notebooks" / "llm.ipynb", tuned):
        path.write_text(path.read_text() + "\n")
        before.append(stamp())
    assert len(set(before)) == 4 and stamp() == before[-1]


def drop(path, *, seed=None, strategy=None):
    """Take rows out of a document, as an interrupted run leaves it."""
    document = records.read(path)
    gone = lambda row: (
        row.seed in (seed, row.seed if seed is None else seed)
        and (strategy in (None, row.strategy))
    )
    document.rows = [row for row in document.rows if not gone(row)]
    records.write(path, document)


@pytest.mark.parametrize(
    "file, rows, said",
    [
        ("gradient", {"seed": 4, "strategy": "scrub"}, "scrub at seed 4 on synthetic"),
        ("gradient", {"strategy": "scrub"}, "scrub at seeds 0, 1, 2, 3, 4 on synthetic"),
        ("reference", {"seed": 2, "strategy": "original"}, "original at seed 2 on synthetic"),
        ("reference", {"seed": 2, "strategy": "fine_tune"}, "fine_tune at seed 2 on synthetic"),
        ("reference", {"strategy": "fine_tune"}, "fine_tune at seeds 0, 1, 2, 3, 4 on synthetic"),
    ],
)
def test_an_interrupted_run_is_not_preferred_to_the_published_rows(project, file, rows, said):
    published, laptop = put(project, "published"), put(project, "laptop")
    assert selection.choose_rows(project) == laptop
    drop(laptop / "synthetic" / f"{file}.json", **rows)
    assert selection.unfinished(laptop, selection.categories(project)) == [said]
    assert selection.choose_rows(project) == published


def test_reference_rows_are_complete_when_their_gates_were_computed(project):
    laptop = put(project, "laptop")
    path = laptop / "synthetic" / "reference.json"
    records.write(path, records.read(path).model_copy(update={"gates": []}))
    lacking = selection.unfinished(laptop, selection.categories(project))
    assert lacking == ["the end of the reference rows of synthetic"]


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: path.write_text(path.read_text()[:-40]), "a usable synthetic/data.json"),
        (lambda path: path.write_text("{}"), "a usable synthetic/data.json"),
        (
            lambda path: path.write_text((path.parent / "llm.json").read_text()),
            "a synthetic/data.json of its own (it says that it is synthetic/llm)",
        ),
        (
            lambda path: path.write_text(path.read_text().replace('"laptop"', '"smoke"')),
            "laptop rows in synthetic/data.json (it is of profile smoke)",
        ),
    ],
    ids=["truncated", "foreign", "moved", "another profile"],
)
def test_a_file_that_cannot_be_used_makes_a_run_incomplete_and_is_named(project, spoil, said):
    published, laptop = put(project, "published"), put(project, "laptop")
    spoil(laptop / "synthetic" / "data.json")
    assert selection.unfinished(laptop, selection.categories(project))[0] == said
    assert selection.choose_rows(project) == published


def test_a_page_may_have_run_on_some_workloads_only(project):
    laptop = put(project, "laptop")
    fabricate.write(laptop, fabricate.documents("digits", seeds=2))
    (laptop / "digits" / "llm.json").unlink()
    assert not selection.unfinished(laptop, selection.categories(project))
    put(project, "published")
    assert selection.choose_rows(project) == laptop


def test_the_controls_of_a_complete_run_are_those_that_the_package_has():
    from erasus_nb.controls import CONTROLS

    assert selection.controls() == [control.__name__ for control in CONTROLS]


def test_the_published_rows_of_the_real_pages_are_a_complete_run(tmp_path):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    folder = tmp_path / "results" / "laptop"
    shutil.copytree(ROOT / "results" / "published", folder)
    assert selection.unfinished(folder, selection.categories(ROOT)) == []


def test_strays_of_jupyterlab_and_macos_change_nothing(project):
    laptop = put(project, "laptop")
    facts = sphinx_runs.substitutions(project)
    chapters = [{"file": f"notebooks/{name}"} for name in (*PAGES, "leaderboard")]
    toc = {"format": "jb-book", "root": "intro", "chapters": chapters}
    (project / "_toc.yml").write_text(yaml.safe_dump(toc))
    (project / "notebooks" / "Untitled.ipynb").write_text("{}")
    (laptop / "synthetic" / "._gradient.json").write_text("\0")
    (project / "results" / "full" / ".trash").mkdir(parents=True)
    (project / "results" / "full" / ".trash" / "gradient.json").write_text("{}")
    assert selection.categories(project) == sorted(PAGES)
    assert selection.unfinished(laptop, selection.categories(project)) == []
    assert selection.unfinished(project / "results" / "full", []) == ["any rows"]
    assert selection.choose_rows(project) == laptop
    assert sphinx_runs.substitutions(project) == facts


def test_rows_asked_for_by_name_must_exist(project, monkeypatch):
    monkeypatch.setenv("ERASUS_ROWS", "full")
    with pytest.raises(ValueError, match="results/full has no rows"):
        selection.choose_rows(project)


def test_numbers_in_prose_are_the_boards_numbers(project):
    from erasus_nb import score

    folder = put(project, "laptop")
    facts = sphinx_runs.substitutions(project)
    board = score.boards(folder, project)["synthetic"]
    assert board.gates_passed
    assert facts["n_strategies_synthetic"] == str(len(fabricate.STRATEGIES))
    assert facts["seeds_synthetic"] == "5"
    leaders = [s.name for s in board.leaders]
    assert leaders and re.findall(r"`(\w+)`", facts["first_synthetic"])[: len(leaders)] == leaders
    for name in ("original", "retrained", "random_init", "partial_retrain"):
        assert facts[f"{name}_rm_synthetic"].startswith(f"{board[name].rm.mean:.1f} (")
    table = facts["top_table_synthetic"].splitlines()[2:]
    shown = [re.match(r"\| `(\w+)`", line)[1] for line in table]
    best = max(5, len(leaders))
    assert shown[:best] == [s.name for s in board.of("strategy")][:best]
    assert set(leaders) <= set(shown[:best])
    assert set(shown[best:]) == {"original", "retrained", *fabricate.CONTROLS}
    assert facts["bar_synthetic"] == f"`{board.bar.name}`"
    assert facts["bar_rm_synthetic"].startswith(f"{board.bar.rm.mean:.1f} (")
    worse = [s for s in board.of("strategy") if "not better than control" in s.flags]
    assert facts["n_no_better_synthetic"] == str(len(worse))
    assert "0123456789" in facts["rows_stamp"] and "laptop" in facts["rows_stamp"]
    assert facts["first_digits"] == "not measured yet" and facts["missing_digits"] == ""
    assert facts["downloads"].count("{download}") == 6


@pytest.mark.parametrize("case", fabricate.FIRST)
def test_the_front_page_calls_first_only_who_is_better_than_the_control(project, monkeypatch, case):
    monkeypatch.setenv("ERASUS_ROWS", "laptop")
    put(project, "laptop", **fabricate.FIRST[case])
    facts = sphinx_runs.substitutions(project)
    begins, names = fabricate.SAID[case]
    assert facts["first_synthetic"].startswith(begins.format(*(f"`{name}`" for name in names)))
    assert "`random_label`" in facts["first_synthetic"] and "lora" not in facts["first_synthetic"]
    assert all(f"| `{name}` |" in facts["top_table_synthetic"] for name in names)


def test_the_front_page_says_what_was_measured_where_it_is_more_than_weights(project):
    from erasus_nb import score

    board = score.boards(put(project, "laptop"), project)["synthetic"]
    first = board.of("strategy")[0]
    several = replace(first, product="an ensemble of models")
    others = tuple(s for s in board.standings if s is not first)
    table = sphinx_runs._top_table(replace(board, standings=(several, *others)), 1)
    assert f"| `{first.name}` | strategy, an ensemble of models |" in table.replace("\\", "")


def test_the_front_page_says_what_the_comparison_leaves_out(project, monkeypatch):
    monkeypatch.setenv("ERASUS_ROWS", "laptop")
    put(project, "laptop", missing={"scrub": (3,)})
    facts = sphinx_runs.substitutions(project)
    assert facts["missing_synthetic"] == (
        "Not compared, because they lack seeds: `scrub` (seed 3)."
    )
    assert facts["n_strategies_synthetic"] == str(len(fabricate.STRATEGIES) - 1)
    assert "`scrub`" not in facts["first_synthetic"]


def test_a_board_that_misses_its_gates_gives_no_numbers(project):
    folder = put(project, "laptop", strategies=fabricate.STRATEGIES)
    path = folder / "synthetic" / "reference.json"
    document = records.read(path)
    for row in document.rows:
        if row.kind == "original":
            row.metrics["C1"].value = 0.3
    records.write(path, document)
    facts = sphinx_runs.substitutions(project)
    assert facts["first_synthetic"] == "not ranked (a gate failed)"
    assert "C1 original" in facts["top_table_synthetic"]


def test_text_from_rows_cannot_become_markup(project):
    evil = "<script>x</script> {{ first_digits }} `a` | b\n\n# c [d](e) $f$ {cite}`g`"
    put(project, "laptop", absent={"scrub": ("error", evil), evil: ("error", evil)})
    spoken = sphinx_runs.text_span(evil)
    assert not re.search(r"(?<!\\)[<>{}`|\[\]$#]", spoken) and "\n" not in spoken
    span = sphinx_runs.code_span(evil)
    assert span.count("`") == 2 and "|" not in span and "\n" not in span
    assert sphinx_runs.substitutions(project)["top_table_synthetic"].count("\n") < 20


def test_the_boards_come_with_the_site_where_the_leaderboards_links_lead(tmp_path):
    made, out = tmp_path / "_build" / "boards", tmp_path / "_build" / "html"
    made.mkdir(parents=True)
    (made / "toy.csv").write_text("a,b\n")
    app = Mock(srcdir=tmp_path, outdir=out)
    app.builder.format = "html"
    sphinx_runs.take_boards(app, RuntimeError("no"))
    assert not out.exists()
    sphinx_runs.take_boards(app, None)
    assert (out / "notebooks" / ".." / "_build" / "boards" / "toy.csv").resolve().is_file()


def test_the_live_pages_kernel_is_this_environments(monkeypatch):
    for name in ("PYTHONPATH", "JUPYTER_PREFER_ENV_PATH"):
        monkeypatch.setenv(name, "0")
    sphinx_runs.setup(Mock())
    assert os.environ["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}0"


# ------------------------------------------------------------------ one small book, built

LIVE = """
import json
from pathlib import Path
import erasus_nb
found = sorted(Path.cwd().parent.glob("results/*/*/*.json"))
print("documents:", len(found))
"""


def chapter(name):
    """A tiny page that defines the strategies of its fabricated rows."""
    nb = page(name.title())
    defined = [n for n, (c, *_) in fabricate.STRATEGIES.items() if c.lower() == name]
    nb["cells"].append(code(fabricate.defining(defined), "strategy") | {"id": "defining"})
    return nb


class Book:
    """A book of tiny pages in a folder of its own, with the project's own settings."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("notebooks", "_runs", "docs"):
            (folder / name).mkdir()
        config = yaml.safe_load((ROOT / "_config.yml").read_text())
        extensions = config["sphinx"]["local_extensions"]
        config["sphinx"]["local_extensions"] = dict.fromkeys(extensions, str(ROOT))
        (folder / "_config.yml").write_text(yaml.safe_dump(config))
        chapters = [{"file": f"notebooks/{n}"} for n in (*PAGES, "leaderboard")]
        chapters.append({"file": "docs/downloads"})
        toc = {"format": "jb-book", "root": "intro", "chapters": chapters}
        (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
        (folder / "references.bib").write_text("")
        for name in ("intro.md", "docs/downloads.md", "docs/result.schema.json"):
            text = (ROOT / name).read_text("utf-8")
            (folder / name).write_text(re.sub(r"\]\((?!notebooks/leaderboard)[^)]*\)", "]", text))
        for name in PAGES:
            self.write(name, chapter(name))
        self.write("leaderboard", notebook(md("# Board\n\nWho?"), code(LIVE)))

    def write(self, name, nb):
        (self.folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(nb))

    def run(self, name, nb):
        (self.folder / "_runs" / f"{name}.ipynb").write_text(json.dumps(nb))

    def build(self):
        command = "from jupyter_book.cli.main import main; main()"
        environment = {k: v for k, v in os.environ.items() if k != "ERASUS_ROWS"}
        return subprocess.run(
            [sys.executable, "-c", command, "build", ".", "-W", "--keep-going"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    def html(self, name):
        text = (self.folder / "_build" / "html" / f"{name}.html").read_text("utf-8")
        article = re.search(r"<article.*?</article>", text, flags=re.DOTALL)
        return re.sub(r"\s+", " ", article[0] if article else text)


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """The same book at three moments: a fresh clone; after runs and edits; built once more."""
    book = Book(tmp_path_factory.mktemp("book"))
    moments = {"fresh": (book.build(), {n: book.html(f"notebooks/{n}") for n in PAGES})}
    moments["fresh"][1].update(
        {n: book.html(n) for n in ("intro", "docs/downloads", "notebooks/leaderboard")}
    )

    book.run("gradient", with_slider(executed(chapter("gradient"))))
    book.run("parameter", executed(chapter("parameter")))
    retold = chapter("parameter")
    retold["cells"][2]["source"] = "Prose told anew."
    book.write("parameter", retold)
    book.run("data", executed(chapter("data")))
    changed = chapter("data")
    changed["cells"][3]["source"] = "print('changed answer')"
    book.write("data", changed)
    unfinished = executed(chapter("llm"))
    del unfinished["metadata"]["language_info"]
    book.run("llm", unfinished)
    fabricate.write(book.folder / "results" / "laptop", fabricate.documents(seeds=3))
    done = book.build()
    whole = {n: page_of(book, f"notebooks/{n}") for n in PAGES} | {"intro": page_of(book, "intro")}
    moments["run"] = (done, {n: book.html(f"notebooks/{n}") for n in PAGES}, whole)
    moments["run"][1].update(
        {n: book.html(n) for n in ("intro", "docs/downloads", "notebooks/leaderboard")}
    )

    moments["again"] = (book.build(), {})
    return moments


def test_a_fresh_clone_builds_without_a_warning_and_says_what_is_missing(builds):
    done, html = builds["fresh"]
    assert done.returncode == 0, done.stdout + done.stderr
    for name in PAGES:
        assert html[name].count("Shown without outputs: this page has not been run here") == 1
        assert "print" in html[name] and "show_glance" not in html[name]
    assert "documents: 0" in html["notebooks/leaderboard"]
    assert "not measured yet" in html["intro"] and "No rows yet" in html["docs/downloads"]


def test_only_finished_runs_of_the_same_code_are_shown(builds):
    done, html, _ = builds["run"]
    for name in ("gradient", "parameter"):
        assert f"ANSWER OF {name.upper()}" in html[name]
        assert "Shown without outputs" not in html[name]
    assert "Prose told anew" in html["parameter"]
    for name in ("data", "llm"):
        assert "ANSWER" not in html[name] and "AT A GLANCE" not in html[name]
    assert "the code has changed since the last run" in html["data"]
    assert "the last run did not finish" in html["llm"]
    assert "this page has not been run here" in html["ensemble"]


def test_a_page_with_a_slider_asks_nothing_of_other_hosts(builds):
    assert "STILL PICTURE" in builds["run"][1]["gradient"]
    scripts = {
        name: re.findall(r"<script[^>]*>|https?://[^\s\"'<>]+", text)
        for name, text in builds["run"][2].items()
    }
    assert len(scripts["gradient"]) > 3 and scripts["gradient"] == scripts["parameter"]
    assert "widget-view" not in builds["run"][2]["gradient"]


def test_the_glance_stands_between_the_question_and_the_first_code(builds):
    html = builds["run"][1]["gradient"]
    question, glance = html.index("Is anything left?"), html.index("AT A GLANCE")
    assert question < glance < html.index("cell_input")
    assert html.count("AT A GLANCE") == 1
    assert "show_glance" not in html


def test_the_live_page_and_the_numbers_in_prose_follow_the_rows(builds):
    html = builds["run"][1]
    assert "documents: 6" in html["notebooks/leaderboard"]
    assert "not measured yet" in html["intro"]  # digits has no rows
    assert "0123456789" in html["intro"] and "<table" in html["intro"]
    assert "gradient.json" in html["docs/downloads"]


def test_a_stale_page_fails_the_strict_build_every_time(builds):
    for moment in ("run", "again"):
        done = builds[moment][0]
        assert done.returncode != 0
        for name in ("data", "llm"):
            assert re.search(rf"notebooks/{name}.*outputs left out", done.stderr), moment
        assert done.stderr.count("outputs left out") == 2


def test_the_site_is_built_without_torch():
    program = "import sys, erasus_nb.sphinx_runs, erasus_nb.selection, erasus_nb.charts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# ------------------------------------------------------------------ what every page needs


def config_of(**options):
    return Mock(html_theme_options=options, html_static_path=[], erasus_pdf="")


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/owner/book",
        "https://github.com/owner/book.git",
        "https://github.com/owner/book/",
    ],
)
def test_with_a_repository_notebooks_get_launch_buttons(monkeypatch, url):
    monkeypatch.setenv("ERASUS_REPOSITORY", url)
    monkeypatch.setenv("ERASUS_BRANCH", "paper")
    config = config_of(repository_url="https://github.com/other/one", show_toc_level=2)
    sphinx_site.offer_launch(None, config)
    options = config.html_theme_options
    assert options["repository_url"] == "https://github.com/owner/book"
    assert options["repository_branch"] == "paper" and options["show_toc_level"] == 2
    assert set(options["launch_buttons"]) > {"binderhub_url", "colab_url"}


def test_a_repository_can_stand_in_the_configuration_too(monkeypatch):
    monkeypatch.delenv("ERASUS_REPOSITORY", raising=False)
    monkeypatch.delenv("ERASUS_BRANCH", raising=False)
    config = config_of(repository_url="https://gitlab.com/owner/book", repository_branch="")
    assert sphinx_site.repository(config) == ("https://gitlab.com/owner/book", "main")
    sphinx_site.offer_launch(None, config)
    assert "colab_url" not in config.html_theme_options["launch_buttons"]


def test_without_a_repository_there_is_no_launch_button(monkeypatch):
    monkeypatch.delenv("ERASUS_REPOSITORY", raising=False)
    config = config_of(repository_url="")
    sphinx_site.offer_launch(None, config)
    assert config.html_theme_options["launch_buttons"] == {} and not config.erasus_repository


@pytest.mark.parametrize("url", ["here", "http://github.com/a/b", "https://example.org/a/b"])
def test_an_address_that_no_launcher_opens_is_refused_in_one_sentence(monkeypatch, url):
    said = []
    monkeypatch.setattr(
        sphinx_site.log, "warning", lambda text, *given, **_: said.append(text % given)
    )
    monkeypatch.setenv("ERASUS_REPOSITORY", url)
    config = config_of()
    sphinx_site.offer_launch(None, config)
    assert said == [
        f"no launch buttons: the repository is {url!r}; allowed: https://github.com/OWNER/NAME or "
        "https://gitlab.com/OWNER/NAME"
    ]
    assert config.html_theme_options["launch_buttons"] == {}


@pytest.fixture(scope="module")
def equipped(tmp_path_factory):
    """A small book with a repository, a formula, a medal, and a PDF; its pages' whole HTML."""
    book = Book(tmp_path_factory.mktemp("equipped"))
    told = chapter("gradient")
    table = "# Board\n\n| Rank |\n|---|\n| 🥇 1 |\n\n`🥈`\n"
    told["cells"].insert(1, md("$x^2$"))
    told["cells"].append(code("from IPython.display import Markdown\nMarkdown('board')"))
    book.write("gradient", told)
    run = executed(told)
    output = {"output_type": "display_data", "data": {"text/markdown": table}, "metadata": {}}
    run["cells"][-1]["outputs"] = [output]
    book.run("gradient", run)
    pdf = book.folder / book_pdf.FOLDER / book_pdf.NAME
    pdf.parent.mkdir(parents=True)
    pdf.write_bytes(b"%PDF-1.4")
    stamp = book_pdf._stamp(book.folder)
    (pdf.parent / "stamp").write_text(stamp)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASUS_REPOSITORY", "https://github.com/owner/book")
        done = book.build()
    assert done.returncode == 0, done.stdout + done.stderr
    return book


def page_of(book, name):
    return (book.folder / "_build" / "html" / f"{name}.html").read_text("utf-8")


def test_pages_bring_their_formulas_and_ask_no_other_server(equipped):
    html = page_of(equipped, "notebooks/gradient")
    assert f'src="../_static/{sphinx_site.MATHJAX}' in html
    assert not re.findall(
        r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]*', html
    )
    assert "THEBE_JS_URL" not in html and "sphinx-thebe.js" not in html
    script = equipped.folder / "_build" / "html" / "_static" / sphinx_site.MATHJAX
    assert script.stat().st_size > 1e6


def test_medals_in_text_are_drawings_and_those_in_code_stay(equipped):
    html = page_of(equipped, "notebooks/gradient")
    assert html.count('aria-label="gold medal"') == 1 and "🥇" not in html.split("<article")[1]
    assert html.count("🥈") == 1 and "silver" not in html


def test_a_page_has_one_heading_of_the_first_rank(equipped):
    html = page_of(equipped, "notebooks/gradient")
    assert len(re.findall("<h1", html)) == 1
    assert re.search(r'<h3[^>]*class="rubric"[^>]*>Board', html)


def test_launch_buttons_open_this_very_notebook(equipped):
    html = page_of(equipped, "notebooks/gradient")
    place = "github.com/owner/book"
    for link in (
        "https://mybinder.org/v2/gh/owner/book/main?urlpath=lab/tree/notebooks/gradient.ipynb",
        "https://colab.research.google.com/github/owner/book/blob/main/notebooks/gradient.ipynb",
    ):
        assert html.count(f'href="{link}"') == 1
    assert f"git clone --depth 1 --branch main https://{place} book" in re.sub("<[^>]*>", "", html)
    for page in ("intro", "docs/downloads"):  # no notebooks
        assert "colab" not in page_of(equipped, page)


def test_without_a_repository_no_page_speaks_of_launching(builds):
    for name, html in builds["run"][2].items():
        assert not re.search("colab|binder|git clone", html, re.IGNORECASE), name


def test_every_notebook_can_be_downloaded(equipped):
    for name in PAGES:
        link = re.search(
            rf'href="([^"]*_sources/[^"]*{name}\.ipynb)"', page_of(equipped, f"notebooks/{name}")
        )[1]
        file = equipped.folder / "_build" / "html" / "notebooks" / link
        source = equipped.folder / "notebooks" / f"{name}.ipynb"
        assert json.loads(file.read_text("utf-8")) == json.loads(source.read_text("utf-8"))


def test_the_pdf_is_linked_on_every_page_and_the_link_lands(equipped):
    for name in ("intro", "notebooks/gradient", "docs/downloads"):
        links = re.findall(rf'href="([^"]*{book_pdf.NAME})"', page_of(equipped, name))
        page = equipped.folder / "_build" / "html" / f"{name}.html"
        assert len(links) == 2  # in the menu and in the footer
        assert all((page.parent / link).read_bytes() == b"%PDF-1.4" for link in links)


def test_without_a_pdf_no_page_links_to_one(builds):
    for html in builds["run"][2].values():
        assert book_pdf.NAME not in html


def test_a_pdf_of_other_rows_pages_or_code_is_not_offered(tmp_path):
    folder = tmp_path / book_pdf.FOLDER
    folder.mkdir(parents=True)
    (folder / book_pdf.NAME).write_bytes(b"%PDF-1.4")
    assert book_pdf.current(tmp_path) is None  # nobody knows of what it was made
    for file in ("intro.md", "notebooks/a.ipynb", "results/laptop/digits/data.json", "docs/b.md"):
        (folder / "stamp").write_text(book_pdf._stamp(tmp_path))
        assert book_pdf.current(tmp_path) == folder / book_pdf.NAME
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("new")
        assert book_pdf.current(tmp_path) is None, file
